"""What an attachment tells its socket: the state as it is now, a frame the object sent, the end."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class StateFrame:
    """The whole state as it is now. `source`: the connection that set it, or "server"."""

    state: msgspec.Raw
    source: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What the object sent, as it sent it: text or bytes."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing comes after this: the socket is to be closed with it."""

    code: int
    reason: str


Frame = StateFrame | Sent | Closed
