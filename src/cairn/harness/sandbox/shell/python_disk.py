"""The shell's files as Python's own functions have them: `open`, `os`, and what is built on these (pathlib, shutil, glob)."""

from __future__ import annotations

import builtins
import io
import os
import posixpath
import shutil
import stat as modes
import tokenize
from collections.abc import Callable, Iterator
from typing import Any

from .tree import DIRECTORY, LINK, FileError, Files, Node

LINKS_MAX = 40

#: Error kinds of the shell's file-system interface, as the system's numbers.
_ERRNO = {1: 2, 2: 17, 3: 30, 4: 22, 5: 21, 6: 20, 7: 39}


class Disk:
    """The shell's files as Python's functions need them: paths from a directory, links followed, errors with numbers."""

    def __init__(self, files: Files, cwd: str) -> None:
        self.files = files
        self.cwd = cwd

    def absolute(self, path: Any) -> str:
        text = os.fsdecode(path) if isinstance(path, bytes) else str(fspath(path))
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


def fspath(path: Any) -> Any:
    return path.__fspath__() if hasattr(path, "__fspath__") else path


class OpenFile(io.BytesIO):
    """An open file: what was written is the file's when it is flushed or closed."""

    def __init__(self, disk: Disk, path: Any, mode: str) -> None:
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


def replacements(disk: Disk) -> list[tuple[Any, str, Any]]:
    """Python's functions for files, over the shell's."""
    own = _Functions(disk)
    named = (
        "stat",
        "lstat",
        "listdir",
        "scandir",
        "mkdir",
        "remove",
        "rmdir",
        "rename",
        "readlink",
        "symlink",
        "chmod",
        "access",
    )
    found: list[tuple[Any, str, Any]] = [(os, name, getattr(own, name)) for name in (*named, "utime", "getcwd", "chdir")]
    found += [(os, "unlink", own.remove), (os, "replace", own.rename), (os, "listxattr", lambda *_, **__: [])]
    found += [(builtins, "open", own.open), (io, "open", own.open), (tokenize, "_builtin_open", own.open)]
    return [*found, (shutil, "_use_fd_functions", False)]


class _Functions:
    """Those functions; each as Python's own of its name."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def open(
        self,
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
        raw = OpenFile(self._disk, fspath(file), mode.replace("t", "").replace("U", "") or "r")
        if "b" in mode:
            return raw
        return io.TextIOWrapper(raw, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)

    def stat(self, path: Any, *, dir_fd: Any = None, follow_symlinks: bool = True) -> os.stat_result:
        return status_of(self._disk.get(path, follow=follow_symlinks))

    def lstat(self, path: Any, **_: Any) -> os.stat_result:
        return status_of(self._disk.get(path, follow=False))

    def listdir(self, path: Any = ".") -> list[str]:
        disk = self._disk
        return [name for name, _ in disk.do(path, lambda: disk.files.list(disk.at(path)))]

    def scandir(self, path: Any = ".") -> Scan:
        return Scan(self._disk, path)

    def mkdir(self, path: Any, mode: int = 0o777, **_: Any) -> None:
        disk = self._disk
        disk.do(path, lambda: disk.files.mkdir(disk.at(path, follow=False), False))

    def rename(self, old: Any, new: Any, **_: Any) -> None:
        disk = self._disk
        disk.do(old, lambda: disk.files.rename(disk.at(old, follow=False), disk.at(new, follow=False)))

    def remove(self, path: Any, **_: Any) -> None:
        if self._disk.get(path, follow=False).kind == DIRECTORY:
            raise IsADirectoryError(21, "Is a directory", str(path))
        self._remove(path)

    def rmdir(self, path: Any, **_: Any) -> None:
        if self._disk.get(path, follow=False).kind != DIRECTORY:
            raise NotADirectoryError(20, "Not a directory", str(path))
        self._remove(path)

    def _remove(self, path: Any) -> None:
        disk = self._disk
        disk.do(path, lambda: disk.files.remove(disk.at(path, follow=False), False))

    def chdir(self, path: Any) -> None:
        if self._disk.get(path).kind != DIRECTORY:
            raise NotADirectoryError(20, "Not a directory", str(path))
        self._disk.cwd = self._disk.at(path)

    def getcwd(self) -> str:
        return self._disk.cwd

    def utime(self, path: Any, times: Any = None, *, ns: Any = None, **_: Any) -> None:
        disk = self._disk
        when = float(times[1]) if times else ns[1] / 1e9 if ns else disk.files.now()
        disk.do(path, lambda: disk.files.set_time(disk.at(path), when))

    def readlink(self, path: Any, **_: Any) -> str:
        disk = self._disk
        target: str = disk.do(path, lambda: disk.files.read_link(disk.at(path, follow=False)))
        return target

    def symlink(self, target: Any, path: Any, *_: Any, **__: Any) -> None:
        disk = self._disk
        disk.do(path, lambda: disk.files.symlink(str(fspath(target)), disk.at(path, follow=False)))

    def chmod(self, path: Any, mode: int, **_: Any) -> None:
        disk = self._disk
        disk.do(path, lambda: disk.files.chmod(disk.at(path), mode))

    def access(self, path: Any, mode: int, **_: Any) -> bool:
        return self._disk.find(path) is not None


class Scan:
    """os.scandir."""

    def __init__(self, disk: Disk, path: Any) -> None:
        entries = disk.do(path, lambda: disk.files.list(disk.at(path)))
        self._entries = iter([ScanEntry(disk, posixpath.join(str(fspath(path)), name), name, node) for name, node in entries])

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[ScanEntry]:
        return self._entries

    def __next__(self) -> ScanEntry:
        return next(self._entries)

    def close(self) -> None:
        self._entries = iter(())


class ScanEntry:
    def __init__(self, disk: Disk, path: str, name: str, node: Node) -> None:
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
        return status_of(self._disk.get(self.path, follow=follow_symlinks))

    def inode(self) -> int:
        return id(self._node)

    def __fspath__(self) -> str:
        return self.path


def status_of(node: Node) -> os.stat_result:
    kind = {DIRECTORY: modes.S_IFDIR, LINK: modes.S_IFLNK}.get(node.kind, modes.S_IFREG)
    whole = (kind | node.mode, id(node) & 0xFFFFFFFF, 1, 1, 1000, 1000, node.size, *(int(node.mtime),) * 3)
    times = {f"st_{name}": node.mtime for name in ("atime", "mtime", "ctime")}
    return os.stat_result(whole, times | {f"{name}_ns": int(time * 1e9) for name, time in times.items()})
