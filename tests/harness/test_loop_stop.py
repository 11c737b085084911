"""How a submission stops before its time, or goes on after it could have: aborts, deadlines, limits, hooks, messages that
join. P13 to P18 in our words, F1, F2, F3, F5, F9.

What other loops call steering is a message admitted while the agent is busy: it joins at the next turn. A follow-up is
one that finds the model at its end: it joins too, and the model goes on. Their queues have two modes (P14), ours one: all
that wait join at once, in order of admission. `continue` (P16) is a new message here, `finish_turn` (P18) is `on_stop`;
`prompt` while running (P17) is no error but a message that waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.harness.playing import Define, scene, told

from cairn import Agent, Context, Limits, Received, Settled, Stopping
from cairn.errors import ModelError
from cairn.harness import records as h
from cairn.harness.context import turn_notes
from cairn.harness.handle import ConversationHandle
from cairn.harness.messages import Usage
from cairn.harness.submission import Control
from cairn.runtime import records as r
from cairn.testing.play import Client, settled
from cairn.testing.scripted import Call, Fail, Meanwhile, Reply, Say, ScriptedModel, Stall, by_turn
from cairn.testing.world import World


def waiting(agent: Agent[Any], world: World) -> None:
    """A tool that takes 10 s and says when it runs."""

    @agent.tool
    async def wait(ctx: Context, seconds: float = 10.0) -> str:
        """Wait."""
        world.effect("wait", ctx.call)
        world.cue("running")
        await asyncio.sleep(seconds)
        return "waited"

    @agent.tool
    async def look() -> str:
        """Look."""
        return "a tree"


def during(cue: str, *messages: str, then: Callable[[ConversationHandle, list[Any]], Any] | None = None) -> Client:
    """Says "Hello.", and these one after the other when it hears the cue."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipts = [await conversation.send("Hello.", key="0")]
        await world.cued(cue)
        for number, message in enumerate(messages, 1):
            receipts.append(await conversation.send(message, key=f"{number}"))
        if then is not None:
            await then(conversation, receipts)
        for receipt in receipts:
            await settled(receipt)

    return client


def cueing(cue: str, *before: Reply, after: tuple[Any, ...] = ()) -> tuple[Define, list[Any]]:
    """A message that gives a cue between `before` and `after`."""
    worlds: list[World] = []
    return (lambda agent, world: worlds.append(world)), [*before, Meanwhile(lambda: worlds[0].cue(cue)), *after]  # type: ignore[list-item]


# --- messages that meet a run -----------------------------------------------------------------------------------------


def test_p13_a_message_during_two_tools_follows_both_results() -> None:
    """P13: both finish, the message comes after both results, the next request contains it."""
    done = scene([Call("wait"), Call("look")], "All.", define=waiting, client=during("running", "And this?"))

    assert told(done.requests[1].messages) == [
        "user: Hello.",
        "assistant: wait() look()",
        "tool wait: waited",
        "tool look: a tree",
        "user: And this?",
    ]
    assert done.outcomes == ["completed: All.", "completed: All."]


def test_p14_messages_that_wait_join_together_in_order() -> None:
    """P14, S11: three of them, one turn."""
    done = scene(Call("wait"), "All.", define=waiting, client=during("running", "one", "two", "three"))

    assert told(done.requests[1].messages)[-3:] == ["user: one", "user: two", "user: three"]
    assert len(done.requests) == 2 and done.outcomes == ["completed: All."] * 4


def test_p15_a_message_at_the_end_keeps_the_model_at_work() -> None:
    """P15: what comes in while the last words are said is answered in another turn of the same run."""
    define, last = cueing("last", "Bye.")
    done = scene(last, "And bye to you.", define=define, client=during("last", "Wait!"))

    assert told(done.requests[1].messages) == ["user: Hello.", "assistant: Bye.", "user: Wait!"]
    assert done.outcomes == ["completed: And bye to you."] * 2
    assert len(done.of(r.FiberStarted)) == 1


def test_p17_a_message_for_a_busy_agent_does_not_disturb_it() -> None:
    """P17, S11: nor does the same one again; it is accepted at once and has its own receipt."""

    async def again(conversation: ConversationHandle, receipts: list[Any]) -> None:
        twice = await conversation.send("two", key="1")
        assert twice.deduplicated and twice.submission == receipts[1].submission

    done = scene(Call("wait"), "Both.", define=waiting, client=during("running", "two", then=again))

    assert len(done.run.world.effects("wait")) == 1 and done.outcomes == ["completed: Both."] * 2


# --- hooks --------------------------------------------------------------------------------------------------------------


def test_p18_on_stop_may_send_the_model_back_to_work() -> None:
    """P18: its text is read as the next message; exactly one further request for each."""
    seen: list[tuple[str, tuple[str, ...], int]] = []

    def define(agent: Agent[Any], world: World) -> None:
        waiting(agent, world)

        @agent.on_stop
        async def check(event: Stopping) -> str | None:
            seen.append((event.text, event.calls, event.continues))
            return "Did you look?" if "look" not in event.calls else None

    done = scene("Done.", Call("look"), "Now I did.", define=define)

    assert seen == [("Done.", (), 0), ("Now I did.", ("look",), 1)]
    assert told(done.requests[1].messages)[-1] == 'user: <note kind="hook">\nDid you look?\n</note>'
    assert done.outcomes == ["completed: Now I did."] and len(done.requests) == 3


def test_p18_nothing_asks_on_stop_while_messages_wait() -> None:
    """P18, P15: the queue first; the hook sees the run at its real end."""
    define, last = cueing("last", "Bye.")
    asked: list[str] = []

    def both(agent: Agent[Any], world: World) -> None:
        define(agent, world)

        @agent.on_stop
        async def check(event: Stopping) -> None:
            asked.append(event.text)

    scene(last, "Really bye.", define=both, client=during("last", "Wait!"))

    assert asked == ["Really bye."]


def test_on_stop_cannot_go_on_for_ever() -> None:
    """F9: so many times, then the answer counts."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.on_stop
        async def never_enough(event: Stopping) -> str:
            return "More."

    done = scene(*["Enough?"] * 4, define=define, limits=Limits(stop_continues=3))

    assert done.outcomes == ["completed: Enough?"] and len(done.requests) == 4


def test_on_message_speaks_after_the_message_it_heard() -> None:
    """P13: for the first message and for one that joins, each once, each before the model reads it."""
    heard: list[str] = []

    def define(agent: Agent[Any], world: World) -> None:
        waiting(agent, world)

        @agent.on_message
        async def hear(event: Received) -> str:
            heard.append(event.text)
            return f"[{event.text}]"

    done = scene(Call("wait"), "Both.", define=define, client=during("running", "And?"))

    assert heard == ["Hello.", "And?"]
    assert told(done.requests[1].messages) == [
        "user: Hello.",
        'user: <note kind="hook">\n[Hello.]\n</note>',
        "assistant: wait()",
        "tool wait: waited",
        "user: And?",
        'user: <note kind="hook">\n[And?]\n</note>',
    ]


def test_what_on_message_said_is_kept_for_a_message_that_joined_nobody() -> None:
    """S1: heard for a run that is aborted at that moment; read in the run of its own."""
    control = Control()
    heard = h.HookCompleted(submission="a", hook="on_message", of="b", at=0, text="[b]")
    for record in (
        r.FiberAccepted(fiber="a", method=h.SUBMISSION, at=0),
        r.FiberStarted(fiber="a", at=0),
        r.FiberAccepted(fiber="b", method=h.SUBMISSION, at=0),
        heard,
        r.FiberSettled(fiber="a", outcome="aborted", at=0),
        r.FiberStarted(fiber="b", at=0),
    ):
        control.apply(record)

    assert [note.text for note in turn_notes(control, ["b"])] == ["[b]"]
    assert turn_notes(control, ["c"]) == []


def test_a_hook_that_fails_for_a_message_about_to_join_fails_that_message_only() -> None:
    """F6: what it would have joined goes on."""

    def define(agent: Agent[Any], world: World) -> None:
        waiting(agent, world)

        @agent.on_message
        async def hear(event: Received) -> None:
            if event.text == "bad":
                raise ValueError("not with me")

    done = scene(Call("wait"), "First and third.", define=define, client=during("running", "bad", "third"))

    assert sorted(done.outcomes) == [
        "completed: First and third.",
        "completed: First and third.",
        "failed: ValueError: not with me",
    ]
    assert "user: bad" not in told(done.requests[-1].messages)


@pytest.mark.parametrize("seam", ["on_message", "on_stop"])
@pytest.mark.parametrize("trouble", ["raises", "hangs", "is deaf"])
def test_f6_a_hook_that_fails_ends_the_run_with_its_name(seam: str, trouble: str) -> None:
    """F6: a named failure within its deadline, never a hang."""

    def define(agent: Agent[Any], world: World) -> None:
        async def hook() -> None:
            if trouble == "raises":
                raise KeyError("x")
            while True:
                try:
                    await asyncio.sleep(1_000)
                except asyncio.CancelledError:
                    if trouble != "is deaf":
                        raise

        getattr(agent, seam)(hook)

    done = scene("Fine.", define=define, limits=Limits(hook_seconds=7, abort_seconds=2))

    (end,) = done.of(r.FiberSettled)
    assert end.outcome == "failed" and end.error.kind == f"{seam}_failed"
    assert ("KeyError" if trouble == "raises" else "hook did not finish within 7 s") in end.error.message
    assert done.seconds(r.FiberSettled)[0] <= 9.1


def test_an_abort_does_not_wait_for_a_hook() -> None:
    """F6, F3: a hook that hangs gives way."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.on_stop
        async def hang() -> None:
            world.cue("hanging")
            await asyncio.sleep(1_000)

    async def abort(conversation: ConversationHandle, receipts: list[Any]) -> None:
        await conversation.abort()

    done = scene("Fine.", define=define, client=during("hanging", then=abort))

    assert done.outcomes == ["completed: Fine."], "the answer was there before the abort"
    assert done.seconds(r.FiberSettled)[0] < 1


def test_on_settled_runs_after_every_outcome_and_cannot_change_it() -> None:
    """F6, S7: at least once, with the text or the reason; its failure is its own."""
    seen: list[Settled] = []

    def define(agent: Agent[Any], world: World) -> None:
        waiting(agent, world)

        @agent.on_settled
        async def after(event: Settled) -> None:
            seen.append(event)
            raise RuntimeError("too bad")

    async def abort(conversation: ConversationHandle, receipts: list[Any]) -> None:
        await conversation.abort(receipts[0].submission, reason="enough")

    done = scene(Call("wait"), "Second.", define=define, client=during("running", "Two.", then=abort))

    assert [(event.outcome, event.text, event.error) for event in seen] == [
        ("aborted", "", "enough"),
        ("completed", "Second.", ""),
    ]
    assert done.outcomes == ["aborted: enough", "completed: Second."]


# --- aborts -------------------------------------------------------------------------------------------------------------


async def abort_first(conversation: ConversationHandle, receipts: list[Any]) -> None:
    await conversation.abort(receipts[0].submission, reason="stop")


@pytest.mark.parametrize("deaf", [False, True])
def test_f1_a_stream_that_stalls_is_aborted_within_the_bound(deaf: bool) -> None:
    """F1: even one that ignores being closed."""
    define, stalling = cueing("stalled", "I th", after=(Stall(deaf=deaf),))
    done = scene(stalling, define=define, client=during("stalled", then=abort_first))

    assert done.outcomes == ["aborted: stop"]
    assert done.seconds(r.FiberSettled)[0] <= Limits().abort_seconds


def test_f2_a_stream_that_stalls_ends_as_a_retryable_error() -> None:
    """F2: after the idle deadline, measured from its last event; what it said is kept."""
    done = scene(Stall(after="I th"), "ink so.", limits=Limits(idle_seconds=30, retry_jitter=0))

    (failed,) = done.of(h.TurnFailed)
    assert failed.error.kind == "timeout" and failed.error.retryable and "sent nothing for 30 s" in failed.error.message
    assert done.seconds(h.TurnFailed) == [30.0] and done.outcomes == ["completed: I think so."]


def test_f2_a_deaf_stream_does_not_hold_the_run_up() -> None:
    """F2: it is abandoned two seconds after it was closed, and the request is made again."""
    done = scene(Stall(deaf=True), "Here.", limits=Limits(first_event_seconds=20, retry_jitter=0))

    assert "did not begin to answer for 20 s" in done.of(h.TurnFailed)[0].error.message
    assert done.seconds(h.TurnFailed) == [22.0] and done.outcomes == ["completed: Here."]


def test_f3_an_abort_during_a_tool_gives_every_call_its_outcome() -> None:
    """F3: the one that runs, even deaf, and the one that waits; then the run settles, within the bound."""

    def define(agent: Agent[Any], world: World) -> None:
        waiting(agent, world)

        @agent.tool(sequential=True)
        async def deaf() -> None:
            """Ignore everything."""
            world.cue("running")
            while True:
                try:
                    await asyncio.sleep(1_000)
                except asyncio.CancelledError:
                    pass

    done = scene([Call("look"), Call("deaf"), Call("look")], define=define, client=during("running", then=abort_first))

    outcomes = [(outcome.name, outcome.outcome) for outcome in done.of(h.ToolOutcome)]
    assert outcomes == [("look", "ok"), ("deaf", "aborted"), ("look", "aborted")]
    assert "may have taken effect" in done.of(h.ToolOutcome)[1].content[0].text
    assert "was not run" in done.of(h.ToolOutcome)[2].content[0].text
    assert done.outcomes == ["aborted: stop"] and done.seconds(r.FiberSettled)[0] <= Limits().abort_seconds + 1


def test_the_next_message_sees_what_the_aborted_run_did() -> None:
    """P19, P23: its calls have results, so that no provider refuses the history."""
    done = scene(
        script=by_turn([Call("wait"), "I see."]), define=waiting, client=during("running", "What happened?", then=abort_first)
    )

    assert told(done.requests[-1].messages) == [
        "user: Hello.",
        "assistant: wait()",
        "error wait: This call was stopped before it finished. It may have taken effect in part.",
        "user: What happened?",
    ]
    assert done.outcomes == ["aborted: stop", "completed: I see."]


def test_f5_an_abort_of_one_does_not_eat_the_message_behind_it() -> None:
    """F5: accepted before the abort, answered after it."""
    done = scene(Call("wait"), "Answered.", define=waiting, client=during("running", "Mine.", then=abort_first))

    assert done.outcomes == ["aborted: stop", "completed: Answered."]
    assert told(done.requests[-1].messages)[-1] == "user: Mine."


def test_an_abort_of_everything_takes_what_was_accepted_before_it_and_nothing_after() -> None:
    """F5: by its place in the log."""

    async def all_of_it(conversation: ConversationHandle, receipts: list[Any]) -> None:
        await conversation.abort()
        receipts.append(await conversation.send("After.", key="after"))

    done = scene(Call("wait"), "Answered.", define=waiting, client=during("running", "Before.", then=all_of_it))

    assert sorted(outcome.split(":")[0] for outcome in done.outcomes) == ["aborted", "aborted", "completed"]
    assert "user: Before." not in told(done.requests[-1].messages)


def test_the_abort_of_a_message_that_waits_settles_it_alone() -> None:
    """F5, S9: at once, without a look at the work it waited behind: that tool runs once, to its end."""

    async def second(conversation: ConversationHandle, receipts: list[Any]) -> None:
        await conversation.abort(receipts[1].submission, reason="never mind")

    done = scene(Call("wait"), "First.", define=waiting, client=during("running", "Second.", then=second))

    assert done.outcomes == ["aborted: never mind", "completed: First."]
    assert done.seconds(r.FiberSettled)[0] < 1 and len(done.run.world.effects("wait")) == 1
    assert "user: Second." not in told(done.requests[-1].messages)
    assert done.of(h.ToolOutcome)[0].outcome == "ok"


def test_the_abort_of_a_message_that_joined_settles_it_and_not_its_host() -> None:
    """F5, S7: the model has read it already; one outcome each."""
    conversations: list[Any] = []

    def define(agent: Agent[Any], world: World) -> None:
        waiting(agent, world)

        @agent.tool
        async def abort_second() -> str:
            """Abort."""
            second = (await conversations[0].unsettled())[1]
            await conversations[0].abort(second.id, reason="never mind")
            await asyncio.sleep(1)
            return "aborted"

    async def client(conversation: ConversationHandle, world: World) -> None:
        conversations.append(conversation)
        await during("running", "Second.")(conversation, world)

    done = scene(Call("wait"), Call("abort_second"), "First.", define=define, client=client)

    assert done.outcomes == ["aborted: never mind", "completed: First."]


def test_an_abort_of_what_is_settled_has_no_effect() -> None:
    """S7: and says so."""
    said: list[bool] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        sent = await conversation.send("Hello.", key="0")
        await settled(sent)
        said.append(await conversation.abort(sent.submission))
        said.append(await conversation.abort())

    done = scene("Fine.", client=client)

    assert said == [False, False] and done.of(r.AbortRequested) == []


# --- limits -------------------------------------------------------------------------------------------------------------


def polling(agent: Agent[Any], world: World) -> None:
    @agent.tool(repeat="safe")
    async def poll(number: int = 0) -> str:
        """Poll."""
        world.effect("poll")
        await asyncio.sleep(1)
        return "not yet"


def counting(request: Any) -> Reply:
    """Calls with another argument each time, for ever."""
    return Call("poll", {"number": len(request.messages)})


@pytest.mark.parametrize(
    ("limits", "kind", "calls"),
    [
        (Limits(turns=4), "limit_turns", 4),
        (Limits(tool_calls=3), "limit_tool_calls", 3),
        (Limits(tokens=100), "limit_tokens", 4),
        (Limits(cost_usd=0.05), "limit_cost_usd", 3),
        (Limits(running_seconds=5.5), "timeout", 6),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_f9_a_run_stops_at_its_limit_with_its_name(limits: Limits, kind: str, calls: int) -> None:
    """F9: turns, calls, tokens (cached ones count), dollars, time; what was called has its outcome."""
    usage = Usage(input=5, cache_read=10, cache_write=5, output=10, cost=0.02)
    done = scene(script=counting, define=polling, limits=limits, model=lambda model: _using(model, usage))

    (end,) = done.of(r.FiberSettled)
    assert end.outcome == "failed" and end.error.kind == kind
    assert len(done.run.world.effects("poll")) == calls
    assert len(done.of(h.ToolOutcome)) == len(done.of(h.ToolCalled)) == calls
    if kind.startswith("limit_"):
        assert kind.removeprefix("limit_") in end.error.message


def _using(model: ScriptedModel, usage: Usage) -> ScriptedModel:
    model._usage = usage
    return model


def test_f9_the_same_call_again_and_again() -> None:
    """F9: the same tool with the same arguments in a row, whatever their order in the message; another call between resets."""
    done = scene(*[Call("poll", {"number": 1})] * 9, define=polling, limits=Limits(identical_calls=5))

    assert done.of(r.FiberSettled)[0].error.kind == "limit_identical_calls" and len(done.requests) == 5

    twos = [Call("poll", {"number": number}) for number in (1, 1, 1, 2, 1, 1, 1)]
    done = scene(*twos, "Enough.", define=polling, limits=Limits(identical_calls=4))

    assert done.outcomes == ["completed: Enough."]


def test_f9_an_answer_that_is_there_counts_whatever_it_cost() -> None:
    """F9: the limit stops further work, it does not take a finished answer away."""
    done = scene("Expensive.", limits=Limits(tokens=1, turns=1), model=lambda model: _using(model, Usage(input=99)))

    assert done.outcomes == ["completed: Expensive."]


def test_f9_an_answer_is_continued_so_often_and_no_more() -> None:
    """F9: each continuation of a cut-off answer costs a whole answer."""
    done = scene(*[Say("on and ", stop="length")] * 9, limits=Limits(length_continues=2))

    (end,) = done.of(r.FiberSettled)
    assert end.error.kind == "limit_length" and "3 times" in end.error.message and len(done.requests) == 3


def test_f9_the_running_time_does_not_count_waits() -> None:
    """F9, L3: parked time is excluded: a retry after 10 minutes does not use up 60 seconds."""
    busy = ModelError("busy", kind="rate_limit", retry_after=600)
    done = scene(Fail(busy), Call("poll"), "Late.", define=polling, limits=Limits(running_seconds=60))

    assert done.outcomes == ["completed: Late."] and done.seconds(r.FiberSettled)[0] > 600


def test_f9_the_deadline_cuts_a_stream_and_a_tool() -> None:
    """F9, F2, F3: within the bound after it."""
    done = scene(Stall(after="I th"), limits=Limits(running_seconds=10))

    assert done.of(r.FiberSettled)[0].error.kind == "timeout" and 10 <= done.seconds(r.FiberSettled)[0] <= 12
    assert done.of(h.MessageInterrupted)[0].reason == "timeout"

    done = scene(Call("wait", {"seconds": 500}), define=waiting, limits=Limits(running_seconds=10))

    assert done.of(r.FiberSettled)[0].error.kind == "timeout" and 10 <= done.seconds(r.FiberSettled)[0] <= 12
    assert done.of(h.ToolOutcome)[0].outcome == "aborted"


def test_a_limit_is_of_one_submission() -> None:
    """F9: the next message starts at zero."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        for number in range(3):
            await settled(await conversation.send(f"{number}", key=f"{number}"))

    done = scene(*[Call("poll"), "Done."] * 3, define=polling, client=client, limits=Limits(turns=2))

    assert done.outcomes == ["completed: Done."] * 3
