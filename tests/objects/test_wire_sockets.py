"""Who gets a WebSocket, what a refusal looks like to the published client, and what ends one that is open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.objects.knocking import knock, verdict

from cairn import Agent, App
from cairn.framework.http import problems
from cairn.framework.http.auth import Grant, Identity
from cairn.framework.http.chat import AgentChat
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.sockets import chosen, closing, code_of
from cairn.framework.http.tokens import Tokens, create
from cairn.testing.scripted import ScriptedModel

Main = Callable[[App], Awaitable[None]]

ALL = tuple(Grant)


def in_app(main: Main, **given: Any) -> None:
    """Run with an open App that has one agent, `echo`."""

    async def run() -> None:
        app = App(agents=[Agent("echo", model=ScriptedModel(lambda request: "hi"))], store=":memory:", **given)
        async with app:
            app.http  # noqa: B018 - as a server does
            await main(app)

    asyncio.run(run())


async def token_of(app: App, name: str = "caller", grants: tuple[Grant, ...] = ALL, **more: Any) -> str:
    return await create(app.store, app.clock, name, grants, **more)


# --- coming in ------------------------------------------------------------------------------------------------------


def test_whoever_connects_is_told_to_whom() -> None:
    """The identity is the name as the client wrote it in the URL, under which it comes back; ids are decoded for ourselves."""

    async def main(app: App) -> None:
        for mount in ("", "/ai", "/a b"):
            async with knock(app, "/agents/echo/a%20b%2Fc", mount=mount) as line:
                await line.until(lambda: len(line.frames) >= 2)
                first, *_ = line.frames
                assert first == {"type": "cf_agent_identity", "name": "a%20b%2Fc", "agent": "echo"}
                assert line.said("cf_agent_mcp_servers")[0]["mcp"] == {
                    "servers": {},
                    "tools": [],
                    "prompts": [],
                    "resources": [],
                }

    in_app(main)


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("/agents/nobody/a", "no such agent"),
        ("/agents/echo", "route_not_found"),
        ("/agents/echo/a/further", "route_not_found"),
        ("/chat", "route_not_found"),
        ("/agents/echo/", "route_not_found"),
        ("/agents/echo/a?_pk=" + "x" * 200, "invalid_request"),
        ("/agents/echo/a?_pk=%07", "invalid_request"),
        ("/agents/echo/%ff", "invalid_request"),
        ("/agents/echo/a?token=cairn_x", "invalid_request: A credential must not be in the URL"),
    ],
)
def test_what_stays_wrong_is_closed_so_that_the_client_stops(target: str, what: str) -> None:
    """1008, and in the reason what any other request is told; the published client does not come back after it."""

    async def main(app: App) -> None:
        found = await verdict(app, target)
        assert found is not None
        code, reason = found
        assert code == 1008 and what in reason
        assert len(reason.encode()) <= 123

    in_app(main)


def test_a_refusal_that_may_be_right_later_lets_the_client_come_back() -> None:
    """429, 503 and 507 are 1013, a server that stops 1012, what went wrong here 1011; everything else stays wrong."""
    assert code_of(problems.too_many_requests("x")) == 1013
    assert code_of(problems.unavailable("busy", "x")) == 1013
    assert code_of(problems.insufficient_storage("x")) == 1013
    assert code_of(problems.unavailable("stopping", "x")) == 1012
    assert code_of(problems.internal("err_1")) == 1011
    assert {code_of(each) for each in (problems.forbidden("x"), problems.unauthorized("x"), problems.invalid_json("x"))} == {
        1008
    }


def test_a_reason_is_cut_between_characters() -> None:
    """A control frame has room for 123 bytes; half a character is no text, and a client hangs up with 1007."""
    message = closing(1008, "é" * 100)
    assert len(message["reason"].encode()) == 122
    assert closing(1006, "")["code"] == 1000, "a code that is never sent"


def test_a_page_of_another_site_gets_no_socket() -> None:
    """X6: a WebSocket is not asked for permission by the browser: its origin is all there is, and the handshake is refused."""

    async def main(app: App) -> None:
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://localhost.evil.example"},
            {"sec-fetch-site": "cross-site"},
        ):
            assert await verdict(app, "/agents/echo/a", headers) == (403, "")
        assert await verdict(app, "/agents/echo/a", {"host": "evil.example", "origin": "http://evil.example"}) == (421, "")
        assert await verdict(app, "/agents/echo/a", {"origin": "http://localhost"}) is None
        assert await verdict(app, "/agents/echo/a", {"origin": "https://app.example"}) is None

    in_app(main, cors=["https://app.example"])


def test_only_this_machine_is_let_in_without_authentication() -> None:
    """X5: the default, for sockets as for requests."""

    async def main(app: App) -> None:
        found = await verdict(app, "/agents/echo/a", client="203.0.113.9")
        assert found is not None and found[0] == 1008
        assert await verdict(app, "/agents/echo/a") is None

    in_app(main)


# --- credentials ----------------------------------------------------------------------------------------------------


def test_a_token_comes_in_a_header_or_as_a_subprotocol() -> None:
    """A browser cannot set the header; what it is given as the subprotocol is never the token."""

    async def main(app: App) -> None:
        token = await token_of(app)
        async with knock(app, "/agents/echo/a", {"authorization": f"Bearer {token}"}) as line:
            await line.until(lambda: line.frames)
            assert line.subprotocol is None
        async with knock(app, "/agents/echo/a", subprotocols=["cairn", f"cairn.token.{token}"]) as line:
            await line.until(lambda: line.frames)
            assert line.subprotocol == "cairn"
        for wrong in ([], ["cairn"], ["cairn", "cairn.token."], ["cairn", f"cairn.token.{token}x"]):
            found = await verdict(app, "/agents/echo/a", subprotocols=wrong)
            assert found is not None and found[0] == 1008 and "unauthorized" in found[1]

    in_app(main, auth=Tokens())


def test_two_credentials_are_none() -> None:
    """X13: one of them beside another is no way around the count of wrong ones."""

    async def main(app: App) -> None:
        token = await token_of(app)
        for headers, offered in (
            ({"authorization": f"Bearer {token}"}, [f"cairn.token.{token}"]),
            ({}, [f"cairn.token.{token}", "cairn.token.other"]),
        ):
            found = await verdict(app, "/agents/echo/a", headers, subprotocols=offered)
            assert found is not None and found[0] == 1008 and "More than one" in found[1]

    in_app(main, auth=Tokens())


def test_guesses_are_counted_wherever_they_are() -> None:
    """X13: by header and by subprotocol, they fill one bucket; then the answer is 1013, whatever comes."""

    async def main(app: App) -> None:
        codes = []
        for number in range(24):
            guess = f"cairn_{number:040}"
            by_header = {"authorization": f"Bearer {guess}"} if number % 2 else {}
            found = await verdict(app, "/agents/echo/a", by_header, subprotocols=[] if by_header else [f"cairn.token.{guess}"])
            assert found is not None
            codes.append(found[0])
        assert codes == [1008] * 20 + [1013] * 4

    in_app(main, auth=Tokens())


def test_a_token_in_the_url_has_to_be_allowed() -> None:
    """It is in histories and logs; who allows it takes it there, and the object never sees it."""

    async def allowed(app: App) -> None:
        token = await token_of(app)
        async with knock(app, f"/agents/echo/a?x=1&token={token}&y=2") as line:
            await line.until(lambda: line.frames)
        assert (await verdict(app, "/agents/echo/a?token=wrong") or (0, ""))[0] == 1008

    async def by_default(app: App) -> None:
        token = await token_of(app)
        found = await verdict(app, f"/agents/echo/a?token={token}")
        assert found is not None and found[0] == 1008 and "must not be in the URL" in found[1]

    in_app(allowed, auth=Tokens(), token_in_query=True)
    in_app(by_default, auth=Tokens())


def test_what_is_chosen_of_the_subprotocols_is_the_token_only_if_nothing_else_is_there() -> None:
    """A browser fails a connection that picks none of what it offered."""
    assert chosen({"subprotocols": []}) is None
    assert chosen({"subprotocols": ["cairn.token.x", "mine", "cairn"]}) == "cairn"
    assert chosen({"subprotocols": ["cairn.token.x", "mine"]}) == "mine"
    assert chosen({"subprotocols": ["cairn.token.x"]}) == "cairn.token.x"


def test_a_revoked_token_ends_its_sockets_within_five_seconds() -> None:
    """X11: 1008, as it would be refused from now on."""

    async def main(app: App) -> None:
        token, other = await token_of(app), await token_of(app, "other")
        headers = {"authorization": f"Bearer {token}"}
        async with (
            knock(app, "/agents/echo/a", headers) as line,
            knock(app, "/agents/echo/a", {"authorization": f"Bearer {other}"}) as stays,
        ):
            await line.until(lambda: line.frames)
            await stays.until(lambda: stays.frames)
            await app.store.delete_token("caller")
            code, reason = await line.end()
            assert (code, reason.partition(":")[0]) == (1008, "unauthorized")
            assert stays.closed is None

    limits = HttpLimits(identity_seconds=0.02, identity_recheck_seconds=0.05)
    assert HttpLimits().identity_seconds + HttpLimits().identity_recheck_seconds <= 5.0
    in_app(main, auth=Tokens(), limits=limits)


# --- how much -------------------------------------------------------------------------------------------------------


def test_one_caller_has_so_many_sockets_at_a_time() -> None:
    """X7: one more is told to come later; when one has left there is room again."""

    async def main(app: App) -> None:
        headers = {"authorization": f"Bearer {await token_of(app)}"}
        async with knock(app, "/agents/echo/a", headers) as one, knock(app, "/agents/echo/b", headers) as two:
            await one.until(lambda: one.frames)
            await two.until(lambda: two.frames)
            found = await verdict(app, "/agents/echo/c", headers)
            assert found is not None and found[0] == 1013
            await one.leave()
            assert await verdict(app, "/agents/echo/c", headers) is None

    in_app(main, auth=Tokens(), limits=HttpLimits(readers_per_token=2))


def test_a_client_that_takes_nothing_is_closed() -> None:
    """X7: what it is sent waits for a moment and is not piled up; nobody else waits for it."""

    async def main(app: App) -> None:
        async with knock(app, "/agents/echo/a") as stuck, knock(app, "/agents/echo/a") as good:
            await stuck.until(lambda: len(stuck.frames) >= 2)
            await good.until(lambda: len(good.frames) >= 2)
            stuck.stick()
            for number in range(50):
                stuck.say({"type": "rpc", "id": str(number), "method": "x", "args": []})
            assert (await good.call("x"))["error"] == "Method x does not exist"
            await asyncio.wait((stuck.task,), timeout=10)
            assert stuck.task.done() and not stuck.said("rpc")

    in_app(main, limits=HttpLimits(socket_stall_seconds=0.1))


def test_when_the_server_stops_its_sockets_are_told_to_come_back() -> None:
    """1012 at once, and nobody new gets in."""

    async def main(app: App) -> None:
        async with knock(app, "/agents/echo/a") as line:
            await line.until(lambda: line.frames)
            app.http.stop()
            assert await line.end() == (1012, "the server stops")
            found = await verdict(app, "/agents/echo/a")
            assert found is not None and found[0] == 1012

    in_app(main)


def test_who_connects_before_the_app_is_open_may_come_back() -> None:
    """1013: it is not wrong to ask, it is early."""

    async def run() -> None:
        app = App(agents=[Agent("echo", model=ScriptedModel(["x"]))], store=":memory:")
        found = await verdict(app, "/agents/echo/a")
        assert found is not None and found[0] == 1013

    asyncio.run(run())


def test_what_fails_while_it_is_open_closes_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words, after the handshake: no second handshake, and no code that says that all was well."""
    failures = iter([problems.unavailable("busy", "the store is held"), ValueError("hunter2")])

    async def broken(chat: AgentChat) -> None:
        raise next(failures)

    async def main(app: App) -> None:
        for code, words in ((1013, "runtime_unavailable: the store is held"), (1011, "internal_error")):
            async with knock(app, "/agents/echo/a") as line:
                closed, reason = await line.end()
                assert line.is_open and closed == code and reason.startswith(words) and "hunter2" not in reason

    monkeypatch.setattr(AgentChat, AgentChat.opened.__name__, broken)
    in_app(main)


def test_a_credential_that_cannot_be_looked_at_ends_its_sockets() -> None:
    """X11: what is not known to hold does not go on; 1013, because nobody said that it does not."""

    class Auth:
        def __call__(self, credentials: Any) -> Identity:
            return Identity("ann", grants=frozenset(Grant))

        async def still_valid(self, identity: Identity) -> bool:
            raise ConnectionError("the directory is down")

    async def main(app: App) -> None:
        async with knock(app, "/agents/echo/a") as line:
            await line.until(lambda: line.frames)
            assert await line.end() == (1013, "the credential could not be looked at")

    in_app(main, auth=Auth(), limits=HttpLimits(identity_recheck_seconds=0.02))


def test_who_says_too_much_is_heard_more_slowly() -> None:
    """X7: nothing is refused, and nothing is lost; what is above the caller's rate waits where it came from."""

    async def main(app: App) -> None:
        headers = {"authorization": f"Bearer {await token_of(app)}"}
        async with knock(app, "/agents/echo/a", headers) as line:
            for number in range(60):
                line.say({"type": "rpc", "id": str(number), "method": "x", "args": []})
            began = app.clock.monotonic()
            await line.until(lambda: len(line.said("rpc")) == 60)
            assert app.clock.monotonic() - began >= 10 / 50
            assert [frame["id"] for frame in line.said("rpc")] == [str(number) for number in range(60)]

    in_app(main, auth=Tokens(), limits=HttpLimits(requests_per_second=50))


def test_what_fails_here_is_logged_and_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is 1011 with a reference, which is in the log with the exception."""

    async def main(app: App) -> None:
        def broken(credentials: Any) -> Any:
            raise ValueError("the password is hunter2")

        app.http.authenticator.auth = app.auth = broken
        found = await verdict(app, "/agents/echo/a")
        assert found is not None and found[0] == 1011
        assert "hunter2" not in found[1] and "err_" in found[1]
        assert "hunter2" in caplog.text

    in_app(main)
