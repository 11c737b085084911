"""Ranges of the log as clients read them: stored chunks with their conversation and position spliced in.

Laws. Bytes come from a range read of the store and from nowhere else. A range is encoded once, however many readers wait for
it. What was handed out is never changed: the cache only holds ranges that reach the head as it was when they were read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from cairn.framework.http import offsets
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.snapshots import Snapshots, body, conversation_id
from cairn.runtime.storage.store import InstanceRow, Row, Store

_RESET = b'{"type":"conversation-reset"'


@dataclass(frozen=True, slots=True)
class Frame:
    """The chunks after an offset, comma-separated, up to `next`."""

    chunks: bytes
    next: int
    rows: int


class Frames:
    """The frames of one store."""

    def __init__(self, store: Store, snapshots: Snapshots, limits: HttpLimits) -> None:
        self._store = store
        self._snapshots = snapshots
        self._limits = limits
        self._kept: OrderedDict[tuple[int, int], Frame] = OrderedDict()
        self._bytes = 0
        self._reading: dict[tuple[int, int], asyncio.Future[Frame]] = {}

    async def after(self, row: InstanceRow, after: int, head: int) -> Frame:
        """The chunks after `after`, at most a page of batches. `head` is the last ordinal the caller knows of: a range that
        ends before it is read again, so that a slow reader gets one large frame and not a queue of small ones."""
        place = (row.n, after)
        while True:
            kept = self._kept.get(place)
            if kept is not None and kept.next >= head:
                return kept
            reading = self._reading.get(place)
            is_shared = reading is not None
            if reading is None:
                reading = self._reading[place] = asyncio.ensure_future(self._read(row, after))
            frame = await asyncio.shield(reading)
            if frame.rows or after >= head or not is_shared:
                return frame
            # Somebody else's read that found nothing may have begun before what this caller knows of was appended.

    async def _read(self, row: InstanceRow, after: int) -> Frame:
        try:
            return await self._read_page(row, after)
        finally:
            # Here and not in a callback: who waits for it is woken first, and must not find it again.
            del self._reading[row.n, after]

    async def _read_page(self, row: InstanceRow, after: int) -> Frame:
        limits = self._limits
        page = await self._store.read(row.n, after, limit=limits.page_batches, bytes_max=limits.page_bytes)
        lines: list[bytes] = []
        next = after
        for found in page:
            if _must_reset(found, next):
                if next != after:
                    break
                return await self._reset(row)
            lines.extend(_spliced(row, found))
            next = found.ordinal
        frame = Frame(b",".join(lines), next, len(page))
        self._keep((row.n, after), frame)
        return frame

    async def _reset(self, row: InstanceRow) -> Frame:
        """One chunk that replaces everything a client holds by the conversation as it is now."""
        now = await self._store.instance(row.n) or row
        snapshot = await self._snapshots.at_head(now)
        chunk = _RESET + b',"snapshot":' + body(row, snapshot, incarnation=False) + b"}"
        return Frame(_placed(chunk, conversation_id(row), snapshot.ordinal, 0), snapshot.ordinal, 1)

    def _keep(self, place: tuple[int, int], frame: Frame) -> None:
        if not frame.rows:
            return
        old = self._kept.pop(place, None)
        self._bytes += len(frame.chunks) - (len(old.chunks) if old is not None else 0)
        self._kept[place] = frame
        while len(self._kept) > self._limits.frames_max or (self._bytes > self._limits.frames_bytes and len(self._kept) > 1):
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone.chunks)


def _must_reset(row: Row, at: int) -> bool:
    """Whether a reader at `at` cannot be brought past this row by its chunks: a rewind, or text it has seen a part of."""
    if row.merged_from is not None and row.merged_from <= at:
        return True
    return row.ordinal > 0 and row.batch.chunks.startswith(_RESET)


def _spliced(row: InstanceRow, found: Row) -> list[bytes]:
    if not found.batch.chunks:
        return []
    conversation = conversation_id(row)
    lines = found.batch.chunks.split(b"\n")
    if found.ordinal == 0:
        lines = [_birth(conversation) if line.startswith(_RESET) else line for line in lines]
    return [_placed(line, conversation, found.ordinal, index) for index, line in enumerate(lines)]


def _birth(conversation: str) -> bytes:
    """The reset every conversation begins with: nothing has been said."""
    empty = {"v": 1, "conversationId": conversation, "offset": offsets.text(0), "messages": [], "settlements": []}
    return msgspec.json.encode({"type": "conversation-reset", "snapshot": empty})


def _placed(line: bytes, conversation: str, ordinal: int, index: int) -> bytes:
    """The chunk with what is only known at commit: byte concatenation, no parsing."""
    return b'%s,"conversationId":"%s","position":{"batch":%d,"index":%d}}' % (line[:-1], conversation.encode(), ordinal, index)
