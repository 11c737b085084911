"""X2: nothing of an isolated command lives longer than it may: not its end, not its worker's death, not its supervisor's.

Method: a worker is a real process that runs a command with daemons in it. All of them appear in the host's process table with a
name of their own, whatever namespace they are in; what is still there after a second is a survivor.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap"),
]

#: The promise.
OUTLIVES_SECONDS_MAX = 1.0

TREE = """
cp /usr/bin/sleep ./{name}
(: > a; exec ./{name} 61) &
setsid nohup sh -c ': > b; exec ./{name} 62' > /dev/null 2>&1 &
(trap '' TERM HUP INT; setsid sh -c ': > c; exec ./{name} 63' > /dev/null 2>&1 &)
( ( setsid sh -c ': > d; exec ./{name} 64' > /dev/null 2>&1 & ) & )
until [ -e a ] && [ -e b ] && [ -e c ] && [ -e d ]; do sleep 0.01; done
touch here
{last}
"""

WORKER = """
import asyncio, sys
from cairn.harness.sandbox.isolated import isolated
folder, backend, command = sys.argv[1:]
async def main():
    async def on_started(process):
        print(process.pid, flush=True)
    sandbox = await isolated(folder + "/files", backend=backend, grace_seconds=0.2).open("test/worker", folder + "/private")
    result = await sandbox.exec(command, on_started=on_started)
    print("ended", result.exit_code, result.background, flush=True)
    await sandbox.close()
    print("closed", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


def living(name: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                is_zombie = b") Z" in (entry / "stat").read_bytes()
            except OSError:
                continue
            if name.encode() in line and not is_zombie and b"import isolated" not in line:  # the worker names it, too
                found.append(f"{entry.name}: {line!r}")
    return found


def gone(name: str) -> float:
    """Seconds until nothing is left; fails with what is, when that takes too long."""
    begun = time.monotonic()
    while left := living(name):
        took = time.monotonic() - begun
        assert took < OUTLIVES_SECONDS_MAX, f"alive after {took:.1f} s: {left}"
    return time.monotonic() - begun


def start(folder: Path, backend: str, last: str) -> tuple[subprocess.Popen[str], int, str]:
    name = f"sv{os.getpid()}{backend[0]}{len(last)}"
    for each in ("files", "private"):
        (folder / each).mkdir()
    command = TREE.format(name=name, last=last)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), backend, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    supervisor = int(worker.stdout.readline())
    if last.startswith("sleep"):
        while not (folder / "files" / "here").exists() or len(living(name)) < 4:
            assert worker.poll() is None
    return worker, supervisor, name


@pytest.mark.parametrize("backend", ["bubblewrap", "landlock"])
def test_nothing_outlives_a_worker_that_was_killed(tmp_path: Path, backend: str) -> None:
    """X2: SIGKILL leaves a worker no time to end anything; within a second nothing of the command lives."""
    worker, _, name = start(tmp_path, backend, "sleep 60")

    worker.kill()
    worker.wait()

    gone(name)


@pytest.mark.parametrize("whom", ["the supervisor", "bubblewrap", "all at once"])
def test_nothing_outlives_what_watches_over_it(tmp_path: Path, whom: str) -> None:
    """X2: not even when the watcher itself is killed: its death is the kernel's order to kill the namespace."""
    worker, supervisor, name = start(tmp_path, "bubblewrap", "sleep 60 # " + whom)
    victim = supervisor
    if whom == "bubblewrap":
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        victim = int(children[0])

    if whom == "all at once":  # nobody is left who could find and end what remains
        worker.send_signal(signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    if whom == "all at once":
        worker.kill()

    gone(name)
    worker.kill()
    worker.wait()


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """X2: a daemon does not wait in a sandbox for the next command; and the caller is told that there was one."""
    worker, _, name = start(tmp_path, "bubblewrap", "true")
    assert worker.stdout is not None

    assert worker.stdout.readline() == "ended 0 True\n"

    gone(name)
    worker.kill()
    worker.wait()


def test_with_landlock_what_is_left_behind_ends_when_the_sandbox_is_closed(tmp_path: Path) -> None:
    """X2: without a namespace it may live until then, and no longer."""
    worker, _, name = start(tmp_path, "landlock", "true")
    assert worker.stdout is not None
    assert worker.stdout.readline().startswith("ended 0")

    assert worker.stdout.readline() == "closed\n"

    gone(name)
    worker.kill()
    worker.wait()
