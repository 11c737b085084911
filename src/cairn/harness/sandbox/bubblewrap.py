"""The command line of bubblewrap for one command: a system to read, a few directories to write, nothing else.

Laws. What is not named here does not exist for the command: other files, other processes, the worker's environment, a network.
Options go through a descriptor and not through `ps`, because they hold the environment. The launcher inside says on descriptor
3 that it began (`b`) and whether it left processes behind (`l`), so that a sandbox that could not be set up is never taken for
a command that failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Where descriptors are handed to bubblewrap; 3 is the launcher's.
ARGUMENTS, FILTER, PASSWD, GROUP = 5, 6, 7, 8

USER_ID = 1000
HOME = "/home"
WORKSPACE = "/workspace"

_PASSWD = f"root:x:0:0:root:/:/bin/sh\nuser:x:{USER_ID}:{USER_ID}:user:{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
_GROUP = f"root:x:0:\nuser:x:{USER_ID}:\nnogroup:x:65534:\n"

#: The programs and libraries of the host; on most systems all but the first are links into it.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

#: Of /etc, what programs need to start, to know the time zone, and to check certificates. No keys, no hosts, no users.
_ETC = (
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/ca-certificates", "/etc/mime.types"),
    *("/etc/services", "/etc/protocols", "/etc/terminfo", "/etc/inputrc", "/etc/fonts", "/etc/java-11-openjdk"),
    *("/etc/java-17-openjdk", "/etc/java-21-openjdk", "/etc/perl", "/etc/python3", "/etc/python3.11", "/etc/python3.12"),
)

#: Only with the host's network.
_NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/host.conf")

#: What the launcher does with `$1 -c "$2"`: limit the number of processes where that counts for this sandbox alone, stay out of
#: the way of a TERM, keep the shell's own remarks to itself, and look for what is left. 1 is bubblewrap, $$ the launcher.
_LAUNCHER = """printf b >&3
trap : TERM
ulimit -u {processes} 2>/dev/null || ulimit -p {processes} 2>/dev/null
exec 4>&2 2>/dev/null
"$1" -c "$2" 2>&4 3>&- 4>&-
code=$?
left=
for each in /proc/[0-9]*/stat; do
  read -r line < "$each" || continue
  case $line in "1 "*|"$$ "*|*") Z "*|*") X "*) ;; *) left=l ;; esac
done
printf '%s' "$left" >&3
exit $code"""

#: The launcher, bubblewrap's own process, and one to spare.
OWN_PROCESSES = 3


@dataclass(frozen=True, slots=True)
class Box:
    """What the commands of one sandbox have in common. `writable` and `readable` map the path inside to the one outside."""

    writable: Mapping[str, str]
    readable: Mapping[str, str]
    has_network: bool
    processes_max: int
    scratch_bytes: int
    filter: bytes


def options(box: Box, cwd: str, env: Mapping[str, str]) -> list[str]:
    """All of bubblewrap's options, to be given through descriptor `ARGUMENTS`."""
    chosen = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if not box.has_network:
        chosen += ["--unshare-net"]
    chosen += ["--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "sandbox"]
    chosen += ["--uid", str(USER_ID), "--gid", str(USER_ID), "--clearenv"]
    for name, value in env.items():
        chosen += ["--setenv", name, value]
    for path in _SYSTEM:
        if os.path.islink(path):
            chosen += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            chosen += ["--ro-bind", path, path]
    for path in (*_ETC, *(_NAMES if box.has_network else ())):
        chosen += ["--ro-bind-try", path, path]
    chosen += ["--ro-bind-data", str(PASSWD), "/etc/passwd", "--ro-bind-data", str(GROUP), "/etc/group"]
    chosen += ["--proc", "/proc", "--dev", "/dev", "--size", str(box.scratch_bytes), "--tmpfs", "/dev/shm"]
    for inside, outside in box.writable.items():
        chosen += ["--bind", outside, inside]
    for inside, outside in box.readable.items():
        chosen += ["--ro-bind", outside, inside]
    if box.filter:
        chosen += ["--seccomp", str(FILTER)]
    # The root and /dev are file systems in memory that bubblewrap makes: writable, they would be memory without a limit. And
    # a worker that is root is root to the kernel's settings, whatever rights it gave up: /proc must not be writable at all.
    for path in ("/proc", "/dev", "/"):
        chosen += ["--remount-ro", path]
    return [*chosen, "--chdir", cwd]


def argv(program: str, box: Box, shell: str, command: str) -> list[str]:
    """The program to start."""
    launcher = _LAUNCHER.format(processes=box.processes_max + OWN_PROCESSES)
    return [program, "--args", str(ARGUMENTS), "--", shell, "-c", launcher, "sandbox", shell, command]


def feeds(box: Box, chosen: Sequence[str]) -> dict[str, str]:
    """What the descriptors named above hold, for `confine`."""
    arguments = "\0".join(chosen).encode("utf-8", "surrogateescape")
    texts = {ARGUMENTS: arguments, PASSWD: _PASSWD.encode(), GROUP: _GROUP.encode()}
    if box.filter:
        texts[FILTER] = box.filter
    return {str(number): text.hex() for number, text in texts.items()}


def missing() -> str:
    """Why bubblewrap cannot be used here, in a sentence with what to do; empty when it can. Blocking, some 20 ms."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed (Debian and Ubuntu: apt-get install bubblewrap)"
    chosen = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--ro-bind", "/", "/"]
    chosen += ["--proc", "/proc", "--dev", "/dev"]
    done = subprocess.run([program, *chosen, "true"], capture_output=True, text=True, env={}, cwd="/", check=False)
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    return (
        f"bubblewrap cannot make namespaces here ({said[0]}); allow unprivileged user namespaces (kernel.apparmor_restrict_"
        "unprivileged_userns=0, kernel.unprivileged_userns_clone=1), or in a container seccomp=unconfined and an unmasked /proc"
    )
