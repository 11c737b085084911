"""Agents in the same storms: real workers run a real loop while the model's provider fails and stalls, and people interrupt.

The weather, the supervisor and the healing are those of `runtime_world`. What the tools do to the outside and what the
model was asked is counted beside them, where no crash reaches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from tests.crash.wire import check_wire
from tests.simulation.runtime_world import (
    HEALED_SECONDS,
    STORM_SECONDS,
    World,
    heal,
    insist,
    weather,
)

from cairn import Agent, Context, Limits
from cairn.errors import ModelError
from cairn.harness import records as h
from cairn.harness.application import AgentApplication
from cairn.harness.handle import ConversationHandle
from cairn.harness.loop import Services
from cairn.harness.messages import AssistantMessage, Text, ToolCall
from cairn.harness.models.protocol import Activity, Completed, ModelEvent, ModelRequest, TextDelta
from cairn.runtime import records as r
from cairn.runtime.state import RuntimeState
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address
from cairn.testing import History, Process, Simulation, Violation, check
from cairn.testing.history import Log, logs_of

CONVERSATIONS = 12
CLIENTS = 2
MESSAGES = 25
KIND = "toy"

TOOLS = ("once", "with_key", "again", "in_steps")


@dataclass
class Outcome:
    violations: list[Violation]
    admitted: set[str]
    states: dict[str, RuntimeState]
    effects: Counter[tuple[str, str]]
    keys: dict[tuple[str, str], set[str]]
    outcomes: Counter[str]
    finished_twice: list[str]


@dataclass
class AgentStorm(World):
    """The world, with an agent in place of the toy application."""

    def application(self, process: Process) -> AgentApplication:
        agent = agent_of(self, process)
        return AgentApplication(agent, Services(resolve=lambda model: model), "")  # type: ignore[arg-type, return-value]


def agent_of(world: AgentStorm, process: Process) -> Agent[None]:
    """The agent as the code of one process."""
    clock, ids = process.clock, process.ids
    agent = Agent(
        KIND, model=StormyModel(process), limits=Limits(idle_seconds=30.0, first_event_seconds=30.0, model_retries=50)
    )

    async def effect(ctx: Context[None], name: str) -> str:
        await clock.sleep(ids.random() * 5)
        world.effects[ctx.call, name] += 1
        world.keys.setdefault((ctx.call, name), set()).add(ctx.key)
        await clock.sleep(ids.random() * 5)
        return name

    @agent.tool
    async def once(ctx: Context[None]) -> str:
        """May not be repeated."""
        return await effect(ctx, "once")

    @agent.tool(repeat="keyed")
    async def with_key(ctx: Context[None]) -> str:
        """May be repeated with its key."""
        return await effect(ctx, "with_key")

    @agent.tool(repeat="safe")
    async def again(ctx: Context[None]) -> str:
        """May be repeated."""
        return await effect(ctx, "again")

    @agent.tool(repeat="resume")
    async def in_steps(ctx: Context[None]) -> str:
        """Goes on after its last step."""
        for number in range(2):
            await ctx.step(f"s{number}", lambda number=number: effect(ctx, f"s{number}"))
        return "done"

    return agent


class StormyModel:
    """Calls a few tools, then speaks; fails, stalls and breaks off by chance. Its calls are named by what it was shown, so
    that a call which was answered once can be told from one that is made again."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def spec(self) -> str:
        return "stormy:model"

    @property
    def context_window(self) -> int | None:
        return None

    async def warm(self) -> None:
        return None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        dice, clock = self._process.ids, self._process.clock
        await clock.sleep(dice.random() * 3)
        chance = dice.random()
        if chance < 0.06:
            raise ModelError("busy", kind="overload", retry_after=dice.random() * 20)
        if chance < 0.09:
            await clock.sleep(10_000)
        yield Activity()
        text = "I will see. " * (1 + int(dice.random() * 4))
        for start in range(0, len(text), 6):
            yield TextDelta(0, text[start : start + 6])
            await clock.sleep(dice.random())
            if dice.random() < 0.01:
                raise ModelError("cut", kind="network")
        since = sum(isinstance(message, AssistantMessage) for message in request.messages)
        wants_tools = dice.random() < 0.6 and since % 6 != 5
        calls = tuple(
            ToolCall(id=self._process.ids.new("call"), name=TOOLS[int(dice.random() * len(TOOLS))], arguments={})
            for _ in range(1 + int(dice.random() * 3))
        )
        content = (Text(text=text), *(calls if wants_tools else ()))
        yield Completed(content=content, stop="tools" if wants_tools else "stop", response_id=self._process.ids.new("resp"))


async def client(world: AgentStorm, process: Process) -> None:
    """Sends messages at random times, some twice under one key, some while the agent is busy; aborts some."""
    application = world.application(process)
    face, dice = world.face(process), process.ids
    for number in range(MESSAGES):
        await process.clock.sleep(dice.random() * 2 * STORM_SECONDS / MESSAGES)
        address = Address(KIND, str(int(dice.random() * CONVERSATIONS)))
        talk = ConversationHandle(application, face, process.clock, process.ids, address)
        for _ in range(1 + (dice.random() < 0.3)):
            receipt = await insist(process, lambda: talk.send(f"do {number}", key=f"{process.name}-{number}"))  # noqa: B023
            world.accepted.add(receipt.submission)
        if dice.random() < 0.2:
            await process.clock.sleep(dice.random() * 30)
            await insist(process, lambda: talk.abort(receipt.submission))  # noqa: B023


async def run_agents(simulation: Simulation) -> Outcome:
    """The storm, then ten healed minutes in which every message has to settle."""
    store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
    await store.open()
    world = AgentStorm(simulation, store, History(simulation.note))
    for number in range(simulation.random.randint(3, 5)):
        world.start_worker(f"w{number}")
    clients = [simulation.process(f"c{number}", lambda p: client(world, p)) for number in range(CLIENTS)]

    await weather(world, jumps=False)
    heal(world)
    for process in clients:
        await process.wait()
    deadline = simulation.now() + HEALED_SECONDS
    while simulation.now() < deadline and any(fold(log).unsettled() for log in await logs_of(store)):
        await simulation.clock.sleep(10)

    logs = await logs_of(store)
    assert await store.check() == []
    for log in logs:
        check_wire(log)
    outcomes: Counter[str] = Counter()
    responses: Counter[str] = Counter()
    for log in logs:
        for record in records_of(log):
            if isinstance(record, h.ToolOutcome):
                outcomes[record.outcome] += 1
            elif isinstance(record, h.MessageCompleted):
                responses[record.message] += 1
    states = {str(log.instance.address): fold(log) for log in logs}
    violations = check(world.history, logs)
    await store.close()
    twice = [message for message, count in responses.items() if count > 1]
    return Outcome(violations, world.accepted, states, world.effects, world.keys, outcomes, twice)


def records_of(log: Log) -> list[r.Record]:
    decode = r.decoder(h.HARNESS).decode
    return [record for row in log.rows for record in decode(row.batch.records)]


def fold(log: Log) -> RuntimeState:
    """What the log says, by a fold of its own, which refuses what may not be."""
    from cairn.harness.conversation import Conversation

    state, conversation = RuntimeState(), Conversation()
    decode = r.decoder(h.HARNESS).decode
    for row in log.rows:
        for record in decode(row.batch.records):
            state.apply(record, row.ordinal)
            conversation.apply(record, row.ordinal)
    return state
