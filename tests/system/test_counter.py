"""The counter example as a person uses it: run, killed, run again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.processes import ROOT, environment

pytestmark = pytest.mark.system

STEPS = 6


def command(directory: Path) -> list[str]:
    program = str(ROOT / "examples" / "counter.py")
    return [sys.executable, program, "--to", str(STEPS), "--data", str(directory / ".cairn")]


def start_and_stop(directory: Path, after: str, number: int) -> list[str]:
    """Run it until it prints a line with `after`, then send the signal; what it printed."""
    process = subprocess.Popen(command(directory), env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if after in line:
            process.send_signal(number)
    process.wait()
    return lines


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "ctrl-c"])
def test_a_killed_counter_goes_on_from_the_exact_step(tmp_path: Path, number: int) -> None:
    """S1, S9, L2: what was done is answered by the log, what was not is new, and the count is right."""
    killed = start_and_stop(tmp_path, "step 3:", number)
    done = sum("new" in line for line in killed)

    again = subprocess.run(command(tmp_path), env=environment(), capture_output=True, text=True, timeout=60, check=True)

    answered = again.stdout.count("from the log")
    assert done <= answered < STEPS
    assert again.stdout.count("new") == STEPS - answered
    assert f"the counter is at {STEPS}" in again.stdout


def test_a_finished_counter_answers_without_doing_anything_again(tmp_path: Path) -> None:
    """S6, S7: the same key is the same piece of work, and its result is kept."""
    first = subprocess.run(command(tmp_path), env=environment(), capture_output=True, text=True, timeout=60, check=True)

    second = subprocess.run(command(tmp_path), env=environment(), capture_output=True, text=True, timeout=60, check=True)

    assert first.stdout.count("new") == STEPS
    assert second.stdout == f"the counter is at {STEPS}\n"
