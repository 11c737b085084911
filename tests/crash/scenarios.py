"""What an agent may be in the middle of when its process dies: one small program each, and what must hold of it.

A scenario is an agent whose tools write into the world, a model whose answers depend on nothing but what it is shown, and
a client that can be called again in every life. Everything that may differ after a crash, beyond what is true of all of
them (see `comparing.py`), is written down in the scenario.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cairn import Agent, Context, Limits, Settled, Stopping, ToolError, ToolResult, Turn, tool
from cairn.errors import ModelError
from cairn.harness.handle import ConversationHandle
from cairn.harness.models.protocol import ModelRequest
from cairn.testing.play import Client, settled
from cairn.testing.scripted import Call, Fail, Meanwhile, Reply, Say, ScriptedModel, Stall, by_turn
from cairn.testing.world import Event, Provider, World

#: Seconds from its first request in which a provider fails. Longer than any crash and takeover, shorter than the first retry.
OUTAGE_SECONDS = 14.0

#: Waits of a scenario that retries: one wait is longer than the outage.
RETRY = Limits(retry_base_seconds=16.0, retry_jitter=0.0, idle_seconds=4.0)


@dataclass(frozen=True)
class Scenario:
    """One program. The fields after `client` say what must hold, and what may not be the same after a crash."""

    name: str
    agent: Callable[[World], Agent]  # type: ignore[type-arg]
    client: Client
    replies: tuple[str, ...]
    """What each submission settles with, in order: its text, or why it has none."""
    effects: Mapping[str, int] = field(default_factory=dict)
    """How often each effect happens in a run without a crash."""
    state: Mapping[str, object] = field(default_factory=dict)
    """The agent's state in the end."""
    repeats: tuple[str, ...] = ()
    """Effects that a crash may repeat: of tools that say they can bear it, and of hooks (at least once)."""
    open_end: bool = False
    """After an unknown outcome the rest may be another than without the crash; it still has to settle."""


def say(text: str, thinking: str = "") -> Say:
    """Text in several delta commits: each piece comes later than the loop gathers."""
    return Say(text, chunk=7, pause=0.03, thinking=thinking)


def agent_of(
    world: World, *replies: Reply | Callable[[ModelRequest], Reply], limits: Limits = Limits(), **options: type
) -> Agent:  # type: ignore[type-arg]
    """An agent with a model that says these, one per turn."""
    model = Provider(world, ScriptedModel(by_turn(replies)))
    return Agent("toy", model=model, instructions="Be brief.", limits=limits, **options)


def sending(*messages: str) -> Client:
    """A client that sends these one after the other, each when the one before has settled."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        for message in messages:
            await settled(await conversation.send(message, key=message))

    return client


# --- answers ------------------------------------------------------------------------------------------------------


def plain(world: World) -> Agent:  # type: ignore[type-arg]
    return agent_of(world, say("Good morning.", thinking="Be polite."))


def hurried(world: World) -> Agent:  # type: ignore[type-arg]
    return agent_of(world, "Yes.", "No.")


# --- tools --------------------------------------------------------------------------------------------------------


def one_tool(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, [say("I pay. "), Call("pay", {"amount": 3})], "Paid.")

    @agent.tool
    async def pay(ctx: Context, amount: int) -> str:
        """Pay."""
        world.effect("pay", ctx.call)
        return f"paid {amount}"

    return agent


def parallel(world: World) -> Agent:  # type: ignore[type-arg]
    """Three at once: the second is the first to finish, and the first the last."""
    agent = agent_of(world, [Call("pay", {"amount": 3}), Call("pay", {"amount": 1}), Call("look", {"seconds": 2})], "All done.")

    @agent.tool
    async def pay(ctx: Context, amount: int) -> str:
        """Pay."""
        world.effect("pay", ctx.call)
        await asyncio.sleep(amount)
        return f"paid {amount}"

    @agent.tool(repeat="safe")
    async def look(ctx: Context, seconds: int) -> str:
        """Look."""
        world.effect("look", ctx.call)
        await asyncio.sleep(seconds)
        return "seen"

    return agent


def failing(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, Call("pay"), Call("break_down"), "It did not work.")

    @agent.tool
    async def pay(ctx: Context) -> str:
        """Pay."""
        world.effect("pay", ctx.call)
        raise ToolError("the account is empty")

    @agent.tool
    async def break_down(ctx: Context) -> str:
        """Break down."""
        world.effect("break_down", ctx.call)
        raise ZeroDivisionError("a bug")

    return agent


def keyed(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, Call("order"), "Ordered.")

    @agent.tool(repeat="keyed")
    async def order(ctx: Context) -> str:
        """Order."""
        world.effect("order", ctx.call, ctx.key)
        await asyncio.sleep(1)
        return "ordered"

    return agent


def safe(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, Call("look"), "Seen.")

    @agent.tool(repeat="safe")
    def look(ctx: Context) -> str:
        """Look."""
        world.effect("look", ctx.call)
        return "a tree"

    return agent


def resume(world: World) -> Agent:  # type: ignore[type-arg]
    """Steps of each class, one after the other."""
    agent = agent_of(world, Call("ship"), "Shipped.")

    @agent.tool(repeat="resume")
    async def ship(ctx: Context) -> str:
        """Ship."""
        found = await ctx.step("find", lambda: world.effect("find", ctx.call) and "it")
        label = await ctx.step("label", lambda: world.effect("label", ctx.call, ctx.key) and "printed", repeat="keyed")
        sent = await ctx.step("send", lambda: world.effect("send", ctx.call) and "gone", repeat="never")
        return f"{found} {label} {sent}"

    return agent


def refused(world: World) -> Agent:  # type: ignore[type-arg]
    """A tool that is not there, arguments that do not fit, and arguments that are no JSON."""
    calls = [
        Call("fly"),
        Call("pay", {"amount": "much"}),
        Call("pay", arguments_error="no closing brace"),
        Call("pay", {"amount": "3"}),
    ]
    agent = agent_of(world, calls, "One of four.")

    @agent.tool
    async def pay(ctx: Context, amount: int) -> str:
        """Pay."""
        world.effect("pay", ctx.call)
        return f"paid {amount}"

    return agent


def barrier(world: World) -> Agent:  # type: ignore[type-arg]
    """A call that runs alone between two others; the last ends the run without another model call."""
    agent = agent_of(world, [Call("look"), Call("pay"), Call("look")], Call("finish"))

    @agent.tool(repeat="safe")
    async def look(ctx: Context) -> str:
        """Look."""
        world.effect("look", ctx.call)
        return "a tree"

    @agent.tool(sequential=True)
    async def pay(ctx: Context) -> str:
        """Pay."""
        world.effect("pay", ctx.call)
        return "paid"

    @agent.tool(repeat="safe")
    async def finish(ctx: Context) -> ToolResult:
        """Finish."""
        return ToolResult("That is all.", terminate=True)

    return agent


# --- state ----------------------------------------------------------------------------------------------------------


@dataclass
class Purse:
    coins: int = 0
    notes: list[str] = field(default_factory=list)
    owner: str = ""


def state(world: World) -> Agent:  # type: ignore[type-arg]
    """What a call changed is committed with its outcome, and the instructions follow the state."""
    agent = agent_of(world, Call("earn"), Call("earn"), "Rich.", state=Purse)

    @agent.tool
    async def earn(ctx: Context[Purse]) -> str:
        """Earn."""
        world.effect("earn", ctx.call)
        ctx.state.coins += 1
        return f"{ctx.state.coins} coins"

    return agent


def parallel_state(world: World) -> Agent:  # type: ignore[type-arg]
    """Two fields by two calls, and one field by two calls: the later commit wins and the conflict is recorded."""
    agent = agent_of(
        world,
        [Call("name", {"who": "Ann", "after": 1}), Call("note"), Call("name", {"who": "Bob", "after": 3})],
        "Noted.",
        state=Purse,
    )

    @agent.tool(repeat="safe")
    async def name(ctx: Context[Purse], who: str, after: int) -> str:
        """Name."""
        world.effect("name", ctx.call)
        await asyncio.sleep(after)
        ctx.state.owner = who
        return who

    @agent.tool(repeat="safe")
    async def note(ctx: Context[Purse]) -> str:
        """Note."""
        world.effect("note", ctx.call)
        await asyncio.sleep(2)
        ctx.state.notes.append("a note")
        return "noted"

    return agent


# --- aborts and deadlines ------------------------------------------------------------------------------------------


def aborting(cue: str) -> Client:
    """Aborts at the cue, and then sends another message: the abort must not take it."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("first", key="first")
        await one_of(world.cued(cue), settled(first))
        await conversation.abort(first.submission, reason="changed my mind")
        await settled(first)
        await settled(await conversation.send("second", key="second"))

    return client


async def one_of(*what: object) -> None:
    """Return when one of them has; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in what]  # type: ignore[call-overload]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def abort_stream(world: World) -> Agent:  # type: ignore[type-arg]
    def first(request: ModelRequest) -> Reply:
        # Once aborted, the first message has no finished response: the second submission is turn 0 as well.
        if "second" in str(request.messages):
            return "Second answer."
        return [say("I think that"), Meanwhile(lambda: world.cue("mid")), Stall()]

    return agent_of(world, first)


def abort_tool(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, [Call("wait"), Call("look")], "Second answer.", "Third.")

    @agent.tool
    async def wait(ctx: Context) -> str:
        """Wait."""
        world.effect("wait", ctx.call)
        await asyncio.sleep(1)
        world.cue("running")
        await asyncio.sleep(3600)
        return "too late"

    @agent.tool(repeat="safe")
    async def look(ctx: Context) -> str:
        """Look."""
        world.effect("look", ctx.call)
        return "a tree"

    return agent


def running_timeout(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, Call("hang"), limits=Limits(running_seconds=15.0))

    @agent.tool(repeat="safe")
    async def hang(ctx: Context) -> str:
        """Hang."""
        world.effect("hang", ctx.call)
        await asyncio.sleep(3600)
        return "too late"

    return agent


def tool_timeout(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, Call("hang"), "It hangs.")

    @agent.tool(timeout=5)
    async def hang(ctx: Context) -> str:
        """Hang."""
        world.effect("hang", ctx.call)
        await asyncio.sleep(3600)
        return "too late"

    return agent


# --- a provider in trouble -------------------------------------------------------------------------------------------


def during_outage(world: World, trouble: Reply, then: Reply) -> Callable[[ModelRequest], Reply]:
    """In trouble for `OUTAGE_SECONDS` from the first request on; whoever asks, it is the provider's trouble."""

    def reply(request: ModelRequest) -> Reply:
        now = asyncio.get_running_loop().time()
        began = next((float(event.key) for event in world.events if event.name == "outage"), None)
        if began is None:
            world.note(Event("cue", "outage", key=repr(now)))
        return trouble if began is None or now - began < OUTAGE_SECONDS else then

    return reply


def retry(world: World) -> Agent:  # type: ignore[type-arg]
    overloaded = ModelError("overloaded", kind="overload", status=529)
    return agent_of(world, during_outage(world, Fail(overloaded, after="Well, "), say("Well, I am back.")), limits=RETRY)


def stall(world: World) -> Agent:  # type: ignore[type-arg]
    return agent_of(
        world, during_outage(world, [Meanwhile(lambda: None), Stall(after="Well, ")], say("Well, I am back.")), limits=RETRY
    )


def given_up(world: World) -> Agent:  # type: ignore[type-arg]
    return agent_of(world, Fail(ModelError("no such key", kind="auth", status=401)))


# --- messages that meet a run, and hooks -----------------------------------------------------------------------------


def join(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, Call("look"), "Both answered.")

    @agent.tool(repeat="safe")
    async def look(ctx: Context) -> str:
        """Look."""
        world.effect("look", ctx.call)
        world.cue("running")
        await asyncio.sleep(4)
        return "a tree"

    return agent


async def joining(conversation: ConversationHandle, world: World) -> None:
    first = await conversation.send("first", key="first")
    await one_of(world.cued("running"), settled(first))
    second = await conversation.send("second", key="second")
    await settled(first)
    await settled(second)


def join_stream(world: World) -> Agent:  # type: ignore[type-arg]
    """A message arrives while the model answers: it is answered by the next turn, and both settle with that."""
    return agent_of(world, [say("I think "), Meanwhile(lambda: world.cue("running")), say("that is all.")], "And the second.")


def abort_queued(world: World) -> Agent:  # type: ignore[type-arg]
    """The second message is aborted while it waits behind the first: the model never sees it."""
    return join(world)


async def aborting_second(conversation: ConversationHandle, world: World) -> None:
    first = await conversation.send("first", key="first")
    second = await conversation.send("second", key="second")
    await conversation.abort(second.submission, reason="never mind")
    await settled(second)
    await settled(first)


def abort_parked(world: World) -> Agent:  # type: ignore[type-arg]
    """Aborted while it waits for a retry: it does not wait for that."""
    return agent_of(world, Fail(ModelError("overloaded", kind="overload")), limits=Limits(retry_base_seconds=1_000.0))


async def aborting_parked(conversation: ConversationHandle, world: World) -> None:
    first = await conversation.send("first", key="first")
    await asyncio.sleep(12)
    await conversation.abort(first.submission, reason="too long")
    await settled(first)


def dynamic(world: World) -> Agent:  # type: ignore[type-arg]
    """Tools and instructions that follow the state: each change is told once, at the tail."""
    agent = agent_of(world, Call("unlock"), Call("open_door"), "It is open.", state=Purse)

    @agent.tool(repeat="safe")
    async def unlock(ctx: Context[Purse]) -> str:
        """Unlock."""
        ctx.state.coins = 7
        return "unlocked"

    @tool(repeat="safe")
    async def open_door(ctx: Context[Purse]) -> str:
        """Open."""
        ctx.state.owner = "open"
        return "opened"

    @agent.prepare
    def prepare(turn: Turn[Purse]) -> None:
        if turn.state.coins and not turn.state.owner:
            turn.use(open_door)
        if turn.state.owner:
            turn.instruct("The door is open.")

    return agent


def stopping(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, "Done.", "Now really done.")

    @agent.on_stop
    async def again(event: Stopping) -> str | None:
        world.effect("asked")
        return "Are you sure?" if event.continues == 0 else None

    return agent


def hooks(world: World) -> Agent:  # type: ignore[type-arg]
    agent = agent_of(world, say("Hello, Ann."), state=Purse)

    @agent.on_message
    async def hear(ctx: Context[Purse]) -> str:
        world.effect("heard")
        ctx.state.owner = "Ann"
        return "Her name is Ann."

    @agent.on_settled
    async def after(event: Settled) -> None:
        world.effect("after", event.submission)

    return agent


def length(world: World) -> Agent:  # type: ignore[type-arg]
    """Cut off at the length limit: first in a call, which does not run, then in a text, which goes on."""
    agent = agent_of(world, [Say("", stop="length"), Call("pay")], Say("One two", stop="length"), " three.")

    @agent.tool
    async def pay(ctx: Context) -> str:
        """Pay."""
        world.effect("pay", ctx.call)
        return "paid"

    return agent


TIMEOUT = "ran longer than 15 s (parked time not counted)"

SCENARIOS = (
    Scenario("hurried", hurried, sending("first"), ("Yes.",)),
    Scenario("plain", plain, sending("first"), ("Good morning.",)),
    Scenario("one-tool", one_tool, sending("first"), ("Paid.",), {"pay": 1}),
    Scenario("safe", safe, sending("first"), ("Seen.",), {"look": 1}, repeats=("look",)),
    Scenario("given-up", given_up, sending("first"), ("no such key",)),
    Scenario("keyed", keyed, sending("first"), ("Ordered.",), {"order": 1}, repeats=("order",)),
    Scenario("parallel", parallel, sending("first"), ("All done.",), {"pay": 2, "look": 1}, repeats=("look",)),
    Scenario("failing", failing, sending("first"), ("It did not work.",), {"pay": 1, "break_down": 1}),
    Scenario("resume", resume, sending("first"), ("Shipped.",), {"find": 1, "label": 1, "send": 1}, repeats=("find", "label")),
    Scenario("refused", refused, sending("first"), ("One of four.",), {"pay": 1}),
    Scenario("barrier", barrier, sending("first"), ("",), {"look": 2, "pay": 1}, repeats=("look",)),
    Scenario("state", state, sending("first"), ("Rich.",), {"earn": 2}, {"coins": 2}, open_end=True),
    Scenario(
        "parallel-state", parallel_state, sending("first"), ("Noted.",), {"name": 2, "note": 1},
        {"owner": "Bob", "notes": ["a note"]}, repeats=("name", "note"),
    ),
    Scenario("abort-stream", abort_stream, aborting("mid"), ("changed my mind", "Second answer.")),
    Scenario(
        "abort-tool", abort_tool, aborting("running"), ("changed my mind", "Second answer."), {"wait": 1, "look": 1},
        repeats=("look",), open_end=True,
    ),
    Scenario("running-timeout", running_timeout, sending("first"), (TIMEOUT,), {"hang": 1}, repeats=("hang",)),
    Scenario("tool-timeout", tool_timeout, sending("first"), ("It hangs.",), {"hang": 1}),
    Scenario("retry", retry, sending("first"), ("Well, I am back.",)),
    Scenario("stall", stall, sending("first"), ("Well, I am back.",)),
    Scenario("join", join, joining, ("Both answered.", "Both answered."), {"look": 1}, repeats=("look",)),
    Scenario("join-stream", join_stream, joining, ("And the second.", "And the second.")),
    Scenario("abort-queued", abort_queued, aborting_second, ("Both answered.", "never mind"), {"look": 1}, repeats=("look",)),
    Scenario("abort-parked", abort_parked, aborting_parked, ("too long",)),
    Scenario("dynamic", dynamic, sending("first"), ("It is open.",), state={"coins": 7, "owner": "open"}),
    Scenario("on-stop", stopping, sending("first"), ("Now really done.",), {"asked": 2}, repeats=("asked",)),
    Scenario(
        "hooks", hooks, sending("first"), ("Hello, Ann.",), {"heard": 1, "after": 1}, {"owner": "Ann"},
        repeats=("heard", "after"),
    ),
    Scenario("second", hurried, sending("first", "second"), ("Yes.", "No.")),
    Scenario("length", length, sending("first"), ("One two three.",)),
)  # fmt: skip

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

#: Of these every pair of crash points is tried: the five with the fewest durable writes, one with a `never` tool, and one in
#: which two submissions are at work at a time.
PAIRED = ("given-up", "hurried", "running-timeout", "plain", "safe", "one-tool", "abort-queued")
