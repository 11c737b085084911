"""How much memory a command's processes use together, watched where no control group counts it.

Laws. Without a control group the kernel limits each process by itself. What they all use together is added up four times
a second, so a tree is ended a quarter of a second late. Memory shared by two processes is counted twice: too strict by the
size of their common libraries, never too lenient.
"""

from __future__ import annotations

import asyncio
import os

from cairn.harness.sandbox.commands import to_the_end
from cairn.harness.sandbox.protocol import ProcessInfo
from cairn.harness.sandbox.supervisor import processes
from cairn.harness.sandbox.text import size_of

#: Between two looks, each of which reads a line per process of the host.
LOOK_SECONDS = 0.25


async def overused(process: ProcessInfo, bytes_max: int) -> str:
    """Returns when the tree of this supervisor uses more, with a sentence that says so."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if await to_the_end(asyncio.to_thread(_used, process.pid)) > bytes_max:
            return f"Ended: its processes used more than {size_of(bytes_max)} of memory together."


def _used(supervisor: int) -> int:
    pages = 0
    for process in processes.descendants(supervisor, processes.table()):
        try:
            with open(f"/proc/{process.pid}/statm", "rb") as file:
                pages += int(file.read().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")
