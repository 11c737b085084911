"""T18: histories that were written once fold today to what they folded to then. A new record needs a new history."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.harness import golden, golden_scenes

from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.events import EventStream
from cairn.runtime import records as r

HISTORIES = sorted(golden.FOLDER.glob("*.json"))
NAMES = [path.stem for path in HISTORIES]


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


@pytest.mark.parametrize("name", NAMES)
def test_a_history_folds_to_its_stored_result(name: str) -> None:
    """S15: the conversation, the context, the head, the state and every fiber's outcome."""
    history = golden.load(golden.FOLDER / f"{name}.json")

    folded = golden.fold(history).folded()

    assert plain(folded) == plain(history.folded)


@pytest.mark.parametrize("name", NAMES)
def test_a_successor_at_each_batch_decides_what_was_decided_then(name: str) -> None:
    """S15, S9: also where a process of an older version died."""
    history = golden.load(golden.FOLDER / f"{name}.json")

    folding = golden.Folding(history.hears, history.stops)
    for batch in history.batches:
        folding.apply(batch.ordinal, batch.decoded)
        assert folding.next() == batch.next, batch.ordinal


@pytest.mark.parametrize("name", NAMES)
def test_a_history_reads_back_as_it_was_written(name: str) -> None:
    """S15, S14: what today's code writes of a record is what stands there: no field got another meaning or default."""
    history = golden.load(golden.FOLDER / f"{name}.json")

    for batch in history.batches:
        assert plain(batch.decoded) == plain(batch.records)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_anywhere_in_a_history_changes_nothing(name: str) -> None:
    """S3, S15: folded from the checkpoint on, as from the beginning."""
    history = golden.load(golden.FOLDER / f"{name}.json")

    for cut in range(len(history.batches)):
        folding = golden.Folding(history.hears, history.stops)
        for place, batch in enumerate(history.batches):
            folding.apply(batch.ordinal, batch.decoded)
            if place == cut:
                folding.conversation = Conversation.load(folding.conversation.dump())
        assert plain(folding.folded()) == plain(history.folded)


def test_every_record_of_the_vocabulary_appears_in_a_history() -> None:
    """T18: adding a record type adds a history; `golden_scenes.py` says how."""
    seen = {type(record) for path in HISTORIES for batch in golden.load(path).batches for record in batch.decoded}

    assert seen == {*h.HARNESS, *r.RUNTIME}


def test_every_scene_has_its_recording() -> None:
    """T18: `python -m tests.harness.golden_scenes` records the missing ones."""
    assert set(NAMES) == {*golden_scenes.SCENES, *golden_scenes.REAL, *golden_scenes.BY_HAND}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in golden_scenes.OF_OBJECTS])
def test_a_history_can_be_told(name: str) -> None:
    """S15: the events of an old log: each settlement is told, and what was begun is ended."""
    history = golden.load(golden.FOLDER / f"{name}.json")
    stream = EventStream()

    told = [event for batch in history.batches for event in stream.feed(batch.decoded, batch.ordinal)]

    names = [str(event.__struct_config__.tag) for event in told]
    assert names.count("turn.started") == names.count("turn.completed")
    assert names.count("submission.settled") == names.count("submission.accepted")
