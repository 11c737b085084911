"""What fits into a row of the log, and how something larger is made to fit."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cairn.harness import records as h
from cairn.harness.messages import Text
from cairn.harness.sizes import BATCH_BYTES_MAX, batches, encoded_bytes, shortened
from cairn.runtime import records as r
from cairn.runtime.storage.sqlite import RECORDS_BYTES_MAX


def outcome(size: int) -> h.ToolOutcome:
    content = (Text(text="x" * size),)
    return h.ToolOutcome(submission="s", turn="t", call="c", name="n", outcome="ok", content=content, at=0)


def changed(size: int) -> r.StateChanged:
    return r.StateChanged(changes={"text": msgspec.Raw(msgspec.json.encode("x" * size))})


def test_a_batch_of_ours_fits_the_store() -> None:
    """S2: what is put around the records fits into the rest."""
    assert BATCH_BYTES_MAX < RECORDS_BYTES_MAX


def test_what_fits_is_one_batch_and_the_very_same() -> None:
    """S2: as good as always."""
    records = [outcome(10), changed(10)]

    assert batches(records) == [records] and batches(records)[0] is records


@given(st.lists(st.integers(1, 900_000).map(outcome) | st.integers(1, 300).map(changed), min_size=1, max_size=12))
def test_what_does_not_fit_goes_in_several_in_order_and_state_stays_with_its_cause(records: list[r.Record]) -> None:
    """S2, S9: nothing is lost or swapped, each fits, no two could be one, and no batch but the first begins with a change."""
    made = batches(records)

    assert [record for batch in made for record in batch] == records
    assert all(len(r.encode(batch)) <= BATCH_BYTES_MAX + 1_000 for batch in made)
    assert not any(isinstance(batch[0], r.StateChanged) for batch in made[1:])


def test_a_state_change_is_not_parted_from_the_outcome_it_is_due_to() -> None:
    """S9: also where that fills the batch before it less."""
    records = [outcome(600_000), outcome(390_000), changed(20_000), outcome(10)]

    assert [[type(record).__name__ for record in batch] for batch in batches(records)] == [
        ["ToolOutcome"],
        ["ToolOutcome", "StateChanged", "ToolOutcome"],
    ]


@given(st.text(max_size=400), st.integers(0, 300))
def test_a_text_is_cut_by_what_it_takes_in_a_record(text: str, room: int) -> None:
    """S2: never in the middle of a character; what is missing is said; what fits stays as it is."""
    short = shortened(text, room)

    if not text or encoded_bytes(text) <= room:
        assert short == text
    else:
        kept, _, note = short.rpartition("\n[")
        assert text.startswith(kept) and encoded_bytes(kept) <= max(room, 2)
        assert note == f"{len(text) - len(kept):,} more characters were left out]"
