# ruff: noqa: E501  (an attempt is one line)
"""What a hostile command tries, and the host it tries it on. Run as a program it tries everything and prints what came of it.

    python escapes.py isolated|local bubblewrap|landlock NAME…

Laws. Each attempt prints GOT when it has reached what it must not, and TRIED when it has come to its end; a sandbox that
breaks the attempt itself is thereby told from one that holds. What can be seen only from outside (a process that was killed, a file
that was changed) is looked at by the host afterwards. The same attempts run without isolation where that harms nothing, and must
get through there: an attempt that cannot succeed proves nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECRET = "the-secret-of-the-host"


@dataclass(frozen=True)
class Attempt:
    name: str
    command: str
    works_without: bool = True
    """It gets through where nothing isolates, and may be tried there."""
    backends: tuple[str, ...] = ("bubblewrap", "landlock")


def python(source: str) -> str:
    """A command that runs the source, with what most attempts need at hand."""
    head = "import ctypes, os, socket, sys\nlibc = ctypes.CDLL(None, use_errno=True)\nE = os.environ\n"
    return f"python3 -I -c '{(head + source).replace(chr(39), chr(34))}' 2>&1 || :; echo TRIED"


def shell(source: str) -> str:
    return f"{source}\necho TRIED"


def seen(command: str) -> str:
    """GOT when the secret is in what the command prints."""
    return shell(f'({command}) 2>&1 | grep -a -q "{SECRET}" && echo GOT')


def calls(numbers: dict[str, tuple[int, ...]]) -> str:
    """GOT for each system call that is not refused for want of permission. Of x86-64."""
    source = f"""
for name, (number, *rest) in {numbers!r}.items():
    ctypes.set_errno(0)
    result = libc.syscall(number, *rest)
    if ctypes.get_errno() not in (1, 38): print("GOT", name, result, ctypes.get_errno())
"""
    return python(source.replace("'", '"'))


def connect(family: str, address: str, kind: str = "SOCK_STREAM") -> str:
    return python(f"""
s = socket.socket(socket.{family}, socket.{kind}); s.settimeout(2)
s.connect({address})
if "{kind}" == "SOCK_DGRAM": s.send(b"x")
if s.recv(100): print("GOT")
""")


ATTEMPTS = [
    # --- files of the host
    Attempt("a file by its path", seen('cat "$HOST/secret"')),
    Attempt("a file by dots", seen('cat "../../../../../../../../$HOST/secret"')),
    Attempt("a file through a link", seen('ln -s "$HOST/secret" l; cat l')),
    Attempt("a file through a link to the root", seen('ln -s / r; cat "r$HOST/secret"')),
    Attempt("a file through proc self root", seen('cat "/proc/self/root$HOST/secret"')),
    Attempt("a file through proc 1 root", seen('for p in /proc/[0-9]*; do cat "$p/root$HOST/secret"; done')),
    Attempt("a file through proc cwd", seen('for p in /proc/[0-9]*; do cat "$p/cwd/secret" "$p/cwd/../secret"; done'), False),
    Attempt("a file through a hard link", seen('ln "$HOST/secret" h; cat h')),
    Attempt("another workspace", seen('cat "$HOST/other/files/notes"')),
    Attempt("another workspace beside ours", seen("cat ../../other/files/notes ../other/files/notes"), False),
    Attempt("the host's homes", shell("cd /; ls -d root/.[a-z]* home/*/.[a-z]* 2>/dev/null | sed s/^/GOT/"), False),
    Attempt("the passwords", shell("cat /etc/shadow /etc/gshadow 2>/dev/null && echo GOT"), False),
    Attempt("the keys of the host", shell("cat /etc/ssh/ssh_host_* /etc/ssl/private/* 2>/dev/null | grep -q KEY && echo GOT"), False),
    Attempt("system logs and services", shell("ls /var/log/* /run/* /srv/* 2>/dev/null | grep -q . && echo GOT"), False),
    Attempt("a change of the system", shell("for d in /usr /usr/bin /etc /lib; do touch $d/x 2>/dev/null && echo GOT && rm $d/x; done"), False),
    Attempt("a file at the root", shell("touch /x 2>/dev/null && echo GOT; mkdir /new 2>/dev/null && echo GOT"), False),
    Attempt("a file among devices", shell("touch /dev/x 2>/dev/null && echo GOT; rm -f /dev/x"), False),
    Attempt("a change of a host file", shell('echo changed > "$HOST/target" 2>/dev/null && echo GOT')),
    Attempt("a change by an inherited directory", shell('for f in /proc/self/fd/*; do echo x > $f/../target && echo GOT; done 2>/dev/null'), False),
    # --- what the worker knows
    Attempt("the worker's environment", seen("env")),
    Attempt("the environment of others", seen("cat /proc/*/environ | tr '\\0' '\\n'")),
    Attempt("an inherited descriptor", python('print(*("GOT %d %s" % (n, os.readlink("/proc/self/fd/%d" % n)) for n in range(3, 200) if os.path.exists("/proc/self/fd/%d" % n)), sep="\\n")'), False),
    Attempt("an open descriptor by number", python("""
for n in range(3, 256):
    try: os.fstat(n); print("GOT", n)
    except OSError: pass
"""), False),
    # --- processes of the host
    Attempt("the list of processes", shell('grep -a -l "$VICTIM_NAME" /proc/[0-9]*/cmdline 2>/dev/null | grep -q . && [ -r /proc/$VICTIM/cmdline ] && grep -a -q "$VICTIM_NAME" /proc/$VICTIM/cmdline && echo GOT')),
    Attempt("killing another process", python('import signal; os.kill(int(E["VICTIM"]), 0); os.kill(int(E["VICTIM"]), signal.SIGUSR1); print("GOT")')),
    Attempt("killing everything", shell("echo TRIED; kill -USR2 -1"), False, ("bubblewrap",)),
    Attempt("killing the supervisor", shell("kill -9 $PPID 2>/dev/null; kill -9 1 2>/dev/null; [ $PPID -gt 3 ] && kill -0 $PPID 2>/dev/null && echo GOT"), False),
    Attempt("tracing another process", python('if libc.ptrace(16, int(E["VICTIM"]), 0, 0) == 0: print("GOT")')),
    Attempt("tracing a child of one's own", python("""
pid = os.fork()
if pid == 0:
    import time; time.sleep(5); os._exit(0)
if libc.ptrace(16, pid, 0, 0) == 0: print("GOT")
os.kill(pid, 9)
""")),
    Attempt("memory of another process", shell('head -c 1 "/proc/$VICTIM/maps" >/dev/null 2>&1 && head -c 1 /proc/$VICTIM/maps | grep -q . && echo GOT')),
    Attempt("a descriptor of another process", python('h = libc.syscall(434, int(E["VICTIM"]), 0)\nif h >= 0 and libc.syscall(438, h, 0, 0) >= 0: print("GOT")')),
    # --- the kernel
    Attempt("mounting", shell("mkdir -p m; mount -t tmpfs none m 2>/dev/null && echo GOT; mount -o remount,rw /usr 2>/dev/null && echo GOT"), False),
    Attempt("a new mount interface", calls({"fsopen": (430, 0, 0), "open_tree": (428, -1, 0, 0), "move_mount": (429, -1, 0, -1, 0, 0)})),
    Attempt("a user namespace", shell("unshare -Ur true 2>/dev/null && echo GOT")),
    Attempt("namespaces by clone", python("""
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000):
    pid = libc.syscall(56, flag | 17, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
    if pid > 0: print("GOT", hex(flag)); os.waitpid(pid, 0)
""")),
    Attempt("the namespaces of process 1", shell("nsenter -t 1 -m -p -n true 2>/dev/null && echo GOT"), False),
    Attempt("a change of root", python('try:\n os.chroot("."); print("GOT")\nexcept OSError: pass'), False),
    Attempt("device nodes", shell("mknod mem c 1 1 2>/dev/null && echo GOT; mknod disk b 8 0 2>/dev/null && echo GOT; mknod vda b 254 0 2>/dev/null && echo GOT"), False),
    Attempt("disks that are there", shell("head -c 1 /dev/vda /dev/sda /dev/mem /dev/kmem /dev/kmsg /dev/fuse /dev/kvm >/dev/null 2>&1; for d in /dev/vda /dev/sda /dev/mem /dev/kmsg; do head -c 1 $d 2>/dev/null | grep -a -q . && echo GOT; done"), False),
    Attempt("a set-user-id program", shell("cp /usr/bin/id ./i && chmod 4755 i; python3 -c 'import os\ntry:\n os.setuid(0); open(\"/etc/shadow\"); print(\"GOT\")\nexcept OSError: pass'; su -c 'cat /etc/shadow' </dev/null 2>/dev/null | grep -q : && echo GOT"), False),
    Attempt("capabilities", shell("grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status 2>/dev/null | grep -v 0000000000000000 | sed s/^/GOT/"), False),
    Attempt("key rings", calls({"add_key": (248, 0, 0, 0, 0, 0), "request_key": (249, 0, 0, 0, 0), "keyctl": (250, 0, -3, 1)})),
    Attempt("doors of the kernel", calls({"bpf": (321, 0, 0, 0), "perf": (298, 0, 0, -1, -1, 0), "userfaultfd": (323, 0), "io_uring": (425, 1, 0), "handle": (304, -1, 0, 0)})),
    Attempt("the machine itself", calls({"init_module": (175, 0, 0, 0), "kexec": (246, 0, 0, 0, -1), "reboot": (169, 0, 0, 0, 0), "swapon": (167, 0, 0), "settimeofday": (164, 0, 0), "syslog": (103, 99, 0, 0), "iopl": (172, 99)}), False),
    Attempt("system settings", shell("for f in kernel/core_pattern kernel/hostname kernel/modprobe vm/drop_caches; do (: >> /proc/sys/$f) 2>/dev/null && echo GOT $f; done"), False),
    Attempt("the emergency keys", shell("[ -w /proc/sysrq-trigger ] && (: >> /proc/sysrq-trigger) 2>/dev/null && echo GOT"), False),
    Attempt("the kernel's tree of devices", shell("ls /sys/* /sys/fs/cgroup/* 2>/dev/null | grep -q . && echo GOT"), False),
    Attempt("leaving the control group", shell("mkdir -p c; mount -t cgroup2 none c 2>/dev/null && echo GOT; for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do echo $$ > $f && echo GOT; done 2>/dev/null"), False),
    Attempt("a 32-bit system call", python("""
import mmap
code = bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3])
page = mmap.mmap(-1, 4096, prot=7); page.write(code)
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
if call() == os.getpid(): print("GOT")
"""), False),
    Attempt("typing into a terminal", python("""
import fcntl, pty, termios
master, slave = pty.openpty()
for fd in (0, 1, 2, slave):
    try: fcntl.ioctl(fd, termios.TIOCSTI, b"x"); print("GOT", fd)
    except OSError: pass
try: os.open("/dev/tty", os.O_RDWR); print("GOT tty")
except OSError: pass
"""), False),
    # --- networks
    Attempt("the host's loopback", connect("AF_INET", '("127.0.0.1", int(E["PORT"]))')),
    Attempt("the host's loopback, version 6", connect("AF_INET6", '("::ffff:127.0.0.1", int(E["PORT"]))')),
    Attempt("the host's address", connect("AF_INET", '(E["ADDRESS"], int(E["PORT"]))')),
    Attempt("a datagram", connect("AF_INET", '("127.0.0.1", int(E["PORT_UDP"]))', "SOCK_DGRAM")),
    Attempt("the metadata of the cloud", connect("AF_INET", '("169.254.169.254", 80)'), False),
    Attempt("a name", python('try: socket.getaddrinfo("example.com", 80); print("GOT")\nexcept OSError: pass'), False),
    Attempt("other interfaces", python("print(*(\"GOT \" + name for _, name in socket.if_nameindex() if name != \"lo\"))"), False, ("bubblewrap",)),
    Attempt("raw sockets", python("""
for family, kind, protocol in ((2, 3, 1), (10, 3, 58), (17, 3, 0x300)):
    try: socket.socket(family, kind, protocol); print("GOT", family)
    except OSError: pass
"""), False),
    Attempt("families beyond namespaces", python("""
for family in (40, 38, 31, 29, 44):
    try: socket.socket(family, 1 if family == 40 else 3, 0); print("GOT", family)
    except OSError as error:
        if error.errno not in (97, 1): print("GOT", family, error)
"""), False),
    Attempt("an abstract socket", connect("AF_UNIX", '"\\0" + E["ABSTRACT"]')),
    Attempt("a socket in the host's files", connect("AF_UNIX", 'E["HOST"] + "/socket"')),
    # --- what is shared
    Attempt("shared memory of System V", python('if libc.shmget(int(E["SHM"]), 0, 0) >= 0: print("GOT")')),
    Attempt("shared memory in files", seen('cat "/dev/shm/$SHM_FILE"')),
    Attempt("the clipboard of temporary files", seen('cat /tmp/"$TMP_FILE"')),
    Attempt("the host's name", shell('[ "$(uname -n)" = "$HOST_NAME" ] && echo GOT'), True, ("bubblewrap",)),
]  # fmt: skip


@contextmanager
def host() -> Iterator[tuple[Path, dict[str, str], Callable[[], list[str]]]]:
    """A host worth attacking: its directory, what the attacker is told, and a look at what has been harmed."""
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="cairn-escape-")))
        (folder / "secret").write_text(SECRET)
        (folder / "target").write_text("as it was")
        for name in ("ours", "other"):
            (folder / name / "files").mkdir(parents=True)
        (folder / "other" / "files" / "notes").write_text(SECRET)
        shared = Path(held.enter_context(tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="cairn-")).name)
        shared.write_text(SECRET)
        scratch = Path(held.enter_context(tempfile.NamedTemporaryFile(dir="/tmp", prefix="cairn-")).name)
        scratch.write_text(SECRET)
        victim_name = f"victim-of-{os.getpid()}"
        # Writes a line for each SIGUSR1 it gets.
        source = "import signal, sys\nsignal.signal(signal.SIGUSR1, lambda *_: print('hit', flush=True))\nprint('up', flush=True)\nwhile 1: signal.pause()"
        victim = held.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", source, victim_name],
                stdout=subprocess.PIPE,
                env={"KEY": SECRET, "PATH": os.environ["PATH"]},
            )
        )
        held.callback(victim.kill)
        assert victim.stdout is not None and victim.stdout.readline() == b"up\n"
        memory = ctypes.CDLL(None).shmget(0x5EC00000 + os.getpid(), 4096, 0o1777)
        held.callback(ctypes.CDLL(None).shmctl, memory, 0, 0)
        servers = _servers(held, folder)

        def harm() -> list[str]:
            found = []
            if victim.poll() is not None:
                found.append(f"the victim is dead: {victim.returncode}")
            if (folder / "target").read_text() != "as it was":
                found.append("the target has changed")
            return found

        told = {
            "HOST": str(folder), "VICTIM": str(victim.pid), "VICTIM_NAME": victim_name, "SHM_FILE": shared.name,
            "SHM": str(0x5EC00000 + os.getpid()), "TMP_FILE": scratch.name, "HOST_NAME": os.uname().nodename, **servers,
        }  # fmt: skip
        yield folder, told, harm


def _servers(held: ExitStack, folder: Path) -> dict[str, str]:
    """Listeners that answer whoever connects, each in a thread of its own."""
    import threading

    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    except OSError:
        address = "127.0.0.1"
    abstract = f"cairn-escape-{os.getpid()}"
    bound: list[tuple[int, Any, int]] = [
        (socket.AF_INET, ("", 0), socket.SOCK_STREAM),
        (socket.AF_UNIX, "\0" + abstract, socket.SOCK_STREAM),
        (socket.AF_UNIX, str(folder / "socket"), socket.SOCK_STREAM),
        (socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_DGRAM),
    ]
    listeners = []
    for family, where, kind in bound:
        listener = held.enter_context(socket.socket(family, kind))
        listener.bind(where)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        threading.Thread(target=_answer, args=(listener, kind), daemon=True).start()
        listeners.append(listener)
    ports = {"PORT": str(listeners[0].getsockname()[1]), "PORT_UDP": str(listeners[3].getsockname()[1])}
    return {"ADDRESS": address, "ABSTRACT": abstract, **ports}


def _answer(listener: socket.socket, kind: int) -> None:
    while True:
        try:
            if kind == socket.SOCK_DGRAM:
                _, peer = listener.recvfrom(100)
                listener.sendto(b"welcome", peer)
            else:
                connection, _ = listener.accept()
                connection.sendall(b"welcome")
                connection.close()
        except OSError:
            return


async def attack(kind: str, backend: str, names: list[str]) -> dict[str, str]:
    """What each attempt printed, followed by the harm that was done."""
    from cairn.harness.sandbox.isolated import isolated
    from cairn.harness.sandbox.local import local

    os.environ["CAIRN_CANARY"] = SECRET
    found = {}
    with host() as (folder, told, harm):
        files = folder / "ours" / "files"
        chosen: Any = local(files, env=["CAIRN_CANARY"]) if kind == "local" else isolated(files, backend=backend)  # type: ignore[arg-type]
        sandbox = await chosen.open("test/ours", str(folder / "ours" / "private"))
        for attempt in ATTEMPTS:
            if names and attempt.name not in names:
                continue
            if backend not in attempt.backends or (kind == "local" and not attempt.works_without):
                continue
            result = await sandbox.exec(attempt.command, env=told, timeout_seconds=20)
            hurt = harm()
            found[attempt.name] = result.output.decode(errors="replace") + "".join(f"GOT {each}\n" for each in hurt)
            (folder / "target").write_text("as it was")
        await sandbox.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(attack(sys.argv[1], sys.argv[2], sys.argv[3:]))))
