"""`cairn token`: made, listed, revoked; shown once and never again (X8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import UsageError
from cairn.framework.cli import main
from cairn.framework.cli.token import seconds


class Line:
    """A command line over one store: its exit code, stdout and stderr."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._store = store
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = main(["token", *arguments, "--store", str(self._store)])
        shown = self._capsys.readouterr()
        return code, shown.out, shown.err

    def json(self, *arguments: str) -> Any:
        code, out, _ = self(*arguments, "--json")
        assert code == 0
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(tmp_path / "new" / "cairn.db", capsys)


def test_a_token_is_alone_on_stdout_and_nowhere_else(token: Line) -> None:
    """X8: `TOKEN=$(cairn token create bot)` holds it; what is said about it does not."""
    code, out, err = token("create", "bot", "--agent", "support/*", "--grant", "read, send")

    assert code == 0
    assert out.startswith("cairn_") and out.count("\n") == 1
    assert out.strip() not in err and "only now" in err
    assert out.strip() not in token("ls")[1]


def test_a_list_shows_everything_but_the_token(token: Line) -> None:
    token("create", "bot", "--agent", "support/*", "--agent", "sales/x", "--grant", "read", "--expires", "never", "--trusted")
    token("create", "old", "--tenant", "acme")

    old, bot = token.json("ls")
    assert (bot["name"], bot["grants"], bot["agents"], bot["trusted"], bot["expires_at"]) == (
        "bot",
        ["read"],
        ["support/*", "sales/x"],
        True,
        None,
    )
    assert (old["tenant"], old["grants"]) == ("acme", ["abort", "read", "send"])
    assert old["expires_at"] - old["created_at"] == pytest.approx(90 * 86_400, abs=5)
    text = token("ls")[1]
    assert "never" in text and "support/*,sales/x" in text and "90d left" in text


def test_a_revoked_token_is_gone(token: Line) -> None:
    token("create", "bot")
    assert token("revoke", "bot")[0] == 0
    code, _, err = token("revoke", "bot")
    assert code == 2 and "no token 'bot'" in err
    assert token.json("ls") == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["create", "bot", "--grant", "everything"], "none of read, send, abort, manage"),
        (["create", "bot", "--grant", ""], "allows nothing"),
        (["create", "bot", "--agent", "support"], "support/*"),
        (["create", "bot", "--expires", "soon"], "30d"),
        (["create", ""], "name"),
        (["ls"], "does not exist"),
    ],
)
def test_a_mistake_is_one_line(token: Line, arguments: list[str], text: str) -> None:
    code, out, err = token(*arguments)

    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and text in err


def test_a_name_is_taken_once(token: Line) -> None:
    token("create", "bot")

    assert token("create", "bot")[0] == 2


@pytest.mark.parametrize(
    ("text", "expected"), [("30m", 1_800), ("12h", 43_200), ("30d", 2_592_000), ("1y", 31_536_000), ("never", None)]
)
def test_times_are_read(text: str, expected: float | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1", "d", "1.5d", "9999999d", "1 d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        seconds(text)
