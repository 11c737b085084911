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
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, TEXT_LINES_MAX, size_of
from cairn.harness.sandbox.toolbox import locate, make_tool, sandbox_of, told_to_the_model
from cairn.harness.sandbox.window import SNIFFED_BYTES, Window, numbered
from cairn.harness.sniff import image_type
from cairn.harness.tools import Tool, ToolResult

#: One read from the sandbox.
BLOCK_BYTES = 1024 * 1024

#: How far lines are counted to say how many there are: a quarter of a second of reading.
COUNTED_BYTES_MAX = 256 * 1024 * 1024

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
    return ToolResult(numbered(asked, window, at_least=bool(block)))


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
