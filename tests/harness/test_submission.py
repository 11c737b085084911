"""The small fold that decides everything: total over its vocabulary, strict about its transitions, indifferent to the order
in which requests and the owner's records meet. Each by enumeration of all logs up to a length."""

from __future__ import annotations

import pytest
from tests.harness.sequences import Folded, accepted, alphabet, completed, fold, requests, sequences, settled, turn

from cairn.errors import StoreCorrupt
from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.messages import Text
from cairn.harness.submission import Control, Stage
from cairn.runtime import records as r

#: Records in a sequence, before the one or two that are tried.
LENGTHS = [3, pytest.param(4, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]

_CALL = h.ToolCalled(submission="s1", turn="t1", call="a", name="t", arguments=r.NULL, repeat="never", epoch=1, at=0.0)


def _outcome(call: str = "a") -> h.ToolOutcome:
    return h.ToolOutcome(submission="s1", turn="t1", call=call, name="t", outcome="ok", content=(Text(text="x"),), at=0.0)


def _strange() -> list[r.Record]:
    """Records that name what no log knows."""
    return [
        h.MessageDelta(message="elsewhere", block=0, kind="text", text="a"),
        h.ToolProcess(call="z", process=None),  # type: ignore[arg-type]
        turn("s9", 1, 1, "s9"),
        _outcome("z"),
        settled("s9"),
        r.FiberStarted(fiber="s9", at=0.0),
    ]


@pytest.mark.parametrize("length", LENGTHS)
def test_every_record_after_every_log_is_folded_or_refused_as_corrupt(length: int) -> None:
    """S14: the fold is total. No order of records makes it raise anything else, and none is passed over in silence."""
    wrong = []

    for sequence in sequences(length):
        here = fold(sequence)
        for record in (*alphabet(here.control, here.runtime), *_strange()):
            try:
                fold((*sequence, record))
            except StoreCorrupt:
                pass
            except Exception as error:
                wrong.append((sequence, record, repr(error)))

    assert wrong == []


def test_the_conversation_folds_whatever_its_control_folds() -> None:
    """S14: content and control agree about which logs there are; nothing else is raised."""
    wrong = []

    for sequence in sequences(5):
        conversation = Conversation()
        try:
            for ordinal, record in enumerate(sequence):
                conversation.apply(record, ordinal)
            conversation.context()
            conversation.history()
        except StoreCorrupt:
            pass
        except Exception as error:
            wrong.append((sequence, repr(error)))

    assert wrong == []


def open_turn(*more: r.Record) -> list[r.Record]:
    """A submission whose first turn has begun, and more."""
    claimed = r.InstanceClaimed(epoch=1, worker="w", at=0.0)
    return [accepted("s1"), claimed, r.FiberStarted(fiber="s1", at=0.0), turn("s1", 1, 1, "s1"), *more]


def said(stop: str, *calls: str) -> h.MessageCompleted:
    return completed(Control(submission="s1", turn="t1", message="m1"), stop, *calls)


ILLEGAL = {
    "a turn in a turn": open_turn(turn("s1", 2, 1)),
    "a turn of another submission": open_turn(said("stop"), turn("s2", 2, 1)),
    "a turn that includes what was included": open_turn(said("stop"), turn("s1", 2, 1, "s1")),
    "a delta of another message": open_turn(h.MessageDelta(message="m9", block=0, kind="text", text="a")),
    "a delta after the message": open_turn(said("stop"), h.MessageDelta(message="m1", block=0, kind="text", text="a")),
    "a message that is completed twice": open_turn(said("stop"), said("stop")),
    "a call that no message made": open_turn(said("tools", "b"), _CALL),
    "a call that is called twice": open_turn(said("tools", "a"), _CALL, _CALL),
    "a call after its outcome": open_turn(said("tools", "a", "b"), _CALL, _outcome(), _CALL),
    "two outcomes": open_turn(said("tools", "a", "b"), _CALL, _outcome(), _outcome()),
    "an outcome without calls": open_turn(said("stop"), _outcome()),
    "a turn before all outcomes": open_turn(said("tools", "a", "b"), _outcome(), turn("s1", 2, 1)),
    "a settlement twice": open_turn(said("stop"), settled("s1"), settled("s1")),
    "a settlement of nobody": [settled("s1")],
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_a_transition_the_life_of_a_submission_does_not_have_is_refused(name: str) -> None:
    """S14, S5, S7, S9, S11: everything before the last record is legal, the last one is not."""
    *before, last = ILLEGAL[name]
    fold(before)

    with pytest.raises(StoreCorrupt):
        fold([*before, last])


def _meeting(length: int) -> list[tuple[tuple[r.Record, ...], r.Record, r.Record]]:
    """Every log, a request that may come next, and a record the owner may append without having seen the request."""
    found = []
    for sequence in sequences(length):
        here = fold(sequence)
        owners = [record for record in alphabet(here.control, here.runtime) if not isinstance(record, r.REQUESTS)]
        legal = [record for record in owners if _is_legal((*sequence, record))]
        for request in requests():
            if _is_legal((*sequence, request)):
                found += [(sequence, request, record) for record in legal]
    return found


def _is_legal(sequence: tuple[r.Record, ...]) -> bool:
    try:
        fold(sequence)
    except StoreCorrupt:
        return False
    return True


@pytest.mark.parametrize("length", LENGTHS[:2])
def test_a_request_and_an_owners_record_may_come_in_either_order(length: int) -> None:
    """S3, S11: requests commute. The owner may have decided before it saw one; both orders are legal and lead to one state."""
    different = []

    meetings = _meeting(length)
    for sequence, request, record in meetings:
        one, other = fold((*sequence, request, record)), fold((*sequence, record, request))
        if one.identity != other.identity:
            different.append((sequence, request, record, _changes(one, other)))

    assert len(meetings) > 1_000
    assert different == []


def _changes(one: Folded, other: Folded) -> list[str]:
    return [name for name in one.control.__struct_fields__ if getattr(one.control, name) != getattr(other.control, name)]


@pytest.mark.parametrize("length", LENGTHS[:2])
def test_a_request_changes_nothing_that_the_model_is_shown(length: int) -> None:
    """S11: whenever a message arrives, the context of the running turn is the same; it enters with a turn that includes it."""
    for sequence, request, record in _meeting(length):
        contexts = []
        for order in ((request, record), (record, request)):
            conversation = Conversation()
            try:
                for ordinal, each in enumerate((*sequence, *order)):
                    conversation.apply(each, ordinal)
            except StoreCorrupt:
                break
            contexts.append(list(conversation.context()))

        assert len(contexts) < 2 or contexts[0] == contexts[1], (sequence, request, record)


def test_a_copy_of_the_control_is_independent() -> None:
    """F7: staged records are tried on a copy; the fold of what is durable must not notice."""
    for sequence in sequences(4):
        here = fold(sequence)
        before = here.identity
        for record in alphabet(here.control, here.runtime):
            try:
                here.control.copy().apply(record)
            except StoreCorrupt:
                pass
        assert here.identity == before


def test_a_submission_that_joined_settles_with_its_host() -> None:
    """S7: the second message leaves the queue when a turn includes it and is settled by the first one's settlement batch."""
    records = [*open_turn(said("stop")), accepted("s2"), turn("s1", 2, 1, "s2")]

    joined = fold(records).control
    ended = fold([*records, completed(Control(submission="s1", turn="t2", message="m2"), "stop"), settled("s1"), settled("s2")])

    assert (joined.included, joined.queue) == (["s1", "s2"], [])
    assert (ended.control.stage, ended.control.queue, ended.control.submission) == (Stage.SETTLED, [], None)
