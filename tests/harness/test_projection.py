"""What each record is shown as: records are made by hand, folded as the runtime folds them, and their chunks compared whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.harness import golden
from tests.harness.sequences import sequences
from tests.http.reducer import TYPES, Client

from cairn.framework.http.snapshot import Snapshot
from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.messages import Image, Text, Thinking, ToolCall
from cairn.harness.projection import Shown, project
from cairn.runtime import records as r

Json = dict[str, Any]
Batch = Sequence[r.Record]

#: 1970-01-01T00:00:01Z.
AT = 1.0
TIME = "1970-01-01T00:00:01.000Z"

SUB, OTHER = "sub_a", "sub_b"

BORN = [r.InstanceCreated(kind="toy", id="c", uid="inst_u", at=AT)]


def sent(submission: str = SUB, **delivery: Any) -> r.FiberAccepted:
    body = h.Delivery(**({"body": "hi"} | delivery))
    return r.FiberAccepted(fiber=submission, method=h.SUBMISSION, at=AT, arguments=msgspec.Raw(msgspec.json.encode(body)))


def turn(number: int = 1, submission: str = SUB, *includes: str, **more: Any) -> h.TurnStarted:
    names = {"submission": submission, "turn": f"turn_{number}", "message": f"msg_{number}"}
    return h.TurnStarted(**names, epoch=1, at=AT, model="x:y", includes=includes, **more)


def begin(number: int = 1, submission: str = SUB, **more: Any) -> list[r.Record]:
    """The first turn of a submission."""
    return [r.FiberStarted(fiber=submission, at=AT), turn(number, submission, submission, **more)]


def said(text: str, number: int = 1, block: int = 0, kind: str = "text") -> h.MessageDelta:
    return h.MessageDelta(message=f"msg_{number}", block=block, kind=kind, text=text)  # type: ignore[arg-type]


def completed(*content: Any, number: int = 1, stop: str = "stop", submission: str = SUB) -> h.MessageCompleted:
    names = {"submission": submission, "turn": f"turn_{number}", "message": f"msg_{number}"}
    return h.MessageCompleted(**names, content=content, stop=stop, at=AT, model="x:y")  # type: ignore[arg-type]


def interrupted(reason: str, keep: bool, number: int = 1) -> h.MessageInterrupted:
    names = {"submission": SUB, "turn": f"turn_{number}", "message": f"msg_{number}"}
    return h.MessageInterrupted(**names, reason=reason, keep=keep, at=AT)  # type: ignore[arg-type]


def failed(number: int = 1, retry_at: float | None = 2.0) -> h.TurnFailed:
    names = {"submission": SUB, "turn": f"turn_{number}", "message": f"msg_{number}"}
    return h.TurnFailed(**names, error=r.ErrorInfo(kind="overload", message="busy"), at=AT, retry_at=retry_at)


def call(id: str = "call_1", name: str = "look", **arguments: Any) -> ToolCall:
    return ToolCall(id=id, name=name, arguments=arguments)


def outcome(*content: Any, id: str = "call_1", outcome: str = "ok", **more: Any) -> h.ToolOutcome:
    names = {"submission": SUB, "turn": "turn_1", "call": id, "name": "look"}
    return h.ToolOutcome(**names, outcome=outcome, content=content, at=AT, **more)  # type: ignore[arg-type]


def settled(submission: str = SUB, outcome: str = "completed", **more: Any) -> r.FiberSettled:
    return r.FiberSettled(fiber=submission, outcome=outcome, at=AT, **more)  # type: ignore[arg-type]


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


class Log:
    """Batches, folded and projected one after the other, as the runtime does it."""

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.rows: list[bytes] = []

    def add(self, batch: Batch) -> list[Json]:
        """The chunks of this batch."""
        fold = self.conversation
        self.rows.append(project(fold.shown, fold.delivery_of, fold.control.queue, batch))
        for record in batch:
            fold.apply(record, len(self.rows) - 1)
        return chunks(self.rows[-1])


def chunks(row: bytes) -> list[Json]:
    return [json.loads(line) for line in row.split(b"\n")] if row else []


def last(*batches: Batch) -> list[Json]:
    """What the last of these batches is shown as."""
    log = Log()
    for batch in batches:
        shown = log.add(batch)
    return shown


def types(shown: list[Json]) -> list[str]:
    return [chunk["type"] for chunk in shown]


BEGUN: list[Batch] = [BORN, [sent()], begin()]


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_conversation_begins_with_a_reset_and_nothing_else() -> None:
    """S3: the reader puts the empty snapshot in."""
    assert last(BORN) == [{"type": "conversation-reset"}]


def test_a_message_is_shown_when_it_is_accepted() -> None:
    """S1: before anybody reads it."""
    assert last(BORN, [sent()]) == [
        {
            "type": "message-appended",
            "message": {
                "id": "msg_sub_a", "role": "user", "purpose": "user", "display": "visible", "submissionId": SUB,
                "parts": [{"type": "text", "text": "hi", "state": "done"}],
            },
            "timestamp": TIME,
        }
    ]  # fmt: skip


def test_attachments_are_parts_after_the_text() -> None:
    """S1: named by the submission and their place; what is not known is left out."""
    images = (Image(mime_type="image/png", blob="sha256:1", size=3, filename="a.png"), Image(mime_type="image/gif"))

    (shown,) = last(BORN, [sent(attachments=images)])

    assert shown["message"]["parts"][1:] == [
        {"type": "file", "mediaType": "image/png", "id": "att_sub_a_0", "size": 3, "filename": "a.png", "blob": "sha256:1"},
        {"type": "file", "mediaType": "image/gif", "id": "att_sub_a_1"},
    ]


@pytest.mark.parametrize(
    ("delivery", "signal"),
    [
        ({}, None),
        ({"tag": "slack"}, {"tagName": "slack"}),
        ({"attributes": {"user": "U1"}}, {"attributes": {"user": "U1"}}),
        ({"tag": "slack", "attributes": {"user": "U1"}}, {"tagName": "slack", "attributes": {"user": "U1"}}),
    ],
)
def test_a_signal_is_a_diagnostic_message_without_its_type(delivery: Json, signal: Json | None) -> None:
    """S1: and without `signal` when there is nothing to say in it."""
    (shown,) = last(BORN, [sent(kind="signal", type="timer", **delivery)])

    message = shown["message"]
    assert (message["role"], message["purpose"], message["display"]) == ("system", "dispatch", "diagnostic")
    assert message.get("signal") == signal
    assert "timer" not in json.dumps(shown)


def test_fibers_that_are_no_messages_are_not_shown() -> None:
    """S7: what runs after a submission has settled is the agent's own affair."""
    after = r.FiberAccepted(fiber="after_sub_a", method=h.SETTLED_HOOK, at=AT)

    assert last(BORN, [after]) == last(BORN, [settled("after_sub_a")]) == []


@pytest.mark.parametrize(
    "record",
    [
        r.InstanceClaimed(epoch=1, worker="w", at=AT),
        r.InstanceReleased(at=AT),
        r.FiberStarted(fiber=SUB, at=AT),
        r.AbortRequested(at=AT),
        r.StateChanged(changes={}),
        h.ContextOpened(system="Be brief.", tools=()),
    ],
    ids=lambda record: type(record).__name__,
)
def test_bookkeeping_is_not_shown(record: r.Record) -> None:
    """L5: a reader's offset moves on over such a batch, and it says nothing."""
    assert last(BORN, [sent()], [record]) == []


# --- an answer ------------------------------------------------------------------------------------------------------


def test_a_turn_opens_the_answer_and_says_which_attempt_it_is() -> None:
    """S10: the attempt is a field of ours that clients do not read."""
    assert last(BORN, [sent()], begin(attempt=2)) == [
        {
            "type": "message-started", "messageId": "msg_1", "submissionId": SUB, "turnId": "turn_1", "attempt": 2,
            "timestamp": TIME,
        }
    ]  # fmt: skip


def test_all_steps_of_an_answer_are_one_message() -> None:
    """S10: whatever the log calls the later ones."""
    shown = last(
        *BEGUN, [said("One. ")], [completed(Text(text="One. "), call(), stop="tools"), outcome(), turn(2)], [said("Two.", 2)]
    )

    assert shown == [{"type": "message-delta", "messageId": "msg_1", "kind": "text", "delta": "Two.", "attempt": 1}]


def test_an_answer_to_the_next_message_is_another_message() -> None:
    """S10: so is what is said in it."""
    first = [completed(Text(text="")), settled()]

    shown = last(*BEGUN, first, [sent(OTHER)], begin(2, OTHER), [said("Two.", 2)])

    assert shown[0]["messageId"] == "msg_2"


def test_reasoning_is_a_kind_of_its_own() -> None:
    """S10: in the clients' word for it."""
    (shown,) = last(*BEGUN, [said("hm", kind="thinking")])

    assert (shown["kind"], shown["delta"]) == ("reasoning", "hm")


def test_what_was_streamed_is_not_said_again_at_the_end() -> None:
    """S10: a finished response is recorded whole; readers have had its words."""
    shown = last(
        *BEGUN, [said("hm", kind="thinking"), said("Yes.", block=1)], [completed(Thinking(text="hm"), Text(text="Yes."))]
    )

    assert shown == [{"type": "message-completed", "messageId": "msg_1", "attempt": 1, "timestamp": TIME}]


def test_what_no_delta_brought_is_said_at_the_end() -> None:
    """S10: a provider that does not stream, a block that was streamed in part, and one after it."""
    content = (Thinking(text="hm, hm"), Text(text="Yes. "), Text(text="Or no."))

    shown = last(*BEGUN, [said("hm", kind="thinking")], [completed(*content)])

    assert [(chunk.get("kind"), chunk.get("delta")) for chunk in shown] == [
        ("reasoning", ", hm"), ("text", "Yes. "), ("text", "Or no."), (None, None),
    ]  # fmt: skip


def test_calls_are_shown_with_the_response_that_makes_them() -> None:
    """S8: complete, in their order, before the step ends."""
    shown = last(*BEGUN, [completed(call("call_1", place="Oslo"), call("call_2"), stop="tools")])

    assert types(shown) == ["tool-input", "tool-input", "message-completed"]
    assert shown[0] == {
        "type": "tool-input", "messageId": "msg_1", "toolCallId": "call_1", "toolName": "look", "input": {"place": "Oslo"},
        "timestamp": TIME,
    }  # fmt: skip


CALLED: list[Batch] = [*BEGUN, [completed(call(), stop="tools")]]


@pytest.mark.parametrize(
    ("content", "more", "output"),
    [
        ([Text(text='{"a":[1,null]}')], {"is_value": True}, {"a": [1, None]}),
        ([Text(text='"quoted"')], {"is_value": True}, "quoted"),
        ([Text(text='{"a":1}')], {}, '{"a":1}'),
        ([Text(text="a"), Text(text="b")], {}, [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        (
            [Image(mime_type="image/png", blob="sha256:1")],
            {},
            [{"type": "image", "mime_type": "image/png", "blob": "sha256:1"}],
        ),
        ([], {}, []),
    ],
    ids=["value", "text value", "text", "texts", "image", "nothing"],
)
def test_an_output_is_the_value_the_tool_returned(content: list[Any], more: Json, output: Any) -> None:
    """S8: a value as itself, a text as a text, more than that as blocks."""
    assert last(*CALLED, [outcome(*content, duration_ms=7, **more)]) == [
        {"type": "tool-output", "toolCallId": "call_1", "output": output, "durationMs": 7, "timestamp": TIME}
    ]


@pytest.mark.parametrize("kind", ["error", "unknown", "aborted", "timeout"])
def test_every_other_outcome_is_an_error_with_its_kind(kind: str) -> None:
    """S9: clients show the text; ours show the kind as well. Nobody knows how long a lost call took."""
    assert last(*CALLED, [outcome(Text(text="no"), Text(text="never"), outcome=kind, details=raw({"code": 1}))]) == [
        {
            "type": "tool-output-error", "toolCallId": "call_1", "errorText": "no\nnever", "outcome": kind,
            **({} if kind == "unknown" else {"durationMs": 0}), "details": {"code": 1}, "timestamp": TIME,
        }
    ]  # fmt: skip


def test_progress_is_a_data_part_that_the_outcome_clears() -> None:
    """L5: of the call, and gone with it; a call that showed none has nothing to clear."""
    assert last(*CALLED, [h.ToolProgress(call="call_1", text="half")]) == [
        {"type": "data-part", "messageId": "msg_1", "name": "tool-progress:call_1", "data": {"text": "half"}}
    ]
    shown = last(*CALLED, [h.ToolProgress(call="call_1", text="half")], [outcome(Text(text="ok"))])
    assert types(shown) == ["tool-output", "data-part"]
    assert shown[1] == {"type": "data-part", "messageId": "msg_1", "name": "tool-progress:call_1", "data": None}
    assert types(last(*CALLED, [outcome(Text(text="ok"))])) == ["tool-output"]


def test_data_and_metadata_are_shown_as_they_come() -> None:
    """S10: on the answer's one message."""
    shown = last(
        *BEGUN, [h.DataShown(submission=SUB, name="plan", value=raw([1])), h.MetadataShown(submission=SUB, value=raw({"a": 1}))]
    )

    assert shown == [
        {"type": "data-part", "messageId": "msg_1", "name": "plan", "data": [1]},
        {"type": "message-metadata", "messageId": "msg_1", "metadata": {"a": 1}},
    ]


def test_what_is_shown_before_the_answer_has_a_message_waits_for_it() -> None:
    """S10: a client drops what names a message it does not know."""
    early = [
        h.MetadataShown(submission=SUB, value=raw({"a": {"b": 1}, "c": 1})),
        h.DataShown(submission=SUB, name="plan", value=raw([1])),
        h.MetadataShown(submission=SUB, value=raw({"a": {"d": 2}, "c": 2})),
    ]
    log = Log()
    for batch in (BORN, [sent()]):
        log.add(batch)

    assert log.add(early) == []
    started, data = log.add(begin())

    assert started["metadata"] == {"a": {"b": 1, "d": 2}, "c": 2}
    assert data == {"type": "data-part", "messageId": "msg_1", "name": "plan", "data": [1]}
    assert types(log.add([completed(call(), stop="tools"), outcome(), turn(2)])) == [
        "tool-input", "message-completed", "tool-output", "message-started",
    ]  # fmt: skip


def test_what_waited_for_a_message_that_never_came_is_not_shown_with_another() -> None:
    """S10: its submission was aborted before its first turn."""
    early = h.DataShown(submission=SUB, name="plan", value=raw([1]))

    shown = last(BORN, [sent()], [early], [settled(outcome="aborted"), sent(OTHER)], begin(2, OTHER))

    assert types(shown) == ["message-started"]


def test_what_is_shown_after_the_end_belongs_to_what_has_ended_and_to_nothing_else() -> None:
    """S10: a hook that runs when a submission has settled may come when the next one is being answered."""
    log = Log()
    for batch in (*BEGUN, [completed(Text(text="Yes.")), settled()]):
        log.add(batch)
    late = [
        h.DataShown(submission="after_sub_a", name="plan", value=raw([1])),
        h.MetadataShown(submission="after_sub_a", value=raw({"title": "x"})),
    ]

    assert [chunk["messageId"] for chunk in log.add(late)] == ["msg_1", "msg_1"]
    log.add([sent(OTHER)])
    log.add(begin(2, OTHER))
    assert log.add(late) == []
    log.add([completed(Text(text="No."), number=2, submission=OTHER), settled(OTHER)])
    log.add([sent("sub_c")])
    assert types(log.add(begin(3, "sub_c"))) == ["message-started"]


# --- messages that meet an answer, notes -------------------------------------------------------------------------------


def test_a_message_that_joins_is_shown_again_with_the_turn_it_joined() -> None:
    """S11: under its id, so that it stays where it is."""
    shown = last(*BEGUN, [sent(OTHER, body="and?")], [completed(call(), stop="tools"), outcome(), turn(2, SUB, OTHER)])

    joined = shown[-2]
    assert joined["message"]["id"] == "msg_sub_b"
    assert joined["message"]["turnId"] == "turn_1"
    assert joined["message"]["parts"][0]["text"] == "and?"
    assert shown[-1]["submissionId"] == SUB


def test_the_message_an_answer_is_for_is_not_shown_again() -> None:
    """S11: it is there since it was accepted."""
    assert types(last(*BEGUN)) == ["message-started"]


def test_joined_messages_settle_before_the_one_they_joined() -> None:
    """S7: who waits for the host finds all of them settled."""
    batch = [settled(), settled(OTHER, answered_by=SUB)]

    shown = last(*BEGUN, [sent(OTHER)], [completed(call(), stop="tools"), outcome(), turn(2, SUB, OTHER)], batch)

    assert [(c["submissionId"], c["answeredBySubmissionId"]) for c in shown if c["type"] == "submission-settled"] == [
        (OTHER, SUB), (SUB, SUB),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "display", "text"),
    [
        ("continue", "hidden", "It continues from what was said."),
        ("length", "hidden", "It continues from what was said."),
        ("tools", "diagnostic", "You can fly."),
        ("hook", "diagnostic", "You can fly."),
    ],
)
def test_notes_are_advisories_before_the_step_they_are_for(kind: str, display: str, text: str) -> None:
    """S10: what the model is told about itself is hidden, and not in its words."""
    note = h.Note(kind=kind, text="You can fly.")  # type: ignore[arg-type]

    advisory, started = last(*BEGUN, [interrupted("crash", True), turn(2, notes=(note,))])[-2:]

    assert started["type"] == "message-started"
    signal = {"signal": {"attributes": {"resource": "tool"}}} if kind == "tools" else {}
    assert advisory["message"] == {
        "id": "note_turn_2_0", "role": "system", "purpose": "advisory", "display": display, "submissionId": SUB, **signal,
        "parts": [{"type": "text", "text": text, "state": "done"}],
    }  # fmt: skip


# --- ends -----------------------------------------------------------------------------------------------------------


def test_an_answer_that_a_crash_cut_off_says_so_in_hiding() -> None:
    """S10: its text stays."""
    (advisory,) = last(*BEGUN, [said("Half")], [interrupted("crash", True)])

    assert advisory["message"]["display"] == "hidden"
    assert advisory["message"]["submissionId"] == SUB


@pytest.mark.parametrize(("reason", "keep"), [("crash", False), ("cut", False), ("stall", False), ("abort", False)])
def test_an_interruption_that_keeps_nothing_only_ends_the_step(reason: str, keep: bool) -> None:
    """S10: what follows it says what came of it."""
    assert types(last(*BEGUN, [said("Half")], [interrupted(reason, keep)])) == ["message-completed"]


@pytest.mark.parametrize("reason", ["cut", "stall"])
def test_words_that_break_off_and_go_on_are_one_part(reason: str) -> None:
    """S3: a client joins the parts of an answer with blank lines; there must be none in the middle of a word."""
    batches = (*BEGUN, [said("Hal")], [interrupted(reason, True), failed()], [turn(2)], [said("f", 2)])

    assert types(last(*batches[:-2])) == []
    assert types(last(*batches)) == ["message-delta"]
    assert types(last(*batches, [completed(Text(text="f"), number=2)]))[-1] == "message-completed"


def test_words_that_break_off_end_with_the_submission() -> None:
    """S10: when nothing goes on."""
    assert types(last(*BEGUN, [said("Half")], [interrupted("cut", True)], [settled()]))[0] == "message-completed"


def test_a_failed_request_ends_its_step_once() -> None:
    """S10: and not while its words are to go on."""
    assert types(last(*BEGUN, [failed()])) == ["message-completed"]
    assert types(last(*BEGUN, [said("Half")], [interrupted("cut", False), failed()])) == ["message-completed"]
    assert types(last(*BEGUN, [said("Half")], [interrupted("cut", False)], [failed()])) == []


def test_a_completed_submission_names_who_answered_it() -> None:
    """S7: itself."""
    assert last(*BEGUN, [completed(Text(text="Yes."))], [settled()]) == [
        {
            "type": "submission-settled", "submissionId": SUB, "outcome": "completed", "answeredBySubmissionId": SUB,
            "timestamp": TIME,
        }
    ]  # fmt: skip


def test_a_failed_submission_leaves_a_visible_word_and_its_error() -> None:
    """S7: people see why there is no answer."""
    error = r.ErrorInfo(kind="auth", message="no such key")

    advisory, end = last(*BEGUN, [failed(retry_at=None)], [settled(outcome="failed", error=error)])

    assert advisory["message"] == {
        "id": "adv_sub_a_failed", "role": "system", "purpose": "advisory", "display": "visible",
        "signal": {"attributes": {"submissionId": SUB, "kind": "direct", "reason": "failed"}},
        "settlement": {"outcome": "failed"}, "parts": [{"type": "text", "text": "no such key", "state": "done"}],
    }  # fmt: skip
    assert end["error"] == {"name": "Error", "message": "no such key", "type": "auth", "details": ""}
    assert end["answeredBySubmissionId"] == SUB


def test_an_aborted_answer_is_ended_marked_and_settled_in_that_order() -> None:
    """S7: in one batch as in three."""
    error = r.ErrorInfo(kind="aborted", message="changed my mind")

    shown = last(*BEGUN, [said("Half")], [settled(outcome="aborted", error=error)])

    assert types(shown) == ["message-completed", "message-appended", "submission-settled"]
    assert shown[1]["message"]["display"] == "diagnostic"
    assert shown[2]["error"] == {
        "name": "Error", "message": "Submission was aborted.", "type": "submission_aborted", "details": "changed my mind",
    }  # fmt: skip


def test_a_message_aborted_while_it_waits_was_answered_by_nobody() -> None:
    """S7: also while another one is being answered, which goes on."""
    shown = last(*BEGUN, [sent(OTHER)], [settled(OTHER, "aborted")])

    assert types(shown) == ["message-appended", "submission-settled"]
    assert "answeredBySubmissionId" not in shown[1]


def test_a_rewind_is_a_reset_that_keeps_what_nobody_has_read() -> None:
    """S3: with where to, for the server's own fold; a reader gets a snapshot instead."""
    end = [completed(Text(text="Yes.")), settled()]

    shown = last(*BEGUN, end, [sent(OTHER)], [h.ConversationRewound(to=0, at=AT)])

    assert shown == [{"type": "conversation-reset", "to": 0, "keep": ["msg_sub_b"]}]


# --- everything -----------------------------------------------------------------------------------------------------


def test_several_records_of_a_batch_are_shown_as_if_they_came_one_by_one() -> None:
    """S3: what a batch shows of its end depends on its beginning."""
    records: Batch = [sent(), *begin(), said("Ye"), completed(Text(text="Yes."), call(), stop="tools"), outcome(), turn(2)]

    together, apart = Log(), Log()
    at_once = together.add(BORN) + together.add(records)
    one_by_one = apart.add(BORN) + [chunk for record in records for chunk in apart.add([record])]

    assert at_once == one_by_one


def test_projecting_changes_nothing() -> None:
    """S5: an append that fails is projected again."""
    shown = Shown(submission=SUB, answer="msg_1", is_open=True, streamed=[(0, "text", 2)], held=[{"type": "data-part"}])
    before = msgspec.json.encode(shown)

    first = project(shown, lambda id: h.Delivery(body=""), [], [said("x"), completed(Text(text="xyz"))])

    assert msgspec.json.encode(shown) == before
    assert project(shown, lambda id: h.Delivery(body=""), [], [said("x"), completed(Text(text="xyz"))]) == first


@pytest.mark.parametrize("name", sorted(path.stem for path in golden.FOLDER.glob("*.json")))
def test_every_recorded_history_is_shown_in_known_chunks_and_folds_alike_for_client_and_server(name: str) -> None:
    """S3, S15: also through a rewind, for which a client gets what the server has folded; and from a checkpoint anywhere."""
    history = golden.load(golden.FOLDER / f"{name}.json")
    fold, snapshot, client = Conversation(), Snapshot(), Client()
    for batch in history.batches:
        row = project(fold.shown, fold.delivery_of, fold.control.queue, batch.decoded)
        fold = Conversation.load(fold.dump())
        assert row == project(fold.shown, fold.delivery_of, fold.control.queue, batch.decoded)
        for record in batch.decoded:
            fold.apply(record, batch.ordinal)
        snapshot.feed(row, batch.ordinal)
        state = {"messages": json.loads(snapshot.messages()), "settlements": json.loads(snapshot.settlements())}
        for index, chunk in enumerate(chunks(row)):
            assert chunk["type"] in TYPES
            if chunk["type"] == "conversation-reset":
                chunk["snapshot"] = {"conversationId": "conv_u", **state}
            client.apply({**chunk, "conversationId": "conv_u", "position": {"batch": batch.ordinal, "index": index}})
        assert client.state == state
        assert client.dropped == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=8), JSON, max_size=3), JSON, st.text(), st.text())
def test_any_json_that_a_log_can_hold_is_one_line_that_both_folds_read_alike(
    arguments: Json, value: Any, text: str, name: str
) -> None:
    """S14, T19: line ends, quotes, big numbers, `__proto__`: in arguments, results, data, metadata and words."""
    ask = ToolCall(id="call_1", name=name, arguments=arguments)
    text_of_value = msgspec.json.encode(value).decode()
    batches: list[Batch] = [
        BORN,
        [sent(body=text)],
        [h.MetadataShown(submission=SUB, value=raw(arguments))],
        [*begin(), said(text)],
        [completed(Text(text=text), ask, stop="tools")],
        [h.DataShown(submission=SUB, name=name, value=raw(value)), h.MetadataShown(submission=SUB, value=raw({"a": value}))],
        [outcome(Text(text=text_of_value), is_value=True, details=raw(value))],
    ]
    log, snapshot, client = Log(), Snapshot(), Client()

    for ordinal, batch in enumerate(batches):
        shown = log.add(_decode(r.encode(batch)))
        snapshot.feed(log.rows[-1], ordinal)
        for index, chunk in enumerate(shown):
            chunk.setdefault("snapshot", {"conversationId": "c", "messages": [], "settlements": []})
            client.apply({**chunk, "conversationId": "c", "position": {"batch": ordinal, "index": index}})

    assert json.loads(snapshot.messages()) == client.messages
    (tool,) = [part for part in client.messages[1]["parts"] if part["type"] == "dynamic-tool"]
    assert (tool["input"], tool["output"]) == (json.loads(json.dumps(arguments)), value)


_decode = r.decoder(h.HARNESS).decode


@pytest.mark.parametrize("length", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_every_sequence_of_records_is_shown_so_that_a_client_loses_nothing(length: int) -> None:
    """S3, S10: whatever a log may hold, up to a length: known chunks, no unknown message, one fold for client and server; at
    most one settlement a submission, and when none is open nothing moves."""
    for sequence in sequences(length):
        records = _decode(r.encode(sequence).replace(b'"s1"', b'"sub_1"').replace(b'"s2"', b'"sub_2"'))
        log, snapshot, client = Log(), Snapshot(), Client()
        shown: list[Json] = []
        for ordinal, record in enumerate(records):
            for index, chunk in enumerate(log.add([record])):
                shown.append({**chunk, "conversationId": "c", "position": {"batch": ordinal, "index": index}})
            snapshot.feed(log.rows[-1], ordinal)
        client.feed(shown)
        assert client.dropped == [], records
        assert json.loads(snapshot.messages()) == client.messages, records
        assert json.loads(snapshot.settlements()) == client.settlements, records
        settlements = [chunk["submissionId"] for chunk in shown if chunk["type"] == "submission-settled"]
        assert len(settlements) == len(set(settlements)), records
        if not log.conversation.control.submission:
            moving = [part for message in client.messages for part in message["parts"] if part.get("state") == "streaming"]
            assert moving == [], records
