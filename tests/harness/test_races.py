"""F8: two things that race, both orders and the same instant, and the outcomes each may have. No third.

Method: one of the two happens in the middle of the run at a virtual time that is moved across the other in small steps, so
that it comes before, at the same instant, and after it; each with several seeds, which throw the order of what is ready at
once. Every run is checked for S1 to S10 as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.harness.playing import Scene, scene, told

from cairn import Agent, Context, Turn
from cairn.errors import Conflict, ModelError
from cairn.harness import records as h
from cairn.harness.application import AgentApplication
from cairn.harness.attempt import Attempt, Services
from cairn.harness.handle import ConversationHandle, Receipt
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.instance import Instance
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, WorkerRow
from cairn.testing import Simulation, simulate
from cairn.testing.play import Client, settled
from cairn.testing.scripted import Call, Fail, Reply, Say, ScriptedModel
from cairn.testing.world import World

pytestmark = pytest.mark.slow

Act = Callable[[ConversationHandle, Receipt], Awaitable[Any]]


@dataclass
class Mode:
    late: bool = False


#: Seconds: each model answer takes one (a word a half), the tool one more.
AT = (0.0, 0.499, 0.5, 0.501, 0.999, 1.0, 1.001, 1.5, 1.999, 2.0, 2.001, 2.5, 2.999, 3.0, 3.001, 9.0)
SEEDS = (0, 1)

ANSWER: tuple[Reply, ...] = (Say("one two", chunk=4, pause=0.5),)
WORK: tuple[Reply, ...] = ([Say("I work.", chunk=4, pause=0.5), Call("work")], Say("It worked.", chunk=5, pause=0.5))


def working(agent: Agent[Any], world: World) -> None:
    @agent.tool
    async def work() -> str:
        """Work."""
        world.effect("work")
        await asyncio.sleep(1)
        return "worked"


def at(seconds: float, act: Act) -> Client:
    """Says "Hello." and does `act` so many seconds after."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("Hello.", key="0")
        await asyncio.sleep(seconds)
        await act(conversation, first)
        await settled(first)

    return client


def over_time(*replies: Reply, act: Act, **options: Any) -> list[Scene]:
    """One scene for each moment and seed."""
    return [scene(*replies, client=at(seconds, act), seed=seed, **options) for seconds in AT for seed in SEEDS]


def both(found: set[str], *wanted: str) -> None:
    """Each of the outcomes happened, and no other did."""
    assert found == set(wanted)


async def abort(conversation: ConversationHandle, first: Receipt) -> None:
    await conversation.abort(first.submission, reason="enough")


def second(text: str = "And?") -> Act:
    async def send(conversation: ConversationHandle, first: Receipt) -> None:
        await settled(await conversation.send(text, key="1"))

    return send


def test_f8_abort_and_settle() -> None:
    """F8, S7: aborted, or completed with the whole answer; what was finished is not taken back."""
    done = over_time(*ANSWER, act=abort)

    both({each.outcomes[0] for each in done}, "aborted: enough", "completed: one two")
    for each in done:
        (end,) = each.of(r.FiberSettled)
        assert end.outcome == "completed" or each.of(h.MessageCompleted) == []


def test_f8_abort_and_a_tool() -> None:
    """F8, S9: the tool ran to its end, was stopped, or was never called; it has the outcome that says so."""
    done = over_time(*WORK, act=abort, define=working)

    both({each.outcomes[0] for each in done}, "aborted: enough", "completed: It worked.")
    seen = set()
    for each in done:
        outcomes = tuple(record.outcome for record in each.of(h.ToolOutcome))
        seen.add((len(each.run.world.effects("work")), outcomes))
    assert (
        seen <= {(0, ()), (0, ("aborted",)), (1, ("aborted",)), (1, ("ok",))}
        and {(0, ()), (1, ("aborted",)), (1, ("ok",))} <= seen
    )


def test_f8_abort_and_park() -> None:
    """F8: a request that fails and is to be tried again in 2 s: aborted before, at, or during the wait; or answered."""
    busy = Fail(ModelError("busy", kind="overload"), after="Well, ")
    done = over_time(busy, Say("here.", chunk=3, pause=0.5), act=abort)

    both({each.outcomes[0] for each in done}, "aborted: enough", "completed: Well, here.")
    for each in done:
        parks, ends = each.of(r.FiberParked), each.of(r.FiberSettled)
        assert len(parks) <= 1 and len(ends) == 1


def test_f8_a_message_and_the_end_of_a_run() -> None:
    """F8, S1: it joins and is answered with the first, or begins a run of its own; it is answered once in either case."""

    def script(request: Any) -> Reply:
        users = [text for text in told(request.messages) if text.startswith("user")]
        return Say(f"answer to {len(users)}", chunk=4, pause=0.25)

    done = over_time(act=second(), script=script)

    ways = set()
    for each in done:
        joined = each.of(r.FiberSettled)[1].answered_by is not None
        ways.add("joined" if joined else "on its own")
        assert [end.outcome for end in each.of(r.FiberSettled)] == ["completed", "completed"]
        assert told(each.requests[-1].messages).count("user: And?") == 1
        assert each.outcomes[1] == "completed: answer to 2"
    both(ways, "joined", "on its own")


def test_f8_a_message_and_a_retry() -> None:
    """F8: it is in the request after the wait, or in one of its own; it is read once."""
    busy = Fail(ModelError("busy", kind="overload"))
    done = over_time(busy, "here.", "there.", act=second())

    both({str(len(each.requests)) for each in done}, "2", "3")
    for each in done:
        assert told(each.requests[-1].messages).count("user: And?") == 1
        assert [outcome.split(":")[0] for outcome in each.outcomes] == ["completed", "completed"]


def test_f8_abort_of_the_first_and_a_second_message() -> None:
    """F8, F5: the second is answered whatever becomes of the first."""

    async def both_at_once(conversation: ConversationHandle, first: Receipt) -> None:
        sending = asyncio.ensure_future(conversation.send("And?", key="1"))
        await conversation.abort(first.submission, reason="enough")
        await settled(await sending)

    def script(request: Any) -> Reply:
        return Say("answer", chunk=4, pause=0.5)

    done = over_time(act=both_at_once, script=script)

    firsts = {each.of(r.FiberSettled)[0].outcome for each in done}
    both(firsts, "aborted", "completed")
    for each in done:
        assert each.of(r.FiberSettled)[1].outcome == "completed"
        assert told(each.requests[-1].messages).count("user: And?") == 1


def test_f8_abort_of_a_message_and_its_joining() -> None:
    """F8, S7: settled alone before or after it joined, or together with its host; its host is answered in any case, and its
    tool runs once."""

    def client(seconds: float) -> Client:
        async def talk(conversation: ConversationHandle, world: World) -> None:
            first = await conversation.send("Hello.", key="0")
            await asyncio.sleep(0.1)
            other = await conversation.send("And?", key="1")
            await asyncio.sleep(seconds)
            await conversation.abort(other.submission)
            await settled(first)
            await settled(other)

        return talk

    done = [scene(*WORK, define=working, client=client(seconds - 0.1), seed=seed) for seconds in AT[1:] for seed in SEEDS]

    ways = set()
    for each in done:
        ends = {end.fiber: end for end in each.of(r.FiberSettled)}
        host, other = (ends[record.fiber] for record in each.of(r.FiberAccepted))
        read = "user: And?" in told(each.requests[-1].messages)
        ways.add(f"{other.outcome}, {'read' if read else 'not read'}")
        assert host.outcome == "completed" and len(each.run.world.effects("work")) == 1
        assert [record.outcome for record in each.of(h.ToolOutcome)] == ["ok"]
    both(ways, "aborted, not read", "aborted, read", "completed, read")


def test_f8_a_host_that_ends_leaves_a_joined_message_with_an_abort_to_itself() -> None:
    """F8, S7: its own settlement may be on its way to the log already; a second one would take the host's with it."""

    async def main(simulation: Simulation) -> list[str]:
        store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
        await store.open()
        worker = WorkerRow(id="w", host="", pid=1, kinds=("toy",), started_at=0, lease_until=store.lease_now() + 15, lock="")
        await store.register(worker, 15, lambda: True)
        application = AgentApplication(Agent("toy", model=ScriptedModel([])), Services(resolve=lambda model: model), "")  # type: ignore[arg-type, return-value]
        handle = ConversationHandle(application, store, simulation.clock, simulation.ids, Address("toy", "c"))
        host, one, two = [(await handle.send(text)).submission for text in ("host", "one", "two")]
        row = await store.find(Address("toy", "c"))
        assert row is not None
        instance = await Instance.activate(store, simulation.clock, simulation.ids, application, row, "w")
        assert instance is not None
        opened = h.ContextOpened(system="", tools=())
        turn = h.TurnStarted(submission=host, turn="t", message="m", epoch=1, at=0, model="m:x", includes=(host, one, two))
        await instance.append([r.FiberStarted(fiber=host, at=0), opened, turn])
        await handle.abort(one)
        await instance.sync()
        attempt = Attempt(application.agent, Fiber(instance, host), application.services, None, ())
        settled = attempt.settled(attempt.conversation.control, "completed")
        await store.close()
        return [{host: "host", two: "two"}[record.fiber] for record in settled if isinstance(record, r.FiberSettled)]

    assert simulate(main, seed=0).value == ["host", "two"]


def test_f8_the_same_message_twice_at_once() -> None:
    """F8, S6: two senders, one key: one submission, one answer for both."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipts = await asyncio.gather(*[conversation.send("Hello.", key="k") for _ in range(3)])
        assert len({receipt.submission for receipt in receipts}) == 1
        assert sorted(receipt.deduplicated for receipt in receipts) == [False, True, True]
        assert {await settled(receipt) for receipt in receipts} == {"Hi."}

    for seed in range(8):
        done = scene("Hi.", client=client, seed=seed)
        assert len(done.of(r.FiberAccepted)) == 1


def test_f8_two_messages_with_one_key_at_once() -> None:
    """F8, S6: whoever comes first; the other is told of the conflict."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        sent = await asyncio.gather(*[conversation.send(text, key="k") for text in ("a", "b")], return_exceptions=True)
        (error,) = [each for each in sent if isinstance(each, BaseException)]
        assert isinstance(error, Conflict)
        (receipt,) = [each for each in sent if isinstance(each, Receipt)]
        await settled(receipt)

    first = {told(scene("Hi.", client=client, seed=seed).requests[0].messages)[0] for seed in range(8)}
    assert first <= {"user: a", "user: b"}


def test_f8_two_messages_at_once() -> None:
    """F8, S11: together or one after the other, in the order of the log, each answered."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipts = await asyncio.gather(*[conversation.send(text, key=text) for text in ("a", "b", "c")])
        for receipt in receipts:
            await settled(receipt)

    def script(request: Any) -> Reply:
        return f"answer to {len(request.messages)}"

    for seed in range(8):
        done = scene(script=script, client=client, seed=seed)
        order = [record.fiber for record in done.of(r.FiberAccepted)]
        included = [id for record in done.of(h.TurnStarted) for id in record.includes]
        assert included == order and len(done.of(r.FiberSettled)) == 3


@pytest.mark.parametrize("change", ["model", "tool"])
def test_f8_a_change_of_the_agent_and_the_start_of_a_request(change: str) -> None:
    """F8: a request is made with what the agent was when its turn began: the old one or the new one, whole."""
    other = ScriptedModel([], spec="scripted:other")

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def slow() -> str:
            """Slow."""
            await asyncio.sleep(1)
            return "slow"

        @agent.tool
        async def switch(ctx: Context[Mode], seconds: float) -> str:
            """Switch."""
            await asyncio.sleep(seconds)
            ctx.state.late = True
            return "switched"

        async def extra() -> str:
            """Extra."""
            return "extra"

        @agent.prepare
        def prepare(turn: Turn[Mode]) -> None:
            if turn.state.late and change == "model":
                turn.model = other
            if turn.state.late and change == "tool":
                turn.use(extra)

    for seconds in (0.5, 0.999, 1.0, 1.001, 2.0):
        for seed in SEEDS:
            other._script, other.requests, other.asked = ["Other."], [], 0
            done = scene([Call("slow"), Call("switch", {"seconds": seconds})], "Same.", define=define, state=Mode, seed=seed)
            before, after = done.of(h.TurnStarted)
            completed = done.of(h.MessageCompleted)
            assert before.model == completed[0].model == "scripted:model"
            if change == "model":
                assert after.model == completed[1].model == "scripted:other" and len(other.requests) == 1
            else:
                assert [spec.name for spec in done.requests[1].tools] == ["slow", "switch", "extra"]
                assert told(done.requests[1].messages)[-1] == 'user: <note kind="tools">\nNew tool available: extra.\n</note>'
