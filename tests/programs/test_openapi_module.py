"""OpenAPI documents as functions: a real service, the document that its framework writes of it, requests over the network."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel
from tests.programs.scenes import until
from tests.programs.serving import serving

from cairn import Agent, App
from cairn.errors import ToolError, UsageError
from cairn.harness.code_stubs import declaration
from cairn.harness.openapi_document import operations
from cairn.harness.openapi_module import RESPONSE_BYTES_MAX, openapi
from cairn.harness.tools import Tool
from cairn.testing.scripted import Call, ScriptedModel

TOKEN = "Bearer very-secret-token"


class Item(BaseModel):
    name: str
    price: float
    tags: list[str] = []
    parent: Item | None = None


@dataclass
class Seen:
    requests: list[tuple[str, str]] = field(default_factory=list)
    keys: Counter[str] = field(default_factory=Counter)


def shop(seen: Seen) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def count(request: Request, call_next: Any) -> Any:
        if request.url.path != "/openapi.json":
            seen.requests.append((request.method, request.scope["path"]))
        return await call_next(request)

    @app.get("/items", operation_id="listItems")
    def list_items(tag: list[str] | None = None, limit: int = 10) -> list[Item]:
        """All items."""
        return [Item(name=f"item {number}", price=number) for number in range(limit)]

    @app.get("/items/{id}/{part}", operation_id="getPart")
    def part(id: str, part: str) -> dict[str, str]:
        return {"id": id, "part": part}

    @app.post("/items", operation_id="createItem")
    def create(item: Item, idempotency_key: str | None = Header(default=None)) -> Item:
        seen.keys[idempotency_key or ""] += 1
        return item

    @app.put("/items/{id}", operation_id="putItem")
    def put(id: str, item: Item) -> Item:
        return item

    @app.get("/whoami", operation_id="whoami")
    def whoami(request: Request) -> dict[str, str]:
        if request.headers.get("authorization") != TOKEN:
            raise HTTPException(401, "who are you?")
        return {"authorization": request.headers["authorization"]}

    @app.get("/away", operation_id="away")
    def away() -> Any:
        return RedirectResponse("http://169.254.169.254/latest/meta-data")

    @app.get("/huge", operation_id="huge")
    def huge() -> Any:
        return Response(b"x" * (RESPONSE_BYTES_MAX + 1), media_type="text/plain")

    @app.get("/slow", operation_id="slow")
    async def slow() -> str:
        await asyncio.sleep(30)
        return ""

    @app.get("/broken", operation_id="broken")
    def broken() -> Any:
        return Response(b"{", media_type="application/json")

    return app


@dataclass
class Place:
    url: str
    seen: Seen
    document: dict[str, Any]

    def tools(self, **options: Any) -> dict[str, Tool]:
        made = openapi(self.document, name="shop", base_url=options.pop("base_url", self.url), **options)
        return {tool.name: tool for tool in made}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    seen = Seen()
    app = shop(seen)
    with serving(app) as url:
        yield Place(url, seen, json.loads(json.dumps(app.openapi())))


class Caller:
    """The little of a call's context that these tools use."""

    def __init__(self, key: str = "k") -> None:
        self.key = key


def call(tool: Tool, key: str = "k", **arguments: Any) -> Any:
    return asyncio.run(tool.run(Caller(key), tool.validate(arguments)))


def refused(tool: Tool, **arguments: Any) -> str:
    with pytest.raises(ToolError) as raised:
        call(tool, **arguments)
    return str(raised.value)


def test_each_operation_is_a_typed_function_with_its_fields_as_parameters(place: Place) -> None:
    """The declaration a model reads: names, types, what comes back; a body's fields are parameters."""
    tools = place.tools()

    assert list(tools)[:4] == ["shop_list_items", "shop_create_item", "shop_get_part", "shop_put_item"]
    listed = declaration(tools["shop_list_items"].spec, "shop_list_items")
    created = declaration(tools["shop_create_item"].spec, "shop_create_item")
    assert "limit: int | None = None" in listed and "Returns: list[{name: str, price: float, tags: list[str]," in listed
    assert "name: str, price: float" in created and "idempotency_key" in created


def test_a_repeat_means_what_the_method_says(place: Place) -> None:
    """S9: reading is safe, PUT is keyed, POST is never repeated unless the service takes a key."""
    tools, keyed = place.tools(), place.tools(idempotency_header="Idempotency-Key")

    assert [tools[f"shop_{name}"].repeat for name in ("list_items", "put_item", "create_item")] == ["safe", "keyed", "never"]
    assert keyed["shop_create_item"].repeat == "keyed"
    for _ in range(2):
        call(keyed["shop_create_item"], key="the same", name="a", price=1)
    call(keyed["shop_create_item"], key="another", name="a", price=1)
    assert sorted(place.seen.keys.values()) == [1, 2] and "" not in place.seen.keys


def test_values_come_and_go_as_the_document_says(place: Place) -> None:
    """Path, query and body, over the network."""
    tools = place.tools()
    made = {"name": "chair", "price": 4.5, "tags": ["a"], "parent": {"name": "b", "price": 1}}

    assert len(call(tools["shop_list_items"], limit=3)) == 3
    assert call(tools["shop_create_item"], **made)["parent"]["name"] == "b"
    assert call(tools["shop_get_part"], id="a b", part="ü&?x=1#f") == {"id": "a b", "part": "ü&?x=1#f"}


@pytest.mark.parametrize("bad", ["..", ".", "", "../../admin", "a/../b", "%2e%2e", "\r\nHost: other"])
def test_an_argument_does_not_climb_out_of_its_path(place: Place, bad: str) -> None:
    """X2: what a program says stays one segment of the path, whatever is in it."""
    place.seen.requests.clear()
    try:
        answer = call(place.tools()["shop_get_part"], id="x", part=bad)
    except ToolError:
        answer = None
    assert all(path.startswith("/items/x/") for _, path in place.seen.requests), place.seen.requests
    assert answer is None or answer == {"id": "x", "part": bad}


def test_credentials_stay_in_the_host(place: Place) -> None:
    """An answer that repeats one is shown without it; without one there is no answer."""
    tool = place.tools(headers=lambda: {"Authorization": TOKEN})["shop_whoami"]
    assert call(tool) == {"authorization": "[hidden]"}
    assert TOKEN not in str(tool.spec)
    assert "401" in refused(place.tools()["shop_whoami"]) and "who are you?" in refused(place.tools()["shop_whoami"])


def test_answers_that_are_none_say_what_to_do(place: Place) -> None:
    """No redirect is followed, to the cloud's metadata least of all; too much, too late, not JSON: each in words."""
    tools = place.tools(timeout=0.5)
    assert "redirect; it is not followed" in refused(tools["shop_away"])
    assert "more than 1,000,000 bytes" in refused(tools["shop_huge"])
    assert "no answer within 0.5 s" in refused(tools["shop_slow"])
    assert "not JSON" in refused(tools["shop_broken"])
    assert "ConnectError" in refused(place.tools(base_url="http://127.0.0.1:9")["shop_whoami"])


@pytest.mark.parametrize("path", ["//evil.example/x", "/@evil.example/x", "/\\\\evil.example\\x", "/x?y=1", "/x#y"])
def test_a_documents_paths_do_not_lead_to_another_host(place: Place, path: str) -> None:
    """X2: a document that somebody else wrote is data; the origin is what its user said."""
    document = {"openapi": "3.1.0", "paths": {path: {"get": {"operationId": "go"}}}}
    place.seen.requests.clear()
    (tool,) = openapi(document, name="evil", base_url=place.url)
    assert "404" in refused(tool)
    assert [seen for _, seen in place.seen.requests] == [path]


@pytest.mark.parametrize("path", ["@evil.example/x", ":80@evil.example/", "evil.example/x", ""])
def test_a_path_that_is_none_is_refused(place: Place, path: str) -> None:
    """Before anything is offered."""
    with pytest.raises(UsageError, match="begins with"):
        openapi({"openapi": "3.1.0", "paths": {path: {"get": {}}}}, name="evil", base_url=place.url)


def test_a_document_that_refers_to_itself_or_out_of_itself() -> None:
    """A recursive type ends; what lies elsewhere is refused in words; so is what is no document."""
    loop = {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/Node"}, "n": {"type": "integer"}}}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}, "required": True}
    paths = {"/n": {"post": {"requestBody": body}}}
    (found,) = operations({"openapi": "3.0.0", "paths": paths, "components": {"schemas": {"Node": loop}}})
    assert found.name == "post_n" and [each.name for each in found.arguments] == ["child", "n"]
    for document in (
        {"openapi": "3.0.0", "paths": paths},
        {"swagger": "2.0"},
        {"openapi": "3.1.0", "paths": {"/": {"$ref": "http://x"}}},
    ):
        with pytest.raises(UsageError):
            list(operations(document))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "ftp://x"}, "http"),
        ({"base_url": "https://u:p@x"}, "credentials"),
        ({"base_url": None}, "absolute address"),
        ({"only": ["nope"]}, "no operation 'nope'"),
    ],
)
def test_what_cannot_work_is_said_where_it_is_written(place: Place, options: dict[str, Any], words: str) -> None:
    """Each mistake names itself."""
    with pytest.raises(UsageError, match=words):
        place.tools(**options)


def test_a_program_uses_a_service_and_asks_before_one_of_its_operations(place: Place, tmp_path: Path) -> None:
    """Typed functions in code mode: a type error comes back before anything is sent; a call that a person must allow waits."""
    (tmp_path / "shop.json").write_text(json.dumps(place.document))
    tools = openapi(
        tmp_path / "shop.json", name="shop", base_url=place.url, only=["list_items", "create_item"], approve=["create_item"]
    )
    program = (
        "items = await shop_list_items(limit=4)\n"
        "made = await shop_create_item(name='all', price=sum(each['price'] for each in items))\nmade['price']"
    )
    model = ScriptedModel(
        [Call("run_program", {"code": "await shop_list_items(limit='x')"}), Call("run_program", {"code": program}), "Done."]
    )
    agent = Agent("clerk", model=model, tools=tools, codemode=True)

    async def main() -> None:
        async with App([agent], store=tmp_path / "c.db") as app:
            conversation = app.conversation(agent, "c")
            receipt = await conversation.send("Go.")
            async with asyncio.timeout(20):
                (question,) = await until(conversation.questions)
            assert (question.tool, question.arguments) == ("shop_create_item", {"name": "all", "price": 6})
            await conversation.approve(question.call, digest=question.digest, by="ann")
            assert (await asyncio.wait_for(receipt.reply(), 20)).text == "Done."

    place.seen.requests.clear()
    asyncio.run(main())
    assert place.seen.requests == [("GET", "/items"), ("POST", "/items")]
