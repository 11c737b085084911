"""What a command's own process gives up between fork and exec: its cgroup, its limits, its rights.

Laws. Runs in the forked child, before the first instruction of the command; whatever fails here, the command does not begin.
The order matters: what needs rights (cgroups, another user) comes first, what takes them away last. A request without
`confine` gives up nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
from typing import Any

from . import landlock

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

#: Capabilities are numbered from 0; the newest kernel has 41. Dropping one that does not exist is refused and means nothing.
_CAPABILITIES_MAX = 64

#: Where descriptors wait until they get the number the command expects: above anything a supervisor opens.
_ASIDE = 64


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def aside(descriptor: int) -> int:
    """The same file under a number that `place` never overwrites; closed at exec."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ASIDE)
    os.close(descriptor)
    return moved


def place(feeds: dict[str, str]) -> None:
    """Each value of `feeds`, in hexadecimal, can be read by the program from the descriptor that is its key."""
    for number, text in feeds.items():
        memory = os.memfd_create("feed", os.MFD_CLOEXEC)
        os.write(memory, bytes.fromhex(text))
        os.lseek(memory, 0, os.SEEK_SET)
        os.dup2(memory, int(number))
        os.close(memory)


def apply(wanted: dict[str, Any]) -> None:
    """This process is as confined as asked. *Raises* OSError naming what could not be done."""
    for path in wanted.get("cgroups", ()):
        with open(path, "wb", buffering=0) as members:
            members.write(b"0")
    place(wanted.get("feeds", {}))
    for name, value in wanted.get("limits", {}).items():
        _limit(getattr(resource, name), value)
    if wanted.get("no_capabilities"):
        _drop_capabilities()
    if wanted.get("landlock") or wanted.get("seccomp"):
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if wanted.get("landlock"):
        landlock.restrict(wanted["landlock"])
    if wanted.get("seccomp"):
        _filter(bytes.fromhex(wanted["seccomp"]))


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(_CAPABILITIES_MAX):
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # refused to whoever has no right to it, who has none to drop either
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _call("capset", header, nothing)


def _filter(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // 8, ctypes.addressof(code))
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
