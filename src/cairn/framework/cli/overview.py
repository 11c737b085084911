"""What can be said of an instance without its application: the fold of the runtime's own records, and who owns it.

A spectator's fold: records of other vocabularies are passed over, because this decides nothing. It starts at the
newest checkpoint, so that a listing costs O(tail) per instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.state import FiberState, RuntimeState
from cairn.runtime.storage.store import InstanceRow, Row, Store, WorkerRow


class _Tagged(msgspec.Struct):
    type: str


class _Checkpoint(msgspec.Struct):
    runtime: RuntimeState


_parts = msgspec.json.Decoder(list[msgspec.Raw])
_tag = msgspec.json.Decoder(_Tagged)
_known = r.decoder()
_KNOWN_TAGS = frozenset(str(record.__struct_config__.tag) for record in r.RUNTIME)


@dataclass(frozen=True, slots=True)
class Overview:
    """One line of `cairn ls`."""

    row: InstanceRow
    owner: WorkerRow | None
    owner_alive: bool
    unsettled: tuple[FiberState, ...]
    served: bool
    """Some live worker runs instances of this kind."""


def runtime_records(row: Row) -> Sequence[r.Record]:
    """Those records of a row that are the runtime's."""
    known = [part for part in _parts.decode(row.batch.records) if _tag.decode(part).type in _KNOWN_TAGS]
    return _known.decode(b"[" + b",".join(bytes(part) for part in known) + b"]")


async def fold(store: Store, n: int) -> RuntimeState:
    """The runtime's state of an instance at its head. Raises StoreCorrupt."""
    state, at = RuntimeState(), log.BEGINNING
    found = await store.checkpoint(n)
    if found is not None:
        try:
            state, at = msgspec.json.decode(found[1], type=_Checkpoint).runtime, found[0]
        except msgspec.MsgspecError:  # a cache written by another version: the log has everything
            state, at = RuntimeState(), log.BEGINNING
    async for row in log.read(store, n, at):
        for record in runtime_records(row):
            state.apply(record, row.ordinal)
    return state


def is_alive(worker: WorkerRow, lease_now: float) -> bool:
    """Its lease runs. A process killed a moment ago counts as alive until its lease ends or somebody takes over."""
    return worker.lease_until > lease_now


async def overviews(store: Store, rows: Sequence[InstanceRow]) -> list[Overview]:
    """What is known of these instances now."""
    now = store.lease_now()
    workers = {worker.id: worker for worker in await store.workers()}
    served = {kind for worker in workers.values() if is_alive(worker, now) for kind in worker.kinds}
    found = []
    for row in rows:
        owner = workers.get(row.owner) if row.owner is not None else None
        state = await fold(store, row.n)
        found.append(
            Overview(
                row=row,
                owner=owner,
                owner_alive=owner is not None and is_alive(owner, now),
                unsettled=tuple(state.unsettled()),
                served=row.address.kind in served,
            )
        )
    return found
