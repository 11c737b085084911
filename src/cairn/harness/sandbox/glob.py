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


async def _files(sandbox: Sandbox, folder: str) -> AsyncIterator[str]:
    """Every file below `folder` in the order of names, relative to it; the same files as a search looks into."""
    top, start, rules = await _above(sandbox, await sandbox.real_path(folder))
    pending: list[tuple[str, bool, tuple[tuple[str, Rules], ...]]] = [(start, True, rules)]
    visited = 0
    while pending:
        path, is_directory, rules = pending.pop()
        if not is_directory:
            yield path[len(start) :]
            continue
        visited += 1
        if visited > DIRECTORIES_MAX:
            raise ToolError(f"More than {DIRECTORIES_MAX} directories; look below a narrower path.")
        try:
            entries = await sandbox.list(posixpath.join(top, path))
        except OSError:
            if path == start:
                raise
            continue
        kinds = {posixpath.basename(entry.path): entry.kind for entry in entries}
        if kinds.get(".gitignore") == "file":
            rules = (*rules, *await _rules_in(sandbox, top, path))
        for name, kind in sorted(kinds.items(), reverse=True):
            below = path + name
            if kind == "directory" and name != ".git" and not is_ignored([*rules], below, True):
                pending.append((below + "/", True, rules))
            elif kind == "file" and not is_ignored([*rules], below, False):
                pending.append((below, False, rules))


async def _above(sandbox: Sandbox, folder: str) -> tuple[str, str, tuple[tuple[str, Rules], ...]]:
    """The top of the repository that the directory is in (or of everything), its path in it, and the rules on the way."""
    top, names = folder, []
    while await sandbox.stat(posixpath.join(top, ".git")) is None and posixpath.dirname(top) != top:
        names.append(posixpath.basename(top))
        top = posixpath.dirname(top)
    prefix = ""
    rules: tuple[tuple[str, Rules], ...] = ()
    for name in reversed(names):
        rules += await _rules_in(sandbox, top, prefix)
        prefix += name + "/"
    return top, prefix, rules


async def _rules_in(sandbox: Sandbox, top: str, prefix: str) -> tuple[tuple[str, Rules], ...]:
    try:
        return ((prefix, Rules(decode(await sandbox.read(posixpath.join(top, prefix, ".gitignore"))))),)
    except OSError:
        return ()
