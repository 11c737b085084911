"""What a command wrote, in bounded memory: its end stays here, and once that is not all, a private file has the whole.

Laws. Memory never exceeds twice `HELD_BYTES_MAX`, whatever the command writes. The file is created only when a tool could not
show everything, holds every byte from the first one, is readable by this user alone, and stops growing at `SPILL_BYTES_MAX`
(a runaway command must not fill the disk). A full disk ends the file, never the command.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from cairn.harness.sandbox.text import TEXT_BYTES_MAX, TEXT_LINES_MAX

#: The end of the output that is kept in memory: five times what a tool shows, so that cutting at lines has room.
HELD_BYTES_MAX = 256 * 1024

#: A file larger than this is of no use to a model, and sixteen of them fit a small disk.
SPILL_BYTES_MAX = 256 * 1024 * 1024

#: How many such files one sandbox keeps; the oldest goes when a new one is made.
SPILL_FILES_MAX = 16


class Output:
    """The output of one command. Feed it chunks; then ask for what was `held`, how much was `dropped`, and the `path`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._tail = bytearray()
        self._total = 0
        self._lines = 0
        self._file = -1
        self._written = 0
        self.path: str | None = None

    @property
    def held(self) -> bytes:
        return bytes(self._tail[-HELD_BYTES_MAX:])

    @property
    def dropped(self) -> int:
        return max(0, self._total - HELD_BYTES_MAX)

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Never fails: what cannot be written to the file is only missing from the file."""
        self._total += len(data)
        self._tail += data
        if self.path is None:
            self._lines += data.count(b"\n")
            if self._total > TEXT_BYTES_MAX or self._lines > TEXT_LINES_MAX:
                self._spill()
        elif self._file >= 0:
            self._append(data)
        if len(self._tail) > 2 * HELD_BYTES_MAX:
            del self._tail[:-HELD_BYTES_MAX]

    def close(self) -> None:
        """The file, if there is one, is complete. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _spill(self) -> None:
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            _make_room(Path(self._directory))
            self._file, self.path = tempfile.mkstemp(prefix="output-", suffix=".log", dir=self._directory)
        except OSError:
            self.path = ""
            return
        self._append(bytes(self._tail))

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)[: SPILL_BYTES_MAX - self._written]
        try:
            while rest:
                count = os.write(self._file, rest)
                self._written += count
                rest = rest[count:]
        except OSError:
            self.close()
        if self._written >= SPILL_BYTES_MAX:
            self.close()


def part_of(path: str, start: int, size: int | None) -> bytes:
    """Some of a whole output that was kept on this host; `size` None: all from `start` on."""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read() if size is None else file.read(size)


def _make_room(directory: Path) -> None:
    files = sorted(directory.glob("output-*.log"), key=lambda path: path.stat().st_mtime)
    for path in files[: max(0, len(files) - SPILL_FILES_MAX + 1)]:
        with suppress(OSError):
            path.unlink()
