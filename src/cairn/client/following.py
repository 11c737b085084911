"""Following a conversation for ever: reading on after every break from where it ended, each chunk once.

Laws. The server's offset and the last position are all there is to remember. A break is no event; another life of the log is an
error, because what was read before does not belong to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from cairn.client.chunks import Chunk, EventStream, Frame, Position, frame_of
from cairn.client.connection import Backoff, Connection, is_timeout, unreachable
from cairn.errors import RemoteError, Replaced

#: Before every position.
_NOWHERE: Position = (-1, -1)
#: The status for an offset beyond the end: this log is not the one the offset is of.
_BEYOND_END = 416


class Follower:
    """One reader of one conversation."""

    def __init__(
        self, connection: Connection, url: str, after: str, incarnation: str | None = None, uid: str | None = None
    ) -> None:
        """`incarnation` and `uid`, where they are known, are the life of the log and of the conversation that are meant."""
        self._connection = connection
        self._url = url
        self._after = after
        self._incarnation = incarnation
        self._conversation = f"conv_{uid.removeprefix('inst_')}" if uid else None
        self._position = _NOWHERE
        self._backoff: Backoff = connection.backoff()
        self._is_known = False
        self._streams = connection.streams

    async def chunks(self, caught_up: Callable[[], None] = lambda: None) -> AsyncGenerator[Chunk, None]:
        """Every chunk after the offset, for ever; `caught_up` is called once, when everything there was has been given.

        *Raises* NotFound when the conversation does not exist (any more), Replaced when another one has its place, Denied.
        """
        is_behind = True
        while True:
            try:
                async with aclosing(self._connected()) as frames:
                    async for frame in frames:
                        self._check(frame)
                        for chunk in frame.chunks:
                            if chunk.position > self._position:
                                self._position = chunk.position
                                yield chunk
                        if frame.next is not None:
                            self._after = frame.next
                            self._backoff.reset()
                        if is_behind and frame.is_up_to_date:
                            is_behind = False
                            caught_up()
            except RemoteError as error:
                if error.status == _BEYOND_END:
                    raise Replaced(f"{self._url} is another conversation than the one that was followed: {error}") from None
                if not error.retryable:
                    raise
                await self._backoff.wait(error)
            else:
                if self._streams:
                    # A stream only ends in order when its server stops: another one will be there in a moment.
                    await self._backoff.wait(RemoteError("the server let go of its readers"))

    def _check(self, frame: Frame) -> None:
        if self._conversation is not None and any(_of(chunk) != self._conversation for chunk in frame.chunks):
            raise Replaced(f"{self._url} is another conversation than the one that was written to; it was deleted meanwhile")
        if frame.incarnation is None:
            return
        self._is_known = True
        if self._incarnation is None:
            self._incarnation = frame.incarnation
        elif self._incarnation != frame.incarnation:
            raise Replaced(f"{self._url} was deleted or its store was replaced while it was followed; it begins anew, at -1")

    async def _connected(self) -> AsyncGenerator[Frame, None]:
        """Frames of one connection, until it ends."""
        if self._streams:
            async with aclosing(self._streamed()) as frames:
                async for frame in frames:
                    yield frame
            return
        query = {"view": "updates", "offset": self._after}
        if self._is_known:
            query["live"] = "long-poll"
        answer = await self._connection.request("GET", self._url, query=query)
        is_up_to_date = answer.headers.get("stream-up-to-date") == "true"
        yield frame_of(answer.body, next=answer.headers.get("stream-next-offset"), is_up_to_date=is_up_to_date)

    async def _streamed(self) -> AsyncGenerator[Frame, None]:
        query, is_silent = {"view": "updates", "offset": self._after, "live": "sse"}, True
        async with self._connection.stream(self._url, query) as response:
            events = EventStream()
            parts = response.aiter_bytes()
            while True:
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    if is_silent and is_timeout(error):
                        # A server speaks at once. Something between us keeps its words until there are more: ask for them.
                        self._streams = False
                    raise unreachable(error, self._url) from error
                for frame in events.feed(part):
                    is_silent = False
                    yield frame


def _of(chunk: Chunk) -> str:
    return str(chunk.get("conversationId"))


async def until_settled(connection: Connection, url: str, submission: str, after: str, uid: str | None) -> Chunk:
    """The settlement of a submission, as soon as it is on the log."""
    follower = Follower(connection, url, after, uid=uid)
    async with aclosing(follower.chunks()) as chunks:
        async for chunk in chunks:
            found = settlement_in(chunk, submission)
            if found is not None:
                return found
    raise AssertionError("following has no end")


def settlement_in(chunk: Chunk, submission: str) -> Chunk | None:
    """The submission's settlement, if this chunk says it."""
    if chunk.type == "submission-settled" and chunk["submissionId"] == submission:
        return chunk
    if chunk.type == "conversation-reset":
        for each in chunk["snapshot"]["settlements"]:
            if each["submissionId"] == submission:
                return Chunk("submission-settled", each, chunk.position, chunk.offset)
    return None
