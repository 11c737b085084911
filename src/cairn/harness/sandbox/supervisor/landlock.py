"""Landlock: a process gives up, for itself and all its children, every file but those named, and what else the kernel knows.

Laws. Pure system calls by number (they are the same on every architecture); no library. What a kernel does not know cannot be
asked of it, so the mask of each version is a table. Nothing here can be undone by the process that did it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

#: execute, read a file, read a directory: what a system directory is for.
READ = (1 << 0) | (1 << 2) | (1 << 3)
#: Rights over a file that is not a directory; the others may not be asked of one.
_OF_FILES = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15)

#: Version → the highest right over files it knows, as a count of bits: refer came with 2, truncate with 3, ioctl with 5.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}

#: bind and connect of TCP (version 4); abstract sockets and signals to outside (version 6).
_TCP = 0b11
_SCOPES = 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """The Landlock version of this kernel; 0 when it has none, or it is switched off."""
    try:
        return _system_call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(wanted: dict[str, Any]) -> None:
    """Only what is beneath `read` can be read and run, only what is beneath `write` changed; with `no_network`, no TCP.

    A path that does not exist is skipped: nothing can be reached there. *Raises* OSError where there is no Landlock.
    """
    known = version()
    rights = (1 << _FILE_RIGHTS[min(known, 5)]) - 1 if known else 0
    network = _TCP if known >= 4 and wanted.get("no_network") else 0
    scopes = _SCOPES if known >= 6 else 0
    ruleset = _Ruleset(rights, network, scopes)
    size = 8 if known < 4 else 16 if known < 6 else 24
    handle = _system_call(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    try:
        for path in wanted["read"]:
            _allow(handle, path, READ & rights)
        for path in wanted["write"]:
            _allow(handle, path, rights)
        _system_call(_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)


def _allow(handle: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = _Beneath(rights, parent)
        _system_call(_ADD_RULE, handle, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)


def _system_call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "landlock")
    return result
