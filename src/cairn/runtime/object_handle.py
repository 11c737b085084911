"""One object, from outside: its fibers, schedules and questions, for any process that can open the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cairn.errors import UsageError
from cairn.runtime import records as r
from cairn.runtime.client import Client, FiberStatus, Question, Receipt
from cairn.runtime.schedule import Timing
from cairn.runtime.schedule_state import ScheduleState
from cairn.runtime.state import FiberState


class Handle:
    """One object, from outside: any process may hold one."""

    def __init__(self, client: Client, id: str) -> None:
        self.client = client
        self.id = id

    async def start(
        self,
        method: str | Callable[..., Any],
        *arguments: Any,
        key: str | None = None,
        timeout: float | None = None,
        retry: r.Retry | None = None,
    ) -> Receipt:
        """The method will be called with these arguments until it settles. *Durable* (S1); *idempotent* by `key` (S6)."""
        name = method_name(method)
        return await self.client.accept(self.id, name, list(arguments), key=key, timeout_seconds=timeout, retry=retry)

    async def result(self, receipt: Receipt, type: Any = Any) -> Any:
        """What it returned. *Raises* FiberFailed."""
        return await self.client.result(receipt, type)

    async def abort(self, receipt: Receipt, reason: str = "") -> None:
        await self.client.abort(self.id, receipt.fiber, reason=reason)

    async def signal(self, name: str, payload: Any = None, *, fiber: str | None = None, key: str | None = None) -> None:
        """Whoever waits for the signal, now or later, takes it, once. *Durable*; *idempotent* by `key`. *Raises* NotFound."""
        await self.client.signal(self.id, name, payload, fiber=fiber, key=key)

    async def questions(self) -> list[Question]:
        """What its fibers ask and nobody has answered."""
        return await self.client.questions(self.id)

    async def answer(self, question: Question, answer: Any, *, by: str = "") -> None:
        """Answer what was read. *Durable*. *Raises* NotFound, Conflict: it is not asked any more, or somebody was faster."""
        await self.client.answer(self.id, question.fiber, question.name, question.digest, answer, by=by)

    async def schedule(
        self, timing: Timing, method: str | Callable[..., Any], *arguments: Any, key: str = "", timeout: float | None = None
    ) -> str:
        """The method will be called at these times; the schedule's name. See `Client.schedule`."""
        name = method_name(method)
        return await self.client.schedule(self.id, timing, name, list(arguments), key=key, timeout_seconds=timeout)

    async def schedules(self) -> list[ScheduleState]:
        """What is scheduled, the next first."""
        return await self.client.schedules(self.id)

    async def fibers(self, *, status: FiberStatus | None = None, limit: int = 100) -> list[FiberState]:
        """Its fibers, oldest first: all, or those of one status; `dead` are those whose tries were spent."""
        return await self.client.fibers(self.id, status=status, limit=limit)

    async def inspect(self, fiber: str) -> FiberState | None:
        """How a fiber stands; None when it was never accepted, or is forgotten."""
        return await self.client.inspect(self.id, fiber)

    async def cancel(self, target: str) -> None:
        """The fiber of that id is to be aborted, the schedule of that name is no more. Without effect when there is neither:
        it may just have ended. *Raises* NotFound: no such object."""
        await self.client.cancel(self.id, target)

    async def resolve(self, fiber: str, outcome: r.Outcome = "completed", **how: Any) -> None:
        """Give a fiber its outcome by hand; see `Client.resolve`."""
        await self.client.resolve(self.id, fiber, outcome, **how)

    async def delete(self, fiber: str) -> None:
        """The fiber's outcome is not remembered any more, or will not be once it has settled; its key stays used."""
        await self.client.forget(self.id, fiber)


def method_name(method: str | Callable[..., Any]) -> str:
    """The durable name of a method. *Raises* UsageError for what is none."""
    name = method if isinstance(method, str) else getattr(method, "__name__", None)
    if not isinstance(name, str):
        raise UsageError(f"{method!r} is no method; give one of the class, or its name")
    return name
