"""A tool: what the model sees of it, what a repeat of it means, and how it is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from cairn.harness.messages import ResultContent, ToolSpec
from cairn.harness.sandbox.protocol import ProcessInfo, Sandbox

Repeat = Literal["never", "keyed", "safe", "resume"]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool may return when a plain value is not enough."""

    content: tuple[ResultContent, ...] | str
    is_error: bool = False
    terminate: bool = False
    """Skip the next model call, if every result of the batch says so."""
    details: Any = None
    """For people and programs; the model does not see it. JSON."""


class CallContext(Protocol):
    """What a running call can reach; the user-facing `Context` wraps it."""

    @property
    def call(self) -> str: ...

    @property
    def key(self) -> str:
        """The same at every repeat of this call: hand it to the outside as the idempotency key."""
        ...

    @property
    def sandbox(self) -> Sandbox | None: ...

    def progress(self, text: str) -> None:
        """Show readers the last of what is happening; dropped once the call has settled."""
        ...

    async def process_started(self, process: ProcessInfo) -> None:
        """Record the process tree this call runs in, so that a successor can end what is left of it."""
        ...

    async def step(self, name: str, callback: Callable[[], Any], *, repeat: str = "safe") -> Any: ...


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the loop needs it. Made by `@agent.tool` / `@tool` from a function, or by a sandbox."""

    spec: ToolSpec
    run: Callable[[Any, dict[str, Any]], Awaitable[Any]]
    """Called with a CallContext (or what the face made of it) and validated, coerced arguments."""
    validate: Callable[[dict[str, Any]], dict[str, Any]] = field(default=lambda arguments: arguments)
    """Coerce and check; raises ValueError with a text the model can act on."""
    repeat: Repeat = "never"
    sequential: bool | str = False
    """True: a barrier, runs alone in its batch. A string: calls that share it run one at a time."""
    timeout_seconds: float | None = None

    @property
    def name(self) -> str:
        return self.spec.name
