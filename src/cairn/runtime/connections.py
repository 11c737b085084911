"""A client that is connected, as an object's handlers see it.

Laws. What a handler does to a connection is staged with everything else it changes, and leaves after the commit (S10).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from cairn.errors import UsageError
from cairn.runtime import records as r


class Outbox(Protocol):
    """Where a connection puts what is to happen to it: the draft of the handler that has it."""

    def send(self, sent: r.ObjectSent) -> None: ...

    def change(self, connection: Connection) -> None: ...


class Connection:
    """One client. Whoever accepts a socket makes it plain; an object gets it from its handlers and `self.connections`."""

    def __init__(
        self,
        id: str,
        uri: str = "",
        *,
        tags: tuple[str, ...] = (),
        state: Any = None,
        readonly: bool = False,
        protocol: bool = True,
        by: str = "",
        worker: str = "",
        token: str = "",
        outbox: Callable[[], Outbox] | None = None,
    ) -> None:
        self.id = id
        self.uri = uri
        self.tags = tags
        self.readonly = readonly
        """Its client may not set the state."""
        self.protocol = protocol
        """Its client is told of the state."""
        self.by = by
        """Who it is, as whoever let them in says."""
        self.worker = worker
        self.token = token
        self._state = msgspec.Raw(msgspec.json.encode(state))
        self.is_changed = False
        """A handler has changed it and not committed that."""
        self._outbox = outbox

    @property
    def state(self) -> Any:
        """What the object keeps with the connection: JSON. A copy."""
        return msgspec.json.decode(self._state)

    @property
    def raw_state(self) -> msgspec.Raw:
        return self._state

    def set_state(self, state: Any) -> None:
        """Keep this with the connection, for as long as it lasts, in every process."""
        self._state = msgspec.Raw(msgspec.json.encode(state))
        self._staged().change(self)

    def set_readonly(self, readonly: bool) -> None:
        self.readonly = readonly
        self._staged().change(self)

    def send(self, data: str | bytes) -> None:
        """The frame leaves for this client when the handler has committed."""
        self._staged().send(r.ObjectSent(**payload(data), to=(self.id,)))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """The socket is closed when the handler has committed; `on_close` follows."""
        self._staged().send(r.ObjectSent(to=(self.id,), code=code, reason=reason))

    def _staged(self) -> Outbox:
        if self._outbox is None:
            raise UsageError(f"connection '{self.id}' is not in a handler; use the one a handler is given, or self.connections")
        return self._outbox()

    def __repr__(self) -> str:
        return f"Connection({self.id!r})"


def payload(data: str | bytes) -> dict[str, Any]:
    """The fields of a frame."""
    return {"text": data} if isinstance(data, str) else {"binary": bytes(data)}
