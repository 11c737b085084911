"""A program, run on a fiber: its calls in the log, its state as a cache beside it.

    result = await run_program(fiber, Program(source), [Function("fetch", fetch)], interpreters=interpreters)

A call is a step of the fiber, named by its number, its function and a digest of its arguments; calls that a program makes in
parallel keep their numbers. When the process dies the program goes on from the newest dump, and what its calls came to is told
to it in the order in which it was decided. Without a dump that this interpreter takes, the same text is run again, and the
journal answers what it has.

Laws. What a program does next depends on its text and on the order of outcomes, and on nothing else: outcomes are told one at a
time, by `order`. A call that is not what the journal has under its number ends the program as diverged; nothing is guessed. A
dump is believed only when it is signed, of this text, this fiber and this version of the interpreter.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec

from cairn.errors import Fenced, NonRetryable, StepUnknown, StoreError, WaitExpired
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.method import seen
from cairn.runtime.program import (
    DUMP_BYTES_KEPT_MAX,
    DUMP_BYTES_MAX,
    HOLD_SECONDS,
    STEP,
    Function,
    FunctionCall,
    Outcome,
    Program,
    ProgramFailed,
    ProgramLimits,
    ProgramResult,
    encoded,
    entry_name,
    stubs,
)
from cairn.runtime.program_pool import SLEEP, Asked, Blocked, Interpreters, Session, Turn
from cairn.runtime.step import error_info

#: Is awaited before each call that the journal does not know; it may wait on the fiber, or raise what the call is to raise.
Gate = Callable[[FunctionCall], Awaitable[None]]


class Approval(msgspec.Struct, frozen=True):
    """A person's answer to a call that asked for one, as JSON: `{"answer": "approve"}`, or `reject` and a reason."""

    answer: Literal["approve", "reject"]
    reason: str = ""


class _Kept(msgspec.Struct, frozen=True):
    """A dump, with what has to be known beside it."""

    version: str
    program: str
    owner: str
    printed: str
    waiting: list[tuple[int, str, msgspec.Raw]]
    """The calls that were under way: number, function, arguments."""
    calls: int
    dump: bytes


async def run_program(
    fiber: Fiber,
    program: Program,
    functions: Sequence[Function],
    *,
    interpreters: Interpreters,
    inputs: Mapping[str, Any] | None = None,
    limits: ProgramLimits = ProgramLimits(),
    name: str = "program",
    check: bool = True,
    secret: bytes = b"",
    gate: Gate | None = None,
) -> ProgramResult:
    """What came of the program: a value, or a failure as data. Call it from a fiber's method, which may be called again.

    *Durable*: each call before it is made (a `safe` one: its outcome), each outcome before the program is told of it.
    *Idempotent* by (fiber, name). A call whose outcome is unknown is made again only if its function says so (S9). While it
    waits for people, signals or time, nothing of it is in memory. `inputs` are its globals; `check` type-checks it first
    against the stubs. *Cancelled*: nothing is owed. *Raises* Fenced, StoreError, UsageError.
    """
    run = _Run(fiber, program, functions, interpreters, dict(inputs or {}), limits, name, check, secret, gate)
    try:
        if len(program.source.encode("utf-8", "surrogatepass")) > limits.source_bytes:
            raise ProgramFailed("refused", f"its text is longer than {limits.source_bytes:,} bytes")
        return await run.result()
    except ProgramFailed as failed:
        await run.forget()
        return ProgramResult(failure=failed.failure, printed=run.printed, calls=run.calls)
    finally:
        await run.close()


class _Run:
    """One run, in one process, of one program."""

    def __init__(
        self,
        fiber: Fiber,
        program: Program,
        functions: Sequence[Function],
        interpreters: Interpreters,
        inputs: dict[str, Any],
        limits: ProgramLimits,
        name: str,
        check: bool,
        secret: bytes,
        gate: Gate | None,
    ) -> None:
        self.fiber, self.program, self.limits = fiber, program, limits
        self.functions = {each.name: each for each in functions}
        self.inputs = inputs
        self.printed = ""
        self.calls = 0
        self._interpreters = interpreters
        self._check, self._name, self._gate = check, name, gate
        self._secret = hashlib.sha256(b"cairn program" + secret).digest()
        self._stack: AsyncExitStack | None = None
        self._session: Session | None = None
        self._dump: bytes | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[int, tuple[str, bytes]] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._deciding: set[int] = set()
        self._journal = dict(self._entries())
        self._order = max((outcome.order for outcome in self._recorded()), default=0)

    # --- the loop

    async def result(self) -> ProgramResult:
        turn = await self._begin()
        while isinstance(turn, Blocked):
            await self._make(turn.asked)
            number = await self._next(turn.pending)
            turn = await self._tell(number)
        value = encoded(turn.value, self.limits, "its result")
        await self._finish()
        return ProgramResult(value=msgspec.Raw(value), printed=self.printed, calls=self.calls)

    async def _begin(self) -> Turn:
        """From the newest dump, or from the first line."""
        kept = await self._kept()
        if kept is not None and (turn := await self._go_on_from(kept)) is not None:
            return turn
        return await self._run(self._start())

    async def _start(self) -> Turn:
        session = await self._open(fresh=True)
        return await session.start(self.program, self.inputs, check=self._check and not self._journal)

    async def _go_on_from(self, kept: _Kept) -> Turn | None:
        """The blocked program of a dump; None when the interpreter does not take it."""
        with self.fiber.parking.working():
            session = await self._open(fresh=False)
            try:
                pending = await session.load(kept.dump, kept.printed)
            except ProgramFailed:
                await self._leave()
                return None
        self.printed, self.calls, self._dump = kept.printed, kept.calls, kept.dump
        for number, function, arguments in kept.waiting:
            self._asked[number] = (function, bytes(arguments))
        if set(pending) != set(self._asked):
            await self._leave()
            self._asked.clear()
            return None
        for number in sorted(self._asked):
            self._begin_call(number)
        return Blocked((), pending)

    async def _tell(self, number: int) -> Turn:
        outcome = self._outcomes.pop(number)
        del self._asked[number]
        return await self._run(self._answer(number, outcome))

    async def _answer(self, number: int, outcome: Outcome) -> Turn:
        session = self._session
        if session is None:
            assert self._dump is not None
            session = await self._open(fresh=False)
            await session.load(self._dump, self.printed)
        self._dump = None
        return await session.answer(number, outcome, msgspec.json.decode(outcome.value))

    async def _run(self, step: Any) -> Turn:
        """Let the interpreter compute; the fiber is not parked meanwhile."""
        with self.fiber.parking.working():
            turn: Turn = await step
            if self._session is not None:
                self.printed = self._session.output.text
            return turn

    # --- its calls

    async def _make(self, asked: Sequence[Asked]) -> None:
        """Begin what the program asked for since it was last blocked. Its state is kept first where a repeat would matter."""
        for each in map(self._named, asked):
            self.calls += 1
            if self.calls > self.limits.calls:
                raise ProgramFailed("calls", f"it made more than {self.limits.calls:,} calls")
            arguments = self._arguments(each)
            self._asked[each.number] = (each.function, arguments)
            self._compare(each.number, entry_name(each.number, each.function, arguments))
        if len(self._asked) > self.limits.calls_at_once:
            raise ProgramFailed("calls", f"more than {self.limits.calls_at_once} of its calls wait at a time; gather fewer")
        new = [each.number for each in asked]
        if any(self._is_kept_for(number) for number in new):
            with self.fiber.parking.working():
                await self._keep()
        for number in new:
            self._begin_call(number)

    def _named(self, asked: Asked) -> Asked:
        """`step("what it is", function, …)` is a call of the function: the text names it for people. A host's function that is
        handed over as a value arrives as its name."""
        if asked.function != STEP or STEP in self.functions:
            return asked
        _, function, *arguments = (*asked.arguments, None, None)[: max(2, len(asked.arguments))]
        if not isinstance(function, str) or function not in self.functions:
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

    def _is_kept_for(self, number: int) -> bool:
        function = self.functions.get(self._asked[number][0])
        return number not in self._journal and function is not None and function.repeat != "safe"

    def _begin_call(self, number: int) -> None:
        function, arguments = self._asked[number]
        entry = entry_name(number, function, arguments)
        recorded = self._outcome(entry)
        if recorded is not None:
            self._outcomes[number] = recorded
        elif number not in self._tasks:
            task = self._tasks[number] = asyncio.create_task(self._call(number, entry, function, arguments))
            task.add_done_callback(seen)

    async def _call(self, number: int, entry: str, function: str, arguments: bytes) -> None:
        """Until the call's outcome is in the log."""
        given: dict[str, Any] = msgspec.json.decode(arguments)
        name = f"{self._name} {entry}"
        call = FunctionCall(self.fiber, number, function, given, self.fiber.key(entry, self._name), name)
        try:
            self._outcomes[number] = await self._decided(call, entry)
        finally:
            self._deciding.discard(number)

    async def _decided(self, call: FunctionCall, entry: str) -> Outcome:
        if "\0" in call.arguments:
            return await self._record(call, entry, error=TypeError(call.arguments["\0"]))
        if self._gate is not None:
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
                f"approve {call.name}", question, expires=function.approval_seconds, by=function.approvers
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

    # --- what the program is told next

    async def _next(self, pending: Sequence[int]) -> int:
        """The call whose outcome is told next: the first that was decided of those that it waits for."""
        held = False
        while True:
            ready = [number for number in pending if number in self._outcomes]
            if ready and not self._deciding:
                return min(ready, key=lambda number: self._outcomes[number].order)
            running = [task for number, task in self._tasks.items() if not task.done()]
            if not running:
                self._raise_failed()
                raise ProgramFailed("error", "it waits for something that is never decided")
            if not held and not self._deciding:
                held = True
                with self.fiber.parking.working():
                    await asyncio.wait(running, timeout=HOLD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if not any(task.done() for task in running):
                        await self._let_go()
            else:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            self._raise_failed()

    def _raise_failed(self) -> None:
        """What the store or the log raised in a call ends the run."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _finish(self) -> None:
        """What was begun and must not be cut off has ended; its dump is not needed any more."""
        running = [task for number, task in self._tasks.items() if not task.done() and self._must_end(number)]
        if running:
            await asyncio.wait(running)
        await self._leave()
        await self.forget()

    async def forget(self) -> None:
        """No dump is kept any more."""
        if self._had_dump or self.fiber.state.attempt > 1:
            await self.fiber.instance.store.save_dump(self.fiber.instance.n, self._place, None)

    def _must_end(self, number: int) -> bool:
        asked = self._asked.get(number)
        function = self.functions.get(asked[0]) if asked is not None else None
        return function is not None and function.repeat != "safe" and not function.waits

    async def close(self) -> None:
        """Nothing of the run is left in memory."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=1.0)
        await self._leave()
        fiber = self.fiber.instance.runtime.fiber(self.fiber.id)
        if fiber is not None and fiber.abort is not None and not self.fiber.instance.fenced:
            await self.forget()

    # --- its state

    @property
    def _place(self) -> str:
        return f"program:{self.fiber.id}:{self._name}"

    @property
    def _owner(self) -> str:
        return f"{self.fiber.instance.uid}:{self._place}"

    _had_dump = False

    async def _open(self, *, fresh: bool) -> Session:
        self._stack = AsyncExitStack()
        state = self.fiber.state
        session = self._interpreters.session(
            self.limits,
            moment=state.accepted_at,
            seed=f"{self._owner}:{self.program.digest}",
            functions={*self.functions, STEP},
            stubs=stubs(list(self.functions.values()), self.inputs) if fresh and self._check and not self._journal else None,
        )
        self._session = await self._stack.enter_async_context(session)
        return self._session

    async def _leave(self) -> None:
        """Give the interpreter back."""
        stack, self._stack, self._session = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    async def _let_go(self) -> None:
        """The program waits longer than an interpreter is held for: its state is kept, and others may use the process."""
        await self._keep(parks=True)
        await self._leave()

    async def _keep(self, *, parks: bool = False) -> None:
        session = self._session
        if session is None:
            return
        dump = self._dump if self._dump is not None else session.dump()
        if parks:
            self._dump = dump
        if len(dump) > (DUMP_BYTES_KEPT_MAX if parks else DUMP_BYTES_MAX):
            return
        waiting = [(number, function, msgspec.Raw(arguments)) for number, (function, arguments) in sorted(self._asked.items())]
        kept = _Kept(self._interpreters.version, self.program.digest, self._owner, self.printed, waiting, self.calls, dump)
        body = msgspec.msgpack.encode(kept)
        self._had_dump = True
        signed = hmac.digest(self._secret, body, "sha256") + body
        await self.fiber.instance.store.save_dump(self.fiber.instance.n, self._place, signed)

    async def _kept(self) -> _Kept | None:
        """The newest dump, if it can be believed."""
        state = self.fiber.state
        if state.attempt <= 1 and not (state.steps or state.waited or state.waits):
            return None  # it has not begun
        data = await self.fiber.instance.store.dump(self.fiber.instance.n, self._place)
        if data is None:
            return None
        self._had_dump = True
        signature, body = data[:32], data[32:]
        if not hmac.compare_digest(hmac.digest(self._secret, body, "sha256"), signature):
            return None
        try:
            kept = msgspec.msgpack.decode(body, type=_Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        is_ours = (kept.version, kept.program, kept.owner) == (self._interpreters.version, self.program.digest, self._owner)
        return kept if is_ours else None

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
