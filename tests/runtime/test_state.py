"""The fold of the runtime's records: the life of a fiber, and what no log may say."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import StoreCorrupt
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.settings import BACKOFF_MAX_SECONDS
from cairn.runtime.state import FiberState, Phase, RuntimeState, backoff_seconds
from cairn.runtime.storage.store import Batch, Row


def accepted(fiber: str = "f", **options: object) -> r.FiberAccepted:
    return r.FiberAccepted(fiber=fiber, method="run", at=0.0, **options)  # type: ignore[arg-type]


def claimed(epoch: int, at: float = 1.0) -> r.InstanceClaimed:
    return r.InstanceClaimed(epoch=epoch, worker="w", at=at)


def started(at: float = 1.0) -> r.FiberStarted:
    return r.FiberStarted(fiber="f", at=at)


def settled(outcome: r.Outcome = "completed") -> r.FiberSettled:
    return r.FiberSettled(fiber="f", outcome=outcome, at=9.0)


def fold(*records: r.Record) -> RuntimeState:
    state = RuntimeState()
    for ordinal, record in enumerate(records):
        state.apply(record, ordinal)
    return state


def fiber(*records: r.Record) -> FiberState:
    found = fold(*records).fiber("f")
    assert found is not None
    return found


def test_a_fiber_is_accepted_runs_and_settles_once() -> None:
    """S7: and then it is reduced to its outcome."""
    state = fold(accepted(), claimed(1), started(), settled())

    assert state.unsettled() == []
    assert state.settled["f"].outcome == "completed"
    assert state.settled["f"].is_settled


def test_an_owner_that_dies_costs_its_running_fibers_one_attempt() -> None:
    """L3: the claim counts it, before the work begins."""
    found = fiber(accepted(), claimed(1), started(), claimed(2, at=5.0))

    assert (found.attempt, found.interrupted, found.interrupted_at) == (2, 1, 5.0)


def test_a_clean_stop_costs_nothing() -> None:
    """L6: what was running goes on as the same attempt."""
    found = fiber(accepted(), claimed(1), started(), r.InstanceReleased(at=4.0), claimed(2, at=5.0))

    assert (found.attempt, found.interrupted) == (1, 0)


def test_a_parked_fiber_is_not_interrupted_by_the_death_of_its_owner() -> None:
    """L3: resuming from a park is not an attempt."""
    found = fiber(accepted(), claimed(1), started(), r.FiberParked(fiber="f", name="nap", at=2.0, until=9.0), claimed(2))

    assert (found.attempt, found.interrupted, found.phase) == (1, 0, Phase.PARKED)


def test_an_owner_that_dies_while_a_fiber_backs_off_has_not_tried_it() -> None:
    """L3: the second death comes within the wait of a second: not an attempt. The third comes after it: one more."""
    twice = (accepted(), claimed(1), started(), claimed(2, at=10.0), claimed(3, at=20.0))

    assert fiber(*twice).interrupted == 2
    assert fiber(*twice, claimed(4, at=20.5)).interrupted == 2
    assert fiber(*twice, claimed(4, at=21.5)).interrupted == 3


def test_a_clock_that_went_back_hides_no_attempt() -> None:
    """L3, T13: a method that kills its process is counted even when the time between says nothing."""
    found = fiber(accepted(), claimed(1), started(), claimed(2, at=5000.0), claimed(3, at=6000.0), claimed(4, at=100.0))

    assert found.interrupted == 3


@pytest.mark.parametrize(
    "progress",
    [
        r.FiberStashed(fiber="f", value=msgspec.Raw(b"1")),
        r.StepCompleted(fiber="f", name="s"),
        r.FiberParked(fiber="f", name="nap", at=2.0),
    ],
)
def test_a_new_durable_fact_resets_the_budget_of_attempts(progress: r.Record) -> None:
    """L3: ten attempts without progress, not ten attempts."""
    interrupted = (accepted(), claimed(1), started(), claimed(2), claimed(3, at=9.0))

    assert fiber(*interrupted).interrupted == 2
    assert fiber(*interrupted, progress).interrupted == 0


def test_an_intent_is_no_progress() -> None:
    """L3: or a never step that kills its process would be tried for ever."""
    intent = r.StepStarted(fiber="f", name="s", repeat="never", epoch=1)

    assert fiber(accepted(), claimed(1), started(), claimed(2), intent).interrupted == 1


def test_parked_time_and_downtime_do_not_count_as_running() -> None:
    """L3: three seconds before the park, two after it, the rest is not its own."""
    parked = r.FiberParked(fiber="f", name="nap", at=4.0, until=100.0)
    found = fiber(accepted(), claimed(1), started(1.0), parked, started(100.0), r.InstanceReleased(at=102.0))

    assert found.ran_seconds == 5.0


def test_a_fiber_that_waits_for_code_keeps_what_it_slept_for() -> None:
    """The method came back: the sleep it was in is over, not to be slept again."""
    nap = r.FiberParked(fiber="f", name="nap", at=2.0, until=9.0)
    no_code = r.FiberParked(fiber="f", name="code", at=10.0, error=r.ErrorInfo(kind="unknown_method", message="gone"))

    parked = fiber(accepted(), claimed(1), started(), nap, no_code)
    running = fiber(accepted(), claimed(1), started(), nap, no_code, started(20.0))

    assert parked.blocked is not None and parked.parked_for == "nap"
    assert running.blocked is None and "nap" in running.waited


@pytest.mark.parametrize(
    "records",
    [
        (settled(),),
        (accepted(), settled(), settled()),
        (accepted(), accepted()),
        (accepted(), settled(), started()),
        (accepted(), r.StepCompleted(fiber="f", name="s"), r.StepCompleted(fiber="f", name="s")),
        (claimed(2), claimed(2)),
        (claimed(2), claimed(1)),
    ],
    ids=["unknown", "settled-twice", "accepted-twice", "after-settlement", "step-twice", "same-epoch", "older-epoch"],
)
def test_a_log_that_breaks_a_promise_is_refused_and_never_skipped(records: tuple[r.Record, ...]) -> None:
    """S14: S4, S5, S6 and S7 are asserted by whoever folds."""
    with pytest.raises(StoreCorrupt):
        fold(*records)


@pytest.mark.parametrize(
    "record",
    [settled(), started(), r.FiberStashed(fiber="f", value=r.NULL), r.StepCompleted(fiber="f", name="new")],
    ids=lambda record: type(record).__name__,
)
def test_an_owner_is_told_before_it_appends_what_no_fold_accepts(record: r.Record) -> None:
    """S7: what an abandoned method still has to say is refused, instead of poisoning the log."""
    done = fold(accepted(), claimed(1), started(), settled())
    live = fold(accepted(), claimed(1), started())

    assert "settled as completed" in (done.refusal(record) or "")
    assert "unknown" in (RuntimeState().refusal(record) or "")
    assert live.refusal(record) is None


def test_an_abort_of_everything_spares_what_is_accepted_after_it() -> None:
    """S11: abort, then a new message, is not an abort of the message."""
    state = fold(accepted("f"), r.AbortRequested(at=1.0, reason="stop"), accepted("g"))

    assert state.fibers["f"].abort == "stop"
    assert state.fibers["g"].abort is None


OWNER_RECORDS = (
    claimed(1),
    started(),
    r.FiberStashed(fiber="f", value=r.NULL),
    r.StepCompleted(fiber="f", name="s"),
    settled(),
)
REQUESTS = (
    r.AbortRequested(at=1.0, fiber="f"),
    r.CancelRequested(target="f", at=1.0),
    r.SignalSent(name="go", at=1.0),
    r.DestroyRequested(at=1.0),
)


@given(st.sampled_from(REQUESTS), st.integers(0, len(OWNER_RECORDS)))
def test_a_request_means_the_same_wherever_it_falls_between_the_owners_records(request: r.Record, place: int) -> None:
    """S3: requests commute with owner records, because the owner may have decided before it saw them."""
    records = [accepted(), *OWNER_RECORDS]
    at_the_end = fold(*records, request)

    moved = fold(*records[: place + 1], request, *records[place + 1 :])

    moved.settled["f"].ordinal = at_the_end.settled["f"].ordinal
    assert msgspec.json.encode(moved) == msgspec.json.encode(at_the_end)


def test_a_checkpoint_of_the_fold_is_the_fold() -> None:
    """S15: every field of a fiber under way survives its encoding."""
    nap = r.FiberParked(fiber="f", name="nap", at=2.0, until=9.0)
    step = r.StepCompleted(fiber="f", name="s", result=msgspec.Raw(b"[1]"))
    stash = r.FiberStashed(fiber="f", value=msgspec.Raw(b'{"n":1}'))
    state = fold(accepted(key="k", timeout_seconds=5.0), claimed(1), started(), claimed(2, at=3.0), step, stash, nap)

    again = msgspec.json.decode(msgspec.json.encode(state), type=RuntimeState)

    assert msgspec.json.encode(again) == msgspec.json.encode(state)
    again.apply(started(9.0), 10)
    assert again.fibers["f"].phase is Phase.RUNNING


def test_the_wait_between_attempts_doubles_up_to_a_minute_and_the_first_is_free() -> None:
    """L3: a deployment costs nothing, a process-killing input soon little."""
    assert [backoff_seconds(n) for n in (0, 1, 2, 3, 4)] == [0, 0, 1, 2, 4]
    assert backoff_seconds(60) == BACKOFF_MAX_SECONDS


def test_fibers_that_died_together_do_not_come_back_together() -> None:
    """L7: the wait of each is a part of its own, and never less than a quarter."""
    waits = [backoff_seconds(6, f"fib_{n}") for n in range(100)]

    assert len(set(waits)) == 100
    assert all(4 <= wait <= 16 for wait in waits) and max(waits) - min(waits) > 8
    assert backoff_seconds(6, "fib_1") == waits[1]


DECODER = r.decoder()


@pytest.mark.slow
@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(max_size=5), st.lists).map(msgspec.json.encode))
def test_bytes_that_are_no_batch_are_refused_with_the_place_they_stand_at(data: bytes) -> None:
    """T19: S14: the decoder gives records or says StoreCorrupt, whatever it is fed."""
    row = Row(ordinal=7, prev=6, epoch=1, batch=Batch(data))

    try:
        records = log.decode(DECODER, row, "toy/a")
    except StoreCorrupt as error:
        assert "toy/a, ordinal 7" in str(error)
    else:
        assert all(isinstance(record, r.Record) for record in records)


def test_an_occurrence_of_a_schedule_that_was_cancelled_meanwhile_does_not_run() -> None:
    """L4, S3: the owner fired it before it saw the request; the fiber is on the log, and is to be aborted."""
    rings = r.ScheduleRequested(name="s", method="run", when=r.When(seconds=60.0), at=0.0, first=60.0)
    fires = (
        r.FiberAccepted(fiber="o", method="run", at=60.0, schedule="s", occurrence=60.0),
        r.ScheduleFired(name="s", at=60.0, of=0, occurrence=60.0, fiber="o", next=120.0),
    )

    before = fold(rings, r.CancelRequested(target="s", at=59.0), *fires)
    after = fold(rings, *fires, r.CancelRequested(target="s", at=61.0))

    assert before.schedules == after.schedules == {}
    assert "cancelled" in (before.fibers["o"].abort or "")
    assert after.fibers["o"].abort is None


PLATFORM_REQUESTS = (
    r.ForgetRequested(fiber="f", at=1.0),
    r.SignalSent(name="go", at=1.0, fiber="f"),
    r.SignalSent(name="go", at=1.0),
    r.AnswerGiven(call="sure?", digest="d", at=1.0, answer=r.NULL, fiber="f"),
    r.ResolveRequested(fiber="f", outcome="failed", at=1.0, by="ann"),
)


@given(st.sampled_from(PLATFORM_REQUESTS), st.integers(0, len(OWNER_RECORDS)))
def test_what_people_say_to_a_fiber_means_the_same_wherever_it_falls(request: r.Record, place: int) -> None:
    """S3, S7: signals, answers, resolutions and forgetting commute with what an owner had decided before it saw them."""
    records = [accepted(), *OWNER_RECORDS]

    def came_to(state: RuntimeState) -> tuple[object, ...]:
        settled = state.settled.get("f")
        return (settled and settled.outcome, [signal.name for signal in state.signals], list(state.fibers), state.joins)

    at_the_end = fold(*records, request)
    moved = fold(*records[: place + 1], request, *records[place + 1 :])

    assert came_to(moved) == came_to(at_the_end)


WAITS = (
    r.FiberWaiting(fiber="f", name="go", at=1.0, on="signal", event="go", until=50.0),
    r.FiberWaiting(fiber="f", name="nap", at=1.0, until=20.0),
    r.FiberWaiting(fiber="f", name="sure?", at=1.0, on="answer", digest="d", until=90.0),
    r.FiberParked(fiber="f", name="nap", at=2.0, until=20.0, waits=("nap", "go", "sure?")),
    r.StepTried(fiber="f", name="s", at=2.0, until=9.0, error=r.ErrorInfo(kind="E", message="m")),
    r.FiberWaited(fiber="f", name="nap", at=21.0),
    r.SignalSent(name="go", at=3.0),
    r.SignalSent(name="go", at=4.0),
    r.AnswerGiven(call="sure?", digest="d", at=5.0, answer=r.NULL, fiber="f", by="ann"),
    r.AnswerGiven(call="sure?", digest="e", at=5.0, answer=r.NULL, fiber="f", by="bob"),
    r.FiberRetried(fiber="f", at=6.0, until=30.0, error=r.ErrorInfo(kind="E", message="m")),
    started(40.0),
    started(60.0),
    r.ResolveRequested(fiber="f", outcome="completed", at=7.0, by="ann"),
    r.ForgetRequested(fiber="f", at=7.0),
)


@given(st.lists(st.sampled_from(WAITS), max_size=12))
def test_waits_fold_in_any_order_and_each_signal_and_answer_is_taken_at_most_once(records: list[r.Record]) -> None:
    """S6, S14: the fold is total; a checkpoint of it anywhere changes nothing; a wait is open or over, never both."""
    state = fold(accepted(), claimed(1), started(), *records)
    fiber = state.fibers["f"]
    signals = sum(isinstance(record, r.SignalSent) for record in records)
    heard = sum(not came.timed_out for name, came in fiber.came.items() if name == "go")

    assert heard <= 1 and signals - len(state.signals) >= heard
    assert all(came.by == "ann" for name, came in fiber.came.items() if name == "sure?" and not came.timed_out)
    assert fiber.phase is Phase.PARKED or not fiber.woken
    again = msgspec.json.decode(msgspec.json.encode(state), type=RuntimeState)
    assert msgspec.json.encode(again) == msgspec.json.encode(state)
