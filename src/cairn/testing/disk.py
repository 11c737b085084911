"""A disk that can be cut off, and one that fails: SQLite's file layer (VFS) in Python, over real files.

Two uses. `RecordingDisk` writes down every write, truncation, sync and deletion while a scenario runs, and can then say what
the disk would hold had the power gone at any point: what was synced is there; of the rest each write was kept, dropped, or
torn at sectors. One run gives all cuts. `FailingDisk` makes the n-th operation fail, once or from then on.

Both give a `connect` for `SqliteStore(connect=…)`, so the store's own SQL and code run over them. Needs `apsw` (a test
dependency). The model of the disk is the pessimistic one of SQLite's own crash tests: unsynced writes of one file, and of
different files, reach it in any order or not at all.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import apsw

from cairn.runtime.storage.connection import STATEMENTS_CACHED, Connection, Parameters, SqlError

#: What a disk writes whole or not at all.
SECTOR_BYTES = 512

_names = itertools.count()


# --- a connection of the other driver -------------------------------------------------------------------------------


class ApswConnection:
    """A store's connection over apsw, through a VFS."""

    def __init__(self, path: str, vfs: str) -> None:
        try:
            self._db = apsw.Connection(path, vfs=vfs, statementcachesize=STATEMENTS_CACHED)
        except apsw.Error as error:
            raise _translated(error) from error

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        try:
            return list(self._db.execute(sql, parameters if isinstance(parameters, Mapping) else tuple(parameters)))
        except apsw.Error as error:
            raise _translated(error) from error

    def rows(self, sql: str, parameters: Parameters = ()) -> Generator[tuple[Any, ...], None, None]:
        yield from self.execute(sql, parameters)

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def close(self) -> None:
        try:
            self._db.close(True)
        except apsw.Error as error:
            raise _translated(error) from error


def _translated(error: apsw.Error) -> SqlError:
    code = getattr(error, "extendedresult", 0) or getattr(error, "result", 0) or 1
    return SqlError(f"{type(error).__name__}: {error}", code)


# --- recording ------------------------------------------------------------------------------------------------------

Kind = Literal["create", "write", "truncate", "sync", "delete", "name"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that SQLite asked of a file."""

    kind: Kind
    file: str
    offset: int = 0
    data: bytes = b""


@dataclass(slots=True)
class _File:
    durable: bytes | None
    """What a sync has made certain; None when not even the file is."""
    pending: list[Operation] = field(default_factory=list)


class RecordingDisk:
    """Real files under `folder`, and everything that was done to them. Files present at the start are durable."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.operations: list[Operation] = []
        self._start = _contents(folder)
        self._vfs = _RecordingVFS(self)

    def connect(self, path: str) -> Connection:
        return ApswConnection(path, self._vfs.name)

    def now(self) -> int:
        """The number of operations so far: the first cut after which what just returned must hold."""
        return len(self.operations)

    def sync_directory(self, directory: str) -> None:
        """To be called in place of the store's own: files that were created or deleted stay so."""
        for name in sorted({operation.file for operation in self.operations}):
            self.operations.append(Operation("name", name))

    def close(self) -> None:
        self._vfs.unregister()

    def images(self, cut: int, seeds: Sequence[int]) -> Iterator[tuple[str, dict[str, bytes]]]:
        """What the disk may hold when the power goes after `cut` operations, each with a name that repeats it."""
        files = self._at(cut)
        if not any(file.pending for file in files.values()):
            yield "synced", _images(files, None)
            return
        yield "kept", _images(files, _keep)
        yield "dropped", _images(files, None)
        for seed in seeds:
            yield f"torn {seed}", _images(files, random.Random(f"{cut}/{seed}"))

    def _at(self, cut: int) -> dict[str, _File]:
        files = {name: _File(content) for name, content in self._start.items()}
        for operation in self.operations[:cut]:
            file = files.setdefault(operation.file, _File(None))
            if operation.kind == "sync":
                file.durable = _applied(file.durable, file.pending, _keep)
                file.pending = []
            elif operation.kind == "name":
                _name(file)
            else:
                file.pending.append(operation)
        return files


def _name(file: _File) -> None:
    """The directory was synced: the name means what it means now, whatever of the content is certain."""
    for i, operation in reversed(list(enumerate(file.pending))):
        if operation.kind in ("create", "delete"):
            file.durable = None if operation.kind == "delete" else b""
            file.pending = file.pending[i + 1 :]
            return


class _Keep:
    """Decides like a disk that got everything."""


_keep = _Keep()
Fate = random.Random | _Keep | None


def _images(files: dict[str, _File], fate: Fate) -> dict[str, bytes]:
    found = {}
    for name, file in sorted(files.items()):
        content = _applied(file.durable, file.pending, fate)
        if content is not None:
            found[name] = content
    return found


def _applied(durable: bytes | None, pending: Sequence[Operation], fate: Fate) -> bytes | None:
    """A file's content after its unsynced operations met their fate: all kept, none, or each at random."""
    if fate is None or not pending:
        return durable
    content = None if durable is None else bytearray(durable)
    for operation in pending:
        if isinstance(fate, random.Random) and fate.random() < 1 / 3:
            if operation.kind in ("create", "delete"):
                break  # the name still means the old file, or none: what was done to the new one is nowhere
            continue
        if operation.kind == "delete":
            content = None
            continue
        if content is None:
            content = bytearray()
        if operation.kind == "truncate":
            _resize(content, operation.offset)
        elif operation.kind == "write":
            for offset, piece in _pieces(operation, fate):
                _resize(content, max(len(content), offset + len(piece)))
                content[offset : offset + len(piece)] = piece
    return None if content is None else bytes(content)


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _pieces(operation: Operation, fate: Fate) -> Iterator[tuple[int, bytes]]:
    """The parts of a write that arrive; half of all random writes are torn: some sectors missing, one perhaps garbage."""
    if not isinstance(fate, random.Random) or fate.random() < 0.5:
        yield operation.offset, operation.data
        return
    for start in range(0, len(operation.data), SECTOR_BYTES):
        piece = operation.data[start : start + SECTOR_BYTES]
        luck = fate.random()
        if luck < 0.5:
            yield operation.offset + start, piece
        elif luck < 0.65:
            yield operation.offset + start, fate.randbytes(len(piece))


def _contents(folder: str) -> dict[str, bytes]:
    found = {}
    for name in os.listdir(folder):
        if _is_data(name):
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = file.read()
    return found


def _is_data(name: str) -> bool:
    """Files of the database itself; the shared-memory index does not survive, locks and the reserve hold nothing."""
    return not name.endswith(("-shm", ".turn", ".wait", ".users", ".ballast"))


class _RecordingVFS(apsw.VFS):
    def __init__(self, disk: RecordingDisk) -> None:
        self.name = f"cairn-recording-{next(_names)}"
        self._disk = disk
        super().__init__(self.name, base="")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        exists = path is not None and os.path.exists(path)
        file = _RecordingFile(self._disk, path, name, flags)
        if path is not None and not exists:
            self._disk.operations.append(Operation("create", os.path.basename(path)))
        return file

    def xDelete(self, name: str, syncdir: bool) -> None:
        super().xDelete(name, syncdir)
        self._disk.operations.append(Operation("delete", os.path.basename(name)))
        if syncdir:
            self._disk.operations.append(Operation("sync", os.path.basename(name)))


class _RecordingFile(apsw.VFSFile):
    def __init__(self, disk: RecordingDisk, path: str | None, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._file = os.path.basename(path or "")
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._note(Operation("write", self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._note(Operation("truncate", self._file, newsize))

    def xSync(self, flags: int) -> None:
        self._note(Operation("sync", self._file))

    def _note(self, operation: Operation) -> None:
        if self._file:
            self._disk.operations.append(operation)


# --- failing --------------------------------------------------------------------------------------------------------

#: How an operation may fail, and which operations can fail so. `short` is a write of which half arrived. A read that comes
#: back short is no failure of its own here: SQLite's layer for Unix repeats it until there is an error or the end of the file.
FAILURES: dict[str, tuple[str, ...]] = {
    "eio": ("read", "write", "sync", "truncate"),
    "enospc": ("write", "truncate"),
    "short": ("write",),
}


class FailingDisk:
    """Real files, of whose operations the n-th fails: `eio`, `enospc` or `short`; once, or from then on.

    Operations that cannot fail that way are not counted. `fired` says whether it came to that.
    """

    def __init__(self, nth: int, failure: str, *, forever: bool) -> None:
        self.fired = False
        self._left = nth
        self._failure = failure
        self._forever = forever
        self._healed = False
        self._vfs = _FailingVFS(self)

    def connect(self, path: str) -> Connection:
        return ApswConnection(path, self._vfs.name)

    def heal(self) -> None:
        """Nothing fails any more."""
        self._healed = True

    def close(self) -> None:
        self._vfs.unregister()

    def fails(self, operation: str) -> str | None:
        """How this operation fails, if it does."""
        if self._healed or operation not in FAILURES[self._failure]:
            return None
        self._left -= 1
        if self._left > 0 or (self._left < 0 and not self._forever):
            return None
        self.fired = True
        return self._failure


class _FailingVFS(apsw.VFS):
    def __init__(self, disk: FailingDisk) -> None:
        self.name = f"cairn-failing-{next(_names)}"
        self._disk = disk
        super().__init__(self.name, base="")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _FailingFile(self._disk, name, flags)


class _FailingFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._disk.fails("read") is not None:
            raise _failed(apsw.SQLITE_IOERR_READ)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        failure = self._disk.fails("write")
        if failure == "enospc":
            raise _failed(apsw.SQLITE_FULL)
        if failure == "short":
            super().xWrite(data[: len(data) // 2], offset)
        if failure is not None:
            raise _failed(apsw.SQLITE_IOERR_WRITE)
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        failure = self._disk.fails("truncate")
        if failure is not None:
            raise _failed(apsw.SQLITE_FULL if failure == "enospc" else apsw.SQLITE_IOERR_TRUNCATE)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._disk.fails("sync") is not None:
            raise _failed(apsw.SQLITE_IOERR_FSYNC)


def _failed(code: int) -> apsw.Error:
    error: Any = apsw.FullError("the disk is full") if code == apsw.SQLITE_FULL else apsw.IOError("the disk failed")
    error.extendedresult = code
    return error  # type: ignore[no-any-return]
