"""Several real processes on one file: no gap, no duplicate, no one starves; one that stops or dies in a commit."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.storage.helpers import born, opened

from cairn.errors import StoreBusy
from cairn.runtime.storage.store import Append, Batch

CHILD = Path(__file__).with_name("child.py")

pytestmark = pytest.mark.system


class Child:
    """One process of child.py."""

    def __init__(self, path: str, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), path, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> dict[str, Any]:
        """Its next event."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process ended with {self.process.wait()}"
        event = json.loads(line)
        assert isinstance(event, dict)
        return event

    def rest(self) -> list[dict[str, Any]]:
        """All it said before it ended; a line cut off by its death is no event."""
        assert self.process.stdout is not None
        return [json.loads(line) for line in self.process.stdout.read().splitlines() if line.endswith("}")]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def is_stopped(self) -> bool:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def end(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def path() -> Iterator[str]:
    """On a real disk: how processes take turns depends on what a sync costs."""
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, "cairn.db")


@pytest.mark.parametrize("count", [2, 4])
def test_processes_append_to_each_others_instances_without_gap_or_duplicate(path: str, count: int) -> None:
    """S2, S4, and fairness (decisive for L1): as owners of their own and with requests to all others."""
    names = [f"w{i}" for i in range(count)]
    children = [Child(path, "write", name, "2", name, *(other for other in names if other != name)) for name in names]
    try:
        for child in children:
            assert "ready" in child.hear()
        for child in children:
            child.go()
        reports = [child.hear() for child in children]
        for child in children:
            assert child.process.wait(30) == 0
    finally:
        for child in children:
            child.end()
    asyncio.run(compare(path, reports))
    counts = [report["count"] for report in reports]
    print(f"{count} processes: {counts} appends, worst wait {max(r['worst'] for r in reports):.2f} s")
    assert min(counts) * 5 > max(counts), f"somebody starves: {counts}"


async def compare(path: str, reports: list[dict[str, Any]]) -> None:
    store = await opened(path)
    assert await store.check() == []
    for instance in await store.instances():
        confirmed = [ordinal for report in reports for ordinal in report["done"].get(str(instance.n), [])]
        assert len(confirmed) == len(set(confirmed)), "an ordinal was given twice"
        rows = await store.read(instance.n, -1, limit=1_000_000, bytes_max=1 << 30)
        assert [row.ordinal for row in rows] == list(range(len(rows))), "the log has a gap"
        written = [json.loads(row.batch.records) for row in rows]
        mine = [record for record in written if len(record) == 3]
        assert len(mine) == len(confirmed), "what was confirmed is there, once"
    await store.close()


def test_a_process_stopped_inside_a_commit_is_named_and_writing_goes_on_when_it_continues(path: str) -> None:
    """T10, S2: the storage half: an error naming worker and pid; no write of the refused; the stopped one's commit counts."""

    async def main() -> None:
        store = await opened(path, busy_seconds=0.5, boot=None)
        n = await born(store, "shared")
        child = Child(path, "stop", "the-stopped-one")
        try:
            await asyncio.to_thread(child.hear)
            async with asyncio.timeout(30):
                while not child.is_stopped():  # noqa: ASYNC110 - the kernel offers no event for this
                    await asyncio.sleep(0.005)
            assert len(await store.read(n, -1)) >= 2, "readers are not disturbed"
            with pytest.raises(StoreBusy, match=rf"the-stopped-one \(pid {child.process.pid}\)"):
                await store.append(Append(n, Batch(b'["refused"]')))
            later = asyncio.create_task(store.append(Append(n, Batch(b'["later"]'))))
            await asyncio.sleep(0)
            child.send(signal.SIGCONT)
            theirs = await asyncio.to_thread(child.hear)
            mine = await later
            assert mine.ordinal == theirs["ordinal"] + 1
            records = [row.batch.records for row in await store.read(n, -1)]
            assert records[-2:] == [b'["by the stopped"]', b'["later"]'] and b'["refused"]' not in records
        finally:
            await asyncio.to_thread(child.end)
        assert await store.check() == []
        await store.close()

    asyncio.run(main())


def test_a_process_killed_while_stopped_inside_a_commit_leaves_nothing_and_blocks_nobody(path: str) -> None:
    """T10, S2: the kernel gives its locks back; its half transaction is no transaction."""

    async def main() -> None:
        store = await opened(path, busy_seconds=30.0, boot=None)
        n = await born(store, "shared")
        child = Child(path, "stop", "the-stopped-one")
        try:
            await asyncio.to_thread(child.hear)
            async with asyncio.timeout(30):
                while not child.is_stopped():  # noqa: ASYNC110 - the kernel offers no event for this
                    await asyncio.sleep(0.005)
            waiting = asyncio.create_task(store.append(Append(n, Batch(b'["patient"]'))))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            child.send(signal.SIGKILL)
            await waiting
        finally:
            await asyncio.to_thread(child.end)
        assert b'["by the stopped"]' not in [row.batch.records for row in await store.read(n, -1)]
        assert await store.check() == []
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("round", range(4))
def test_a_process_killed_at_any_moment_has_lost_nothing_it_confirmed(path: str, round: int) -> None:
    """S1, S2: kill -9; another process finds every ordinal that was said, in an unbroken log, and goes on."""
    children = [Child(path, "die", f"w{i}") for i in range(2)]
    try:
        for child in children:
            assert "ready" in child.hear()
        said: list[int] = []
        for _ in range(20 + 37 * round):
            said.append(children[0].hear()["ordinal"])
        for child in children:
            child.send(signal.SIGKILL)
        for child in children:
            said += [event["ordinal"] for event in child.rest()]
    finally:
        for child in children:
            child.end()

    async def main() -> None:
        store = await opened(path, boot=None)
        n = await born(store, "shared")
        rows = await store.read(n, -1, limit=100_000, bytes_max=1 << 30)
        assert [row.ordinal for row in rows] == list(range(len(rows)))
        assert set(said) <= {row.ordinal for row in rows} and len(set(said)) == len(said)
        assert await store.check() == []
        await store.close()

    asyncio.run(main())
