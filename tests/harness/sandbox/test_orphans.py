"""No process of a command outlives its worker by more than a second, however the worker, or what watches for it, dies.

Method: a worker is a real process that runs a command with daemons in it and is killed with SIGKILL. Every process of the
command carries a variable of its own in its environment, wherever it has gone; the supervisors are known by their command line.
What still has either is a survivor.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import msgspec
import pytest

from cairn.errors import SandboxError
from cairn.harness.sandbox.local import local
from cairn.harness.sandbox.protocol import ProcessInfo
from cairn.harness.sandbox.supervisor import processes

#: The promise.
OUTLIVES_SECONDS_MAX = 1.0

#: How many random moments are tried; more on demand.
KILLS = int(os.environ.get("CAIRN_TEST_KILLS", "12"))

#: A foreground, a child in the group, a daemon that left the session and let go of everything, one that ignores TERM, and one
#: born of a parent that is gone. Each says that it is there.
TREE = """
here() { echo $1 >> here; }
(here child; exec sleep 60) &
setsid nohup sh -c 'echo daemon >> here; exec sleep 60' > /dev/null 2>&1 &
setsid sh -c 'trap "" TERM HUP; echo stubborn >> here; while :; do sleep 60; done' &
( ( setsid sh -c 'echo orphan >> here; exec sleep 60' > /dev/null 2>&1 & ) & )
here shell
sleep 60
"""
MEMBERS = 5

WORKER = """
import asyncio, json, os, sys
from cairn.harness.sandbox.local import local
folder, mark, command = sys.argv[1:4]

async def main():
    async def on_started(process):
        print(json.dumps([process.pid, process.group, process.started, process.boot, process.host]), flush=True)
    sandbox = await local(folder, env={"CAIRN_TEST_MARK": mark}).open("test/worker", folder + "/private")
    await sandbox.exec(command, on_started=on_started)

if len(sys.argv) > 4:
    reading, writing = os.pipe()
async def with_a_forked_child():
    task = asyncio.ensure_future(main())
    while not os.path.exists(folder + "/here"):
        await asyncio.sleep(0.01)
    if os.fork() == 0:      # inherits every descriptor of the worker, and stays
        os.close(writing)
        os.read(0, 1)
        os._exit(0)
    await task
asyncio.run(with_a_forked_child() if len(sys.argv) > 4 else main())
"""


@contextmanager
def worker(folder: Path, mark: str, command: str = TREE, *more: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", WORKER, str(folder), mark, command, *more]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def info_of(output: IO[str] | None) -> ProcessInfo:
    assert output is not None
    pid, group, started, boot, host = json.loads(output.readline())
    return ProcessInfo(pid=pid, group=group, started=started, boot=boot, host=host)


def survivors(mark: str, worker_pid: int) -> list[int]:
    """Processes of the command, and supervisors of that worker, that can still act."""
    found = []
    for process in processes.table().values():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        is_ours = f"CAIRN_TEST_MARK={mark}".encode() in environment or f", {worker_pid})".encode() in line
        if is_ours and processes.is_running(process):
            found.append(process.pid)
    return found


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition comes to hold within the time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def any_of(find: Callable[[], list[int]]) -> bool:
    return bool(find())


def none_of(find: Callable[[], list[int]]) -> bool:
    return not find()


def all_here(folder: Path) -> bool:
    here = folder / "here"
    return here.exists() and here.read_text().count("\n") == MEMBERS


def reap(folder: Path, info: ProcessInfo) -> bool:
    async def main() -> bool:
        sandbox = await local(folder).open("test/successor", str(folder / "private"))
        try:
            return await sandbox.reap(info)
        finally:
            await sandbox.close()

    return asyncio.run(main())


@pytest.mark.system
def test_nothing_of_the_tree_outlives_a_killed_worker_by_a_second(tmp_path: Path) -> None:
    """X2: a shell, its child, three kinds of daemons, one of them deaf to TERM; and the supervisors themselves."""
    mark = uuid.uuid4().hex
    with worker(tmp_path, mark) as process:
        assert eventually(lambda: all_here(tmp_path), 20)
        assert len(survivors(mark, process.pid)) >= MEMBERS

        process.kill()

        assert eventually(lambda: not survivors(mark, process.pid), OUTLIVES_SECONDS_MAX), survivors(mark, process.pid)


@pytest.mark.system
def test_a_worker_killed_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    """X2, S8: before the supervisor is there, before the command has begun, while it grows, when it stands."""
    seed = int(os.environ.get("CAIRN_TEST_SEED", random.randrange(1 << 32)))
    chance = random.Random(seed)
    for turn in range(KILLS):
        folder = tmp_path / str(turn)
        folder.mkdir()
        mark = uuid.uuid4().hex
        with worker(folder, mark) as process:
            there = partial(survivors, mark, process.pid)
            # From the first sign of life on: everything before it is the interpreter's start.
            if turn % 2:
                info_of(process.stdout)
            else:
                eventually(partial(any_of, there), 20)
            time.sleep(chance.random() * 0.05)

            process.kill()

            gone = eventually(partial(none_of, there), OUTLIVES_SECONDS_MAX)
            assert gone, f"CAIRN_TEST_SEED={seed}, kill {turn}: {there()}"


@pytest.mark.system
def test_a_child_that_inherited_the_workers_sockets_does_not_keep_the_tree_alive(tmp_path: Path) -> None:
    """X2: the end of the socket does not come then; the kernel's word that the parent died does."""
    mark = uuid.uuid4().hex
    with worker(tmp_path, mark, TREE, "fork") as process:
        assert eventually(lambda: all_here(tmp_path), 20)

        process.kill()

        assert eventually(lambda: not survivors(mark, process.pid), OUTLIVES_SECONDS_MAX), survivors(mark, process.pid)


@pytest.mark.system
@pytest.mark.parametrize("fate", [signal.SIGSTOP, signal.SIGKILL])
def test_a_successor_ends_what_a_stopped_or_killed_supervisor_left(tmp_path: Path, fate: signal.Signals) -> None:
    """S9: before a successor decides about a call whose outcome is unknown, nothing of that call acts any more."""
    mark = uuid.uuid4().hex
    with worker(tmp_path, mark) as process:
        info = info_of(process.stdout)
        assert eventually(lambda: all_here(tmp_path), 20)
        os.kill(info.pid, fate)
        process.kill()
        process.wait()
        assert survivors(mark, process.pid)

        assert reap(tmp_path, info)

        assert not survivors(mark, process.pid)
        assert not reap(tmp_path, info)


@pytest.mark.system
def test_a_process_that_only_has_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    """S9: pids are reused; start time, boot and host decide."""
    with subprocess.Popen(["sh", "-c", "sleep 60; true"], start_new_session=True) as innocent:
        try:
            assert eventually(lambda: bool(processes.descendants(innocent.pid, processes.table())), 20)
            process = processes.lookup(innocent.pid)
            assert process is not None
            right = ProcessInfo(
                pid=innocent.pid,
                group=innocent.pid,
                started=process.started,
                boot=processes.boot_id(),
                host=processes.host_name(),
            )
            for wrong in ({"started": right.started - 1}, {"boot": "another"}, {"host": "another"}):
                assert not reap(tmp_path, msgspec.structs.replace(right, **wrong))
                assert innocent.poll() is None
            assert not processes.signal_process(process._replace(started=process.started + 1), signal.SIGKILL)
            assert innocent.poll() is None

            assert reap(tmp_path, right)

            assert innocent.wait() == -signal.SIGKILL
        finally:
            innocent.kill()


@pytest.mark.system
def test_a_killed_supervisor_is_told_and_its_tree_ended(tmp_path: Path) -> None:
    """S9: the outcome of the command is unknown, so it is an error; and nothing of it acts any more when that is raised."""
    mark = uuid.uuid4().hex

    async def main() -> None:
        sandbox = await local(tmp_path, env={"CAIRN_TEST_MARK": mark}).open("test/worker", str(tmp_path / "private"))
        started: asyncio.Future[ProcessInfo] = asyncio.get_running_loop().create_future()

        async def on_started(process: ProcessInfo) -> None:
            started.set_result(process)

        running = asyncio.ensure_future(sandbox.exec(TREE, on_started=on_started))
        info = await started
        await asyncio.to_thread(eventually, lambda: all_here(tmp_path), 20)
        os.kill(info.pid, signal.SIGKILL)
        with pytest.raises(SandboxError, match="supervisor was killed"):
            await running
        assert not [pid for pid in survivors(mark, os.getpid()) if b"supervisor" not in cmdline(pid)]
        assert (await sandbox.exec("echo again")).output == b"again\n"
        await sandbox.close()

    asyncio.run(main())

    assert eventually(lambda: not survivors(mark, os.getpid()), OUTLIVES_SECONDS_MAX)


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.system
def test_commands_go_on_after_the_server_was_killed(tmp_path: Path) -> None:
    """A `pkill python` in a command costs that command, not the sandbox; what was running is ended."""
    mark = uuid.uuid4().hex

    async def main() -> None:
        sandbox = await local(tmp_path, env={"CAIRN_TEST_MARK": mark}).open("test/worker", str(tmp_path / "private"))
        running = asyncio.ensure_future(sandbox.exec(TREE))
        await asyncio.to_thread(eventually, lambda: all_here(tmp_path), 20)
        supervisor = next(pid for pid in survivors(mark, os.getpid()) if b"supervisor" in cmdline(pid))
        found = processes.lookup(supervisor)
        assert found is not None
        server = found.parent if found.parent != os.getpid() else supervisor
        os.kill(server, signal.SIGKILL)
        result = await running
        assert result.exit_code == 143
        assert not [pid for pid in survivors(mark, os.getpid()) if b"supervisor" not in cmdline(pid)]
        assert (await sandbox.exec("echo again")).output == b"again\n"
        await sandbox.close()

    asyncio.run(main())


@pytest.mark.system
def test_a_stopped_supervisor_does_not_keep_its_tree_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """X2: a command that stops who watches it is ended by the worker itself; a stopped server is replaced."""
    monkeypatch.setattr("cairn.harness.sandbox.commands.END_SLACK_SECONDS", 0.3)
    monkeypatch.setattr("cairn.harness.sandbox.commands.START_SECONDS_MAX", 0.5)
    mark = uuid.uuid4().hex

    async def main() -> None:
        factory = local(tmp_path, env={"CAIRN_TEST_MARK": mark}, grace_seconds=0.1)
        sandbox = await factory.open("test/worker", str(tmp_path / "private"))
        result = await sandbox.exec("kill -STOP $PPID; sleep 60", timeout_seconds=0.2)
        assert (result.timed_out, result.exit_code) == (True, 137)
        assert not [pid for pid in survivors(mark, os.getpid()) if b"supervisor" not in cmdline(pid)]

        await sandbox.exec("kill -STOP $(grep PPid /proc/$PPID/status | cut -f 2)")
        with pytest.raises(SandboxError, match="was not started"):
            await sandbox.exec("touch began")
        assert (await sandbox.exec("echo again; ls")).output == b"again\n"
        await sandbox.close()

    asyncio.run(main())

    assert eventually(lambda: not survivors(mark, os.getpid()), OUTLIVES_SECONDS_MAX)


@pytest.mark.system
def test_a_tree_that_keeps_forking_is_ended(tmp_path: Path) -> None:
    """X2: every process is stopped before any is killed, so a fork that races the killing is caught too."""
    mark = uuid.uuid4().hex
    # Ends by itself after a while: a supervisor that fails this test shall not take the machine with it.
    spawner = "while [ $SECONDS -lt 3 ]; do (setsid sleep 5 > /dev/null 2>&1 &); done"

    async def main() -> None:
        factory = local(tmp_path, env={"CAIRN_TEST_MARK": mark}, grace_seconds=0.1)
        sandbox = await factory.open("test/worker", str(tmp_path / "private"))
        result = await sandbox.exec(f"trap '' TERM; ({spawner}) & ({spawner}) & {spawner}", timeout_seconds=0.3)
        assert result.timed_out
        await sandbox.close()

    asyncio.run(main())

    assert eventually(lambda: not survivors(mark, os.getpid()), OUTLIVES_SECONDS_MAX)


def test_descendants_are_found_through_the_dead() -> None:
    """A zombie's children are still of the tree."""
    table = {
        process.pid: process
        for process in (
            processes.Process(1, 0, 1, "S", 1),
            processes.Process(2, 1, 2, "S", 2),
            processes.Process(3, 2, 2, "Z", 3),
            processes.Process(4, 3, 4, "S", 4),
            processes.Process(5, 1, 5, "S", 5),
        )
    }

    assert [process.pid for process in processes.descendants(2, table)] == [3, 4]


def test_the_process_table_is_read_from_ps_where_there_is_no_proc() -> None:
    """macOS; the format is that of its `ps`, with its padding."""
    text = "    1     0     1 Ss   Sun Nov  1 08:00:01 2026    \n  501     1   501 Z+   Sun Nov 22 11:30:00 2026\n"

    table = processes.parse_ps(text)

    assert {pid: (each.parent, each.group, each.state) for pid, each in table.items()} == {1: (0, 1, "S"), 501: (1, 501, "Z")}
    assert table[501].started - table[1].started == pytest.approx(21 * 86_400 + 3.5 * 3600 - 1, abs=3600)
    assert not processes.is_running(table[501])


def test_the_table_has_this_process_as_it_is() -> None:
    """Parent and group as the system says; started before its children."""
    me = processes.lookup(os.getpid())
    with subprocess.Popen(["sleep", "10"]) as child:
        table = processes.table()
        child.kill()

    assert me is not None
    assert (me.parent, me.group) == (os.getppid(), os.getpgrp())
    assert table[child.pid].parent == os.getpid()
    assert table[child.pid].started >= me.started
