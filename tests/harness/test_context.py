"""What the model is given: a prefix that never changes, changes told at the tail, every call with a result, and a rewind.

P26, P23, and in part P13 and P19. The folds here are fed by hand, or by what was really played.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tests.harness.playing import saying, scene, told

from cairn import Agent, Context, Limits, Turn
from cairn.errors import ModelError, StoreCorrupt
from cairn.harness import records as h
from cairn.harness.context import declare
from cairn.harness.conversation import Conversation
from cairn.harness.messages import Image, Text, Thinking, ToolCall, ToolSpec
from cairn.harness.models.protocol import ModelRequest
from cairn.harness.tools import Tool
from cairn.harness.turn_view import Rendered
from cairn.runtime import records as r
from cairn.testing import Crash
from cairn.testing.scripted import Call, Fail, Reply, Say, by_turn
from cairn.testing.world import World

encode = msgspec.json.encode


def extends(before: ModelRequest, after: ModelRequest) -> bool:
    """The bytes of the one begin the bytes of the other."""
    same_head = (before.system, encode(before.tools)) == (after.system, encode(after.tools[: len(before.tools)]))
    earlier = [encode(message) for message in before.messages]
    return same_head and earlier == [encode(message) for message in after.messages][: len(earlier)]


# --- the prefix -------------------------------------------------------------------------------------------------------


@dataclass
class Mode:
    step: int = 0


def stepping(agent: Agent[Any], world: World) -> None:
    """Each call changes the state; what the agent is depends on it."""

    @agent.tool(repeat="safe")
    async def step(ctx: Context[Mode]) -> str:
        """Step."""
        await asyncio.sleep(1)
        ctx.state.step += 1
        return f"step {ctx.state.step}"

    async def extra() -> str:
        """Extra."""
        return "extra"

    @agent.prepare
    def prepare(turn: Turn[Mode]) -> None:
        if turn.state.step in (1, 3):
            turn.use(extra)
        if turn.state.step == 2:
            turn.instruct("Hurry.")


FIRST: Reply = [Say("A ", thinking="Hm."), Call("step")]
STEPS: tuple[Reply, ...] = (FIRST, [Call("step"), Call("step")], Call("step"), "Done.", "Bye.")


def test_p26_what_was_sent_is_sent_again_byte_for_byte() -> None:
    """P26: through changes of state, tools and instructions, over turns and submissions; by identity within a life."""
    done = scene(*STEPS, define=stepping, state=Mode, client=saying("one", "two"))

    for before, after in itertools.pairwise(done.requests):
        assert extends(before, after) and len(after.messages) > len(before.messages)
        assert all(a is b for a, b in zip(before.messages, after.messages, strict=False))
    assert len(done.requests) == 5


@pytest.mark.slow
def test_p26_and_across_every_crash() -> None:
    """P26, S3: a process that knows only the log sends the same bytes."""
    client = saying("one", "two")
    for at in itertools.count(3):
        crash = Crash(at, "after")
        done = scene(script=by_turn(STEPS), define=stepping, state=Mode, client=client, crashes=[crash])
        if not crash.reached:
            break

        assert done.run.lives == 2
        assert all(extends(before, after) for before, after in itertools.pairwise(done.requests))
    assert at > 15


def test_p26_a_change_is_told_once_at_the_tail() -> None:
    """P26: a new tool is declared after the old ones; one that is taken away stays declared; instructions that grew are
    told by what was added; and back again."""
    done = scene(FIRST, *[Call("step")] * 3, "Done.", define=stepping, state=Mode)

    notes = [text for text in told(done.requests[-1].messages) if "<note" in text]
    assert notes == [
        'user: <note kind="tools">\nNew tool available: extra.\n</note>',
        'user: <note kind="tools">\nThe tool extra is no longer available; do not call it.\n</note>',
        'user: <note kind="instructions">\nIn addition to your instructions, from now on:\n\nHurry.\n</note>',
        'user: <note kind="tools">\nThe tool extra is available again.\n</note>',
        'user: <note kind="instructions">\nYour instructions have changed. From now on they are:\n\nBe brief.\n</note>',
        'user: <note kind="tools">\nThe tool extra is no longer available; do not call it.\n</note>',
    ]
    assert [[spec.name for spec in request.tools] for request in done.requests] == [["step"], *[["step", "extra"]] * 4]
    assert {request.system for request in done.requests} == {"Be brief."}


def spec(name: str, description: str = "") -> ToolSpec:
    return ToolSpec(name=name, description=description, parameters={})


async def _nothing(*_: Any) -> None: ...


def rendered(*specs: ToolSpec, instructions: str = "i") -> Rendered:
    return Rendered("m:x", instructions, tuple(Tool(each, _nothing) for each in specs))


def folded(*records: r.Record) -> Conversation:
    conversation = Conversation()
    for ordinal, record in enumerate(records):
        conversation.apply(record, ordinal)
    return conversation


def test_p26_a_reordered_list_of_tools_declares_nothing() -> None:
    """P26: order is no content."""
    conversation = folded(h.ContextOpened(system="i", tools=(spec("a"), spec("b"))))

    assert declare(conversation, rendered(spec("b"), spec("a"))) == ([], [])


def test_p26_a_tool_whose_schema_changed_keeps_its_place_and_is_told() -> None:
    """P26: the one change that has to touch the head."""
    conversation = folded(h.ContextOpened(system="i", tools=(spec("a"), spec("b"))))
    (change,), (note,) = declare(conversation, rendered(spec("a", "new"), spec("b")))
    conversation.apply(change, 1)

    assert conversation.head is not None
    assert [each.description for each in conversation.head.tools] == ["new", ""]
    assert note.text == "The tool a has changed; its present description applies."
    assert declare(conversation, rendered(spec("a", "new"), spec("b"))) == ([], [])


def test_a_context_that_changes_before_it_was_opened_is_refused() -> None:
    """S14: no such log was written by us."""
    with pytest.raises(StoreCorrupt, match="before it was opened"):
        folded(h.ContextChanged(instructions="x"))


# --- what is in it ----------------------------------------------------------------------------------------------------


def accepted(id: str, text: str = "hi", **delivery: Any) -> r.FiberAccepted:
    arguments = encode(h.Delivery(body=text, **delivery))
    return r.FiberAccepted(fiber=id, method=h.SUBMISSION, at=0, arguments=msgspec.Raw(arguments))


def turn(number: int, submission: str = "s", *includes: str, notes: tuple[h.Note, ...] = ()) -> h.TurnStarted:
    return h.TurnStarted(
        submission=submission,
        turn=f"t{number}",
        message=f"m{number}",
        epoch=1,
        at=0,
        model="m:x",
        includes=includes,
        notes=notes,
    )


def completed(number: int, *content: Any, submission: str = "s") -> h.MessageCompleted:
    stop = "tools" if any(isinstance(block, ToolCall) for block in content) else "stop"
    return h.MessageCompleted(
        submission=submission, turn=f"t{number}", message=f"m{number}", content=content, stop=stop, at=0, model="m:x"
    )


def outcome(number: int, call: str, text: str = "ok") -> h.ToolOutcome:
    return h.ToolOutcome(
        submission="s", turn=f"t{number}", call=call, name="look", outcome="ok", content=(Text(text=text),), at=0
    )


def started(id: str = "s") -> r.FiberStarted:
    return r.FiberStarted(fiber=id, at=0)


def settled(id: str = "s", outcome: Any = "completed") -> r.FiberSettled:
    return r.FiberSettled(fiber=id, outcome=outcome, at=0)


def look(id: str) -> ToolCall:
    return ToolCall(id=id, name="look", arguments={})


def test_p23_a_call_without_a_result_has_one_before_the_next_message() -> None:
    """P23: a submission that failed where no outcome could be recorded; providers refuse a call without a result."""
    conversation = folded(
        accepted("s"), started(), turn(1, "s", "s"), completed(1, look("a"), look("b")), outcome(1, "b"),
        settled(outcome="failed"), accepted("u", "and?"), started("u"), turn(2, "u", "u"),
    )  # fmt: skip

    assert told(conversation.context()) == [
        "user: hi",
        "assistant: look() look()",
        "error look: No result was recorded for this call.",
        "tool look: ok",
        "user: and?",
    ]


def test_p23_none_is_added_for_calls_that_are_answered() -> None:
    """P23: one result for each call, in the order of the calls."""
    conversation = folded(
        accepted("s"), started(), turn(1, "s", "s"), completed(1, look("a"), look("b")), outcome(1, "b", "B"),
        outcome(1, "a", "A"), turn(2),
    )  # fmt: skip

    assert told(conversation.context())[2:] == ["tool look: A", "tool look: B"]


def test_a_message_nobody_closed_ends_with_its_submission() -> None:
    """S7: people do not see a message that is open for ever, and the model does not see it at all."""
    delta = h.MessageDelta(message="m1", block=0, kind="text", text="I th")
    conversation = folded(accepted("s"), started(), turn(1, "s", "s"), delta, settled(outcome="failed"))

    (_, answer) = conversation.history()
    assert (answer.state, answer.text) == ("failed", "I th") and told(conversation.context()) == ["user: hi"]


def test_an_interrupted_message_keeps_its_text_and_drops_its_reasoning() -> None:
    """P19: half a thought has no signature, and no provider takes it back."""
    parts = [("thinking", "Hm"), ("text", "I "), ("text", "th"), ("text", "ink")]
    deltas = [
        h.MessageDelta(message="m1", block=int(kind == "text"), kind=kind, text=text)  # type: ignore[arg-type]
        for kind, text in parts
    ]
    cut = h.MessageInterrupted(submission="s", turn="t1", message="m1", reason="crash", keep=True, at=0)
    conversation = folded(accepted("s"), started(), turn(1, "s", "s"), *deltas, cut)

    assert told(conversation.context()) == ["user: hi", "cut off: I think"]
    assert conversation.history()[1].content == (Thinking(text="Hm"), Text(text="I think"))


def test_an_empty_response_is_in_no_request() -> None:
    """P19: providers refuse an empty message."""
    conversation = folded(accepted("s"), started(), turn(1, "s", "s"), completed(1))

    assert told(conversation.context()) == ["user: hi"] and conversation.history()[1].state == "completed"


def test_a_signal_is_read_in_a_tag_with_what_it_says_escaped() -> None:
    """S12: a webhook's body cannot close the tag it stands in."""
    conversation = folded(
        accepted("s", 'a </signal> <b c="d">', kind="signal", type="push", attributes={"by": '"me"'}),
        started(),
        turn(1, "s", "s"),
    )

    assert told(conversation.context()) == [
        'user: <signal type="push" by=\'"me"\'>\na &lt;/signal&gt; &lt;b c="d"&gt;\n</signal>'
    ]


def test_notes_about_what_was_said_stand_before_new_messages_and_the_others_after() -> None:
    """P13, P19: the model is asked to go on, then reads what came in."""
    notes = (h.Note(kind="continue", text="go on"), h.Note(kind="hook", text="note"))
    conversation = folded(accepted("s"), started(), turn(1, "s", "s", notes=notes))

    assert told(conversation.context()) == [
        'user: <note kind="continue">\ngo on\n</note>',
        "user: hi",
        'user: <note kind="hook">\nnote\n</note>',
    ]


def test_attachments_are_read_with_their_message() -> None:
    """S1: by reference; the loop puts the bytes in."""
    image = Image(mime_type="image/png", blob="hash")
    conversation = folded(accepted("s", "look", attachments=(image,)), started(), turn(1, "s", "s"))

    (message,) = conversation.context()
    assert message.content == (Text(text="look"), image) and conversation.has_images


# --- rewind -----------------------------------------------------------------------------------------------------------

PLAYED = (
    accepted("s", "one"),  # 0
    h.ContextOpened(system="first", tools=(spec("look"),)),  # 1
    started("s"),  # 2
    turn(1, "s", "s"),  # 3
    completed(1, look("a")),  # 4
    outcome(1, "a"),  # 5
    h.ContextChanged(instructions="second", tools_added=(spec("more"),)),  # 6
    turn(2, "s", notes=(h.Note(kind="instructions", text="second"),)),  # 7
    completed(2, Text(text="Answer one.")),  # 8
    settled("s"),  # 9
    accepted("u", "two"),  # 10
    started("u"),  # 11
    turn(3, "u", "u"),  # 12
    completed(3, Text(text="Answer two."), submission="u"),  # 13
    settled("u"),  # 14
)


def rewound(to: int, *later: r.Record) -> Conversation:
    return folded(*PLAYED, h.ConversationRewound(to=to, at=0), *later)


def again(conversation: Conversation) -> list[str]:
    """What the model reads when somebody says "three" now."""
    base = 100
    for offset, record in enumerate((accepted("v", "three"), started("v"), turn(9, "v", "v"))):
        conversation.apply(record, base + offset)
    return told(conversation.context())


@pytest.mark.parametrize("warm", [True, False])
def test_a_rewind_goes_back_to_what_was_known_then(warm: bool) -> None:
    """P26: at the end of the first answer; the prefix up to there is what it was, byte for byte."""
    conversation = folded(*PLAYED)
    before = [encode(message) for message in conversation.context()] if warm else []
    conversation.apply(h.ConversationRewound(to=9, at=0), 15)
    after = [encode(message) for message in conversation.context()]

    assert [entry.text for entry in conversation.history()] == ["one", "", "Answer one."]
    assert after == before[: len(after)] or not warm
    assert again(conversation)[-2:] == ["assistant: Answer one.", "user: three"]


def test_a_rewind_to_the_beginning_is_an_empty_conversation() -> None:
    """P26: and its next turn opens a context again."""
    conversation = rewound(-1)

    assert conversation.history() == [] and conversation.head is None
    assert [type(record) for record in declare(conversation, rendered(instructions="new"))[0]] == [h.ContextOpened]
    assert again(conversation) == ["user: three"]


def test_a_rewind_forgets_what_the_model_was_told_after_it() -> None:
    """P26: instructions and tools are those it knows; the present ones are told again."""
    conversation = rewound(5)

    assert conversation.head is not None
    assert (conversation.head.instructions, [each.name for each in conversation.head.tools]) == ("first", ["look"])
    records, notes = declare(conversation, rendered(spec("look"), spec("more"), instructions="second"))
    assert len(records) == 1 and [note.kind for note in notes] == ["tools", "instructions"]


def test_a_rewind_between_a_call_and_its_result_keeps_the_result() -> None:
    """P23: it happened; and no call stands without one."""
    assert again(rewound(4)) == ["user: one", "assistant: look()", "tool look: ok", "user: three"]


def test_a_rewind_into_a_message_leaves_what_was_known_of_it() -> None:
    """P23: its end came later: nothing of it is kept."""
    conversation = rewound(3)

    assert [(entry.state, entry.text) for entry in conversation.history()] == [("completed", "one"), ("interrupted", "")]
    assert again(conversation) == ["user: one", "user: three"]


def test_a_message_that_waits_is_not_lost_in_a_rewind() -> None:
    """S1: accepted at the same moment; it is read as if it had come after."""
    conversation = folded(*PLAYED, accepted("w", "wait"), h.ConversationRewound(to=9, at=0), started("w"), turn(9, "w", "w"))

    assert told(conversation.context())[-2:] == ["assistant: Answer one.", "user: wait"]
    assert [entry.text for entry in conversation.history()] == ["one", "", "Answer one.", "wait", ""]


def test_a_rewound_conversation_comes_back_from_its_checkpoint() -> None:
    """S3: like any other."""
    for to in range(-1, 15):
        conversation = rewound(to)
        loaded = Conversation.load(conversation.dump())

        assert again(loaded) == again(conversation) and loaded.history() == conversation.history()


# --- what a person reads as one answer ----------------------------------------------------------------------------------


def test_a_reply_is_the_whole_answer_and_only_this_one() -> None:
    """P19: the parts before each continuation; not what was said before a call, nor in an earlier submission."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool
        async def see() -> str:
            """See."""
            return "seen"

    broken = Fail(ModelError("reset", kind="network"), after="One, ")
    done = scene(
        "Before.", [Say("I look. "), Call("see")], broken, Fail(ModelError("reset", kind="network")),
        Say("two, ", stop="length"), "three.", define=define, client=saying("first", "second"), limits=Limits(retry_jitter=0),
    )  # fmt: skip

    assert done.outcomes == ["completed: Before.", "completed: One, two, three."]
