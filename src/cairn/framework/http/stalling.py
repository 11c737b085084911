"""A client that takes nothing of what waits for it is let go. Slow is not stuck: as long as it takes something, it stays."""

from __future__ import annotations

import asyncio
from array import array
from asyncio.events import TimerHandle
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ


def unsent(transport: asyncio.Transport) -> int:
    """Bytes the client has not taken: ours, and the kernel's, which alone change while a slow client reads."""
    count = array("i", [0])
    with suppress(OSError, ValueError):  # not every system counts them; a closed socket has none
        ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, count)
    return transport.get_write_buffer_size() + count[0]


class Stall:
    """From `begin` to `end` the client has to take something every so many seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seconds: float) -> None:
        self._loop = loop
        self._transport = transport
        self._seconds = seconds
        self._timer: TimerHandle | None = None
        self._unsent = 0

    def begin(self) -> None:
        """Our buffer is full. *Idempotent*: it begins anew."""
        self.end()
        self._unsent = unsent(self._transport)
        self._timer = self._loop.call_later(self._seconds, self._look)

    def end(self) -> None:
        """There is room again. *Idempotent*."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        before, self._unsent = self._unsent, unsent(self._transport)
        if self._unsent >= before:
            self._timer = None
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self._seconds, self._look)
