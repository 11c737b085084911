"""How much a sandbox's files may take of the disk, watched while its commands run.

Laws. A kernel without project quotas has no limit for a directory, so the free space of the file system is looked at five times
a second, which costs nothing, and the files are counted only when more went than is left to the sandbox. A command is therefore
ended a fifth of a second late, not at the byte.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from cairn.harness.sandbox.commands import to_the_end
from cairn.harness.sandbox.text import size_of

#: Between two looks. A fast disk takes 2 GB/s: the limit is exceeded by 400 MB at most.
LOOK_SECONDS = 0.2

#: A sandbox that is full may still write this much before it is counted again: removing files needs room, too.
SLACK_BYTES = 16 * 1024 * 1024


class DiskWatch:
    """The directories of one sandbox and what they may hold together."""

    def __init__(self, directories: Sequence[str], bytes_max: int) -> None:
        self._directories = directories
        self._bytes_max = bytes_max
        self._free = self._allowance = -1

    async def overfull(self) -> str:
        """Returns when the files take more than they may, with a sentence that says so."""
        if self._allowance < 0:
            await self._count()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._free - self._free_now() > self._allowance and await self._count() > self._bytes_max:
                return f"Ended: the sandbox's files take more than {size_of(self._bytes_max)}. Remove some."

    async def _count(self) -> int:
        self._free = self._free_now()
        used = await to_the_end(asyncio.to_thread(_used, self._directories))
        self._allowance = max(SLACK_BYTES, self._bytes_max - used)
        return used

    def _free_now(self) -> int:
        """Of the file systems that the directories are on; several are added up, for growth in one is growth of the sum."""
        found = {os.stat(path).st_dev: os.statvfs(path) for path in self._directories}
        return sum(status.f_bfree * status.f_frsize for status in found.values())


def _used(directories: Sequence[str]) -> int:
    """Bytes on the disk of all files, each hard link's content once, links not followed."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for top in directories:
        for _, _, names, descriptor in os.fwalk(top, onerror=lambda _: None):
            for name in names:
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except OSError:
                    continue
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total
