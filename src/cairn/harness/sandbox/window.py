"""Some lines of a file for a model, and how many there are. Pure.

Laws. Memory does not depend on the file's size: it is fed in blocks, and only the lines asked for are kept. What is not shown
is said, with the `offset` that continues.
"""

from __future__ import annotations

from cairn.errors import ToolError
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, decode

#: A NUL this early means that it is not text; git looks at as much.
SNIFFED_BYTES = 8_000


def numbered(path: str, window: Window, *, at_least: bool) -> str:
    """The lines, and what the reader has to know about those that are not there."""
    total = f"{'more than ' if at_least else ''}{window.total}"
    if window.total == 0:
        return f"({path} is empty)"
    if window.first > window.total:
        raise ToolError(f"offset {window.first} is past the end: {path} has {total} line{'' if total == '1' else 's'}.")
    lines = window.lines()
    if not lines:
        raise ToolError(
            f"Line {window.first} of {path} alone is longer than the limit of {TEXT_BYTES_MAX // 1024} KB. Read part of it "
            f"with a command: sed -n '{window.first}p' {path} | head -c {TEXT_BYTES_MAX // 2}"
        )
    text = "\n".join(lines)
    last = window.first + len(lines) - 1
    if last == window.total and not at_least:
        return text
    return f"{text}\n\n[Lines {window.first}–{last} of {total}. To go on, read with offset={last + 1}.]"


class Window:
    """Some lines of a stream of blocks, and the count of all of them. Keeps `TEXT_BYTES_MAX` bytes at most, plus one block."""

    def __init__(self, first: int, lines_max: int, bytes_max: int = TEXT_BYTES_MAX) -> None:
        self.first = first
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._newlines = 0
        self._kept = bytearray()
        self._kept_newlines = 0
        self._ends_in_newline = True

    @property
    def total(self) -> int:
        return self._newlines + (not self._ends_in_newline)

    def feed(self, block: bytes) -> None:
        count = block.count(b"\n")
        skip = self.first - 1 - self._newlines
        if skip <= count and not self._is_full:
            self._keep(block[_after(block, skip) :])
        self._newlines += count
        self._ends_in_newline = block.endswith(b"\n")

    @property
    def _is_full(self) -> bool:
        return len(self._kept) > self._bytes_max or self._kept_newlines >= self._lines_max

    def _keep(self, part: bytes) -> None:
        # One byte more than may be shown is enough to know that the last line is not whole.
        part = part[: self._bytes_max + 1 - len(self._kept)]
        self._kept += part
        self._kept_newlines += part.count(b"\n")

    def lines(self) -> list[str]:
        """The whole lines that fit, decoded, without their ends."""
        lines = bytes(self._kept).split(b"\n")
        if lines[-1] == b"" or len(self._kept) > self._bytes_max:
            lines.pop()
        return [decode(line.removesuffix(b"\r")) for line in lines[: self._lines_max]]


def _after(block: bytes, newlines: int) -> int:
    """The position after so many newlines; 0 for none or fewer."""
    position = 0
    for _ in range(newlines):
        position = block.index(b"\n", position) + 1
    return position
