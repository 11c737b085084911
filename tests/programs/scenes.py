"""A durable object that runs programs, and a world outside that counts what they do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore, Worker, WorkerSettings
from cairn.runtime.program import Function, FunctionCall, Program, ProgramLimits, ProgramResult
from cairn.runtime.program_calls import Gate
from cairn.runtime.program_files import Grant, file_functions
from cairn.runtime.program_pool import Interpreters
from cairn.runtime.program_run import run_program
from cairn.runtime.workspace import Workspace


@dataclass
class State:
    nothing: int = 0


class Outside:
    """What functions reach: every effect is counted, and may be the last thing the process does."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self.keys: dict[str, str] = {}
        self.deadly: set[int] = set()
        """The numbers of effects, over all lives, at which the process dies: the effect happened, nobody lived to say so."""
        self.die: Callable[[], None] = lambda: None

    async def _effect(self, name: str, call: FunctionCall) -> None:
        self.effects[name] += 1
        assert self.keys.setdefault(name, call.key) == call.key, "a call's key is the same at every repeat"
        if self.effects.total() in self.deadly:
            self.die()
            await asyncio.sleep(3600)

    async def fetch(self, call: FunctionCall) -> Any:
        await self._effect(f"fetch {call.arguments['item']}", call)
        return {"item": call.arguments["item"], "size": 10}

    async def charge(self, call: FunctionCall) -> Any:
        await self._effect(f"{call.function} {call.arguments['amount']}", call)
        return f"charged {call.arguments['amount']}"

    async def refuse(self, call: FunctionCall) -> Any:
        raise PermissionError("not today")

    async def ask(self, call: FunctionCall) -> Any:
        answer = await call.fiber.ask(call.name, call.arguments)
        return answer.value()

    def functions(self) -> list[Function]:
        return [
            Function("fetch", self.fetch, ("item",), "safe", stub="async def fetch(item: int) -> dict[str, Any]: ..."),
            Function("fetch_any", self.fetch, ("item",), "safe", cost=1.5, stub="async def fetch_any(item: Any) -> Any: ..."),
            Function("charge", self.charge, ("amount",), "never", cost=5.0, stub="async def charge(amount: int) -> str: ..."),
            Function("charge_keyed", self.charge, ("amount",), "keyed", stub="async def charge_keyed(amount: int) -> str: ..."),
            Function("refuse", self.refuse, (), "safe", stub="async def refuse() -> None: ..."),
            Function("ask", self.ask, ("question",), waits=True, stub="async def ask(question: str) -> Any: ..."),
            Function(
                "pay",
                self.charge,
                ("amount",),
                "never",
                approval=lambda call: f"{call.arguments['amount']} is much" if call.arguments["amount"] > 100 else None,
                stub="async def pay(amount: int) -> str: ...",
            ),
        ]


@dataclass
class Stage:
    """One store that outlives workers."""

    outside: Outside = field(default_factory=Outside)
    limits: ProgramLimits = field(default_factory=ProgramLimits)
    check: bool = True
    files: Grant | None = None
    gate: Gate | None = None
    text: Callable[[str], str] = lambda source: source
    """What the program's text is in this life."""
    store: Any = None
    interpreters: Interpreters = field(default_factory=Interpreters)

    @property
    def application(self) -> ObjectApplication:
        stage = self

        class Host(DurableObject[State]):
            kind = "host"

            async def run(self, fiber: Fiber, source: str, inputs: dict[str, Any]) -> dict[str, Any]:
                result = await run_program(
                    fiber,
                    Program(stage.text(source)),
                    stage.outside.functions(),
                    interpreters=stage.interpreters,
                    inputs=inputs,
                    limits=stage.limits,
                    check=stage.check,
                    secret=b"s",
                    gate=stage.gate,
                    files=file_functions(Workspace.of(fiber.instance), stage.files) if stage.files is not None else (),
                )
                return shown(result)

            async def put(self, fiber: Fiber, files: dict[str, str]) -> None:
                for path, text in files.items():
                    await self.workspace.write(path, text.encode(), parents=True)

            async def files(self, fiber: Fiber) -> list[str]:
                return sorted(entry.path for entry in self.workspace.walk() if entry.is_file)

        return ObjectApplication(Host)


def shown(result: ProgramResult) -> dict[str, Any]:
    failure = None if result.failure is None else [result.failure.kind, result.failure.message]
    return {"value": result.value, "failure": failure, "printed": result.printed, "calls": result.calls}


@asynccontextmanager
async def staged(stage: Stage | None = None, path: str = ":memory:") -> AsyncIterator[tuple[Stage, Client, Worker]]:
    """A worker that runs programs."""
    stage = stage or Stage()
    clock, ids = SystemClock(), SystemIds()
    stage.store = SqliteStore(path, clock=clock, ids=ids, inline=path == ":memory:")
    await stage.store.open()
    application = stage.application
    settings = WorkerSettings(idle_seconds=0.2)
    try:
        async with Worker(stage.store, [application], clock=clock, ids=ids, settings=settings) as worker:
            yield stage, Client(stage.store, application, clock=clock, ids=ids), worker
    finally:
        await stage.interpreters.close()
        await stage.store.close()


async def run(client: Client, source: str, id: str = "one", **inputs: Any) -> dict[str, Any]:
    receipt = await client.accept(id, "run", [source, inputs])
    return await asyncio.wait_for(client.result(receipt), 30)  # type: ignore[no-any-return]


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """What is there, once there is something."""
    while not (found := await look()):  # noqa: ASYNC110 - what it waits for is in a store
        await asyncio.sleep(0.01)
    return found


def once(source: str, limits: ProgramLimits = ProgramLimits(), **inputs: Any) -> dict[str, Any]:
    """One program, run to its end."""

    async def main() -> dict[str, Any]:
        async with staged(Stage(limits=limits)) as (_, client, _worker):
            return await run(client, source, **inputs)

    return asyncio.run(main())


Body = Callable[[Stage, Client, Worker], Awaitable[Any]]
