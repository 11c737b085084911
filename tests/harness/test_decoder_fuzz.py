"""T19: the record decoder and the folds meet bytes and records of all kinds: they read them or refuse them, and never
break in another way. 2,000 examples each; `CAIRN_TEST_FUZZ=1000000` for a night."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.harness import golden

from cairn import Agent
from cairn.errors import StoreCorrupt
from cairn.harness import records as h
from cairn.harness.application import AgentApplication
from cairn.harness.conversation import Conversation
from cairn.harness.events import EventStream
from cairn.harness.loop import Services
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.instance import Fold
from cairn.runtime.state import RuntimeState
from cairn.runtime.storage.store import Address, Batch, Row

EXAMPLES = int(os.environ.get("CAIRN_TEST_FUZZ", "2000"))
fuzzed = settings(max_examples=EXAMPLES)

TYPES = (*r.RUNTIME, *h.HARNESS)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def read(data: bytes) -> list[r.Record] | None:
    """The records of a stored batch; None when it is refused, by the one error that says so (S14)."""
    row = Row(ordinal=1, prev=0, epoch=1, batch=Batch(data, b""))
    try:
        return list(log.decode(golden.decoder, row, "toy/c"))
    except StoreCorrupt as error:
        assert "toy/c, ordinal 1" in str(error)
        return None


@cache
def written() -> list[bytes]:
    """Every batch of the golden histories."""
    histories = [golden.load(path) for path in sorted(golden.FOLDER.glob("*.json"))]
    return [r.encode(batch.decoded) for history in histories for batch in history.batches]


@pytest.mark.slow
@fuzzed
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """S14: nothing else."""
    read(data)


@pytest.mark.slow
@fuzzed
@given(st.data())
def test_a_damaged_batch_is_read_or_refused(data: st.DataObject) -> None:
    """S14: a real batch with some of its bytes changed, cut off or doubled; what is read can be written again."""
    batch = bytearray(data.draw(st.sampled_from(written())))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(batch)))
        how = data.draw(st.sampled_from(["change", "cut", "insert", "double"]))
        if how == "change" and place < len(batch):
            batch[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del batch[place : place + data.draw(st.integers(1, 40))]
        elif how == "insert":
            batch[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            batch[place:place] = batch[place : place + 20]

    records = read(bytes(batch))
    if records is not None:
        assert read(r.encode(records)) is not None


@pytest.mark.slow
@fuzzed
@given(st.data())
def test_a_batch_with_a_field_of_another_kind_is_refused_or_means_the_same(data: st.DataObject) -> None:
    """S14, S15: fields are replaced, removed and added. A field nobody knows is skipped; everything that is read is kept."""
    records: list[dict[str, Any]] = msgspec.json.decode(data.draw(st.sampled_from(written())))
    record = data.draw(st.sampled_from(records))
    how = data.draw(st.sampled_from(["replace", "remove", "add", "tag"]))
    names = sorted(record)
    if how == "replace":
        record[data.draw(st.sampled_from(names))] = data.draw(json_values)
    elif how == "remove":
        del record[data.draw(st.sampled_from(names))]
    elif how == "add":
        record["from_a_newer_version"] = data.draw(json_values)
    else:
        record["type"] = data.draw(st.text(max_size=12))

    found = read(msgspec.json.encode(records))
    if how == "tag" and record["type"] not in {kind.__struct_config__.tag for kind in TYPES}:
        assert found is None, "an unknown kind of record is never skipped"
    if how == "add":
        assert found is not None


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind.__struct_config__.tag))
def test_every_kind_of_record_reads_back(kind: type[r.Record]) -> None:
    """S15: with only what it must have, and with all it may have, from the histories."""
    found = [record for batch in written() for record in golden.decoder.decode(batch) if type(record) is kind]

    assert found
    for record in found:
        (again,) = golden.decoder.decode(r.encode([record]))
        assert r.encode([again]) == r.encode([record])


@pytest.mark.slow
@settings(max_examples=EXAMPLES // 4)
@given(st.data())
def test_a_log_in_any_order_folds_or_is_refused(data: st.DataObject) -> None:
    """S14: real records that were dropped, doubled or swapped: the folds take them or say StoreCorrupt, and a fold that was
    taken can be saved, restored and told."""
    history = golden.load(data.draw(st.sampled_from(sorted(golden.FOLDER.glob("*.json")))))
    records = [record for batch in history.batches for record in batch.decoded]
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(records) - 1))
        how = data.draw(st.sampled_from(["drop", "double", "swap", "take"]))
        if how == "drop" and len(records) > 1:
            del records[place]
        elif how == "double":
            records.insert(place, records[place])
        elif how == "swap":
            other = data.draw(st.integers(0, len(records) - 1))
            records[place], records[other] = records[other], records[place]
        else:
            records = records[:place] or records

    runtime, conversation, stream = RuntimeState(), Conversation(), EventStream()
    try:
        for ordinal, record in enumerate(records):
            runtime.apply(record, ordinal)
            conversation.apply(record, ordinal)
    except StoreCorrupt:
        return
    list(stream.feed(records, 0))
    loaded = Conversation.load(conversation.dump())
    assert msgspec.json.encode(loaded.history()) == msgspec.json.encode(conversation.history())
    assert msgspec.json.encode(list(loaded.context())) == msgspec.json.encode(list(conversation.context()))


@pytest.mark.slow
@fuzzed
@given(st.binary(max_size=120))
def test_a_damaged_checkpoint_is_passed_over(data: bytes) -> None:
    """S14, S15: a checkpoint is a cache; whatever stands in it, the log is folded instead."""
    fold = Fold(_application(), 1, Address("toy", "c"))

    fold._restore(7, data)

    assert fold.head == log.BEGINNING


@pytest.mark.slow
@settings(max_examples=EXAMPLES // 4)
@given(st.data())
def test_a_checkpoint_with_some_bytes_changed_is_passed_over_or_read(data: st.DataObject) -> None:
    """S14: the store checks its checksum first; this is what happens behind it."""
    fold = Fold(_application(), 1, Address("toy", "c"))
    for ordinal, batch in enumerate(written()[:12]):
        fold.apply(golden.decoder.decode(batch), ordinal, len(batch))
    saved = bytearray(fold.checkpoint())
    for _ in range(data.draw(st.integers(1, 3))):
        saved[data.draw(st.integers(0, len(saved) - 1))] = data.draw(st.integers(0, 255))

    Fold(_application(), 1, Address("toy", "c"))._restore(7, bytes(saved))


def _application() -> AgentApplication:
    return AgentApplication(Agent("toy"), Services(resolve=lambda model: model), "")  # type: ignore[arg-type, return-value]
