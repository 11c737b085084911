"""Writing on one stream, live: whole lines, text that grows, and a line that is replaced. Colours only on a terminal.

Laws. Everything that is written is made visible first. `rich` is imported only for a terminal: a pipe does not pay for it.
"""

from __future__ import annotations

from typing import Any, TextIO

from cairn.framework.cli.visible import visible

#: To the start of the line and erase it: the only thing ever sent that is not text or a colour.
_ERASE_LINE = "\r\x1b[2K"


class Pen:
    """Writes on `out`. A *status* is a last line on a terminal that the next writing replaces."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._console = _console(out) if out.isatty() else None
        self._open = ""
        self._has_status = False

    @property
    def is_terminal(self) -> bool:
        return self._console is not None

    @property
    def columns(self) -> int | None:
        """How many characters fit on a line; None in a pipe."""
        width: int | None = self._console.width if self._console is not None else None
        return width

    def line(self, text: str, style: str = "") -> None:
        """The text stands on lines of its own."""
        self.end_line()
        self._write(text + "\n", style)

    def gap(self) -> None:
        """An empty line between two things."""
        self.end_line()
        self._write("\n")

    def flow(self, text: str, kind: str, style: str = "") -> None:
        """More text of a kind, where the last of that kind ended; another kind begins a new line.

        It is the terminal that wraps it: what is copied from the screen has the line breaks it was written with.
        """
        if kind != self._open:
            self.end_line()
        self._write(text, style)
        self._open = "" if text.endswith("\n") else kind

    def status(self, text: str, style: str = "") -> None:
        """What is going on, until something is written. Nothing in a pipe, and nothing in the middle of a line."""
        if self._console is None or self._open:
            return
        # One column is left free: a full line would wrap, and then only its second half be erased.
        room = max(8, (self.columns or 0) - 1)
        last = next((each for each in reversed(text.splitlines()) if each.strip()), "")
        self._write(visible(last.expandtabs(4))[:room], style)
        self._has_status = True

    def end_line(self) -> None:
        """Whatever comes next begins a line."""
        if self._open:
            self._write("\n")
        self._open = ""
        self._erase()

    def _write(self, text: str, style: str = "") -> None:
        self._erase()
        if self._console is None:
            self._out.write(visible(text))
        else:
            from rich.text import Text

            self._console.print(Text(visible(text), style=style), end="", soft_wrap=True)
        self._out.flush()

    def _erase(self) -> None:
        if self._has_status:
            self._out.write(_ERASE_LINE)
            self._out.flush()
        self._has_status = False


def _console(out: TextIO) -> Any:
    from rich.console import Console

    return Console(file=out, soft_wrap=True, highlight=False)
