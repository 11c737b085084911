"""The description of the server says what the server does: every route, every status, every shape."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema_rs import validator_for  # comes with schemathesis
from tests.http.asking import Ask, opened
from tests.http.test_manage import as_named, said, talk, toy

from cairn import App
from cairn.framework.http import problems
from cairn.framework.http.auth import OPEN
from cairn.framework.http.openapi import describe
from cairn.framework.http.operations import ALWAYS, ERRORS, GRANTED, OPERATIONS
from cairn.framework.http.routes import ROUTES
from cairn.framework.http.schemas import CHUNKS
from cairn.framework.http.sockets import WEBSOCKET
from cairn.testing.scripted import Call, Fail

DOCUMENT = describe(ROUTES)
#: OpenAPI has no word for a WebSocket.
REQUESTED = [route for route in ROUTES if route.method != WEBSOCKET]


def schema(name: str) -> Any:
    """A validator of one of the document's shapes."""
    return validator_for({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


def test_every_route_is_in_the_document_and_every_operation_of_it_is_a_route() -> None:
    """One table, one description."""
    routes = {(route.path.replace("…", ""), route.method.lower()) for route in REQUESTED}
    described = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}

    assert routes == described
    assert {(route.method, route.path) for route in REQUESTED} == set(OPERATIONS)
    ids = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_document_is_valid_openapi() -> None:
    """By the specification's own schema, as schemathesis has it; and every reference leads somewhere."""
    import schemathesis

    schemathesis.openapi.from_dict(DOCUMENT).validate()
    references = re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', msgspec.json.encode(DOCUMENT).decode())
    assert set(references) <= set(DOCUMENT["components"]["schemas"])


def test_every_kind_of_problem_is_in_the_catalogue_with_its_status() -> None:
    """No error type is answered that no document names."""
    given: dict[str, Any] = {
        "details": "d", "path": "/", "method": "GET", "allowed": "POST", "kind": "k", "id": "i", "uid": "u",
        "submission": "s", "offset": "o", "next_offset": "n", "state": "starting", "ref": "r",
    }  # fmt: skip
    made = []
    for maker in vars(problems).values():
        if callable(maker) and getattr(maker, "__module__", "") == problems.__name__ and maker is not problems.Problem:
            names = maker.__code__.co_varnames[: maker.__code__.co_argcount]
            made.append(maker(**{name: given[name] for name in names if name in given}))

    assert len(made) > 15
    assert {problem.type: problem.status for problem in made}.items() <= {
        type: status for type, (status, _) in ERRORS.items()
    }.items()
    assert {*ALWAYS, *GRANTED} <= set(ERRORS)
    assert all(type in ERRORS for operation in OPERATIONS.values() for type in operation.errors)


def test_the_chunks_are_the_twelve() -> None:
    """P-wire: clients refuse any other."""
    assert len(CHUNKS) == 12


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_shape_is_a_schema_that_refuses_something(name: str) -> None:
    """A shape that everything fits says nothing."""
    shape = schema(name)

    assert not (shape.is_valid([]) and shape.is_valid(7) and shape.is_valid({"type": 7}))


def test_every_example_fits_its_shape() -> None:
    """What is shown as an example would be accepted, or could be answered."""
    shown = 0
    for name, shape in DOCUMENT["components"]["schemas"].items():
        for example in shape.get("examples", ()):
            assert not list(schema(name).iter_errors(example)), name
            shown += 1
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                validator = validator_for({**content["schema"], "components": DOCUMENT["components"]})
                assert validator.is_valid(content["example"]), operation["operationId"]
                shown += 1

    assert shown >= 4


# --- what is really answered ----------------------------------------------------------------------------------------


def test_real_answers_have_the_shapes_that_are_described() -> None:
    """Histories, every kind of update, lists, usage, forks: of a conversation in which much has happened."""

    async def main(app: App, ask: Ask) -> None:
        await said(app, "c", "Hello.", "And?")
        with pytest.raises(Exception, match="no such key"):
            await said(app, "c", "So?")
        sent = await ask("POST", "/agents/toy/c", {"kind": "signal", "type": "push", "body": "x", "attributes": {"a": "b"}})
        await app.conversation("toy", "c").reply(sent.json["submissionId"])
        fork = await ask("POST", "/agents/toy/c/fork", {"id": "d"})
        answers = {
            "Admission": sent,
            "Fork": fork,
            "History": await ask("GET", "/agents/toy/c"),
            "Agents": await ask("GET", "/agents"),
            "Conversations": await ask("GET", "/agents/toy?limit=1"),
            "Usage": await ask("GET", "/agents/toy/c/usage"),
            "Info": await ask("GET", "/info"),
            "Status": await ask("GET", "/ready"),
            "Aborted": await ask("POST", "/agents/toy/c/abort"),
            "Deleted": await ask("DELETE", "/agents/toy/d"),
        }
        for name, answer in answers.items():
            assert answer.status < 300
            assert not list(schema(name).iter_errors(answer.json)), name
        chunks = (await ask("GET", "/agents/toy/c?view=updates&offset=-1")).json
        chunk = schema("Chunk")
        assert [error.message for each in chunks for error in chunk.iter_errors(each)] == []
        assert len({each["type"] for each in chunks}) >= 9

    from cairn.errors import ModelError

    script = (Call("look"), "A tree.", "Fine.", Fail(ModelError("no such key", kind="auth")), "Pushed.")
    talk(main, [toy(*script)])


def test_a_shape_that_is_wrong_is_found() -> None:
    """The test above can fail."""
    assert list(schema("History").iter_errors({"v": 1}))
    assert list(schema("Chunk").iter_errors({"type": "invented", "conversationId": "c", "position": {"batch": 1, "index": 0}}))


# --- how it is served -----------------------------------------------------------------------------------------------


def test_the_document_is_open_and_says_nothing_of_what_the_server_has() -> None:
    """X11: not an agent's name; with authentication every route that needs a grant says so."""

    async def main(app: App, ask: Ask) -> None:
        answer = await ask("GET", "/openapi.json")

        assert answer.status == 200 and b"toy" not in answer.body
        assert answer.json["paths"]["/agents/{kind}/{id}"]["delete"]["security"] == [{"bearer": []}]
        assert answer.json["paths"]["/health"]["get"]["security"] == []
        assert "/chat" not in answer.json["paths"]

    talk(main, serve=False, auth=as_named)


def test_mounted_the_document_names_the_mount() -> None:
    """A client that is made from it calls the right paths."""

    async def run() -> None:
        async with opened(App([toy()], store=":memory:", serve=False, console=True), mount="/ai/x") as ask:
            found = (await ask("GET", "/openapi.json")).json
            page = await ask("GET", "/docs")

            assert found["servers"] == [{"url": "/ai/x"}] and "/chat" in found["paths"]
            assert b'href="/ai/x/openapi.json"' in page.body

    asyncio.run(run())


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("style", "src", "srcset") for name in found), found
        if href := found.get("href"):
            self.links.append(href)
        if id := found.get("id"):
            self.ids.add(id)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_x6_the_page_shows_every_route_and_runs_nothing() -> None:
    """X6: no script, no inline handler, no file of anybody's; its policy forbids them too, and allows its own style."""
    import base64
    import hashlib

    async def main(app: App, ask: Ask) -> None:
        answer = await ask("GET", "/docs")
        page = _Page()
        page.feed(answer.body.decode())

        assert not {"script", "img", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
        for route in REQUESTED:
            assert route.is_page or route.path.replace("…", "") in page.text
        assert all(link.startswith("#") and link[1:] in page.ids for link in page.links if link != "/openapi.json")
        style = re.search(rb"<style>(.*?)</style>", answer.body, re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1]).digest()).decode()
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and f"'sha256-{digest}'" in policy and "unsafe" not in policy

    talk(main, serve=False)


# --- what people read -----------------------------------------------------------------------------------------------


def test_the_page_of_the_documentation_names_every_route_and_every_error() -> None:
    """docs/http.md: nobody has to read the code to know what there is."""
    page = (Path(__file__).parent.parent.parent / "docs" / "http.md").read_text()

    for route in ROUTES:
        if not route.is_page:
            [line] = [line for line in page.splitlines() if re.search(rf"`{route.method} {re.escape(route.path)}[?`]", line)]
            assert route.grant is OPEN or line.endswith(f"| {route.grant.value} |"), route.path
    for type, (status, _) in ERRORS.items():
        [line] = [line for line in page.splitlines() if line.startswith("| ") and f"`{type}`" in line]
        assert str(status) in line, type
