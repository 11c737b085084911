"""The records of durable objects: calls of handlers, storage, connections and their frames, sub-objects.

Laws. As `records.py`, which is where everybody imports them from. Which connections there are is lost with the machine, and so
are the connections: a batch of nothing else is a delta.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cairn.runtime.record import NULL, Record

CallWhat = Literal["call", "stream", "request", "connect", "message", "close", "set_state", "state_changed", "open"]


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Makes an accepted fiber a call of one handler of a durable object: it takes the handlers' turn, what it changes and its
    settlement are one batch, and nothing of it is remembered once it has settled."""

    what: CallWhat
    by: str = ""
    """Who calls, as whoever let them in says."""
    connection: str = ""
    """The connection it comes from, if it does."""
    token: str = ""
    """Which opening of that connection: a client that reconnects has the same id."""
    worker: str = ""
    """The worker that has the connection's socket."""
    chain: tuple[str, ...] = ()
    """The objects whose handlers wait for it, the first caller first."""


class ObjectReached(Record, frozen=True, tag="object.reached"):
    """Somebody called an object that did not exist: now it does."""

    at: float


# --- storage ---------------------------------------------------------------------------------------------------------


class StorageChanged(Record, frozen=True, tag="storage.changed"):
    """Keys of an object's storage that were put or deleted together."""

    puts: dict[str, msgspec.Raw] = {}  # noqa: RUF012 - a Struct copies it for each
    deletes: tuple[str, ...] = ()


# --- connections and what is sent over them -------------------------------------------------------------------------


class ConnectionOpened(Record, frozen=True, tag="connection.opened"):
    """A client is connected, through a socket of that worker's process. Replaces one of the same id."""

    connection: str
    token: str
    worker: str
    at: float
    uri: str = ""
    tags: tuple[str, ...] = ()
    state: msgspec.Raw = NULL
    readonly: bool = False
    protocol: bool = True
    by: str = ""


class ConnectionChanged(Record, frozen=True, tag="connection.changed"):
    """What the object keeps with a connection is this now."""

    connection: str
    token: str
    state: msgspec.Raw = NULL
    readonly: bool = False


class ConnectionClosed(Record, frozen=True, tag="connection.closed"):
    """That opening of the connection is over. No news of another one."""

    connection: str
    token: str
    at: float
    code: int = 1006
    reason: str = ""


class ObjectSent(Record, frozen=True, tag="object.sent"):
    """A frame for clients, or a chunk for whoever streams a call. It is sent by whoever has the socket and reads this."""

    text: str | None = None
    binary: bytes | None = None
    to: tuple[str, ...] | None = None
    """The ids of connections; None: all of them …"""
    without: tuple[str, ...] = ()
    """… but these."""
    code: int | None = None
    """The sockets are to be closed with it, and `reason`, after the frame if there is one."""
    reason: str = ""
    call: str = ""
    """The fiber of the call that yielded `chunk`."""
    chunk: msgspec.Raw = NULL


# --- sub-objects ----------------------------------------------------------------------------------------------------


class SubObjectAdded(Record, frozen=True, tag="object.sub.added"):
    """The object has a sub-object of that name. Durable before the sub-object exists, so that none is left behind."""

    kind: str
    name: str
    at: float


class SubObjectRemoved(Record, frozen=True, tag="object.sub.removed"):
    """It is to be destroyed, or is (`gone`)."""

    kind: str
    name: str
    at: float
    gone: bool = False
