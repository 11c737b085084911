"""What Ctrl-C does to a run: the first aborts it, the second leaves at once. Whatever is stored stays stored.

Laws. An abort is a request on the log, so it also reaches an agent that another process runs; the run then settles by
itself, within `limits.abort_seconds`. Leaving is what a kill would do: nothing is cleaned up, because everything that
matters is on the log, and the next run goes on from there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import suppress
from typing import Any, NoReturn

from cairn.framework.cli.output import Exit, one_line
from cairn.framework.cli.show import Show
from cairn.harness.handle import Receipt


class Interrupts:
    """Inside the block, SIGINT is ours."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._receipt: Receipt | None = None
        self._again = ""
        self._is_sending = False
        self._count = 0
        self._abort: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        # Not the loop's own signal handling: it waits for the loop to turn, and a tool that blocks it is when a person
        # presses Ctrl-C. Only the main thread may; a caller in another one keeps its own way to stop.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def sending(self) -> None:
        """From here on the message may be stored: an interrupt waits for the receipt, and aborts it."""
        self._is_sending = True

    def following(self, receipt: Receipt, again: str) -> None:
        """From here on an interrupt aborts this submission."""
        self._receipt, self._again = receipt, again
        if self._count:
            self._ask()

    def _interrupt(self, *_: object) -> None:
        """Between two instructions of the main thread, wherever it is: only the last line may touch the loop."""
        self._count += 1
        if not self._is_sending:
            _leave("stopped; nothing was sent")
        if self._count > 1:
            go_on = f"`{self._again}` goes on from the log" if self._again else "the same command goes on"
            _leave(f"stopped at once; {go_on}")
        self._loop.call_soon_threadsafe(self._first)

    def _first(self) -> None:
        self._show.note("aborting; Ctrl-C again leaves at once")
        if self._receipt is not None:
            self._ask()

    def _ask(self) -> None:
        if self._abort is None and self._receipt is not None:
            self._abort = asyncio.ensure_future(self._request(self._receipt))

    async def _request(self, receipt: Receipt) -> None:
        try:
            await receipt.conversation.abort(receipt.submission, reason="Ctrl-C")
        except Exception as error:
            self._show.note(f"it could not be aborted ({one_line(str(error))}); Ctrl-C again leaves at once")
            self._abort = None


def _leave(note: str) -> NoReturn:
    """End the process as a kill would. The streams may be in the middle of a write: only the descriptor is safe."""
    with suppress(OSError):
        os.write(2, f"\ncairn: {note}\n".encode())
    os._exit(Exit.ABORTED)
