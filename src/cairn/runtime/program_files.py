"""The files that a program may be given: the instance's workspace, under `open()` and `pathlib`.

Laws. A program's file calls are calls like any other: what was read is in the journal, so that a repeat reads the same, and a
write is one changeset in the batch of its outcome, so that it happened exactly if the journal says so. Paths are the
workspace's, which nothing leads out of; `/workspace`, as its shell calls the root, is the root here too. A grant to read is
none to write. Nothing of the interpreter's library is known here: the values are JSON, `program_pool.py` makes them what they
stand for.
"""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from cairn.errors import WorkspaceError
from cairn.runtime.program import Function, FunctionCall
from cairn.runtime.workspace import Workspace
from cairn.runtime.workspace_draft import Draft

Grant = Literal["read", "write"]

#: Bytes of one file that are read, or written, at once: in the journal they are one record, as base64 if they are no text.
FILE_BYTES_MAX = 500_000
#: Entries of directories that one call lists.
ENTRIES_MAX = 5_000
#: What a workspace's shell calls the root.
HOME = "/workspace"
#: What its shell calls `/tmp`, and where that is.
TEMPORARY, SCRATCH = "/tmp", "/.tmp"

READS = (
    "exists",
    "is_file",
    "is_dir",
    "is_symlink",
    "read_text",
    "read_bytes",
    "iterdir",
    "scan",
    "stat",
    "resolve",
    "absolute",
)
WRITES = ("write_text", "write_bytes", "append_text", "append_bytes", "mkdir", "unlink", "rmdir", "rename")

Arguments = dict[str, Any]


def file_functions(workspace: Workspace, grant: Grant) -> list[Function]:
    """What a program's `open()` and `pathlib` call. Their names are `path_…`, as the interpreter's are in our words."""
    files = _Files(workspace, grant)
    return [Function(f"path_{name}", files.call, repeat="safe") for name in ("open", *READS, *WRITES)]


def inside(path: str) -> str:
    """The workspace's path for a program's."""
    if path == HOME or path.startswith(f"{HOME}/"):
        return path[len(HOME) :] or "/"
    if path == TEMPORARY or path.startswith(f"{TEMPORARY}/"):
        return SCRATCH + path[len(TEMPORARY) :]
    return path


class _Files:
    def __init__(self, workspace: Workspace, grant: Grant) -> None:
        self._workspace, self._grant = workspace, grant

    async def call(self, call: FunctionCall) -> Any:
        """The outcome of one file call. *Raises* OSError, as Python's own would."""
        name, given = call.function.removeprefix("path_"), dict(call.arguments)
        try:
            if name == "open":
                return await self._open(call, str(given["0"]), str(given["1"]))
            if name in READS:
                return await getattr(self, f"_{name}")(str(given["0"]), given)
            return await self._changed(call, str(given["0"]), _CHANGES[name], given)
        except WorkspaceError as error:
            # What Python raises for this number: FileNotFoundError and its like, without our class's name.
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(given["0"])) from None

    # --- changing

    async def _open(self, call: FunctionCall, path: str, mode: str) -> Any:
        """Only what opening does: whether it is there, or that it is made or emptied."""
        action = mode.replace("b", "").replace("t", "")[:1]
        if action == "r" and "+" not in mode:
            if self._workspace.exists(inside(path)):
                await self._workspace.read(inside(path), 0, 1)
            else:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        elif action == "w" or not self._workspace.exists(inside(path)):
            if action == "r":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            await self._changed(call, path, _emptied, {})
        return {"path": path, "mode": mode}

    async def _changed(
        self, call: FunctionCall, path: str, change: Callable[[Draft, str, Arguments], Awaitable[Any]], given: Arguments
    ) -> Any:
        """The change, as records of the batch of the call's outcome; the workspace's turn is held until that is in the log."""
        if self._grant != "write":
            raise PermissionError(errno.EACCES, "this program may read files, and write none", path)
        workspace = self._workspace
        await workspace.turn.acquire()
        try:
            draft = workspace.draft()
            result = await change(draft, inside(path), given)
            await draft.prepare()
            call.also.extend(draft.records())
            call.blobs.extend(draft.blobs)
        except BaseException:
            workspace.turn.release()
            raise
        call.ended.append(workspace.turn.release)
        return result

    # --- reading

    async def _read_bytes(self, path: str, given: Arguments) -> Any:
        return {"base64": base64.b64encode(await self._content(path)).decode()}

    async def _read_text(self, path: str, given: Arguments) -> Any:
        try:
            return (await self._content(path)).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no UTF-8 text ({error.reason}); read its bytes") from None

    async def _content(self, path: str) -> bytes:
        data = await self._workspace.read(inside(path), 0, FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise OSError(errno.EFBIG, f"larger than the {FILE_BYTES_MAX:,} bytes that a program reads at once", path)
        return data

    async def _exists(self, path: str, given: Arguments) -> bool:
        return self._workspace.exists(inside(path))

    async def _is_file(self, path: str, given: Arguments) -> bool:
        entry = self._workspace.stat(inside(path))
        return entry is not None and entry.is_file

    async def _is_dir(self, path: str, given: Arguments) -> bool:
        entry = self._workspace.stat(inside(path))
        return entry is not None and entry.is_directory

    async def _is_symlink(self, path: str, given: Arguments) -> bool:
        entry = self._workspace.lstat(inside(path))
        return entry is not None and entry.is_link

    async def _iterdir(self, path: str, given: Arguments) -> list[str]:
        found = [f"{path.rstrip('/')}/{entry.name}" for entry in self._workspace.list(inside(path))]
        return _few(found, path)

    async def _scan(self, path: str, given: Arguments) -> list[list[Any]]:
        """The directory itself and what is below it: relative path, is a directory, is a file, is a link."""
        top, depth = self._workspace.stat(inside(path)), given.get("max_depth")
        if top is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        found: list[list[Any]] = [["", top.is_directory, top.is_file, False]]
        if top.is_directory:
            below = self._workspace.list if depth == 1 else self._workspace.walk
            for entry in below(inside(path)):
                relative = entry.path.removeprefix(top.path).lstrip("/")
                if depth is None or relative.count("/") < depth:
                    found.append([relative, entry.is_directory, entry.is_file, entry.is_link])
                if len(found) > ENTRIES_MAX:
                    break
        return _few(found, path)

    async def _stat(self, path: str, given: Arguments) -> dict[str, Any]:
        entry = self._workspace.stat(inside(path))
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return {"is_dir": entry.is_directory, "size": entry.size, "mode": entry.mode, "mtime": entry.mtime}

    async def _resolve(self, path: str, given: Arguments) -> str:
        return self._workspace.resolve(inside(path)) if self._workspace.exists(inside(path)) else path

    async def _absolute(self, path: str, given: Arguments) -> str:
        return path


def _few(found: list[Any], path: str) -> list[Any]:
    if len(found) > ENTRIES_MAX:
        raise OSError(errno.EFBIG, f"more than the {ENTRIES_MAX:,} entries that a program lists at once", path)
    return found


# --- what a change does to a draft ------------------------------------------------------------------------------------


async def _emptied(draft: Draft, path: str, given: Arguments) -> None:
    await draft.write(path, b"")


async def _written(draft: Draft, path: str, given: Arguments) -> int:
    await draft.write(path, _data(given["1"]))
    return _length(given["1"])


async def _appended(draft: Draft, path: str, given: Arguments) -> int:
    await draft.append(path, _data(given["1"]))
    return _length(given["1"])


async def _mkdir(draft: Draft, path: str, given: Arguments) -> None:
    await draft.mkdir(path, parents=bool(given.get("parents")), exist_ok=bool(given.get("exist_ok")))


async def _unlink(draft: Draft, path: str, given: Arguments) -> None:
    entry = draft.lstat(path)
    if entry is not None and entry.is_directory:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    await draft.remove(path)


async def _rmdir(draft: Draft, path: str, given: Arguments) -> None:
    entry = draft.lstat(path)
    if entry is not None and not entry.is_directory:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    await draft.remove(path)


async def _rename(draft: Draft, path: str, given: Arguments) -> str:
    await draft.rename(path, inside(str(given["1"])))
    return str(given["1"])


_CHANGES: dict[str, Callable[[Draft, str, Arguments], Awaitable[Any]]] = {
    "write_text": _written,
    "write_bytes": _written,
    "append_text": _appended,
    "append_bytes": _appended,
    "mkdir": _mkdir,
    "unlink": _unlink,
    "rmdir": _rmdir,
    "rename": _rename,
}


def _data(given: Any) -> bytes:
    data = base64.b64decode(given["base64"]) if isinstance(given, dict) else str(given).encode()
    if len(data) > FILE_BYTES_MAX:
        raise OSError(errno.EFBIG, f"more than the {FILE_BYTES_MAX:,} bytes that a program writes at once; append the rest")
    return data


def _length(given: Any) -> int:
    """What Python's `write` returns: characters of a text, bytes of bytes."""
    return len(_data(given)) if isinstance(given, dict) else len(given)
