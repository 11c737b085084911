"""What every verb shares: exit codes, one-line errors, JSON, redaction and columns.

Laws. Nobody ever sees a traceback who did not ask for one (CAIRN_DEBUG=1). An error is one line on stderr that names
the thing, its state and what to do. stdout carries only the answer, so that it can be piped. A secret is never shown:
neither under a telling name nor in a well-known shape. Imports nothing heavy: `cairn --help` pays for this file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any

from cairn import errors


class Exit(IntEnum):
    """The only exit codes there are."""

    OK = 0
    FAILED = 1
    """The work was tried and failed."""
    USAGE = 2
    """The caller must change something first: an argument, a file, a key, a store that is in use."""
    PARKED = 3
    """The work waits for something outside: an answer, a time."""
    ABORTED = 130
    """Ctrl-C, or an abort from elsewhere; what a shell reports for SIGINT."""


#: Errors after which the caller has to change something; every other CairnError is a failure.
USAGE_ERRORS: tuple[type[errors.CairnError], ...] = (
    errors.UsageError,
    errors.NotFound,
    errors.Conflict,
    errors.StoreBusy,
    errors.StoreFormat,
    errors.StoreUnsupported,
)

#: Characters of one value in a human view: two lines of a wide terminal.
VALUE_CHARS_MAX = 160

SECRET_NAME = re.compile(r"(?i)(^|[_.-])(authorization|cookie|credentials?|password|passwd|secret|token|api[_-]?key)s?$")
"""Names whose value is never shown. `max_tokens` and `input_tokens` hold numbers, which `redacted` lets through."""

SECRET_SHAPE = re.compile(
    r"\b(?:cairn_[A-Za-z0-9_-]{43}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[abeprs]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{16}|AIza[\w-]{30,}|(?<![\w-])eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
)
"""Our own tokens, Anthropic and OpenAI, GitHub, Slack, AWS, Google, and any JWT. Linear whatever the text: a JWT begins where
what it is made of begins, and not again inside of it."""

HIDDEN = "[redacted]"


# --- errors ---------------------------------------------------------------------------------------------------------


def guard(command: Callable[[], int | None]) -> int:
    """Run a command; return its exit code. Whatever it raises has become one line on stderr.

    *Cancelled*: Ctrl-C is `Exit.ABORTED`. A reader of stdout that went away (`| head`) is no error.
    """
    _prepare_streams()
    try:
        code = command()
        sys.stdout.flush()
        return int(code or Exit.OK)
    except KeyboardInterrupt:
        return Exit.ABORTED
    except BrokenPipeError:
        abandon_broken_pipes()
        return Exit.OK
    except Exception as error:
        if os.environ.get("CAIRN_DEBUG") == "1":
            raise
        text, code = explain(error)
        sys.stderr.write(f"cairn: {text}\n")
        return code


def _prepare_streams() -> None:
    """Whatever is printed can be printed: a closed stream takes it silently, an old encoding takes an escape."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process
        with suppress(AttributeError, ValueError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def abandon_broken_pipes() -> None:
    """Whatever is still written to a stream that nobody reads goes nowhere: the interpreter flushes both once more at exit."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def explain(error: Exception) -> tuple[str, Exit]:
    """The one line that tells a person what happened and what to do, and the exit code that goes with it."""
    if isinstance(error, errors.AgentFileError) and error.problems:
        first = () if str(error).startswith(error.problems[0]) else (str(error),)
        return one_line("; ".join((*first, *error.problems))), Exit.USAGE
    if isinstance(error, errors.CairnError):
        usage = isinstance(error, USAGE_ERRORS) or (isinstance(error, errors.ModelError) and error.kind == "auth")
        return one_line(str(error)), Exit.USAGE if usage else Exit.FAILED
    name = type(error).__name__
    return one_line(f"unexpected {name}: {error}; set CAIRN_DEBUG=1 for the traceback"), Exit.FAILED


def one_line(text: str) -> str:
    """The text without line breaks and without anything that looks like a key."""
    return SECRET_SHAPE.sub(HIDDEN, " ".join(text.split()))


# --- values ---------------------------------------------------------------------------------------------------------


def redacted(value: Any) -> Any:
    """A JSON value with its secrets replaced."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if SECRET_NAME.search(str(key)) and isinstance(item, str) and item else redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    if isinstance(value, str):
        return SECRET_SHAPE.sub(HIDDEN, value)
    return value


def shortened(text: str, chars_max: int = VALUE_CHARS_MAX) -> str:
    """The text on one line, its middle left out when it is long, and how much that was."""
    flat = text.replace("\n", "⏎").replace("\r", "").replace("\t", " ")
    flat = "".join(character if character.isprintable() else "�" for character in flat)
    if len(flat) <= chars_max:
        return flat
    head, tail = chars_max * 3 // 4, chars_max // 8
    return f"{flat[:head]} …{len(flat) - head - tail:,} characters… {flat[-tail:]}"


def json_text(value: Any) -> str:
    """Compact JSON."""
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def installed_version() -> str | None:
    """Cairn's version; None when it runs from a source tree that was never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cairn-agents")
    except PackageNotFoundError:
        return None


# --- printing -------------------------------------------------------------------------------------------------------


def line(text: str = "") -> None:
    sys.stdout.write(f"{text}\n")


def json_line(value: Any) -> None:
    """One JSON document on one line."""
    line(json_text(value))


def columns(rows: Iterable[Sequence[str]], heading: Sequence[str]) -> list[str]:
    """Rows as aligned columns under a heading; the last column is as long as it is."""
    table = [tuple(heading), *(tuple(row) for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(heading) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in table
    ]


def moment(seconds: float) -> str:
    """Wall-clock seconds as a person reads them, in UTC: the log of one machine is read on another."""
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}Z"


def duration(seconds: float) -> str:
    """`0.4s`, `12s`, `3m`, `2h`, `5d`: one unit is enough to judge by."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"


def size(count: int) -> str:
    """Bytes as a person reads them."""
    number = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"
