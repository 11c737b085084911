"""What an agent may be in the middle of when its process dies while calls of it wait for answers: one small program each."""

from __future__ import annotations

import asyncio

from tests.crash.scenarios import Scenario, agent_of
from tests.objects.answering import answering, approve, asked, nothing, output, reject

from cairn import Agent, Context, Tool
from cairn.harness.asking import Asks, approval
from cairn.harness.client_tool import client_tool
from cairn.harness.handle import ConversationHandle
from cairn.testing.play import settled
from cairn.testing.scripted import Call
from cairn.testing.world import World

#: A client's tool: no function of it is here.
WHERE: Tool = client_tool("where", "Where the user is.", output={"type": "object", "required": ["city"]})


def shop(world: World, *replies: object, asks: bool | Asks = True, tools: tuple[Tool, ...] = ()) -> Agent:  # type: ignore[type-arg]
    """An agent whose `pay` asks, and whose `look` does not."""
    agent = agent_of(world, *replies)  # type: ignore[arg-type]
    agent = agent.replaced(tools=tools)

    @agent.tool(approval=asks)
    async def pay(ctx: Context, amount: int = 3) -> str:
        """Pay."""
        world.effect("pay", ctx.call)
        await asyncio.sleep(1)
        return f"paid {amount}"

    @agent.tool(repeat="safe")
    async def look(ctx: Context, seconds: float = 0) -> str:
        """Look."""
        world.effect("look", ctx.call)
        await asyncio.sleep(seconds)
        return "seen"

    return agent


def approved(world: World) -> Agent:  # type: ignore[type-arg]
    return shop(world, Call("pay", {"amount": 3}), "Paid.")


def rejected(world: World) -> Agent:  # type: ignore[type-arg]
    return shop(world, Call("pay", {"amount": 300}), "I leave it.")


def client_side(world: World) -> Agent:  # type: ignore[type-arg]
    return shop(world, Call("where"), "In Oslo.", tools=(WHERE,))


def parallel(world: World) -> Agent:  # type: ignore[type-arg]
    """Two wait and one runs; it runs longer than the first answer takes, and they are answered from the end."""
    calls = [Call("pay", {"amount": 1}), Call("look", {"seconds": 3}), Call("pay", {"amount": 2})]
    return shop(world, calls, "All done.")


def withdrawn(world: World) -> Agent:  # type: ignore[type-arg]
    return shop(world, Call("pay"), "Something else, then.", asks=approval(on_message="withdraw"))


def expiring(world: World) -> Agent:  # type: ignore[type-arg]
    return shop(world, Call("pay"), "Nobody said yes.", asks=approval(expires=40))


def expiring_beside(world: World) -> Agent:  # type: ignore[type-arg]
    """Its time is over while another call runs."""
    return shop(world, [Call("pay"), Call("look", {"seconds": 60})], "Nobody said yes.", asks=approval(expires=40))


async def interrupting(conversation: ConversationHandle, world: World) -> None:
    """Another message comes while the call waits; nobody answers."""
    first = await conversation.send("first", key="first")
    await asked(conversation, first)
    second = await conversation.send("second", key="second")
    await settled(first)
    await settled(second)


async def patient(conversation: ConversationHandle, world: World) -> None:
    """Another message comes while the call waits; it is approved later."""
    first = await conversation.send("first", key="first")
    await asked(conversation, first)
    second = await conversation.send("second", key="second")
    await asyncio.sleep(20)
    for question in await conversation.questions():
        await approve(conversation, question)
    await settled(first)
    await settled(second)


async def aborting(conversation: ConversationHandle, world: World) -> None:
    first = await conversation.send("first", key="first")
    if await asked(conversation, first):
        await conversation.abort(first.submission, reason="changed my mind")
    await settled(first)


async def rewinding(conversation: ConversationHandle, world: World) -> None:
    """What was asked is forgotten with everything else; the next message begins anew, and asks again."""
    first = await conversation.send("first", key="first")
    await asked(conversation, first)
    await conversation.rewind(key="rewind")
    await settled(first)
    second = await conversation.send("second", key="second")
    for question in await asked(conversation, second):
        await approve(conversation, question)
    await settled(second)


ANSWER_SCENARIOS = (
    Scenario("approve", approved, answering(approve), ("Paid.",), {"pay": 1}),
    Scenario("reject", rejected, answering(reject), ("I leave it.",), {"pay": 0}),
    Scenario("client-tool", client_side, answering(output({"city": "Oslo"})), ("In Oslo.",)),
    Scenario(
        "two-waits", parallel, answering({"call_0_0": reject, "call_0_2": approve}, backwards=True), ("All done.",),
        {"pay": 1, "look": 1}, repeats=("look",),
    ),
    Scenario("withdraw", withdrawn, interrupting, ("Something else, then.",) * 2),
    Scenario("queue", approved, patient, ("Paid.",) * 2, {"pay": 1}),
    Scenario("expire", expiring, answering(nothing), ("Nobody said yes.",)),
    Scenario("expire-beside", expiring_beside, answering(nothing), ("Nobody said yes.",), {"look": 1}, repeats=("look",)),
    Scenario("abort-waiting", approved, aborting, ("changed my mind",)),
    Scenario("rewind-waiting", approved, rewinding, ("the conversation was rewound", "Paid."), {"pay": 1}),
)  # fmt: skip

BY_NAME = {scenario.name: scenario for scenario in ANSWER_SCENARIOS}
