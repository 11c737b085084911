"""Agents whose calls wait for answers, in bad weather: three workers die, freeze and lose the store while people, some of them
wrong, some of them twice, answer from processes of their own.

The weather and the healing are those of `tests/simulation`. What ran is counted where no crash reaches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from tests.crash.wire import check_wire
from tests.simulation.agent_world import KIND, AgentStorm, fold, records_of
from tests.simulation.runtime_world import HEALED_SECONDS, heal, insist, weather

from cairn import Agent, Context, Limits
from cairn.errors import Conflict, Denied, NotFound, UsageError
from cairn.harness import records as h
from cairn.harness.application import AgentApplication
from cairn.harness.asking import approval
from cairn.harness.client_tool import client_tool
from cairn.harness.handle import ConversationHandle
from cairn.harness.loop import Services
from cairn.harness.messages import AssistantMessage, ToolCall
from cairn.harness.models.protocol import Activity, Completed, ModelEvent, ModelRequest
from cairn.runtime import records as r
from cairn.runtime.state import RuntimeState
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address
from cairn.testing import History, Process, Simulation, Violation, check
from cairn.testing.history import logs_of

WORKERS = 3
CONVERSATIONS = 5
SECONDS = 900.0
MESSAGES = 15
ANSWERS = 120

TOOLS = ("pay", "gives_way", "by_ann", "outside", "look")


@dataclass
class AnswerStorm(AgentStorm):
    """The world; `taken` is what each accepted answer said, by conversation and call."""

    storm_seconds: float = SECONDS
    taken: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    def application(self, process: Process) -> AgentApplication:
        return AgentApplication(asking_agent(self, process), Services(resolve=lambda model: model), "")  # type: ignore[arg-type, return-value]


def asking_agent(world: AnswerStorm, process: Process) -> Agent[None]:
    clock, ids = process.clock, process.ids
    model = AskingModel(process)
    agent = Agent(KIND, model=model, limits=Limits(), tools=[client_tool("outside", "Elsewhere.", expires=60)])

    async def effect(ctx: Context[None]) -> str:
        await clock.sleep(ids.random() * 4)
        world.effects[ctx.call, "ran"] += 1
        await clock.sleep(ids.random() * 4)
        return "ran"

    @agent.tool(approval=approval(expires=60))
    async def pay(ctx: Context[None]) -> str:
        """Waits a minute."""
        return await effect(ctx)

    @agent.tool(approval=approval(expires=90, on_message="withdraw"))
    async def gives_way(ctx: Context[None]) -> str:
        """Gives way to a message."""
        return await effect(ctx)

    @agent.tool(approval=approval(expires=60, by="ann"))
    async def by_ann(ctx: Context[None]) -> str:
        """Only ann may say."""
        return await effect(ctx)

    @agent.tool(repeat="safe")
    async def look(ctx: Context[None]) -> str:
        """Asks nobody."""
        await clock.sleep(ids.random() * 20)
        return "seen"

    return agent


class AskingModel:
    """Calls one to three tools, a few times, then speaks."""

    spec = "asking:model"
    context_window = None

    def __init__(self, process: Process) -> None:
        self._process = process

    async def warm(self) -> None:
        return None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        dice = self._process.ids
        await self._process.clock.sleep(dice.random() * 2)
        yield Activity()
        since = sum(isinstance(message, AssistantMessage) for message in request.messages)
        count = 1 + int(dice.random() * 3) if since % 3 != 2 else 0
        names = [TOOLS[int(dice.random() * len(TOOLS))] for _ in range(count)]
        calls = tuple(ToolCall(id=dice.new("call"), name=name, arguments={}) for name in names)
        yield Completed(content=calls, stop="tools" if calls else "stop", response_id=dice.new("resp"))


def talk_to(world: AnswerStorm, process: Process, face: object, number: int) -> ConversationHandle:
    application = world.application(process)
    return ConversationHandle(application, face, process.clock, process.ids, Address(KIND, str(number)))  # type: ignore[arg-type]


async def sender(world: AnswerStorm, process: Process) -> None:
    """Sends messages at random times; aborts and rewinds a few."""
    face, dice = world.face(process), process.ids
    for number in range(MESSAGES):
        await process.clock.sleep(dice.random() * 2 * SECONDS / MESSAGES)
        talk = talk_to(world, process, face, int(dice.random() * CONVERSATIONS))
        receipt = await insist(process, lambda: talk.send(f"do {number}", key=f"{process.name}-{number}"))  # noqa: B023
        world.accepted.add(receipt.submission)
        if dice.random() < 0.1:
            await process.clock.sleep(dice.random() * 30)
            await insist(process, lambda: talk.abort(receipt.submission))  # noqa: B023


async def answerer(world: AnswerStorm, process: Process) -> None:
    """Answers what it finds: rightly, wrongly, as somebody else, late, and twice."""
    face, dice = world.face(process), process.ids
    for _ in range(ANSWERS):
        await process.clock.sleep(dice.random() * 2 * SECONDS / ANSWERS)
        talk = talk_to(world, process, face, int(dice.random() * CONVERSATIONS))
        for question in await insist(process, talk.questions):
            if dice.random() < 0.5:
                continue
            await process.clock.sleep(dice.random() * 30)
            by = "ann" if dice.random() < 0.7 else "bob"
            digest = question.digest if dice.random() < 0.8 else "sha256:0"
            said = "output" if question.kind == "client_tool" else "approve" if dice.random() < 0.6 else "reject"
            for _ in range(1 + (dice.random() < 0.3)):
                await insist(process, lambda: give(world, talk, question.call, said, digest, by))  # noqa: B023


async def give(world: AnswerStorm, talk: ConversationHandle, call: str, said: str, digest: str, by: str) -> None:
    try:
        if said == "approve":
            receipt = await talk.approve(call, digest=digest, by=by)
        elif said == "reject":
            receipt = await talk.reject(call, "no", digest=digest, by=by)
        else:
            receipt = await talk.answer(call, {"by": by}, digest=digest, by=by)
    except (Conflict, NotFound, Denied, UsageError) as error:
        world.refused[type(error).__name__] += 1
        return
    assert digest != "sha256:0", "an answer to other arguments was taken"
    if not receipt.duplicate:
        world.taken.setdefault((talk.id, call), []).append(said)


@dataclass
class Outcome:
    violations: list[Violation]
    states: dict[str, RuntimeState]
    admitted: set[str]
    effects: Counter[tuple[str, str]]
    taken: dict[tuple[str, str], list[str]]
    refused: Counter[str]
    asked: dict[tuple[str, str], h.ToolAwaiting]
    called: dict[tuple[str, str], h.ToolCalled]
    outcomes: dict[tuple[str, str], h.ToolOutcome]


async def run_answers(simulation: Simulation) -> Outcome:
    """The storm, then ten healed minutes in which every message has to settle."""
    store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
    await store.open()
    world = AnswerStorm(simulation, store, History(simulation.note))
    for number in range(WORKERS):
        world.start_worker(f"w{number}")
    people = [simulation.process(f"s{number}", lambda p: sender(world, p)) for number in range(2)]
    people += [simulation.process(f"a{number}", lambda p: answerer(world, p)) for number in range(2)]

    await weather(world, jumps=False)
    heal(world)
    for process in people:
        await process.wait()
    deadline = simulation.now() + HEALED_SECONDS
    while simulation.now() < deadline and any(fold(log).unsettled() for log in await logs_of(store)):
        await simulation.clock.sleep(10)

    logs = await logs_of(store)
    assert await store.check() == []
    asked: dict[tuple[str, str], h.ToolAwaiting] = {}
    called: dict[tuple[str, str], h.ToolCalled] = {}
    outcomes: dict[tuple[str, str], h.ToolOutcome] = {}
    for log in logs:
        check_wire(log)
        id, done = log.instance.address.id, dict[str, r.AnswerGiven]()
        for record in records_of(log):
            if isinstance(record, h.ToolAwaiting):
                asked[id, record.call] = record
            elif isinstance(record, r.AnswerGiven):
                done.setdefault(record.call, record)
            elif isinstance(record, h.ToolCalled):
                assert record.call not in called and (not record.answer or record.call in done), "run before its answer (S8)"
                called[id, record.call] = record
            elif isinstance(record, h.ToolOutcome):
                assert (id, record.call) not in outcomes, "two outcomes of one call (S5)"
                outcomes[id, record.call] = record
    states = {str(log.instance.address): fold(log) for log in logs}
    violations = check(world.history, logs)
    await store.close()
    return Outcome(violations, states, world.accepted, world.effects, world.taken, world.refused, asked, called, outcomes)
