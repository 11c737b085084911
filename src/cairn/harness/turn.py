"""One model round-trip: a stream in, records out.

Laws. Nothing a provider sent is shown before it is in the log (S10). Every wait races the cut (an abort, a deadline) and has a
deadline of its own, measured on events, so a stream that stalls — even one that ignores being closed — ends the turn within
a bound. A finished response becomes exactly one `message.completed`; the caller commits it, together with what follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Literal

import msgspec

from cairn.clock import Clock
from cairn.errors import CairnError, ModelError
from cairn.harness import records as h
from cairn.harness.bell import Bell
from cairn.harness.cut import CutReason
from cairn.harness.limits import Limits
from cairn.harness.messages import Content, Text, Thinking, ToolCall
from cairn.harness.models.protocol import Completed, Model, ModelEvent, ModelRequest, TextDelta, ThinkingDelta
from cairn.runtime.records import Record

logger = logging.getLogger("cairn.harness")

#: The first delta of a quiet stream goes out at once, then at most one batch per this many seconds …
FLUSH_SECONDS = 0.025
#: … or as soon as this many characters wait: a reader sees text within 50 ms, and a commit carries a readable amount.
FLUSH_CHARACTERS = 8_192
#: Characters of one delta record; a provider that sends megabytes at once is cut into these (a record holds at most 1 MB).
DELTA_CHARACTERS = 65_536
#: Characters of one message, reasoning included: 100,000 tokens. Protects memory, and the record that will hold all of it.
MESSAGE_CHARACTERS = 400_000
#: Characters of a provider's call id that are kept when another has to be made from it (providers take 64, ours add a few).
CALL_CHARACTERS = 56
#: A stream that is always ready would starve everything else; after this many events the others get a turn.
EVENTS_PER_YIELD = 128
#: Seconds a closed stream may take to let go before it is abandoned and reported.
CLOSE_SECONDS = 2.0


@dataclass(slots=True)
class Response:
    """How a turn ended: with a completed response, an error, or a cut; and whether any text had been shown."""

    completed: Completed | None = None
    error: ModelError | None = None
    cut: CutReason | None = None
    started: bool = False
    """Something of the message is in the log."""
    text: bool = False
    """Some of it is text, not only reasoning."""


@dataclass(slots=True)
class _Buffer:
    """What arrived and is not in the log. The pump writes, the flusher reads; both run on one loop."""

    events: list[TextDelta | ThinkingDelta] = field(default_factory=list)
    characters: int = 0
    total: int = 0
    last_event: float = 0.0
    any_event: bool = False
    done: bool = False
    completed: Completed | None = None
    error: ModelError | None = None
    arrived: Bell = field(default_factory=Bell)
    flushed: Bell = field(default_factory=Bell)


class TurnStream:
    """Carries out one request. `append` puts deltas into the log and returns when they are in it."""

    def __init__(self, clock: Clock, limits: Limits, append: Callable[[Sequence[Record]], Awaitable[object]]) -> None:
        self._clock = clock
        self._limits = limits
        self._append = append

    async def run(self, model: Model, request: ModelRequest, message: str, cut: asyncio.Future[CutReason]) -> Response:
        """Ask and stream until the response is complete, fails, stalls or is cut. What was shown is in the log.

        *Cancelled*: the stream is closed; what had arrived is put into the log first.
        """
        buffer = _Buffer(last_event=self._clock.monotonic())
        pump = asyncio.ensure_future(self._pump(model, request, buffer))
        response = Response()
        cut.add_done_callback(buffer.arrived.hear)
        try:
            await self._follow(buffer, message, cut, response)
        except asyncio.CancelledError:
            await asyncio.shield(self._flush(buffer, message, response))
            raise
        finally:
            cut.remove_done_callback(buffer.arrived.hear)
            await self._close(pump)
        # A response that is complete is paid for: it counts, even when the cut or a deadline came at the same moment.
        response.completed = buffer.completed
        if response.completed is None and response.error is None and response.cut is None:
            early = ModelError("the stream ended before the response was complete", kind="network")
            response.error = buffer.error or early
        return response

    async def _pump(self, model: Model, request: ModelRequest, buffer: _Buffer) -> None:
        """Move events from the stream into the buffer, as fast as they come and as far as memory allows."""
        stream: AsyncGenerator[ModelEvent, None] | None = None
        events = 0
        try:
            stream = model.stream(request)
            async for event in stream:
                self._take(event, buffer)
                events += 1
                if buffer.characters >= FLUSH_CHARACTERS or events % EVENTS_PER_YIELD == 0:
                    await self._let_flush(buffer)
                if buffer.completed is not None:
                    break
        except ModelError as error:
            buffer.error = error
        except CairnError as error:
            buffer.error = ModelError(str(error), kind="invalid_request")
        except Exception as error:
            logger.exception("the model %s failed in an unexpected way", request.model)
            buffer.error = ModelError(f"{type(error).__name__}: {error}", kind="unknown")
        finally:
            buffer.done = True
            buffer.arrived.ring()
            if stream is not None:
                await stream.aclose()

    def _take(self, event: ModelEvent, buffer: _Buffer) -> None:
        buffer.last_event = self._clock.monotonic()
        if not buffer.any_event:
            buffer.any_event = True
            buffer.arrived.ring()  # from here on the other deadline holds, and it may be the shorter one
        if isinstance(event, TextDelta | ThinkingDelta):
            if buffer.total + len(event.text) > MESSAGE_CHARACTERS:
                text = f"the response is longer than {MESSAGE_CHARACTERS:,} characters and was cut off"
                raise ModelError(text, kind="invalid_request")
            buffer.events.append(event)
            buffer.characters += len(event.text)
            buffer.total += len(event.text)
            buffer.arrived.ring()
        elif isinstance(event, Completed):
            buffer.completed = event

    async def _let_flush(self, buffer: _Buffer) -> None:
        if buffer.characters < FLUSH_CHARACTERS:
            await asyncio.sleep(0)
            return
        buffer.arrived.ring()
        await buffer.flushed.wait()

    async def _follow(self, buffer: _Buffer, message: str, cut: asyncio.Future[CutReason], response: Response) -> None:
        quiet_since = float("-inf")
        while True:
            await self._wait_for_arrival(buffer, cut, response)
            if response.cut is not None or response.error is not None:
                await self._flush(buffer, message, response)
                return
            pause = FLUSH_SECONDS - (self._clock.monotonic() - quiet_since)
            if pause > 0 and buffer.characters < FLUSH_CHARACTERS and not buffer.done:
                await self._pause(pause, buffer, cut)
            await self._flush(buffer, message, response)
            quiet_since = self._clock.monotonic()
            if buffer.done and not buffer.events:
                return

    async def _wait_for_arrival(self, buffer: _Buffer, cut: asyncio.Future[CutReason], response: Response) -> None:
        """Return when something waits to be flushed, the stream is done, it was cut, or a deadline has passed."""
        while not (buffer.events or buffer.done):
            if cut.done():
                response.cut = cut.result()
                return
            allowed = self._limits.idle_seconds if buffer.any_event else self._limits.first_event_seconds
            left = buffer.last_event + allowed - self._clock.monotonic()
            if left <= 0:
                what = "sent nothing" if buffer.any_event else "did not begin to answer"
                response.error = ModelError(f"the provider {what} for {allowed:g} s", kind="timeout")
                return
            await buffer.arrived.wait(left)
        if cut.done():
            response.cut = cut.result()

    async def _pause(self, seconds: float, buffer: _Buffer, cut: asyncio.Future[CutReason]) -> None:
        """Let a batch gather; end early when it is large, the stream is done, or it was cut."""
        deadline = self._clock.monotonic() + seconds
        while not (buffer.done or cut.done() or buffer.characters >= FLUSH_CHARACTERS):
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            await buffer.arrived.wait(left)

    async def _flush(self, buffer: _Buffer, message: str, response: Response) -> None:
        events, buffer.events, buffer.characters = buffer.events, [], 0
        buffer.flushed.ring()
        records = delta_records(message, events)
        if not records:
            return
        await self._append(records)
        response.started = True
        response.text = response.text or any(record.kind == "text" and record.text.strip() for record in records)

    async def _close(self, pump: asyncio.Future[None]) -> None:
        if pump.done() and not pump.cancelled() and pump.exception() is None:
            return
        pump.cancel()
        _, pending = await asyncio.wait({pump}, timeout=CLOSE_SECONDS)
        if pending:
            logger.warning("a model's stream ignores being closed for %g s; it is abandoned", CLOSE_SECONDS)
        elif not pump.cancelled() and (error := pump.exception()) is not None:
            logger.warning("closing a model's stream failed: %r", error)


def recordable(content: Sequence[Content], taken: Collection[str]) -> tuple[Content, ...]:
    """The content as it can be recorded: text that is UTF-8, and an id of its own for every call. Some providers repeat ids
    from response to response, or give none; a call's id is what its outcome, its steps and its key go by."""
    used = {"", *taken}
    made: list[Content] = []
    for block in content:
        if isinstance(block, Text | Thinking) and (whole := whole_characters(block.text)) is not block.text:
            block = msgspec.structs.replace(block, text=whole)
        elif isinstance(block, ToolCall):
            block = _whole_call(block)
            others = (f"{block.id[:CALL_CHARACTERS] or 'call'}_{number}" for number in count(2))
            block = msgspec.structs.replace(block, id=next(name for name in chain([block.id], others) if name not in used))
            used.add(block.id)
        made.append(block)
    return tuple(made)


def _whole_call(block: ToolCall) -> ToolCall:
    try:
        msgspec.json.encode(block)
    except (ValueError, TypeError, RecursionError) as error:
        id, name = whole_characters(block.id), whole_characters(block.name)
        return ToolCall(id=id, name=name, arguments={}, arguments_error=f"they are no JSON ({error})")
    return block


def whole_characters(text: str) -> str:
    """The text with its surrogate pairs put together: a provider may cut a character in two. Half of one is replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def delta_records(message: str, events: Sequence[TextDelta | ThinkingDelta]) -> list[h.MessageDelta]:
    """Consecutive deltas of a block as one record, none longer than `DELTA_CHARACTERS`."""
    records: list[h.MessageDelta] = []
    texts: list[str] = []

    def close(block: int, kind: Literal["text", "thinking"]) -> None:
        text = whole_characters("".join(texts))
        texts.clear()
        for start in range(0, len(text), DELTA_CHARACTERS):
            part = text[start : start + DELTA_CHARACTERS]
            records.append(h.MessageDelta(message=message, block=block, kind=kind, text=part))

    current: tuple[int, type] | None = None
    for event in events:
        identity = (event.block, type(event))
        if current is not None and identity != current:
            close(current[0], "text" if current[1] is TextDelta else "thinking")
        current = identity
        texts.append(event.text)
    if current is not None:
        close(current[0], "text" if current[1] is TextDelta else "thinking")
    return records
