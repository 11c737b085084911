"""JSON of what user code gives: results, payloads, questions, arguments."""

from __future__ import annotations

from typing import Any

import msgspec

from cairn.errors import UsageError


def as_json(what: str, value: Any) -> msgspec.Raw:
    """The value as it is kept. *Raises* UsageError, which says of what (`what` begins the sentence)."""
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError) as error:
        text = f"{what} cannot be kept: {error}; it has to be JSON (dataclasses and msgspec Structs are, too)"
        raise UsageError(text) from None
