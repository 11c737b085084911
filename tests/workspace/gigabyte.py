"""A process that writes a file of one gigabyte into a workspace, appends to it, reads it back, and says what it took.

python gigabyte.py STORE
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.workspace.desk import Desk

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.workspace_history import workspace_at

MEGABYTE = 1 << 20
COUNT = 1_023


async def megabytes(digest: hashlib._Hash) -> AsyncIterator[bytes]:
    """None like another, so that nothing is shared."""
    for number in range(COUNT):
        piece = number.to_bytes(8, "big") * (MEGABYTE // 8)
        digest.update(piece)
        yield piece


def peak() -> int:
    """The most memory this process had; unlike `ru_maxrss` not what it was started from had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def main(path: str) -> None:
    before = peak()
    store = SqliteStore(path, clock=SystemClock(), ids=SystemIds())
    async with Desk(store) as desk:
        written, read = hashlib.sha256(), hashlib.sha256()
        await desk.files.write("/big", megabytes(written))
        written.update(b"tail" * (MEGABYTE // 4))
        await desk.files.append("/big", b"tail" * (MEGABYTE // 4))
        past = await workspace_at(store, desk.address)
        async for piece in past.stream("/big"):
            read.update(piece)
        entry = past.stat("/big")
        assert entry is not None
        rows = await store.read(desk.instance.n, desk.instance.head - 1)
    print(
        json.dumps(
            {
                "bytes": entry.size,
                "same": written.digest() == read.digest(),
                "record": len(rows[0].batch.records),
                "peak": peak(),
                "before": before,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
