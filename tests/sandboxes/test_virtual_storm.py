"""A storm of SIGKILL over an agent that writes files in a virtual sandbox: real processes, real workers, a store in a file."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from tests.sandboxes.storm_victim import agent

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address
from cairn.runtime.workspace_history import workspace_at
from cairn.testing import seeds
from cairn.testing.history import logs_of

pytestmark = [pytest.mark.system]

ROOT = Path(__file__).parents[2]

COMMANDS = 30
ROUNDS = 3
#: How many calls a victim may end before it is killed, and how long into the next: a call takes about 5 ms.
CALLS = (0, 6)
LATE_SECONDS = 0.03
LIVES_MAX = 60


def victim(store: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.sandboxes.storm_victim", str(store), str(COMMANDS)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)


def workers_of(store: Path) -> list[int]:
    """Shell workers that live and whose parent is gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_bytes()
                parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if b"shell.main" in text and parent[0] != b"Z" and int(parent[1]) == 1:
                found.append(int(entry.name))
    return found


async def assert_agrees(store: Path) -> int:
    """What the transcript says the files are, they are, at the end and as of each outcome; how many of these there are."""
    opened = SqliteStore(str(store), clock=SystemClock(), ids=SystemIds())
    await opened.open()
    try:
        assert await opened.check() == []
        (log,) = await logs_of(opened)
        address = Address(agent(0).name, "one")
        said: list[str] = []
        for row in log.rows:
            records = msgspec.json.decode(row.batch.records)
            names = [record["type"] for record in records]
            ended = [record for record in records if record["type"] == "tool.outcome"]
            assert ("files.changed" in names) == bool(ended)
            for record in ended:
                assert record["outcome"] == "ok", record
                said.append(record["content"][0]["text"])
                if len(said) % 8 == 0:
                    then = await workspace_at(opened, address, row.ordinal)
                    assert await then.read("/log") == b"".join(b"%d\n" % n for n in range(1, len(said) + 1))
        assert said == [f"{n} {n}" for n in range(1, len(said) + 1)]
        if said:
            files = await workspace_at(opened, address)
            assert (await files.read("/log")).count(b"\n") == len(said)
            assert await files.read("/big") == b"%d" % (len(said) % 10) * 40_000
            assert files.exists("/there/d") == (len(said) % 2 == 1)
            assert files.exists("/here/d") == (len(said) % 2 == 0)
        return len(said)
    finally:
        await opened.close()


@pytest.mark.parametrize("seed", seeds(ROUNDS))
def test_files_and_transcript_agree_after_every_kill(seed: int, tmp_path: Path) -> None:
    """T9, S1: killed at random moments until the work is done; each time both tell the same, and each line is there once."""
    dice = random.Random(seed)
    store = tmp_path / "store.db"
    lives = kills = 0
    while True:
        lives += 1
        assert lives < LIVES_MAX
        process = victim(store)
        assert process.stdout is not None
        earlier = asyncio.run(assert_agrees(store)) if store.exists() else 0
        for _ in range(earlier + dice.randint(*CALLS)):
            process.stdout.readline()
        time.sleep(dice.uniform(0, LATE_SECONDS))
        is_done = process.poll() is not None
        if not is_done and lives < LIVES_MAX - 1:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait(60)
        process.stdout.close()
        done = asyncio.run(assert_agrees(store))
        if done == COMMANDS and is_done:
            break
    assert kills >= 2, "nobody was killed"
    assert workers_of(store) == []
