"""Content by hash. Large content goes in before the small commit that refers to it, a piece per transaction, so that no
group of appends ever waits for more than one piece.

An upload is one row with `complete = 0` and its chunks; completing it makes it readable. Two uploads of the same content
are two rows until one of them is complete. What nobody refers to is collected once nobody touched it for a grace period;
that includes uploads that were never completed.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from cairn.errors import NotFound, StoreCorrupt
from cairn.runtime.storage.connection import Connection, moment, overwriting
from cairn.runtime.storage.queries import query

#: One transaction's worth of content: large enough to amortise it, small enough that an append behind it waits a few ms.
CHUNK_BYTES = 256 << 10

#: Content deleted per transaction while collecting, for the same reason.
COLLECT_BLOBS_MAX = 16


def hash_of(data: bytes) -> str:
    """The name of content."""
    return f"sha256:{sha256(data).hexdigest()}"


def pieces(data: bytes) -> Iterator[bytes]:
    """The content in chunks; empty content has none."""
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def touch(connection: Connection, tenant: str, hash: str, now: float) -> bool:
    """Whether the content is here; if so its grace period has begun anew."""
    return bool(connection.execute(query("touch_blob"), {"tenant": tenant, "hash": hash, "now": now}))


def begin(connection: Connection, tenant: str, hash: str, size: int, now: float) -> int:
    """A new upload."""
    [(blob,)] = connection.execute(query("begin_blob"), (tenant, hash, size, now))
    return int(blob)


def add(connection: Connection, blob: int, i: int, piece: bytes) -> None:
    connection.execute(query("keep_blob_chunk"), (blob, i, piece))


def complete(connection: Connection, blob: int, now: float) -> None:
    """The content is readable, through this upload or one that was first."""
    if not connection.execute(query("complete_blob"), {"blob": blob, "now": now}):
        connection.execute(query("drop_blob"), (blob,))


def get(connection: Connection, tenant: str, hash: str) -> bytes:
    """Raises NotFound, StoreCorrupt."""
    with moment(connection):  # it may be collected meanwhile
        found = connection.execute(query("find_blob"), (tenant, hash))
        if not found:
            raise NotFound(f"content {hash} is not stored for tenant {tenant!r}")
        data = b"".join(row[0] for row in connection.execute(query("read_blob"), (found[0][0],)))
    if hash_of(data) != hash:
        raise StoreCorrupt(f"content {hash} of tenant {tenant!r} no longer has that hash; restore a backup")  # S14
    return data


def collect(connection: Connection, before: float, after: int) -> tuple[int, int]:
    """Delete some content beyond the row `after` that nobody refers to or has touched since `before`: how much, how far."""
    found = connection.execute(query("unreferenced_blobs"), {"before": before, "after": after, "limit": COLLECT_BLOBS_MAX})
    with overwriting(connection):
        for (blob,) in found:
            connection.execute(query("drop_blob"), (blob,))
    return len(found), found[-1][0] if found else after
