"""A person at a shell in an empty folder: writes files, types `cairn …`, in this process or in one of their own."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cairn.framework.cli import main

CAIRN = str(Path(sys.executable).with_name("cairn"))

#: Seconds for anything a test waits for: a guard against hanging, not a measurement.
PATIENCE_SECONDS = 60

#: The beginning of an agent's file that needs no network.
SCRIPTED = """
from cairn import Agent
from cairn.testing.scripted import Call, Fail, Say, ScriptedModel, Stall, by_turn, obedient
"""

ECHO = f"""{SCRIPTED}
from cairn.testing.scripted import last_text
echo = Agent("echo", model=ScriptedModel(lambda request: Say("You said: " + last_text(request))))
"""


@dataclass(frozen=True)
class Done:
    """What a command line left."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """In `folder`, which is also this process's working directory."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def set(self, name: str, value: str | None) -> None:
        if value is None:
            self._monkeypatch.delenv(name, raising=False)
        else:
            self._monkeypatch.setenv(name, value)

    def cairn(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Typed in this process."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(arguments)
        shown = self._capsys.readouterr()
        return Done(code, shown.out, shown.err)

    def process(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """A process of its own, with pipes."""
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        return subprocess.Popen([CAIRN, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, **options)

    def log(self, address: str) -> list[dict[str, Any]]:
        """Every record of an instance."""
        return [each["record"] for each in self.cairn("log", address, "--json").events]


@contextmanager
def started(shell: Shell, *arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block."""
    process = shell.process(*arguments, **more)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], text: str, stream: str = "stderr") -> str:
    """What the process has written when `text` is in it: read as it comes, so a test waits for the thing itself."""
    pipe = getattr(process, stream)
    seen = ""
    while text not in seen:
        more = os.read(pipe.fileno(), 65_536)
        assert more, f"it ended without saying {text!r}: {seen}"
        seen += more.decode()
    return seen


def end(process: subprocess.Popen[str]) -> Done:
    """Its end, and what it wrote since it was last read."""
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return Done(process.returncode, out, err)


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def at_a_terminal(shell: Shell, *arguments: str, columns: int = 80) -> Done:
    """Run it to its end with a terminal as stdout and stderr; `out` is every byte the terminal was sent."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    try:
        tty.setraw(theirs)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color"}
        process = shell.process(*arguments, stdout=theirs, stderr=theirs, text=False, env=environment)
        os.close(theirs)
        sent = b""
        with suppress(OSError):  # the terminal is hung up when the process has ended
            while more := os.read(ours, 65_536):
                sent += more
        process.wait(PATIENCE_SECONDS)
    finally:
        os.close(ours)
    return Done(process.returncode, sent.decode(), "")
