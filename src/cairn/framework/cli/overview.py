"""What can be said of an instance without its application: the fold of the runtime's own records, and who owns it.

A spectator's fold: records of other vocabularies are passed over, because this decides nothing. It starts at the
newest checkpoint, so that a listing costs O(tail) per instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.owners import Owners
from cairn.runtime.schedule_state import ScheduleState
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


class Standing(Enum):
    """How the process behind a worker's row stands."""

    ALIVE = "alive"
    SILENT = "silent"
    """Its lease is over and its death is not proved: frozen, or on a machine that stopped."""
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Overview:
    """One line of `cairn ls`."""

    row: InstanceRow
    owner: WorkerRow | None
    standing: Standing
    """Of the owner; DEAD when it has no row any more."""
    unsettled: tuple[FiberState, ...]
    served: bool
    """Some live worker runs instances of this kind."""
    dead: int = 0
    """Fibers whose tries were spent, and nobody has seen to it."""
    schedules: tuple[ScheduleState, ...] = ()
    """The next first."""


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


def standing(worker: WorkerRow, owners: Owners, lease_now: float) -> Standing:
    """What this machine can tell of a worker: its kernel lock proves it dead, its lease shows it alive."""
    if owners.is_dead(worker):
        return Standing.DEAD
    return Standing.ALIVE if worker.lease_until > lease_now else Standing.SILENT


async def workers(store: Store, owners: Owners) -> list[tuple[WorkerRow, Standing]]:
    """Every worker that has a row, and how it stands."""
    now = store.lease_now()
    return [(worker, standing(worker, owners, now)) for worker in await store.workers()]


async def overviews(store: Store, rows: Sequence[InstanceRow], known: Sequence[tuple[WorkerRow, Standing]]) -> list[Overview]:
    """What can be said of these instances. Raises StoreCorrupt."""
    by_id = {worker.id: (worker, how) for worker, how in known}
    served = {kind for worker, how in known if how is Standing.ALIVE for kind in worker.kinds}
    found = []
    for row in rows:
        owner, how = by_id.get(row.owner or "", (None, Standing.DEAD))
        state = await fold(store, row.n)
        dead = sum(fiber.dead for fiber in state.settled.values())
        schedules = tuple(sorted(state.schedules.values(), key=lambda schedule: schedule.next))
        found.append(Overview(row, owner, how, tuple(state.unsettled()), row.address.kind in served, dead, schedules))
    return found
