"""What one handler, or one transaction of a fiber, has changed and not committed.

Laws. Nothing of it is visible to anybody but the code it belongs to; it becomes records all at once, or never. It is made while
the turn is had, so what it was copied from does not change under it. When its handler has ended it is closed: a task that the
handler left behind finds the committed state, and can change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec

from cairn.errors import Denied, UsageError
from cairn.runtime import records as r
from cairn.runtime.connection_state import ConnectionState
from cairn.runtime.connections import Connection
from cairn.runtime.instance import Instance
from cairn.runtime.object_state import ObjectFold, StateShape, weight
from cairn.runtime.settings import STORAGE_BYTES_MAX, STORAGE_VALUE_BYTES_MAX

SERVER = "server"

Validate = Callable[[Any, str], None]


class Draft:
    """Made for one handler. `call` says who called it."""

    def __init__(
        self,
        instance: Instance,
        shape: StateShape[Any],
        call: r.Call | None = None,
        *,
        read_only: bool = False,
        source: str = SERVER,
    ) -> None:
        self.instance = instance
        self.call = call
        self.read_only = read_only
        self.source = source
        self.is_open = True
        self.destroys = False
        self.opening: r.ConnectionOpened | None = None
        self.closing: r.ConnectionClosed | None = None
        self._shape = shape
        fold: ObjectFold = instance.state
        self._fields = dict(fold.fields)
        self._begin()

    def _begin(self) -> None:
        self._value: Any = None
        self._before: dict[str, bytes] = {}
        self._puts: dict[str, msgspec.Raw] = {}
        self._deletes: dict[str, None] = {}
        self._sent: list[r.ObjectSent] = []
        self._connections: dict[str, Connection] = {}

    # --- state

    @property
    def state(self) -> Any:
        """The value that user code changes. Made at first use: a handler that ignores the state pays nothing."""
        if self._value is None:
            self._value = self._shape.load(self._fields)
            self._before = self._shape.dump(self._value)
        return self._value

    def replace(self, value: Any) -> None:
        """The state is this, whole."""
        self.demand_writable()
        _ = self.state
        self._value = value

    def changes(self) -> dict[str, msgspec.Raw]:
        return self._shape.changes(self._before, self._value) if self._value is not None else {}

    # --- storage

    def get(self, key: str) -> msgspec.Raw | None:
        if key in self._puts:
            return self._puts[key]
        return None if key in self._deletes else self.instance.state.storage.get(key)

    def put(self, key: str, raw: msgspec.Raw) -> None:
        self.demand_writable()
        if (size := weight(key, raw)) > STORAGE_VALUE_BYTES_MAX:
            raise UsageError(
                f"'{key}' weighs {size:,} bytes, of {STORAGE_VALUE_BYTES_MAX:,} that a value may; keep it in a file"
            )
        self._deletes.pop(key, None)
        self._puts[key] = raw

    def delete(self, key: str) -> bool:
        self.demand_writable()
        known = self.get(key) is not None
        self._puts.pop(key, None)
        if key in self.instance.state.storage:
            self._deletes[key] = None
        return known

    def keys(self) -> list[str]:
        stored = self.instance.state.storage.keys() - self._deletes.keys()
        return sorted(stored | self._puts.keys())

    # --- connections

    def connections(self) -> list[Connection]:
        """Those that are open, this handler's changes included."""
        known = [self.connection(each) for each in self.instance.runtime.connections.values()]
        if self.opening is not None:
            known = [each for each in known if each.id != self.opening.connection]
            known.append(self._connections[self.opening.connection])
        return known

    def connection(self, state: ConnectionState) -> Connection:
        """The one handle of that connection in this draft."""
        return self._connections.setdefault(
            state.id,
            Connection(
                state.id,
                state.uri,
                tags=state.tags,
                state=msgspec.json.decode(state.state),
                readonly=state.readonly,
                protocol=state.protocol,
                by=state.by,
                worker=state.worker,
                token=state.token,
                outbox=lambda: self,
            ),
        )

    def open(self, opening: r.ConnectionOpened) -> Connection:
        """A connection that is about to be: it is one when this is committed."""
        self.opening = opening
        connection = Connection(
            opening.connection,
            opening.uri,
            tags=opening.tags,
            state=msgspec.json.decode(opening.state),
            readonly=opening.readonly,
            protocol=opening.protocol,
            by=opening.by,
            worker=opening.worker,
            token=opening.token,
            outbox=lambda: self,
        )
        self._connections[connection.id] = connection
        return connection

    def send(self, sent: r.ObjectSent) -> None:
        self._demand_open()
        self._sent.append(sent)

    def change(self, connection: Connection) -> None:
        self.demand_writable()
        connection.is_changed = True

    # --- its end

    def records(self, validate: Validate) -> list[r.Record]:
        """All of it, in the order readers need. *Raises* UsageError: it cannot be stored, or was not to change; Denied: it was
        asked for by a connection that is readonly; what `validate` raises."""
        changes = self.changes()
        if changes:
            if self.read_only:
                raise UsageError(
                    f"a read_only method of {self.instance.address} changed its state: {', '.join(sorted(changes))}"
                )
            self._refuse_readonly()
            validate(self._value, self.source)
        found: list[r.Record] = []
        if self.opening is not None:
            found.append(self._opened(self.opening, self._connections[self.opening.connection]))
        if changes:
            found.append(r.StateChanged(changes=changes, source=self.source))
        if self._puts or self._deletes:
            self._weigh()
            found.append(r.StorageChanged(puts=self._puts, deletes=tuple(self._deletes)))
        found += [_changed(each) for each in self._connections.values() if each.is_changed and not self._opens(each)]
        found += self._sent
        if self.closing is not None:
            found.append(self.closing)
        if self.destroys:
            found.append(r.DestroyRequested(at=self.instance.clock.wall()))
        return found

    def committed(self) -> None:
        """What was staged is in the log: go on from there."""
        self._fields = dict(self.instance.state.fields)
        value = self._value
        for connection in self._connections.values():
            connection.is_changed = False
        connections, self.opening, self.closing = self._connections, None, None
        self._begin()
        self._connections = connections
        if value is not None:
            self._value, self._before = value, self._shape.dump(value)

    def forget(self) -> None:
        """Nothing that was staged happens, but that a connection is over."""
        self._begin()
        self.opening, self.destroys = None, False

    def close(self) -> None:
        self.is_open = False

    def demand_writable(self) -> None:
        self._demand_open()
        if self.read_only:
            raise UsageError(f"a read_only method of {self.instance.address} cannot change anything; leave out read_only=True")

    def _demand_open(self) -> None:
        if not self.is_open:
            raise UsageError(f"the handler of {self.instance.address} has ended; what it left behind can change nothing")

    def _refuse_readonly(self) -> None:
        id = self.call.connection if self.call is not None and self.call.what in _FROM_CLIENT else ""
        known = self.instance.runtime.connections.get(id)
        if known is not None and known.readonly:
            raise Denied("Connection is readonly")

    def _weigh(self) -> None:
        fold: ObjectFold = self.instance.state
        gone = sum(weight(key, fold.storage[key]) for key in (*self._puts, *self._deletes) if key in fold.storage)
        size = fold.storage_bytes - gone + sum(weight(key, raw) for key, raw in self._puts.items())
        if size > STORAGE_BYTES_MAX:
            raise UsageError(
                f"the storage of {self.instance.address} would weigh {size:,} bytes of {STORAGE_BYTES_MAX:,}; use files"
            )

    def _opens(self, connection: Connection) -> bool:
        return self.opening is not None and self.opening.token == connection.token

    def _opened(self, opening: r.ConnectionOpened, connection: Connection) -> r.ConnectionOpened:
        return msgspec.structs.replace(
            opening,
            tags=connection.tags,
            state=connection.raw_state,
            readonly=connection.readonly,
            protocol=connection.protocol,
        )


def _changed(connection: Connection) -> r.ConnectionChanged:
    return r.ConnectionChanged(
        connection=connection.id, token=connection.token, state=connection.raw_state, readonly=connection.readonly
    )


def only_frames(records: Sequence[r.Record]) -> bool:
    """Whether nothing is lost for good with these: they concern sockets, which a machine that fails has lost too."""
    return all(isinstance(record, _OF_SOCKETS) for record in records)


#: Calls that do what a client says. That it came or went is no word of its own.
_FROM_CLIENT = ("call", "stream", "message", "set_state")

_OF_SOCKETS = (r.ObjectSent, r.ConnectionOpened, r.ConnectionChanged, r.ConnectionClosed)

_draft: ContextVar[Draft | None] = ContextVar("cairn_draft", default=None)


def draft_of(instance: Instance) -> Draft | None:
    """The draft of the handler of this object that the present task is in, if it is in one."""
    draft = _draft.get()
    return draft if draft is not None and draft.instance is instance and draft.is_open else None


@contextmanager
def drafting(draft: Draft) -> Iterator[None]:
    """In this block the draft is the object's state."""
    token = _draft.set(draft)
    try:
        yield
    finally:
        draft.close()
        _draft.reset(token)
