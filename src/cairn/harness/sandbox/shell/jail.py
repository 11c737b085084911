"""What a shell worker gives up before it runs the first script: files, network, other processes, and most of the kernel.

Laws. Nothing given up can be had back. Everything is asked for, and what the system does not offer is left out and said; the
host decides whether what holds is enough. Called before any other thread exists: threads that exist already would keep their
rights.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys

#: Memory that a command may fill: its files, its variables and what it prints. Beyond, the worker dies and the command with it.
MEMORY_BYTES_MAX = 1024 * 1024 * 1024
#: Address space: the library, and 2 MB of stack for each of its threads.
ADDRESS_BYTES_MAX = 8 * 1024 * 1024 * 1024
#: The socket, and what an event loop and the library's runtimes keep.
DESCRIPTORS_MAX = 64

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_NEW_USER, _NEW_NET, _NEW_IPC, _NEW_UTS = 0x10000000, 0x40000000, 0x08000000, 0x04000000

_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
#: Rights over files that each version of Landlock knows, as the number of bits.
_LANDLOCK_FILE_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
_LANDLOCK_FILE_BITS_NEWEST = 16

_ALLOW, _REFUSE, _MISSING = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38
_FILTER_ALL_THREADS = 1

#: The calls that stay allowed, by machine: memory, threads, clocks, and what is open already.
_CALLS: dict[str, tuple[int, int, dict[str, int]]] = {
    # machine: (the kernel's name for it, number of seccomp(2), numbers)
    "x86_64": (
        0xC000003E,
        317,
        {
            "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
            "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16, "readv": 19, "writev": 20,
            "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "sendto": 44, "recvfrom": 45,
            "sendmsg": 46, "recvmsg": 47, "shutdown": 48, "socketpair": 53, "clone": 56, "exit": 60, "uname": 63, "fcntl": 72,
            "gettimeofday": 96, "getrusage": 98, "sysinfo": 99, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
            "getppid": 110, "sigaltstack": 131, "gettid": 186, "futex": 202, "sched_getaffinity": 204, "set_tid_address": 218,
            "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232,
            "epoll_ctl": 233, "tgkill": 234, "set_robust_list": 273, "epoll_pwait": 281, "eventfd2": 290, "epoll_create1": 291,
            "pipe2": 293, "prlimit64": 302, "getrandom": 318, "membarrier": 324, "rseq": 334, "epoll_pwait2": 441,
        },
    ),
    "aarch64": (
        0xC00000B7,
        277,
        {
            "read": 63, "write": 64, "close": 57, "fstat": 80, "ppoll": 73, "lseek": 62, "mmap": 222, "mprotect": 226,
            "munmap": 215, "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "ioctl": 29,
            "readv": 65, "writev": 66, "sched_yield": 124, "mremap": 216, "madvise": 233, "nanosleep": 101, "getpid": 172,
            "sendto": 206, "recvfrom": 207, "sendmsg": 211, "recvmsg": 212, "shutdown": 210, "socketpair": 199, "clone": 220,
            "exit": 93, "uname": 160, "fcntl": 25, "gettimeofday": 169, "getrusage": 165, "sysinfo": 179, "getuid": 174,
            "getgid": 176, "geteuid": 175, "getegid": 177, "getppid": 173, "sigaltstack": 132, "gettid": 178, "futex": 98,
            "sched_getaffinity": 123, "set_tid_address": 96, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
            "exit_group": 94, "epoll_ctl": 21, "tgkill": 131, "set_robust_list": 99, "epoll_pwait": 22, "eventfd2": 19,
            "epoll_create1": 20, "pipe2": 59, "prlimit64": 261, "getrandom": 278, "membarrier": 283, "rseq": 293,
            "epoll_pwait2": 441,
        },
    ),
}  # fmt: skip
_CLONE3 = 435
_CLONE_THREAD = 0x10000
#: Making a descriptor non-blocking or close-on-exec.
_FIONBIO, _FIOCLEX = 0x5421, 0x5451


def close_in(parent: int) -> list[str]:
    """The process can do nothing but think and talk over what it has open, and dies with `parent`. Returns what holds."""
    holds = ["limits"]
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX),
        (resource.RLIMIT_DATA, MEMORY_BYTES_MAX),
        (resource.RLIMIT_AS, ADDRESS_BYTES_MAX),
    ):
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not sys.platform.startswith("linux"):
        return holds
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC | _NEW_UTS) == 0:
        holds.append("namespaces")
    # After that: a change of credentials would clear the first two.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    if _landlock(libc):
        holds.append("landlock")
    if _filter(libc):
        holds.append("seccomp")
    return holds


def _landlock(libc: ctypes.CDLL) -> bool:
    """No file can be opened and nothing connected to, whoever owns it."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    files = (1 << _LANDLOCK_FILE_BITS.get(version, _LANDLOCK_FILE_BITS_NEWEST)) - 1
    rights = struct.pack("=Q", files)
    if version >= 4:
        rights += struct.pack("=Q", 0b11)  # binding and connecting
    if version >= 6:
        rights += struct.pack("=Q", 0b11)  # abstract sockets and signals outside
    rules = libc.syscall(_LANDLOCK_CREATE, rights, ctypes.c_size_t(len(rights)), 0)
    if rules < 0:
        return False
    try:
        return bool(libc.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _filter(libc: ctypes.CDLL) -> bool:
    """Calls outside the list fail; so do threads that would be processes, and signals to anybody else."""
    known = _CALLS.get(platform.machine())
    if known is None:
        return False
    machine, seccomp, calls = known
    program = _program(machine, calls, os.getpid())
    data = b"".join(struct.pack("=HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(data, len(data))
    described = struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(buffer))
    return bool(libc.syscall(seccomp, 1, _FILTER_ALL_THREADS, described) == 0)


Instruction = tuple[int, int, int, int]

_LOAD, _EQUAL, _HAS_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32
_HIGH = 4  # the upper half of an argument, on a little-endian machine


def _program(machine: int, calls: dict[str, int], process: int) -> list[Instruction]:
    """Berkeley packet filter instructions: (code, jump if true, jump if false, operand)."""
    rules: list[Instruction] = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _MISSING),  # its flags cannot be seen; the C library then takes clone
    ]
    rules += _only(calls["clone"], [(_LOAD, 0, 0, _FIRST), (_HAS_BIT, 1, 0, _CLONE_THREAD)])
    rules += _only(calls["tgkill"], [(_LOAD, 0, 0, _FIRST), (_EQUAL, 1, 0, process)])
    rules += _only(calls["ioctl"], [(_LOAD, 0, 0, _SECOND), (_EQUAL, 2, 0, _FIONBIO), (_EQUAL, 1, 0, _FIOCLEX)])
    # Asking for its own limits, not setting them.
    nothing_new = [(_LOAD, 0, 0, _THIRD), (_EQUAL, 0, 2, 0), (_LOAD, 0, 0, _THIRD + _HIGH), (_EQUAL, 1, 0, 0)]
    rules += _only(calls["prlimit64"], nothing_new)
    checked = {"clone", "tgkill", "ioctl", "prlimit64"}
    for name, number in calls.items():
        if name not in checked:
            rules += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    return [*rules, (_RETURN, 0, 0, _REFUSE)]


def _only(number: int, condition: list[Instruction]) -> list[Instruction]:
    """The call is allowed if the condition jumps over what refuses it."""
    body = [*condition, (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]
