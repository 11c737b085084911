"""Calling listeners with what has become durable, where nothing they do can reach a run."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from cairn.harness.events import Event, EventStream
from cairn.runtime.records import Record
from cairn.runtime.storage.store import Address

logger = logging.getLogger("cairn.framework")

Listener = Callable[[Address, Event], Awaitable[None] | None]

#: Events that wait for a slow listener; beyond that its oldest are dropped, and it is told so in the log.
WAITING_MAX = 10_000
#: Seconds a listener is given at shutdown for what waits.
DRAIN_SECONDS = 5.0


class Listeners:
    """Each listener has a queue and a task of its own: slow, hanging and throwing ones only hurt themselves (F6)."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._queues: list[asyncio.Queue[tuple[Address, Event]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._streams: WeakKeyDictionary[Any, EventStream] = WeakKeyDictionary()

    def committed(self, instance: Any, ordinal: int, records: Sequence[Record]) -> None:
        """Told by the loop after each commit."""
        if not self._listeners:
            return
        stream = self._streams.get(instance)
        if stream is None:
            stream = self._streams[instance] = EventStream()
        for event in stream.feed(records, ordinal):
            for queue in self._queues:
                if queue.full():
                    queue.get_nowait()
                    queue.task_done()
                    logger.warning("a listener is %d events behind; its oldest one is dropped", WAITING_MAX)
                queue.put_nowait((instance.address, event))

    def start(self) -> None:
        for listener in self._listeners:
            queue: asyncio.Queue[tuple[Address, Event]] = asyncio.Queue(WAITING_MAX)
            self._queues.append(queue)
            self._tasks.append(asyncio.create_task(_serve(listener, queue)))

    async def stop(self) -> None:
        """Give listeners a moment for what waits, then let go."""
        if self._queues:
            waits = [asyncio.ensure_future(queue.join()) for queue in self._queues]
            await asyncio.wait(waits, timeout=DRAIN_SECONDS)
            for task in (*waits, *self._tasks):
                task.cancel()
            await asyncio.gather(*waits, *self._tasks, return_exceptions=True)
        self._queues, self._tasks = [], []


async def _serve(listener: Listener, queue: asyncio.Queue[tuple[Address, Event]]) -> None:
    while True:
        address, event = await queue.get()
        try:
            result = listener(address, event)
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("a listener raised; the run goes on")
        finally:
            queue.task_done()
