"""Reading a log: from an offset, to the tail, and on from there, whoever appends.

A reader needs no ownership and no process but its own: it gets bytes only from range reads of the store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from cairn.errors import NotFound, StoreCorrupt
from cairn.runtime.records import Record
from cairn.runtime.storage.store import Address, InstanceRow, Row, Store

#: Before everything: a read after it starts at batch 0.
BEGINNING = -1

#: Rows and bytes of one page: what a reader holds in memory at once.
PAGE_ROWS = 1_000
PAGE_BYTES = 4 << 20


async def locate(store: Store, address: Address) -> InstanceRow:
    """The instance's row. Raises NotFound."""
    row = await store.find(address)
    if row is None:
        raise NotFound(f"no instance {address}: nothing was ever sent to it in this store")
    return row


async def read(store: Store, n: int, after: int = BEGINNING) -> AsyncGenerator[Row, None]:
    """Every row after the offset up to the head as it is when the end is reached."""
    while True:
        page = await store.read(n, after, limit=PAGE_ROWS, bytes_max=PAGE_BYTES)
        for row in page:
            yield row
        # A page that neither limit can have cut short (a row has at most 3 MB) ended at the head: no second read to learn it.
        size = sum(len(row.batch.records) + len(row.batch.chunks) for row in page)
        if len(page) < PAGE_ROWS and size < PAGE_BYTES // 8:
            return
        after = page[-1].ordinal


async def tail(store: Store, n: int, after: int = BEGINNING) -> AsyncGenerator[Row, None]:
    """Every row after the offset, for ever: waits at the head for whoever appends next, in any process."""
    while True:
        async with aclosing(read(store, n, after)) as rows:
            async for row in rows:
                yield row
                after = row.ordinal
        await store.changed(n, after)


def decode(decoder: msgspec.json.Decoder[list[Record]], row: Row, where: str) -> Sequence[Record]:
    """The records of a row. Raises StoreCorrupt when they are not what this code knows (S14)."""
    try:
        return decoder.decode(row.batch.records)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreCorrupt(
            f"{where}, ordinal {row.ordinal}: the stored batch does not fit this version's records: {error}. "
            f"Read it with the version that wrote it, or a newer one"
        ) from None
