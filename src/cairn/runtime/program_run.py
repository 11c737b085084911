"""A program, run on a fiber: its calls in the log, its state as a cache beside it.

    result = await run_program(fiber, Program(source), [Function("fetch", fetch)], interpreters=interpreters)

A call is a step of the fiber, named by its number, its function and a digest of its arguments; calls that a program makes in
parallel keep their numbers. When the process dies the program goes on from the newest dump, and what its calls came to is told
to it in the order in which it was decided. Without a dump that this interpreter takes, the same text is run again, and the
journal answers what it has.

Laws. What a program does next depends on its text and on the order of outcomes, and on nothing else. While it computes the
fiber is not parked; while it waits it holds an interpreter for a moment only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from cairn.runtime.fiber import Fiber
from cairn.runtime.program import (
    DUMP_BYTES_KEPT_MAX,
    DUMP_BYTES_MAX,
    HOLD_SECONDS,
    STEP,
    Function,
    Outcome,
    Program,
    ProgramFailed,
    ProgramLimits,
    ProgramResult,
    encoded,
    stubs,
)
from cairn.runtime.program_calls import Calls, Gate
from cairn.runtime.program_dump import Dumps, Kept
from cairn.runtime.program_pool import Blocked, Done, Halted, Interpreters, Session, Turn


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
    files: Sequence[Function] = (),
) -> ProgramResult:
    """What came of the program: a value, or a failure as data. Call it from a fiber's method, which may be called again.

    *Durable*: each call before it is made (a `safe` one: its outcome), each outcome before the program is told of it.
    *Idempotent* by (fiber, name). A call whose outcome is unknown is made again only if its function says so (S9). While it
    waits for people, signals or time, nothing of it is in memory. `inputs` are its globals; `check` type-checks it first
    against the stubs; `gate` may hold a call up; `files` (`file_functions(workspace, "read")`) is what its `open()` and
    `pathlib` reach. *Cancelled*: nothing is owed. *Raises* Fenced, StoreError, UsageError.
    """
    calls = Calls(fiber, functions, limits, name, gate, files)
    dumps = Dumps(fiber, name, program.digest, interpreters.version, secret)
    run = _Run(fiber, program, calls, dumps, interpreters, dict(inputs or {}), check)
    try:
        if len(program.source.encode("utf-8", "surrogatepass")) > limits.source_bytes:
            raise ProgramFailed("refused", f"its text is longer than {limits.source_bytes:,} bytes")
        return await run.result()
    except ProgramFailed as failed:
        await dumps.forget()
        return ProgramResult(failure=failed.failure, printed=run.printed, calls=calls.made)
    finally:
        await run.close()


class _Run:
    """One run, in one process, of one program."""

    def __init__(
        self,
        fiber: Fiber,
        program: Program,
        calls: Calls,
        dumps: Dumps,
        interpreters: Interpreters,
        inputs: dict[str, Any],
        check: bool,
    ) -> None:
        self.fiber, self.program, self.inputs = fiber, program, inputs
        self.printed = ""
        self._calls, self._dumps = calls, dumps
        self._limits = calls.limits
        self._interpreters = interpreters
        self._check = check and calls.is_new
        self._stack: AsyncExitStack | None = None
        self._session: Session | None = None
        self._dump: bytes | None = None
        """The state of the blocked program, once it was asked for …"""
        self._is_kept = False
        """… and whether it is in the store."""

    async def result(self) -> ProgramResult:
        turn = await self._begin()
        while not isinstance(turn, Done):
            if isinstance(turn, Halted):
                turn = await self._answer_file(turn)
                continue
            new = self._calls.take(turn.asked)
            if self._calls.matters(new):
                with self.fiber.parking.working():
                    await self._keep()
            self._calls.begin(new)
            number = await self._next(turn.pending)
            turn = await self._run(self._tell(number, self._calls.told(number)))
        value = encoded(turn.value, self._limits, "its result")
        await self._calls.finish()
        await self._leave()
        await self._dumps.forget()
        return ProgramResult(value=msgspec.Raw(value), printed=self.printed, calls=self._calls.made)

    async def close(self) -> None:
        """Nothing of the run is left in memory."""
        await self._calls.close()
        await self._leave()
        fiber = self.fiber.instance.runtime.fiber(self.fiber.id)
        if fiber is not None and fiber.abort is not None and not self.fiber.instance.fenced:
            await self._dumps.forget()

    # --- the program

    async def _begin(self) -> Turn:
        """From the newest dump, or from the first line."""
        kept = await self._dumps.newest()
        if kept is not None and (turn := await self._go_on_from(kept)) is not None:
            return turn
        return await self._run(self._start())

    async def _start(self) -> Turn:
        session = await self._open(checked=self._check)
        return await session.start(self.program, self.inputs, check=self._check)

    async def _go_on_from(self, kept: Kept) -> Turn | None:
        """The blocked program of a dump; None when the interpreter does not take it."""
        with self.fiber.parking.working():
            session = await self._open()
            try:
                pending = await session.load(kept.dump, kept.printed)
            except ProgramFailed:
                await self._leave()
                return None
        if not self._calls.resume(kept.waiting, kept.calls, kept.spent, pending):
            await self._leave()
            return None
        self.printed, self._dump, self._is_kept = kept.printed, kept.dump, True
        self._calls.begin(sorted(pending))
        return Blocked((), pending)

    async def _tell(self, number: int, outcome: Outcome) -> Turn:
        session = self._session
        if session is None:
            assert self._dump is not None
            session = await self._open()
            await session.load(self._dump, self.printed)
        self._dump, self._is_kept = None, False
        return await session.answer(number, outcome, msgspec.json.decode(outcome.value))

    async def _answer_file(self, halted: Halted) -> Turn:
        """It goes on where it is: nothing is kept at a call of a file, which the journal answers like any other."""
        (number,) = self._calls.take([halted.call])
        with self.fiber.parking.working():
            self._calls.begin([number])
            outcome = await self._calls.decided(number)
        assert self._session is not None
        return await self._run(self._session.answer_file(halted.call, outcome, msgspec.json.decode(outcome.value)))

    async def _run(self, step: Awaitable[Turn]) -> Turn:
        """Let the interpreter compute; the fiber is not parked meanwhile."""
        with self.fiber.parking.working():
            turn = await step
            if self._session is not None:
                self.printed = self._session.output.text
            return turn

    async def _next(self, pending: Sequence[int]) -> int:
        """The call whose outcome the program is told next, once it has one."""
        was_held = False
        while (number := self._calls.ready(pending)) is None:
            running = self._calls.running
            if not running:
                self._calls.raise_failed()
                raise ProgramFailed("error", "it waits for something that is never decided")
            if was_held or self._calls.is_deciding:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            else:
                was_held = True
                with self.fiber.parking.working():
                    seconds = 0.0 if self._calls.only_waits else HOLD_SECONDS
                    await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                    if not any(task.done() for task in running):
                        await self._let_go()
            self._calls.raise_failed()
        return number

    # --- its interpreter

    async def _open(self, *, checked: bool = False) -> Session:
        self._stack = AsyncExitStack()
        functions = self._calls.named
        lease = self._interpreters.session(
            self._limits,
            moment=self.fiber.state.accepted_at,
            seed=f"{self._dumps.owner}:{self.program.digest}",
            functions={*functions, STEP},
            stubs=stubs(list(functions.values()), self.inputs) if checked else None,
            files=self._calls.files,
        )
        self._session = await self._stack.enter_async_context(lease)
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
        dump, is_known = (self._dump, True) if self._dump is not None else (session.dump(), False)
        self._dump = dump
        if not (is_known and self._is_kept) and len(dump) <= (DUMP_BYTES_KEPT_MAX if parks else DUMP_BYTES_MAX):
            self._is_kept = True
            await self._dumps.keep(dump, self.printed, self._calls.waiting, self._calls.made, self._calls.spent)
