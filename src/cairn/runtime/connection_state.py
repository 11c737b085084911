"""What the fold knows of the clients that are connected to an instance. Pure.

Laws. An opening of a connection is known by its token: a client that reconnects has the same id and another token, and what is
said of the old one is no news of the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.runtime import records as r

if TYPE_CHECKING:
    from cairn.runtime.state import RuntimeState


class ConnectionState(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    token: str
    worker: str
    """The worker that has its socket; empty when that process has none."""
    since: float = 0.0
    uri: str = ""
    tags: tuple[str, ...] = ()
    state: msgspec.Raw = r.NULL
    readonly: bool = False
    protocol: bool = True
    by: str = ""


def _opened(state: RuntimeState, record: r.ConnectionOpened, ordinal: int) -> None:
    state.connections[record.connection] = ConnectionState(
        id=record.connection,
        token=record.token,
        worker=record.worker,
        since=record.at,
        uri=record.uri,
        tags=record.tags,
        state=record.state.copy(),
        readonly=record.readonly,
        protocol=record.protocol,
        by=record.by,
    )


def _changed(state: RuntimeState, record: r.ConnectionChanged, ordinal: int) -> None:
    known = state.connections.get(record.connection)
    if known is not None and known.token == record.token:
        after = msgspec.structs.replace(known, state=record.state.copy(), readonly=record.readonly)
        state.connections[record.connection] = after


def _closed(state: RuntimeState, record: r.ConnectionClosed, ordinal: int) -> None:
    known = state.connections.get(record.connection)
    if known is not None and known.token == record.token:
        del state.connections[record.connection]


def _sent(state: RuntimeState, record: r.ObjectSent, ordinal: int) -> None:
    if record.call in state.fibers:
        state.fibers[record.call].chunks += 1


HANDLERS: dict[type[r.Record], Callable[[Any, Any, int], None]] = {
    r.ConnectionOpened: _opened,
    r.ConnectionChanged: _changed,
    r.ConnectionClosed: _closed,
    r.ObjectSent: _sent,
}
