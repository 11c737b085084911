"""`cairn log KIND/ID`: an instance's log, one record per line.

Records are shown as stored, as JSON, without knowing any vocabulary: a viewer must be able to show a log whose
application is not installed here, or is older or newer. Secrets are replaced, long values shortened (`--full` shows
them whole); the store keeps what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from cairn.errors import StoreCorrupt, UsageError
from cairn.framework.cli.output import Exit, json_line, json_text, line, moment, redacted, shortened
from cairn.framework.cli.store import existing, opened
from cairn.runtime.storage.store import Address, Row

#: Fields a timeline shows in its own columns.
SHOWN_APART = frozenset({"type", "at"})

#: Columns for a record's name; the longest of the runtime's is `fiber.step.completed`.
NAME_COLUMNS = 22


def address(text: str) -> Address:
    """`KIND/ID`. An id may contain slashes, a kind may not. Raises UsageError."""
    kind, slash, id = text.partition("/")
    if not (kind and slash and id):
        raise UsageError(f"'{text}' names no instance: write KIND/ID, as `cairn ls` shows it")
    return Address(kind, id)


def records(row: Row, where: str) -> list[dict[str, Any]]:
    """The records of a row, as plain JSON. Raises StoreCorrupt when they are none (S14)."""
    import msgspec

    try:
        return msgspec.json.decode(row.batch.records, type=list[dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"{where}, ordinal {row.ordinal}: not a batch of records: {error}") from None


def timeline(row: Row, where: str, *, full: bool) -> Iterator[str]:
    """The lines of one row: `ordinal  epoch  time  record  field=value …`; the ordinal stands once per batch."""
    for index, record in enumerate(records(row, where)):
        at = record.get("at")
        time = moment(at) if isinstance(at, int | float) else ""
        shown = redacted({key: value for key, value in record.items() if key not in SHOWN_APART})
        fields = " ".join(f"{key}={_value(value, full)}" for key, value in shown.items())
        ordinal = str(row.ordinal) if index == 0 else "·"
        yield f"{ordinal:>6}  e{row.epoch:<3} {time:<24}  {record.get('type', '?'):<{NAME_COLUMNS}} {fields}".rstrip()


def _value(value: Any, full: bool) -> str:
    text = value if isinstance(value, str) and value and not any(c in value for c in ' "\n') else json_text(value)
    return text if full else shortened(text)


def objects(row: Row, where: str) -> Iterator[dict[str, Any]]:
    """The same for programs: whole values, secrets replaced."""
    for record in records(row, where):
        yield {"ordinal": row.ordinal, "prev": row.prev, "epoch": row.epoch, "record": redacted(record)}


def run(store: str | None, text: str, *, after: int, follow: bool, full: bool, json: bool) -> int:
    """`cairn log`: everything after an ordinal; with `follow`, until Ctrl-C. Raises NotFound, StoreCorrupt."""
    path = existing(store)
    target = address(text)

    async def work() -> None:
        from cairn.runtime import log

        async with opened(path) as it:
            instance = await log.locate(it, target)
            rows = (log.tail if follow else log.read)(it, instance.n, after)
            async for row in rows:
                _show(row, str(target), full=full, json=json, flush=follow)

    asyncio.run(work())
    return Exit.OK


def _show(row: Row, where: str, *, full: bool, json: bool, flush: bool) -> None:
    if json:
        for each in objects(row, where):
            json_line(each)
    else:
        for each_line in timeline(row, where, full=full):
            line(each_line)
    if flush:
        import sys

        sys.stdout.flush()
