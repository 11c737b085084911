"""What a worker claims next, and what it leaves alone."""

from __future__ import annotations

from cairn.runtime.claims import Troubles, choose
from cairn.runtime.storage.store import Address, DueRow


def due(n: int, tenant: str = "t", name: str = "wake", at: float = 0.0) -> DueRow:
    return DueRow(n, Address("toy", str(n), tenant), name, at, 0, None)


def numbers(rows: list[DueRow]) -> list[int]:
    return [row.n for row in rows]


def test_the_oldest_alarm_is_served_first() -> None:
    """S11, L1: within a tenant, in the order the store gives."""
    assert numbers(choose([due(3), due(1), due(2)], {}, 2)) == [3, 1]


def test_an_instance_with_many_alarms_is_claimed_once() -> None:
    """S4: two of its alarms are one reason to own it."""
    assert numbers(choose([due(1), due(1, name="schedule"), due(2)], {}, 9)) == [1, 2]


def test_a_tenant_with_much_work_does_not_starve_another() -> None:
    """L7: places go to whom runs least, whatever the age of the alarms."""
    rows = [*(due(n, "big") for n in range(10)), due(10, "small"), due(11, "small")]

    assert numbers(choose(rows, {"big": 3}, 3)) == [10, 11, 0]
    assert numbers(choose(rows, {}, 4)) == [0, 10, 1, 11]


def test_nothing_is_claimed_when_there_is_no_place() -> None:
    """L7: more running than allowed (a smaller setting after a restart) is no negative number of places."""
    assert choose([due(1)], {}, 0) == []
    assert choose([due(1)], {}, -3) == []


def test_a_failing_instance_waits_longer_each_time_and_never_more_than_a_minute() -> None:
    """L7: attempts back off."""
    troubles = Troubles()

    waits = [troubles.failed(1, "broken", now=100.0).until - 100.0 for _ in range(9)]

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_failing_instance_is_left_alone_until_its_time_and_others_are_not() -> None:
    """L7: by number, so that no other instance is delayed."""
    troubles = Troubles()
    troubles.failed(1, "broken", now=100.0)

    assert troubles.is_waiting(due(1), now=100.5)
    assert not troubles.is_waiting(due(2), now=100.5)
    assert not troubles.is_waiting(due(1), now=101.0)
    assert troubles.next_try(now=100.5) == 0.5


def test_an_instance_that_waits_for_code_is_looked_at_when_somebody_sends_it_something() -> None:
    """L1: the alarm has moved: it may be an abort."""
    troubles = Troubles()
    troubles.waits(1, "no method", until=200.0, alarm=5.0)

    assert troubles.is_waiting(due(1, at=5.0), now=100.0)
    assert not troubles.is_waiting(due(1, at=6.0), now=100.0)


def test_a_trouble_that_is_over_does_not_wake_the_worker_again_and_again() -> None:
    """L7: its time has come and nobody needs it: no timer for it, and in the end no memory of it."""
    troubles = Troubles()
    troubles.failed(1, "broken", now=100.0)

    assert troubles.next_try(now=102.0) is None
    assert len(troubles) == 1
    assert troubles.next_try(now=1000.0) is None
    assert len(troubles) == 0
