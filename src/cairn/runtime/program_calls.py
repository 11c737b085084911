"""The calls of one program: made once, as steps of its fiber, and what they came to, in the order in which it was decided.

Laws. A call is made after its intent is durable, or its outcome is all there is to know (S8, S9). Outcomes are told one at a
time, by `order`, and one that has a place in the order is waited for until it is in the log. A call that is not what the
journal has under its number ends the program as diverged; nothing is guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from cairn.errors import Fenced, NonRetryable, StepUnknown, StoreError, WaitExpired
from cairn.runtime import records as r
from cairn.runtime.answering import Approval
from cairn.runtime.fiber import Fiber
from cairn.runtime.method import seen
from cairn.runtime.program import (
    STEP,
    Function,
    FunctionCall,
    Outcome,
    ProgramFailed,
    ProgramLimits,
    encoded,
    entry_name,
)
from cairn.runtime.program_pool import SLEEP, Asked
from cairn.runtime.step import error_info

#: Is awaited before each call that the journal does not know; it may wait on the fiber, or raise what the call is to raise.
Gate = Callable[[FunctionCall], Awaitable[None]]


class Calls:
    """All calls of one run."""

    def __init__(
        self,
        fiber: Fiber,
        functions: Sequence[Function],
        limits: ProgramLimits,
        name: str,
        gate: Gate | None = None,
        files: Sequence[Function] = (),
    ) -> None:
        self.fiber, self.limits = fiber, limits
        self.named = {each.name: each for each in functions}
        """What the text may call …"""
        self.files = {each.name: each for each in files}
        """… and what its `open()` and `pathlib` call."""
        self.functions = self.named | self.files
        self.made = 0
        """How many there were, and …"""
        self.spent = 0.0
        """… what they cost."""
        self.outcomes: dict[int, Outcome] = {}
        """What came of those the program has not been told of."""
        self._name, self._gate = name, gate
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[int, tuple[str, bytes]] = {}
        self._deciding: set[int] = set()
        self._journal = dict(self._entries())
        self._order = max((outcome.order for outcome in self._recorded()), default=0)

    @property
    def is_new(self) -> bool:
        """The journal has nothing: the program runs for the first time."""
        return not self._journal

    @property
    def waiting(self) -> list[tuple[int, str, bytes]]:
        """Those that the program waits for, for whoever goes on with it."""
        return [(number, function, arguments) for number, (function, arguments) in sorted(self._asked.items())]

    # --- from the program

    def take(self, asked: Iterable[Asked]) -> list[int]:
        """Calls that the program has made; their numbers. *Raises* ProgramFailed: too many, or other ones than before."""
        new: list[int] = []
        for each in map(self._named, asked):
            self.made += 1
            if self.made > self.limits.calls:
                raise ProgramFailed("calls", f"it made more than {self.limits.calls:,} calls")
            self._pay(each.function)
            arguments = self._arguments(each)
            self._asked[each.number] = (each.function, arguments)
            self._compare(each.number, entry_name(each.number, each.function, arguments))
            new.append(each.number)
        if len(self._asked) > self.limits.calls_at_once:
            raise ProgramFailed("calls", f"more than {self.limits.calls_at_once} of its calls wait at a time; gather fewer")
        return new

    def _pay(self, function: str) -> None:
        known, limit = self.functions.get(function), self.limits.cost
        self.spent += known.cost if known is not None else 0.0
        if limit is not None and self.spent > limit:
            raise ProgramFailed(
                "cost", f"{function} was not called: its calls together may cost {limit:g}, and this is one too many"
            )

    def resume(self, waiting: Iterable[tuple[int, str, bytes]], made: int, spent: float, pending: Iterable[int]) -> bool:
        """The program is taken up where these were under way; False when it says that it waits for others."""
        asked = {number: (function, arguments) for number, function, arguments in waiting}
        if set(asked) != set(pending):
            return False
        self._asked, self.made, self.spent = asked, made, spent
        return True

    def matters(self, numbers: Iterable[int]) -> bool:
        """Whether one of these must not be made again lightly: then the program's state is kept first."""
        for number in numbers:
            function = self.functions.get(self._asked[number][0])
            if number not in self._journal and function is not None and function.repeat != "safe" and not function.waits:
                return True
        return False

    @property
    def only_waits(self) -> bool:
        """Nothing is under way that may end in a moment: the program waits for people, signals or time."""
        waiting = (self.functions.get(function) for function, _ in self._asked.values())
        return all(function is None or function.waits for function in waiting)

    def begin(self, numbers: Iterable[int]) -> None:
        """Make them, or find in the journal what came of them."""
        for number in numbers:
            self._begin_call(number)

    # --- to the program

    def ready(self, pending: Iterable[int]) -> int | None:
        """The one whose outcome is told next: the first that was decided of those that it waits for."""
        there = [number for number in pending if number in self.outcomes]
        if not there or self._deciding:
            return None
        return min(there, key=lambda number: self.outcomes[number].order)

    def told(self, number: int) -> Outcome:
        """Its outcome, which the program is told now."""
        del self._asked[number]
        return self.outcomes.pop(number)

    @property
    def running(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return [task for task in self._tasks.values() if not task.done()]

    @property
    def is_deciding(self) -> bool:
        """One has come to an end, and is just being recorded."""
        return bool(self._deciding)

    def raise_failed(self) -> None:
        """What the store or the log raised in a call ends the run."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def decided(self, number: int) -> Outcome:
        """The outcome of one call that the program does nothing without, once it is in the log."""
        if (task := self._tasks.get(number)) is not None:
            await asyncio.wait({task})
            self.raise_failed()
        return self.told(number)

    # --- the end

    async def finish(self) -> None:
        """Those that were begun and must not be cut off have ended."""
        running = [task for number, task in self._tasks.items() if not task.done() and self._must_end(number)]
        if running:
            await asyncio.wait(running)

    async def close(self) -> None:
        """None is under way any more."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=1.0)

    def _must_end(self, number: int) -> bool:
        asked = self._asked.get(number)
        function = self.functions.get(asked[0]) if asked is not None else None
        return function is not None and function.repeat != "safe" and not function.waits

    # --- one call

    def _named(self, asked: Asked) -> Asked:
        """`step("what it is", function, …)` is a call of the function: the text names it for people. A host's function that is
        handed over as a value arrives as its name."""
        if asked.function != STEP or STEP in self.functions:
            return asked
        _, function, *arguments = (*asked.arguments, None, None)[: max(2, len(asked.arguments))]
        if not isinstance(function, str) or function not in self.named:
            return asked
        return Asked(asked.number, function, tuple(arguments), asked.keywords)

    def _arguments(self, asked: Asked) -> bytes:
        """By name where the function says its parameters. A call that does not fit is told so, and is no failure."""
        function = self.functions.get(asked.function)
        try:
            if function is not None:
                bound = function.bind(asked.arguments, asked.keywords)
            elif asked.function == SLEEP:
                bound = {"0": float(asked.arguments[0])}
            else:
                raise TypeError("step() takes what the call is, in words, one of the given functions, and its arguments")
            return encoded(bound, self.limits, f"an argument of {asked.function}")
        except (TypeError, ValueError, ProgramFailed) as error:
            return msgspec.json.encode({"\0": str(error)})

    def _compare(self, number: int, entry: str) -> None:
        known = self._journal.get(number)
        if known is not None and known != entry:
            first = known.split(":")[1]
            text = (
                f"call {number} was another one when it was first made, of {first!r}: the text does something else than it did"
            )
            raise ProgramFailed("diverged", text)

    def _begin_call(self, number: int) -> None:
        function, arguments = self._asked[number]
        entry = entry_name(number, function, arguments)
        recorded = self._outcome(entry)
        if recorded is not None:
            self.outcomes[number] = recorded
        elif number not in self._tasks:
            task = self._tasks[number] = asyncio.create_task(self._call(number, entry, function, arguments))
            task.add_done_callback(seen)

    async def _call(self, number: int, entry: str, function: str, arguments: bytes) -> None:
        """Until the call's outcome is in the log."""
        given: dict[str, Any] = msgspec.json.decode(arguments)
        name = f"{self._name} {entry}"
        call = FunctionCall(self.fiber, number, function, given, self.fiber.key(entry, self._name), name)
        try:
            self.outcomes[number] = await self._decided(call, entry)
        finally:
            self._deciding.discard(number)

    async def _decided(self, call: FunctionCall, entry: str) -> Outcome:
        if "\0" in call.arguments:
            return await self._record(call, entry, error=TypeError(call.arguments["\0"]))
        if self._gate is not None and call.function not in self.files:
            await self._gate(call)
        if call.function == SLEEP:
            await self.fiber.sleep(call.name, max(0.0, call.arguments["0"] or 0.0))
            return await self._record(call, entry, value=None)
        function = self.functions[call.function]
        if (refused := await self._refused(function, call)) is not None:
            return await self._record(call, entry, error=refused)
        if not function.waits:
            return await self._step(call, entry, function)
        try:
            value = await function.call(call)
        except (Fenced, StoreError):
            raise
        except Exception as error:
            return await self._record(call, entry, error=error)
        return await self._record(call, entry, value=value)

    async def _refused(self, function: Function, call: FunctionCall) -> Exception | None:
        """Why a person did not let the call be made; None when nobody has to, or somebody did."""
        reason = function.approval(call) if function.approval is not None else None
        if not reason:
            return None
        question = {"function": call.function, "arguments": call.arguments, "reason": reason if isinstance(reason, str) else ""}
        try:
            answer = await self.fiber.ask(
                f"approve {call.name}",
                question,
                expires=function.approval_seconds,
                by=function.approvers,
                approval=True,
            )
            given = answer.value(Approval)
        except WaitExpired:
            return PermissionError("nobody approved it in time")
        except msgspec.ValidationError:
            return PermissionError("it was answered with something that is neither yes nor no")
        if given.answer == "approve":
            return None
        return PermissionError(f"a person said no: {given.reason or 'no reason was given'}")

    async def _step(self, call: FunctionCall, entry: str, function: Function) -> Outcome:
        """Made inside the step: a `keyed` or `never` call only once its intent is durable (S8)."""

        async def make() -> Outcome:
            try:
                value = await function.call(call)
            except (Fenced, StoreError, NonRetryable):
                raise
            except Exception as error:
                return self._given(call.number, error=error)
            return self._given(call.number, value=value)

        try:
            return await self.fiber.step(
                entry,
                make,
                repeat=function.repeat,
                scope=self._name,
                type=Outcome,
                also=lambda: call.also,
                blobs=lambda: call.blobs,
            )
        except StepUnknown:
            text = (
                f"whether {call.function} happened is unknown: the process ended while it ran. Find out before you do it again"
            )
            return await self._complete(call, entry, Outcome(self._turn(call.number), error="OutcomeUnknown", message=text))
        finally:
            for tell in call.ended:
                tell()

    async def _record(self, call: FunctionCall, entry: str, *, value: Any = None, error: Exception | None = None) -> Outcome:
        async def decide() -> Outcome:
            return self._given(call.number, value=value, error=error)

        return await self.fiber.step(entry, decide, scope=self._name, type=Outcome)

    async def _complete(self, call: FunctionCall, entry: str, outcome: Outcome) -> Outcome:
        """The outcome of a call whose step was begun by a process that died."""
        with self.fiber.parking.working():
            raw = msgspec.Raw(msgspec.json.encode(outcome))
            completed = r.StepCompleted(fiber=self.fiber.id, name=entry, scope=self._name, result=raw)
            await self.fiber.instance.together.append([completed])
        return outcome

    def _given(self, number: int, *, value: Any = None, error: Exception | None = None) -> Outcome:
        """What the call came to, with its place in the order of outcomes."""
        try:
            raw = msgspec.Raw(encoded(value, self.limits, "what it returned"))
        except ProgramFailed as failed:
            error, raw = ValueError(failed.failure.message), r.NULL
        if error is None:
            return Outcome(self._turn(number), raw)
        info = error_info(error)
        return Outcome(self._turn(number), error=info.kind, message=info.message)

    def _turn(self, number: int) -> int:
        self._order += 1
        self._deciding.add(number)
        return self._order

    # --- the journal

    def _entries(self) -> list[tuple[int, str]]:
        """Calls the log knows, by number."""
        prefix = f"{self._name}\x1f"
        names = [key.removeprefix(prefix) for key in self.fiber.state.steps if key.startswith(prefix)]
        return [(int(name.partition(":")[0]), name) for name in names]

    def _recorded(self) -> list[Outcome]:
        return [outcome for entry in self._journal.values() if (outcome := self._outcome(entry)) is not None]

    def _outcome(self, entry: str) -> Outcome | None:
        step = self.fiber.state.steps.get(f"{self._name}\x1f{entry}")
        if step is None or not step.done:
            return None
        if step.error is not None:
            return Outcome(self._order + 1, error=step.error.kind, message=step.error.message)
        return msgspec.json.decode(step.result, type=Outcome)
