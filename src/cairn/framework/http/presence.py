"""How long a request has two ends: work that is done only while the client is there and the server goes on.

Laws. The work runs in the request's own task; one small task beside it hears the client leave. Whoever is told to end is
cancelled where it waits, once, and only by this file: a cancellation from elsewhere goes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import Enum

from cairn.framework.http.responses import Receive


class End(Enum):
    """Why the work is over."""

    DONE = "done"
    GONE = "gone"
    """The client has closed the connection."""
    STOPPED = "stopped"
    """The server stops, and the client is still there."""


class Stopping:
    """Whether the server stops, and who wants to be told."""

    def __init__(self) -> None:
        self._is_set = False
        self._told: dict[int, Callable[[], None]] = {}

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        """It stops. *Idempotent*."""
        self._is_set = True
        for tell in list(self._told.values()):
            tell()

    @contextmanager
    def tells(self, callback: Callable[[], None]) -> Iterator[None]:
        """Inside the block, the callback is called when the server stops; at once when it does already."""
        self._told[id(callback)] = callback
        try:
            if self._is_set:
                callback()
            yield
        finally:
            del self._told[id(callback)]


async def while_present(work: Coroutine[object, object, None], receive: Receive, stopping: Stopping) -> End:
    """Do the work until it is done, the client leaves, or the server stops. *Cancelled*: so is the work. *Raises* what it
    raises."""
    task = asyncio.current_task()
    assert task is not None
    ends: list[End] = []

    def end(why: End) -> None:
        if not ends:
            ends.append(why)
            task.cancel()

    def stop() -> None:
        end(End.STOPPED)

    watcher = asyncio.ensure_future(_hear(receive, end))
    try:
        with stopping.tells(stop):
            await work
            ends.append(End.DONE)
    except asyncio.CancelledError:
        if not ends or task.uncancel():
            raise
    finally:
        work.close()  # when it never began: the server stops already
        watcher.cancel()
    return ends[0]


async def _hear(receive: Receive, end: Callable[[End], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    end(End.GONE)
