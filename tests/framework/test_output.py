"""What every verb shares: one-line errors with the right exit code, redaction, columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn import errors
from cairn.framework.cli import output
from cairn.framework.cli.output import HIDDEN, Exit

ANTHROPIC_KEY = "sk-" + "ant-api03-abcdefghijklmnopqrstuvwxyz"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4"


def raising(error: BaseException) -> int:
    def command() -> int:
        raise error

    return output.guard(command)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("no such verb"), Exit.USAGE),
        (errors.AgentFileError("1 problem"), Exit.USAGE),
        (errors.MissingExtra("pip install it"), Exit.USAGE),
        (errors.NotFound("no instance a/b"), Exit.USAGE),
        (errors.Conflict("another body"), Exit.USAGE),
        (errors.StoreBusy("held by pid 7"), Exit.USAGE),
        (errors.StoreFormat("newer"), Exit.USAGE),
        (errors.StoreUnsupported("nfs"), Exit.USAGE),
        (errors.ModelError("no key", kind="auth"), Exit.USAGE),
        (errors.ModelError("too many", kind="rate_limit"), Exit.FAILED),
        (errors.StoreCorrupt("checksum"), Exit.FAILED),
        (errors.StoreFull("disk"), Exit.FAILED),
        (errors.Fenced("newer epoch"), Exit.FAILED),
        (RuntimeError("odd"), Exit.FAILED),
        (KeyboardInterrupt(), Exit.ABORTED),
    ],
)
def test_every_error_has_its_exit_code_and_at_most_one_line(
    error: BaseException, code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    """Programs read the code, people the line; nobody gets a traceback."""
    assert raising(error) == code

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == (0 if code is Exit.ABORTED else 1)
    assert str(error) in shown.err
    assert "Traceback" not in shown.err


def test_an_unexpected_error_says_how_to_see_more(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours is one line as well, and CAIRN_DEBUG=1 lets it through."""
    assert raising(ZeroDivisionError("by zero")) == Exit.FAILED
    assert "unexpected ZeroDivisionError: by zero; set CAIRN_DEBUG=1" in capsys.readouterr().err

    monkeypatch.setenv("CAIRN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError("by zero"))


def test_every_problem_of_an_agent_file_is_told_on_one_line() -> None:
    """All mistakes at once, so that one round of fixing is enough."""
    text, code = output.explain(errors.AgentFileError("2 problems", ("a.py:1: no\nagent", "a.py:7: twice")))

    assert code is Exit.USAGE
    assert text == "2 problems; a.py:1: no agent; a.py:7: twice"


def test_a_key_inside_an_error_is_not_shown() -> None:
    """Providers echo keys in their messages; the terminal must not (X8)."""
    text, _ = output.explain(RuntimeError(f"401: key {ANTHROPIC_KEY} is invalid"))

    assert ANTHROPIC_KEY not in text
    assert HIDDEN in text


@pytest.mark.parametrize("name", ["password", "api_key", "API-Key", "x-api-key", "Authorization", "client_secret", "token"])
def test_a_value_under_a_telling_name_is_hidden(name: str) -> None:
    """However deep it is (X8)."""
    assert output.redacted({"a": [{name: "hunter2"}]}) == {"a": [{name: HIDDEN}]}


@pytest.mark.parametrize("name", ["input_tokens", "max_tokens", "tokens", "secretary", "keyboard"])
def test_numbers_and_innocent_names_stay(name: str) -> None:
    """A view that hides too much is not read."""
    assert output.redacted({name: 12}) == {name: 12}
    assert output.redacted({"secretary": "Ada", "keyboard": "qwerty"}) == {"secretary": "Ada", "keyboard": "qwerty"}


@pytest.mark.parametrize("secret", [ANTHROPIC_KEY, JWT, "ghp" + "_" + "a" * 36, "xoxb" + "-1234567890-abc", "AKIA" + "A" * 16])
def test_a_value_in_a_known_shape_is_hidden_in_the_middle_of_text(secret: str) -> None:
    """Keys are pasted into messages (X8)."""
    assert output.redacted([f"use {secret} please"]) == [f"use {HIDDEN} please"]


@pytest.mark.slow
@given(st.text(), st.integers(min_value=20, max_value=200))
def test_a_shortened_value_is_one_bounded_printable_line(text: str, chars_max: int) -> None:
    """Whatever a model or a tool wrote, it cannot draw on the terminal of who looks at it (T19)."""
    short = output.shortened(text, chars_max)

    assert short.isprintable()
    assert len(short) <= chars_max + 30


def test_a_long_value_says_how_much_is_left_out() -> None:
    short = output.shortened("a" * 1000 + "z", 100)

    assert short.startswith("aaa")
    assert short.endswith("z")
    assert "914 characters" in short


def test_columns_are_aligned_and_the_last_one_is_free() -> None:
    lines = output.columns([("a", "1", "short"), ("abc", "1234", "a longer one")], ("NAME", "N", "WHAT"))

    assert lines == ["NAME  N     WHAT", "a     1     short", "abc   1234  a longer one"]


def test_times_are_in_utc_with_milliseconds() -> None:
    """A log is read on other machines than the one that wrote it."""
    assert output.moment(1_700_000_000.1239) == "2023-11-14 22:13:20.123Z"


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4s"), (12, "12s"), (200, "3m"), (7300, "2h"), (5e5, "6d")])
def test_a_duration_is_one_number_and_one_unit(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_sizes_are_in_units_a_person_reads() -> None:
    assert [output.size(count) for count in (17, 2048, 5 << 20, 3 << 30)] == ["17 B", "2.0 KB", "5.0 MB", "3.0 GB"]
