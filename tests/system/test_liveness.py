"""Who is alive: what the kernel says of real processes, where pids, namespaces and forks would mislead."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runtime.toy import run
from tests.system.processes import Observer, Process, until

from cairn.runtime.owners import OwnerLocks
from cairn.runtime.storage.store import WorkerRow

pytestmark = pytest.mark.system

#: L2: what is provably dead is taken over within this.
TAKEOVER_SECONDS = 1.0
#: On a machine that runs other tests too, a number of seconds is asserted this generously.
SLACK = 8.0

ROUNDS = 20
LANES = 5


def in_a_pid_namespace() -> tuple[str, ...]:
    """The command that hides a process's pid from everybody outside."""
    command = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs `unshare --pid`: root, and util-linux")
    return command


async def only_worker(observer: Observer) -> WorkerRow:
    async def one() -> bool:
        return len(await observer.store.workers()) == 1

    await until(one, "one worker is registered")
    return (await observer.store.workers())[0]


def test_an_owner_in_another_pid_namespace_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    """S4, L2: its pid means another process here, or none; its lock is held, and free the moment it is gone."""
    prefix = in_a_pid_namespace()

    async def main() -> None:
        owners = OwnerLocks(tmp_path / "owners")
        async with Observer(tmp_path) as observer:
            await observer.client.accept("a", "beat")
            with Process(tmp_path, prefix=prefix) as hidden:
                await observer.until_owned("a")
                row = await only_worker(observer)

                assert row.pid < 10, "it was to see a pid of its own namespace"
                assert not owners.is_dead(row)

                hidden.kill()
                await until(lambda: owners.is_dead(row), "its lock is free")

    run(main(), seconds=120)


def test_a_live_owner_in_another_namespace_is_not_taken_over(tmp_path: Path) -> None:
    """S4: two workers on one file, each in a pid namespace of its own and each pid 1: neither takes the other's work."""
    prefix = in_a_pid_namespace()

    async def main() -> None:
        async with Observer(tmp_path) as observer:
            await observer.client.accept("a", "beat")
            with Process(tmp_path, prefix=prefix) as first:
                epoch = await observer.until_owned("a")
                with Process(tmp_path, prefix=prefix):
                    await until(lambda: two_workers(observer), "both are registered")
                    beats = len(observer.effects())
                    await until(lambda: len(observer.effects()) > beats + 100, "it goes on working")

                    assert (await observer.owner("a"))[1] == epoch

                    first.kill()
                    assert await observer.until_owned("a", beyond=epoch) == epoch + 1

    run(main(), seconds=120)


async def two_workers(observer: Observer) -> bool:
    return len(await observer.store.workers()) == 2


def test_a_reused_pid_does_not_keep_a_dead_owner_alive(tmp_path: Path) -> None:
    """L2: the pid in the row belongs to a living process (this one); the lock is free, so the owner is dead."""

    async def main() -> None:
        owners = OwnerLocks(tmp_path / "owners")
        async with Observer(tmp_path) as observer:
            with Process(tmp_path) as worker:
                row = await only_worker(observer)
                assert not owners.is_dead(replace(row, pid=2**22 - 1)), "nor does a pid without a process make it dead"

                worker.kill()

            assert owners.is_dead(replace(row, pid=os.getpid()))

    run(main(), seconds=120)


def test_a_forked_child_that_survives_its_worker_does_not_keep_it_alive(tmp_path: Path) -> None:
    """L2: the child has every descriptor of its parent, and none of its locks: the work is taken over at once."""

    async def main() -> None:
        async with Observer(tmp_path) as observer:
            receipt = await observer.client.accept("a", "forked")
            with Process(tmp_path) as worker:
                await until(lambda: len(observer.effects()) > 3, "it has forked and works")
                epoch = (await observer.owner("a"))[1]
                with Process(tmp_path, "--lease", "3600"):
                    await until(lambda: two_workers(observer), "the successor is registered")
                    worker.kill()
                    killed = time.monotonic()
                    await observer.until_owned("a", beyond=epoch)
                    await observer.client.abort("a", receipt.fiber)

                    assert time.monotonic() - killed < TAKEOVER_SECONDS * SLACK  # the lease would have been 15 s
                    await observer.client.settled("a", receipt.fiber)

    try:
        run(main(), seconds=120)
    finally:
        for child in tmp_path.glob("child-*"):
            os.kill(int(child.name.removeprefix("child-")), signal.SIGKILL)


def test_a_stopped_owner_is_waited_for_then_replaced_and_finds_itself_fenced(tmp_path: Path) -> None:
    """T10: S4, L2. SIGSTOP beyond a lease of 1 s, twenty times: taken over after the lease and not before; after SIGCONT the
    zombie's fiber stops within a second and nothing of its epoch is in the log. A stop that hits a commit blocks every
    writer of the file until it ends: then the takeover comes after SIGCONT, and that is the only other possibility."""

    directories = [tmp_path / str(number) for number in range(LANES)]
    for directory in directories:
        directory.mkdir()

    async def lane(directory: Path) -> tuple[int, int]:
        taken = blocked = 0
        async with AsyncExitStack() as stack:
            observer = await stack.enter_async_context(Observer(directory))
            await observer.client.accept("a", "beat")
            options = ("--lease", "1", "--sweep", "0.1", "--pause", "0.05")
            workers = {}
            for _ in range(2):
                process = stack.enter_context(Process(directory, *options))
                workers[process.process.pid] = process
            for _ in range(ROUNDS // LANES):
                if await stop_and_replace(observer, workers):
                    taken += 1
                else:
                    blocked += 1
        return taken, blocked

    async def main() -> None:
        found = await asyncio.gather(*map(lane, directories))
        taken, blocked = (sum(column) for column in zip(*found, strict=True))
        assert taken + blocked == ROUNDS
        assert taken >= ROUNDS // 2, f"only {taken} stops were outside a commit"

    run(main(), seconds=280)


async def stop_and_replace(observer: Observer, workers: dict[int, Process]) -> bool:
    """One round; whether the owner was replaced while it was stopped."""
    owner, epoch = await owner_pid(observer)
    before = len(observer.effects())
    await until(lambda: [e for e in observer.effects()[before:] if e.pid == owner], "the owner works")
    workers[owner].signal(signal.SIGSTOP)
    try:
        waited = await until_epoch(observer, epoch, 4.0)
    finally:
        workers[owner].signal(signal.SIGCONT)
    if waited is None:
        await observer.until_owned("a", beyond=0)
        return False
    assert waited > 0.2, "it was taken over as if it were dead; its lock was held"
    await asyncio.sleep(1.0)
    mark = len(observer.effects())
    await until(lambda: len(observer.effects()) > mark + 5, "the successor works")
    zombie = [effect for effect in observer.effects()[mark:] if effect.epoch <= epoch]
    assert zombie == [], "the zombie did not stop within a second"
    for log, _ in await observer.states():
        epochs = [row.epoch for row in log.rows]
        assert epochs == sorted(epochs)  # S4
    return True


async def owner_pid(observer: Observer) -> tuple[int, int]:
    """The process that owns the instance now, once there is one."""
    found: list[tuple[int, int]] = []

    async def known() -> bool:
        owner, epoch = await observer.owner("a")
        found[:] = [(row.pid, epoch) for row in await observer.store.workers() if row.id == owner]
        return bool(found)

    await until(known, "somebody owns the instance")
    return found[0]


async def until_epoch(observer: Observer, epoch: int, seconds: float) -> float | None:
    """How long until somebody owned a later epoch; None when nobody did in time."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        owner, now = await observer.owner("a")
        if owner is not None and now > epoch:
            return time.monotonic() - start
        await asyncio.sleep(0.02)
    return None
