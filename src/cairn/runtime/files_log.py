"""What the rows of a log say of files, read without knowing anything else that may stand in them.

Laws. Pure. A viewer shows the files of an instance whose application is not installed here: records of other vocabularies are
passed over, those of files are read strictly (S14).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cairn.errors import StoreCorrupt
from cairn.runtime import records as r
from cairn.runtime.files_tree import Files

if TYPE_CHECKING:
    from cairn.runtime.storage.values import Row

_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_record = msgspec.json.Decoder(r.FilesChanged | r.FilesStaged | r.InstanceForked).decode

#: How the records begin that are wanted: a tag is the first field of what `records.encode` writes.
_TAGS = tuple(f'{{"type":"{tag}"'.encode() for tag in ("files.changed", "files.staged", "instance.forked"))


class _Part(msgspec.Struct):
    """The part of a checkpoint that is about files."""

    files: msgspec.Raw = r.NULL


_part = msgspec.json.Decoder(_Part).decode


def records_of(row: Row) -> list[r.FilesChanged | r.FilesStaged | r.InstanceForked]:
    """Raises StoreCorrupt."""
    if not any(tag in row.batch.records for tag in _TAGS):
        return []
    try:
        return [_record(raw) for raw in _raw(row.batch.records) if bytes(raw).startswith(_TAGS)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreCorrupt(f"ordinal {row.ordinal}: its records of files cannot be read: {error} (S14)") from None


def restored(checkpoint: bytes) -> Files | None:
    """The files in a checkpoint; None when it is one that this code cannot read, and the log is to be folded instead."""
    try:
        return Files.load(_part(checkpoint).files)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def inline(row: Row) -> dict[int, bytes]:
    """The contents that the row itself holds, by node."""
    found: dict[int, bytes] = {}
    for record in records_of(row):
        for change in getattr(record, "changes", ()):
            if change.text is not None:
                found[change.id] = change.text.encode()
            elif change.data is not None:
                found[change.id] = change.data
    return found
