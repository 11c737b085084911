"""What a server writes to stderr: its log and its access log, as text or as one JSON object a line.

Laws. Whatever passes through here has its secrets taken out, by their shape: a second net under code that should not log any.
"""

from __future__ import annotations

import logging
import sys

from cairn.framework.cli.output import HIDDEN, SECRET_SHAPE, json_text
from cairn.harness.times import iso

FORMS = ("text", "json", "none")


def configure(form: str) -> None:
    """Everything that is logged in this process goes to stderr in that form; `none` leaves the access log out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("cairn").setLevel(logging.INFO)
    access = logging.getLogger("cairn.access")
    access.propagate = form != "none"
    access.disabled = form == "none"


def _told(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{formatter.formatException(record.exc_info)}"
    return SECRET_SHAPE.sub(HIDDEN, text)


def _at(record: logging.LogRecord) -> str:
    return iso(record.created)


class _Text(logging.Formatter):
    """`TIME LEVEL what happened`; the access log's lines are whole already."""

    def format(self, record: logging.LogRecord) -> str:
        told = _told(self, record)
        return told if record.name == "cairn.access" else f"{_at(record)} {record.levelname.lower()} {record.name}: {told}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = _told(self, record)
        if record.name == "cairn.access":
            return told
        return json_text({"at": _at(record), "level": record.levelname.lower(), "logger": record.name, "message": told})
