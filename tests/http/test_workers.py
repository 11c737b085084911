"""The process that keeps others alive, with children that die: how often it starts them again, and when it gives up (L2, L6).

Method: a process of its own, because a child is a fork; it says on stdout what happens.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.system

PATIENCE_SECONDS = 60.0

PARENT = """
import os, signal, sys, time
from cairn.clock import SystemClock
from cairn.framework.http.workers import Supervisor

def say(text):
    print(text, flush=True)

def child(life):
    {body}

supervisor = Supervisor(child=child, count={count}, clock=SystemClock(), on_ready=lambda text: say("ready " + text), note=say)
say("parent")
sys.exit(supervisor.run())
"""


@contextmanager
def supervisor(body: str, *, count: int = 2) -> Iterator[subprocess.Popen[str]]:
    source = PARENT.format(body=body, count=count)
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "parent\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_children_that_die_young_are_started_again_slower_and_slower() -> None:
    """L7: what dies at once does not keep the machine busy with dying."""
    with supervisor('life.say("here"); os._exit(3)', count=1) as process:
        assert line(process) == "ready here"
        waits = [line(process).rpartition(" starts in ")[2] for _ in range(3)]
        assert waits == ["0.5 s", "1 s", "2 s"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0


def test_when_the_first_never_comes_up_its_exit_code_is_the_answer() -> None:
    """Nothing is started again that never worked."""
    with supervisor('say("tried"); os._exit(2)', count=4) as process:
        assert process.wait(PATIENCE_SECONDS) == 2
        assert line(process) == "tried"
        assert line(process) == ""


def test_a_child_that_does_not_stop_is_killed_when_one_asks_again() -> None:
    """L6: the first signal asks, the second does not wait."""
    body = 'signal.signal(signal.SIGTERM, lambda *_: say("no")); life.say("here"); [time.sleep(1) for _ in iter(int, 1)]'
    with supervisor(body, count=1) as process:
        assert line(process) == "ready here"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "no"
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(0.2)  # signals that come together count as one
            except subprocess.TimeoutExpired:
                continue
        assert process.returncode == 130


def test_signals_at_any_moment_of_a_start_stop_everything() -> None:
    """A child that was just forked is a child: it is told to stop like any other."""
    body = 'life.say("here"); [time.sleep(1) for _ in iter(int, 1)]'
    for _ in range(5):
        with supervisor(body, count=8) as process:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) in (0, 1, -signal.SIGTERM)
