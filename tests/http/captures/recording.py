"""Recordings of the reference server, read back: what was asked, and what it answered.

A recording is the output of `curl -i` (streams with a time before each line) under headings, one file a scenario. The two
traces of clients (31, 34) are lists of requests with the status they got.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.http.calling import Answer, Event, events_of

FOLDER = Path(__file__).parent

_TIME = re.compile(r"\[\+\s*[\d.]+s\] ?")
#: What the recorder and curl said themselves.
_REMARK = re.compile(r"\[[a-z]|curl: ")


@dataclass
class Exchange:
    """One request and its answer. `target` is the path with its query."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    answer: Answer = field(default_factory=lambda: Answer(0, {}, b""))

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def is_stream(self) -> bool:
        return "live=sse" in self.target

    @property
    def events(self) -> list[Event]:
        return events_of(self.answer.body)

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


def exchanges(name: str) -> list[Exchange]:
    """Everything that was asked in the recording whose number is `name`, in order."""
    found: list[Exchange] = []
    answers: list[list[str]] = []
    for line in _file(name).read_text().splitlines():
        if line.startswith("$ curl "):
            found.append(_request(shlex.split(line)[2:]))
            answers.append([])
            lines = answers[-1]
        elif line.startswith(("## ", "# ")):
            lines = []  # what follows a heading and is no request is a remark
        elif not _REMARK.match(line):
            lines.append(_TIME.sub("", line, count=1))
    for exchange, lines in zip(found, answers, strict=True):
        exchange.answer = _answer(lines)
    return found


def _file(name: str) -> Path:
    (path,) = FOLDER.glob(f"{name}-*.txt")
    return path


def _request(arguments: list[str]) -> Exchange:
    made = Exchange("GET", "")
    rest = iter(arguments)
    for argument in rest:
        if argument == "-X":
            made.method = next(rest)
        elif argument == "-I":
            made.method = "HEAD"
        elif argument == "-H":
            name, _, value = next(rest).partition(": ")
            made.headers[name] = value
        elif argument == "-d":
            made.body = next(rest).encode()
        elif not argument.startswith("-"):
            made.target = _target(argument)
    return made


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _answer(lines: list[str]) -> Answer:
    status = int(lines[0].split()[1])
    end = lines.index("") if "" in lines else len(lines)
    headers = dict(line.partition(": ")[::2] for line in lines[1:end])
    return Answer(status, {name.lower(): value for name, value in headers.items()}, "\n".join(lines[end + 1 :]).encode())


# --- traces of clients ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traced:
    """A request that a client was seen to make, and what is known of its answer."""

    method: str
    target: str
    body: Any
    status: int
    content_type: str
    has_next: bool | None = None
    is_up_to_date: bool | None = None


_ASKED = re.compile(r"--> (\w+) (\S+) headers=(\{.*?\})(?: body=(\{.*\}))?$")
_TOLD = re.compile(r"<-- (\d+) (\S+) ct=(\S+) next=(\S+) uptodate=(\S+)")
_LINE = re.compile(r"\[ *\d+ms\] (GET|POST) (\S+) -> (\d+) (\S+)")


def sdk_requests() -> Iterator[Traced]:
    """Every request of the SDK that was answered, in order; an answer belongs to the last request to its address."""
    asked: dict[str, tuple[str, Any]] = {}
    for line in _file("31").read_text().splitlines():
        if found := _ASKED.search(line):
            asked[found[2]] = found[1], json.loads(found[4]) if found[4] else None
        elif found := _TOLD.search(line):
            method, body = asked.pop(found[2])
            up_to_date = found[5] == "true"
            yield Traced(method, _target(found[2]), body, int(found[1]), found[3], found[4] != "null", up_to_date)


def react_requests() -> Iterator[Traced]:
    """Every request of the React hook, in order; what it sent is the one message of the scenario."""
    message = {"kind": "user", "body": "what is the weather?"}
    for line in _file("34").read_text().splitlines():
        if found := _LINE.match(line):
            body = message if found[1] == "POST" else None
            yield Traced(found[1], _target(found[2]), body, int(found[3]), found[4])
