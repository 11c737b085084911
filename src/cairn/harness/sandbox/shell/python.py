"""`python3`: the interpreter this worker runs in, over the shell's files.

The library's own python3 is a small part of the language. This is CPython with what it needs of its standard library loaded in
advance, because no file of this machine can be opened once the worker is closed in. It runs in the worker itself, which is as
closed in for it as for a script, and which is thrown away after the command: `is_used` says so.

Laws. Whatever the code does, the command ends with an exit code. Files are the shell's: `open`, `os` and the import of modules
see nothing else. There are no processes, no sockets and no threads that outlive the code.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import linecache
import os
import posixpath
import runpy
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from .python_disk import Disk, replacements
from .python_modules import Finder
from .tree import DIRECTORY, Files

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
VERSION = f"Python {sys.version.split()[0]}"


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
        self._disk = Disk(files, cwd)
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


@contextlib.contextmanager
def _inside(disk: Disk, env: dict[str, str], argv: list[str], data: bytes, say: Say, complain: Say) -> Iterator[None]:
    """The interpreter sees the shell's files, its variables, and these arguments; afterwards everything is as before."""
    finder = Finder(disk)
    before = {name: getattr(sys, name) for name in ("argv", "path", "stdin", "stdout", "stderr", "meta_path", "executable")}
    modules, environ = dict(sys.modules), dict(os.environ)
    replaced = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements(disk)]
    output, errors = _text(say), _text(complain)
    try:
        sys.argv, sys.path, sys.executable = argv, [], "/usr/bin/python3"
        sys.stdin = io.TextIOWrapper(io.BytesIO(data), "utf-8")
        sys.stdout, sys.stderr = output, errors
        sys.meta_path = [each for each in sys.meta_path if each is not importlib.machinery.PathFinder] + [finder]
        os.environ.clear()
        os.environ.update(env)
        for owner, name, value in replacements(disk):
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
