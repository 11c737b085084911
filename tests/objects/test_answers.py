"""Calls that wait for an answer: how they are asked, parked, answered and told to the model; what they cost; what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests.harness.playing import Scene, scene, told
from tests.objects.answer_scenarios import BY_NAME, WHERE
from tests.objects.answering import answering, approve, asked, nothing, output, reject

from cairn import Agent, Context, Limits, ToolResult, Turn, UsageError
from cairn.errors import Conflict
from cairn.harness import records as h
from cairn.harness.answers import PendingCall
from cairn.harness.asking import Asks, approval, digest_of_call
from cairn.harness.client_tool import client_tool
from cairn.harness.events import CallAsked, ToolCompleted, ToolStarted
from cairn.harness.handle import ConversationHandle
from cairn.harness.messages import ToolSpec
from cairn.harness.sizes import BATCH_BYTES_MAX, batches
from cairn.runtime import records as r
from cairn.runtime.settings import ANSWER_SECONDS
from cairn.testing.play import play, settled
from cairn.testing.scripted import Call, Meanwhile, Say
from cairn.testing.world import World

Talk = Callable[[ConversationHandle], Awaitable[None]]


def paying(asks: Any = True, ran: list[Any] | None = None, **options: Any) -> Callable[[Agent[Any], World], None]:
    """A tool `pay` that asks; `ran` gets what it was run with."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool(approval=asks, **options)
        async def pay(ctx: Context, amount: int = 3) -> str:
            """Pay."""
            if ran is not None:
                ran.append(amount)
            return f"paid {amount}"

        @agent.tool(repeat="safe")
        async def look(ctx: Context, seconds: float = 0) -> str:
            """Look."""
            await asyncio.sleep(seconds)
            return "seen"

    return define


def talking(talk: Talk, *replies: Any, **options: Any) -> Scene:
    async def client(conversation: ConversationHandle, world: World) -> None:
        await talk(conversation)

    return scene(*replies, client=client, **options)


# --- what it costs ------------------------------------------------------------------------------------------------------

_OTHERS = {("fiber.accepted",), ("abort.requested",), ("instance.claimed",), ("instance.released",)}
START, END = "fiber.started context.opened turn.started", "message.completed fiber.settled"
ASK = "message.completed tool.awaiting fiber.waiting fiber.parked"

COMMITS = {
    "approve": [START, ASK, "answer.given", "fiber.started tool.called", "tool.outcome turn.started", END],
    "reject": [START, ASK, "answer.given", "fiber.started tool.outcome turn.started", END],
    "client-tool": [START, ASK, "answer.given", "fiber.started tool.outcome turn.started", END],
    # Both answers come while the third call runs: one is an outcome, the other an intent, in one commit.
    "two-waits": [
        START, "message.completed tool.awaiting fiber.waiting tool.awaiting fiber.waiting tool.called",
        "answer.given", "answer.given", "tool.outcome tool.called", "tool.outcome", "tool.outcome turn.started", END,
    ],
    # That a message took its place is on the log before anything is made of it: one commit more.
    "withdraw": [
        START, "message.completed tool.awaiting fiber.waiting fiber.waiting fiber.parked", "fiber.started", "fiber.waited",
        "tool.outcome turn.started", "message.completed fiber.settled fiber.settled",
    ],
    "expire": [START, ASK, "fiber.started", "tool.outcome turn.started", END],
    "expire-beside": [
        START, "message.completed tool.awaiting fiber.waiting tool.called", "fiber.waited", "tool.outcome",
        "tool.outcome turn.started", END,
    ],
    "queue": [
        START, ASK, "answer.given", "fiber.started tool.called", "tool.outcome turn.started",
        "message.completed fiber.settled fiber.settled",
    ],
    "abort-waiting": [START, ASK, "fiber.started tool.outcome fiber.settled"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMITS)
def test_a_question_costs_one_commit_more_than_its_answer(name: str) -> None:
    """F3: the synced commits of each scenario, written out: the question rides with the message, the answer's call with the
    start after the park."""
    run = play(BY_NAME[name].agent, BY_NAME[name].client)

    commits = [" ".join(event.tags) for event in run.world.commits("fact") if event.tags not in _OTHERS]

    assert commits == COMMITS[name]


# --- what the model is told ---------------------------------------------------------------------------------------------


def test_an_approved_call_runs_with_the_arguments_that_were_shown_and_after_its_intent() -> None:
    """S8, X10: coerced once, shown, approved, run: the same arguments each time."""
    ran: list[Any] = []
    seen: list[PendingCall] = []

    async def give(conversation: ConversationHandle, call: PendingCall) -> None:
        seen.append(call)
        await approve(conversation, call)

    done = scene([Call("pay", {"amount": "7"})], "Paid.", define=paying(ran=ran), client=answering(give))

    assert [call.arguments for call in seen] == [{"amount": 7}] and ran == [7]
    assert seen[0].digest == digest_of_call("pay", b'{"amount":7}') == done.of(h.ToolAwaiting)[0].digest
    called = done.of(h.ToolCalled)[0]
    assert (called.by, bytes(called.arguments)) == ("ann", b'{"amount":7}')
    assert told(done.requests[1].messages)[-1] == "tool pay: paid 7"


def test_a_rejection_is_told_with_its_reason_and_the_run_goes_on() -> None:
    """F1: the model reads that and why the call was not made, and may do something else."""
    ran: list[Any] = []
    done = scene([Call("pay", {"amount": 300})], "Then not.", define=paying(ran=ran), client=answering(reject))

    assert told(done.requests[1].messages)[-1] == "error pay: This call was not run: it was rejected. Reason: too dear"
    assert (done.of(h.ToolOutcome)[0].outcome, done.of(h.ToolOutcome)[0].by, ran) == ("rejected", "ann", [])
    assert done.outcomes == ["completed: Then not."]


@pytest.mark.parametrize(
    ("value", "text"), [({"city": "Oslo"}, '{"city":"Oslo"}'), ("Oslo", "Oslo"), (None, "(no output)"), ([1, 2], "[1,2]")]
)
def test_what_a_client_carried_out_is_the_outcome(value: object, text: str) -> None:
    """F1: an object as JSON, a text as it is, nothing as a phrase: as if a tool had returned it."""
    done = scene([Call("where")], "I see.", tools=[client_tool("where", "Where.")], client=answering(output(value)))

    assert told(done.requests[1].messages)[-1] == f"tool where: {text}"
    assert [outcome.by for outcome in done.of(h.ToolOutcome)] == ["browser"]
    assert done.of(h.ToolCalled) == []


def test_what_failed_at_a_client_is_an_error_the_model_reads() -> None:
    """F1: the client says why; the run goes on."""

    async def fail(conversation: ConversationHandle, call: PendingCall) -> None:
        await conversation.answer(call.call, error="no permission", digest=call.digest)

    done = scene([Call("where")], "A pity.", tools=[WHERE], client=answering(fail))

    assert told(done.requests[1].messages)[-1] == "error where: no permission"


def test_nobody_s_answer_is_told_as_such_when_its_time_is_over() -> None:
    """L3: the model is told at once, and the submission settles; what is not said otherwise waits a week."""
    done = scene([Call("pay")], "Nobody.", define=paying(approval(expires=600)), client=answering(nothing))

    (asking,) = done.of(h.ToolAwaiting)
    assert asking.until - asking.at == 600
    assert done.of(h.ToolOutcome)[0].outcome == "expired"
    assert told(done.requests[1].messages)[-1] == "error pay: This call was not run: nobody approved it in time."
    assert done.of(h.ToolOutcome)[0].at - asking.until < 2
    assert Asks().expires_seconds == approval().expires_seconds == ANSWER_SECONDS == 7 * 86_400


def test_time_spent_waiting_is_not_time_spent_running() -> None:
    """L3: a submission with five seconds to run waits ten minutes for its answer."""
    done = scene(
        [Call("pay")],
        "Paid.",
        define=paying(),
        client=answering(approve, pause=600),
        limits=Limits(running_seconds=5.0),
    )

    assert done.outcomes == ["completed: Paid."]


def test_a_message_waits_behind_a_question_and_joins_the_answer() -> None:
    """S11: the default: visible at once, read with the outcome, never a turn beside an unanswered call."""
    done = scene([Call("pay")], "Both.", define=paying(), client=BY_NAME["queue"].client)

    assert [told(request.messages)[-2:] for request in done.requests[1:]] == [["tool pay: paid 3", "user: second"]]


def test_a_message_takes_the_place_of_an_answer_where_the_tool_says_so() -> None:
    """S11: the call is withdrawn, the message joins."""
    done = scene([Call("pay")], "Another.", define=paying(approval(on_message="withdraw")), client=BY_NAME["withdraw"].client)

    last = told(done.requests[1].messages)[-2:]
    assert last[0].startswith("error pay: This call was not run; it was withdrawn: the user wrote instead")
    assert last[1] == "user: second"


def test_a_message_that_was_queued_before_the_question_takes_its_place_too() -> None:
    """S11: a request commutes with the owner's records: which of them came first is nothing anybody can see."""
    worlds: list[World] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        worlds.append(world)
        first = await conversation.send("first")
        await world.cued("speaking")
        second = await conversation.send("second")
        await settled(first)
        await settled(second)

    speaking = [Meanwhile(lambda: worlds[0].cue("speaking")), Say("I pay. ", chunk=1, pause=1.0), Call("pay")]
    done = scene(speaking, "Another.", define=paying(approval(on_message="withdraw")), client=client)

    assert [outcome.outcome for outcome in done.of(h.ToolOutcome)] == ["withdrawn"]
    assert told(done.requests[1].messages)[-1] == "user: second"


# --- which calls ask ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda arguments: arguments["amount"] > 100, ""),
        (lambda arguments: "more than 100" if arguments["amount"] > 100 else False, "more than 100"),
        (lambda arguments: 1 / (arguments["amount"] - 300) > 0, "whether it needs an approval could not be decided"),
    ],
)
def test_a_rule_says_of_the_arguments_whether_a_call_asks(rule: Any, reason: str) -> None:
    """X9: true, or a reason, asks; a rule that raises asks too; false does not."""
    reasons: list[str] = []

    async def give(conversation: ConversationHandle, call: PendingCall) -> None:
        reasons.append(call.reason)
        await approve(conversation, call)

    done = scene(
        [Call("pay", {"amount": 300}), Call("pay", {"amount": 3})], "Paid.", define=paying(rule), client=answering(give)
    )

    asked_for = [bytes(record.arguments) for record in done.of(h.ToolAwaiting)]
    assert asked_for[0] == b'{"amount":300}'
    assert len(asked_for) == (2 if reason.startswith("whether") and len(asked_for) == 2 else 1)
    assert all(given.startswith(reason) for given in reasons[:1])


@pytest.mark.parametrize(
    "wrong",
    [{"approval": 7}, {"approval": str}, {"approval": approval}, {"aproval": True}],
    ids=["7", "a type", "the factory", "a typo"],
)
def test_an_approval_that_cannot_be_one_is_refused_at_its_definition(wrong: dict[str, Any]) -> None:
    """T22: by name, where it is written. (A function that takes no arguments is only found out when it is asked.)"""
    agent = Agent("toy", model="x:y")

    def define() -> None:
        @agent.tool(**wrong)
        def pay() -> None:
            """Pay."""

    if wrong == {"approval": approval}:
        define()  # a function is a rule
        return
    with pytest.raises(UsageError):
        define()


@pytest.mark.parametrize(
    "options",
    [{"expires": 0}, {"expires": True}, {"by": ("",)}, {"on_message": "drop"}, {"rule": asyncio.sleep}],
    ids=["expires at once", "expires True", "nobody", "drop", "async"],
)
def test_rules_of_an_approval_are_checked(options: dict[str, Any]) -> None:
    """T22: a lifetime of nothing, an empty name, an unknown mode, an async rule."""
    with pytest.raises(UsageError):
        approval(**options)


def test_arguments_that_do_not_fit_are_refused_before_anybody_is_asked() -> None:
    """F1: the model is told; nobody is bothered."""
    done = scene([Call("pay", {"amount": "much"})], "Sorry.", define=paying())

    assert done.of(h.ToolAwaiting) == [] and done.of(h.ToolOutcome)[0].outcome == "error"


def test_a_client_declares_tools_with_its_message() -> None:
    """P1: offered for that submission only; an agent's own tool of the name is not replaced."""
    spec = ToolSpec(name="alert", description="Show it.", parameters={"type": "object", "properties": {}})
    own = ToolSpec(name="look", description="Not this.", parameters={"type": "object", "properties": {}})

    async def talk(conversation: ConversationHandle) -> None:
        first = await conversation.send(h.Delivery(body="first", client_tools=(spec, own)))
        for question in await asked(conversation, first):
            await conversation.answer(question.call, "shown", digest=question.digest)
        await settled(first)
        await settled(await conversation.send("second"))

    done = talking(talk, [Call("alert"), Call("look")], "One.", [Call("alert")], "Two.", define=paying())

    assert [tool.name for tool in done.requests[0].tools] == ["pay", "look", "alert"]
    assert "tool alert: shown" in told(done.requests[1].messages)
    assert "tool look: seen" in told(done.requests[1].messages)
    assert told(done.requests[3].messages)[-1].startswith("error alert: There is no tool named 'alert'")


def test_a_turn_may_use_a_client_s_tool() -> None:
    """P1: `turn.use` takes what `client_tool` makes."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.prepare
        def prepare(turn: Turn[Any]) -> None:
            turn.use(WHERE)

    done = scene([Call("where")], "There.", define=define, client=answering(output({"city": "Oslo"})))

    assert told(done.requests[1].messages)[-1] == 'tool where: {"city":"Oslo"}'


# --- several at a time ------------------------------------------------------------------------------------------------------


def test_calls_that_need_not_wait_run_beside_one_that_does() -> None:
    """P4: the other has its outcome long before the answer comes, and is not run again."""
    done = scene([Call("pay"), Call("look")], "Done.", define=paying(), client=answering(approve, pause=1_000.0))

    outcomes = {record.name: record.at for record in done.of(h.ToolOutcome)}
    assert outcomes["pay"] - outcomes["look"] > 900
    assert told(done.requests[1].messages)[-2:] == ["tool pay: paid 3", "tool look: seen"]


def test_an_answer_that_comes_while_another_call_runs_does_not_wait_for_it() -> None:
    """P4: approved after two seconds, run then, though its sibling takes a minute."""
    done = scene([Call("look", {"seconds": 60}), Call("pay")], "Done.", define=paying(), client=answering(approve))

    outcomes = {record.name: record.at for record in done.of(h.ToolOutcome)}
    assert outcomes["look"] - outcomes["pay"] > 50
    assert done.of(r.FiberParked) == []


def test_an_approved_barrier_runs_alone() -> None:
    """P5: `sequential=True` still means that nothing runs beside it, whenever it is approved."""
    running: list[str] = []
    beside: list[int] = []

    def define(agent: Agent[Any], world: World) -> None:
        async def work(seconds: float) -> str:
            running.append("")
            beside.append(len(running))
            await asyncio.sleep(seconds)
            running.pop()
            return "done"

        @agent.tool(approval=True, sequential=True)
        async def alone(ctx: Context) -> str:
            """Alone."""
            return await work(5)

        @agent.tool(repeat="safe")
        async def look(ctx: Context) -> str:
            """Look."""
            return await work(10)

    done = scene([Call("alone"), Call("look")], "Done.", define=define, client=answering(approve))

    assert beside == [1, 1] and done.outcomes == ["completed: Done."]


def test_a_run_that_every_call_ends_is_ended_by_an_approved_one_too() -> None:
    """P9: `terminate` counts, whoever gave the leave."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool(approval=True)
        async def stop(ctx: Context) -> ToolResult:
            """Stop."""
            return ToolResult("stopped", terminate=True)

    done = scene([Call("stop")], "Never said.", define=define, client=answering(approve))

    assert len(done.requests) == 1 and done.outcomes == ["completed: "]


def test_a_question_is_never_parted_from_its_wait_however_full_a_batch_is() -> None:
    """S2, L1: where the two would not fit behind what stands before them, both go into the next batch: a question without its
    wait would never be answered, and its submission never rest."""
    done = scene([Call("pay")], "Paid.", define=paying(), client=answering(approve))
    pair = [record for record in done.records if isinstance(record, (h.ToolAwaiting, r.FiberWaiting))]
    parted = 0

    for room in range(0, 1_200, 20):
        before = h.ToolProgress(call="x", text="")
        filler = msgspec.structs.replace(before, text="x" * (BATCH_BYTES_MAX - room - len(r.encode([before]))))
        made = batches([filler, *pair])
        parted += len(made) > 1
        assert [type(record) for record in made[-1]][-2:] == [h.ToolAwaiting, r.FiberWaiting], room

    assert 20 < parted < 60


# --- what ends it otherwise -------------------------------------------------------------------------------------------------


def test_an_abort_does_not_wait_for_the_answer() -> None:
    """F2: settled within a second; the call is closed and the model not asked again."""
    done = scene([Call("pay")], "No.", define=paying(), client=BY_NAME["abort-waiting"].client)

    assert done.outcomes == ["aborted: changed my mind"]
    assert [(record.outcome, record.name) for record in done.of(h.ToolOutcome)] == [("aborted", "pay")]


def test_a_fork_inherits_no_question() -> None:
    """S12: the call is closed in the fork and waits on in the source."""
    found: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("first")
        (question,) = await asked(conversation, first)
        fork = await conversation.fork()
        found.append(await fork.questions())
        found.append([result.outcome for entry in await fork.history() for result in entry.results.values()])
        with pytest.raises(Conflict, match="waits for no answer"):
            await approve(fork, question)
        await approve(conversation, question)
        found.append(await settled(first))

    play(BY_NAME["approve"].agent, client)

    assert found == [[], ["aborted"], "Paid."]


def test_a_tool_that_is_gone_when_its_call_is_approved_is_told_to_the_model() -> None:
    """S9: approved, not made, and said so; nothing is guessed."""
    ran: list[Any] = []
    asks = Asks()

    def define(agent: Agent[Any], world: World) -> None:
        paying(asks, ran)(agent, world)

        @agent.prepare
        def prepare(turn: Turn[Any]) -> None:
            if world.effects("gone"):
                turn.without("pay")

        world_of.append(world)

    world_of: list[World] = []

    async def talk(conversation: ConversationHandle) -> None:
        first = await conversation.send("first")
        (question,) = await asked(conversation, first)
        world_of[0].effect("gone")
        await approve(conversation, question)
        await settled(first)

    done = talking(talk, [Call("pay")], "A pity.", define=define)

    assert ran == []
    (result,) = [line for line in told(done.requests[1].messages) if line.startswith("error pay")]
    assert result == "error pay: The tool 'pay' no longer exists; this call was approved, and was not made."


# --- what readers see ---------------------------------------------------------------------------------------------------


def test_followers_are_told_what_is_asked_and_who_gave_leave() -> None:
    """L5: CallAsked, then ToolStarted with the name of who approved it, then its outcome."""
    done = scene(
        [Call("pay", {"amount": 3})], "Paid.", define=paying(approval(lambda a: "money", by="ann")), client=answering(approve)
    )

    (question,) = [event for event in done.events if isinstance(event, CallAsked)]
    assert (question.name, question.arguments, question.kind, question.reason, question.by) == (
        "pay", {"amount": 3}, "approval", "money", ("ann",),
    )  # fmt: skip
    assert [event.by for event in done.events if isinstance(event, ToolStarted)] == ["ann"]
    assert [event.outcome for event in done.events if isinstance(event, ToolCompleted)] == ["ok"]


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("approve", ["waiting", "approved"]), ("reject", ["waiting", "rejected"]), ("client-tool", ["waiting", "answered"]),
        ("expire", ["waiting", "expired"]), ("withdraw", ["waiting", "withdrawn"]), ("abort-waiting", ["waiting", "aborted"]),
    ],
)  # fmt: skip
def test_people_see_a_call_that_waits_and_what_became_of_it(name: str, states: list[str]) -> None:
    """L5: one data part a question, in the answer's message, with what an answer has to name."""
    run = play(BY_NAME[name].agent, BY_NAME[name].client)
    lines = [line for log in run.logs for row in log.rows for line in row.batch.chunks.split(b"\n") if line]
    parts = [chunk for chunk in map(msgspec.json.decode, lines) if str(chunk.get("name", "")).startswith("question:")]

    assert [part["data"]["state"] for part in parts] == states
    assert all({"toolCallId", "toolName", "kind", "input", "digest", "askedAt"} <= part["data"].keys() for part in parts)
    given = [part["data"].get("answeredBy") for part in parts]
    assert given == [None, {"approve": "ann", "reject": "ann", "client-tool": "browser"}.get(name)]
