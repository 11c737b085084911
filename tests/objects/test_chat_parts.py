"""What a chat client is told of an answer: the chunks it gets make exactly the message that the transcript holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tests.harness import golden
from tests.harness.sequences import sequences
from tests.harness.test_projection import (
    BORN,
    Log,
    begin,
    call,
    completed,
    interrupted,
    outcome,
    said,
    sent,
    settled,
    turn,
)  # fmt: skip
from tests.npm.node import Node
from tests.objects.chat_watching import Watcher, assembled, plain, shown, url, watched

from cairn.framework.http.chat_handshake import TABLE, Do, Event, Handshake, Standing
from cairn.framework.http.chat_parts import Telling, ui_messages, waits
from cairn.framework.http.chat_scene import Admitted, Began, Changed, Paused, Recovering, Replaced, Scene, Settled
from cairn.framework.http.snapshot import Snapshot
from cairn.harness import records as h
from cairn.harness.messages import Text, Thinking
from cairn.runtime import records as r

Json = dict[str, Any]
Batches = Sequence[Sequence[r.Record]]

HISTORIES = sorted(golden.FOLDER.glob("*.json"))


def history(path: Path) -> Batches:
    return [batch.decoded for batch in golden.load(path).batches]


def asks(kind: str = "approval", id: str = "call_1") -> h.ToolAwaiting:
    names = {"submission": "sub_a", "turn": "turn_1", "call": id, "name": "look", "digest": "sha256:1"}
    return h.ToolAwaiting(**names, arguments=r.NULL, kind=kind, at=1.0, reason="it is dear")  # type: ignore[arg-type]


def called(id: str = "call_1", **more: Any) -> h.ToolCalled:
    names = {"submission": "sub_a", "turn": "turn_1", "call": id, "name": "look"}
    return h.ToolCalled(**names, arguments=r.NULL, repeat="never", epoch=1, at=1.0, **more)


ASKING: Batches = [
    BORN,
    [sent()],
    [*begin(), said("Let me.")],
    [completed(Text(text="Let me."), call(), stop="tools"), asks()],
]


def sound(watcher: Watcher) -> None:
    """What was told, live and as a replay, is what the transcript says."""
    for stream in watcher.streams:
        if stream.message is not None:
            assert assembled(stream.chunks) == shown(stream.message), stream.chunks
            assert assembled(stream.replay) == shown(stream.message), stream.replay
            assert stream.chunks[-1]["type"] == "finish"


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("page", [1, 3, 1000])
def test_chunks_of_every_kept_history_make_the_messages_of_its_transcript(path: Path, page: int) -> None:
    """S3: however they are cut into pages, and for whoever comes at the end."""
    batches = history(path)
    watcher = watched(batches, page)
    sound(watcher)
    log = Log()
    for batch in batches:
        log.add(batch)
    snapshot = Snapshot()
    for ordinal, row in enumerate(log.rows):
        snapshot.feed(row, ordinal)
    transcript = {message["id"]: plain(message) for message in ui_messages(json.loads(snapshot.messages()), url)}
    ends = {stream.message["id"]: stream for stream in watcher.streams if stream.message is not None}
    assert all(transcript[id] == assembled(stream.chunks) for id, stream in ends.items() if id in transcript)


@pytest.mark.parametrize("length", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_whatever_a_log_may_hold_is_told_as_a_client_can_fold_it(length: int) -> None:
    """S3: every sequence of records up to a length, watched record by record; and from any place on it stands as it does for
    somebody who comes there."""
    decode = r.decoder(h.HARNESS).decode
    for sequence in sequences(length):
        records = decode(r.encode(sequence).replace(b'"s1"', b'"sub_1"').replace(b'"s2"', b'"sub_2"'))
        log, watcher, snapshot = Log(), Watcher(), Snapshot()
        for ordinal, record in enumerate(records):
            log.add([record])
            watcher.page(log.rows[-1:])
            snapshot.feed(log.rows[-1], ordinal)
        sound(watcher)
        here = Scene.of(json.loads(snapshot.messages()), json.loads(snapshot.settlements()))
        mine = watcher.scene
        assert (mine.host, mine.is_streaming, list(mine.unsettled)) == (here.host, here.is_streaming, list(here.unsettled)), (
            records
        )


def test_a_client_that_comes_anywhere_is_told_the_rest() -> None:
    """S3: replayed up to any chunk and told on from there, the message is the same one, to the letter."""
    batches: Batches = [
        BORN, [sent()], [*begin(), said("Six times", kind="thinking")], [said(" seven?", kind="thinking")],
        [said("Look: ", block=1)],
        [completed(Thinking(text="Six times seven?"), Text(text="Look: "), call(), stop="tools"), called()],
        [h.DataShown(submission="sub_a", name="map", value=r.NULL)], [h.ToolProgress(call="call_1", text="half")],
        [outcome(Text(text="42")), turn(2, "sub_a")], [said("It is ", 2)], [interrupted("cut", True, 2), turn(3, "sub_a")],
        [said("42.", 3)], [completed(Text(text="42."), number=3), settled(result=r.NULL)],
    ]  # fmt: skip
    log = Log()
    rows = [chunk for batch in batches for chunk in log.add(batch) if chunk["type"] != "conversation-reset"]
    for cut in range(len(rows)):
        scene, telling, told = Scene(), None, []
        for place, chunk in enumerate(rows):
            for happening in scene.feed(chunk):
                if isinstance(happening, Settled) and telling is not None and happening.message is not None:
                    told += [*telling.tell(happening.message, url), *telling.finish("stop")]
                    assert assembled(json.loads(json.dumps(told))) == shown(happening.message)
            if place >= cut and scene.message is not None:
                telling = telling or Telling()
                told += telling.tell(scene.message, url)
        assert told or cut >= len(rows) - 1


def test_a_step_begins_where_words_follow_calls() -> None:
    """An application that looks at the calls of the last step would else find those of an earlier one."""
    watcher = watched([*ASKING, [called(by="ann")], [outcome(Text(text="1")), turn(2, "sub_a")], [said("Well.", 2)],
                       [completed(Text(text="Well."), number=2), settled(result=r.NULL)]])  # fmt: skip
    *_, last = watcher.streams
    assert [part["type"] for part in assembled(last.chunks)["parts"]] == [
        "step-start", "text", "tool-look", "step-start", "text",
    ]  # fmt: skip


def test_a_stream_ends_where_an_answer_waits_and_another_one_tells_it_all_again() -> None:
    """A client acts on a call only when nothing streams; what goes on is told from the beginning, under the same id."""
    watcher = watched([*ASKING, [called(by="ann")], [outcome(Text(text="1")), turn(2, "sub_a")],
                       [completed(Text(text="Well."), number=2), settled(result=r.NULL)]])  # fmt: skip
    asked, rest = watcher.streams
    sound(watcher)
    assert asked.message is not None and waits(asked.message)
    (part,) = [part for part in assembled(asked.chunks)["parts"] if part["type"] == "tool-look"]
    assert (part["state"], part["approval"]) == ("approval-requested", {"id": "call_1", "descriptor": {"reason": "it is dear"}})
    assert assembled(rest.chunks)["id"] == assembled(asked.chunks)["id"]
    kinds = [type(happening) for happening in watcher.happened]
    assert kinds == [Admitted, Began, Paused, Began, Settled]


def test_a_call_that_was_rejected_is_denied() -> None:
    """Whoever did not hear the question hears it before the denial, which else would be of nothing."""
    watcher = watched([*ASKING, [outcome(Text(text="no"), outcome="rejected", by="ann", answer="d"), turn(2, "sub_a")],
                       [completed(Text(text="Then not."), number=2), settled(result=r.NULL)]])  # fmt: skip
    *_, last = watcher.streams
    assert [chunk["type"] for chunk in last.chunks if chunk["type"].startswith("tool-")] == [
        "tool-input-available", "tool-approval-request", "tool-output-denied",
    ]  # fmt: skip
    (part,) = [each for each in ui_messages([last.message or {}], url)[0]["parts"] if each["type"] == "tool-look"]
    assert (part["state"], part["approval"]["approved"], part["approval"]["reason"]) == ("output-denied", False, "no")


def test_a_call_that_a_client_carries_out_is_just_open() -> None:
    """The published client looks for `input-available`."""
    batches = [*ASKING[:3], [completed(Text(text="Let me."), call(), stop="tools"), asks("client_tool")]]
    (stream,) = watched(batches).streams
    (part,) = [part for part in assembled(stream.chunks)["parts"] if part["type"] == "tool-look"]
    assert part["state"] == "input-available" and stream.message is not None and waits(stream.message)


def test_an_answer_that_waits_for_two_goes_on_when_both_are_answered() -> None:
    """What is answered meanwhile is told as a change of the message."""
    two = completed(Text(text="Let me."), call(), call("call_2"), stop="tools")
    watcher = watched([*ASKING[:3], [two, asks("client_tool"), asks("client_tool", "call_2")], [outcome(Text(text="1"))],
                       [outcome(Text(text="2"), id="call_2"), turn(2, "sub_a")], [settled(outcome="aborted")]])  # fmt: skip
    kinds = [kind for kind, _ in groupby(watcher.happened, type)]
    assert kinds == [Admitted, Began, Paused, Changed, Began, Settled]
    sound(watcher)


def test_progress_and_data_are_parts_that_are_replaced() -> None:
    """Their ids are what the next value of that name is recognised by."""
    watcher = watched([*ASKING[:3], [completed(Text(text="Let me."), call(), stop="tools"), called()],
                       [h.ToolProgress(call="call_1", text="half")], [h.ToolProgress(call="call_1", text="most")],
                       [h.DataShown(submission="sub_a", name="map", value=r.NULL)],
                       [outcome(Text(text="1")), settled()]])  # fmt: skip
    (stream,) = watcher.streams
    data = [chunk for chunk in stream.chunks if chunk["type"].startswith("data-")]
    assert [(chunk["type"], chunk["id"]) for chunk in data[:2]] == [("data-tool-progress", "call_1")] * 2
    assert [part["data"] for part in assembled(stream.chunks)["parts"] if part["type"].startswith("data-")] == [None, None]


def test_a_crash_is_told_until_the_answer_goes_on() -> None:
    """S1: people see that it is being taken up again, and that it has been."""
    watcher = watched([BORN, [sent()], [*begin(), said("one ")], [interrupted("crash", True), turn(2, "sub_a")],
                       [said("two", 2)], [completed(Text(text="two"), number=2), settled(result=r.NULL)]])  # fmt: skip
    told = [each.is_recovering for each in watcher.happened if isinstance(each, Recovering)]
    assert told == [True, False]
    sound(watcher)
    (stream,) = watcher.streams
    assert [part["text"] for part in assembled(stream.chunks)["parts"] if part["type"] == "text"] == ["one two"]


def test_a_rewind_ends_what_streams_and_replaces_the_rest() -> None:
    """Also for a client that was behind: how the stream ended is read from what there is now."""
    log, scene = Log(), Scene()
    for batch in (BORN, [sent()], [*begin(), said("one ")]):
        for chunk in log.add(batch):
            list(scene.feed(chunk)) if chunk["type"] != "conversation-reset" else None
    assert scene.is_streaming

    happened = list(scene.reset([], []))

    assert [type(each) for each in happened] == [Settled, Replaced]
    assert (scene.host, scene.is_streaming, scene.unsettled) == ("", False, {})


def test_only_what_people_said_and_were_answered_is_shown() -> None:
    """Signals, notes and advisories are for the model and for operators; a message sent again under its id is there once."""
    said = {"type": "text", "text": "a", "state": "done"}
    entries = [
        {"id": "msg_1", "clientId": "mine", "role": "user", "purpose": "user", "parts": [said]},
        {"id": "adv", "role": "system", "purpose": "advisory", "parts": []},
        {"id": "sig", "role": "system", "purpose": "dispatch", "parts": []},
        {"id": "msg_2", "clientId": "mine", "role": "user", "purpose": "user", "parts": []},
    ]  # fmt: skip
    assert [(each["id"], len(each["parts"])) for each in ui_messages(entries, url)] == [("mine", 1)]


# --- the handshake --------------------------------------------------------------------------------------------------


def test_every_standing_knows_every_event() -> None:
    assert set(TABLE) == set(Standing) and all(set(row) == set(Event) for row in TABLE.values())


def test_who_was_offered_a_stream_hears_nothing_before_it_listens() -> None:
    hand = Handshake()
    assert hand.on(Event.FOUND) is Do.OFFER and not hand.is_live
    assert hand.on(Event.ASKED) is Do.OFFER and not hand.is_live
    assert hand.on(Event.ACKNOWLEDGED) is Do.REPLAY and hand.is_live
    assert hand.on(Event.ACKNOWLEDGED) is Do.NOTHING, "offered twice, it answered twice"


def test_who_is_told_and_asks_is_told_from_the_beginning() -> None:
    hand = Handshake()
    assert hand.on(Event.BEGAN) is Do.TELL and hand.is_live
    assert hand.on(Event.ASKED) is Do.OFFER and not hand.is_live
    assert hand.on(Event.ENDED) is Do.END and hand.standing is Standing.AWAY


# --- by the packages themselves ---------------------------------------------------------------------------------------


@pytest.mark.system
def test_the_published_packages_fold_the_chunks_as_the_transcript_says(node: Node, tmp_path: Path) -> None:
    """S3: the AI SDK, in the tab that asked, and the agents package, in every other one."""
    streams = [stream for path in HISTORIES for stream in watched(history(path)).streams]
    more = [
        *ASKING,
        [outcome(Text(text="no"), outcome="rejected", by="a", answer="d"), turn(2, "sub_a")],
        [said("Then not.", 2)],
    ]
    streams += watched([*more, [completed(Text(text="Then not."), number=2), settled(result=r.NULL)]]).streams
    streams = [stream for stream in streams if stream.message is not None]
    cases = [told for stream in streams for told in (stream.chunks, stream.replay)]
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(cases))

    found = node.run("chat_assemble.mjs", file)

    assert len(found) == len(cases) > 40
    for number, result in enumerate(found):
        message = shown(streams[number // 2].message or {})
        assert result["sdk"]["errors"] == []
        assert plain(result["sdk"]["message"]) == message, cases[number]
        assert plain(result["agents"]) == message, cases[number]
