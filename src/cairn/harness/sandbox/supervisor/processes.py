"""The processes of this machine as data: who descends from whom, who carries a mark, and how to end a set of them.

Laws. A process is (pid, start time): a pid alone is never signalled, because pids are reused. On Linux the signal goes through
a pidfd opened before the start time is compared, so there is no gap between the check and the signal. Where there is no `/proc`
(macOS) all of it comes from `ps`, and start times have a resolution of one second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

#: The environment variable that marks every process of a command. It is how a successor recognises what is left of a
#: tree whose supervisor is gone: it survives fork, exec, setsid and re-parenting, unlike group, session and parent.
MARK = "CAIRN_COMMAND"

#: How often a set of processes is looked for again while it is being killed. SIGKILL takes effect within a scheduling
#: slice; 10 ms keeps the search below one tenth of a core.
KILL_ROUND_SECONDS = 0.01

#: After this many rounds (about 5 s) what still lives cannot be killed by us: another user's, or stuck in the kernel.
KILL_ROUNDS_MAX = 400

#: How often a round searches for newcomers before it kills what it has. Two suffice for what can be stopped; the bound is
#: against a tree we may not signal that keeps forking.
FREEZE_PASSES_MAX = 20

_DEAD_STATES = frozenset("ZX")


class Process(NamedTuple):
    """One line of the process table. `started` is in clock ticks since boot (seconds since the epoch without /proc)."""

    pid: int
    parent: int
    group: int
    state: str
    started: float


def table() -> dict[int, Process]:
    """Every process that can be seen, zombies included."""
    if not os.path.isdir("/proc/self"):
        return _table_of_ps(["-ax"])
    found = (lookup(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def lookup(pid: int) -> Process | None:
    """The process that has this pid now, or None."""
    if not os.path.isdir("/proc/self"):
        return _table_of_ps(["-p", str(pid)]).get(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return None
    # The command's name may hold spaces and parentheses: what follows the last one is the fixed part.
    fields = line[line.rfind(b")") + 2 :].split()
    return Process(pid, int(fields[1]), int(fields[2]), fields[0].decode(), float(fields[19]))


def _table_of_ps(selection: list[str]) -> dict[int, Process]:
    own, text = _ps([*selection, "-o", "pid=,ppid=,pgid=,state=,lstart="])
    processes = parse_ps(text)
    processes.pop(own, None)  # `ps` is a child of whoever asks, and would never be missing from its own answer
    return processes


def _ps(arguments: list[str]) -> tuple[int, str]:
    """The pid of a `ps` that ran, and what it printed."""
    environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}
    with subprocess.Popen(["ps", *arguments], stdout=subprocess.PIPE, env=environment, text=True, errors="replace") as ps:
        return ps.pid, ps.communicate()[0]


def parse_ps(text: str) -> dict[int, Process]:
    """The table in what `ps -o pid=,ppid=,pgid=,state=,lstart=` prints."""
    processes = {}
    for line in text.splitlines():
        pid, parent, group, state, *started = line.split()
        seconds = time.mktime(time.strptime(" ".join(started), "%a %b %d %H:%M:%S %Y"))
        processes[int(pid)] = Process(int(pid), int(parent), int(group), state[:1], seconds)
    return processes


def is_running(process: Process) -> bool:
    """Whether it can still act: a zombie cannot."""
    return process.state not in _DEAD_STATES


def descendants(root: int, processes: dict[int, Process]) -> list[Process]:
    """Everything below `root`, nearest first, zombies included (their children may live)."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    frontier = [root]
    while frontier:
        below = [child for pid in frontier for child in children.get(pid, ())]
        found += below
        frontier = [child.pid for child in below]
    return found


def mark(pid: int, started: float) -> str:
    """The value of the mark for the command of this supervisor; unique on a host until it reboots."""
    return f"{pid}.{started:.0f}"


def marked(value: str, processes: Iterable[Process]) -> list[Process]:
    """Those whose environment carries the mark. Needs the same user; a process that wiped its environment hides, and on macOS
    one whose program the system protects does, too."""
    entry = f"{MARK}={value}"
    if os.path.isdir("/proc/self"):
        return [process for process in processes if entry.encode() in _environment(process.pid)]
    show_environment = ["-axEww"] if sys.platform == "darwin" else ["axeww"]
    _, text = _ps([*show_environment, "-o", "pid=,args="])
    carriers = {line.split(None, 1)[0] for line in text.splitlines() if entry in line.split()}
    return [process for process in processes if str(process.pid) in carriers]


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def signal_process(process: Process, number: int) -> bool:
    """Send a signal to exactly this process; False if it is gone, its pid belongs to another now, or it is not ours."""
    try:
        if not hasattr(os, "pidfd_open"):
            return _signal_by_pid(process, number)
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return False
        except OSError:  # a kernel before 5.3
            return _signal_by_pid(process, number)
        try:
            now = lookup(process.pid)
            if now is None or now.started != process.started:
                return False
            signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _signal_by_pid(process: Process, number: int) -> bool:
    # Without /proc a look costs a `ps`, longer than the table is old: it is believed as it was a moment ago.
    now = lookup(process.pid) if os.path.isdir("/proc/self") else process
    if now is None or now.started != process.started:
        return False
    os.kill(process.pid, number)
    return True


def kill(find: Callable[[], list[Process]], after_round: Callable[[], None] = lambda: None) -> list[Process]:
    """Kill what `find` finds until it finds nothing; returns what could not be killed.

    Each round first stops everything until a search finds nothing new: a tree that forks faster than we can walk it would
    otherwise always have a member we have not seen. `after_round` is where a parent collects its zombies.
    """
    for _ in range(KILL_ROUNDS_MAX):
        victims = {process.pid: process for process in find() if is_running(process)}
        if not victims:
            return []
        fresh = list(victims.values())
        for _ in range(FREEZE_PASSES_MAX):
            for process in fresh:
                signal_process(process, signal.SIGSTOP)
            fresh = [process for process in find() if is_running(process) and process.pid not in victims]
            victims.update((process.pid, process) for process in fresh)
            if not fresh:
                break
        for process in victims.values():
            signal_process(process, signal.SIGKILL)
        time.sleep(KILL_ROUND_SECONDS)
        after_round()
    return [process for process in find() if is_running(process)]


def boot_id() -> str:
    """A name for this run of the machine's kernel: a pid of another boot means nothing here."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        argv = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(argv, capture_output=True, text=True).stdout.strip()


def host_name() -> str:
    """What this machine (or container) calls itself."""
    return os.uname().nodename
