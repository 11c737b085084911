"""A control group for a sandbox's commands, version 1 or 2, where this process may make one: memory, number, processor.

Laws. A group is made below the worker's own, or beside it, never anywhere else, and only counts as one when the kernel took its
limits. Its name holds the pid of the worker, so that the next worker of this host removes what a dead one left.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cairn.harness.sandbox.supervisor import processes

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "cairn-"

#: What processors are shared out by: microseconds of each period, as both versions have it by default.
_PERIOD_MICROSECONDS = 100_000

_numbers = itertools.count()


class Group:
    """A group that exists and limits. `members` are the files that a process joins by writing to."""

    def __init__(self, directories: list[Path]) -> None:
        self._directories = directories
        self.members = [str(directory / "cgroup.procs") for directory in directories]

    def was_out_of_memory(self) -> bool:
        """Whether the kernel has killed one of its processes for memory. Once told, it is told until the group ends."""
        for directory in self._directories:
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError, ValueError):
                    fields = dict(line.split() for line in (directory / name).read_text().splitlines())
                    if int(fields.get("oom_kill", 0)) > 0:
                        return True
        return False

    def close(self) -> None:
        """It is gone, if nothing lives in it. Idempotent."""
        for directory in self._directories:
            with suppress(OSError):
                (directory / "cgroup.kill").write_text("1")
            with suppress(OSError):
                directory.rmdir()


def make(memory_bytes: int | None, processes_max: int | None, cpus: float | None) -> Group | None:
    """A group with these limits, or None where this process may not make one that keeps them."""
    own = _own()
    if own is None:
        return None
    quota = None if cpus is None else int(cpus * _PERIOD_MICROSECONDS)
    name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
    if "memory" in own:
        limits = {"memory": ("memory.limit_in_bytes", memory_bytes), "pids": ("pids.max", processes_max)}
        limits["cpu"] = ("cpu.cfs_quota_us", quota)
        return _version_1(own, name, {controller: limit for controller, limit in limits.items() if limit[1] is not None})
    wanted = {"memory.max": memory_bytes, "pids.max": processes_max}
    texts = {file: str(value) for file, value in wanted.items() if value is not None}
    if quota is not None:
        texts["cpu.max"] = f"{quota} {_PERIOD_MICROSECONDS}"
    return _version_2(own.get("", "/"), name, texts)


def _own() -> dict[str, str] | None:
    """Controller → the path of this process's group; version 2 is the controller without a name."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    rows = [line.split(":", 2) for line in lines]
    return {controller: path for _, controllers, path in rows for controller in controllers.split(",")}


def _version_1(own: Mapping[str, str], name: str, limits: Mapping[str, tuple[str, object]]) -> Group | None:
    made: list[Path] = []
    for controller, (file, value) in limits.items():
        parent = _below(_ROOT / controller, own.get(controller, "/"))
        directory = _made(parent, name, {file: str(value)})
        if directory is None:
            Group(made).close()
            return None
        made.append(directory)
    return Group(made) if made else None


def _version_2(own: str, name: str, texts: Mapping[str, str]) -> Group | None:
    """Below our own group, which the kernel allows only where that holds no process itself; else beside it."""
    root = _ROOT / "unified" if (_ROOT / "unified").is_dir() else _ROOT
    here = _below(root, own)
    for parent in dict.fromkeys((here, here.parent if here != root else here)):
        directory = _made(parent, name, texts)
        if directory is not None:
            with suppress(OSError):
                (directory / "memory.swap.max").write_text("0")
            return Group([directory])
    return None


def _below(root: Path, path: str) -> Path:
    """Where the group is mounted here: in a container the path may be the host's, and the root our own group."""
    found = root / path.lstrip("/")
    return found if found.is_dir() else root


def _made(parent: Path, name: str, texts: Mapping[str, str]) -> Path | None:
    _sweep(parent)
    directory = parent / name
    try:
        directory.mkdir()
    except OSError:
        return None
    try:
        for file, text in texts.items():
            with open(directory / file, "r+") as limit:  # the file is the kernel's: where it is missing, so is the controller
                limit.write(text)
    except OSError:
        with suppress(OSError):
            directory.rmdir()
        return None
    return directory


def _sweep(parent: Path) -> None:
    """Groups of workers that are dead, and whose commands therefore are too."""
    with suppress(OSError):
        for directory in parent.glob(f"{_PREFIX}*"):
            pid = directory.name.removeprefix(_PREFIX).split("-")[0]
            if pid.isdigit() and processes.lookup(int(pid)) is None:
                with suppress(OSError):  # the kernel refuses while something lives in it
                    directory.rmdir()
