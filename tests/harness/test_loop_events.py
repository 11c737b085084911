"""What a follower is told, literally and in order, for each thing that can happen in a submission.

The event names known from other loops map to ours so: agent_start/agent_end are submission.started/submission.settled;
message_start/end of a user's message is submission.accepted; tool_execution_* are tool.*; an `error` or `aborted` message
is message.interrupted or turn.failed. P3 (custom message roles), P8 and P11 (hooks before and after a tool) have no
counterpart: our face has no such seam, and a tool that needs one calls what it wraps.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.harness.playing import saying, scene

from cairn import Agent, Context, Limits, ToolError, ToolResult
from cairn.errors import ModelError
from cairn.harness.events import Event, EventStream, SubmissionSettled
from cairn.harness.handle import ConversationHandle
from cairn.harness.submission import Control
from cairn.testing.play import settled
from cairn.testing.scripted import Call, Fail, Meanwhile, Say, Stall
from cairn.testing.world import World

BEGIN = ["submission.accepted Hello.", "attempt.started", "submission.started"]
TURN = ["turn.started", "message.started"]


def tools(agent: Agent[Any], world: World) -> None:
    @agent.tool
    async def wait(ctx: Context, seconds: float = 1.0, text: str = "waited") -> str:
        """Wait."""
        await asyncio.sleep(seconds)
        return text

    @agent.tool
    async def fail(ctx: Context) -> str:
        """Fail."""
        raise ToolError("no luck")

    @agent.tool
    async def report(ctx: Context) -> str:
        """Report."""
        ctx.progress("one")
        await asyncio.sleep(1)
        ctx.progress("two")
        ctx.progress("three")
        return "done"

    @agent.tool
    async def finish(ctx: Context) -> ToolResult:
        """Finish."""
        return ToolResult("bye", terminate=True)


def test_p1_a_text_answer() -> None:
    """P1: begun, streamed, ended; the conversation holds the question and the answer."""
    done = scene(Say("Good morning.", chunk=7, pause=0.1))

    assert done.lines == [
        *BEGIN,
        *TURN,
        "message.delta text Good mo",
        "message.delta text rning.",
        "message.completed stop",
        "turn.completed",
        "submission.settled completed Good morning.",
    ]
    assert [(entry.kind, entry.text) for entry in done.run.entries] == [("user", "Hello."), ("assistant", "Good morning.")]


def test_reasoning_comes_before_what_it_leads_to() -> None:
    """P1: reasoning is a block of its own."""
    done = scene(Say("Yes.", thinking="Is it?"))

    assert done.lines[5:8] == ["message.delta thinking Is it?", "message.delta text Yes.", "message.completed stop"]


def test_p2_a_tool_call_stands_between_the_message_and_the_end_of_its_turn() -> None:
    """P2: start and end of the call, then the end of the turn, then a second turn; two requests were made."""
    done = scene([Say("I wait. "), Call("wait")], "Waited.", define=tools)

    assert done.lines == [
        *BEGIN,
        *TURN,
        "message.delta text I wait. ",
        "message.completed tools",
        "tool.started wait",
        "tool.completed wait ok",
        "turn.completed",
        *TURN,
        "message.delta text Waited.",
        "message.completed stop",
        "turn.completed",
        "submission.settled completed Waited.",
    ]
    assert len(done.requests) == 2


def test_p4_parallel_calls_end_in_the_order_of_their_completion() -> None:
    """P4: all begin together, each ends when it ends; the turn ends after the last."""
    calls = [Call("wait", {"seconds": seconds}, id=f"c{seconds}") for seconds in (3, 1, 2)]
    done = scene(calls, "Done.", define=tools)

    ends = [event for event in done.events if type(event).__name__ in ("ToolStarted", "ToolCompleted", "TurnCompleted")]
    assert [f"{type(e).__name__} {getattr(e, 'call', '')}" for e in ends] == [
        "ToolStarted c3",
        "ToolStarted c1",
        "ToolStarted c2",
        "ToolCompleted c1",
        "ToolCompleted c2",
        "ToolCompleted c3",
        "TurnCompleted ",
        "TurnCompleted ",
    ]


def test_a_call_that_never_ran_ends_without_having_begun() -> None:
    """P6: an unknown tool and bad arguments have an end event only; a tool that fails has both."""
    done = scene([Call("fly"), Call("wait", {"seconds": "long"}), Call("fail")], "Sorry.", define=tools)

    assert done.lines[5:11] == [
        "message.completed tools",
        "tool.completed fly error",
        "tool.completed wait error",
        "tool.started fail",
        "tool.completed fail error",
        "turn.completed",
    ]


def test_p12_progress_is_told_before_the_end_of_its_call() -> None:
    """P12: each piece at most five times a second, the last one before the end, none after it."""
    done = scene(Call("report"), "Done.", define=tools)

    assert done.lines[6:11] == [
        "tool.started report",
        "tool.progress one",
        "tool.progress three",
        "tool.completed report ok",
        "turn.completed",
    ]


def test_a_request_that_failed_is_told_with_its_retry() -> None:
    """P19, P20: before the first word, the turn has failed; the submission goes on after its wait."""
    overloaded = ModelError("overloaded", kind="overload", status=529)
    done = scene(Fail(overloaded), "Back.")

    assert done.lines == [
        *BEGIN,
        *TURN,
        "turn.failed",
        "turn.completed",
        "submission.started",
        *TURN,
        "message.delta text Back.",
        "message.completed stop",
        "turn.completed",
        "submission.settled completed Back.",
    ]


def test_a_stream_that_broke_is_closed_before_it_is_continued() -> None:
    """P19: in the middle, what was said is closed and kept."""
    done = scene(Fail(ModelError("reset", kind="network"), after="Well, "), "well.")

    assert done.lines[3:] == [
        *TURN,
        "message.delta text Well, ",
        "message.interrupted cut",
        "turn.completed",
        "turn.failed",
        "submission.started",
        *TURN,
        "message.delta text well.",
        "message.completed stop",
        "turn.completed",
        "submission.settled completed Well, well.",
    ]


def test_an_abort_in_the_middle_of_a_message() -> None:
    """P19: one interrupted message, one aborted submission, nothing else."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        sent = await conversation.send("Hello.", key="0")
        await world.cued("mid")
        await conversation.abort(sent.submission)
        await settled(sent)

    cue: list[World] = []
    done = scene(
        [Say("I th"), Meanwhile(lambda: cue[0].cue("mid")), Stall()],
        client=client,
        define=lambda agent, world: cue.append(world),
    )

    assert done.lines == [
        *BEGIN,
        *TURN,
        "message.delta text I th",
        "message.interrupted abort",
        "turn.completed",
        "submission.settled aborted",
    ]


def test_a_length_stop_goes_on_in_a_second_turn() -> None:
    """P9: its call is answered without having run."""
    done = scene([Say("", stop="length"), Call("wait")], Say("One ", stop="length"), "two.", define=tools)

    assert done.lines[3:] == [
        *TURN,
        "message.completed length",
        "tool.completed wait error",
        "turn.completed",
        *TURN,
        "message.delta text One ",
        "message.completed length",
        "turn.completed",
        *TURN,
        "message.delta text two.",
        "message.completed stop",
        "turn.completed",
        "submission.settled completed One two.",
    ]


def test_a_batch_that_ends_the_run() -> None:
    """P10: the end of the turn is the end of the submission."""
    done = scene([Say("Bye. "), Call("finish")], define=tools)

    assert done.lines[-4:] == [
        "tool.started finish",
        "tool.completed finish ok",
        "turn.completed",
        "submission.settled completed Bye. ",
    ]


@dataclass
class Count:
    value: int = 0
    names: list[str] = field(default_factory=list)


def test_a_change_of_state_follows_the_call_that_made_it() -> None:
    """P2: both are one commit, in this order."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def add(ctx: Context[Count]) -> str:
            """Add."""
            ctx.state.value += 1
            return "added"

    done = scene(Call("add"), "Done.", define=define, state=Count)

    assert done.lines[6:10] == ["tool.started add", "tool.completed add ok", "turn.completed", "state.changed {'value': 1}"]
    together = next(batch for batch in done.batches if any(type(record).__name__ == "StateChanged" for record in batch))
    assert [type(record).__name__ for record in together] == ["ToolOutcome", "StateChanged", "TurnStarted"]


def test_a_message_that_joins_settles_with_the_one_it_joined() -> None:
    """P13: the turn it joins names it; two settlements, the host's first."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("Hello.", key="0")
        await world.cued("running")
        second = await conversation.send("And?", key="1")
        await settled(first)
        await settled(second)

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def wait(ctx: Context) -> str:
            """Wait."""
            world.cue("running")
            await asyncio.sleep(1)
            return "waited"

    done = scene(Call("wait"), "Both.", define=define, client=client)

    assert done.lines[6:] == [
        "tool.started wait",
        "submission.accepted And?",
        "tool.completed wait ok",
        "turn.completed",
        *TURN,
        "message.delta text Both.",
        "message.completed stop",
        "turn.completed",
        "submission.settled completed Both.",
        "submission.settled completed Both.",
    ]
    ends = [event for event in done.events if isinstance(event, SubmissionSettled)]
    assert [end.answered_by for end in ends] == [None, ends[0].submission]


def test_every_started_has_its_completed_and_the_settlement_is_last() -> None:
    """P1, P2, F3: in the log of anything that ended."""
    done = scene(
        [Call("wait", {"seconds": 99}), Call("report"), Call("fail"), Call("fly")],
        Fail(ModelError("reset", kind="network"), after="We"),
        "ll.",
        define=tools,
        limits=Limits(tool_seconds=5),
        client=saying("Hello."),
    )

    names = [str(event.__struct_config__.tag) for event in done.events]
    assert names.count("turn.started") == names.count("turn.completed") == 3
    assert names.count("message.started") == names.count("message.completed") + names.count("message.interrupted")
    started = [event.call for event in done.events if type(event).__name__ == "ToolStarted"]  # type: ignore[attr-defined]
    ended = [event.call for event in done.events if type(event).__name__ == "ToolCompleted"]  # type: ignore[attr-defined]
    assert set(started) < set(ended) and len(set(ended)) == len(ended) == 4
    assert names[-1] == "submission.settled"


def test_following_live_and_reading_later_give_the_same_events() -> None:
    """S3, S10: the stream is a function of the log, whenever and wherever it is read."""
    live: list[Event] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        sent = await conversation.send("Hello.", key="0")
        async for event in sent.follow():
            live.append(event)

    done = scene([Say("I wait. ", chunk=3, pause=0.1), Call("wait")], "Waited.", define=tools, client=client)

    assert live == done.events


def test_a_reader_that_was_cut_off_goes_on_where_it_was() -> None:
    """S3: at each offset of the log, those after it are exactly the rest, also from within a message or a batch of calls."""
    calls = [Say("I wait. ", chunk=3, pause=0.1), Call("wait", {"seconds": 3}), Call("report")]
    done = scene(calls, Fail(ModelError("reset", kind="network"), after="We"), "ll.", define=tools)
    whole = done.events
    ordinals = [row.ordinal for row in done.run.logs[0].rows]

    control = Control()
    for offset, batch in zip(ordinals, done.batches, strict=True):
        for record in batch:
            control.apply(record)
        stream = EventStream(control)
        later = [each for each in zip(ordinals, done.batches, strict=True) if each[0] > offset]
        rest = [event for ordinal, records in later for event in stream.feed(records, ordinal)]

        assert rest == [event for event in whole if event.offset > offset]


def test_a_reader_attaches_from_any_process_at_any_time() -> None:
    """S3: `follow(offset)` of a conversation that was over long ago, from each offset."""
    caught: list[tuple[int, list[Event]]] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        sent = await conversation.send("Hello.", key="0")
        await settled(sent)
        whole = [event async for event in sent.follow()]
        for offset in range(whole[0].offset, whole[-1].offset):
            seen: list[Event] = []
            async for event in conversation.follow(offset):
                seen.append(event)
                if isinstance(event, SubmissionSettled):
                    break
            caught.append((offset, seen))

    done = scene([Say("I wait. ", chunk=3, pause=0.1), Call("wait")], "Waited.", define=tools, client=client)

    assert len(caught) > 8
    for offset, seen in caught:
        assert seen == [event for event in done.events if event.offset > offset]
