"""What sits on the runtime: a kind of instance, with its own records, its own fold and its own way to run a fiber.

The runtime never looks inside any of it. An agent is one application; `DurableObject` is another; yours may be a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cairn.runtime.records import ErrorInfo, Record
from cairn.runtime.state import FiberState

if TYPE_CHECKING:
    from cairn.runtime.fiber import Fiber
    from cairn.runtime.instance import Instance


class Application(Protocol):
    """One kind. Everything but `run` is pure; nothing here may keep state of its own per instance."""

    @property
    def kind(self) -> str: ...

    @property
    def records(self) -> tuple[type[Record], ...]:
        """The vocabulary this application adds to the runtime's."""
        ...

    @property
    def serial(self) -> bool:
        """True: one fiber at a time, in admission order (S11). False: all that can run do."""
        ...

    def initial(self) -> Any:
        """The fold of an empty log."""
        ...

    def apply(self, state: Any, record: Record, ordinal: int) -> None:
        """Fold one record (the runtime's too) into `state`, in place, amortised O(1)."""
        ...

    def dump(self, state: Any) -> bytes:
        """A checkpoint of the fold, as JSON."""
        ...

    def load(self, data: bytes) -> Any: ...

    @property
    def projection(self) -> int:
        """The version of `project`, stored with each row (S15); 0 when it projects nothing."""
        return 0

    def project(self, state: Any, records: Sequence[Record]) -> bytes:
        """The wire form of one batch, stored beside it, without what is only known at commit.

        `state` is the owner's fold before the batch; None for a request, which knows none."""
        return b""

    def progress(self, record: Record) -> str | None:
        """The fiber for which this record is a new durable fact: an outcome, not an intent."""
        ...

    def blocked(self, fiber: FiberState) -> ErrorInfo | None:
        """Why this code cannot run the fiber (no such method, or another signature); None when it can.

        A blocked fiber is parked with that error, for people to see, until a process whose code has the name again."""
        return None

    def declares(self, schedule: str) -> bool:
        """Whether this code still has the schedule of that name, which code declared. One that it has not does not fire here:
        it waits for a process whose code has it, or for a person who cancels it."""
        return False

    def refusal(self, state: Any, records: Sequence[Record]) -> str | None:
        """Why the owner must not append these now: `apply` would refuse them, and with them the whole log from then on (S14).

        None when they are fine. Only a defect of the application leads here; it then costs a fiber instead of an instance."""
        return None

    async def tidy(self, instance: Instance) -> None:
        """Called by the owner when the instance has had nothing to do for a while, beside everything else: make what is settled
        smaller. Nothing depends on it; it may be cancelled anywhere."""

    async def run(self, fiber: Fiber) -> None:
        """Carry the fiber on from where the log says it is, until it is settled or parked in the log.

        *Cancelled*: by an abort, a timeout or a shutdown; nothing durable is owed. An exception that is not one of the
        runtime's settles the fiber as failed.
        """
        ...
