"""Every sequence of records that a submission's fold accepts, up to a length: the ground of the exhaustive tests.

Method: breadth first from an empty log over an alphabet of records with fixed names; what the fold refuses is not gone
into, and of sequences that lead to one state only the first is kept. Nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import msgspec

from cairn.errors import StoreCorrupt
from cairn.harness import records as h
from cairn.harness.messages import Text, ToolCall
from cairn.harness.submission import CallStatus, Control
from cairn.runtime import records as r
from cairn.runtime.state import RuntimeState

#: Wall seconds: what is due lies before, what is not lies after.
NOW = 1_000.0

_BODY = msgspec.Raw(msgspec.json.encode(h.Delivery(body="hello")))
_NO_ARGUMENTS = msgspec.Raw(b"{}")


@dataclass(frozen=True)
class Folded:
    """Where a sequence leads."""

    control: Control
    runtime: RuntimeState

    @property
    def identity(self) -> bytes:
        return msgspec.json.encode((self.control, self.runtime))


def fold(records: Sequence[r.Record]) -> Folded:
    """Both folds of the records. Raises StoreCorrupt."""
    folded = Folded(Control(), RuntimeState())
    for record in records:
        # The ordinal is one for all, so that two orders of the same records can be compared.
        folded.runtime.apply(record, 0)
        folded.control.apply(record)
    return folded


def accepted(fiber: str) -> r.FiberAccepted:
    return r.FiberAccepted(fiber=fiber, method=h.SUBMISSION, at=0.0, arguments=_BODY)


def settled(fiber: str) -> r.FiberSettled:
    return r.FiberSettled(fiber=fiber, outcome="completed", at=0.0)


def turn(submission: str, number: int, epoch: int, *includes: str) -> h.TurnStarted:
    return h.TurnStarted(
        submission=submission, turn=f"t{number}", message=f"m{number}", epoch=epoch, at=0.0, model="x:y", includes=includes
    )


def completed(control: Control, stop: str, *calls: str) -> h.MessageCompleted:
    blocks = [ToolCall(id=call, name="tool", arguments={}) for call in calls]
    return h.MessageCompleted(
        submission=control.submission or "s1",
        turn=control.turn,
        message=control.message,
        content=(Text(text="text"), *blocks),
        stop=stop,  # type: ignore[arg-type]
        at=0.0,
        model="x:y",
    )


def awaiting(control: Control, call: str, until: float | None = None, on_message: str = "queue") -> h.ToolAwaiting:
    return h.ToolAwaiting(
        submission=control.submission or "s1",
        turn=control.turn,
        call=call,
        name="tool",
        arguments=_NO_ARGUMENTS,
        digest="sha256:0",
        kind="approval",
        at=0.0,
        until=until,
        on_message=on_message,  # type: ignore[arg-type]
    )


def answered(folded: Folded, records: Sequence[r.Record]) -> Iterator[Folded]:
    """The same with answers on the log to any of the calls that wait for one: requests, which may come at any moment."""
    waiting = [call.id for call in folded.control.calls if call.status is CallStatus.AWAITING]
    fiber = folded.control.submission or ""
    for count in range(1, len(waiting) + 1):
        for calls in combinations(waiting, count):
            after = fold(records)
            for call in calls:
                after.runtime.apply(r.FiberWaiting(fiber=fiber, name=call, at=0.0, on="answer", digest="sha256:0"), 0)
                given = r.AnswerGiven(call=call, digest="sha256:0", at=0.0, answer=_NO_ARGUMENTS, fiber=fiber)
                after.runtime.apply(given, 0)
            yield after


def requests() -> Iterator[r.Record]:
    """What any process may append at any moment."""
    yield accepted("s1")
    yield accepted("s2")
    yield r.AbortRequested(at=0.0)
    yield r.AbortRequested(at=0.0, fiber="s1")
    yield r.AbortRequested(at=0.0, fiber="s2")


def alphabet(control: Control, runtime: RuntimeState) -> Iterator[r.Record]:
    """Every kind of record with every name it could carry here, sensible or not."""
    yield from requests()
    yield r.InstanceClaimed(epoch=runtime.epoch + 1, worker="w", at=0.0)
    yield r.InstanceReleased(at=0.0)
    for fiber in ("s1", "s2"):
        yield r.FiberStarted(fiber=fiber, at=0.0)
        yield r.FiberParked(fiber=fiber, name="retry", at=0.0)
        yield settled(fiber)
        yield h.HookCompleted(submission="s1", hook="on_message", of=fiber, at=0.0)
        for includes in ((), ("s1",), ("s2",), ("s1", "s2")):
            yield turn(fiber, control.turns + 1, runtime.epoch, *includes)
    yield h.HookCompleted(submission="s1", hook="on_stop", of=control.turn, at=0.0)
    yield h.HookCompleted(submission="s1", hook="on_stop", of=control.turn, at=0.0, text="go on")
    yield from _of_the_message(control)
    yield from _of_calls(control, runtime.epoch)


def _of_the_message(control: Control) -> Iterator[r.Record]:
    names = {"submission": control.submission or "s1", "turn": control.turn, "message": control.message}
    yield h.MessageDelta(message=control.message, block=0, kind="text", text="a")
    yield h.MessageDelta(message=control.message, block=0, kind="thinking", text="a")
    for stop, calls in (("stop", ""), ("tools", "a"), ("tools", "ab"), ("length", ""), ("length", "a"), ("refusal", "")):
        yield completed(control, stop, *calls)
    for keep in (True, False):
        yield h.MessageInterrupted(**names, reason="crash", keep=keep, at=0.0)
    error = r.ErrorInfo(kind="server", message="down")
    for retry_at in (None, NOW - 1, NOW + 1):
        yield h.TurnFailed(**names, error=error, at=0.0, retry_at=retry_at)


def _of_calls(control: Control, epoch: int) -> Iterator[r.Record]:
    names = {"submission": control.submission or "s1", "turn": control.turn}
    for until, on_message in ((NOW - 1, "queue"), (NOW + 1, "queue"), (None, "withdraw")):
        for call in ("a", "b") if until is None else ("a",):
            yield awaiting(control, call, until, on_message)
    for call in ("a", "b"):
        for repeat in ("never", "keyed", "safe", "resume"):
            yield h.ToolCalled(**names, call=call, name="tool", arguments=_NO_ARGUMENTS, repeat=repeat, epoch=epoch, at=0.0)  # type: ignore[arg-type]
        for terminate in (False, True):
            content = (Text(text="done"),)
            yield h.ToolOutcome(
                **names, call=call, name="tool", outcome="ok", content=content, at=0.0, terminate=terminate
            )  # fmt: skip


@cache
def sequences(length: int) -> tuple[tuple[r.Record, ...], ...]:
    """One sequence for each state that up to `length` records can lead to; the empty one first."""
    found: dict[bytes, tuple[r.Record, ...]] = {fold(()).identity: ()}
    frontier: list[tuple[r.Record, ...]] = [()]
    for _ in range(length):
        reached: list[tuple[r.Record, ...]] = []
        for sequence in frontier:
            here = fold(sequence)
            for record in alphabet(here.control, here.runtime):
                longer = (*sequence, record)
                try:
                    identity = fold(longer).identity
                except StoreCorrupt:
                    continue
                if identity not in found:
                    found[identity] = longer
                    reached.append(longer)
        frontier = reached
    return tuple(found.values())


def open_calls(control: Control) -> list[str]:
    """The calls that were called and have no outcome."""
    return [call.id for call in control.calls if call.status is CallStatus.CALLED]
