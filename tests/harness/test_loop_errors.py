"""A provider that fails: what is kept, what is asked again and when, what is said in the end. P19, P20."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tests.harness.playing import Scene, saying, scene, told

from cairn import Agent, Limits
from cairn.errors import RETRYABLE_MODEL_ERRORS, ModelError, UsageError
from cairn.harness import records as h
from cairn.harness.handle import ConversationHandle
from cairn.harness.messages import Text, ToolCall
from cairn.harness.models.protocol import Completed, ModelEvent, ModelRequest, TextDelta
from cairn.runtime import records as r
from cairn.testing.play import settled
from cairn.testing.scripted import Call, Fail, Meanwhile, Say
from cairn.testing.world import World

#: No chance in the waits.
STEADY = Limits(retry_jitter=0.0)

OVERLOAD = ModelError("overloaded", kind="overload", status=529)


def waits(done: Scene) -> list[float]:
    """Seconds from each failure to the request after it."""
    failures, turns = done.seconds(h.TurnFailed), done.seconds(h.TurnStarted)
    return [round(next(turn for turn in turns if turn > failed) - failed, 2) for failed in failures if failed < turns[-1]]


def test_p19_a_failure_before_the_first_word_leaves_no_message() -> None:
    """P19: nothing of it is in the next request; nothing is raised."""
    done = scene(Fail(OVERLOAD), "Here.", limits=STEADY)

    assert told(done.requests[1].messages) == ["user: Hello."]
    assert [(entry.state, entry.text) for entry in done.run.entries[1:]] == [("failed", ""), ("completed", "Here.")]


def test_p19_what_was_said_before_a_failure_is_kept_and_continued() -> None:
    """P19: the person reads one answer; the model reads what it said and is asked, from the user's side, to go on."""
    done = scene(Fail(OVERLOAD, after="One, "), Fail(OVERLOAD, after="two, "), "three.", limits=STEADY)

    told_last = told(done.requests[2].messages)
    assert told_last[0] == "user: Hello." and told_last[1] == "cut off: One, " and told_last[3] == "cut off: two, "
    assert told_last[2].startswith('user: <note kind="continue">') and told_last[4] == told_last[2]
    assert done.outcomes == ["completed: One, two, three."]
    assert [entry.state for entry in done.run.entries] == ["completed", "interrupted", "interrupted", "completed"]


def test_p19_reasoning_alone_is_not_worth_a_continuation() -> None:
    """P19: without a word of text the request is made again as it was."""
    done = scene([Say("", thinking="Hm."), Fail(OVERLOAD)], "Here.", limits=STEADY)

    assert told(done.requests[1].messages) == ["user: Hello."] and done.outcomes == ["completed: Here."]


@pytest.mark.parametrize("kind", ["auth", "quota", "invalid_request", "overflow", "unknown"])
def test_p19_p20_an_error_that_waiting_cannot_cure_fails_at_once(kind: Any) -> None:
    """P20: quota is no rate limit. P19: one request, one failure with its kind, the partial text is not in a next request."""
    done = scene(
        Fail(ModelError("no", kind=kind, status=400), after="I th"), "Second.", limits=STEADY, client=saying("one", "two")
    )

    assert done.outcomes == ["failed: no", "completed: Second."]
    assert done.of(r.FiberSettled)[0].error.kind == kind and done.of(h.TurnFailed)[0].retry_at is None
    assert told(done.requests[1].messages) == ["user: one", "user: two"]
    assert done.run.entries[1].text == "I th", "people see what was said"


def test_p20_every_kind_that_may_pass_is_tried_again() -> None:
    """P20: rate limits, overload, server, network, timeouts."""
    kinds: list[Any] = sorted(RETRYABLE_MODEL_ERRORS)
    for kind in kinds:
        done = scene(Fail(ModelError("later", kind=kind)), "Here.", limits=STEADY)

        assert waits(done) == [2.0] and done.outcomes == ["completed: Here."]


def test_p20_the_waits_are_2_4_and_8_seconds_and_then_it_fails() -> None:
    """P20: the virtual clock says so; between two tries nothing runs."""
    done = scene(*[Fail(OVERLOAD)] * 4, limits=STEADY)

    assert waits(done) == [2.0, 4.0, 8.0] and done.seconds(r.FiberSettled) == [14.0]
    assert done.outcomes == ["failed: overloaded"] and len(done.of(r.FiberParked)) == 3
    assert done.of(r.FiberSettled)[0].error == r.ErrorInfo(kind="overload", message="overloaded", status=529, retryable=True)


def test_p20_jitter_shortens_a_wait_by_a_quarter_at_most() -> None:
    """P20: a fleet does not come back in one wave."""
    seen = [waits(scene(*[Fail(OVERLOAD)] * 3, "Here.", seed=seed)) for seed in range(8)]

    assert len({tuple(each) for each in seen}) == 8
    for wait, full in itertools.chain.from_iterable(zip(each, (2, 4, 8), strict=True) for each in seen):
        assert full * 0.75 <= wait <= full


def test_p20_the_count_starts_again_after_an_answer() -> None:
    """P20: two failures, a call, two failures, an answer."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def look() -> str:
            """Look."""
            return "a tree"

    bad = Fail(OVERLOAD)
    done = scene(bad, bad, Call("look"), bad, bad, bad, "A tree.", define=define, limits=STEADY)

    assert waits(done) == [2.0, 4.0, 2.0, 4.0, 8.0] and done.outcomes == ["completed: A tree."]


@pytest.mark.parametrize(("after", "wait"), [(30.0, 30.0), (0.5, 2.0), (900.0, 900.0)])
def test_p20_a_retry_after_is_honoured(after: float, wait: float) -> None:
    """P20: never shorter than the provider asked, up to its cap."""
    done = scene(Fail(ModelError("busy", kind="rate_limit", status=429, retry_after=after)), "Here.", limits=STEADY)

    assert waits(done) == [wait] and done.outcomes == ["completed: Here."]


def test_p20_a_retry_after_beyond_the_cap_fails_at_once() -> None:
    """P20: nobody waits for an hour without being asked."""
    done = scene(Fail(ModelError("busy", kind="rate_limit", status=429, retry_after=901)), limits=STEADY)

    assert done.outcomes == ["failed: busy"] and done.seconds(r.FiberSettled) == [0.0]


def test_p20_an_abort_during_the_wait_ends_it() -> None:
    """P20: at once, as aborted, and without another request."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        sent = await conversation.send("Hello.", key="0")
        async for event in sent.follow():
            if type(event).__name__ == "TurnFailed":
                await conversation.abort(reason="enough")
        await settled(sent)

    done = scene(Fail(ModelError("busy", kind="rate_limit", retry_after=600)), client=client, limits=STEADY)

    assert done.outcomes == ["aborted: enough"] and done.seconds(r.FiberSettled)[0] < 1 and len(done.requests) == 1


def test_a_message_during_the_wait_is_in_the_next_request() -> None:
    """P13: it joins the turn after the wait; the wait is not cut short."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("Hello.", key="0")
        async for event in first.follow():
            if type(event).__name__ == "TurnFailed":
                break
        second = await conversation.send("Anyone?", key="1")
        await settled(first)
        await settled(second)

    done = scene(Fail(OVERLOAD), "Here.", client=client, limits=STEADY)

    assert told(done.requests[1].messages) == ["user: Hello.", "user: Anyone?"] and waits(done) == [2.0]
    assert done.outcomes == ["completed: Here."] * 2


def test_a_refusal_is_a_failure_with_its_words() -> None:
    """P19: not asked again."""
    done = scene(Say("I will not.", stop="refusal"))

    assert done.outcomes == ["failed: I will not."] and done.of(r.FiberSettled)[0].error.kind == "refusal"


class Odd:
    """A model that breaks the protocol in one way, the first time."""

    spec = "odd:model"
    context_window = None

    def __init__(self, how: str) -> None:
        self.how = how
        self.asked = 0

    async def warm(self) -> None: ...

    def stream(self, request: ModelRequest) -> Any:
        self.asked += 1
        if self.how == "raises at once" and self.asked == 1:
            raise ModelError("no stream", kind="network")
        if self.how == "is no model":
            raise TypeError("not today")
        return self._events()

    async def _events(self) -> AsyncGenerator[ModelEvent, None]:
        if self.asked > 1:
            yield Completed((Text(text="Here."),), "stop")
            return
        if self.how != "says nothing":
            yield TextDelta(0, "Hm")
        if self.how == "raises":
            raise RuntimeError("bug")


@pytest.mark.parametrize(
    ("how", "outcome", "asked"),
    [
        ("raises at once", "completed", 2),
        ("is no model", "failed: TypeError: not today", 1),
        ("ends early", "completed", 2),
        ("says nothing", "completed", 2),
        ("raises", "failed: RuntimeError: bug", 1),
    ],
)
def test_a_model_that_breaks_the_protocol_is_an_error_of_its_turn(how: str, outcome: str, asked: int) -> None:
    """F6, L3: it never hangs the run. A stream that ends without a response is a broken connection; a bug is not retried."""
    odd = Odd(how)
    done = scene(model=lambda scripted: odd, limits=STEADY)

    assert done.outcomes[0].startswith(outcome) and odd.asked == asked and done.seconds(r.FiberSettled)[0] < 3


class Halves(Odd):
    """A model that cuts a character in two, and says half of another one."""

    def __init__(self) -> None:
        super().__init__("")

    async def _events(self) -> AsyncGenerator[ModelEvent, None]:
        for piece in ("a \ud83d", "\ude00 b ", "\ud83d"):
            yield TextDelta(0, piece)
        call = ToolCall(id="x", name="look", arguments={"at": "\udc00"})
        yield Completed((Text(text="a \ud83d\ude00 b \ud83d"), *([call] if self.asked == 1 else [])), "stop")

    def stream(self, request: ModelRequest) -> Any:
        self.asked += 1
        return self._events()


def test_half_a_character_does_not_stop_a_run() -> None:
    """F6, S14: what is no text cannot be recorded; it is mended, or its call is refused with a reason."""
    halves = Halves()

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def look(at: str) -> None:
            """Look."""

    done = scene(model=lambda scripted: halves, define=define)

    assert done.outcomes == ["completed: a \U0001f600 b \ufffd"] and halves.asked == 2
    assert "could not be read: they are no JSON" in done.of(h.ToolOutcome)[0].content[0].text


def test_a_model_that_cannot_be_had_fails_the_submission_with_the_reason() -> None:
    """F6: a missing key, a missing package: said once, in the words of whoever looked for it."""
    done = scene(model=lambda scripted: Unfit())

    assert done.outcomes == ["failed: set SOME_API_KEY"]


class Unfit(Odd):
    def __init__(self) -> None:
        super().__init__("")

    def stream(self, request: ModelRequest) -> Any:
        raise UsageError("set SOME_API_KEY")


def test_an_agent_that_cannot_be_rendered_fails_with_the_reason() -> None:
    """F6: an error in a prepare function is the agent's, not the runtime's."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.prepare
        def broken(turn: Any) -> None:
            raise KeyError("price")

    done = scene("Never.", define=define)

    assert done.outcomes == ["failed: 'price'"] and done.of(r.FiberSettled)[0].error.kind == "KeyError" and not done.requests


def test_a_failure_of_the_store_is_not_the_models() -> None:
    """S14: while the response streams, the store refuses for good: the instance is dropped and carried on later, and no
    turn is recorded as failed."""
    from cairn.testing import Crash

    whole = scene(Say("a b c d ", chunk=2, pause=0.1))
    for at in range(5, whole.run.writes[0]):
        done = scene(script=lambda request: Say("a b c d ", chunk=2, pause=0.1), crashes=[Crash(at, "before")])

        assert done.of(h.TurnFailed) == [] and done.outcomes[0].startswith("completed")


def test_a_cue_in_the_middle_of_a_message_shows_nothing() -> None:
    """S10: activity proves that the stream lives, and is no text."""
    done = scene(["One ", Meanwhile(lambda: None), "two"])

    assert done.outcomes == ["completed: One two"]
