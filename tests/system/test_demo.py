"""`cairn demo` as a person runs it: a real worker, a real SIGKILL, another worker; and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.system.test_run_kill import engineer

from cairn.harness.sandbox.supervisor import processes
from cairn.testing.providers.server import serve_in_thread

pytestmark = pytest.mark.system

CAIRN = [sys.executable, "-m", "cairn.framework.cli"]

#: A guard against hanging, not a measurement.
DEMO_SECONDS = 180

#: The promise of `local()`.
OUTLIVES_SECONDS_MAX = 1.0


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), **more}


def demo(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CAIRN, "demo", "--pace", "1500", *arguments],
        env=environment(folder, **environ),
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition comes to hold within the time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def alive(mark: str) -> list[int]:
    """Processes with the mark in their command line that can still act."""
    found = []
    for process in processes.table().values():
        try:
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in line and processes.is_running(process) and process.pid != os.getpid():
            found.append(process.pid)
    return found


@pytest.mark.parametrize("seed", [2, 20, 19], ids=["in an answer", "in a command", "after an append"])
def test_a_demo_is_killed_goes_on_and_mends_the_bug(seed: int, tmp_path: Path) -> None:
    """S7 S9 L1: the story is told in order, and each of its claims is there. The log it names can be looked at."""
    done = demo(tmp_path, "--seed", str(seed))

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "the model is scripted" in lines[0]
    assert f"seed {seed}: kill -9 comes" in done.stdout
    order = ["$ cairn run", "✗ kill -9", "the same command again", "↻ goes on", "Checked: all", "✓", "tokens in", "cairn log"]
    places = [next((at for at, line in enumerate(lines) if word in line), -1) for word in order]
    assert -1 not in places, done.stdout
    assert places == sorted(places), done.stdout
    assert "none ran again" in done.stdout
    assert "all 8 tests pass" in done.stdout
    assert "one settlement in the log" in done.stdout
    assert "\x1b" not in done.stdout
    command = shlex.split(next(line for line in lines if line.strip().startswith("cairn log")))[1:]
    shown = subprocess.run([*CAIRN, *command], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout.count("fiber.settled"), shown.stdout.count("instance.claimed")) == (0, 1, 2)


def test_a_demo_in_json_is_one_document(tmp_path: Path) -> None:
    """The seed is a random one, and is told: the same moment can be aimed at again."""
    done = demo(tmp_path, "--json")

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["failures"] == []
    assert told["settlements"] == ["completed"]
    assert told["tests"] == {"count": 8, "failed": 0, "passed": True}
    assert told["changed"] == ["doorkeeper/links.py"]
    assert told["cost"]["calls_repeated"] == told["cost"]["answers_repeated"] == []
    assert told["death"]["landed"]
    assert isinstance(told["seed"], int)


def test_a_demo_on_a_terminal_is_coloured_and_nothing_else(tmp_path: Path) -> None:
    """Colours are all that is sent beside text: the screen is never moved."""
    reader, writer = pty.openpty()
    with subprocess.Popen(
        [*CAIRN, "demo", "--seed", "2", "--pace", "0"],
        env=environment(tmp_path, TERM="xterm-256color"),
        stdout=writer,
        stderr=writer,
        stdin=subprocess.DEVNULL,
    ) as process:
        os.close(writer)
        shown = b""
        while True:
            try:
                data = os.read(reader, 65_536)
            except OSError:  # the other end is closed
                break
            shown += data
        process.wait(DEMO_SECONDS)
    os.close(reader)

    text = shown.decode()
    assert process.returncode == 0, text
    assert set(re.findall(r"\x1b\[[\d;?]*([A-Za-z])", text)) == {"m"}
    assert "✓" in text


def test_ctrl_c_ends_a_demo_its_worker_and_its_folder(tmp_path: Path) -> None:
    """130, one line, and nothing stays: no process, no file."""
    with subprocess.Popen(
        [*CAIRN, "demo", "--pace", "20"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid = 0
        while not pid:
            found = re.search(r"pid (\d+)", process.stdout.readline())
            pid = int(found[1]) if found else 0
        assert eventually(lambda: bool(list(tmp_path.glob("cairn-demo-*/.cairn/cairn.db-wal"))), 60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEMO_SECONDS)

    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    worker = processes.lookup(pid)
    assert worker is None or not processes.is_running(worker)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_with_a_real_wire_counts_and_goes_on(tmp_path: Path) -> None:
    """`--model`: the same job over the Anthropic protocol. The provider is asked for every answer once, and for the one that
    was cut off once more."""
    with serve_in_thread(engineer) as server:
        done = demo(tmp_path, "--json", "--seed", "11", "--model", "anthropic:claude-sonnet-4-6", **server.environ)

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert not told["scripted"]
    assert told["tests"]["passed"]
    assert len(server.requests) <= told["answers"] + 1
    assert told["cost"]["calls_repeated"] == []


AGENT = """
from cairn import Agent, local
from cairn.testing.scripted import Call, ScriptedModel, by_turn

patient = Agent(
    "patient",
    model=ScriptedModel(by_turn([[Call("bash", {"command": "MARK"})], "Done."])),
    sandbox=local("."),
)
"""

#: A foreground, a background child, one in a session of its own, one that ignores being asked.
TREE = 'sleep 300.MARK & setsid sleep 301.MARK & (trap "" TERM HUP; sleep 302.MARK) & sleep 303.MARK'


def test_no_child_of_a_killed_cairn_run_outlives_it_by_a_second(tmp_path: Path) -> None:
    """S9: kill -9 in the middle of a command ends the command's whole tree; the next run tells the
    model that its outcome is unknown."""
    mark = str(os.getpid()) + str(int(time.time() * 1000) % 1_000_000)
    command = TREE.replace("MARK", mark)
    (tmp_path / "patient.py").write_text(AGENT.replace('"MARK"', repr(command)))
    run = [*CAIRN, "run", "patient.py", "Wait.", "--id", "x", "--json"]

    with subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
        assert eventually(lambda: len(alive(mark)) >= 4, 60)
        worker.kill()
        worker.wait()
        outlived = not eventually(lambda: not alive(mark), OUTLIVES_SECONDS_MAX)
    again = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=DEMO_SECONDS, check=False)

    assert not outlived, alive(mark)
    assert again.returncode == 0, again.stdout + again.stderr
    outcomes = [
        event["outcome"] for line in again.stdout.splitlines() if (event := json.loads(line)).get("event") == "tool.completed"
    ]
    assert outcomes == ["unknown"]
    assert alive(mark) == []
