"""What a server writes to stderr: two forms, and a net under what should not have been written (X8)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from cairn.clock import SystemClock
from cairn.framework.cli import logs
from cairn.framework.cli.output import HIDDEN, SECRET_SHAPE
from cairn.framework.http.access import AccessLog

SECRETS = [
    "cairn_" + "aB3-_" * 8 + "xyz",
    "sk-ant-api03-" + "x" * 40,
    "ghp_" + "a" * 36,
    "AKIAIOSFODNN7EXAMPLE",
]


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root, access = logging.getLogger(), logging.getLogger("cairn.access")
    before = (list(root.handlers), root.level, access.propagate, access.disabled, logging.getLogger("cairn").level)
    yield
    root.handlers[:], access.propagate, access.disabled = before[0], before[2], before[3]
    root.setLevel(before[1])
    logging.getLogger("cairn").setLevel(before[4])


def written(form: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is left of an error with a secret in its message, its arguments and its exception."""
    logs.configure(form)
    for secret in SECRETS:
        try:
            raise ValueError(f"the provider said: key {secret} is wrong")
        except ValueError:
            logging.getLogger("cairn.http").error("failed with %s", {"authorization": f"Bearer {secret}"}, exc_info=True)
        logging.getLogger("somebody.else").warning("connecting with %s", secret)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("form", logs.FORMS)
def test_a_secret_that_was_logged_is_taken_out(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """X8: in messages, arguments and tracebacks, of any logger."""
    lines = written(form, capsys)

    assert not [secret for secret in SECRETS if any(secret in line for line in lines)]
    assert sum(line.count("[redacted]") for line in lines) >= 3 * len(SECRETS)


@pytest.mark.parametrize(
    "text", ["-eyJ", "eyJ-", "eyJaaaaaaaaaaaa.", "sk-", "xoxb-", "cairn_", "AIza", "github_pat_", "cairn_" + "a" * 42 + "-"]
)
def test_a_text_made_to_keep_the_net_busy_does_not(text: str) -> None:
    """X7, regex DoS: a megabyte of beginnings. It would take hours if each were followed to the end."""
    SECRET_SHAPE.sub(HIDDEN, text * (1_000_000 // len(text)))


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback does not break it."""
    objects = [json.loads(line) for line in written("json", capsys)]

    assert len(objects) == 2 * len(SECRETS)
    assert {each["level"] for each in objects} == {"error", "warning"}
    assert all("Traceback" in each["message"] for each in objects if each["level"] == "error")


def request(app: Any, path: str = "/agents/echo/a%2Fb", **scope: Any) -> None:
    async def send(message: Any) -> None:
        pass

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    given = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": path.encode("latin-1"),
        "client": ("1.2.3.4", 5),
        **scope,
    }
    asyncio.run(app(given, receive, send))


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"req_1")]})
    await send({"type": "http.response.body", "body": b"12345", "more_body": True})
    await send({"type": "http.response.body", "body": b"678"})


async def failing(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError


@pytest.mark.parametrize("path", ["/a b", "/a\nb", "/a\x1b[2Jb", "/" + "x" * 10_000])
def test_no_path_can_break_a_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """X8, log injection: a line is one line, of bounded length, without anything a terminal would obey."""
    logs.configure("text")
    request(AccessLog(answering, SystemClock()), path)

    [line] = capsys.readouterr().err.splitlines()
    assert line.isprintable() and len(line) < 500


def test_a_line_counts_what_was_sent_and_comes_when_all_was(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    request(AccessLog(answering, SystemClock(), json=True))
    with pytest.raises(RuntimeError):
        request(AccessLog(failing, SystemClock(), json=True), client=None)

    answered, failed = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (answered["status"], answered["bytes"], answered["request"], answered["client"]) == (200, 8, "req_1", "1.2.3.4")
    assert (failed["status"], failed["client"]) == (0, "-")
