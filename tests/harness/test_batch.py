"""Which calls may begin: every batch of up to four calls, in every state it can be in, against three plain rules."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cairn.harness.batch import startable
from cairn.harness.submission import CallState, CallStatus
from cairn.testing import every_choice

RULES: dict[str, bool | str] = {"free": False, "alone": True, "disk": "disk", "net": "net"}

Calls = Sequence[CallState]


def rule(name: str) -> bool | str:
    return RULES[name]


def clashes(first: CallState, second: CallState) -> bool:
    """Whether the two may not run at the same time."""
    one, other = RULES[first.name], RULES[second.name]
    return True in (one, other) or (isinstance(one, str) and one == other)


OUT_OF_THE_WAY = (CallStatus.DONE, CallStatus.AWAITING)


def may_begin(calls: Calls, place: int) -> bool:
    """In plain words: nothing before it that it clashes with is unfinished, and nothing after it that it does is running. One
    that waits for an answer is in nobody's way."""
    before = all(call.status in OUT_OF_THE_WAY or not clashes(call, calls[place]) for call in calls[:place])
    return before and not any(call.status is CallStatus.CALLED and clashes(call, calls[place]) for call in calls[place + 1 :])


@pytest.mark.slow
def test_p5_every_batch_of_four_in_every_state() -> None:
    """P5: what begins is planned, is in source order, clashes with nothing unfinished before it, keeps to the limit; and
    nothing that could begin is left waiting while there is room."""
    batches = 0
    for choose in every_choice():
        count = choose.below(5)
        limit = choose.one_of((1, 2, 4))
        # Four calls have room for two keys only when nothing else is new: three kinds are enough there.
        kinds = list(RULES)[: 4 if count < 4 else 3]
        calls = [CallState(id=str(n), name=choose.one_of(kinds), status=choose.one_of(list(CallStatus))) for n in range(count)]
        batches += 1

        begun = startable(calls, rule, limit)

        places = [calls.index(call) for call in begun]
        running = sum(call.status is CallStatus.CALLED for call in calls)
        able = [place for place in range(count) if calls[place].status is CallStatus.PLANNED and may_begin(calls, place)]
        assert places == able[: max(0, limit - running)], (choose.answers(), calls)
    assert batches == 3 * (sum(16**n for n in range(4)) + 12**4)


def test_p5_an_approved_call_takes_its_turn_among_those_that_may_run() -> None:
    """P5: approved behind a running barrier, beside a running call of its key, or alone: it clashes with nothing."""
    for choose in every_choice():
        statuses = (CallStatus.AWAITING, CallStatus.CALLED, CallStatus.PLANNED, CallStatus.DONE)
        calls = [CallState(id=str(n), name=choose.one_of(list(RULES)), status=choose.one_of(statuses)) for n in range(3)]
        approved = [call.id for call in calls if call.status is CallStatus.AWAITING and choose.below(2)]

        begun = startable(calls, rule, 4, approved)

        running = [call for call in calls if call.status is CallStatus.CALLED]
        assert all(call.status is CallStatus.PLANNED or call.id in approved for call in begun)
        assert not any(clashes(one, other) for one in begun for other in (*running, *begun) if one is not other), calls
        ready = [call for call in calls if call.status is CallStatus.PLANNED or call.id in approved]
        assert begun or running or not ready, f"nothing runs and nothing begins: {calls}"


def test_p5_whatever_ends_first_every_call_runs_once_and_never_beside_one_it_clashes_with() -> None:
    """P5: played through, with every choice of which running call ends next."""
    for choose in every_choice():
        count = 2 + choose.below(2)
        calls = [CallState(id=str(n), name=choose.one_of(list(RULES))) for n in range(count)]
        order = list[str]()

        while any(call.status is not CallStatus.DONE for call in calls):
            for call in startable(calls, rule, 2):
                call.status = CallStatus.CALLED
                order.append(call.id)
            running = [call for call in calls if call.status is CallStatus.CALLED]
            assert running, "something can always run"
            assert not any(clashes(a, b) for a in running for b in running if a is not b)
            choose.one_of(running).status = CallStatus.DONE

        assert sorted(order) == [call.id for call in calls]
        for key in ("disk", "net"):
            same = [call.id for call in calls if call.name == key]
            assert [id for id in order if id in same] == same
