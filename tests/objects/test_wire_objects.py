"""Durable objects in the frames of the published client, and their requests: one process, no socket between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.http.asking import Ask
from tests.objects.knocking import Line, knock, verdict
from tests.objects.rooms import CLASSES, Desk, Hall, Room

from cairn import Agent, App, Context, UsageError, tool
from cairn.framework.classes import kebab
from cairn.framework.http.auth import Grant
from cairn.framework.http.naming import below
from cairn.framework.http.problems import Problem
from cairn.framework.http.tokens import Tokens, create
from cairn.runtime import DurableObject
from cairn.testing.scripted import Call, ScriptedModel


@dataclass
class Notes:
    notes: list[str] = field(default_factory=list)


Main = Callable[[App, Ask], Awaitable[None]]


def in_app(main: Main, **given: Any) -> None:
    async def run() -> None:
        app = App(agents=[Agent("echo", model=ScriptedModel(["x"]))], objects=CLASSES, store=":memory:", **given)
        app.http  # noqa: B018 - as a server does
        async with app:
            await main(app, Ask(app))

    asyncio.run(run())


async def ready(line: Line) -> None:
    await line.until(lambda: line.said("cf_agent_mcp_servers"))


async def bearer(app: App, name: str, *grants: Grant, **more: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {await create(app.store, app.clock, name, grants, **more)}"}


# --- coming in ------------------------------------------------------------------------------------------------------


def test_a_client_is_told_whom_it_reached_and_how_it_stands() -> None:
    """In this order: identity, the state that was announced, the lists; then what `on_connect` sent."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a%20b/in/here?_pk=me&x=1") as line:
            await line.until(lambda: len(line.texts) == 4)
            identity, state, servers = line.frames
            assert identity == {"type": "cf_agent_identity", "name": "a%20b", "agent": "room", "stateFollows": True}
            assert state == {"type": "cf_agent_state", "state": {"count": 0, "names": []}}
            assert servers["type"] == "cf_agent_mcp_servers"
            assert line.texts[3] == "welcome /in/here"
            assert (await line.call("look"))["result"] == {"count": 0, "connections": ["me"]}
        assert await app.object(Room, "a b").look() == {"count": 0, "connections": []}

    in_app(main)


def test_a_class_is_found_under_what_the_client_makes_of_its_name() -> None:
    """`MyE2EThing` is `my-e2-e-thing` for the published client, which is told the name it used."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/my-e2-e-thing/x") as line:
            await ready(line)
            assert line.frames[0]["agent"] == "my-e2-e-thing"
        assert (await ask("GET", "/agents/my-e2-e-thing/x")).body == b"x"

    in_app(main)
    assert [kebab(name) for name in ("ChatAgent", "LOUD_AGENT", "MyE2EAgent", "room", "my_room", "Trailing_")] == [
        "chat-agent", "loud-agent", "my-e2-e-agent", "room", "my-room", "trailing",
    ]  # fmt: skip


def test_kinds_are_checked_when_the_app_is_made() -> None:
    """Decided at assembly: a kind is kebab-case, nobody else's, and not the word that leads to sub-objects."""

    class Named(DurableObject[Any]):  # type: ignore[type-var]
        pass

    for kind, why in (
        ("Not_Kebab", "cannot be a kind"),
        ("sub", "cannot be a kind"),
        ("echo", "both 'echo'"),
        ("room", "two classes"),
    ):
        made = type("Other", (Room,), {"kind": kind})
        with pytest.raises(UsageError, match=why):
            App(agents=[Agent("echo", model=ScriptedModel(["x"]))], objects=[Room, made], store=":memory:")
    with pytest.raises(UsageError, match="no class of durable objects"):
        App(objects=[Room, int], store=":memory:")  # type: ignore[list-item]


def test_a_client_that_the_object_refuses_stops() -> None:
    """`on_connect` raised: 1008 with its words, and it is not connected."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a?refuse=1") as line:
            assert await line.end() == (1008, "refused: the room is full")
        assert (await app.object(Room, "a").look())["connections"] == []

    in_app(main)


def test_a_client_that_comes_back_replaces_itself() -> None:
    """The half-open connection of the same client is closed, so that it is there once; 1008, so that two do not fight."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a?_pk=me") as before, knock(app, "/agents/room/a?_pk=other") as other:
            await ready(before)
            await ready(other)
            async with knock(app, "/agents/room/a?_pk=me") as after:
                await ready(after)
                assert await before.end() == (1008, "the same connection was opened again")
                assert (await after.call("look"))["result"]["connections"] == ["me", "other"]
                other.say("hello")
                await after.until(lambda: "local: hello" in after.texts)

    in_app(main)


def test_nobody_takes_the_connection_of_another() -> None:
    """X11: frames are addressed by an id that clients choose and objects tell each other: it is its first caller's."""

    async def main(app: App, ask: Ask) -> None:
        ann, bob = await bearer(app, "ann", *Grant), await bearer(app, "bob", *Grant)
        async with knock(app, "/agents/room/a?_pk=hers", ann) as hers:
            await ready(hers)
            found = await verdict(app, "/agents/room/a?_pk=hers", bob)
            assert found is not None and found[0] == 1008 and "somebody else's" in found[1]
            assert (await hers.call("look"))["result"]["connections"] == ["hers"]

    in_app(main, auth=Tokens())


# --- state ----------------------------------------------------------------------------------------------------------


def test_a_state_goes_to_everybody_but_its_sender() -> None:
    """The sender has applied it already; whoever comes later begins with it."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as sender, knock(app, "/agents/room/a") as other:
            await ready(sender)
            await ready(other)
            sender.say({"type": "cf_agent_state", "state": {"count": 7, "names": ["x"]}})
            await other.until(lambda: len(other.said("cf_agent_state")) == 2)
            assert other.said("cf_agent_state")[-1]["state"] == {"count": 7, "names": ["x"]}
            assert (await sender.call("look"))["result"]["count"] == 7
            assert len(sender.said("cf_agent_state")) == 1
            async with knock(app, "/agents/room/a") as late:
                await ready(late)
                assert late.said("cf_agent_state")[0]["state"]["count"] == 7

    in_app(main)


def test_a_callers_own_change_has_come_when_its_call_is_answered() -> None:
    """What the object changes itself is told to everybody, and to the caller before the result: its `state` is never behind."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as line, knock(app, "/agents/room/a") as other:
            await ready(line)
            await ready(other)
            for number in range(1, 20):
                assert (await line.call("add", 1, id=f"c{number}"))["result"] == number
                assert line.said("cf_agent_state")[-1]["state"]["count"] == number
            await other.until(lambda: other.said("cf_agent_state")[-1]["state"]["count"] == 19)
            counts = [frame["state"]["count"] for frame in other.said("cf_agent_state")]
            assert counts == sorted(counts)

    in_app(main)


def test_a_state_that_is_refused_changes_nothing() -> None:
    """In the exact words: what does not fit its type, what `validate_state` refuses, what is no state at all."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as line, knock(app, "/agents/room/a") as other:
            await ready(line)
            await ready(other)
            for state in ({"count": -1, "names": []}, {"count": "many"}, [], None, 7, {"names": [1]}):
                line.say({"type": "cf_agent_state", "state": state})
            line.say({"type": "cf_agent_state"})
            await line.until(lambda: len(line.said("cf_agent_state_error")) == 7)
            assert {frame["error"] for frame in line.said("cf_agent_state_error")} == {"State update rejected"}
            assert (await other.call("look"))["result"]["count"] == 0
            assert len(other.said("cf_agent_state")) == 1

    in_app(main)


def test_a_readonly_client_may_look_and_call() -> None:
    """In the exact words; the object's own methods change the state for it no more than a frame does."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/hall/a") as line:
            await ready(line)
            line.say({"type": "cf_agent_state", "state": {"count": 1, "names": []}})
            await line.until(lambda: line.said("cf_agent_state_error"))
            assert line.said("cf_agent_state_error")[0]["error"] == "Connection is readonly"
            assert (await line.call("set", 3))["error"] == "Connection is readonly"
            assert await app.object(Hall, "a").set(4) == 4
            await line.until(lambda: line.said("cf_agent_state")[-1]["state"]["count"] == 4)

    in_app(main)


def test_a_client_without_protocol_is_told_nothing_of_it() -> None:
    """Neither identity nor state, ever; it still calls, and hears what is sent."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/hall/a?plain=1") as line:
            line.say("hi")
            await line.until(lambda: line.texts)
            assert await app.object(Hall, "a").set(4) == 4
            assert (await line.call("set", 3))["error"] == "Connection is readonly"
            assert {frame["type"] for frame in line.frames} == {"rpc"}
            assert line.texts[0] == "heard 'hi'"

    in_app(main)


def test_what_a_client_said_before_it_left_is_done() -> None:
    """A page that sets the state and is closed at once has set it; a stream that nobody hears ends."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as line, knock(app, "/agents/room/a") as other:
            await ready(line)
            await ready(other)
            line.say({"type": "cf_agent_state", "state": {"count": 7, "names": []}})
            line.say({"type": "rpc", "id": "1", "method": "add", "args": [3]})
            line.say({"type": "rpc", "id": "2", "method": "endless", "args": []})
            await line.leave()
            await other.until(lambda: other.said("cf_agent_state")[-1]["state"]["count"] == 10)
            assert (await other.call("add", 1))["result"] == 11

    in_app(main)


# --- calls ----------------------------------------------------------------------------------------------------------


def test_calls_are_answered_in_the_exact_words() -> None:
    """Result, error of the method in full, a method that is none, one that is not offered, one of the base class."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as line:
            await ready(line)
            assert await line.call("add", 2, id="ä") == {"type": "rpc", "id": "ä", "success": True, "done": True, "result": 2}
            for method, words in (
                ("fail", "no such luck"),
                ("nope", "Method nope does not exist"),
                ("hidden", "Method hidden is not callable"),
                ("destroy", "Method destroy does not exist"),
                ("__init__", "Method __init__ does not exist"),
                ("_instance", "Method _instance does not exist"),
                ("", "Method  does not exist"),
            ):
                assert await line.call(method, id=method or "none") == {
                    "type": "rpc", "id": method or "none", "success": False, "error": words,
                }  # fmt: skip
            assert "does not fit" in (await line.call("add", "many", id="type"))["error"]
            assert (await line.call("add", 1, 2, 3, id="arity"))["success"] is False
            assert (await line.call("look"))["result"]["count"] == 2

    in_app(main)


def test_a_stream_comes_in_chunks_and_ends_once() -> None:
    """Chunks, then done; an exception in the middle is an error after what came before; an empty one is only done."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as line:
            await ready(line)
            for id, args, chunks in (("s", (3,), [0, 1, 2]), ("e", (0,), []), ("f", (5, 2), [0, 1])):
                last = await line.call("up_to", *args, id=id)
                frames = [frame for frame in line.said("rpc") if frame["id"] == id]
                assert [frame["result"] for frame in frames[:-1]] == chunks
                assert all(frame["success"] and frame["done"] is False for frame in frames[:-1])
                if id == "f":
                    assert last == {"type": "rpc", "id": "f", "success": False, "error": "stopped at 2"}
                else:
                    assert last["done"] is True and last["success"] is True

    in_app(main)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ({"type": "rpc", "id": "1"}, "the call names no 'method'"),
        ({"type": "rpc", "id": "1", "method": 7}, "the call names no 'method'"),
        ({"type": "rpc", "id": "1", "method": "add", "args": {"by": 1}}, "the call's 'args' are no list"),
    ],
)
def test_a_call_that_is_none_is_answered_by_its_id(frame: Any, error: str) -> None:
    """And what has no id is a message of the object's own, like everything else that is no frame."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as line, knock(app, "/agents/room/a") as other:
            await ready(line)
            await ready(other)
            line.say(frame)
            assert (await line.answer("1"))["error"] == error
            for raw in (
                '{"type":"rpc"}',
                '{"type":"rpc","id":7}',
                "{}",
                "[1]",
                "null",
                "{",
                "",
                '{"type":"other"}',
                '{"type":[]}',
            ):
                line.say(raw)
                await other.until(lambda: f"local: {raw}" in other.texts)  # noqa: B023
            line.say(b"\x01\x02")
            await line.until(lambda: b"\x02\x01" in line.texts)

    in_app(main)


def test_an_object_closes_a_connection_with_its_own_code() -> None:
    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as line:
            await ready(line)
            line.say("close")
            assert await line.end() == (4001, "as you wish")

    in_app(main)


def test_a_destroyed_object_closes_its_clients_for_good() -> None:
    """With a code of the range after which the published client does not come back, which would make the object anew."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as line:
            await ready(line)
            line.say({"type": "rpc", "id": "1", "method": "leave", "args": []})
            code, _ = await line.end()
            assert 4000 <= code <= 4999
        assert await app.store.instances() == []

    in_app(main)


def test_who_leaves_is_heard_by_the_object() -> None:
    """`on_close` with the client's code, whoever closed it."""

    async def main(app: App, ask: Ask) -> None:
        async with knock(app, "/agents/room/a") as stays:
            await ready(stays)
            async with knock(app, "/agents/room/a") as line:
                await ready(line)
                await line.leave(4123, "bye")
            await stays.until(lambda: stays.said("cf_agent_state")[-1]["state"]["names"] == ["left 4123"])

    in_app(main)


# --- grants ---------------------------------------------------------------------------------------------------------


def test_who_may_only_read_sees_and_does_nothing_else() -> None:
    """X5: connected and shown the state; a state, a call and a message of its own are refused, each in its way."""

    async def main(app: App, ask: Ask) -> None:
        reader, sender = await bearer(app, "reader", Grant.READ), await bearer(app, "sender", Grant.READ, Grant.SEND)
        async with knock(app, "/agents/room/a", reader) as line, knock(app, "/agents/room/a", sender) as other:
            await ready(line)
            await ready(other)
            line.say({"type": "cf_agent_state", "state": {"count": 1, "names": []}})
            await line.until(lambda: line.said("cf_agent_state_error"))
            assert line.said("cf_agent_state_error")[0]["error"] == "Connection is readonly"
            for method in ("add", "look", "up_to"):
                assert (await line.call(method, id=method))["error"] == "Calling needs the grant 'send'."
            assert (await other.call("add", 5))["result"] == 5
            await line.until(lambda: line.said("cf_agent_state")[-1]["state"]["count"] == 5)
            line.say("hello")
            code, reason = await line.end()
            assert code == 1008 and "'send'" in reason
            assert not any("hello" in str(text) for text in other.texts)

    in_app(main, auth=Tokens())


def test_without_the_grant_to_read_nobody_connects() -> None:
    """X5, X11: nor another tenant's to this one's object: its own of that name is another."""

    async def main(app: App, ask: Ask) -> None:
        await app.object(Room, "a").add(3)
        for headers in (
            await bearer(app, "sender", Grant.SEND),
            await bearer(app, "elsewhere", *Grant, agents=("hall/*",)),
            await bearer(app, "another", *Grant, agents=("room/b",)),
        ):
            found = await verdict(app, "/agents/room/a", headers)
            assert found is not None and found[0] == 1008
        other = await bearer(app, "other", *Grant, tenant="other")
        async with knock(app, "/agents/room/a", other) as line:
            await ready(line)
            assert line.said("cf_agent_state")[0]["state"]["count"] == 0
            assert (await line.call("add", 1))["result"] == 1
        assert (await app.object(Room, "a").look())["count"] == 3

    in_app(main, auth=Tokens())


# --- sub-objects ----------------------------------------------------------------------------------------------------


def test_a_sub_object_is_reached_through_its_parent() -> None:
    """As the published client writes it: the name is decoded, any text, and the client is told the decoded one."""

    async def main(app: App, ask: Ask) -> None:
        await app.object(Room, "a/b").greet("ä/ö x")
        async with knock(app, "/agents/room/a%2Fb/sub/desk/%C3%A4%2F%C3%B6%20x/further?_pk=1") as line:
            await ready(line)
            assert line.frames[0] == {"type": "cf_agent_identity", "name": "ä/ö x", "agent": "desk", "stateFollows": True}
            assert line.said("cf_agent_state")[0]["state"] == {"notes": ["made"]}
            assert (await line.call("note", "by wire"))["result"] == 2
        answer = await ask("GET", "/agents/room/a%2Fb/sub/desk/%C3%A4%2F%C3%B6%20x/some/path")
        assert answer.json == {"path": "/some/path", "notes": ["made", "by wire"]}

    in_app(main)


@pytest.mark.parametrize(
    "path",
    [
        "/agents/room/a/sub/desk/missing",
        "/agents/room/a/sub/none/x",
        "/agents/room/a/sub/echo/x",
        "/agents/room/a/sub/desk",
        "/agents/room/a/sub",
        "/agents/room/a/sub/desk/there/sub/desk/x",
        "/agents/room/b/sub/desk/there",
        "/agents/desk/room%2Fa%2Fthere",
        "/agents/hall/a/sub/desk/there",
        "/agents/room/a%00",
        "/agents/room/a/sub/desk/%00",
        "/agents/none/a",
    ],
)
def test_no_url_makes_a_sub_object_or_goes_around_its_parent(path: str) -> None:
    """Deny by default: only what is there, only on its way; 4xx over HTTP, 1008 over a socket, and nothing comes to be."""

    async def main(app: App, ask: Ask) -> None:
        await app.object(Room, "a").greet("there")
        before = len(await app.store.instances())
        answer = await ask("GET", path)
        assert answer.status in (400, 404), answer.body
        found = await verdict(app, path)
        assert found is not None and found[0] == 1008
        assert len(await app.store.instances()) == before

    in_app(main)


def test_a_parent_says_where_a_url_may_lead() -> None:
    """Its own gate, asked at each hop: what it lets in is made, what it does not is not shown, though it is there."""

    async def main(app: App, ask: Ask) -> None:
        await app.object("club", "a").furnish()
        made = await ask("GET", "/agents/club/a/sub/desk/member-7/x")
        assert made.json == {"path": "/x", "notes": []}
        async with knock(app, "/agents/club/a/sub/desk/member-8") as line:
            await ready(line)
            assert (await line.call("note", "mine"))["result"] == 1
        for path in ("desk/back", "desk/other", "hall/member-7"):
            assert (await ask("GET", f"/agents/club/a/sub/{path}")).status == 404
            found = await verdict(app, f"/agents/club/a/sub/{path}")
            assert found is not None and found[0] == 1008
        assert (await ask("GET", "/agents/club/a/sub/desk/back?key=1")).json["notes"] == ["hidden"]
        assert (await ask("GET", "/agents/club/a/sub/desk/member-7/sub/desk/member-8")).status == 404
        assert len(await app.store.instances(kind="desk")) == 3

    in_app(main)


def test_what_follows_an_id_is_read_segment_by_segment() -> None:
    """Sub-objects outermost first, and what is left; half a name is no name."""
    found = below(("sub", "desk", "x", "sub", "lamp", "y", "a", "sub"))
    assert [(hop.kind, hop.name) for hop in found.hops] == [("desk", "x"), ("lamp", "y")]
    assert found.path == "/a/sub"
    assert below(()).path == "/"
    for wrong in (("sub",), ("sub", "desk"), ("sub", "desk", ""), ("sub", "", "x"), ("sub", "desk", "x", "sub")):
        with pytest.raises(Problem):
            below(wrong)


# --- requests -------------------------------------------------------------------------------------------------------


def test_a_request_is_the_objects_own() -> None:
    """Method, path, query, headers and body as they came; who asks, but never what they proved it with."""

    async def main(app: App, ask: Ask) -> None:
        secret = await bearer(app, "ann", *Grant)
        headers = {**secret, "cookie": "session=secret", "x-api-key": "secret", "X-Own": "yes"}
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            answer = await ask(
                method, "/agents/room/a%20b/x/y%20z?q=1&q=2", headers=headers, raw=b"body" if method != "GET" else None
            )
            assert answer.status == 200 and answer.headers["content-type"] == "application/json"
            told = answer.json
            assert (told["method"], told["path"], told["by"], told["id"]) == (method, "/x/y z", "ann", "a b")
            assert told["query"] == [["q", "1"], ["q", "2"]]
            assert told["headers"]["x-own"] == "yes"
            assert not {"authorization", "cookie", "x-api-key"} & told["headers"].keys()
            assert told["body"] == ("body" if method != "GET" else "")
        answer = await ask("HEAD", "/agents/room/a", headers=secret)
        assert answer.status == 200 and answer.body == b"" and int(answer.headers["content-length"]) > 0

    in_app(main, auth=Tokens())


def test_an_answer_cannot_become_a_page_of_ours() -> None:
    """X6: it is sandboxed unless the object says its own policy; it sets no header of the connection, and cannot split one."""

    async def main(app: App, ask: Ask) -> None:
        page = await ask("GET", "/agents/room/a/page")
        assert page.headers["content-security-policy"] == "sandbox" and page.headers["content-type"] == "text/html"
        assert page.headers["x-content-type-options"] == "nosniff"
        own = await ask("GET", "/agents/room/a/own")
        assert own.status == 201 and own.headers["content-security-policy"] == "default-src 'self'"
        assert "connection" not in own.headers and own.headers["set-cookie"] == "b=2"
        split = await ask("GET", "/agents/room/a/split")
        assert split.status == 500 and "set-cookie" not in split.headers
        empty = await ask("GET", "/agents/room/a/empty")
        assert (empty.status, empty.body) == (204, b"")

    in_app(main)


def test_an_answer_may_be_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    """It leaves chunk by chunk, text as it is and anything else as a line of JSON; it ends when its client goes, and what fails
    before the first chunk is an answer."""

    async def main(app: App, ask: Ask) -> None:
        answer = await ask("GET", "/agents/room/a/stream")
        assert answer.body == b'data: 0\n\n{"number":1}\ndata: 2\n\n'
        assert answer.headers["content-type"] == "text/event-stream" and "content-length" not in answer.headers
        assert answer.pieces > 3 and answer.is_complete
        assert (await ask("GET", "/agents/room/a/stream?to=0")).body == b""
        assert (await ask("HEAD", "/agents/room/a/stream")).body == b""
        gone = asyncio.Event()
        asking = asyncio.ensure_future(ask("GET", "/agents/room/a/endless", hang_up=gone))
        await asyncio.sleep(0)
        gone.set()
        assert not (await asking).is_complete
        assert (await app.object(Room, "a").add(1)) == 1, "the stream has given the turn back"
        for method in ("hidden", "nope", "fail"):
            answer = await ask("GET", f"/agents/room/a/no-stream?method={method}")
            assert answer.status == 500 and answer.json["error"]["ref"] in caplog.text

    in_app(main)


def test_an_exception_of_on_request_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """500 with a reference that is in the log; nothing was changed."""

    async def main(app: App, ask: Ask) -> None:
        answer = await ask("GET", "/agents/room/a/fail")
        assert answer.status == 500 and answer.error == "internal_error"
        assert b"hunter2" not in answer.body
        assert answer.json["error"]["ref"] in caplog.text and "hunter2" in caplog.text

    in_app(main)


def test_objects_have_none_of_a_conversations_routes() -> None:
    """What an agent's conversation has below its id is the object's to answer; and an agent has no object's routes."""

    async def main(app: App, ask: Ask) -> None:
        for path in ("abort", "usage", "export", "attachments/x"):
            assert (await ask("GET", f"/agents/room/a/{path}")).json["path"] == f"/{path}"
        assert (await ask("PUT", "/agents/echo/a")).status == 405
        assert (await ask("GET", "/agents/echo/a/b/c")).status == 404

    in_app(main)


def test_the_lists_show_objects_where_they_are_seen() -> None:
    """`/info` names the kinds, `/agents/{kind}` the objects, not those that belong to another; both as far as one may see."""

    async def main(app: App, ask: Ask) -> None:
        await app.object(Room, "a").greet("x")
        everything = await bearer(app, "all", Grant.READ)
        halls = await bearer(app, "halls", Grant.READ, agents=("hall/*",))
        info = await ask("GET", "/info", headers=everything)
        assert info.json["objects"] == ["room", "desk", "hall", "club", "my-e2-e-thing"]
        assert (await ask("GET", "/info", headers=halls)).json["objects"] == ["hall"]
        assert [each["id"] for each in (await ask("GET", "/agents/room", headers=everything)).json["conversations"]] == ["a"]
        assert (await ask("GET", "/agents/desk", headers=everything)).json["conversations"] == []
        assert (await ask("GET", "/agents/room", headers=halls)).status == 404

    in_app(main, auth=Tokens())


def test_an_app_without_agents_serves_its_objects() -> None:
    """And they are called from Python as they are over the wire."""

    async def run() -> None:
        async with App(objects=[Room, Desk], store=":memory:") as app:
            assert await app.object("room", "a").add(2) == 2
            assert [number async for number in app.object(Room, "a").up_to(3)] == [0, 1, 2]
            assert json.loads((await Ask(app)("GET", "/agents/room/a")).body)["id"] == "a"

    asyncio.run(run())


# --- agents ---------------------------------------------------------------------------------------------------------


def test_an_agents_state_is_shown_and_not_set() -> None:
    """A client of a conversation sees the agent's state and each change of it; it is readonly, and has no methods."""

    @tool
    async def note(ctx: Context[Notes], text: str) -> str:
        """Keep it."""
        ctx.state.notes = [*ctx.state.notes, text]
        return "kept"

    model = ScriptedModel([Call("note", {"text": "milk"}), "Kept."])

    async def run() -> None:
        app = App(agents=[Agent("clerk", model=model, tools=[note], state=Notes)], store=":memory:")
        async with app, knock(app, "/agents/clerk/a") as line:
            await ready(line)
            assert line.frames[0]["stateFollows"] is True
            assert line.said("cf_agent_state")[0]["state"] == {"notes": []}
            line.say({"type": "cf_agent_state", "state": {"notes": ["mine"]}})
            await line.until(lambda: line.said("cf_agent_state_error"))
            assert line.said("cf_agent_state_error")[0]["error"] == "Connection is readonly"
            assert (await line.call("note", "x"))["error"] == "Method note does not exist"
            await (await app.conversation("clerk", "a").send("Remember the milk.")).reply()
            await line.until(lambda: line.said("cf_agent_state")[-1]["state"] == {"notes": ["milk"]})

    asyncio.run(run())
