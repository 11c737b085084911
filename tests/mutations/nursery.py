"""Runs the tests of many mutations in children of one process that has loaded what they all need. See run.py.

Laws. Nothing of Cairn and nothing of the tests is loaded before a child exists: each child sees the copy as it is then. One
child at a time, on one copy; after each the copy is what it was. Run as a script, this file is that process: it reads a
line of JSON per child, and answers one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Nursery:
    """A copy of the repository and the process beside it, until it is closed."""

    def __init__(self, copy: Path) -> None:
        from tests.mutations.run import command, surroundings

        self.copy = copy
        self._command = command()[3:]  # without `python -m pytest`
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=copy,
            env=surroundings(copy),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, tests: Iterable[str], seconds: float) -> subprocess.CompletedProcess[str]:
        """The tests in the copy as it is. *Raises* TimeoutExpired."""
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = {"arguments": [*self._command, *tests], "seconds": seconds}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        told = json.loads(self._process.stdout.readline())
        if told["status"] is None:
            raise subprocess.TimeoutExpired("pytest", seconds, told["output"])
        return subprocess.CompletedProcess("pytest", told["status"], told["output"], "")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A place in which one mutation after the other is tried."""
    from tests.mutations.run import copied

    with copied() as copy:
        made = Nursery(copy)
        try:
            yield made
        finally:
            made.close()


# --- the process ----------------------------------------------------------------------------------------------------


def main() -> None:
    for name in ("pytest", "hypothesis", "msgspec", "asyncio", "sqlite3", "httpx", "starlette.applications", "fastapi"):
        __import__(name)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_child(asked["arguments"], asked["seconds"])), flush=True)


def _child(arguments: list[str], seconds: float) -> dict[str, Any]:
    """How pytest ended (None: it was killed, for it did not) and what it said."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            import pytest

            os._exit(int(pytest.main(arguments)))
        status = _wait(child, time.monotonic() + seconds)
        said.seek(0)
        return {"status": status, "output": said.read().decode(errors="replace")}


def _wait(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    main()
