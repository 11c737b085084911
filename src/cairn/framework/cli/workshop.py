"""One `cairn dev` per project: who has it, and where it is.

Laws. The project is had by whoever holds the kernel's lock on a file beside its store: a dead process holds none, however it
died. What is written in the file is for those who come second. It is opened once by its holder and never closed before the end:
closing any second descriptor of it would give the lock up.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Running:
    """The `cairn dev` that has the project."""

    url: str
    pid: int


class Workshop:
    """A project's place for one `cairn dev`."""

    def __init__(self, file: Path, *, create: bool = True) -> None:
        """*Raises* OSError when the file cannot be written, or is not there."""
        if create:
            file.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(file, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)

    def take(self) -> bool:
        """Whether it is ours from now on; somebody else has it otherwise."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        os.ftruncate(self._file, 0)
        return True

    def announce(self, url: str) -> None:
        """Whoever comes second finds us there."""
        said = json.dumps({"url": url, "pid": os.getpid()}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, said, 0)

    def running(self) -> Running | None:
        """What its holder said of itself; None when it has said nothing yet."""
        said: dict[str, Any]
        try:
            said = json.loads(os.pread(self._file, 65_536, 0))
            return Running(str(said["url"]), int(said["pid"]))
        except (ValueError, KeyError, TypeError):
            return None

    def wait(self) -> None:
        """Returns when its holder has ended."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def is_taken(self) -> bool:
        """Whether somebody has it. Asking takes a shared lock for a moment: two who ask are not each other's holder."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        return False

    def leave(self) -> None:
        """It is free."""
        os.close(self._file)


def beside(store: Path, root: Path) -> Path:
    """The file of the project in `root` with that store."""
    return root / ".cairn" / "dev" if store.name == ":memory:" else store.with_name(f"{store.name}.dev")


def running_at(file: Path) -> Running | None:
    """The live `cairn dev` that holds that file, if there is one."""
    try:
        workshop = Workshop(file, create=False)
    except OSError:
        return None
    try:
        return workshop.running() if workshop.is_taken() else None
    finally:
        workshop.leave()
