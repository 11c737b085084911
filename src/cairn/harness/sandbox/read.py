"""The `read` tool: a file's lines, or an image.

Laws. Memory does not depend on the file's size: it is read in blocks, and only the lines asked for are kept. What is not
shown is said, with the `offset` that continues.
"""

from __future__ import annotations

import posixpath
from typing import Any

from cairn.errors import ToolError
from cairn.harness.messages import Image, Text
from cairn.harness.sandbox.protocol import FileInfo, Sandbox
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, TEXT_LINES_MAX, decode, size_of
from cairn.harness.sandbox.toolbox import locate, make_tool, sandbox_of, told_to_the_model
from cairn.harness.sniff import image_type
from cairn.harness.tools import Tool, ToolResult

#: One read from the sandbox.
BLOCK_BYTES = 1024 * 1024

#: How far lines are counted to say how many there are: a quarter of a second of reading.
COUNTED_BYTES_MAX = 256 * 1024 * 1024

#: A NUL this early means that it is not text; git looks at as much.
SNIFFED_BYTES = 8_000

#: The largest image the strictest provider takes is 5 MB of base64.
IMAGE_BYTES_MAX = 5 * 1024 * 1024 * 3 // 4

_BOM = b"\xef\xbb\xbf"


def read_tool() -> Tool:
    """Reads text and images. Repeat class `safe`: it changes nothing."""
    return make_tool(
        "read",
        f"""Read a file. Text comes as whole lines, at most {TEXT_LINES_MAX} lines or {TEXT_BYTES_MAX // 1024} KB at once; use
        offset and limit for more or less. PNG, JPEG, GIF and WebP files are shown as images.""",
        {
            "path": {
                "type": "string",
                "minLength": 1,
                "description": "The file, absolute or relative to the working directory.",
            },
            "offset": {"type": "integer", "minimum": 1, "description": "The first line to read; the first of the file is 1."},
            "limit": {"type": "integer", "minimum": 1, "description": "The most lines to read."},
        },
        _run,
        required=("path",),
        repeat="safe",
    )


async def _run(context: Any, arguments: dict[str, Any]) -> ToolResult:
    sandbox = sandbox_of(context)
    asked: str = arguments["path"]
    with told_to_the_model(asked):
        path, info = await locate(sandbox, asked)
        first = await sandbox.read(path, size=BLOCK_BYTES)
        mime_type = image_type(first)
        if mime_type is not None:
            return await _image(sandbox, path, info, mime_type)
        if b"\0" in first[:SNIFFED_BYTES]:
            raise ToolError(f"{asked} is not text ({size_of(info.size)}); look at it with a command, such as file or xxd.")
        offset, limit = arguments.get("offset") or 1, arguments.get("limit") or TEXT_LINES_MAX
        window = Window(offset, min(limit, TEXT_LINES_MAX))
        block, position = first.removeprefix(_BOM), len(first)
        while block and position <= COUNTED_BYTES_MAX:
            window.feed(block)
            block = await sandbox.read(path, start=position, size=BLOCK_BYTES)
            position += len(block)
    return ToolResult(_shown(asked, window, at_least=bool(block)))


async def _image(sandbox: Sandbox, path: str, info: FileInfo, mime_type: str) -> ToolResult:
    if mime_type == "image/bmp":
        raise ToolError(f"{path} is a BMP image, which no model can see; convert it to PNG with a command first.")
    if info.size > IMAGE_BYTES_MAX:
        raise ToolError(
            f"{path} is an image of {size_of(info.size)}; models take {size_of(IMAGE_BYTES_MAX)}. Make a smaller copy with a "
            "command and read that."
        )
    data = await sandbox.read(path)
    name = posixpath.basename(path)
    return ToolResult(
        (Text(text=f"{name}: {mime_type}, {size_of(len(data))}"), Image(mime_type=mime_type, data=data, filename=name))
    )


def _shown(path: str, window: Window, *, at_least: bool) -> str:
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
