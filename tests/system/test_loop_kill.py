"""T3, T9: real processes with a store in a file, killed with SIGKILL in the middle of each scenario, and another process
that opens the file and goes on. The final log is held against the run without a crash, as in `tests/crash`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.crash.comparing import assert_equal, check_run
from tests.crash.scenarios import BY_NAME, SCENARIOS
from tests.system.loop_victim import Order

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.testing.history import History, logs_of
from cairn.testing.play import Run, play
from cairn.testing.world import World

ROOT = Path(__file__).parents[2]

#: Here two processes race: whether the abort or the turn that includes its message comes first is chance. Only what holds
#: of every run is asked of these.
RACES = frozenset({"abort-queued"})

pytestmark = pytest.mark.system


class Victims:
    """The server that forks them."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.system.loop_victim"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, order: Order) -> int:
        """One life; its exit status, negative for a signal."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(msgspec.json.encode(order) + b"\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        """No process is left."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(10)


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    made = Victims()
    yield made
    made.close()


async def look(directory: Path) -> Run:
    """What is in the file, read by a process that had no part in it. The store is sound."""
    store = SqliteStore(str(directory / "cairn.db"), clock=SystemClock(), ids=SystemIds())
    await store.open()
    assert await store.check() == []
    run = Run(World(directory / "world.jsonl"), History(), await logs_of(store), [])
    await store.close()
    return run


def points(name: str) -> list[tuple[int, str]]:
    """Where to kill: the start, the middle and the end. No more writes than there are synced ones, which all runs have."""
    facts = play(BY_NAME[name].agent, BY_NAME[name].client).facts
    return [(3, "after"), (facts // 2 + 1, "before"), (facts - 1, "after")]


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_a_process_killed_in_the_middle_of_anything_is_continued_by_another(
    name: str, victims: Victims, tmp_path: Path
) -> None:
    """T3, T9, S1 to S11: SIGKILL at three durable appends of each scenario; the next process finishes it."""
    scenario = BY_NAME[name]
    expected = play(scenario.agent, scenario.client)

    for number, (at, when) in enumerate(points(name)):
        directory = tmp_path / str(number)
        directory.mkdir()
        order = Order(name, str(directory), time.time(), at, when)
        died = victims.run(order)
        finished = victims.run(msgspec.structs.replace(order, die_at=None))
        run = asyncio.run(look(directory))

        assert (died, finished) == (-signal.SIGKILL, 0), f"{when} {at}"
        check_run(scenario, run)
        if name not in RACES:
            assert_equal(scenario, expected, run)


def test_a_process_that_is_killed_again_and_again_finishes_in_the_end(victims: Victims, tmp_path: Path) -> None:
    """T3, T9, L2: eight lives of one conversation, each killed at its third durable append."""
    scenario = BY_NAME["barrier"]
    order = Order("barrier", str(tmp_path), time.time(), 3, "after")

    lives = 1
    while victims.run(order) == -signal.SIGKILL:
        lives += 1
        assert lives < 20

    run = asyncio.run(look(tmp_path))
    check_run(scenario, run)
    assert_equal(scenario, play(scenario.agent, scenario.client), run)
    assert lives > 3
