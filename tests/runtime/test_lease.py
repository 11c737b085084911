"""Leases: their arithmetic; and the locks that say who is alive, within one process (other processes: tests/system)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from cairn.runtime.lease import LeaseWatch, Standing, margin_of, standing
from cairn.runtime.owners import LeaseOnly, OwnerLocks, beside, boot_id
from cairn.runtime.storage.store import WorkerRow


def row(id: str = "w", lease_until: float = 100.0, lock: str = "boot:1:1") -> WorkerRow:
    return WorkerRow(id, "host", 1, ("toy",), 0.0, lease_until, lock)


def test_a_worker_stops_before_others_may_start() -> None:
    """S4: five seconds before its lease is over, on its own clock."""
    assert standing(100.0, 94.9, margin_seconds=5.0) is Standing.SOUND
    assert standing(100.0, 95.0, margin_seconds=5.0) is Standing.LOST
    assert margin_of(15.0, margin_seconds=5.0) == 5.0
    assert margin_of(1.0, margin_seconds=5.0) < 0.5, "a short lease leaves time to be renewed"


def test_a_lease_of_this_boot_is_over_when_its_time_is() -> None:
    """L2: all processes of one kernel read the same clock."""
    watch = LeaseWatch(15.0, "boot")
    watch.observe([row()], monotonic=0.0)

    assert watch.over_for(row(), lease_now=99.0, monotonic=1e9) == -1.0
    assert watch.over_for(row(), lease_now=101.0, monotonic=0.0) == 1.0


def test_a_lease_of_an_earlier_boot_is_over_when_it_has_not_moved_for_a_whole_lease() -> None:
    """L2: its number is of another clock: after a reboot it may lie a month ahead."""
    old = row(lease_until=3e6, lock="earlier:1:1")
    watch = LeaseWatch(15.0, "boot")
    watch.observe([old], monotonic=10.0)
    watch.observe([old], monotonic=20.0)

    assert watch.over_for(old, lease_now=5.0, monotonic=24.9) < 0
    assert watch.over_for(old, lease_now=5.0, monotonic=25.1) > 0


def test_a_lease_that_moves_is_not_over_whatever_its_number() -> None:
    """S4: somebody renews it, so somebody lives."""
    watch = LeaseWatch(15.0, "boot")
    watch.observe([row(lease_until=1.0, lock="other:1:1")], monotonic=0.0)
    moved = row(lease_until=2.0, lock="other:1:1")
    watch.observe([moved], monotonic=14.0)

    assert watch.over_for(moved, lease_now=1e9, monotonic=20.0) < 0


def test_two_workers_of_one_process_see_each_other_alive(tmp_path: Path) -> None:
    """S4: the lock belongs to the process: probing it from inside would succeed, and drop it."""
    first, second = OwnerLocks(tmp_path), OwnerLocks(tmp_path)
    a = row("a", lock=first.hold("a"))
    second.hold("b")

    assert not second.is_dead(a)
    assert not OwnerLocks(tmp_path / ".." / tmp_path.name).is_dead(a), "nor by another spelling of the path"
    assert not second.is_dead(a), "and asking has not released it"
    first.drop("a")
    second.drop("b")


def test_the_lock_names_the_file_it_is_on(tmp_path: Path) -> None:
    """S4: boot, device and inode are in the row, so that a copy of the file proves nothing about the original."""
    owners = OwnerLocks(tmp_path)
    lock = owners.hold("a")
    found = os.stat(tmp_path / "a")

    assert lock == f"{boot_id()}:{found.st_dev}:{found.st_ino}"
    owners.drop("a")


def test_a_worker_whose_file_is_free_is_dead_and_forgotten(tmp_path: Path) -> None:
    """L2: what is left of a killed process is a file that nobody locks."""
    owners = OwnerLocks(tmp_path)
    (tmp_path / "gone").touch()
    found = os.stat(tmp_path / "gone")
    dead = row("gone", lock=f"{owners.boot}:{found.st_dev}:{found.st_ino}")

    assert owners.is_dead(dead)
    owners.forget(dead)
    assert not (tmp_path / "gone").exists()


def test_a_missing_or_exchanged_file_proves_nothing(tmp_path: Path) -> None:
    """S4: a directory somebody emptied or restored from a backup: only the lease decides."""
    owners = OwnerLocks(tmp_path)
    (tmp_path / "w").touch()
    found = os.stat(tmp_path / "w")

    assert not owners.is_dead(row("missing"))
    assert not owners.is_dead(row(lock=f"{owners.boot}:{found.st_dev}:{found.st_ino + 1}"))
    assert not owners.is_dead(row(lock=f"{owners.boot}:{found.st_dev + 1}:{found.st_ino}"))
    assert owners.is_dead(row(lock=f"earlier:{found.st_dev + 1}:{found.st_ino}")), "a reboot renumbers devices"


def test_a_pid_decides_nothing(tmp_path: Path) -> None:
    """S4: neither a living one nor one that never was."""
    owners = OwnerLocks(tmp_path)
    alive = row("a", lock=owners.hold("a"))
    (tmp_path / "b").touch()
    found = os.stat(tmp_path / "b")
    dead = row("b", lock=f"{owners.boot}:{found.st_dev}:{found.st_ino}")

    assert not owners.is_dead(replace(alive, pid=2**22 - 1))
    assert owners.is_dead(replace(dead, pid=os.getpid()))
    owners.drop("a")


def test_a_store_without_a_file_leaves_only_leases() -> None:
    """L2: nothing can be proved about a process that shares no directory."""

    class InMemory:
        path = ":memory:"

    assert isinstance(beside(InMemory()), LeaseOnly)  # type: ignore[arg-type]
    assert not LeaseOnly().is_dead(row())
