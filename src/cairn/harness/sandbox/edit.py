"""The `edit` tool: exact replacements in one file, all of them or none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from cairn.errors import ToolError
from cairn.harness.sandbox.patch import Edit, EditProblem, Patch, apply
from cairn.harness.sandbox.protocol import Sandbox
from cairn.harness.sandbox.text import size_of
from cairn.harness.sandbox.toolbox import Locks, locate, make_tool, sandbox_of, told_to_the_model
from cairn.harness.sandbox.window import SNIFFED_BYTES
from cairn.harness.tools import Tool, ToolResult

#: Larger files are data; changing them is a command's work.
EDIT_BYTES_MAX = 10 * 1024 * 1024

_OLD = ("oldText", "old_text", "oldString", "old_string")
_NEW = ("newText", "new_text", "newString", "new_string")


def edit_tool(locks: Locks) -> Tool:
    """Edits files. Repeat class `never`: made twice, an edit whose new text contains its old one would apply again."""

    async def run(context: Any, arguments: dict[str, Any]) -> ToolResult:
        sandbox = sandbox_of(context)
        asked: str = arguments["path"]
        edits = [Edit(each["oldText"], each["newText"]) for each in arguments["edits"]]
        with told_to_the_model(asked):
            async with locks.hold(sandbox, asked):
                path, text = await _read(sandbox, asked)
                try:
                    patch = await asyncio.to_thread(apply, text, edits)  # a tenth of a second for the largest file
                except EditProblem as problem:
                    listed = "\n".join(f"- {each}" for each in problem.problems)
                    raise ToolError(f"{asked} was not changed:\n{listed}") from problem
                await sandbox.write(path, patch.text.encode("utf-8", "surrogateescape"))
        return _told(asked, patch)

    return make_tool(
        "edit",
        """Change a text file by replacing pieces of it. Each oldText has to occur exactly once in the file as it is now, and
        no two may overlap; all edits are made, or none. Keep oldText as short as is unambiguous; put several changes of one
        file into one call.""",
        {
            "path": {
                "type": "string",
                "minLength": 1,
                "description": "The file, absolute or relative to the working directory.",
            },
            "edits": {
                "type": "array",
                "minItems": 1,
                "description": "The replacements, in any order.",
                "items": {
                    "type": "object",
                    "properties": {
                        "oldText": {"type": "string", "description": "What is there now, exactly."},
                        "newText": {"type": "string", "description": "What shall be there."},
                    },
                    "required": ["oldText", "newText"],
                    "additionalProperties": False,
                },
            },
        },
        run,
        required=("path", "edits"),
        repeat="never",
        writes=True,
        prepare=mended,
    )


def mended(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments in their declared shape, from the shapes that models also send: edits as JSON text, one edit instead of
    a list, its two texts beside the path, and names as other tools have them."""
    rest = {name: value for name, value in arguments.items() if name not in (*_OLD, *_NEW, "edits")}
    edits = arguments.get("edits")
    if isinstance(edits, str):
        try:
            edits = json.loads(edits)
        except ValueError:
            pass  # validation will say what it is
    if isinstance(edits, dict):
        edits = [edits]
    beside = _renamed({name: value for name, value in arguments.items() if name in (*_OLD, *_NEW)})
    if beside and not edits:
        edits = [beside]
    elif beside and isinstance(edits, list):
        edits = [*edits, beside]
    if isinstance(edits, list):
        edits = [_renamed(each) if isinstance(each, dict) else each for each in edits]
    return rest if edits is None else rest | {"edits": edits}


def _renamed(edit: dict[str, Any]) -> dict[str, Any]:
    names = dict.fromkeys(_OLD, "oldText") | dict.fromkeys(_NEW, "newText")
    return {names.get(name, name): value for name, value in edit.items()}


async def _read(sandbox: Sandbox, asked: str) -> tuple[str, str]:
    path, info = await locate(sandbox, asked)
    if info.size > EDIT_BYTES_MAX:
        raise ToolError(f"{asked} has {size_of(info.size)}; edit takes {size_of(EDIT_BYTES_MAX)}. Change it with a command.")
    data = await sandbox.read(path)
    if b"\0" in data[:SNIFFED_BYTES]:
        raise ToolError(f"{asked} is not text and was not changed.")
    # Bytes that are not UTF-8 pass through as they are.
    return path, data.decode("utf-8", "surrogateescape")


def _told(path: str, patch: Patch) -> ToolResult:
    lines = ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in patch.lines)
    count = len(patch.lines)
    text = f"Changed {path}: {count} edit{'' if count == 1 else 's'} (before the change: line {lines})."
    if patch.is_loose:
        text += " The old text did not match to the letter: quotes, dashes, spaces or line ends differed."
    return ToolResult(text, details={"path": path, "diff": patch.diff, "edits": count, "first_line": patch.lines[0][0]})
