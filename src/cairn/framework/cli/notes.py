"""What the library has to say while a command runs, as one line each on stderr instead of pages of traceback.

Laws. A program that has set up logging itself (an agent's file may) keeps its own. CAIRN_DEBUG=1 shows everything.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cairn.framework.cli.output import one_line

#: Characters of one such line.
LINE_CHARACTERS = 400


class _Notes(logging.Handler):
    """Hands each record on as one line."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._note(_line(record))
        except Exception:
            self.handleError(record)


@contextmanager
def told_by(note: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, warnings and errors become notes."""
    root = logging.getLogger()
    if root.handlers:
        yield
        return
    handler = _Notes(note) if os.environ.get("CAIRN_DEBUG") != "1" else logging.StreamHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _line(record: logging.LogRecord) -> str:
    text = one_line(record.getMessage())
    if record.exc_info and record.exc_info[2] is not None:
        frame = traceback.extract_tb(record.exc_info[2])[-1]
        text += f" (at {os.path.basename(frame.filename)}:{frame.lineno}; CAIRN_DEBUG=1 shows more)"
    return f"{record.levelname.lower()}: {text}"[:LINE_CHARACTERS]
