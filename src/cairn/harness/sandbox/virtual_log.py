"""What a command of the virtual shell wrote: its end in memory, and all of it as a file of the workspace when it is long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cairn.harness.sandbox.output import HELD_BYTES_MAX, SPILL_FILES_MAX
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, TEXT_LINES_MAX
from cairn.harness.sandbox.virtual_paths import SCRATCH, outside

if TYPE_CHECKING:
    from cairn.runtime.workspace_draft import Draft

#: What of an output is kept as a file. It is in memory until the command has ended, and in the log for good.
KEPT_BYTES_MAX = 16 * 1024 * 1024

FOLDER = f"{SCRATCH}/output"


class CommandLog:
    """Feed it; then ask what was `held`, how much was `dropped`, and have it `kept`."""

    def __init__(self, on_output: Callable[[bytes], None] | None) -> None:
        self._on_output = on_output
        self._begun = bytearray()
        self._tail = bytearray()
        self._total = 0
        self._lines = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes, and hand them on."""
        if not data:
            return
        self._total += len(data)
        self._lines += data.count(b"\n")
        self._begun += data[: KEPT_BYTES_MAX - len(self._begun)]
        self._tail += data
        if len(self._tail) > 2 * HELD_BYTES_MAX:
            del self._tail[:-HELD_BYTES_MAX]
        if self._on_output is not None:
            self._on_output(data)

    @property
    def held(self) -> bytes:
        return bytes(self._tail[-HELD_BYTES_MAX:])

    @property
    def dropped(self) -> int:
        return max(0, self._total - HELD_BYTES_MAX)

    async def kept(self, draft: Draft) -> str | None:
        """The path of the file that has everything, if a tool could not show everything."""
        if self._total <= TEXT_BYTES_MAX and self._lines <= TEXT_LINES_MAX:
            return None
        names = sorted((entry.name for entry in draft.list(FOLDER)), key=_number) if draft.exists(FOLDER) else []
        for name in names[: max(0, len(names) - SPILL_FILES_MAX + 1)]:
            await draft.remove(f"{FOLDER}/{name}")
        path = f"{FOLDER}/{_number(names[-1]) + 1 if names else 1}.log"
        await draft.write(path, bytes(self._begun), parents=True)
        return outside(path)


def _number(name: str) -> int:
    digits = name.removesuffix(".log")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0
