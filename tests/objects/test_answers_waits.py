"""What the runtime's fold makes of answers, and of a message that takes the place of one: whichever record comes first."""

from __future__ import annotations

import msgspec
import pytest

from cairn.runtime import records as r
from cairn.runtime.state import RuntimeState

YES = msgspec.Raw(b'"yes"')


def asking(*, until: float | None = 10.0, by: tuple[str, ...] = ()) -> RuntimeState:
    """A fiber that is parked with one question."""
    state = RuntimeState()
    state.apply(r.FiberAccepted(fiber="f", method="submission", at=0.0), 1)
    state.apply(r.FiberStarted(fiber="f", at=0.0), 2)
    state.apply(r.FiberWaiting(fiber="f", name="call", at=0.0, on="answer", until=until, digest="d", by=by), 3)
    state.apply(r.FiberParked(fiber="f", name="call", at=0.0, until=until, waits=("call",)), 3)
    return state


def given(digest: str = "d", at: float = 5.0, by: str = "ann") -> r.AnswerGiven:
    return r.AnswerGiven(call="call", digest=digest, at=at, answer=YES, by=by, fiber="f")


def test_an_answer_wakes_the_fiber_that_asked_and_says_who_gave_it() -> None:
    """X10, L1: its ordinal tells it from those that came later."""
    state = asking(by=("ann",))

    state.apply(given(), 4)
    state.apply(given(by="bob"), 5)

    came = state.fibers["f"].came["call"]
    assert (came.by, came.ordinal, bytes(came.value), came.timed_out) == ("ann", 4, b'"yes"', False)
    assert state.fibers["f"].woken and not state.asks()


@pytest.mark.parametrize(
    "wrong", [given(digest="other"), given(at=11.0), given(by="eve")], ids=["other arguments", "too late", "somebody else"]
)
def test_an_answer_that_is_none_is_none_in_the_fold_too(wrong: r.AnswerGiven) -> None:
    """X10, S14: whoever appended it: the question waits on."""
    state = asking(by=("ann",))

    state.apply(wrong, 4)

    assert state.asks() and not state.fibers["f"].woken and state.fibers["f"].came == {}


@pytest.mark.parametrize(("ordinal", "after", "is_over"), [(4, 3, True), (3, 3, False), (5, 3, True)])
def test_work_that_was_accepted_before_its_waiter_was_recorded_is_not_missed(ordinal: int, after: int, is_over: bool) -> None:
    """L1, S11: the owner had folded up to `after`; what came between that and its own record ends the wait at once."""
    state = RuntimeState()
    state.apply(r.FiberAccepted(fiber="f", method="submission", at=0.0), 1)
    state.apply(r.FiberStarted(fiber="f", at=0.0), 2)
    state.apply(r.FiberAccepted(fiber="g", method="submission", at=1.0), ordinal)

    state.apply(r.FiberWaiting(fiber="f", name="m", at=1.0, on="accepted", event="submission", after=after), 6)
    state.apply(r.FiberParked(fiber="f", name="m", at=1.0, waits=("m",)), 6)

    assert state.fibers["f"].woken is is_over


def test_work_of_that_kind_ends_the_wait_and_other_work_does_not() -> None:
    """L1: by its method."""
    state = RuntimeState()
    state.apply(r.FiberAccepted(fiber="f", method="submission", at=0.0), 1)
    state.apply(r.FiberStarted(fiber="f", at=0.0), 2)
    state.apply(r.FiberWaiting(fiber="f", name="m", at=1.0, on="accepted", event="submission", after=2), 3)
    state.apply(r.FiberParked(fiber="f", name="m", at=1.0, waits=("m",)), 3)

    state.apply(r.FiberAccepted(fiber="h", method="on_settled", at=1.0), 4)
    before = state.fibers["f"].woken
    state.apply(r.FiberAccepted(fiber="g", method="submission", at=1.0), 5)

    assert (before, state.fibers["f"].woken) == (False, True)
