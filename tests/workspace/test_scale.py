"""Ten thousand files and a gigabyte: what a change costs is counted, and what memory it takes is measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.runtime.toy import run
from tests.workspace.desk import Desk

from cairn.runtime.workspace import Workspace
from cairn.testing import FaultyStore

ROOT = Path(__file__).parents[2]

Change = Callable[[Workspace], Awaitable[None]]

CHANGES: dict[str, Change] = {
    "a write": lambda files: files.write("/d/0/f", b"changed"),
    "a new file": lambda files: files.write("/d/0/new", b"new"),
    "a chmod": lambda files: files.chmod("/d/0/f", 0o600),
    "a removal": lambda files: files.remove("/d/0/f"),
    "a rename of a file": lambda files: files.rename("/d/0/f", "/d/1/g"),
    "a rename of the directory of all": lambda files: files.rename("/d", "/e"),
    "a read": lambda files: files.read("/d/0/f"),  # type: ignore[dict-item,return-value]
}


async def filled(desk: Desk, count: int) -> None:
    async with desk.files.transaction() as draft:
        for number in range(count):
            path = f"/d/{number % 10}/{number}"
            await draft.write(path, b"content %d" % number, parents=True)
        await draft.write("/d/0/f", b"touched")
    await desk.files.read("/d/0/f")


async def cost(count: int, change: Change) -> tuple[int, int, int, int]:
    """Python calls, peak of new memory, bytes of the record, and reads of the store, for one change among so many files."""
    store = FaultyStore(Desk().store_of_its_own())
    async with Desk(store) as desk:
        await filled(desk, count)
        store.counts.calls.clear()
        calls = 0

        def count_call(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        head = desk.instance.head
        tracemalloc.start()
        sys.setprofile(count_call)
        try:
            await change(desk.files)
        finally:
            sys.setprofile(None)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        rows = await store.inner.read(desk.instance.n, head)
        return calls, peak, sum(len(row.batch.records) for row in rows), store.counts.calls["read"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_one_of_ten_thousand_files_costs_what_it_costs_among_ten(name: str) -> None:
    """S2, counted: the same calls, the same bytes in the log (numbers have some digits more), no memory that grows."""

    async def main() -> None:
        few, many = await cost(10, CHANGES[name]), await cost(10_000, CHANGES[name])

        assert abs(many[0] - few[0]) <= 4, f"{few[0]} calls among 10 files, {many[0]} among 10,000"
        assert many[1] < 100_000, f"{many[1]} bytes of memory: something was copied"
        assert many[2] <= few[2] + 16 and many[2] < 250
        assert many[3] == few[3]

    run(main())


@pytest.mark.slow
def test_ten_thousand_files_are_read_from_a_checkpoint_when_somebody_asks() -> None:
    """The next owner has decoded nothing of them until then, and has written back what it found, unread."""

    async def main() -> None:
        async with Desk() as desk:
            await filled(desk, 10_000)
            await desk.instance.save_checkpoint()
            await desk.claim()
            await desk.instance.save_checkpoint()
            assert desk.instance.files._tree is None, "nobody has asked"
            await desk.claim()
            assert await desk.files.read("/d/7/4567") == b"content 4567"
            assert desk.files.usage().files == 10_012
            checkpoint = desk.instance.checkpoint()
            assert len(checkpoint) < 10_000 * 130

    run(main())


@pytest.mark.system
def test_a_file_of_a_gigabyte_takes_less_than_a_hundred_megabytes_of_memory(tmp_path: Path) -> None:
    """X7: written as a stream, appended to, read as a stream, in a process of its own; its record stays small."""
    command = [sys.executable, str(ROOT / "tests" / "workspace" / "gigabyte.py"), str(tmp_path / "cairn.db")]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"] and found["bytes"] == 1 << 30
    assert found["peak"] < 100_000_000, f"{found['peak']:,} bytes at the peak, {found['before']:,} before"
    assert found["record"] < 300
