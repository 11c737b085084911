"""Landlock as the fallback of `isolated()`: the same files and no network, without namespaces of one's own.

Laws. Weaker than bubblewrap and told so: processes of the sandbox see the host's clock, name and users' ids, `/proc` is closed
to them altogether, and processes they leave behind live until the sandbox is closed. Below version 6 a command could signal the
worker's own processes and talk to the sockets of others, so an older kernel counts as having no Landlock.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from cairn.harness.sandbox import seccomp
from cairn.harness.sandbox.supervisor import landlock

#: The version that confines signals and abstract sockets: Linux 6.12.
VERSION_MIN = 6

#: What every program reads: the system, and of /etc and /proc what says nothing about other users or processes.
_READ = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/ca-certificates", "/etc/mime.types"),
    *("/etc/services", "/etc/protocols", "/etc/terminfo", "/etc/inputrc", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/filesystems", "/proc/version", "/proc/stat"),
)
_READ_WITH_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/gai.conf", "/etc/host.conf", "/run/systemd/resolve")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def landlock_missing() -> str:
    """Why Landlock cannot be used here, in a sentence with what to do; empty when it can."""
    if sys.platform != "linux":
        return "Landlock is a feature of Linux, and this is not Linux"
    version = landlock.version()
    if version == 0:
        return "this kernel has no Landlock, or it is not among its active modules (boot with lsm=landlock,…)"
    if version < VERSION_MIN:
        return f"this kernel's Landlock has version {version}, and {VERSION_MIN} (Linux 6.12) is needed"
    if os.uname().machine not in seccomp.MACHINES:
        return f"Landlock needs a system call filter beside it, and there is none for {os.uname().machine}"
    return ""


def processes_of_user() -> int:
    """How many threads this user has now: without a namespace the kernel counts a sandbox's with them."""
    total = 0
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                total += len(os.listdir(f"/proc/{name}/task"))
    return total


def landlock_confinement(writable: Sequence[str], readable: Sequence[str], *, has_network: bool) -> dict[str, object]:
    """What a command gives up, for `supervisor/confine.py`. Unix sockets too: Landlock does not guard those in the file system,
    and the one of a container engine is a way to become root."""
    read = [*_READ, *(_READ_WITH_NETWORK if has_network else ()), *readable]
    families = seccomp.FAMILIES_NETWORK if has_network else ()
    return {
        "no_capabilities": True,
        "landlock": {"read": read, "write": [*writable, *_DEVICES], "no_network": not has_network},
        "seccomp": seccomp.program(os.uname().machine, families, has_namespaces=False).hex(),
    }
