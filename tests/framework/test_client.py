"""`cairn.client`: the same methods over a URL, with an application of this process and with a server that can break."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cairn import Agent, App, Image
from cairn.client import Client, inside
from cairn.client.chunks import EventStream
from cairn.client.client import located
from cairn.client.problems import error_of
from cairn.errors import Conflict, Denied, FiberFailed, NotFound, RemoteError, Replaced, StoreFull, Unreachable, UsageError
from cairn.testing.scripted import Call, Fail, Say, ScriptedModel, Stall, by_turn, last_text

#: Seconds for what never takes any: a guard against hanging.
PATIENCE_SECONDS = 20

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 16


def echo() -> Agent[Any]:
    def script(request: Any) -> Any:
        text = last_text(request)
        return Stall("Well") if text == "stall" else Say(f"You said: {text}", chunk=4)

    return Agent("echo", model=ScriptedModel(script), description="Says it again.")


@contextlib.asynccontextmanager
async def talking(*agents: Agent[Any], store: Any = ":memory:", **more: Any) -> AsyncIterator[tuple[App, Client]]:
    async with (
        App(agents or (echo(),), store=store, **more) as app,
        Client("http://localhost", transport=inside(app)) as client,
    ):
        yield app, client


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


# --- the same as inside of the process ------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [inside, httpx.ASGITransport])
def test_a_message_is_sent_followed_and_answered(transport: Any) -> None:
    """S1: also over httpx's own transport, which collects an answer before it gives it: long-polls take the streams' place."""

    async def main() -> None:
        async with App([echo()], store=":memory:") as app, Client("http://localhost", transport=transport(app)) as client:
            conversation = client.conversation("echo", "a/b ü")
            assert not await conversation.exists()
            receipt = await conversation.send("Hello.")
            chunks = [chunk async for chunk in receipt.follow()]
            assert chunks[0].type == "message-appended" and chunks[0]["message"]["parts"][0]["text"] == "Hello."
            assert "".join(chunk["delta"] for chunk in chunks if chunk.type == "message-delta") == "You said: Hello."
            assert chunks[-1].type == "submission-settled" and chunks[-1].submission == receipt.submission
            reply = await receipt.reply()
            assert reply.text == "You said: Hello." == (await app.conversation("echo", "a/b ü").reply(receipt.submission)).text
            assert await conversation.reply(receipt.submission) == reply
            assert [message.text for message in (await conversation.history()).messages] == ["Hello.", "You said: Hello."]

    run(main)


def test_a_reply_is_the_same_words_as_inside() -> None:
    """What stands before a tool call is no part of the answer, in the process as over the wire."""

    async def main() -> None:
        agent = Agent("look", model=ScriptedModel(by_turn([["Let me see.", Call("look")], "It is red."])))

        @agent.tool(repeat="safe")
        def look() -> dict[str, str]:
            """Look."""
            return {"colour": "red"}

        async with talking(agent) as (app, client):
            receipt = await client.conversation("look", "c").send("What colour?")
            there = await receipt.reply()
            here = await app.conversation("look", "c").reply(receipt.submission)
            assert there.text == here.text == "It is red." and there.submission == receipt.submission

    run(main)


def test_what_failed_or_was_aborted_is_an_error_with_its_reason() -> None:
    """S7: the outcome is the server's; the client only says it."""

    async def main() -> None:
        from cairn.errors import ModelError

        broken = Agent("broken", model=ScriptedModel([Fail(ModelError("no such model", kind="invalid_request"))]))
        async with talking(broken, echo()) as (_, client):
            receipt = await client.conversation("broken", "c").send("?")
            with pytest.raises(FiberFailed, match=r"failed: .*no such model") as caught:
                await receipt.reply()
            assert caught.value.outcome == "failed"

            conversation = client.conversation("echo", "c")
            receipt = await conversation.send("stall")
            async for chunk in receipt.follow():
                if chunk.type == "message-delta":
                    assert await conversation.abort()
            with pytest.raises(FiberFailed) as caught:
                await receipt.reply()
            assert caught.value.outcome == "aborted"
            assert not await conversation.abort()

    run(main)


def test_keys_and_conditions() -> None:
    """S6: one key is one message; a uid is a condition, and so is that there is none."""

    async def main() -> None:
        async with talking() as (_, client):
            conversation = client.conversation("echo", "c")
            first = await conversation.send("one", key="k", new=True)
            again = await conversation.send("one", key="k")
            assert again.deduplicated and again.submission == first.submission
            assert (await again.reply()).text == "You said: one"
            chunks = [chunk async for chunk in again.follow()]
            assert chunks[0].type == "message-appended"
            with pytest.raises(Conflict) as caught:
                await conversation.send("two", key="k")
            assert caught.value.fiber == first.submission
            with pytest.raises(Conflict) as caught:
                await conversation.send("two", new=True)
            assert caught.value.uid == first.uid
            assert (await (await conversation.send("two", uid=first.uid)).reply()).text == "You said: two"
            with pytest.raises(NotFound):
                await conversation.send("three", uid="inst_other")
            with pytest.raises(UsageError, match="contradict"):
                await conversation.send("three", uid="inst_other", new=True)

    run(main)


def test_signals_and_attachments_arrive_as_they_were_sent() -> None:
    """An image's bytes come back under its id; a signal is no person's message."""

    async def main() -> None:
        async with talking() as (app, client):
            conversation = client.conversation("echo", "c")
            image = Image(mime_type="image/png", data=PNG, filename="dot.png")
            await (await conversation.send("Look.", attachments=[image])).reply()
            part = (await conversation.history()).messages[0].parts[1]
            found = await conversation.attachment(part["id"])
            assert (found.data, found.mime_type, part["filename"]) == (PNG, "image/png", "dot.png")
            with pytest.raises(NotFound):
                await conversation.attachment("att_none_0")

            await (await conversation.send("It rings.", signal="door", attributes={"who": "Ada"}, tag="bell")).reply()
            entry = [entry for entry in await app.conversation("echo", "c").history() if entry.delivery][-1]
            assert entry.delivery is not None
            assert (entry.delivery.kind, entry.delivery.type, entry.delivery.tag) == ("signal", "door", "bell")
            for wrong in ({"tag": "x"}, {"signal": "x", "attachments": [image]}):
                with pytest.raises(UsageError):
                    await conversation.send("?", **wrong)  # type: ignore[arg-type]

    run(main)


def test_lists_and_what_is_not_there() -> None:
    """What does not exist says so by name, whichever part of it is wrong."""

    async def main() -> None:
        async with talking() as (_, client):
            assert [(card.name, card.description) for card in await client.agents()] == [("echo", "Says it again.")]
            assert (await client.info())["agents"] == ["echo"]
            for number in range(5):
                await client.conversation("echo", f"c{number}").send("Hello.")
            found = [each.id async for each in client.conversations("echo", page=2)]
            assert found == ["c4", "c3", "c2", "c1", "c0"]
            with pytest.raises(NotFound, match="no such agent; there are: echo"):
                await client.conversation("nobody", "c").send("?")
            with pytest.raises(NotFound, match="does not exist"):
                await client.conversation("echo", "none").history()
            with pytest.raises(NotFound, match="has no submission 'sub_none'"):
                await client.conversation("echo", "c0").reply("sub_none")
            with pytest.raises(NotFound):
                async for _chunk in client.conversation("echo", "none").follow():
                    pass
            with pytest.raises(UsageError, match="neither may be empty"):
                client.conversation("echo", "")

    run(main)


def test_a_conversation_is_forked_counted_exported_and_deleted() -> None:
    """S12: a fork goes its own way; what is deleted is gone for its followers too."""

    async def main() -> None:
        async with talking() as (app, client):
            conversation = client.conversation("echo", "c")
            first = await conversation.send("one")
            await first.reply()
            middle = (await conversation.history()).offset
            await (await conversation.send("two")).reply()

            fork = await conversation.fork(middle, "a/b")
            assert (fork.agent, fork.id) == ("echo", "a/b")
            await (await fork.send("three")).reply()
            said = [message.text for message in (await fork.history()).messages if message.role == "user"]
            assert said == ["one", "three"]
            assert (await fork.reply(first.submission)).text == "You said: one"
            with pytest.raises(Conflict):
                await conversation.fork(id="a/b")
            assert (await conversation.fork()).id not in ("c", "a/b")

            assert (await conversation.usage())["totals"]["submissions"] == 2
            lines = [line async for line in conversation.export()]
            assert lines[0]["instance"]["id"] == "c" and lines[-1]["end"] == (await conversation.history()).offset
            assert [line["ordinal"] for line in lines[1:-1]] == list(range(len(lines) - 2))

            async def follow() -> None:
                async for _ in conversation.follow():
                    ready.set()

            ready = asyncio.Event()
            following = asyncio.ensure_future(follow())
            await ready.wait()
            assert await conversation.delete() and not await conversation.delete()
            with pytest.raises(NotFound):
                await following
            with pytest.raises(NotFound):
                await conversation.usage()
            with pytest.raises(NotFound):
                await anext(conversation.export())
            assert not await app.conversation("echo", "c").exists()
            assert await fork.exists()

    run(main)


def test_an_export_that_is_cut_off_is_an_error() -> None:
    """T17: half of a conversation never passes for the whole."""

    async def main() -> None:
        async with App([echo()], store=":memory:") as app:
            await (await app.conversation("echo", "c").send("Hello.")).reply()
            for cut in (10, 500):
                async with Client("http://localhost", transport=Breaking(app, [("GET", (cut,))])) as client:
                    with pytest.raises(RemoteError):
                        async for _ in client.conversation("echo", "c").export():
                            pass

    run(main)


def test_a_receipt_of_a_conversation_that_was_deleted_waits_for_nothing(tmp_path: Path) -> None:
    """S3: under the same name, with a longer log, is another conversation: its answers are not this one's."""

    async def main() -> None:
        async with talking() as (_, client):
            conversation = client.conversation("echo", "c")
            receipt = await conversation.send("one")
            await receipt.reply()
            await conversation.delete()
            await (await conversation.send("other")).reply()
            with pytest.raises(Replaced):
                await asyncio.wait_for(receipt.reply(), PATIENCE_SECONDS)
            with pytest.raises(Replaced):
                await asyncio.wait_for(anext(receipt.follow()), PATIENCE_SECONDS)
            with pytest.raises(NotFound):
                await conversation.reply(receipt.submission)

    run(main)


def test_a_token_is_sent_and_headers_win() -> None:
    """X5: without one, with a wrong one, with the right one, and one that is asked for before each request."""

    async def main() -> None:
        from cairn.framework.http.auth import Credentials, Grant, Identity

        def who(given: Credentials) -> Identity | None:
            is_known = given.headers.get("authorization") == "Bearer right"
            return Identity("ada", grants=frozenset(Grant), trusted=True) if is_known else None

        async with App([echo()], store=":memory:", auth=who) as app:
            for options, is_welcome in (
                ({}, False),
                ({"token": "wrong"}, False),
                ({"token": "right"}, True),
                ({"token": "wrong", "headers": {"Authorization": "Bearer right"}}, True),
                ({"headers": lambda: {"authorization": "Bearer right"}}, True),
            ):
                async with Client("http://localhost", transport=inside(app), **options) as client:  # type: ignore[arg-type]
                    if is_welcome:
                        assert (await client.agents())[0].name == "echo"
                    else:
                        with pytest.raises(Denied, match="valid credential"):
                            await client.agents()

    run(main)


# --- a server that breaks -------------------------------------------------------------------------------------------


class Breaking(httpx.AsyncBaseTransport):
    """Before the real thing: what is next in `plan` happens to a request of that method, once."""

    def __init__(self, app: App, plan: list[tuple[str, Any]]) -> None:
        self._real = inside(app)
        self.plan = plan
        self.sent: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.method)
        what = self.plan.pop(0)[1] if self.plan and self.plan[0][0] == request.method else None
        if isinstance(what, Exception):
            raise what
        if isinstance(what, int):
            return httpx.Response(what, headers={"retry-after": "0"}, content=b"<html>proxy</html>")
        response = await self._real.handle_async_request(request)
        if what == "lost":
            await response.aclose()
            raise httpx.ReadError("connection reset")
        if isinstance(what, tuple):
            response.stream = Cut(response.stream, what[0])  # type: ignore[arg-type]
        return response


class Cut(httpx.AsyncByteStream):
    """A body that breaks off after so many bytes."""

    def __init__(self, real: httpx.AsyncByteStream, left: int) -> None:
        self._real = real
        self._left = left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._real:
            yield part[: self._left]
            self._left -= len(part)
            if self._left <= 0:
                raise httpx.ReadError("connection reset")

    async def aclose(self) -> None:
        await self._real.aclose()


def test_a_message_without_a_key_is_sent_once_and_one_with_a_key_until_it_is_known() -> None:
    """S6: an answer that got lost is asked for again only where that cannot do anything twice."""

    async def main() -> None:
        async with App([echo()], store=":memory:") as app:
            broken = Breaking(app, [("POST", "lost")])
            async with Client("http://localhost", transport=broken) as client:
                with pytest.raises(Unreachable) as caught:
                    await client.conversation("echo", "once").send("Hello.")
                assert caught.value.was_sent and broken.sent == ["POST"]

                broken.plan = [("POST", "lost"), ("POST", 503), ("POST", httpx.ConnectError("refused"))]
                receipt = await client.conversation("echo", "keyed").send("Hello.", key="k")
                assert receipt.deduplicated and (await receipt.reply()).text == "You said: Hello."

                broken.plan = [("POST", httpx.ConnectError("refused"))]
                await client.conversation("echo", "unsent").send("Hello.")

                broken.plan = [("POST", 503)]
                with pytest.raises(RemoteError, match="proxy") as refused:
                    await client.conversation("echo", "refused").send("Hello.")
                assert refused.value.status == 503 and refused.value.retryable
            for id in ("once", "keyed", "unsent"):
                said = [entry.text for entry in await app.conversation("echo", id).history() if entry.kind == "user"]
                assert said == ["Hello."], id
            assert not await app.conversation("echo", "refused").exists()

    run(main)


def test_patience_has_an_end() -> None:
    """A server that is not there is an error of ours, which names it."""

    async def main() -> None:
        async with (
            App([echo()], store=":memory:") as app,
            Client(
                "http://localhost",
                transport=Breaking(app, [("GET", httpx.ConnectError("refused"))] * 100),
                patience_seconds=0.2,
            ) as client,
        ):
            with pytest.raises(Unreachable, match=r"http://localhost does not answer: refused"):
                await client.agents()

    run(main)


@pytest.mark.parametrize("step", [1, 37, 250])
def test_a_stream_that_breaks_at_any_byte_is_followed_as_one(step: int) -> None:
    """S3, T17: every chunk once and in order, wherever the connection ends."""

    async def main() -> None:
        from cairn.framework.http.limits import HttpLimits

        # Small frames: between two of them a reader has seen chunks and not yet where to read on.
        async with App([echo()], store=":memory:", limits=HttpLimits(page_batches=2)) as app:
            receipt = await app.conversation("echo", "c").send("Hello, hello, hello.")
            await receipt.reply()
            async with Client("http://localhost", transport=inside(app)) as client:
                whole = [
                    (chunk.position, chunk.fields)
                    async for chunk in client.conversation("echo", "c").receipt(receipt.submission).follow()
                ]
            cuts = list(range(step, 3000, max(step, 40)))
            broken = Breaking(app, [("GET", (cut,)) for cut in cuts] + [("GET", 502), ("GET", httpx.ReadTimeout("slow"))])
            async with Client("http://localhost", transport=broken, clock=Hasty()) as client:
                again = client.conversation("echo", "c").receipt(receipt.submission)
                assert [(chunk.position, chunk.fields) async for chunk in again.follow()] == whole
            assert len(broken.sent) > 2

    run(main)


class Hasty:
    """A clock on which nothing takes time to wait for."""

    def wall(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    def boottime(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Silent(httpx.AsyncByteStream):
    """What a proxy makes of a stream that it buffers."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        raise httpx.ReadTimeout("nothing came")
        yield b""


def test_a_proxy_that_swallows_streams_is_passed_by_asking() -> None:
    """L5: what never arrives as a stream is asked for, and arrives."""

    async def main() -> None:
        async with App([echo()], store=":memory:") as app:
            real, asked = inside(app), list[str]()

            class Proxy(httpx.AsyncBaseTransport):
                async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                    asked.append(request.url.params.get("live", ""))
                    if asked[-1] == "sse":
                        return httpx.Response(200, stream=Silent())
                    return await real.handle_async_request(request)

            async with Client("http://localhost", transport=Proxy(), clock=Hasty()) as client:
                receipt = await client.conversation("echo", "c").send("Hello.")
                assert (await asyncio.wait_for(receipt.reply(), PATIENCE_SECONDS)).text == "You said: Hello."
            assert asked.count("sse") == 1

    run(main)


def test_another_life_of_the_log_ends_a_follower(tmp_path: Path) -> None:
    """S3: what was read of a store that is gone does not continue into the one that has its place."""

    async def main() -> None:
        ready = asyncio.Event()
        seen: list[str] = []

        async def follow(client: Client) -> None:
            async for chunk in client.conversation("echo", "c").follow():
                seen.append(chunk.type)
                if chunk.type == "submission-settled":
                    ready.set()

        async with App([echo()], store=tmp_path / "one.db") as first:
            transport = Breaking(first, [])
            async with Client("http://localhost", transport=transport, clock=Hasty()) as client:
                await client.conversation("echo", "c").send("Hello.")
                following = asyncio.ensure_future(follow(client))
                await ready.wait()
                async with App([echo()], store=tmp_path / "two.db") as second:
                    await (await second.conversation("echo", "c").send("Hello.")).reply()
                    transport._real = inside(second)
                    first.http.stop()
                    with pytest.raises(Replaced):
                        await asyncio.wait_for(following, PATIENCE_SECONDS)
                history = await first.conversation("echo", "c").history()
        assert seen.count("submission-settled") == 1 and len(history) == 2

    run(main)


# --- pure -----------------------------------------------------------------------------------------------------------


def test_events_are_the_same_however_their_bytes_are_cut() -> None:
    """T17: CR LF, comments and other fields do no harm."""
    chunk = {"type": "message-delta", "messageId": "m", "kind": "text", "delta": "é", "position": {"batch": 7, "index": 0}}
    text = (
        'event: data\ndata:[{"type":"stream-checkpoint","incarnation":"inc_1"}]\n\n: heartbeat\n\n'
        f"id: 1\nretry: 10\nevent: data\r\ndata: {json.dumps([chunk], ensure_ascii=False)}\r\n\r\n"
        'event: control\ndata:{"streamNextOffset":"0000000000000000_0000000000000007","upToDate":true}\n\n'
        "event: other\ndata: x\n\n"
    ).encode()

    def fed(size: int) -> Iterator[Any]:
        stream = EventStream()
        for start in range(0, len(text), size):
            yield from stream.feed(text[start : start + size])

    whole = list(fed(len(text)))
    assert [frame.incarnation for frame in whole] == ["inc_1", None, None]
    assert whole[1].chunks[0]["delta"] == "é" and whole[1].chunks[0].offset.endswith("_0000000000000007")
    assert whole[2].is_up_to_date
    assert all(list(fed(size)) == whole for size in (1, 2, 3, 7, 50))


@pytest.mark.parametrize("data", [b"{", b"[1]", b'[{"type":"message-delta"}]', b'[{"position":{}}]'])
def test_a_frame_that_is_none_is_an_error_of_ours(data: bytes) -> None:
    """T19: nothing a server sends ends in a KeyError."""
    with pytest.raises(RemoteError, match="cannot be read"):
        list(EventStream().feed(b"event: data\ndata: " + data + b"\n\n"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, UsageError), (401, Denied), (403, Denied), (404, NotFound), (409, Conflict), (413, UsageError), (416, RemoteError),
     (429, RemoteError), (500, RemoteError), (503, RemoteError), (507, StoreFull)],
)  # fmt: skip
def test_every_refusal_is_an_error_of_ours_with_the_servers_words(status: int, kind: type[Exception]) -> None:
    """Whoever catches our errors catches a server's."""
    body = json.dumps({"error": {"type": "t", "message": "It is so.", "details": "Because.", "ref": "err_1"}}).encode()
    error = error_of(status, {"retry-after": "7"}, body, "GET http://x")
    assert type(error) is kind and "It is so. Because." in str(error)
    if isinstance(error, RemoteError):
        assert (error.status, error.retry_after, error.ref) == (status, 7.0, "err_1")
    assert "no envelope" in str(error_of(status, {}, b"no envelope", "GET http://x"))
    assert "\x1b" not in str(error_of(status, {}, b"\x1b[2Jgone", "GET http://x"))


def test_a_server_that_has_moved_says_where() -> None:
    """Nothing is sent to an address that nobody gave: the credential would go with it."""
    error = error_of(301, {"location": "https://x/"}, b"", "GET http://x")
    assert isinstance(error, UsageError) and str(error) == "GET http://x: the server is elsewhere: https://x/"


def test_a_url_names_a_server_an_agent_or_a_conversation() -> None:
    """The page's address works as well as the wire's."""
    assert located("http://h:1") == ("http://h:1", "", "")
    assert located("https://h/ai/agents/support/a%2Fb?x=1") == ("https://h/ai", "support", "a/b")
    assert located("https://h/chat/support/") == ("https://h", "support", "")
    with pytest.raises(UsageError):
        located("https://h/agents/support/a/b")
    for wrong in ("", "h:1", "ftp://h", "http://", "http://u:p@h"):
        with pytest.raises(UsageError):
            Client(wrong)
