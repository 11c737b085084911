"""The way of a request through the App: mounted or alone, open or not, and what a failure becomes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from cairn import Agent, App
from cairn.framework.http import problems
from cairn.framework.http.routes import ROUTES
from cairn.testing.scripted import ScriptedModel

HELLO = {"kind": "user", "body": "Hello."}


def echo() -> Agent[None]:
    return Agent("echo", model=ScriptedModel(lambda request: "I heard you."))


@asynccontextmanager
async def client_of(asgi: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(asgi, raise_app_exceptions=False, **options)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def run(test: Callable[[App, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with App(agents=[echo()], store=":memory:") as app, client_of(app) as client:
            await asyncio.wait_for(test(app, client), 20)

    asyncio.run(main())


# --- mounted --------------------------------------------------------------------------------------------------------


def fastapi_host(app: App) -> Any:
    host = FastAPI(lifespan=app.lifespan)
    host.mount("/ai/v 1", app)
    return host


def starlette_host(app: App) -> Any:
    return Starlette(routes=[Mount("/ai/v 1", app)], lifespan=app.lifespan)


@pytest.mark.parametrize("host", [fastapi_host, starlette_host])
def test_a_mounted_app_is_opened_by_its_host_and_says_addresses_below_the_mount(host: Callable[[App], Any]) -> None:
    """S1: `streamUrl` is followed verbatim by clients, so it has to be where the conversation is."""

    async def main() -> None:
        outer = host(App(agents=[echo()], store=":memory:"))
        async with outer.router.lifespan_context(outer), client_of(outer) as client:
            sent = await client.post("/ai/v%201/agents/echo/a%2Fb", json=HELLO)
            assert sent.status_code == 202
            url = sent.json()["streamUrl"]
            assert url == "http://localhost/ai/v%201/agents/echo/a%2Fb" == sent.headers["location"]

            read = await client.get(url, params={"view": "history"})
            listed = await client.get("/ai/v%201/agents/echo")

            assert read.json()["messages"][0]["parts"][0]["text"] == "Hello."
            assert [each["id"] for each in listed.json()["conversations"]] == ["a/b"]
            assert (await client.get(listed.json()["conversations"][0]["url"])).status_code == 200

    asyncio.run(main())


def test_an_app_that_nobody_opened_says_how_to_open_it() -> None:
    """L6: 503 and not a traceback; its health can be asked for all the same."""

    async def main() -> None:
        async with client_of(App(agents=[echo()], store=":memory:")) as client:
            refused = await client.post("/agents/echo/1", json=HELLO)
            ready = await client.get("/ready")

            assert refused.status_code == ready.status_code == 503
            assert refused.json()["error"]["meta"] == {"state": "starting"}
            assert "lifespan=app.lifespan" in refused.json()["error"]["details"]
            assert refused.headers["retry-after"] == "1"
            assert (await client.get("/health")).json() == {"status": "ok"}

    asyncio.run(main())


def test_the_lifespan_opens_and_closes_the_app_and_says_why_it_cannot() -> None:
    """L6: under any ASGI server; a mistake in what was configured is the server's start that fails, with one sentence."""

    async def live(app: App) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        turns = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> dict[str, Any]:
            return next(turns)

        async def send(message: Any) -> None:
            said.append(dict(message))

        await app({"type": "lifespan"}, receive, send)
        return said

    right = asyncio.run(live(App(agents=[echo()], store=":memory:")))
    wrong = asyncio.run(live(App(agents=[echo()], store=":memory:", cors=["example.com"])))

    assert [each["type"] for each in right] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert [each["type"] for each in wrong] == ["lifespan.startup.failed"]
    assert "'example.com' is no origin" in wrong[0]["message"]


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_what_is_not_there_and_what_is_not_possible_are_said() -> None:
    """X5: every refusal is the same envelope; HEAD has its status and no body."""

    async def test(app: App, client: httpx.AsyncClient) -> None:
        nowhere = await client.get("/nowhere")
        unknown = await client.get("/agents/nobody/1")
        wrong = await client.put("/agents/echo/1")
        options = await client.options("/agents/echo/1/abort")
        blank = await client.get("/agents/echo/%20")
        absent = await client.get("/agents/echo/1")
        head = await client.head("/agents/echo/1")

        kinds = [each.json()["error"]["type"] for each in (nowhere, unknown, wrong, options, blank, absent)]
        assert kinds == [
            "route_not_found", "route_not_found", "method_not_allowed", "method_not_allowed", "invalid_request",
            "stream_not_found",
        ]  # fmt: skip
        assert [each.status_code for each in (nowhere, unknown, wrong, blank, absent, head)] == [404, 404, 405, 400, 404, 404]
        assert wrong.headers["allow"] == "DELETE, GET, HEAD, POST"
        assert options.headers["allow"] == "POST"
        assert "agents/echo/1" in absent.json()["error"]["message"]
        assert head.content == b""
        assert all(each.headers["x-content-type-options"] == "nosniff" for each in (nowhere, wrong, absent, head))

    run(test)


def test_an_unexpected_failure_shows_nothing_of_itself_and_can_be_found_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """X8: 500 with a reference, and the traceback under that reference in the log."""

    async def test(app: App, client: httpx.AsyncClient) -> None:
        async def fail(*_: object) -> None:
            raise RuntimeError("the password is swordfish")

        monkeypatch.setattr(app.store, "find", fail)
        with caplog.at_level(logging.ERROR, "cairn.http"):
            answer = await client.get("/agents/echo/1")

        error = answer.json()["error"]
        assert answer.status_code == 500 and error["type"] == "internal_error"
        assert "swordfish" not in answer.text
        assert answer.headers["flue-error-ref"] == error["ref"]
        assert error["ref"] in caplog.text and "swordfish" in caplog.text

    run(test)


@pytest.mark.parametrize(("given", "kept"), [("abc123", True), ("a b", False), ("x" * 200, False), ("", False)])
def test_a_request_has_an_id_of_the_clients_or_ours(given: str, kept: bool) -> None:
    """X8: what a client sends as an id cannot put anything else into the log."""

    async def test(app: App, client: httpx.AsyncClient) -> None:
        answer = await client.get("/health", headers={"x-request-id": given})

        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.headers["x-request-id"]

    run(test)


def test_the_page_is_only_there_when_it_is_asked_for() -> None:
    async def test(app: App, client: httpx.AsyncClient) -> None:
        assert (await client.get("/")).status_code == 404
        async with App(agents=[echo()], store=":memory:", console=True) as shown, client_of(shown) as other:
            page = await other.get("/chat/echo/1")
            assert page.status_code == 200
            assert "default-src 'self'" in page.headers["content-security-policy"]

    run(test)


def test_a_server_that_stops_lets_its_readers_go_at_once() -> None:
    """L6: a long-poll is answered with what there is, a live stream ends; both come back with their offset."""

    async def main() -> None:
        app = App(agents=[echo()], store=":memory:")
        async with app, client_of(app) as client:
            await client.post("/agents/echo/1", json=HELLO)
            await app.conversation("echo", "1").reply((await _submissions(client))[0])
            head = (await client.get("/agents/echo/1")).headers["stream-next-offset"]
            waiting = [
                asyncio.create_task(client.get("/agents/echo/1", params={"view": "updates", "offset": head, "live": live}))
                for live in ("long-poll", "sse")
            ]
            await asyncio.sleep(0.2)
            assert not any(task.done() for task in waiting)
            app.http.stop()
            polled, streamed = await asyncio.wait_for(asyncio.gather(*waiting), 5)
            late = await client.get("/agents/echo/1")

        assert polled.status_code == 200 and polled.headers["stream-up-to-date"] == "true"
        assert streamed.text.startswith("event: data\ndata:[") and "event: control" in streamed.text
        assert late.status_code == 503 and late.json()["error"]["meta"] == {"state": "stopping"}

    asyncio.run(main())


async def _submissions(client: httpx.AsyncClient) -> list[str]:
    history = (await client.get("/agents/echo/1")).json()
    return [message["submissionId"] for message in history["messages"] if message["role"] == "user"]


# --- the table ------------------------------------------------------------------------------------------------------


def test_every_route_is_found_by_its_own_path() -> None:
    """X5: no route hides another, and each one names what it needs."""
    from cairn.framework.http import routes

    for route in ROUTES:
        segments = tuple("x" if part.startswith("{") else part for part in route.pattern)
        found, _ = routes.find(route.method, segments, page=True, objects={"x"} if route.is_object else ())
        assert found is route
        assert route.grant is None or route.grant in routes.Grant


def test_a_problem_is_what_clients_read() -> None:
    """The envelope: type, message and details always, meta and ref when there are any."""
    plain = problems.invalid_request("why").body()
    full = problems.offset_gone("1_9", "1_2").body()

    assert plain == b'{"error":{"type":"invalid_request","message":"Request is malformed.","details":"why"}}'
    assert b'"meta":{"offset":"1_9","nextOffset":"1_2"}' in full
