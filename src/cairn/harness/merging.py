"""Rows of deltas that nobody has to tell apart any more, made into one: what the store is asked, what a reader makes of it.

An answer of five hundred deltas is five hundred rows. Once its submission is settled, consecutive rows that only hold deltas of
one block of one message become one row at the last of their ordinals, with all of the text and one chunk.

Laws. Pure. Deltas are the only records ever merged; nothing they say is lost: the merged record remembers how much of the text
each row had, so that a follower who stood in between reads on exactly there (S3). What does not look as this code would have
written it (another projection, a chunk it does not know) is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.harness.records import MessageDelta
from cairn.harness.usage import DELTAS
from cairn.runtime import records as r
from cairn.runtime.storage.store import Batch, Row

#: Bytes of records and chunks that go into one merged row. A row takes 1 MB of records; a reader gets at least one whole row.
MERGED_BYTES_MAX = 256 * 1024

Decode = Callable[[Row], Sequence[r.Record]]

_encode = msgspec.json.Encoder().encode
_decode_chunk = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class Merge:
    """The rows from `first` to `last` are to be one row with this content."""

    first: int
    last: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class _Delta:
    """A row that only holds deltas of one block."""

    row: Row
    record: MessageDelta
    """All of its text."""
    chunk: dict[str, Any] | None
    """All of its chunks as one; None when it has none."""

    def precedes(self, other: _Delta) -> bool:
        """Whether the other is the next row, with more of the same."""
        return (
            other.row.ordinal == self.row.ordinal + 1
            and other.row.epoch == self.row.epoch
            and other.row.batch.projection == self.row.batch.projection
            and _without(self.record) == _without(other.record)
            and _head(self.chunk) == _head(other.chunk)
        )


class Merger:
    """Finds what can be merged in a log that is fed to it row by row, all of it of settled submissions."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._run: list[_Delta] = []
        self._size = 0

    def feed(self, row: Row) -> Merge | None:
        """The next row; what ended with it."""
        delta = _delta(row, self._decode)
        size = len(row.batch.records) + len(row.batch.chunks)
        ended = None
        if self._run and (delta is None or not self._run[-1].precedes(delta) or self._size + size > MERGED_BYTES_MAX):
            ended = self.end()
        if delta is not None:
            self._run.append(delta)
            self._size += size
        return ended

    def end(self) -> Merge | None:
        """There are no more rows."""
        run, self._run, self._size = self._run, [], 0
        return _merged(run) if len(run) > 1 else None


def unseen(records: Sequence[r.Record], rows_seen: int) -> list[r.Record]:
    """What a merged row says to a reader who has seen the first `rows_seen` of the rows that were merged into it."""
    found: list[r.Record] = []
    for record in records:
        assert isinstance(record, MessageDelta) and record.lengths, "only deltas are merged"
        text = record.text[sum(record.lengths[:rows_seen]) :]
        if text:
            found.append(msgspec.structs.replace(record, text=text, lengths=()))
    return found


def _delta(row: Row, decode: Decode) -> _Delta | None:
    """The row, if it is one that can be merged."""
    if row.merged_from is not None or not row.batch.records.startswith(DELTAS):
        return None
    records = decode(row)
    first = records[0]
    assert isinstance(first, MessageDelta)
    if any(not isinstance(record, MessageDelta) or _without(record) != _without(first) for record in records):
        return None
    chunks = [_decode_chunk(line) for line in row.batch.chunks.split(b"\n") if line]
    if chunks and (len(chunks) != len(records) or any(_head(chunk) != _head(chunks[0]) for chunk in chunks)):
        return None
    text = "".join(record.text for record in records)  # type: ignore[attr-defined]
    if chunks and (chunks[0].get("type") != "message-delta" or "".join(chunk["delta"] for chunk in chunks) != text):
        return None
    chunk = {**chunks[0], "delta": text} if chunks else None
    return _Delta(row, msgspec.structs.replace(first, text=text), chunk)


def _without(record: r.Record) -> tuple[Any, ...]:
    assert isinstance(record, MessageDelta)
    return record.message, record.block, record.kind


def _head(chunk: dict[str, Any] | None) -> dict[str, Any] | None:
    """A delta's chunk without its text."""
    return None if chunk is None else {name: value for name, value in chunk.items() if name != "delta"}


def _merged(run: Sequence[_Delta]) -> Merge:
    first, last = run[0], run[-1]
    text = "".join(delta.record.text for delta in run)
    record = msgspec.structs.replace(first.record, text=text, lengths=tuple(len(delta.record.text) for delta in run))
    chunks = b"" if first.chunk is None else _encode({**first.chunk, "delta": text})
    return Merge(first.row.ordinal, last.row.ordinal, Batch(r.encode([record]), chunks, last.row.batch.projection))
