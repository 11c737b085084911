"""T4: the recovery table is total, unambiguous and holds nothing superfluous; by enumeration, not by example.

Two enumerations meet here: every situation the table can be asked about (the product of its fields), and every situation
that a log can lead to (all sequences of records the fold accepts, with every circumstance a process may find them in).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import product

import pytest
from tests.harness.sequences import NOW, Folded, answered, fold, sequences

from cairn.harness import recovery
from cairn.harness.limits import Limits
from cairn.harness.recovery import CALL_TABLE, PURE, TABLE, Action, Calls, Given, Halt, Retry, Situation, Verb
from cairn.harness.submission import CallState, CallStatus, Stage
from cairn.runtime.state import Came, FiberState

#: Records in a sequence: enough to reach every row. The slow tests look at longer ones.
LENGTH = 5

#: A life with room for everything; with none for a second attempt; with the limits of a submission spent.
LIMITS = (
    Limits(),
    Limits(attempts=1),
    Limits(running_seconds=1.0),
    Limits(turns=1),
    Limits(length_continues=0, stop_continues=0),
)


def situations() -> Iterator[Situation]:
    """The product of all fields."""
    values = {"stage": list(Stage), "halt": list(Halt), "calls": list(Calls), "retry": list(Retry)}
    names = [field.name for field in fields(Situation)]
    for combination in product(*(values.get(name, [False, True]) for name in names)):
        yield Situation(*combination)  # type: ignore[arg-type]


def circumstances(folded: Folded) -> Iterator[Given]:
    """Who may ask about a log: the process that wrote it or its successor, with hooks or without, and with any limits."""
    mine = folded.runtime.epoch
    for epoch in (mine, mine + 1) if folded.control.calls else (mine,):
        for limits, hooks in product(LIMITS, (False, True)):
            yield Given(now=NOW, epoch=epoch, limits=limits, hears=hooks, stops=hooks)


@cache
def reachable(length: int = LENGTH) -> frozenset[Situation]:
    """Every situation some log leads to."""
    return frozenset(
        recovery.situate(folded.control, folded.runtime, given)
        for records in sequences(length)
        for folded in (fold(records), *answered(fold(records), records))
        for given in circumstances(folded)
    )


@cache
def calls_reached(length: int = LENGTH) -> frozenset[tuple[CallStatus, bool | None, str | None]]:
    """Every place in the table of calls that some log leads to."""
    return frozenset(
        recovery.call_key(call, epoch, _wait(folded, call))
        for records in sequences(length)
        for folded in (fold(records), *answered(fold(records), records))
        for call in folded.control.calls
        for epoch in (folded.runtime.epoch, folded.runtime.epoch + 1)
    )


def _wait(folded: Folded, call: CallState) -> recovery.Wait:
    fiber = folded.runtime.fibers.get(folded.control.submission or "")
    return recovery.wait_of(call, fiber, NOW, recovery.joining(folded.control, folded.runtime))


def test_every_situation_has_exactly_one_row() -> None:
    """T4: total and unambiguous over the whole product of its fields, reachable or not."""
    wrong = [(s, [row for row in TABLE if row.matches(s)]) for s in situations() if sum(row.matches(s) for row in TABLE) != 1]

    assert wrong == []


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.stage.name}-{row.action.name}-{TABLE.index(row)}")
def test_every_row_is_the_only_one_for_something_that_happens(row: recovery.Row) -> None:
    """T4, T22: without this row a situation that a log of at most five records leads to would have none."""
    without = [other for other in TABLE if other is not row]

    assert any(not any(other.matches(situation) for other in without) for situation in reachable())


@pytest.mark.parametrize("key", CALL_TABLE, ids=str)
def test_every_entry_of_the_table_of_calls_is_asked_for(key: tuple[CallStatus, bool | None, str | None]) -> None:
    """T4: without this entry a call that is in some log would have no verb."""
    assert key in calls_reached()


def test_no_log_leads_to_a_call_without_a_verb() -> None:
    """T4: the table of calls is total over what happens."""
    assert calls_reached() <= CALL_TABLE.keys()


def test_every_action_is_decided_somewhere() -> None:
    """T4: the loop carries out nothing that is never asked of it."""
    assert {recovery.decide(situation) for situation in reachable()} == set(Action)


# --- what the rows mean -------------------------------------------------------------------------------------------

#: What may be said of an action, as a condition on the situation it is decided in. Independent of the rows' own words.
LAWS = {
    Action.REQUEST: lambda s: s.stage is Stage.OPEN and s.halt is Halt.NO,
    Action.TURN: lambda s: s.halt is Halt.NO and not s.unheard,
    Action.HEAR: lambda s: s.halt is Halt.NO and s.unheard,
    Action.CLOSE_PARTIAL: lambda s: s.stage is Stage.PARTIAL and s.halt is Halt.NO,
    Action.DROP_PARTIAL: lambda s: s.halt is not Halt.NO,
    Action.RUN_CALLS: lambda s: s.calls is Calls.GO and s.halt is Halt.NO,
    Action.PLAN_CALLS: lambda s: s.calls is Calls.PLANNED and s.halt is Halt.NO,
    Action.END_WAITS: lambda s: s.calls is Calls.OVER and s.halt is Halt.NO,
    Action.PARK: lambda s: s.calls is Calls.WAITING and s.halt is Halt.NO,
    Action.REFUSE_CALLS: lambda s: s.calls is Calls.CUT,
    Action.CLOSE_CALLS: lambda s: s.stage is Stage.CALLS and (s.halt is not Halt.NO or s.calls is Calls.LOST),
    Action.ASK_STOP: lambda s: s.stage is Stage.SAID and not s.waiting and not s.asked,
    Action.WAIT: lambda s: s.stage is Stage.BROKEN and s.retry is Retry.LATER,
    Action.COMPLETE: lambda s: s.stage in (Stage.SAID, Stage.CUT),
    Action.FAIL: lambda s: s.halt is not Halt.ABORT or s.stage is Stage.REFUSED,
    Action.ABORT: lambda s: s.halt is Halt.ABORT,
    Action.END: lambda s: s.stage is Stage.SETTLED,
}


@pytest.mark.parametrize("action", Action, ids=lambda action: action.name)
def test_an_action_is_only_taken_where_its_law_allows(action: Action) -> None:
    """S8, S9, L3: no request, call or turn begins once the run has to stop, and an answer that is there is kept."""
    broken = [situation for situation in reachable() if recovery.decide(situation) is action and not LAWS[action](situation)]

    assert broken == []


def test_a_run_that_must_stop_reaches_outside_for_nothing() -> None:
    """L3, F1: with a halt only records are added, until it is settled."""
    halted = [situation for situation in reachable() if situation.halt is not Halt.NO and situation.stage is not Stage.SETTLED]

    assert halted
    assert {recovery.decide(situation) for situation in halted} <= PURE


def test_of_the_calls_of_a_dead_process_only_repeatable_ones_run_again() -> None:
    """S9: never → unknown; keyed, safe and resume → again; what this process called itself is run by it."""
    called = {
        (ours, repeat): recovery.verb(
            CallState(id="a", name="t", status=CallStatus.CALLED, repeat=repeat, epoch=1), 1 if ours else 2
        )
        for ours in (True, False)
        for repeat in ("never", "keyed", "safe", "resume")
    }

    assert called.pop((False, "never")) is Verb.LOSE
    assert set(called.values()) == {Verb.RUN}


def test_a_call_that_waits_is_run_only_once_the_log_has_its_answer() -> None:
    """S8, T4: open → wait; over by the clock or by a message → say so first; ended → what follows from it."""
    call = CallState(id="a", name="t", status=CallStatus.AWAITING, until=NOW)
    fiber = FiberState(id="s1", method="submission", accepted_at=0.0, ordinal=0)
    heard = FiberState(id="s1", method="submission", accepted_at=0.0, ordinal=0, came={"a": Came(at=0.0)})
    gives_way = CallState(id="a", name="t", status=CallStatus.AWAITING, on_message="withdraw")

    stands = [
        recovery.wait_of(call, fiber, NOW - 1, []),
        recovery.wait_of(call, fiber, NOW - 1, ["s2"]),
        recovery.wait_of(call, fiber, NOW, []),
        recovery.wait_of(gives_way, fiber, NOW, []),
        recovery.wait_of(gives_way, fiber, NOW, ["s2"]),
        recovery.wait_of(call, heard, NOW + 1, ["s2"]),
    ]

    assert stands == ["open", "open", "over", "open", "over", "ended"]
    assert [recovery.verb(call, 1, stand) for stand in ("open", "over", "ended")] == [Verb.WAIT, Verb.END, Verb.TAKE]


@pytest.mark.slow
def test_longer_logs_lead_to_nothing_new_for_the_tables() -> None:
    """T4: one record more, five times the logs: each situation still has its row, each call its verb."""
    assert all(sum(row.matches(situation) for row in TABLE) == 1 for situation in reachable(LENGTH + 1))
    assert calls_reached(LENGTH + 1) == calls_reached()
