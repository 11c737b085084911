"""The system calls an isolated command may not make, as a filter for the kernel. Pure: numbers in, bytes out.

Laws. A list of what is refused, not of what is allowed: what a build or a test needs goes on working on tomorrow's C library.
Refused is what reaches other processes, the kernel's own doors, mounts, namespaces, key rings, and terminals. A call of another
architecture's table (32-bit, x32) is refused whole, for its numbers mean something else.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000

#: Where `struct seccomp_data` keeps the number, the architecture, and the low half of each argument (little-endian).
_NUMBER, _ARCHITECTURE = 0, 4
_ARGUMENTS = tuple(16 + 8 * index for index in range(6))

#: x32 shares the architecture of x86-64 and sets this bit in its numbers.
_X32 = 0x40000000

#: Every flag of clone that makes a namespace: mount, cgroup, uts, ipc, user, pid, network.
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

#: ioctl requests that put characters into a terminal's input (TIOCSTI) or drive the console (TIOCLINUX).
_TERMINAL_INPUT = (0x5412, 0x541C)

#: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Others (packet, vsock to the machine's host, bluetooth, alg) are not in a network
#: namespace's keeping, or are nobody's need.
FAMILIES = (1, 2, 10, 16)
#: AF_INET, AF_INET6: for a command that shares the host's network and not its sockets.
FAMILIES_NETWORK = (2, 10)


class Architecture(NamedTuple):
    """One machine's table: its audit number, the calls treated by argument, and those refused."""

    audit: int
    clone: int
    clone3: int
    ioctl: int
    socket: int
    refused: dict[str, int]
    shared: dict[str, int]
    """What names objects of the whole machine where there is no namespace of one's own: refused there."""


_NEW = {  # the same number everywhere
    "pidfd_getfd": 438, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "mount_setattr": 442, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "quotactl_fd": 443,
}  # fmt: skip

X86_64 = Architecture(
    audit=0xC000003E, clone=56, clone3=435, ioctl=16, socket=41,
    refused={
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "mount": 165, "umount2": 166,
        "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "add_key": 248, "request_key": 249, "keyctl": 250,
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "kexec_load": 246, "kexec_file_load": 320,
        "init_module": 175, "finit_module": 313, "delete_module": 176, "reboot": 169, "swapon": 167, "swapoff": 168,
        "acct": 163, "quotactl": 179, "syslog": 103, "iopl": 172, "ioperm": 173, "open_by_handle_at": 304,
        "settimeofday": 164, "clock_settime": 227, "sethostname": 170, "setdomainname": 171, "vhangup": 153,
        "modify_ldt": 154, "fanotify_init": 300, "lookup_dcookie": 212, **_NEW,
    },
    shared={"shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240},
)  # fmt: skip

AARCH64 = Architecture(
    audit=0xC00000B7, clone=220, clone3=435, ioctl=29, socket=198,
    refused={
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "mount": 40, "umount2": 39,
        "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "add_key": 217, "request_key": 218, "keyctl": 219,
        "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "kexec_load": 104, "kexec_file_load": 294,
        "init_module": 105, "finit_module": 273, "delete_module": 106, "reboot": 142, "swapon": 224, "swapoff": 225,
        "acct": 89, "quotactl": 60, "syslog": 116, "open_by_handle_at": 265, "settimeofday": 170, "clock_settime": 112,
        "sethostname": 161, "setdomainname": 162, "vhangup": 58, "fanotify_init": 262, "lookup_dcookie": 18, **_NEW,
    },
    shared={"shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180},
)  # fmt: skip

#: `os.uname().machine` → its table. Elsewhere there is no filter, and `isolated()` says so.
MACHINES = {"x86_64": X86_64, "aarch64": AARCH64}


def program(machine: str, families: tuple[int, ...] = FAMILIES, *, has_namespaces: bool = True) -> bytes:
    """The filter for a machine, sockets of `families` only; empty when the machine is not known."""
    table = MACHINES.get(machine)
    if table is None:
        return b""
    lines = [_load(_ARCHITECTURE), _jump(_EQUAL, table.audit, 1, 0), _return(_KILL), _load(_NUMBER)]
    if table is X86_64:
        lines += [_jump(_AT_LEAST, _X32, 0, 1), _refuse(errno.ENOSYS)]
    refused = table.refused if has_namespaces else table.refused | table.shared
    for number in sorted(set(refused.values())):
        lines += [_jump(_EQUAL, number, 0, 1), _refuse(errno.EPERM)]
    # Its flags are behind a pointer, where a filter cannot look: libraries that are told it does not exist use clone.
    lines += [_jump(_EQUAL, table.clone3, 0, 1), _refuse(errno.ENOSYS)]
    lines += _by_argument(table.clone, 0, [_jump(_ANY_BIT, _NAMESPACES, 0, 1), _refuse(errno.EPERM)])
    inputs = [line for request in _TERMINAL_INPUT for line in (_jump(_EQUAL, request, 0, 1), _refuse(errno.EPERM))]
    lines += _by_argument(table.ioctl, 1, inputs)
    known = [line for family in families for line in (_jump(_EQUAL, family, 0, 1), _return(_ALLOW))]
    lines += _by_argument(table.socket, 0, [*known, _refuse(errno.EAFNOSUPPORT)])
    return b"".join([*lines, _return(_ALLOW)])


def _by_argument(number: int, argument: int, lines: list[bytes]) -> list[bytes]:
    """For that call only: load the argument, judge it, and allow what was not judged."""
    body = [_load(_ARGUMENTS[argument]), *lines, _return(_ALLOW)]
    return [_jump(_EQUAL, number, 0, len(body)), *body]


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _jump(kind: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", kind, if_true, if_false, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, value)


def _refuse(number: int) -> bytes:
    return _return(_REFUSE | number)
