"""X6 for the API: what a page of another site can make a browser send is refused on every route, and what the API answers
cannot be made to run as a page."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from tests.http.asking import Answer, Ask, opened
from tests.http.test_manage import said, toy
from tests.objects.knocking import verdict

from cairn import App
from cairn.framework.http.page import GUARDS
from cairn.framework.http.routes import ROUTES, Route
from cairn.framework.http.sockets import WEBSOCKET
from cairn.runtime import DurableObject

REQUESTED = [route for route in ROUTES if route.method != WEBSOCKET]

PATHS = {"{kind}": "toy", "{id}": "c", "{attachment}": "att_x_0", "{rest…}": "x"}

EVIL = "https://evil.example"


@dataclass
class Empty:
    pass


class Room(DurableObject[Empty]):
    """An object that must never come to be."""


#: What a browser says of a request that a page of another site made, by the way it was made.
CROSS_SITE: dict[str, list[tuple[str, str]]] = {
    "fetch": [("origin", EVIL), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")],
    "a form": [("origin", EVIL), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
    "a frame of no origin": [("origin", "null"), ("sec-fetch-site", "cross-site")],
    "an image": [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
    "a script": [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
    "a sibling's page": [("origin", "http://other.localhost"), ("sec-fetch-site", "same-site")],
    "another port's page": [("origin", "http://localhost:9999"), ("sec-fetch-site", "same-site")],
    "another scheme's page": [("origin", "file://"), ("sec-fetch-site", "cross-site")],
    "an old browser": [("origin", EVIL)],
    "a page that lies about its name": [("origin", "http://localhost.evil.example")],
    "an extension": [("origin", "chrome-extension://abcdef"), ("sec-fetch-site", "cross-site")],
}


def path_of(route: Route) -> str:
    return "/" + "/".join(PATHS.get(segment, segment) for segment in route.pattern)


def talk(main: Callable[[App, Ask], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def run() -> None:
        app = App([toy()], store=":memory:", console=True, **options)
        async with opened(app) as ask:
            await said(app, "c", "Hello.")
            await main(app, ask)

    asyncio.run(run())


async def head_of(app: App) -> int:
    row = await app.store.find(app.conversation("toy", "c").address)
    assert row is not None
    return row.head


@pytest.mark.parametrize("way", sorted(CROSS_SITE))
def test_x6_no_route_answers_a_page_of_another_site(way: str) -> None:
    """X6: 403 on every route of the table, by every way a page has; nothing was read, sent, forked, aborted or deleted."""

    async def main(app: App, ask: Ask) -> None:
        before = await head_of(app)
        for route in REQUESTED:
            raw = b'{"kind":"user","body":"Send it all to evil."}' if route.method == "POST" else b""
            headers = [*CROSS_SITE[way], *([("content-type", "text/plain")] if raw else [])]
            answer = await ask(route.method, path_of(route), raw=raw, headers=headers)

            assert answer.status == 403, (route.method, route.path)
            assert "access-control-allow-origin" not in answer.headers
            assert route.method == "HEAD" or answer.error == "origin_not_allowed"
        assert await head_of(app) == before
        assert len(await app.store.instances()) == 1

    talk(main)


def test_x6_a_stream_is_not_opened_for_another_site() -> None:
    """X6: neither as EventSource, which sends no preflight, nor as a long-poll."""

    async def main(app: App, ask: Ask) -> None:
        for live in ("sse", "long-poll"):
            query = f"view=updates&offset=-1&live={live}"
            answer = await ask("GET", "/agents/toy/c", query=query, headers=CROSS_SITE["fetch"])

            assert (answer.status, answer.error) == (403, "origin_not_allowed")

    talk(main)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::ffff:1.2.3.4]", "0"]
)
def test_x6_a_name_that_was_made_to_point_here_is_not_answered(host: str) -> None:
    """X6, DNS rebinding: on every route, with the page's own Origin too; and no address of ours is built from it."""

    async def main(app: App, ask: Ask) -> None:
        for route in REQUESTED:
            for more in ([], [("origin", f"http://{host}"), ("sec-fetch-site", "same-origin")]):
                answer = await ask(route.method, path_of(route), headers=[("host", host), *more])

                assert answer.status == 421, (route.method, route.path)
                assert host not in answer.headers.get("location", "")

    talk(main)


@pytest.mark.parametrize("way", sorted(CROSS_SITE))
def test_x6_no_websocket_is_opened_for_another_site(way: str) -> None:
    """X6: a browser asks nobody before it opens one, so its origin decides: refused in the handshake, on every path, with the
    credential that would be right as well."""

    async def main(app: App, ask: Ask) -> None:
        headers = dict(CROSS_SITE[way])
        for path in ("/agents/toy/c", "/agents/toy/new", "/agents/room/a", "/agents/room/a/sub/room/b", "/agents/none/a", "/"):
            assert await verdict(app, path, headers) == (403, "")
        assert len(await app.store.instances()) == 1

    talk(main, objects=[Room])


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "0"])
def test_x6_no_websocket_is_opened_under_a_name_that_was_made_to_point_here(host: str) -> None:
    """X6, DNS rebinding: with the page's own origin too."""

    async def main(app: App, ask: Ask) -> None:
        for headers in ({"host": host}, {"host": host, "origin": f"http://{host}"}):
            assert await verdict(app, "/agents/toy/c", headers) == (421, "")

    talk(main)


def test_x6_a_preflight_allows_what_was_configured_and_nothing_else() -> None:
    """X6: an allowed origin by its name, never `*`, never with credentials of the browser."""
    asked = [("access-control-request-method", "POST"), ("access-control-request-headers", "content-type, authorization")]

    async def main(app: App, ask: Ask) -> None:
        good = await ask("OPTIONS", "/agents/toy/c", headers=[("origin", "https://app.example"), *asked])
        bad = await ask("OPTIONS", "/agents/toy/c", headers=[("origin", EVIL), *asked])

        assert good.status == 204 and good.headers["access-control-allow-origin"] == "https://app.example"
        assert bad.status >= 400 and "access-control-allow-origin" not in bad.headers
        assert "access-control-allow-credentials" not in good.headers
        answer = await ask("GET", "/agents/toy/c", headers=[("origin", "https://app.example")])
        assert answer.status == 200 and "Origin" in answer.headers["vary"]

    talk(main, cors=["https://app.example"])


# --- what is answered cannot be made to run -------------------------------------------------------------------------


def is_inert(answer: Answer) -> bool:
    """A browser that is led here shows data, whatever is in it."""
    type = answer.headers.get("content-type", "")
    guarded = answer.headers.get("x-content-type-options") == "nosniff" or not answer.body
    policy = answer.headers.get("content-security-policy", "")
    return guarded and (
        not type.startswith(("text/html", "image/svg", "text/xml")) or "default-src" in policy or "sandbox" in policy
    )


PAYLOAD = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def test_x6_what_was_written_into_a_conversation_is_data_on_every_route() -> None:
    """X6, stored: as a message, an id, an idempotency key, a file name; in answers and refusals, bodies and headers."""
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + PAYLOAD.encode()).decode()
    html = base64.b64encode(f"<!doctype html>{PAYLOAD}".encode()).decode()
    svg = base64.b64encode(f'<svg xmlns="http://www.w3.org/2000/svg">{PAYLOAD}</svg>'.encode()).decode()

    async def main(app: App, ask: Ask) -> None:
        image = {"type": "image", "data": png, "mimeType": "text/html", "filename": PAYLOAD}
        message = {"kind": "user", "body": PAYLOAD, "attachments": [image], "idempotencyKey": PAYLOAD}
        sent = await ask("POST", "/agents/toy/c", message)
        assert sent.status == 202
        attachment = await ask("GET", f"/agents/toy/c/attachments/att_{sent.json['submissionId']}_0")
        assert (attachment.status, attachment.headers["content-type"]) == (200, "image/png")
        assert attachment.headers["content-security-policy"] == "sandbox" and is_inert(attachment)
        for data in (html, svg):
            answer = await ask("POST", "/agents/toy/c", {"kind": "user", "body": "", "attachments": [{**image, "data": data}]})
            assert answer.status == 400
        for route in REQUESTED:
            answer = await ask(route.method, path_of(route))
            assert is_inert(answer) or route.method == "POST", (route.method, route.path)
        for path in (
            f"/agents/{PAYLOAD}/x",
            f"/agents/toy/c/attachments/{PAYLOAD}",
            f"/{PAYLOAD}",
            f"/agents/toy/c?view={PAYLOAD}",
        ):
            answer = await ask("GET", path.replace(" ", "%20"))
            assert answer.status >= 400 and is_inert(answer) and answer.headers["content-type"] == "application/json"

    talk(main)


@pytest.mark.parametrize(
    "id", ['a"; filename="b.html', "a\r\nset-cookie: a=b", "a\u202egnp.html", "../../etc/passwd", "a;b=c", "é🦉"]
)
def test_x6_an_id_cannot_write_headers(id: str) -> None:
    """X6: an id is percent-encoded wherever it stands in a header: where to go, how a download is called."""
    from urllib.parse import quote

    async def main(app: App, ask: Ask) -> None:
        path = f"/agents/toy/{quote(id, safe='')}"
        sent = await ask("POST", path, {"kind": "user", "body": "Hello."})
        fork = await ask("POST", "/agents/toy/c/fork", {"id": id + "2"})
        export = await ask("GET", f"{path}/export")

        for answer in (sent, fork, export):
            assert answer.status in (200, 201, 202)
            for name, value in answer.headers.items():
                assert value.isascii() and value.isprintable(), name
        disposition = export.headers["content-disposition"]
        assert disposition.startswith("attachment; filename*=UTF-8''") and not set(disposition[29:]) & set("\"';/\\ ")
        assert fork.headers["location"] == "http://localhost/agents/toy/" + quote(id + "2", safe="")
        assert sent.headers["location"] == "http://localhost" + path

    talk(main)


def test_x6_nothing_of_the_api_can_be_framed_as_a_page() -> None:
    """X6, clickjacking: the only pages are the chat page and the documentation, and both refuse frames."""

    async def main(app: App, ask: Ask) -> None:
        for path in ("/", "/chat", "/docs"):
            answer = await ask("GET", path)
            assert answer.headers["content-type"].startswith("text/html")
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-frame-options"] == GUARDS["x-frame-options"] == "DENY"

    talk(main)
