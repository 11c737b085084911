"""What the file tools have in common: how one is declared, how it finds its sandbox and file, and its errors in words.

Laws. A tool reaches the world only through the `Sandbox` of its call, so each works over any of them. What goes wrong with a
path is told to the model by naming the path, what is there instead, and what to do; never as a traceback or an errno.
"""

from __future__ import annotations

import asyncio
import difflib
import posixpath
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from cairn.errors import SandboxError, ToolError
from cairn.harness.arguments import compile_schema
from cairn.harness.messages import ToolSpec
from cairn.harness.sandbox.protocol import FileInfo, Sandbox
from cairn.harness.tools import Repeat, Tool

#: The one turn that everything writing to the workspace takes: a batch of calls must not interleave in the files.
WORKSPACE = "workspace"

#: Names offered when a path does not exist.
SUGGESTIONS_MAX = 3

Properties = dict[str, dict[str, Any]]

#: The parameter that names a file.
FILE = {"type": "string", "minLength": 1, "description": "The file, absolute or relative to the working directory."}


def make_tool(
    name: str,
    description: str,
    properties: Properties,
    run: Callable[[Any, dict[str, Any]], Awaitable[Any]],
    *,
    required: tuple[str, ...],
    repeat: Repeat,
    writes: bool = False,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = lambda arguments: arguments,
    timeout_seconds: float | None = None,
) -> Tool:
    """A tool over the sandbox of its call. `prepare` mends shapes that models are known to send, before validation."""
    parameters = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    validate = compile_schema(parameters)
    return Tool(
        spec=ToolSpec(name=name, description=" ".join(description.split()), parameters=parameters),
        run=run,
        validate=lambda arguments: validate(prepare(arguments)),
        repeat=repeat,
        sequential=WORKSPACE if writes else False,
        timeout_seconds=timeout_seconds,
    )


def sandbox_of(context: Any) -> Sandbox:
    """The sandbox of the call. *Raises* ToolError when the agent has none."""
    sandbox: Sandbox | None = context.sandbox
    if sandbox is None:
        raise ToolError("This agent has no sandbox, so there are no files and no shell.")
    return sandbox


@contextmanager
def told_to_the_model(path: str) -> Iterator[None]:
    """What the operating system refuses becomes a ToolError in words."""
    try:
        yield
    except FileNotFoundError as error:
        raise ToolError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise ToolError(f"{path} is a directory, not a file; list it with ls.") from error
    except NotADirectoryError as error:
        raise ToolError(f"{path} is not a directory, or part of its path is a file.") from error
    except PermissionError as error:
        raise ToolError(f"{path}: permission denied.") from error
    except (OSError, SandboxError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ToolError(f"{path}: {reason}") from error


async def locate(sandbox: Sandbox, path: str) -> tuple[str, FileInfo]:
    """The path under which something is there, and what: as given, or the one entry that is the same to the eye.

    File names can hold what no model writes back: decomposed accents, a narrow space before "PM", a curly apostrophe.
    *Raises* ToolError with similar names when there is nothing.
    """
    found = await sandbox.stat(path)
    if found is not None:
        return path, found
    folder = posixpath.dirname(path.rstrip("/")) or "."
    try:
        entries = await sandbox.list(folder)
    except (OSError, SandboxError):
        raise ToolError(f"{path} does not exist, nor does its directory {folder}.") from None
    wanted = posixpath.basename(path.rstrip("/"))
    names = [posixpath.basename(entry.path) for entry in entries]
    twins = [name for name in names if _to_the_eye(name) == _to_the_eye(wanted)]
    if len(twins) == 1:
        twin = posixpath.join(folder, twins[0])
        found = await sandbox.stat(twin)
        if found is not None:
            return twin, found
    similar = difflib.get_close_matches(wanted, names, SUGGESTIONS_MAX)
    hint = f" Similar in {folder}: {', '.join(similar)}." if similar else ""
    raise ToolError(f"{path} does not exist.{hint}")


def _to_the_eye(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name)
    return " ".join(plain.replace("\u2019", "'").replace("\u2018", "'").split())


class Locks:
    """One lock per real file and sandbox, for as long as somebody holds or awaits it."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, sandbox: Sandbox, path: str) -> AsyncIterator[None]:
        """Nobody else who asks here writes the file meanwhile, under whichever of its names."""
        key = (id(sandbox), await sandbox.real_path(path))
        lock, waiting = self._held.get(key, (asyncio.Lock(), 0))
        self._held[key] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._held[key]
            if waiting == 1:
                del self._held[key]
            else:
                self._held[key] = lock, waiting - 1
