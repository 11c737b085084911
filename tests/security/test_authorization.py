"""X5 and X11: every route of the table, asked by everybody who should not be answered, and by those who should.

Method: the cases are generated from `routes.ROUTES`: a route that is added is tested by being there. One App with tokens, one
conversation and one object that belong to the tenant `default`, and a caller of each kind. A route that is opened as a
WebSocket is asked for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.http.callers import Answer, ask
from tests.objects.knocking import knock
from tests.objects.rooms import Room

from cairn import Agent, App
from cairn.framework.http.auth import OPEN, Grant
from cairn.framework.http.routes import ROUTES, Route
from cairn.framework.http.sockets import WEBSOCKET
from cairn.framework.http.tokens import Tokens, create
from cairn.testing.scripted import ScriptedModel

ALL = tuple(Grant)
GUARDED = [route for route in ROUTES if route.grant is not OPEN and route.method != WEBSOCKET]
#: What conversations and objects both have is asked of both.
GUARDED += [replace(route, is_object=True) for route in GUARDED if route.is_both]
#: What is opened as a WebSocket: a conversation, and an object.
OPENED = [(route, kind) for route in ROUTES if route.method == WEBSOCKET for kind in ("echo", "room")]
#: What makes a conversation, or an object, where there was none comes last.
OF_A_CONVERSATION = sorted(
    (r for r in GUARDED if "{id}" in r.path), key=lambda r: (not (r.is_object and r.is_both), r.grant is Grant.SEND)
)


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}{' (object)' if route.is_object and route.is_both else ''}"


@dataclass
class House:
    """An open App, its conversation `echo/secret`, its object `room/secret`, and tokens by what they are for."""

    app: App
    tokens: dict[str, str]
    submission: str = ""

    async def __call__(self, who: str, route: Route, id: str = "secret", **more: Any) -> Answer:
        headers = {"authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return await ask(self.app, route.method, path_of(route, id), body_of(route), headers, **more)

    async def open(self, who: str, kind: str, id: str = "secret") -> tuple[int, str] | list[dict[str, Any]]:
        """How the WebSocket is closed, or the frames its client is greeted with."""
        headers = {"authorization": f"Bearer {self.tokens[who]}"} if who else {}
        async with knock(self.app, f"/agents/{kind}/{id}", headers) as line:
            await line.until(lambda: line.said("cf_agent_mcp_servers") or line.task.done())
            return line.frames or line.closed or (line.status, "")


def path_of(route: Route, id: str) -> str:
    path = (
        route.path.replace("{kind}", "room" if route.is_object else "echo")
        .replace("{id}", id)
        .replace("{attachment}", "att_1")
        .replace("{rest…}", "x")
    )
    return f"{path}?view=history" if path.endswith(id) and route.method == "GET" else path


def body_of(route: Route) -> Any:
    if route.path.endswith("/fork"):
        return {"id": "copy"}
    if route.path.endswith("/rewind"):
        return {"to": None}
    if route.path.endswith("/regenerate"):
        return {}
    if route.path.endswith("/answers"):
        return {"call": "call_1", "digest": "sha256:0", "answer": "approve"}
    return {"kind": "user", "body": "Hello."} if route.method == "POST" and route.path.endswith("{id}") else None


CALLERS: dict[str, dict[str, Any]] = {
    "admin": {"grants": ALL},
    "read-only": {"grants": (Grant.READ,)},
    "send-only": {"grants": (Grant.SEND,)},
    "another tenant's": {"grants": ALL, "tenant": "other"},
    "another conversation's": {"grants": ALL, "agents": ("echo/other",)},
    "another agent's": {"grants": ALL, "agents": ("sales/*",)},
    "expired": {"grants": ALL, "expires_in": 0.000001},
}


def in_house(main: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        echo = Agent("echo", model=ScriptedModel(lambda request: "I heard you."))
        app = App(agents=[echo], objects=[Room], store=":memory:", auth=Tokens(), console=True)
        async with app:
            tokens = {name: await create(app.store, app.clock, name, **given) for name, given in CALLERS.items()}
            tokens["wrong"] = tokens["admin"][:-2] + "xx"
            house = House(app, tokens)
            receipt = await app.conversation(echo, "secret").send("the secret")
            await receipt.reply()
            await app.object(Room, "secret").add(7)
            await main(house)

    asyncio.run(run())


# --- those who have no business here --------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["", "wrong", "expired"])
def test_nobody_is_let_in_without_a_valid_token(who: str) -> None:
    """X5: the same 401 for none, a wrong and an expired one, wherever it is sent."""

    async def main(house: House) -> None:
        for number, route in enumerate(GUARDED):
            # Each from an address of its own: whoever goes on guessing from one is made to wait.
            answer = await house(who, route, client=f"127.0.0.{number + 1}")
            assert answer.status == 401, name_of(route)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert b"secret" not in answer.body
            assert route.method == "HEAD" or answer.error == "unauthorized"

    in_house(main)


@pytest.mark.parametrize("who", ["", "wrong", "expired"])
def test_nobody_gets_a_socket_without_a_valid_token(who: str) -> None:
    """X5: the same words for none, a wrong and an expired one, whatever is asked for."""

    async def main(house: House) -> None:
        words = {await house.open(who, kind, id) for _, kind in OPENED for id in ("secret", "never-there")}  # type: ignore[misc]
        assert words == {(1008, "unauthorized: Send a valid token: `Authorization: Bearer …`.")}

    in_house(main)


def test_without_authentication_nobody_from_outside_is_let_in() -> None:
    """X5: the default answers this machine only."""

    async def run() -> None:
        async with App(agents=[Agent("echo", model=ScriptedModel(["x"]))], objects=[Room], store=":memory:") as app:
            for route in GUARDED:
                answer = await ask(app, route.method, path_of(route, "secret"), body_of(route), client="203.0.113.9")
                assert answer.status == 403, name_of(route)

    asyncio.run(run())


# --- those whose business is another --------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["another tenant's", "another conversation's", "another agent's"])
def test_what_is_not_ones_own_is_as_if_it_were_not_there(who: str) -> None:
    """S12, X11: the answer is byte for byte the one for a conversation that nobody ever had, and nothing changes."""

    async def main(house: House) -> None:
        before = await state(house)
        for route in OF_A_CONVERSATION:
            there, missing = await house(who, route), await house(who, route, id="never-there")
            assert there.status == missing.status, name_of(route)
            assert there.headers.keys() == missing.headers.keys()
            assert await state(house) == before
            begins = (route.is_object and not route.is_both) or route.path.endswith("/get-messages")
            is_sent = route.grant in (Grant.SEND, Grant.ABORT) and not route.path.endswith("/answers")
            if who == "another tenant's" and (begins or is_sent):
                # A message is what makes a conversation, any request an object, and a chat client asks before there is one:
                # another tenant's is its own, of the same name.
                is_taken_up = route.grant is Grant.SEND and not begins and not route.path.endswith("/rewind")
                assert there.status == (202 if is_taken_up else 200)
                continue
            assert there.status == 404, name_of(route)
            assert there.body.replace(b"secret", b"never-there") == missing.body
            if route.grant in (Grant.READ, Grant.MANAGE) and not begins:
                assert (await house("admin", route, id="never-there")).body == missing.body

    in_house(main)


@pytest.mark.parametrize("who", ["another tenant's", "another conversation's", "another agent's"])
def test_a_socket_shows_nothing_of_what_is_not_ones_own(who: str) -> None:
    """S12, X11: another tenant's is its own of that name; the others hear what they would if it were not there."""

    async def main(house: House) -> None:
        before = await state(house)
        for _, kind in OPENED:
            there, missing = await house.open(who, kind), await house.open(who, kind, "never-there")
            assert str(there).replace("secret", "never-there") == str(missing)
            assert "heard you" not in str(there) and "7" not in str(there)
            if who != "another tenant's":
                assert there[0] == 1008 and "stream_not_found" in there[1]
        assert await state(house) == before

    in_house(main)


async def state(house: House) -> tuple[bytes, list[Any], int]:
    history = await house("admin", HISTORY)
    listed = await house("admin", LIST)
    assert history.status == listed.status == 200
    looked = await house.app.object(Room, "secret").look()
    return history.body, listed.json["conversations"], looked["count"]


HISTORY = next(route for route in ROUTES if (route.method, route.path) == ("GET", "/agents/{kind}/{id}"))
LIST = next(route for route in ROUTES if (route.method, route.path) == ("GET", "/agents/{kind}"))
AGENTS = next(route for route in ROUTES if (route.method, route.path) == ("GET", "/agents"))
INFO = next(route for route in ROUTES if (route.method, route.path) == ("GET", "/info"))


def test_lists_hold_only_what_the_caller_sees() -> None:
    """S12, X11: neither another tenant's conversations, nor those a token was not made for."""

    async def main(house: House) -> None:
        assert [each["id"] for each in (await house("admin", LIST)).json["conversations"]] == ["secret"]
        assert (await house("another tenant's", LIST)).json["conversations"] == []
        assert (await house("another conversation's", LIST)).json["conversations"] == []
        assert (await house("another agent's", LIST)).status == 404
        assert (await house("another agent's", AGENTS)).json["agents"] == []
        assert "echo" not in (await house("another agent's", INFO)).json["agents"]

    in_house(main)


# --- those who may do some of it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["read-only", "send-only"])
def test_a_grant_opens_no_other_routes(who: str) -> None:
    """X5: what one sees but may not do is forbidden, and says what is missing; nothing happens."""

    async def main(house: House) -> None:
        before = await state(house)
        for route in GUARDED:
            if route.grant in CALLERS[who]["grants"]:
                continue
            answer = await house(who, route)
            assert answer.status == 403, name_of(route)
            if route.method != "HEAD":
                assert answer.error == "forbidden"
                assert f"'{route.grant}'" in answer.json["error"]["details"]
        assert await state(house) == before

    in_house(main)


def test_a_socket_is_opened_to_those_who_may_read() -> None:
    """X5: whoever may only read sees it; whoever may only send does not, and hears which grant is missing."""

    async def main(house: House) -> None:
        before = await state(house)
        for _, kind in OPENED:
            assert isinstance(await house.open("read-only", kind), list)
            refused = await house.open("send-only", kind)
            assert refused[0] == 1008 and "forbidden" in refused[1] and "'read'" in refused[1]
        assert "7" in str(await house.open("read-only", "room"))
        assert await state(house) == before

    in_house(main)


def test_a_grant_opens_its_routes() -> None:
    """The other half of the matrix: who may read can read everything there is to read."""

    async def main(house: House) -> None:
        for route in GUARDED:
            if route.grant is Grant.READ:
                answer = await house("read-only", route)
                assert answer.status < 400 or answer.error == "attachment_not_found", name_of(route)

    in_house(main)


@pytest.mark.parametrize("route", GUARDED, ids=name_of)
def test_who_has_every_grant_may_use_every_route(route: Route) -> None:
    """The matrix can pass: it is not that nobody is ever answered."""

    async def main(house: House) -> None:
        answer = await house("admin", route)
        assert answer.status < 400 or answer.error in ("attachment_not_found", "question_not_found"), answer.body

    in_house(main)


def test_an_open_route_shows_nobody_anything_of_anybody() -> None:
    """X5: open are how the server is, how it is used, and its page."""

    async def main(house: House) -> None:
        for route in ROUTES:
            for who in ("", "wrong", "admin") if route.grant is OPEN else ():
                answer = await house(who, route)
                assert answer.status in (200, 404), name_of(route)
                assert b"secret" not in answer.body and b"heard you" not in answer.body

    in_house(main)


def test_every_route_says_what_it_needs() -> None:
    """X5: deny by default: a route without a grant cannot be written down, and only these are open."""
    assert all(route.grant is OPEN or isinstance(route.grant, Grant) for route in ROUTES)
    assert sorted({route.path for route in ROUTES if route.grant is OPEN}) == sorted(
        ["/health", "/ready", "/openapi.json", "/docs", "/", "/chat", "/chat/{rest…}", "/assets/{rest…}"]
    )
