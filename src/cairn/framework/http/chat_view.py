"""One chat client's view of a conversation: it follows the log, and tells the client what it has to know, in the log's order.

Laws. What is told is durable and comes from the log, whoever appended it and whichever process runs the agent; so a client
that comes back to another process is told the rest, to the letter. What is done for a question of the client and what is told
of the log never mix: one at a time. A view is a position and one answer; it never holds the conversation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import NotFound
from cairn.framework.http import chat_frames as frames
from cairn.framework.http.chat_handshake import Do, Event, Handshake, Standing
from cairn.framework.http.chat_parts import Telling, asking, ui_message, waits
from cairn.framework.http.chat_scene import (
    Admitted,
    Began,
    Changed,
    Happening,
    Paused,
    Recovering,
    Replaced,
    Scene,
    Settled,
)
from cairn.framework.http.chat_streams import Asked, Streams
from cairn.framework.http.chat_transcripts import FileAddresses, encoded
from cairn.framework.http.frames import Frame
from cairn.runtime import log
from cairn.runtime.storage.store import InstanceRow

if TYPE_CHECKING:
    from cairn.framework.http.service import Service
    from cairn.framework.http.sockets import Socket
    from cairn.harness.handle import ConversationHandle

Json = dict[str, Any]

#: Seconds between two looks for a conversation that does not exist yet: there is no log to wait at.
BIRTH_SECONDS = 0.5
#: Seconds in which a rewind is usually done; what a client says after it is about what there is then.
RESET_SECONDS = 5.0

#: The AI SDK's word for why an answer ended, by outcome.
_FINISH = {"completed": "stop", "failed": "error", "aborted": "other"}


class View:
    """What one client sees."""

    def __init__(self, service: Service, socket: Socket, conversation: ConversationHandle, busy: Callable[[], bool]) -> None:
        self._service = service
        self._socket = socket
        self._conversation = conversation
        self._busy = busy
        self._url = FileAddresses(socket.request, socket.kind, socket.name)
        self.turn = asyncio.Lock()
        self._born = asyncio.Event()
        self._row: InstanceRow | None = None
        self._after = log.BEGINNING
        self._scene = Scene()
        self._handshake = Handshake()
        self._telling = Telling()
        self._streams = Streams()
        self._answered: set[str] = set()
        """Calls that were answered through this socket."""
        self._probe: str | None = None
        self._is_probed = False
        self._is_stale = False
        """The client lacks a message that came from elsewhere."""
        self._expects_reset = False
        self._was_reset = asyncio.Event()
        self._failure = ""

    # --- the log

    async def opened(self) -> None:
        """The client has the transcript, and knows whether something streams."""
        async with self.turn:
            messages, settlements = await self._load()
            self._scene = Scene.of(messages, settlements)
            await self._say(frames.transcript(encoded(messages, self._url), connect=True))
            if self._scene.is_streaming:
                self._begin(self._scene.host)
                await self._do(Event.FOUND)

    async def follow(self) -> None:
        """Tell everything that happens from then on; until it is cancelled. *Raises* StoreError."""
        while True:
            row = self._row
            if row is None:
                row = await self._birth()
            try:
                head = await self._service.store.changed(row.n, self._after)
                frame = await self._service.frames.after(row, self._after, head)
                if not frame.rows and self._after < head:
                    raise NotFound(f"conversation {row.address} was deleted")
            except NotFound:
                await self._gone()
                continue
            async with self.turn:
                await self._show(frame)
                self._after = frame.next

    async def _load(self) -> tuple[list[Json], list[Json]]:
        self._row = await self._service.store.find(self._conversation.address)
        if self._row is None:
            return [], []
        snapshot = await self._service.snapshots.at_head(self._row)
        self._after = snapshot.ordinal
        return msgspec.json.decode(snapshot.messages()), msgspec.json.decode(snapshot.settlements())

    async def _birth(self) -> InstanceRow:
        while (row := await self._service.store.find(self._conversation.address)) is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(BIRTH_SECONDS):
                    await self._born.wait()
            self._born.clear()
        self._row, self._after = row, log.BEGINNING
        return row

    async def _gone(self) -> None:
        """The conversation was deleted; its id is free."""
        async with self.turn:
            self._row, self._after, self._scene = None, log.BEGINNING, Scene()
            if self._handshake.standing is not Standing.AWAY:
                self._handshake.on(Event.ENDED)
                await self._say(frames.ended(self._streams.current, "aborted"))
            for asked in self._streams.take_all():
                if not asked.is_told:
                    await self._say(frames.ended(asked.id, "aborted", messages=asked.messages))
            await self._say(frames.cleared())
            await self._answer_probe()

    async def _show(self, frame: Frame) -> None:
        for chunk in msgspec.json.decode(b"[%s]" % frame.chunks):
            place = chunk["position"]["batch"]
            for happening in self._happenings(chunk, place):
                await self._happen(happening)
        await self._grow()
        await self._refresh()
        await self._answer_probe()

    def _happenings(self, chunk: Json, place: int) -> Iterator[Happening]:
        if chunk["type"] != "conversation-reset":
            yield from self._scene.feed(chunk, place)
        elif place > 0:
            yield from self._scene.reset(chunk["snapshot"]["messages"], chunk["snapshot"]["settlements"])

    async def _happen(self, happening: Happening) -> None:
        match happening:
            case Admitted(submission, message):
                await self._admit(submission, message)
            case Began(submission):
                await self._refresh()
                self._begin(submission)
                await self._do(Event.AWAITED if self._is_probed else Event.BEGAN)
            case Paused(submission, message):
                await self._end(message, "tool-calls", submission)
            case Changed(message):
                await self._say(frames.message_updated(ui_message(message, self._url)))
            case Recovering(submission, is_recovering):
                await self._say(frames.recovering(self._streams.current or submission, is_recovering))
            case Settled():
                await self._settle(happening)
            case Replaced(is_empty):
                await self._replace(is_empty)

    async def _admit(self, submission: str, message: Json) -> None:
        """The client lacks a message of others; of its own it has all but the addresses of its files, which it would send
        again with every transcript."""
        if not self._streams.is_asked(submission):
            self._is_stale = True
        elif any(part["type"] == "file" for part in message["parts"]):
            await self._say(frames.message_updated(ui_message(message, self._url)))

    # --- telling

    def _begin(self, submission: str) -> None:
        """Another stream."""
        self._streams.begin(submission)
        self._telling = Telling()
        self._answered.clear()

    async def _do(self, event: Event, probe: str | None = None) -> None:
        match self._handshake.on(event):
            case Do.OFFER:
                probe, self._probe = probe or self._probe, None
                self._is_probed = False
                await self._say(frames.resuming(self._streams.current, probe))
            case Do.TELL:
                await self._grow()
            case Do.REPLAY:
                self._telling = Telling()
                await self._tell(self._scene.message, replay=True)
                await self._say(frames.replayed(self._streams.current))
            case _:
                pass

    async def _grow(self) -> None:
        """The client gets what is new of what streams."""
        if self._handshake.is_live:
            await self._tell(self._scene.message)

    async def _tell(self, message: Json | None, *, replay: bool = False) -> None:
        if message is not None:
            for chunk in self._telling.tell(message, self._url):
                await self._say(frames.chunk(self._streams.current, chunk, replay=replay))

    async def _end(self, message: Json, reason: str, submission: str, settled: Settled | None = None) -> None:
        """The stream is over: its last chunks, the answer as it is stored, and then the end, which has to be last.

        A client that listened gets the one message and not the transcript: it may have said something that is on its way
        here, and a transcript without that would take it off the person's screen."""
        if self._handshake.is_live:
            await self._tell(message)
            for chunk in self._telling.finish(reason):
                await self._say(frames.chunk(self._streams.current, chunk))
            await self._say(frames.message_updated(ui_message(message, self._url)))
        else:
            await self._say(frames.transcript(await self._transcript()))
        self._handshake.on(Event.ENDED)
        await self._say(_ended(self._streams.current, self._streams.messages(submission), settled))

    async def _settle(self, settled: Settled) -> None:
        submission, message = settled.submission, settled.message
        is_shown = self._handshake.standing is not Standing.AWAY
        if is_shown and message is not None and self._streams.submission_of(self._streams.current) == submission:
            await self._end(message, _FINISH.get(settled.outcome, "other"), submission, settled)
        asked = self._streams.take(submission)
        if asked is not None and not asked.is_told:
            await self._say(_ended(asked.id, asked.messages, settled))

    async def _replace(self, is_empty: bool) -> None:
        """The transcript is another one. Who asked for that has it already, and perhaps said something since."""
        if self._expects_reset:
            self.expect_reset(False)
        elif is_empty:
            await self._say(frames.cleared())
        else:
            self._is_stale = True
            await self._refresh()

    async def _refresh(self) -> None:
        # Not while it waits for something of its own to be stored: a transcript without that would take it away.
        if self._is_stale and not self._busy():
            self._is_stale = False
            await self._say(frames.transcript(await self._transcript()))

    async def _transcript(self) -> bytes:
        """All messages, as JSON, at the head."""
        row = await self._service.store.find(self._conversation.address)
        return b"[]" if row is None else await self._service.transcripts.at_head(row, self._url)

    async def _say(self, frame: str) -> None:
        await self._socket.send(frame)

    # --- what the client asks

    async def asked(self, probe: str | None) -> None:
        """The client wants to know whether something streams."""
        async with self.turn:
            if self._scene.is_streaming:
                await self._do(Event.ASKED, probe)
                return
            self._probe, self._is_probed = probe, True
            await self._answer_probe()
            if self._is_probed:
                await self._say(frames.pending(probe))

    async def acknowledged(self, id: str) -> None:
        """The client listens to a stream."""
        async with self.turn:
            if id == self._streams.current and self._scene.is_streaming:
                await self._do(Event.ACKNOWLEDGED)
            elif id and id == self._failure:
                await self._replay_failure()
            else:
                self._handshake.on(Event.MISTAKEN)
                await self._say(frames.over(id))

    async def settle(self) -> None:
        """Something this client asked for is done: it is told what waited for that."""
        async with self.turn:
            await self._refresh()
            await self._answer_probe()

    async def _answer_probe(self) -> None:
        """A question that waits has its answer, as soon as there is one."""
        scene = self._scene
        if not self._is_probed or scene.is_streaming or scene.is_pending or self._busy() or self._goes_on():
            return
        probe, self._probe, self._is_probed = self._probe, None, False
        if scene.failed is not None and not self._streams.knows(scene.failed[0]):
            self._failure = scene.failed[0]
            await self._say(frames.resuming(self._failure, probe))
        else:
            await self._say(frames.idle(probe))

    def _goes_on(self) -> bool:
        """Whether all that the answer waits for was given through this socket."""
        message = self._scene.message
        return message is not None and waits(message) and asking(message) <= self._answered

    async def _replay_failure(self) -> None:
        """Who was not there when the last answer failed is told of it as of a stream."""
        failed, id, self._failure = self._scene.failed, self._failure, ""
        if failed is None or failed[0] != id or self._row is None:
            await self._say(frames.over(id))
            return
        self._streams.remember(id, id)
        snapshot = await self._service.snapshots.at_head(self._row)
        found = [each for each in msgspec.json.decode(snapshot.messages()) if each.get("submissionId") == id]
        telling = Telling()
        for message in found:
            if message["role"] == "assistant":
                for chunk in (*telling.tell(message, self._url), *telling.finish("error")):
                    await self._say(frames.chunk(id, chunk, replay=True))
        await self._say(frames.failed(id, failed[1], replay=True))

    # --- what the client does

    def expect(self, submission: str, asked: Asked) -> None:
        """This client asked for that submission's answer. Call it before anything can be told of that: inside of `turn`."""
        self._streams.expect(submission, asked)

    async def attach(self, submission: str, asked: Asked, settled: Settled | None) -> None:
        """This client asked again for an answer that was asked for before. `settled`: how it ended, when it has."""
        async with self.turn:
            self._streams.expect(submission, asked)
            if self._scene.host == submission and self._scene.is_streaming:
                self._begin(submission)
                await self._do(Event.BEGAN)
            elif settled is not None and submission not in self._scene.unsettled:
                self._streams.take(submission)
                await self._say(frames.transcript(await self._transcript()))
                await self._say(_ended(asked.id, asked.messages, settled))
            elif self._scene.host == submission:  # it waits for somebody
                asked.is_told = True
                await self._say(frames.transcript(await self._transcript()))
                await self._say(_ended(asked.id, asked.messages, None))

    def created(self) -> None:
        """The conversation exists now."""
        self._born.set()

    def expect_reset(self, expected: bool = True) -> None:
        """This client rewinds the conversation itself; or it has been done, or could not be."""
        self._expects_reset = expected
        if expected:
            self._was_reset.clear()
        else:
            self._was_reset.set()

    async def reset(self) -> None:
        """What this client rewound is rewound; or no worker is there to do it soon, which is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RESET_SECONDS):
                await self._was_reset.wait()

    def answered(self, call: str) -> None:
        """A call was answered through this socket."""
        self._answered.add(call)

    def submission_of(self, stream: str) -> str | None:
        """What a client means that stops this stream. One that names a stream of an earlier connection means the one it was
        just offered."""
        known = self._streams.submission_of(stream)
        if known is None and self._scene.is_streaming and not self._handshake.is_live:
            return self._scene.host
        return known

    async def offer(self) -> None:
        """The client has turned away from a stream that it could not stop."""
        async with self.turn:
            if self._scene.is_streaming:
                await self._do(Event.ASKED)

    async def refresh(self) -> None:
        """The client has to be told what there really is."""
        async with self.turn:
            await self._say(frames.transcript(await self._transcript()))


def _ended(id: str, messages: list[str] | None, settled: Settled | None) -> str:
    """The last frame of a request."""
    if settled is not None and settled.outcome == "failed":
        return frames.failed(id, settled.error, messages=messages)
    is_aborted = settled is not None and settled.outcome == "aborted"
    return frames.ended(id, "aborted" if is_aborted else "completed", messages=messages)
