"""The `glob` tool: files by the shape of their paths."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from typing import Any

from cairn.errors import ToolError
from cairn.harness.sandbox.protocol import Sandbox
from cairn.harness.sandbox.search import Glob, Rules, is_ignored
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, decode, head
from cairn.harness.sandbox.toolbox import locate, make_tool, sandbox_of, told_to_the_model
from cairn.harness.tools import Tool, ToolResult

#: More paths than this are not read by anyone.
PATHS_MAX = 1_000

#: Directories visited before giving up: a minute on a slow remote sandbox.
DIRECTORIES_MAX = 50_000


def glob_tool() -> Tool:
    """Finds files. Repeat class `safe`: it changes nothing."""
    return make_tool(
        "glob",
        f"""Find files by path. *.py finds a name at any depth, src/**/test_*.py a path from the top; {{a,b}} and [a-z] work.
        Hidden files are found; what .gitignore excludes and .git are not. At most {PATHS_MAX} paths, sorted.""",
        {
            "pattern": {"type": "string", "minLength": 1, "description": "The shape of the path."},
            "path": {"type": "string", "description": "The directory to look below; the working directory if not given."},
            "limit": {"type": "integer", "minimum": 1, "description": f"The most paths; {PATHS_MAX} if not given."},
        },
        _run,
        required=("pattern",),
        repeat="safe",
    )


async def _run(context: Any, arguments: dict[str, Any]) -> ToolResult:
    sandbox = sandbox_of(context)
    asked: str = arguments.get("path") or "."
    limit = min(arguments.get("limit") or PATHS_MAX, PATHS_MAX)
    try:
        glob = Glob(arguments["pattern"].removeprefix("./"))
    except ValueError as error:
        raise ToolError(f"{arguments['pattern']!r}: {error}.") from error
    with told_to_the_model(asked):
        top, info = await locate(sandbox, asked)
        if info.kind != "directory":
            raise ToolError(f"{asked} is a {info.kind}, not a directory.")
        found: list[str] = []
        async for path in _files(sandbox, top):
            if glob.matches(path):
                found.append(path if asked == "." else posixpath.join(asked, path))
                if len(found) > limit:
                    break
    if not found:
        return ToolResult(f"No file matches {arguments['pattern']}.")
    cut = head("\n".join(path.replace("\n", "?") for path in found[:limit]), limit, TEXT_BYTES_MAX)
    if cut.lines == len(found):
        return ToolResult(cut.text)
    return ToolResult(f"{cut.text}\n\n[The first {cut.lines}; there are more. Narrow the pattern or the path.]")


async def _files(sandbox: Sandbox, top: str) -> AsyncIterator[str]:
    """Every file below `top` in the order of names, relative to it; the same files as a search looks into."""
    pending: list[tuple[str, bool, tuple[tuple[str, Rules], ...]]] = [("", True, ())]
    visited = 0
    while pending:
        path, is_directory, rules = pending.pop()
        if not is_directory:
            yield path
            continue
        visited += 1
        if visited > DIRECTORIES_MAX:
            raise ToolError(f"More than {DIRECTORIES_MAX} directories; look below a narrower path.")
        prefix = f"{path}/" if path else ""
        try:
            entries = await sandbox.list(posixpath.join(top, path) if path else top)
        except OSError:
            if not path:
                raise
            continue
        names = {posixpath.basename(entry.path): entry.kind for entry in entries}
        if names.get(".gitignore") == "file":
            text = decode(await sandbox.read(posixpath.join(top, prefix, ".gitignore")))
            rules = (*rules, (prefix, Rules(text)))
        for name, kind in sorted(names.items(), reverse=True):
            below = prefix + name
            if kind in ("file", "directory") and name != ".git" and not is_ignored([*rules], below, kind == "directory"):
                pending.append((below, kind == "directory", rules))
