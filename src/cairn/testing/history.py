"""What was asked of a store and what it answered, in order: the material `cairn.testing.checker` judges.

An operation is invoked, and later *ok*, *fail* (it certainly did not happen) or *info* (nobody knows: the process died,
the answer was lost). What was never answered is *info*. Recording changes nothing and decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from cairn.errors import Conflict, Fenced, NotFound, StoreError
from cairn.runtime.storage.store import Batch, InstanceRow, Row, Store
from cairn.testing.proxy import StoreProxy

T = TypeVar("T")

Outcome = Literal["ok", "fail", "info"]

#: Errors that promise that nothing of the call happened.
CERTAIN = (Fenced, Conflict, NotFound, StoreError)

#: The calls a history keeps: every write, and every read that shows a position.
RECORDED = frozenset({"admit", "append", "claim", "release", "read", "changed", "find", "instance"})


@dataclass(slots=True)
class Operation:
    """One call. `invoked` and `answered` are places in the one order of all events of the history."""

    process: str
    name: str
    arguments: tuple[Any, ...]
    invoked: int
    answered: int | None = None
    outcome: Outcome = "info"
    answer: Any = None
    error: str = ""
    made: list[Batch] = field(default_factory=list)
    """The batches a claim's `make` returned: what the claim wrote, if it wrote."""

    def __str__(self) -> str:
        return f"{self.process} {self.name} #{self.invoked}"


@dataclass(frozen=True, slots=True)
class Log:
    """One instance as it is in the end."""

    instance: InstanceRow
    rows: list[Row]


class History:
    """The calls of all processes, in one order. `note` is told each event: in a simulation, `simulation.note`."""

    def __init__(self, note: Callable[..., None] | None = None) -> None:
        self.operations: list[Operation] = []
        self._events = 0
        self._note = note

    def invoke(self, process: str, name: str, *arguments: Any) -> Operation:
        """A call begins."""
        self._events += 1
        operation = Operation(process, name, arguments, self._events)
        self.operations.append(operation)
        return operation

    def ok(self, operation: Operation, answer: Any) -> None:
        """It was answered."""
        operation.answer = answer
        self._end(operation, "ok", answer)

    def fail(self, operation: Operation, error: BaseException) -> None:
        """It was refused: nothing happened."""
        operation.error = repr(error)
        self._end(operation, "fail", error)

    def info(self, operation: Operation, error: BaseException) -> None:
        """It ended, and nobody can say whether it happened."""
        operation.error = repr(error)
        self._end(operation, "info", error)

    def _end(self, operation: Operation, outcome: Outcome, what: Any) -> None:
        self._events += 1
        operation.answered, operation.outcome = self._events, outcome
        if self._note is not None:
            self._note(operation, outcome, what)


class RecordingStore(StoreProxy):
    """A store as `process` sees it, with every write and every seen position kept in the history."""

    def __init__(self, inner: Store, history: History, process: str) -> None:
        super().__init__(inner)
        self._history = history
        self._process = process

    async def claim(self, n: int, worker: str, *, expected_epoch: int, make: Callable[[int], Batch]) -> Any:
        """As the store says. What `make` returns is kept, for it is what the claim wrote."""
        made: list[Batch] = []

        def keep(epoch: int) -> Batch:
            made.append(make(epoch))
            return made[-1]

        async def call() -> Any:
            return await self.inner.claim(n, worker, expected_epoch=expected_epoch, make=keep)

        return await self._recorded("claim", (n, worker, expected_epoch), call, made)

    async def through(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        """The call, with its beginning and end in the history. Raises what the store raised."""
        if name not in RECORDED:
            return await call()
        return await self._recorded(name, arguments, call, [])

    async def _recorded(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]], made: list[Batch]) -> T:
        operation = self._history.invoke(self._process, name, *arguments)
        operation.made = made
        try:
            answer = await call()
        except CERTAIN as error:
            self._history.fail(operation, error)
            raise
        except (Exception, asyncio.CancelledError) as error:
            self._history.info(operation, error)
            raise
        self._history.ok(operation, answer)
        return answer


async def logs_of(store: Store) -> list[Log]:
    """Every log of the store, whole, read once. Raises StoreCorrupt (S14)."""
    logs: list[Log] = []
    after = 0
    while page := await store.instances(after=after):
        for instance in page:
            rows: list[Row] = []
            while more := await store.read(instance.n, rows[-1].ordinal if rows else -1):
                rows.extend(more)
            logs.append(Log(instance, rows))
        after = page[-1].n
    return logs


def made_by(operation: Operation) -> Batch | None:
    """The batch a write was to add to the log; None for a release without one, or a claim that never came to it."""
    match operation.name:
        case "append":
            return operation.arguments[0].batch  # type: ignore[no-any-return]
        case "admit":
            return operation.arguments[2].batch  # type: ignore[no-any-return]
        case "release":
            return operation.arguments[2]  # type: ignore[no-any-return]
        case "fork":
            return operation.arguments[3].batch  # type: ignore[no-any-return]
        case _:
            return operation.made[-1] if operation.made else None
