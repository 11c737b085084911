"""Conversations at their head, kept in memory for the next reader and in the store for the next process.

Laws. A cache: whatever it forgets, it folds again from the stored chunks. What it answers is at the head as the store says it
at the call. One fold per conversation at a time; memory is bounded.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import msgspec

from cairn.framework.http import offsets
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.snapshot import SNAPSHOT, Snapshot
from cairn.runtime.storage.store import InstanceRow, Row, Store

#: Rows folded since a snapshot was saved that make it worth saving again …
SAVE_ROWS_MIN = 256
#: … if they weigh this share of it: the sum of all saved snapshots stays linear in the log.
SAVE_GROWTH = 0.25


#: What a kept conversation weighs beside its words.
KEPT_BYTES = 4_096


class _Kept:
    """One conversation's snapshot."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.turn = asyncio.Lock()
        self.bytes = 0
        self.rows_unsaved = 0
        self.bytes_unsaved = 0
        self.bytes_saved = 0
        self.body: tuple[int, bytes] | None = None

    @property
    def weight(self) -> int:
        """About what it holds in memory."""
        return KEPT_BYTES + self.bytes + (len(self.body[1]) if self.body is not None else 0)


class Snapshots:
    """The snapshots of one store."""

    def __init__(self, store: Store, limits: HttpLimits) -> None:
        self._store = store
        self._limits = limits
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    def forget(self, n: int) -> None:
        """Nothing of this conversation stays in memory: it was deleted."""
        self._kept.pop(n, None)

    async def at_head(self, row: InstanceRow) -> Snapshot:
        """The conversation, no older than `row`. Valid until the next await."""
        return (await self._caught_up(row)).snapshot

    async def history(self, row: InstanceRow) -> tuple[int, bytes]:
        """The head, and the answer to `view=history` at it."""
        kept = await self._caught_up(row)
        snapshot = kept.snapshot
        if kept.body is None or kept.body[0] != snapshot.ordinal:
            kept.body = (snapshot.ordinal, body(row, snapshot, incarnation=True))
        return kept.body

    async def _caught_up(self, row: InstanceRow) -> _Kept:
        kept = self._kept.get(row.n)
        if kept is None:
            kept = self._kept[row.n] = _Kept()
        self._kept.move_to_end(row.n)
        async with kept.turn:
            if kept.snapshot.ordinal == -1:
                await self._load(row.n, kept)
            if kept.snapshot.ordinal < row.head:
                await self._fold(row.n, kept, row.head)
        self._forget()
        return kept

    async def _load(self, n: int, kept: _Kept) -> None:
        found = await self._store.snapshot(n, SNAPSHOT)
        if found is not None:
            try:
                kept.snapshot = Snapshot.load(found[1])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return
            kept.bytes = kept.bytes_saved = len(found[1])

    async def _fold(self, n: int, kept: _Kept, head: int) -> None:
        while kept.snapshot.ordinal < head:
            page = await self._store.read(n, kept.snapshot.ordinal, limit=self._limits.fold_rows)
            if not page:
                break  # deleted
            for row in page:
                if _is_inside(row, kept.snapshot.ordinal):
                    await self._begin_again(n, kept)
                    break
                kept.snapshot.feed(row.batch.chunks, row.ordinal)
                kept.rows_unsaved += 1
                kept.bytes_unsaved += len(row.batch.chunks)
                kept.bytes += len(row.batch.chunks)
            kept.snapshot.rest()
        if kept.rows_unsaved >= SAVE_ROWS_MIN and kept.bytes_unsaved >= kept.bytes_saved * SAVE_GROWTH:
            data = kept.snapshot.dump()
            kept.rows_unsaved = kept.bytes_unsaved = 0
            kept.bytes_saved = len(data)
            await self._store.save_snapshot(n, kept.snapshot.ordinal, SNAPSHOT, data)

    async def _begin_again(self, n: int, kept: _Kept) -> None:
        """From what was saved, or from nothing: rows were merged of which the fold has some and not others. What is saved
        never ends inside of merged rows."""
        folded = kept.snapshot.ordinal
        kept.snapshot, kept.bytes, kept.rows_unsaved, kept.bytes_unsaved = Snapshot(), 0, 0, 0
        await self._load(n, kept)
        if kept.snapshot.ordinal >= folded:
            kept.snapshot = Snapshot()

    def _forget(self) -> None:
        total = sum(kept.weight for kept in self._kept.values())
        for n, kept in list(self._kept.items()):
            if total <= self._limits.snapshot_bytes or len(self._kept) == 1:
                return
            if not kept.turn.locked():
                del self._kept[n]
                total -= kept.weight


def _is_inside(row: Row, ordinal: int) -> bool:
    """Whether a merged row begins before where the fold stands: some of it has been folded already."""
    return row.merged_from is not None and row.merged_from <= ordinal


def body(row: InstanceRow, snapshot: Snapshot, *, incarnation: bool) -> bytes:
    """The snapshot as clients read it: a history with the incarnation, a reset without."""
    head = {"v": 1, "conversationId": conversation_id(row), "offset": offsets.text(snapshot.ordinal)}
    parts = [msgspec.json.encode(head)[:-1], b',"messages":', snapshot.messages(), b',"settlements":', snapshot.settlements()]
    if incarnation:
        parts += [b',"incarnation":', msgspec.json.encode(row.incarnation)]
    return b"".join([*parts, b"}"])


def conversation_id(row: InstanceRow) -> str:
    """What clients call this life of the conversation."""
    return f"conv_{row.uid.removeprefix('inst_')}"
