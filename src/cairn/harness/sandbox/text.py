"""Text for a model: decoded, cleaned and cut at whole lines. Pure.

Laws. Nothing shown is longer than `TEXT_LINES_MAX` lines or `TEXT_BYTES_MAX` bytes of UTF-8, whichever comes first. A cut falls
between lines; only a single line that is too long by itself is cut inside, and then never inside a character.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What one tool result may hold. 2,000 lines is what coding agents agree on; 50 KB is about 12,000 tokens.
TEXT_LINES_MAX = 2_000
TEXT_BYTES_MAX = 50 * 1024

#: Terminal control: CSI and OSC sequences, and two-byte escapes.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = {code: None for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n"}


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a text: `text` is `lines` of the `total` lines."""

    text: str
    lines: int
    total: int
    broken: bool = False
    """The piece is a part of one line that is over the byte limit by itself."""

    @property
    def is_whole(self) -> bool:
        return self.lines == self.total and not self.broken


def decode(data: bytes) -> str:
    """Bytes that should be UTF-8, whatever they are: each byte that is not becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def printable(text: str) -> str:
    """What a terminal would have left on the screen: no colours, no control characters, overwritten lines only once."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(_last_writing(line) for line in text.split("\n"))
    return text.translate(_CONTROLS)


def _last_writing(line: str) -> str:
    """A progress bar writes its line again and again, returning to its start: the last writing is what was to be read."""
    return next((part for part in reversed(line.split("\r")) if part), "")


def tail(text: str, lines_max: int = TEXT_LINES_MAX, bytes_max: int = TEXT_BYTES_MAX) -> Cut:
    """The last whole lines that fit; if not even the last one does, its end."""
    lines = split_lines(text)
    kept: list[str] = []
    size = 0
    for line in reversed(lines[-lines_max:]):
        size += len(line.encode("utf-8", "replace")) + 1
        if size - 1 > bytes_max:
            break
        kept.append(line)
    if not kept and lines:
        end = lines[-1].encode("utf-8", "replace")[-bytes_max:]
        return Cut(end.decode("utf-8", "ignore"), 1, len(lines), broken=True)
    return Cut("\n".join(reversed(kept)), len(kept), len(lines))


def head(text: str, lines_max: int = TEXT_LINES_MAX, bytes_max: int = TEXT_BYTES_MAX) -> Cut:
    """The first whole lines that fit; none if not even the first one does."""
    lines = split_lines(text)
    size = count = 0
    for line in lines[:lines_max]:
        size += len(line.encode("utf-8", "replace")) + 1
        if size - 1 > bytes_max:
            break
        count += 1
    return Cut("\n".join(lines[:count]), count, len(lines), broken=bool(lines) and not count)


def split_lines(text: str) -> list[str]:
    """Lines without their ends. A text that ends in a newline does not have an empty line after it."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def size_of(count: int) -> str:
    """A number of bytes for people: `512 bytes`, `1.4 MB`."""
    if count < 1024:
        return f"{count} byte{'' if count == 1 else 's'}"
    if count < 1024 * 1024:
        return f"{count / 1024:.1f} KB"
    return f"{count / (1024 * 1024):.1f} MB"
