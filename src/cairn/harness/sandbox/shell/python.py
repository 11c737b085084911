"""`python3`: the interpreter this worker runs in, over the shell's files.

The library's own python3 is a small part of the language. This is CPython with what it needs of its standard library loaded in
advance, because no file of this machine can be opened once the worker is closed in. It runs in the worker itself, which is as
closed in for it as for a script, and which is thrown away after the command: `is_used` says so.

Laws. Whatever the code does, the command ends with an exit code. Files are the shell's: `open`, `os` and the import of modules
see nothing else. There are no processes, no sockets and no threads that outlive the code.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import linecache
import os
import posixpath
import runpy
import shutil
import stat as modes
import sys
import threading
import tokenize
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from .tree import DIRECTORY, LINK, FileError, Files, Node

#: Loaded before the worker is closed in: what scripts and their tests import.
LIBRARY = (
    "abc", "argparse", "array", "ast", "base64", "bisect", "calendar", "cmath", "collections.abc", "colorsys",
    "configparser", "contextlib", "copy", "csv", "ctypes", "dataclasses", "datetime", "decimal", "difflib", "dis",
    "doctest", "enum", "fnmatch", "fractions", "functools", "getopt", "getpass", "glob", "graphlib", "hashlib", "heapq",
    "hmac", "html", "html.parser", "inspect", "ipaddress", "itertools", "json", "keyword", "locale", "logging", "math",
    "numbers", "operator", "optparse", "pathlib", "pickle", "platform", "pprint", "queue", "random", "re", "reprlib",
    "runpy", "secrets", "shlex", "shutil", "signal", "statistics", "string", "struct", "subprocess", "tempfile", "textwrap",
    "threading", "time", "timeit", "token", "tokenize", "traceback", "types", "typing", "unicodedata", "unittest",
    "unittest.mock", "unittest.main", "urllib.parse", "uuid", "warnings", "weakref", "xml.etree.ElementTree", "zipfile",
    "zlib", "zoneinfo", "encodings.idna", "encodings.latin_1", "encodings.ascii", "encodings.utf_16", "encodings.cp1252",
    "asyncio", "concurrent.futures.thread", "unittest.async_case", "json.tool",
)  # fmt: skip

HOME = "/workspace"
LINKS_MAX = 40
VERSION = f"Python {sys.version.split()[0]}"

_ERRNO = {1: 2, 2: 17, 3: 30, 4: 22, 5: 21, 6: 20, 7: 39}


#: Modules of the library that are run: `python3 -m NAME`, by what is executed.
RUN = {
    "unittest": "unittest.__main__",
    "json.tool": "json.tool",
    "timeit": "timeit",
    "calendar": "calendar",
    "doctest": "doctest",
}

#: Where a machine has its library, as far as a script is told.
SHOWN_LIBRARY = f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"

_codes: dict[str, Any] = {}
_running = threading.Lock()


def load_library() -> None:
    """What code may import is loaded; what this interpreter does not have is left out."""
    for name in LIBRARY:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    for name, module in RUN.items():
        loader = getattr(importlib.util.find_spec(module), "loader", None)
        if loader is not None:
            _codes[name] = loader.get_code(module)


Say = Callable[[bytes], None]


class Interpreter:
    """Runs code over the files of a command. `say` takes what it prints, from any thread."""

    def __init__(self, files: Files, cwd: str, env: dict[str, str], say: Say, complain: Say) -> None:
        self._disk = _Disk(files, cwd)
        self._env = {name: value for name, value in env.items() if not name.startswith("BASHKIT_")}
        self._say = say
        self._complain = complain

    def run(self, argv: Sequence[str], data: bytes) -> int:
        """The exit code of `python3 ARGV` with this standard input. One at a time: an interpreter has one stdout."""
        with _running:
            return self._run(argv, data)

    def _run(self, argv: Sequence[str], data: bytes) -> int:
        options = iter(argv)
        for option in options:
            if option in ("-V", "--version"):
                self._say(f"{VERSION}\n".encode())
                return 0
            if option == "-c":
                return self._guarded(partial(self._exec, next(options, ""), "<string>"), ["-c", *options], data)
            if option == "-m":
                name = next(options, "")
                return self._guarded(partial(self._module, name), [name, *options], data)
            if option in ("-W", "-X"):
                next(options, "")
            elif option == "-" or not option.startswith("-"):
                if option == "-":
                    return self._guarded(partial(self._exec, data.decode(), "<stdin>"), ["-", *options], b"")
                return self._guarded(partial(self._file, option), [option, *options], data)
        return self._guarded(partial(self._exec, data.decode(), "<stdin>"), [""], b"")

    def _exec(self, text: str, name: str) -> None:
        sys.path.insert(0, "")
        _execute(text, name, None if name.startswith("<") else name)

    def _file(self, path: str) -> None:
        whole = self._disk.absolute(path)
        node = self._disk.find(whole)
        if node is None:
            sys.stderr.write(f"python3: can't open file '{whole}': [Errno 2] No such file or directory\n")
            raise SystemExit(2)
        if node.kind == DIRECTORY:
            sys.path.insert(0, whole)
            self._module("__main__")
            return
        sys.path.insert(0, posixpath.dirname(self._disk.real(whole)))
        _execute(self._disk.read(whole).decode(), path, path)

    def _module(self, name: str) -> None:
        sys.path.insert(0, self._disk.cwd)
        if name in _codes:
            sys.argv[0] = f"python3 -m {name}"
            module = sys.modules["__main__"] = types.ModuleType("__main__")
            module.__package__ = RUN[name].rpartition(".")[0]
            exec(_codes[name], module.__dict__)
            return
        runpy.run_module(name, run_name="__main__", alter_sys=True)

    def _guarded(self, work: Callable[[], None], argv: list[str], data: bytes) -> int:
        with _inside(self._disk, self._env, argv, data, self._say, self._complain):
            try:
                work()
            except SystemExit as ended:
                return _code(ended.code)
            except KeyboardInterrupt:
                return 130
            except BaseException as error:  # whatever it is, it is the code's
                _show(error)
                return 1
            finally:
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(ValueError):  # closed by the code
                        stream.flush()
        return 0


def _execute(text: str, name: str, path: str | None) -> None:
    module = types.ModuleType("__main__")
    if path is not None:
        module.__file__ = path
    sys.modules["__main__"] = module
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), module.__dict__)


def _code(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF
    sys.stderr.write(f"{value}\n")
    return 1


def _show(error: BaseException) -> None:
    """A traceback without our own frames."""
    own = posixpath.dirname(__file__)
    library = posixpath.dirname(os.__file__)
    found = traceback.TracebackException.from_exception(error)
    kept = [each for each in found.stack if not each.filename.startswith((own, "<frozen", f"{library}/runpy.py"))]
    for each in kept:
        each.filename = each.filename.replace(library, SHOWN_LIBRARY)
    found.stack = traceback.StackSummary.from_list(kept)
    sys.stderr.write("".join(found.format()))


class _Disk:
    """The shell's files as Python's functions need them: paths from a directory, links followed, errors with numbers."""

    def __init__(self, files: Files, cwd: str) -> None:
        self.files = files
        self.cwd = cwd

    def absolute(self, path: Any) -> str:
        text = os.fsdecode(path) if isinstance(path, bytes) else str(_fspath(path))
        return posixpath.normpath(posixpath.join(self.cwd, text))

    def real(self, path: str, *, last: bool = True) -> str:
        """Links followed; of the last name too, or not."""
        ahead, done, links = [part for part in path.split("/") if part][::-1], "", 0
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            here = f"{done}/{part}"
            node = self._at(here) if ahead or last else None
            if node is not None and node.kind == LINK:
                links += 1
                if links > LINKS_MAX:
                    raise OSError(40, "Too many levels of symbolic links", path)
                done = "" if node.target.startswith("/") else done
                ahead += node.target.split("/")[::-1]
            else:
                done = here
        return done or "/"

    def _at(self, path: str) -> Node | None:
        with self.files.lock:
            try:
                return self.files.stat(path)
            except FileError:
                return None

    def find(self, path: Any, *, follow: bool = True) -> Node | None:
        return self._at(self.real(self.absolute(path), last=follow))

    def get(self, path: Any, *, follow: bool = True) -> Node:
        node = self.find(path, follow=follow)
        if node is None:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return node

    def read(self, path: Any) -> bytes:
        data: bytes = self.do(path, lambda: self.files.read(self.real(self.absolute(path))))
        return data

    def do(self, path: Any, work: Callable[[], Any]) -> Any:
        with self.files.lock:
            try:
                return work()
            except FileError as error:
                raise OSError(_ERRNO.get(error.kind, 5), str(error), str(path)) from None

    def at(self, path: Any, *, follow: bool = True) -> str:
        return self.real(self.absolute(path), last=follow)


def _fspath(path: Any) -> Any:
    return path.__fspath__() if hasattr(path, "__fspath__") else path


class _File(io.BytesIO):
    """An open file: what was written is the file's when it is flushed or closed."""

    def __init__(self, disk: _Disk, path: Any, mode: str) -> None:
        self._disk, self._path, self._mode = disk, disk.at(path), mode
        self.name = path
        node = disk.find(path)
        if node is not None and node.kind == DIRECTORY:
            raise IsADirectoryError(21, "Is a directory", str(path))
        if "x" in mode and node is not None:
            raise FileExistsError(17, "File exists", str(path))
        if node is None and "r" in mode:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        super().__init__(b"" if node is None or "w" in mode else disk.read(path))
        self._is_changed = node is None or "w" in mode
        if "a" in mode:
            self.seek(0, 2)
        self.flush()

    def writable(self) -> bool:
        return self._mode.strip("bt") != "r"

    def readable(self) -> bool:
        return "r" in self._mode or "+" in self._mode

    def write(self, data: Any) -> int:
        if not self.writable():
            raise io.UnsupportedOperation("not writable")
        if "a" in self._mode:
            self.seek(0, 2)
        self._is_changed = True
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self._is_changed = True
        return super().truncate(size)

    def flush(self) -> None:
        if self._is_changed and not self.closed:
            self._disk.do(self._path, lambda: self._disk.files.write(self._path, self.getvalue()))
            self._is_changed = False

    def close(self) -> None:
        if not self.closed:
            self.flush()
        super().close()

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


class _Output(io.RawIOBase):
    def __init__(self, say: Callable[[bytes], None]) -> None:
        self._say = say

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._say(bytes(data))
        return len(data)


def _text(say: Say) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(_Output(say)), "utf-8", "backslashreplace", line_buffering=True)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of the shell's files."""

    def __init__(self, disk: _Disk) -> None:
        self._disk = disk
        self.loaded: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        tail = name.rpartition(".")[2]
        places: list[str] = []
        for folder in sys.path if path is None else path:
            top = posixpath.join(self._disk.absolute(folder or "."), tail)
            for file, is_package in ((f"{top}/__init__.py", True), (f"{top}.py", False)):
                node = self._disk.find(file)
                if node is not None and node.kind not in (DIRECTORY, LINK):
                    spec = importlib.util.spec_from_loader(name, self, origin=file, is_package=is_package)
                    assert spec is not None
                    spec.has_location = True
                    if is_package:
                        spec.submodule_search_locations = [top]
                    return spec
            node = self._disk.find(top)
            if node is not None and node.kind == DIRECTORY:
                places.append(top)
        if places:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = places
            return spec
        return None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(self.get_code(module.__name__, module.__spec__.origin), module.__dict__)

    def get_code(self, name: str, origin: str = "") -> Any:
        origin = (
            origin or self.find_spec(name, None if "." not in name else sys.modules[name.rpartition(".")[0]].__path__).origin
        )
        text = self._disk.read(origin).decode()
        linecache.cache[origin] = (len(text), None, text.splitlines(keepends=True), origin)
        return compile(text, origin, "exec")

    def get_source(self, name: str) -> str:
        return self._disk.read(sys.modules[name].__spec__.origin).decode()  # type: ignore[union-attr]

    def is_package(self, name: str) -> bool:
        return bool(getattr(sys.modules.get(name), "__path__", None))


@contextlib.contextmanager
def _inside(disk: _Disk, env: dict[str, str], argv: list[str], data: bytes, say: Say, complain: Say) -> Iterator[None]:
    """The interpreter sees the shell's files, its variables, and these arguments; afterwards everything is as before."""
    finder = _Finder(disk)
    before = {name: getattr(sys, name) for name in ("argv", "path", "stdin", "stdout", "stderr", "meta_path", "executable")}
    modules, environ = dict(sys.modules), dict(os.environ)
    replaced = [(owner, name, getattr(owner, name)) for owner, name, _ in _replacements(disk)]
    output, errors = _text(say), _text(complain)
    try:
        sys.argv, sys.path, sys.executable = argv, [], "/usr/bin/python3"
        sys.stdin = io.TextIOWrapper(io.BytesIO(data), "utf-8")
        sys.stdout, sys.stderr = output, errors
        sys.meta_path = [each for each in sys.meta_path if each is not importlib.machinery.PathFinder] + [finder]
        os.environ.clear()
        os.environ.update(env)
        for owner, name, value in _replacements(disk):
            setattr(owner, name, value)
        yield
    finally:
        with contextlib.suppress(ValueError):  # closed by the code
            output.flush()
        for owner, name, value in replaced:
            setattr(owner, name, value)
        for name, value in before.items():
            setattr(sys, name, value)
        for name in set(sys.modules) - set(modules):
            del sys.modules[name]
        sys.modules.update(modules)
        os.environ.clear()
        os.environ.update(environ)
        linecache.clearcache()


def _replacements(disk: _Disk) -> list[tuple[Any, str, Any]]:
    """Python's functions for files, over the shell's."""

    def open_(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: Any = None,
        errors: Any = None,
        newline: Any = None,
        *_: Any,
        **__: Any,
    ) -> Any:
        if isinstance(file, int):
            raise OSError(9, "Bad file descriptor")
        raw = _File(disk, _fspath(file), mode.replace("t", "").replace("U", "") or "r")
        return (
            raw if "b" in mode else io.TextIOWrapper(raw, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)
        )

    def status(path: Any, *, dir_fd: Any = None, follow_symlinks: bool = True) -> os.stat_result:
        return _status(disk.get(path, follow=follow_symlinks))

    def listdir(path: Any = ".") -> list[str]:
        return [name for name, _ in disk.do(path, lambda: disk.files.list(disk.at(path)))]

    def rename(old: Any, new: Any, **_: Any) -> None:
        disk.do(old, lambda: disk.files.rename(disk.at(old, follow=False), disk.at(new, follow=False)))

    def remove(path: Any, **_: Any) -> None:
        if disk.get(path, follow=False).kind == DIRECTORY:
            raise IsADirectoryError(21, "Is a directory", str(path))
        disk.do(path, lambda: disk.files.remove(disk.at(path, follow=False), False))

    def rmdir(path: Any, **_: Any) -> None:
        if disk.get(path, follow=False).kind != DIRECTORY:
            raise NotADirectoryError(20, "Not a directory", str(path))
        disk.do(path, lambda: disk.files.remove(disk.at(path, follow=False), False))

    def chdir(path: Any) -> None:
        if disk.get(path).kind != DIRECTORY:
            raise NotADirectoryError(20, "Not a directory", str(path))
        disk.cwd = disk.at(path)

    def utime(path: Any, times: Any = None, *, ns: Any = None, **_: Any) -> None:
        when = float(times[1]) if times else ns[1] / 1e9 if ns else disk.files.now()
        disk.do(path, lambda: disk.files.set_time(disk.at(path), when))

    def readlink(path: Any, **_: Any) -> str:
        return disk.do(path, lambda: disk.files.read_link(disk.at(path, follow=False)))  # type: ignore[no-any-return]

    return [
        (builtins, "open", open_),
        (io, "open", open_),
        (tokenize, "_builtin_open", open_),
        (os, "stat", status),
        (os, "lstat", lambda path, **_: status(path, follow_symlinks=False)),
        (os, "listdir", listdir),
        (os, "scandir", lambda path=".": _Scan(disk, path)),
        (
            os,
            "mkdir",
            lambda path, mode=0o777, **_: disk.do(path, lambda: disk.files.mkdir(disk.at(path, follow=False), False)),
        ),
        (os, "remove", remove),
        (os, "unlink", remove),
        (os, "rmdir", rmdir),
        (os, "rename", rename),
        (os, "replace", rename),
        (os, "readlink", readlink),
        (
            os,
            "symlink",
            lambda target, path, *_, **__: disk.do(path, lambda: disk.files.symlink(str(target), disk.at(path, follow=False))),
        ),
        (os, "chmod", lambda path, mode, **_: disk.do(path, lambda: disk.files.chmod(disk.at(path), mode))),
        (os, "access", lambda path, mode, **_: disk.find(path) is not None),
        (os, "utime", utime),
        (shutil, "_use_fd_functions", False),
        (os, "listxattr", lambda *_, **__: []),
        (os, "getcwd", lambda: disk.cwd),
        (os, "chdir", chdir),
    ]


class _Scan:
    """os.scandir."""

    def __init__(self, disk: _Disk, path: Any) -> None:
        entries = disk.do(path, lambda: disk.files.list(disk.at(path)))
        self._entries = iter([_Entry(disk, posixpath.join(str(_fspath(path)), name), name, node) for name, node in entries])

    def __enter__(self) -> _Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[_Entry]:
        return self._entries

    def __next__(self) -> _Entry:
        return next(self._entries)

    def close(self) -> None:
        self._entries = iter(())


class _Entry:
    def __init__(self, disk: _Disk, path: str, name: str, node: Node) -> None:
        self._disk, self.path, self.name, self._node = disk, path, name, node

    def _seen(self, follow: bool) -> Node | None:
        return self._disk.find(self.path) if follow and self._node.kind == LINK else self._node

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        node = self._seen(follow_symlinks)
        return node is not None and node.kind == DIRECTORY

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        node = self._seen(follow_symlinks)
        return node is not None and node.kind not in (DIRECTORY, LINK)

    def is_symlink(self) -> bool:
        return self._node.kind == LINK

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return _status(self._disk.get(self.path, follow=follow_symlinks))

    def inode(self) -> int:
        return id(self._node)

    def __fspath__(self) -> str:
        return self.path


def _status(node: Node) -> os.stat_result:
    kind = {DIRECTORY: modes.S_IFDIR, LINK: modes.S_IFLNK}.get(node.kind, modes.S_IFREG)
    whole = (kind | node.mode, id(node) & 0xFFFFFFFF, 1, 1, 1000, 1000, node.size, *(int(node.mtime),) * 3)
    times = {f"st_{name}": node.mtime for name in ("atime", "mtime", "ctime")}
    return os.stat_result(whole, times | {f"{name}_ns": int(time * 1e9) for name, time in times.items()})
