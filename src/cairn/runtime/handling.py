"""What an application offers beyond fibers, if it does: handlers, and a state that clients see.

Laws. Both protocols are optional, and each stands alone: an agent has a state and no handlers. Who reaches objects asks for
these, never for a class.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import msgspec

from cairn.runtime import records as r
from cairn.runtime.instance import Instance

#: Takes a chunk of a stream; returns when there is room for the next.
Emit = Callable[[msgspec.Raw], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of one handler, whoever makes it and however it comes."""

    call: r.Call
    method: str
    arguments: msgspec.Raw
    """JSON: a list for a method, what `call.what` says for the others."""


@runtime_checkable
class Shown(Protocol):
    """An application whose instances have a state that clients follow."""

    def shown(self, state: Any) -> msgspec.Raw | None:
        """The state as clients see it, whole; None: it has none. Raises StoreCorrupt."""
        ...


@runtime_checkable
class Handling(Protocol):
    """An application whose instances have handlers."""

    def streams(self, method: str) -> bool:
        """Whether the callable method is a stream. Raises UnknownMethod, NotCallable."""
        ...

    def seconds(self, method: str) -> float:
        """How long the callable method may take, once it runs. Raises UnknownMethod, NotCallable."""
        ...

    async def invoke(self, instance: Instance, invocation: Invocation, emit: Emit | None = None) -> msgspec.Raw:
        """Call the handler in its turn and commit what it changed; what it returned.

        *Cancelled*: nothing of it is committed, or its commit was on its way. *Raises* Leaving: not begun, the instance is on
        its way out of memory; ObjectError; RemoteError: what the handler raised; TimeoutError; StoreError.
        """
        ...

    async def lost(self, instance: Instance) -> None:
        """Connections whose process is dead are over: `on_close` is called for each, with 1006."""
        ...
