"""Is this history allowed? Pure: operations and the logs they left, in; violations of S1 to S7, out.

The method. A batch is known by its bytes. Every row must be explained by exactly one operation: an acknowledged one by its
ordinal, the others by one that ended unknown. What is left on either side is a violation: an acknowledged write without
its row is a loss (S1), a row without an operation is a repeat, an invention or a refused write that happened (S4, S5).
Real time is checked too: who was answered before another was asked comes first in the log, and nobody sees less than was
acknowledged before they asked (S3). Nothing here knows the order in which the processes *meant* to do things.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.runtime.records import REQUESTS
from cairn.runtime.storage.store import Address, Durability, Row
from cairn.testing.history import History, Log, Operation, made_by

#: Tags of the records anybody may append: legal also after what they name has settled.
_REQUEST_TAGS = frozenset(str(type.__struct_config__.tag) for type in REQUESTS)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: its id, the instance, and what was seen."""

    promise: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise} {self.where}: {self.what}"


def check(history: History, logs: Sequence[Log], *, power_cut: bool = False, others_wrote: bool = False) -> list[Violation]:
    """Everything the history and the final logs show to be broken. Empty is good.

    `power_cut`: the machine lost power, so acknowledged deltas at the end of a log may be gone; facts may not.
    `others_wrote`: processes without a history wrote too, so a row that nobody here asked for is no finding.
    """
    found = [violation for log in logs for violation in check_log(log)]
    by_address = {log.instance.address: log for log in logs}
    by_n = {log.instance.n: log for log in logs}
    grouped: dict[int, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        place = operation.arguments[0]
        log = by_address.get(place) if isinstance(place, Address) else by_n.get(_number(operation))
        if log is not None:
            grouped[log.instance.n].append(operation)
        elif operation.outcome == "ok" and operation.answer is not None and operation.name != "release":
            found.append(Violation("S1", str(place), f"{operation} was acknowledged, and the instance is not there"))
    for n, operations in grouped.items():
        found += _check_instance(by_n[n], operations, power_cut, others_wrote)
    return found


def check_log(log: Log) -> Iterator[Violation]:
    """What one log shows by itself: links (S2), order (S3), epochs (S4), admissions (S6), settlements (S7)."""
    where = str(log.instance.address)
    before: Row | None = None
    for row in log.rows:
        if before is not None:
            if row.prev != before.ordinal:
                yield Violation("S2", where, f"ordinal {row.ordinal} follows {before.ordinal} and names {row.prev}")
            if row.ordinal <= before.ordinal:
                yield Violation("S3", where, f"ordinal {row.ordinal} comes after {before.ordinal}")
            if row.epoch < before.epoch:
                yield Violation("S4", where, f"ordinal {row.ordinal} is of epoch {row.epoch}, after {before.epoch}")
        before = row
    if before is not None and before.ordinal != log.instance.head:
        yield Violation("S2", where, f"the head is {log.instance.head} and the last batch {before.ordinal}")
    yield from _check_records(where, log.rows)


def _check_records(where: str, rows: Iterable[Row]) -> Iterator[Violation]:
    settled: dict[str, int] = {}
    admitted: dict[str, str] = {}
    for row in rows:
        try:
            records: list[dict[str, Any]] = msgspec.json.decode(row.batch.records, type=list[dict[str, Any]])
        except msgspec.MsgspecError as error:
            yield Violation("S14", where, f"ordinal {row.ordinal} is not a batch of records: {error}")
            continue
        for record in records:
            tag, fiber, key = record.get("type"), record.get("fiber"), record.get("key")
            if tag == "instance.forked":
                admitted.clear()  # the source's keys are not the fork's
            if tag == "fiber.accepted" and key is not None and admitted.setdefault(key, fiber or "") != fiber:
                yield Violation("S6", where, f"key {key!r} admitted both {admitted[key]} and {fiber}")
            if fiber is None or tag in _REQUEST_TAGS:
                continue
            if fiber in settled:
                yield Violation("S7", where, f"{tag} at {row.ordinal}, after {fiber} settled at {settled[fiber]}")
            if tag == "fiber.settled":
                settled[fiber] = row.ordinal


def _check_instance(log: Log, operations: list[Operation], power_cut: bool, others_wrote: bool) -> Iterator[Violation]:
    yield from _check_writes(log, operations, power_cut, others_wrote)
    yield from _check_repeats(log, operations)
    yield from _check_reads(log, operations)
    yield from _check_real_time(log, operations)


def _check_writes(log: Log, operations: list[Operation], power_cut: bool, others_wrote: bool) -> Iterator[Violation]:
    """Every row is explained by one operation, every acknowledged operation by one row."""
    where = str(log.instance.address)
    shared = log.instance.fork_offset if log.instance.fork_offset is not None else -2
    # What a fork shares was asked for elsewhere, and its first own row by whoever forked it.
    rows = {row.ordinal: row for row in log.rows if row.prev > shared}
    explained: dict[int, Operation] = {}
    unknown: Counter[bytes] = Counter()
    refused: set[bytes] = set()
    asked: set[bytes] = set()
    for operation in operations:
        for batch, ordinal in _written(operation):
            asked.add(batch)
            if ordinal is None:
                unknown[batch] += operation.outcome != "fail"
                refused.update((batch,) if operation.outcome == "fail" else ())
                continue
            row = rows.get(ordinal)
            if row is None:
                if not _may_be_missing(operation, ordinal, log.rows, power_cut):
                    yield Violation("S1", where, f"{operation} was acknowledged at {ordinal}, which is missing")
                continue
            if row.batch.records != batch and not (row.merged_from is not None and _is_delta(operation)):
                yield Violation("S3", where, f"{operation} was acknowledged at {ordinal}, which holds something else")
            if ordinal in explained:
                yield Violation("S5", where, f"{explained[ordinal]} and {operation} were both given {ordinal}")
            if operation.name == "append" and operation.arguments[0].epoch not in (None, row.epoch):
                yield Violation("S4", where, f"{operation} of epoch {operation.arguments[0].epoch} is in {row.epoch}")
            explained[ordinal] = operation
    for ordinal, row in rows.items():
        if ordinal in explained or row.merged_from is not None or (others_wrote and row.batch.records not in asked):
            continue
        unknown[row.batch.records] -= 1
        if unknown[row.batch.records] < 0:
            why = "was refused" if row.batch.records in refused else "was not asked for, or was asked for once"
            yield Violation("S4" if row.batch.records in refused else "S5", where, f"ordinal {ordinal} {why}")


def _written(operation: Operation) -> Iterator[tuple[bytes, int | None]]:
    """The batches an operation may have added, each with its ordinal where that is known."""
    batch, answer = made_by(operation), operation.answer
    if operation.name not in ("admit", "append", "claim", "release"):
        return
    if operation.outcome != "ok" or operation.name == "release":
        # A release is silent when it was fenced: like an unknown one, it may have happened.
        if answer is False:
            return
        if operation.name == "admit":
            yield operation.arguments[1].batch.records, None
        if batch is not None:
            yield batch.records, None
    elif operation.name == "claim":
        if answer is not None and batch is not None:
            yield batch.records, answer.ordinal
    elif batch is not None and not answer.duplicate:
        if operation.name == "admit" and answer.created:
            yield operation.arguments[1].batch.records, 0
        yield batch.records, answer.ordinal


def _may_be_missing(operation: Operation, ordinal: int, rows: list[Row], power_cut: bool) -> bool:
    is_merged = any(row.merged_from is not None and row.merged_from <= ordinal <= row.ordinal for row in rows)
    is_at_the_end = not any(row.ordinal > ordinal for row in rows)
    return _is_delta(operation) and (is_merged or (power_cut and is_at_the_end))


def _is_delta(operation: Operation) -> bool:
    return operation.name == "append" and operation.arguments[0].durability is Durability.DELTA


def _check_repeats(log: Log, operations: list[Operation]) -> Iterator[Violation]:
    """One identity, one answer: a producer's write (S5), an admission key (S6), an epoch (S4)."""
    where = str(log.instance.address)
    present = {row.ordinal for row in log.rows}
    answers: dict[tuple[str, ...], tuple[Any, Operation]] = {}
    for operation in operations:
        if operation.outcome != "ok":
            continue
        if getattr(operation.answer, "duplicate", False) and operation.answer.ordinal not in present:
            yield Violation("S1", where, f"{operation} was said to repeat {operation.answer.ordinal}, which is missing")
        for promise, identity, answer in _identities(operation):
            first, by = answers.setdefault((promise, *identity), (answer, operation))
            if first != answer:
                what = f"{' '.join(identity)} was answered {first} to {by} and {answer} to {operation}"
                yield Violation(promise, where, what)


def _identities(operation: Operation) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    answer = operation.answer
    if operation.name == "append":
        producer = operation.arguments[0].producer
        if producer is not None:
            yield "S5", ("producer", producer.id, str(producer.epoch), str(producer.seq)), answer.ordinal
    if operation.name in ("append", "admit"):
        admission = operation.arguments[0 if operation.name == "append" else 2].admission
        if admission is not None:
            yield "S6", ("key", admission.key), answer.fiber
            yield "S6", ("body of key", admission.key), admission.digest
    if operation.name == "claim" and answer is not None:
        yield "S4", ("epoch", str(operation.arguments[2] + 1)), (operation.arguments[1], answer.ordinal)


def _check_reads(log: Log, operations: list[Operation]) -> Iterator[Violation]:
    """What any reader saw is what is there, in order, without a hole (S2, S3)."""
    where = str(log.instance.address)
    final = {row.ordinal: row for row in log.rows}
    for operation in operations:
        if operation.name != "read" or operation.outcome != "ok":
            continue
        after = operation.arguments[1]
        for row in operation.answer:
            if row.ordinal <= after:
                yield Violation("S3", where, f"{operation} was given {row.ordinal} after {after}")
            now = final.get(row.ordinal)
            if now is None and not any((other.merged_from or row.ordinal + 1) <= row.ordinal for other in log.rows):
                yield Violation("S3", where, f"{operation} saw {row.ordinal}, which is gone")
            elif now is not None and now.merged_from is None and now != row:
                yield Violation("S3", where, f"{operation} saw another batch at {row.ordinal}")
            after = row.ordinal
        for before, row in zip(operation.answer, operation.answer[1:], strict=False):
            if row.prev != before.ordinal:
                yield Violation("S2", where, f"{operation} was given {row.ordinal} after {before.ordinal}")


def _check_real_time(log: Log, operations: list[Operation]) -> Iterator[Violation]:
    """An answer shows at least everything that was acknowledged before it was asked for (S3)."""
    where = str(log.instance.address)
    answered = sorted((o for o in operations if o.answered and o.outcome == "ok"), key=lambda o: o.answered or 0)
    known, position = -1, 0
    for operation in sorted((o for o in operations if o.outcome == "ok"), key=lambda o: o.invoked):
        while position < len(answered) and (answered[position].answered or 0) < operation.invoked:
            known = max(known, _shown(answered[position]) or -1)
            position += 1
        shown = _shown(operation)
        if shown is not None and shown <= known and operation.name in ("admit", "append", "claim"):
            yield Violation("S3", where, f"{operation} was given {shown} when {known} was already taken")
        elif shown is not None and shown < known:
            yield Violation("S3", where, f"{operation} was shown the head {shown} when {known} was acknowledged")


def _shown(operation: Operation) -> int | None:
    """The position an answer shows: its new ordinal, or the head it saw. None when it shows none."""
    name, answer = operation.name, operation.answer
    if name in ("admit", "append", "claim"):
        return None if answer is None or getattr(answer, "duplicate", False) else int(answer.ordinal)
    if name in ("find", "instance"):
        return None if answer is None else int(answer.head)
    if name == "changed":
        return int(answer)
    # A page that is not empty may have been cut by its limit; an empty one says that there is nothing after.
    return int(operation.arguments[1]) if name == "read" and not answer else None


def _number(operation: Operation) -> int:
    place = operation.arguments[0]
    return int(place if isinstance(place, int) else place.n)
