"""What becomes of a call: found, checked, run beside others, timed, answered once. P2, P4 to P7, P9, P10, P12, F3, F4.

P8 and P11 (a hook before a tool that changes its arguments, a hook after it that replaces parts of its result) have no
counterpart in our face.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tests.harness.playing import Scene, die, saying, scene, told

from cairn import Agent, Context, Image, Limits, Text, ToolError, ToolResult, tool
from cairn.harness import records as h
from cairn.harness.messages import ToolCall, ToolMessage
from cairn.runtime import records as r
from cairn.testing.scripted import Call, Reply, Say, by_turn
from cairn.testing.world import World


def answers(done: Scene, request: int = 1) -> list[str]:
    """What a request shows of the calls before it."""
    return [text for text in told(done.requests[request].messages) if text.startswith(("tool ", "error "))]


def overlaps(world: World) -> list[str]:
    return [event.name for event in world.effects()]


def timed(agent: Agent[Any], world: World) -> None:
    """Tools that note when they begin and end."""

    async def work(ctx: Context, name: str, seconds: float) -> str:
        world.effect(f"+{name}", ctx.call)
        await asyncio.sleep(seconds)
        world.effect(f"-{name}", ctx.call)
        return name

    @agent.tool
    async def free(ctx: Context, name: str, seconds: float = 1.0) -> str:
        """Run beside others."""
        return await work(ctx, name, seconds)

    @agent.tool(sequential=True)
    async def alone(ctx: Context, name: str, seconds: float = 1.0) -> str:
        """Run alone."""
        return await work(ctx, name, seconds)

    @agent.tool(sequential="disk")
    async def disk(ctx: Context, name: str, seconds: float = 1.0) -> str:
        """Run one at a time."""
        return await work(ctx, name, seconds)


def test_p2_the_model_reads_the_result_in_the_next_request() -> None:
    """P2: one call, one result, two requests."""
    done = scene([Say("I try. "), Call("free", {"name": "a"})], "Done.", define=timed)

    assert [told(request.messages) for request in done.requests] == [
        ["user: Hello."],
        ["user: Hello.", "assistant: I try.  free()", "tool free: a"],
    ]


def test_p4_results_are_shown_in_source_order_and_committed_in_order_of_completion() -> None:
    """P4: each outcome is a commit of its own but the last, which carries the next turn."""
    calls = [Call("free", {"name": name, "seconds": seconds}) for name, seconds in (("a", 3), ("b", 1), ("c", 2))]
    done = scene(calls, "Done.", define=timed)

    assert answers(done) == ["tool free: a", "tool free: b", "tool free: c"]
    assert [[type(record).__name__ for record in batch] for batch in done.batches[4:8]] == [
        ["MessageCompleted", "ToolCalled", "ToolCalled", "ToolCalled"],
        ["ToolOutcome"],
        ["ToolOutcome"],
        ["ToolOutcome", "TurnStarted"],
    ]
    assert [outcome.content[0].text for outcome in done.of(h.ToolOutcome)] == ["b", "c", "a"]
    assert done.seconds(h.ToolOutcome) == [1.0, 2.0, 3.0]


def test_a_sequential_tool_step_is_two_synced_commits() -> None:
    """S8, S10: [message.completed, tool.called] and [tool.outcome, turn.started], however many steps."""
    counts = []
    for steps in (1, 2, 3):
        done = scene(*[Call("free", {"name": "a"})] * steps, "Done.", define=timed)
        counts.append(done.run.facts)

    assert [after - before for before, after in itertools.pairwise(counts)] == [2, 2]


def test_p5_a_sequential_call_overlaps_with_no_other() -> None:
    """P5: what stands before it has ended, what stands after it has not begun; the others do overlap."""
    calls = [
        Call("free", {"name": "a"}),
        Call("free", {"name": "b"}),
        Call("alone", {"name": "c"}),
        Call("free", {"name": "d"}),
    ]
    done = scene(calls, "Done.", define=timed)

    order = overlaps(done.run.world)
    assert set(order[:2]) == {"+a", "+b"} and set(order[2:4]) == {"-a", "-b"}
    assert order[4:] == ["+c", "-c", "+d", "-d"]
    assert answers(done) == ["tool free: a", "tool free: b", "tool alone: c", "tool free: d"]


def test_p5_calls_that_share_a_key_run_one_at_a_time_in_source_order() -> None:
    """P5: and others run beside them."""
    calls = [Call("disk", {"name": "a"}), Call("free", {"name": "b", "seconds": 9}), Call("disk", {"name": "c"})]
    done = scene(calls, "Done.", define=timed)

    order = overlaps(done.run.world)
    assert order.index("-a") < order.index("+c") < order.index("-c") < order.index("-b")


def test_at_most_so_many_calls_run_at_a_time() -> None:
    """P5: the next begins when one has ended; all of them get their turn."""
    calls = [Call("free", {"name": str(number), "seconds": 1 + number}) for number in range(5)]
    done = scene(calls, "Done.", define=timed, limits=Limits(parallel_tools=2))

    running, most = 0, 0
    for name in overlaps(done.run.world):
        running += 1 if name.startswith("+") else -1
        most = max(most, running)
    assert most == 2 and len(done.of(h.ToolOutcome)) == 5


def test_p6_every_wrong_call_is_answered_once_and_the_others_run() -> None:
    """P6: unknown, invalid, unreadable, failing, raising: an error the model can act on; and the one that is right."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def pay(amount: int, note: str = "") -> str:
            """Pay."""
            world.effect("pay")
            if note == "empty":
                raise ToolError("the account is empty")
            return str(1 // amount)

    calls = [
        Call("fly"),
        Call("pay", {"amount": "much"}),
        Call("pay", arguments_error="no closing brace"),
        Call("pay", {"amount": 1, "note": "empty"}),
        Call("pay", {"amount": 0}),
        Call("pay", {"amount": 1}),
    ]
    done = scene(calls, "One of six.", define=define)

    shown = answers(done)
    assert shown[0] == "error fly: There is no tool named 'fly'. Available tools: pay."
    assert shown[1].startswith("error pay:") and "amount" in shown[1] and "much" in shown[1]
    assert shown[2] == "error pay: The arguments of this call could not be read: no closing brace"
    assert shown[3] == "error pay: the account is empty"
    assert shown[4].startswith("error pay: ZeroDivisionError:")
    assert shown[5] == "tool pay: 1"
    assert len(done.run.world.effects("pay")) == 3
    assert len(done.of(h.ToolOutcome)) == 6 and len(done.of(h.ToolCalled)) == 3
    assert done.outcomes == ["completed: One of six."]


def test_p7_arguments_are_coerced_for_the_tool_and_kept_raw_in_the_transcript() -> None:
    """P7: "42" for an integer, null for an optional field."""
    seen: list[Any] = []

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def pay(amount: int, note: str = "none") -> str:
            """Pay."""
            seen.append((amount, note))
            return "paid"

    done = scene(Call("pay", {"amount": "42", "note": None}), "Paid.", define=define)

    assert seen == [(42, "none")]
    (call,) = done.run.entries[1].calls
    assert call.arguments == {"amount": "42", "note": None}
    (called,) = done.of(h.ToolCalled)
    assert msgspec.json.decode(called.arguments) == {"amount": 42}


def test_p9_no_call_of_a_message_that_was_cut_off_runs() -> None:
    """P9: each is answered with a request to make it again, and another turn follows."""
    calls: Reply = [Say("", stop="length"), Call("free", {"name": "a"}), Call("free", {"name": "b"})]
    done = scene(calls, "Shorter.", define=timed)

    assert overlaps(done.run.world) == [] and done.of(h.ToolCalled) == []
    assert len(answers(done)) == 2 and all("Make it again" in text for text in answers(done))
    assert done.outcomes == ["completed: Shorter."]


@pytest.mark.parametrize(("ends", "requests"), [((True, True), 1), ((True, False), 2), ((False, False), 2)])
def test_p10_the_run_ends_when_every_result_says_so(ends: tuple[bool, bool], requests: int) -> None:
    """P10: one that does not say so is reason enough for another request."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def finish(end: bool) -> ToolResult:
            """Finish."""
            return ToolResult("bye", terminate=end)

    done = scene([Call("finish", {"end": end}) for end in ends], "More.", define=define)

    assert len(done.requests) == requests


def test_p10_a_failing_call_does_not_end_the_run() -> None:
    """P10: an error that says "terminate" is an error first: the model has to read it."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def finish() -> ToolResult:
            """Finish."""
            return ToolResult("not possible", is_error=True, terminate=True)

    done = scene(Call("finish"), "I see.", define=define)

    assert answers(done) == ["error finish: not possible"]


def test_p12_late_progress_is_dropped() -> None:
    """P12: what a tool's own background work says after the outcome is told to nobody."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def leave(ctx: Context) -> str:
            """Leave something running."""

            async def late() -> None:
                await asyncio.sleep(0.5)
                ctx.progress("too late")

            world.task = asyncio.ensure_future(late())  # type: ignore[attr-defined]
            ctx.progress("in time")
            return "left"

        @agent.tool
        async def wait() -> str:
            """Wait."""
            await asyncio.sleep(5)
            return "waited"

    done = scene(Call("leave"), Call("wait"), "Done.", define=define)

    assert [progress.text for progress in done.of(h.ToolProgress)] == ["in time"]


def test_progress_is_the_last_4_kb_and_at_most_five_a_second() -> None:
    """P12: a chatty tool costs a bounded amount of log."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def chat(ctx: Context) -> str:
            """Chat."""
            for number in range(1_000):
                ctx.progress(f"{number} " + "x" * 10_000)
                await asyncio.sleep(0.001)
            return "done"

    done = scene(Call("chat"), "Done.", define=define)

    shown = done.of(h.ToolProgress)
    assert 2 <= len(shown) <= 7 and all(len(progress.text) == 4_096 for progress in shown)


def test_what_a_tool_shows_is_on_the_log_before_its_outcome_and_never_told_to_the_model() -> None:
    """S3: shown beside the words, in order; a quick succession of one name is one record; metadata adds up."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        def draw(ctx: Context) -> str:
            """Draw, in a thread of its own."""
            for percent in range(100):
                ctx.show("drawing", {"percent": percent})
            ctx.show("frame", [1, 2])
            ctx.describe(lines=3)
            ctx.describe(words={"a": 1})
            return "drawn"

    done = scene(Call("draw"), "Done.", define=define)

    shown = done.of(h.DataShown)
    assert [(each.name, msgspec.json.decode(each.value)) for each in shown][-2:] == [
        ("drawing", {"percent": 99}),
        ("frame", [1, 2]),
    ]
    assert len(shown) < 10
    assert [msgspec.json.decode(each.value) for each in done.of(h.MetadataShown)] == [{"lines": 3}, {"words": {"a": 1}}]
    order = [type(record) for record in done.records if isinstance(record, h.DataShown | h.ToolOutcome)]
    assert order[-1] is h.ToolOutcome
    assert not any("percent" in text for request in done.requests for text in told(request.messages))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("", 1, "no name"),
        ("tool-progress:x", 1, "no name"),
        ("a b", 1, "no name"),
        ("x", object(), "not JSON"),
        ("x", "y" * 70_000, "more than"),
    ],
)
def test_what_cannot_be_shown_is_an_error_of_the_tool(name: str, value: Any, said: str) -> None:
    """S14: nothing that a client could not read is put on the log."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def draw(ctx: Context) -> str:
            """Draw."""
            ctx.show(name, value)
            return "drawn"

    done = scene(Call("draw"), "Done.", define=define)

    assert any(said in text for text in answers(done)), answers(done)
    assert not done.of(h.DataShown)


def test_f3_a_tool_that_ignores_its_deadline_is_abandoned_with_an_error() -> None:
    """F3: it gets its outcome within the grace, and the run goes on without it."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool(timeout=3)
        async def deaf() -> str:
            """Ignore everything."""
            while True:
                try:
                    await asyncio.sleep(1_000)
                except asyncio.CancelledError:
                    world.effect("ignored")

    done = scene(Call("deaf"), "Without it.", define=define, limits=Limits(abort_seconds=2))

    assert answers(done) == ["error deaf: The tool did not finish within 3 s and was stopped."]
    assert done.seconds(h.ToolOutcome) == [5.0] and len(done.run.world.effects("ignored")) >= 1
    assert done.of(h.ToolOutcome)[0].outcome == "timeout"


def test_a_timeout_of_the_tools_own_is_its_error() -> None:
    """P6: a connection that timed out after a moment is not our deadline."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def connect() -> str:
            """Connect."""
            raise TimeoutError("no answer from 10.0.0.1")

    done = scene(Call("connect"), "No network.", define=define)

    assert answers(done) == ["error connect: TimeoutError: no answer from 10.0.0.1"]
    assert done.of(h.ToolOutcome)[0].outcome == "error"


@pytest.mark.parametrize("trouble", ["exit", "cancelled", "group", "half a character", "not json"])
def test_whatever_a_tool_raises_or_returns_its_call_has_one_outcome(trouble: str) -> None:
    """P6, F6: an exit, a cancellation from inside, an exception group, a text that is no UTF-8, an object that is no JSON."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def odd() -> Any:
            """Be odd."""
            world.effect("odd")
            if trouble == "exit":
                sys.exit(3)
            if trouble == "cancelled":
                raise asyncio.CancelledError
            if trouble == "group":
                raise ExceptionGroup("two", [ValueError("a"), ValueError("b")])
            if trouble == "half a character":
                raise ToolError("file \udcff is gone")
            return object()

    done = scene(Call("odd"), "Odd.", define=define)

    assert [outcome.outcome for outcome in done.of(h.ToolOutcome)] == ["error"]
    assert answers(done)[0].startswith("error odd: ") and done.outcomes == ["completed: Odd."]
    assert len(done.run.world.effects("odd")) == 1 and done.run.lives == 1


def test_f4_what_finished_before_a_crash_is_kept_and_only_the_rest_is_decided_by_its_class() -> None:
    """F4, S9: one done, one hung and not repeatable, one hung and safe: done, unknown, run again."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def quick(ctx: Context) -> str:
            """Be quick."""
            world.effect("quick", ctx.call)
            return "done"

        @agent.tool
        async def never(ctx: Context) -> str:
            """Hang."""
            world.effect("never", ctx.call)
            await asyncio.sleep(100)
            return "done late"

        @agent.tool(repeat="safe")
        async def safe(ctx: Context) -> str:
            """Die the first time."""
            if world.effect("safe", ctx.call) == 1:
                await asyncio.sleep(10)
                await die()
            return "done again"

    done = scene(script=by_turn([[Call("quick"), Call("never"), Call("safe")], "After."]), define=define)

    assert done.run.lives == 2 and done.outcomes == ["completed: After."]
    assert {event.name: len(done.run.world.effects(event.name)) for event in done.run.world.effects()} == {
        "quick": 1,
        "never": 1,
        "safe": 2,
    }
    assert {outcome.name: outcome.outcome for outcome in done.of(h.ToolOutcome)} == {
        "quick": "ok",
        "never": "unknown",
        "safe": "ok",
    }
    shown = answers(done)
    assert shown[0] == "tool quick: done" and shown[2] == "tool safe: done again"
    assert shown[1].startswith("error never: The outcome of this call is unknown")


def test_a_long_result_is_cut_to_what_a_record_may_hold() -> None:
    """S2: by its bytes, not its characters; the model is told what is missing."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def long(what: str) -> Any:
            """Be long."""
            if what == "blocks":
                return [Text(text="kept"), Text(text="y" * 300_000), Text(text="z")]
            if what == "details":
                return ToolResult("short", details="d" * 200_000)
            return {"ascii": "x", "kanji": "字", "zeros": "\0"}[what] * 2_000_000

    kinds = ("ascii", "kanji", "zeros", "blocks", "details")
    done = scene([Call("long", {"what": kind}) for kind in kinds], "Done.", define=define)

    texts = dict(zip(kinds, answers(done), strict=True))
    assert all(texts[kind].endswith("more characters were left out]") for kind in kinds[:4])
    assert texts["blocks"].startswith("tool long: kept") and texts["details"] == "tool long: short"
    sizes = sorted(len(r.encode([outcome])) for outcome in done.of(h.ToolOutcome))
    assert sizes[0] < 1_000 and all(99_000 < size < 101_000 for size in sizes[1:])
    assert all(outcome.details == r.NULL for outcome in done.of(h.ToolOutcome))


def test_outcomes_that_do_not_fit_one_batch_go_in_several() -> None:
    """S2: thirty large results that are there at the same moment, and the next turn behind them."""

    @tool
    async def page(number: int) -> str:
        """A page."""
        return f"{number}" + "x" * 99_000

    done = scene([Call("page", {"number": n}) for n in range(30)], "Read.", tools=[page], limits=Limits(parallel_tools=30))

    assert done.outcomes == ["completed: Read."]
    assert len(answers(done)) == 30 and answers(done)[7].startswith("tool page: 7x")


@dataclass
class Store:
    text: str = ""
    count: int = 0


def test_state_that_does_not_fit_is_an_error_of_its_call_alone() -> None:
    """S2: the outcome and what it put into the state are one batch or neither is."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def keep(ctx: Context[Store], size: int) -> str:
            """Keep."""
            ctx.state.text = "x" * size
            ctx.state.count += 1
            return "kept"

    done = scene([Call("keep", {"size": 2_000_000})], [Call("keep", {"size": 5})], "Done.", define=define, state=Store)

    assert answers(done)[0].startswith("error keep: The tool ran, but what it put into the state is larger")
    assert answers(done, 2)[-1] == "tool keep: kept"
    (changed,) = done.of(r.StateChanged)
    assert bytes(changed.changes["count"]) == b"1" and done.outcomes == ["completed: Done."]


def test_calls_that_share_an_id_are_told_apart() -> None:
    """S5, S9: providers repeat ids within a message and from turn to turn, or give none: outcomes, steps and keys stay
    those of one call."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool(repeat="resume")
        async def order(ctx: Context, what: str) -> str:
            """Order."""
            made = await ctx.step("make", lambda: what.upper())
            world.effect("order", ctx.call, ctx.key)
            return made

    def same(*what: str, id: str) -> Reply:
        return [Call("order", {"what": one}, id=id) for one in what]

    done = scene(same("a", "b", id="call_0"), same("c", id="call_0"), same("d", "e", id="x" * 64), "Done.", define=define)

    assert answers(done, 3) == [f"tool order: {letter}" for letter in "ABCDE"]
    effects = done.run.world.effects("order")
    assert len({effect.key for effect in effects}) == len({effect.call for effect in effects}) == 5
    ids = [block.id for entry in done.run.entries for block in entry.content if isinstance(block, ToolCall)]
    assert ids[:3] == ["call_0", "call_0_2", "call_0_3"] and all(len(id) <= 64 for id in ids)
    messages = done.requests[-1].messages
    assert [message.call for message in messages if isinstance(message, ToolMessage)] == ids


def test_an_id_may_come_back_in_another_submission() -> None:
    """S9: there it is another call with another key, and what is remembered of ids does not grow with the conversation."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool(repeat="keyed")
        async def order(ctx: Context) -> str:
            """Order."""
            world.effect("order", ctx.call, ctx.key)
            return "ordered"

    calls = [Call("order", id="call_0"), "Done."]
    done = scene(*calls, *calls, define=define, client=saying("one", "two"))

    effects = done.run.world.effects("order")
    assert [effect.call for effect in effects] == ["call_0", "call_0"] and len({effect.key for effect in effects}) == 2


def test_an_image_a_tool_returns_travels_as_a_blob() -> None:
    """S12: the record names it, the request holds its bytes."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def shot() -> list[Any]:
            """A picture."""
            return [Text(text="here"), Image(mime_type="image/png", data=b"png")]

    done = scene(Call("shot"), "Seen.", define=define)

    (outcome,) = done.of(h.ToolOutcome)
    assert outcome.content[1].data is None and outcome.content[1].blob
    (message,) = [message for message in done.requests[1].messages if isinstance(message, ToolMessage)]
    assert message.content[1].data == b"png"  # type: ignore[union-attr]


def test_a_plain_function_runs_and_shows_progress() -> None:
    """P12: `def` tools too."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        def count(ctx: Context) -> str:
            """Count."""
            ctx.progress("one")
            return "counted"

    done = scene(Call("count"), "Done.", define=define)

    assert answers(done) == ["tool count: counted"] and [p.text for p in done.of(h.ToolProgress)] == ["one"]


def test_a_tool_that_is_gone_when_its_call_is_due_has_an_unknown_outcome() -> None:
    """S9: called, died, and the new code has no such tool: nobody can say what happened."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool(repeat="safe")
        async def old() -> None:
            """Old."""
            agent._tools.pop("old")
            await die()

    done = scene(script=by_turn([Call("old"), "Hm."]), define=define)

    assert answers(done)[0].startswith("error old: The tool 'old' no longer exists; whether")
    assert done.of(h.ToolOutcome)[0].outcome == "unknown" and done.outcomes == ["completed: Hm."]


def test_a_model_that_calls_nothing_it_was_offered_is_told_so() -> None:
    """P6: an agent without tools says that there are none."""
    done = scene(Call("anything"), "Fine.")

    assert answers(done) == ["error anything: There is no tool named 'anything'. Available tools: none."]
