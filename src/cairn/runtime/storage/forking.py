"""A fork: a new instance whose log begins with another's rows, by reference.

One transaction of its own, decided and written under the write lock: nobody merges or deletes beneath it.
"""

from __future__ import annotations

from cairn.errors import Conflict, NotFound, UsageError
from cairn.runtime.storage import reads
from cairn.runtime.storage.connection import Connection
from cairn.runtime.storage.lineage import Place, boundary
from cairn.runtime.storage.plan import RESERVED_BLOCK
from cairn.runtime.storage.queries import execute_rows, query
from cairn.runtime.storage.row import checksum
from cairn.runtime.storage.store import Address, Creation, Forked


def fork(connection: Connection, source: int, at: int, address: Address, creation: Creation, boot: str) -> Forked:
    """The fork is in the open transaction. Raises NotFound, Conflict, UsageError; then nothing was written."""
    place = _place(connection, source, at, address)
    existing = reads.find(connection, address)
    if existing is not None:
        raise Conflict(f"instance {address} exists (uid {existing.uid}); it was to be created. Fork to another address.")
    ordinal = place.ordinal + 1
    [(last,)] = connection.execute(query("last_n"))
    n = last + 1
    # The epoch goes on from the shared rows': so epochs in a log never decrease, in a fork's neither (S4).
    [(epoch,)] = connection.execute(query("find_row_epoch"), place)
    reserved = ordinal + RESERVED_BLOCK - 1  # this commit is synced, as raising it must be
    named = (n, address.tenant, address.kind, address.id, creation.uid, creation.incarnation)
    batch = creation.batch
    size = len(batch.records) + len(batch.chunks)  # what it shares weighs on its source
    # Its source is the owner of the row at which it parts, not whoever shares that row too: so each step of a lineage leads
    # to older rows, and a fork in between can be deleted for good.
    values = (*named, ordinal, reserved, boot, epoch, creation.at, place.n, place.ordinal, size)
    connection.execute(query("fork_instance"), values)
    sum = checksum(n, ordinal, place.ordinal, epoch, batch.records, batch.chunks, batch.projection)
    row = (n, ordinal, place.ordinal, epoch, batch.projection, sum, batch.records, batch.chunks)
    execute_rows(connection, "append_rows", [row])
    connection.execute(query("fork_references"), {"n": n, "source": source, "offset": place.ordinal})
    return Forked(n, creation.uid, creation.incarnation, place.ordinal, ordinal)


def _place(connection: Connection, source: int, at: int, address: Address) -> Place:
    """The row at which the logs part: the one at `at`, or the merged one that covers it."""
    found = reads.instance(connection, source)
    if found is None:
        raise NotFound(f"there is no instance {source} to fork; it may have been deleted")
    if found.address.tenant != address.tenant:
        raise UsageError(f"instance {found.address} cannot be forked into another tenant; fork it within its own")  # S12
    place = boundary(connection, source, at)
    if place.ordinal < at:
        raise NotFound(f"instance {found.address} has no batch {at}; the one before it is {place.ordinal}. Fork there.")
    return place
