"""A workspace as an fsspec file system, for libraries that speak it (pandas, pyarrow, dask, zarr).

    fs = WorkspaceFileSystem(workspace)          # in the event loop: `await fs._cat_file("/a")`
    await asyncio.to_thread(pandas.read_csv, fs.open("/a.csv"))

Laws. The asynchronous methods are called in the workspace's event loop, the others in another thread: a call that waits for the
loop it blocks never ends, and fsspec refuses it. Needs the extra `fsspec`; imported by whoever uses it, not before.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from cairn.errors import MissingExtra, UsageError
from cairn.runtime.files import CHUNK_BYTES, Entry, fail
from cairn.runtime.workspace import Workspace
from cairn.runtime.workspace_reading import Reading

try:
    from fsspec.asyn import AsyncFileSystem, sync  # type: ignore[import-untyped]
    from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]
except ImportError as error:
    raise MissingExtra("a workspace as an fsspec file system needs fsspec: pip install 'cairn-agents[fsspec]'") from error


class WorkspaceFileSystem(AsyncFileSystem):  # type: ignore[misc]
    """The files of a workspace, or of a past one, which can only be read. Make it in the workspace's event loop."""

    protocol = "cairn"
    cachable = False
    mirror_sync_methods = True

    def __init__(self, files: Reading) -> None:
        super().__init__(asynchronous=False, loop=asyncio.get_running_loop())
        self.files = files

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = str(path)
        return "/" + text.removeprefix("cairn://").strip("/")

    # --- looking

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        entry = self.files.stat(self._strip_protocol(path))
        if entry is None:
            fail(errno.ENOENT, path)
        return _told(entry, self._strip_protocol(path))

    async def _ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        path = self._strip_protocol(path)
        entry = self.files.stat(path)
        if entry is not None and entry.is_file:
            found = [_told(entry, path)]
        else:
            found = [_told(self.files.stat(each.path) or each, each.path) for each in self.files.list(path)]
        return found if detail else [each["name"] for each in found]

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        path = self._strip_protocol(path)
        if not start and end is None:
            return await self.files.read(path)
        size = self.files.stat(path)
        first, last, _ = slice(start, end).indices(size.size if size is not None else 0)
        return await self.files.read(path, first, max(0, last - first))

    async def _get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        with await asyncio.to_thread(open, lpath, "wb") as file:
            async for piece in self.files.stream(self._strip_protocol(rpath)):
                await asyncio.to_thread(file.write, piece)

    # --- changing: each call is one durable batch

    @property
    def _writable(self) -> Workspace:
        if not isinstance(self.files, Workspace):
            raise UsageError("these files are of the past and can only be read; write to the workspace itself")
        return self.files

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        path = self._strip_protocol(path)
        if mode == "create" and self.files.lstat(path) is not None:
            fail(errno.EEXIST, path)
        await self._writable.write(path, bytes(value), parents=True)

    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **options: Any) -> None:
        with await asyncio.to_thread(open, lpath, "rb") as file:
            await self._writable.write(self._strip_protocol(rpath), _pieces(file), parents=True)

    async def _cp_file(self, path1: str, path2: str, **options: Any) -> None:
        async with self._writable.transaction() as draft:
            target = self._strip_protocol(path2)
            await draft.mkdir(target.rpartition("/")[0] or "/", parents=True, exist_ok=True)
            await draft.copy(self._strip_protocol(path1), target)

    async def _rm_file(self, path: str, **options: Any) -> None:
        await self._writable.remove(self._strip_protocol(path))

    async def _rm(self, path: Any, recursive: bool = False, **options: Any) -> None:
        async with self._writable.transaction() as draft:
            for each in path if isinstance(path, list) else [path]:
                await draft.remove(self._strip_protocol(each), recursive=recursive)

    async def _mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        await self._writable.mkdir(self._strip_protocol(path), parents=create_parents)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        await self._writable.mkdir(self._strip_protocol(path), parents=True, exist_ok=exist_ok)

    async def _mv(self, path1: str, path2: str, **options: Any) -> None:
        await self._writable.rename(self._strip_protocol(path1), self._strip_protocol(path2))

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> None:
        """Files and directories alike, at once."""
        sync(self.loop, self._mv, path1, path2)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return _File(self, path, mode, cache_type="readahead", block_size=CHUNK_BYTES)


class _File(AbstractBufferedFile):  # type: ignore[misc]
    """Reads ranges; what is written is a file of the machine until it is closed, and then one change of the workspace."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.cat_file(self.path, start=start, end=end)
        return found

    def _initiate_upload(self) -> None:
        self._written = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the upload is

    def _upload_chunk(self, final: bool = False) -> bool:
        self._written.write(self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        self._written.seek(0)
        files = self.fs._writable
        write = files.append if "a" in self.mode else files.write
        sync(self.fs.loop, write, self.path, _pieces(self._written))
        self._written.close()

    def discard(self) -> None:
        self._written.close()


def _told(entry: Entry, path: str) -> dict[str, Any]:
    return {
        "name": path,
        "type": entry.kind,
        "size": entry.size if entry.is_file else 0,
        "mode": entry.mode,
        "mtime": entry.mtime,
    }


async def _pieces(file: Any) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield piece
