"""The shell's file-system interface (`bashkit.FileSystem.v1`, a table of C functions), answered by `Files`.

Laws. Every function returns, whatever is raised in it: an exception must not cross into C. Memory that is handed over is the C
library's, and is given back through the table's own functions. One lock around everything: the shell calls from several
threads. What is here is never freed: the process is thrown away instead.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable
from typing import Any

from .tree import OTHER, FileError, Files, Node

_Pointer = c.c_void_p
_Status = c.c_uint32


class _Text(c.Structure):
    """Bytes that are the caller's."""

    _fields_ = [("data", _Pointer), ("size", c.c_size_t)]


class _Bytes(c.Structure):
    """Bytes that are handed over."""

    _fields_ = [("data", _Pointer), ("size", c.c_size_t)]


class _Error(c.Structure):
    _fields_ = [("kind", c.c_uint32), ("message", _Bytes)]


class _Metadata(c.Structure):
    _fields_ = [
        ("kind", c.c_uint8),
        ("reserved", c.c_uint8 * 7),
        ("size", c.c_uint64),
        ("mode", c.c_uint32),
        ("modified", c.c_int64),
        ("modified_nanoseconds", c.c_uint32),
        ("created", c.c_int64),
        ("created_nanoseconds", c.c_uint32),
    ]


class _Entry(c.Structure):
    _fields_ = [("name", _Bytes), ("metadata", _Metadata)]


class _Entries(c.Structure):
    _fields_ = [("data", _Pointer), ("count", c.c_size_t)]


def _function(*arguments: Any) -> Any:
    return c.CFUNCTYPE(_Status, _Pointer, *arguments, c.POINTER(_Error))


#: The table, in its order.
_TABLE: dict[str, Any] = {
    "read_file": _function(_Text, c.POINTER(_Bytes)),
    "write_file": _function(_Text, _Text),
    "append_file": _function(_Text, _Text),
    "mkdir": _function(_Text, c.c_bool),
    "remove": _function(_Text, c.c_bool),
    "stat": _function(_Text, c.POINTER(_Metadata)),
    "read_dir": _function(_Text, c.POINTER(_Entries)),
    "exists": _function(_Text, c.POINTER(c.c_bool)),
    "rename": _function(_Text, _Text),
    "copy": _function(_Text, _Text),
    "symlink": _function(_Text, _Text),
    "read_link": _function(_Text, c.POINTER(_Bytes)),
    "chmod": _function(_Text, c.c_uint32),
    "free_bytes": c.CFUNCTYPE(None, _Pointer, _Bytes),
    "free_dir_entries": c.CFUNCTYPE(None, _Pointer, _Entries),
}


class _Table(c.Structure):
    _fields_ = list(_TABLE.items())


_Count = c.CFUNCTYPE(None, _Pointer)


class _Handle(c.Structure):
    _fields_ = [
        ("version", c.c_uint32),
        ("reserved", c.c_uint32),
        ("instance", _Pointer),
        ("retain", _Count),
        ("release", _Count),
        ("table", c.POINTER(_Table)),
    ]


_CAPSULE = b"bashkit.FileSystem.v1"
_VERSION = 1

_libc = c.CDLL(None)
_libc.malloc.restype, _libc.malloc.argtypes = _Pointer, [c.c_size_t]
_libc.free.argtypes = [_Pointer]


class Bridge:
    """One file system for the shell, whose `files` may be exchanged between commands."""

    def __init__(self) -> None:
        self.files: Files | None = None
        functions = {
            "read_file": lambda path, out: _hand_over(out[0], self.current.read(path)),
            "write_file": lambda path, data: self.current.write(path, data),
            "append_file": lambda path, data: self.current.append(path, data),
            "mkdir": lambda path, recursive: self.current.mkdir(path, recursive),
            "remove": lambda path, recursive: self.current.remove(path, recursive),
            "stat": lambda path, out: _describe(self.current.stat(path), out[0]),
            "read_dir": lambda path, out: _hand_over_entries(out[0], self.current.list(path)),
            "exists": lambda path, out: out.__setitem__(0, self.current.exists(path)),
            "rename": lambda old, new: self.current.rename(old, new),
            "copy": lambda old, new: self.current.copy(old, new),
            "symlink": lambda target, path: self.current.symlink(target, path),
            "read_link": lambda path, out: _hand_over(out[0], self.current.read_link(path).encode()),
            "chmod": lambda path, mode: self.current.chmod(path, mode),
        }
        contents = {"write_file", "append_file"}
        made = {name: _TABLE[name](self._guarded(work, name in contents)) for name, work in functions.items()}
        made["free_bytes"] = _TABLE["free_bytes"](lambda _, data: _free(data))
        made["free_dir_entries"] = _TABLE["free_dir_entries"](lambda _, entries: _free_entries(entries))
        self._table = _Table(**made)
        nothing = _Count(lambda _: None)
        self._handle = _Handle(_VERSION, 0, 1, nothing, nothing, c.pointer(self._table))
        self._made = made, nothing

    @property
    def current(self) -> Files:
        """The files of the command that runs."""
        if self.files is None:
            raise FileError(OTHER, "no command is running")
        return self.files

    def capsule(self) -> Any:
        """What `bashkit.FileSystem.from_capsule` takes."""
        new = c.pythonapi.PyCapsule_New
        new.restype, new.argtypes = c.py_object, [_Pointer, c.c_char_p, _Pointer]
        return new(c.addressof(self._handle), _CAPSULE, None)

    def _guarded(self, work: Callable[..., Any], has_content: bool) -> Callable[..., int]:
        def call(_: Any, *arguments: Any) -> int:
            *given, error = arguments
            try:
                taken = [_taken(each) if isinstance(each, _Text) else each for each in given]
                if has_content:
                    taken = [taken[0].decode(), taken[1]]
                else:
                    taken = [each.decode() if isinstance(each, bytes) else each for each in taken]
                with self.current.lock:
                    work(*taken)
            except FileError as problem:
                _complain(error[0], problem.kind, str(problem))
            except BaseException as problem:  # nothing may pass: there is C below
                _complain(error[0], OTHER, f"{type(problem).__name__}: {problem}")
            else:
                return 0
            return 1

        return call


def _taken(text: _Text) -> bytes:
    return c.string_at(text.data, text.size) if text.size else b""


def _hand_over(out: _Bytes, data: bytes) -> None:
    out.data, out.size = None, 0
    if data:
        place = _libc.malloc(len(data))
        if not place:
            raise MemoryError
        c.memmove(place, data, len(data))
        out.data, out.size = place, len(data)


def _describe(node: Node, out: _Metadata) -> None:
    c.memset(c.addressof(out), 0, c.sizeof(out))
    whole = int(node.mtime)
    out.kind, out.size, out.mode = node.kind, node.size, node.mode
    out.modified = out.created = whole
    out.modified_nanoseconds = out.created_nanoseconds = int((node.mtime - whole) * 1e9) if node.mtime >= 0 else 0


def _hand_over_entries(out: _Entries, entries: list[tuple[str, Node]]) -> None:
    out.data, out.count = None, 0
    if not entries:
        return
    place = _libc.malloc(len(entries) * c.sizeof(_Entry))
    if not place:
        raise MemoryError
    c.memset(place, 0, len(entries) * c.sizeof(_Entry))
    array = c.cast(place, c.POINTER(_Entry))
    for index, (name, node) in enumerate(entries):
        _hand_over(array[index].name, name.encode())
        _describe(node, array[index].metadata)
    out.data, out.count = place, len(entries)


def _complain(out: _Error, kind: int, text: str) -> None:
    out.kind = kind
    _hand_over(out.message, text.encode("utf-8", "replace"))


def _free(data: _Bytes) -> None:
    if data.data:
        _libc.free(data.data)


def _free_entries(entries: _Entries) -> None:
    if not entries.data:
        return
    array = c.cast(entries.data, c.POINTER(_Entry))
    for index in range(entries.count):
        if array[index].name.data:
            _libc.free(array[index].name.data)
    _libc.free(entries.data)
