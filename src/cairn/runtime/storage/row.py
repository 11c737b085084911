"""A log row's checksum. Pure. It covers everything in the row, so that a flipped bit or a misplaced row is seen (S14)."""

from __future__ import annotations

from struct import Struct
from zlib import crc32

_HEADER = Struct("<7q")

#: In the checksum, `merged_from` of a row that stands only for itself. No ordinal is negative.
_NOT_MERGED = -1


def checksum(
    n: int,
    ordinal: int,
    prev: int,
    epoch: int,
    records: bytes,
    chunks: bytes,
    projection: int = 0,
    merged_from: int | None = None,
) -> int:
    """The row's checksum. The length of `records` is under it too, so that no byte can move between the two contents."""
    merged = _NOT_MERGED if merged_from is None else merged_from
    header = _HEADER.pack(n, ordinal, prev, epoch, projection, merged, len(records))
    return crc32(chunks, crc32(records, crc32(header)))
