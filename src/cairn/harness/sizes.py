"""What fits into a row of the log, and how something larger is made to fit. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cairn.harness.records import SandboxRemembered
from cairn.runtime import records as r

#: Bytes of the records of one batch. The store takes 1 MiB; the rest is for what is added around them.
BATCH_BYTES_MAX = 1_000_000


#: Records of what a call changed: in the batch of its outcome, or not at all. And the wait of a question, in the batch of that.
_EFFECTS = (r.StateChanged, r.FilesChanged, SandboxRemembered, r.FiberWaiting)


def encoded_bytes(text: str) -> int:
    """What a text takes in a record."""
    return len(msgspec.json.encode(text))


def shortened(text: str, bytes_max: int) -> str:
    """The text, cut so that it takes at most about `bytes_max` in a record, saying so."""
    kept = text[:bytes_max]
    while kept and (size := encoded_bytes(kept)) > bytes_max:
        kept = kept[: len(kept) * bytes_max // size]
    if len(kept) == len(text):
        return text
    return f"{kept}\n[{len(text) - len(kept):,} more characters were left out]"


def batches(records: Sequence[r.Record]) -> list[Sequence[r.Record]]:
    """The records in batches that fit, in order: one, as good as always. What a call changed of the state and of the files
    stays with the record before it, its outcome; and a wait with its question."""
    if len(r.encode(records)) <= BATCH_BYTES_MAX:
        return [records]
    made: list[list[r.Record]] = []
    size = 0
    for group in _inseparable(records):
        more = len(r.encode(group))
        if not made or size + more > BATCH_BYTES_MAX:
            made.append([])
            size = 0
        made[-1] += group
        size += more
    return [*made]


def _inseparable(records: Sequence[r.Record]) -> list[list[r.Record]]:
    groups: list[list[r.Record]] = []
    for record in records:
        if groups and isinstance(record, _EFFECTS):
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups
