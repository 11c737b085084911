"""What the log of one instance says, at one ordinal: for its owner, and for anybody who reads.

Laws. It only ever changes by applying rows in log order, each after the one it names (S2). A checkpoint is a cache: one that
cannot be read is passed over, and the log is folded instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from cairn.errors import StoreCorrupt
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.application import Application
from cairn.runtime.files_tree import OF_FILES, Files
from cairn.runtime.state import RuntimeState
from cairn.runtime.storage.store import Address, Row, Store

#: A checkpoint is due when this many rows were folded since the last one …
CHECKPOINT_ROWS_MIN = 256
#: … and they weigh more than this share of it: keeps the sum of all checkpoints linear in the log.
CHECKPOINT_GROWTH = 0.25


class _Checkpoint(msgspec.Struct):
    format: int
    runtime: RuntimeState
    application: msgspec.Raw
    files: msgspec.Raw = r.NULL


_CHECKPOINT_FORMAT = 1
_encode = msgspec.json.Encoder().encode
_decode_checkpoint = msgspec.json.Decoder(_Checkpoint).decode


class Fold:
    """The state of one instance at one ordinal, without any claim to own it."""

    def __init__(self, application: Application, n: int, address: Address) -> None:
        self.application = application
        self.n = n
        self.address = address
        self._decoder = r.decoder(application.records)
        self._begin()

    def _begin(self) -> None:
        self.head = log.BEGINNING
        self.runtime = RuntimeState()
        self.state: Any = self.application.initial()
        self.files = Files()
        self.rows_since_checkpoint = 0
        self.bytes_since_checkpoint = 0
        self.checkpoint_bytes = 0

    async def load(self, store: Store, at: int | None = None) -> None:
        """Fold from the newest checkpoint to the head (or to ordinal `at`). Raises StoreCorrupt (S14)."""
        found = await store.checkpoint(self.n, at)
        if found is not None:
            ordinal, data = found
            self._restore(ordinal, data)
        await self.catch_up(store, at)

    async def catch_up(self, store: Store, at: int | None = None) -> None:
        """Fold what was appended since. A fold that ends inside a range that was merged is folded anew: the merged row holds
        some of what it has."""
        async for row in log.read(store, self.n, self.head):
            if at is not None and row.ordinal > at:
                return
            if row.merged_from is not None and row.merged_from <= self.head < row.ordinal:
                break
            self.apply_row(row)
        else:
            return
        self._begin()
        await self.load(store, at)

    def apply_row(self, row: Row) -> None:
        """Fold the row that follows. Raises StoreCorrupt when another one does (S2), or it cannot be read (S14)."""
        if row.ordinal <= self.head:
            return
        if row.prev != self.head:
            raise StoreCorrupt(
                f"{self.address}: batch {row.ordinal} follows {row.prev}, but the last one read is {self.head}; "
                f"a batch is missing (S2). Restore the store from a backup"
            )
        records = log.decode(self._decoder, row, str(self.address))
        self.apply(records, row.ordinal, len(row.batch.records))

    def apply(self, records: Iterable[r.Record], ordinal: int, size: int) -> None:
        application, runtime, state = self.application, self.runtime, self.state
        for record in records:
            runtime.apply(record, ordinal)
            application.apply(state, record, ordinal)
            if isinstance(record, OF_FILES):
                self.files.apply(record, ordinal)
            fiber = application.progress(record)
            if fiber is not None:
                runtime.progressed(fiber, getattr(record, "at", None))
        self.head = ordinal
        self.rows_since_checkpoint += 1
        self.bytes_since_checkpoint += size

    def wants_checkpoint(self) -> bool:
        return (
            self.rows_since_checkpoint >= CHECKPOINT_ROWS_MIN
            and self.bytes_since_checkpoint >= self.checkpoint_bytes * CHECKPOINT_GROWTH
        )

    def checkpoint(self) -> bytes:
        application = msgspec.Raw(self.application.dump(self.state))
        files = self.files.dump()
        data = _encode(_Checkpoint(format=_CHECKPOINT_FORMAT, runtime=self.runtime, application=application, files=files))
        self.rows_since_checkpoint = self.bytes_since_checkpoint = 0
        self.checkpoint_bytes = len(data)
        return data

    def _restore(self, ordinal: int, data: bytes) -> None:
        """A checkpoint is a cache: one this code cannot read is passed over and the log is folded instead."""
        try:
            decoded = _decode_checkpoint(data)
            if decoded.format != _CHECKPOINT_FORMAT:
                return
            state = self.application.load(bytes(decoded.application))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        self.runtime, self.state, self.head = decoded.runtime, state, ordinal
        self.files = Files.load(decoded.files)
        self.checkpoint_bytes = len(data)
