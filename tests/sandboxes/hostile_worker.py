"""Workers as an enemy would write them: each begins like a real one, and then does what its name says.

`program(name)` is what a `ShellProcess` is started with in place of the real one.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LENGTHS = struct.Struct("!II")
_ROOT = str(Path(__file__).parents[2])


def program(name: str) -> str:
    """The text of a program that is this enemy."""
    return (
        f"import sys; sys.path[:0] = [{_ROOT!r}]; from tests.sandboxes.hostile_worker import main; "
        f"main({name!r}, {{descriptor}}) # {{folders}} {{parent}}"
    )


class Enemy:
    """A connection, with no manners."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def say(self, header: Any, payload: bytes = b"") -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        self.raw(_LENGTHS.pack(len(text), len(payload)) + text + payload)

    def hear(self) -> tuple[Any, bytes]:
        header, payload = _LENGTHS.unpack(self._exactly(8))
        return json.loads(self._exactly(header)), self._exactly(payload)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self._socket.recv(size - len(found))
            if not part:
                os._exit(0)
            found += part
        return found

    def done(self, changes: list[Any], contents: bytes = b"", **other: Any) -> None:
        header = {
            "op": "done",
            "code": 0,
            "timed_out": False,
            "error": None,
            "cwd": "/workspace",
            "changes": changes,
            "state": 0,
        }
        self.say(header | other, contents)


def _changes(*operations: Any, contents: bytes = b"", **other: Any) -> Callable[[Enemy], None]:
    return lambda enemy: enemy.done(list(operations), contents, **other)


def _garbage(enemy: Enemy) -> None:
    enemy.raw(os.urandom(4096))


def _huge(enemy: Enemy) -> None:
    enemy.raw(_LENGTHS.pack(0xFFFFFFFF, 0xFFFFFFFF))


def _hang(enemy: Enemy) -> None:
    time.sleep(600)


def _die(enemy: Enemy) -> None:
    os._exit(3)


def _flood(enemy: Enemy) -> None:
    while True:
        enemy.say({"op": "output"}, b"x" * 1_000_000)


def _ask_for_ever(enemy: Enemy) -> None:
    while True:
        enemy.say({"op": "list", "path": "/"})
        enemy.hear()


def _snoop(enemy: Enemy) -> None:
    """Ask for everything that is not the instance's, and put the answers into a file."""
    answers = []
    for asked in (
        {"op": "read", "path": "/etc/passwd"},
        {"op": "read", "path": "../../../../etc/passwd"},
        {"op": "look", "path": "/proc/self/environ"},
        {"op": "list", "path": "/.."},
        {"op": "read", "path": "/link/passwd"},
        {"op": "reads", "paths": ["/etc/passwd", "/../etc/passwd"]},
        {"op": "look", "path": "a\0b"},
        {"op": "look", "path": "x/" * 5000},
    ):
        enemy.say(asked)
        header, payload = enemy.hear()
        answers.append([asked["op"], header, payload.decode("latin-1")])
    text = json.dumps(answers).encode()
    enemy.done([["write", "/answers", len(text)]], text)


#: What happens after the first command was sent.
ENEMIES: dict[str, Callable[[Enemy], None]] = {
    "garbage": _garbage,
    "a huge announcement": _huge,
    "silence": _hang,
    "death": _die,
    "half a frame and death": lambda enemy: (enemy.raw(_LENGTHS.pack(100, 0) + b"{"), os._exit(0))[0],
    "no JSON": lambda enemy: enemy.say(b"{{{"),
    "deep JSON": lambda enemy: enemy.say(b"[" * 100_000),
    "a frame of another kind": lambda enemy: enemy.say({"op": "launch"}),
    "more fields": lambda enemy: enemy.say({"op": "look", "path": "/", "and": 1}),
    "wrong types": lambda enemy: enemy.say({"op": "look", "path": 7}),
    "a second beginning": lambda enemy: enemy.say({"op": "ready", "holds": [], "version": ""}),
    "a command it was not given": lambda enemy: (
        enemy.say({"op": "fetch", "method": "GET", "url": "http://127.0.0.1/", "headers": []}),
        time.sleep(600),
    )[0],
    "a path that leads out": _changes(["write", "../../../etc/cron.d/x", 1], contents=b"x"),
    "a name with NUL": _changes(["write", "a\0b", 1], contents=b"x"),
    "a name that is too long": _changes(["write", "n" * 300, 1], contents=b"x"),
    "less than announced": _changes(["write", "/a", 100], contents=b"x"),
    "more than announced": _changes(["write", "/a", 1], contents=b"xyz"),
    "a negative size": _changes(["write", "/a", -1], contents=b""),
    "a negative state": _changes(state=-5),
    "a state that is not there": _changes(state=5_000_000),
    "a time that is none": _changes(["time", "/seed", 1e300]),
    "a move of the root": _changes(["move", "/", "/below"]),
    "a move into itself": _changes(["mkdir", "/d"], ["move", "/d", "/d/d"]),
    "a removal of the root": _changes(["remove", "/"]),
    "a removal of nothing": _changes(["remove", "/nothing"]),
    "a link out of the shell": _changes(["link", "/l", "/etc/passwd"]),
    "too many changes": _changes(*([["mode", "/seed", 0o644]] * 250_001)),
    "too large a state": lambda enemy: enemy.done([], b"s" * 5_000_000, state=5_000_000),
    "an endless output": _flood,
    "endless questions": _ask_for_ever,
}

#: Those whose claims are harmless, and are believed.
BELIEVED: dict[str, Callable[[Enemy], None]] = {
    "questions about the machine": _snoop,
    "modes no file has": _changes(["mode", "/seed", 0o7777777]),
    "a code no process has": _changes(code=1_000_000),
    "a directory that is none": _changes(["write", "/a", 1], contents=b"x", cwd="nowhere/../\0"),
}


def main(name: str, descriptor: int) -> None:
    enemy = Enemy(descriptor)
    enemy.say({"op": "ready", "holds": ["seccomp"], "version": "9"})
    while True:
        enemy.hear()
        try:
            (ENEMIES | BELIEVED)[name](enemy)
        except OSError:
            sys.exit(0)
