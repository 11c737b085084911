"""How a run is shown: to people as a transcript, to programs as JSON lines.

Laws. With `--json` stdout is the events, one a line. Else, on a terminal, everything is there; in a pipe stdout is the answer
and nothing else, once it is final, and how it came to be goes to stderr, live. Nothing a model or a tool wrote can drive the
terminal.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, Protocol, TextIO

from cairn.framework.cli.output import redacted
from cairn.framework.cli.visible import visible_json
from cairn.harness import events as e
from cairn.harness.handle import Receipt

Beginning = Literal["started", "continuing", "known"]
"""Of the submission that is shown: just admitted; unsettled, and this command goes on with it; or its key was known."""


class Show(Protocol):
    """Where a run is shown."""

    def opened(self, receipt: Receipt, how: Beginning, *, attempts: int = 0, owner: str = "") -> None:
        """It is known what is followed: after so many attempts, run by another process (`owner`) or here."""
        ...

    def event(self, event: e.Event) -> None: ...

    def caught_up(self) -> None:
        """What follows happens now."""
        ...

    def settled(self, event: e.SubmissionSettled, again: str) -> None:
        """It is over; `again` is the command that goes on with the conversation."""
        ...

    def note(self, text: str) -> None:
        """Something about the command itself."""
        ...


def make_show(*, json: bool) -> Show:
    """The way to show a run that fits where stdout goes."""
    if json:
        return JsonShow(sys.stdout)
    from cairn.framework.cli.pen import Pen
    from cairn.framework.cli.transcript import Transcript

    if sys.stdout.isatty():
        return Transcript(Pen(sys.stdout), None)
    return Transcript(Pen(sys.stderr), sys.stdout)


class JsonShow:
    """One JSON object a line, each with an `event`; the last one is `submission.settled`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def _line(self, value: Any) -> None:
        import msgspec

        text = msgspec.json.encode(redacted(msgspec.to_builtins(value))).decode()
        self._out.write(visible_json(text) + "\n")
        self._out.flush()

    def opened(self, receipt: Receipt, how: Beginning, *, attempts: int = 0, owner: str = "") -> None:
        self._line(
            {
                "event": "run.opened",
                "conversation": str(receipt.conversation.address),
                "id": receipt.conversation.id,
                "submission": receipt.submission,
                "offset": receipt.offset,
                "how": how,
                "attempts": attempts,
                "owner": owner or None,
            }
        )

    def event(self, event: e.Event) -> None:
        self._line(event)

    def caught_up(self) -> None: ...

    def settled(self, event: e.SubmissionSettled, again: str) -> None: ...

    def note(self, text: str) -> None:
        sys.stderr.write(f"cairn: {text}\n")
