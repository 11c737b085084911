"""The seams of a submission that user code may stand in: what each is given and what its answer means.

Laws. A hook is called at a named point only; its outcome is recorded, so it is not called again once that is durable.
It may take the `Context` (found by its annotation), the event, both or neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from cairn.harness.messages import UserMessage
from cairn.runtime.records import Outcome


@dataclass(frozen=True, slots=True)
class Received:
    """Given to `on_message`: a message was delivered and the model has not read it. The text a hook returns is read by
    the model after it."""

    submission: str
    message: UserMessage
    text: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """Given to `on_stop`: the model has finished and nothing is queued. The text a hook returns sends it back to work."""

    submission: str
    text: str
    """The model's last words."""
    calls: tuple[str, ...] = ()
    """Names of the tools called in this submission, in order."""
    continues: int = 0
    """How often this submission was sent back already."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Given to `on_settled`, at least once: the submission has its outcome. What a hook returns is ignored."""

    submission: str
    outcome: Outcome
    text: str = ""
    """The reply, when completed."""
    error: str = ""
    """Why not, when failed or aborted."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A user's function at a seam. `run(call_context, event)` returns its text, or None."""

    name: str
    run: Callable[[Any, Any], Awaitable[str | None]]
    """Raises whatever the function raises, and UsageError when it returns something else than text or None."""
    place: str = ""
