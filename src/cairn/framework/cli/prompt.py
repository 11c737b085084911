"""What a person types, one message at a time; what a program writes, one message a line.

Laws. A paste of several lines is one message. Nothing is read ahead that belongs to the next message.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import suppress

from cairn.errors import UsageError

#: Seconds in which further lines belong to the same paste: a terminal hands them over at once, a person does not.
PASTE_SECONDS = 0.03
#: Characters of one message; a record holds at most 1 MB.
MESSAGE_CHARACTERS_MAX = 200_000

PROMPT = "› "


def at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


class Typed:
    """A person at a terminal, with history and editing where the interpreter has them."""

    def __init__(self) -> None:
        with suppress(ImportError):
            import readline

            # A paste arrives as a whole and waits for Enter, where the library knows how; elsewhere `_rest` gathers it.
            with suppress(Exception):
                readline.parse_and_bind("set enable-bracketed-paste on")

    def next(self) -> str:
        """The next message. *Raises* EOFError at the end, KeyboardInterrupt for Ctrl-C."""
        sys.stdout.flush()
        first = input(PROMPT)
        return first if first.startswith("/") else "\n".join([first, *self._rest()])

    def _rest(self) -> Iterator[str]:
        # From the terminal itself: the stream would read ahead, and keep what the next prompt asks the terminal for.
        terminal = sys.stdin.fileno()
        while select.select([terminal], [], [], PASTE_SECONDS)[0]:
            lines = os.read(terminal, MESSAGE_CHARACTERS_MAX).decode(errors="replace")
            if not lines:
                return
            # What came while the line was edited still has the returns that the keyboard sends.
            yield from lines.replace("\r", "\n").removesuffix("\n").split("\n")


def piped() -> Iterator[str]:
    """The messages of a program: each line that is not blank. *Raises* UsageError for what is no text."""
    while True:
        try:
            line = sys.stdin.readline(MESSAGE_CHARACTERS_MAX)
        except UnicodeDecodeError as error:
            raise UsageError(f"a message on standard input is not UTF-8 text (byte {error.start})") from None
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")
