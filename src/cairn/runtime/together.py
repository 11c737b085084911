"""Appends of one instance that come while another is being written go into the log together, as one batch and one commit.

Laws. An append keeps its records together and in order; whoever made it is told of the batch that has them. Records of several
fibers share a batch only where none can make another one wrong: a record of a fiber's life stands alone for that fiber, and a
step is completed at most once. Should the batch be refused all the same, each append is asked for by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cairn.errors import FiberFailed, UsageError
from cairn.runtime import records as r
from cairn.runtime.state import step_key

if TYPE_CHECKING:
    from cairn.runtime.instance import Instance

#: Appends and bytes of one batch: a row of the store holds a few megabytes, and one commit is not to take long.
APPENDS_MAX = 256
BYTES_MAX = 256 << 10

#: Records of a method on its way. All others are of its life: started, parked, settled.
_WORK = (r.FiberStashed, r.StepStarted, r.StepTried, r.StepCompleted, r.FiberWaiting, r.FiberWaited)


class _Entry:
    """An append that waits for its turn."""

    def __init__(self, records: Sequence[r.Record], blobs: Sequence[str], written: asyncio.Future[int]) -> None:
        self.records = records
        self.blobs = blobs
        self.written = written

    @property
    def size(self) -> int:
        raws = (getattr(record, name, r.NULL) for record in self.records for name in ("result", "value", "request"))
        return sum(len(bytes(raw)) for raw in raws)


class Together:
    """The appends of one instance's fibers."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._waiting: list[_Entry] = []
        self._is_writing = False
        self._task: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[r.Record], *, blobs: Sequence[str] = ()) -> int:
        """As `Instance.append` of a fact: the records are in the log and folded; their ordinal.

        *Cancelled*: nothing is written, or the batch is written and folded. *Raises* as that."""
        if self._is_writing:
            return await self._join(records, blobs)
        self._is_writing = True
        try:
            return await self._instance.append(records, blobs=blobs)
        finally:
            self._is_writing = False
            if self._waiting:
                self._is_writing = True
                self._task = asyncio.create_task(self._write())

    async def _join(self, records: Sequence[r.Record], blobs: Sequence[str]) -> int:
        entry = _Entry(records, blobs, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            return await asyncio.shield(entry.written)
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                await asyncio.wait({entry.written})
                _ = entry.written.cancelled() or entry.written.exception()
            raise

    async def _write(self) -> None:
        """Write until nobody waits. Ends with the appends it is waited for by."""
        try:
            while self._waiting:
                batch = self._take()
                try:
                    await self._commit(batch)
                except BaseException as error:
                    for entry in batch:
                        if not entry.written.done():
                            entry.written.set_exception(error) if isinstance(error, Exception) else entry.written.cancel()
                    if not isinstance(error, Exception):
                        raise
        finally:
            self._is_writing = False

    async def _commit(self, batch: Sequence[_Entry]) -> None:
        try:
            blobs = dict.fromkeys(blob for entry in batch for blob in entry.blobs)
            records = [record for entry in batch for record in entry.records]
            ordinal = await self._instance.append(records, blobs=tuple(blobs))
        except (FiberFailed, UsageError) as error:
            if len(batch) == 1:
                batch[0].written.set_exception(error)
                return
            for entry in batch:
                await self._commit([entry])
            return
        for entry in batch:
            entry.written.set_result(ordinal)

    def _take(self) -> list[_Entry]:
        """The oldest append and those after it that may share its batch, in order."""
        taken: list[_Entry] = []
        left: list[_Entry] = []
        lives: set[str] = set()
        works: dict[str, set[str]] = {}
        size = 0
        for place, entry in enumerate(self._waiting):
            size += entry.size
            if taken and (len(taken) >= APPENDS_MAX or size > BYTES_MAX):
                left += self._waiting[place:]
                break
            marks = list(_marks(entry.records))
            fits = all(_fits(fiber, step, lives, works) for fiber, step in marks)
            for fiber, step in marks:
                # One that was left behind goes first the next time: nothing of its fibers may overtake it.
                works.setdefault(fiber, set()).add(step or "")
                if step is None or not fits:
                    lives.add(fiber)
            (taken if fits else left).append(entry)
        self._waiting = left
        return taken


def _marks(records: Sequence[r.Record]) -> Iterator[tuple[str, str | None]]:
    """(fiber, what of its work) of each record that is a fiber's; None for one of its life."""
    for record in records:
        fiber = getattr(record, "fiber", None)
        if isinstance(fiber, str):
            scope, name = getattr(record, "scope", ""), getattr(record, "name", "")
            yield fiber, step_key(scope, name) + type(record).__name__ if isinstance(record, _WORK) else None


def _fits(fiber: str, step: str | None, lives: set[str], works: dict[str, set[str]]) -> bool:
    if step is None:
        return fiber not in works
    return fiber not in lives and step not in works.get(fiber, ())
