"""What every record is. The vocabularies are in `records.py`, `object_records.py`, and in the layers above."""

from __future__ import annotations

import msgspec

NULL = msgspec.Raw(b"null")


class Record(msgspec.Struct, frozen=True, tag_field="type", kw_only=True, omit_defaults=True):
    """One immutable fact. Subclasses set `tag` to their durable name."""
