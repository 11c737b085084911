"""What can be the id of an instance. Pure.

Laws. What no log, no path and no other process could take is refused here, in words, before anything is written.
"""

from __future__ import annotations

from typing import Any

from cairn.errors import UsageError

#: Characters of an instance's id, and of the name of a sub-object: it is a path segment and a durable key.
ID_CHARACTERS_MAX = 512


def check_id(id: Any) -> str:
    """The id, if it can be one. Raises UsageError."""
    if not isinstance(id, str):
        raise UsageError(f"{id!r} cannot be an instance's id: it is no text")
    if not id.strip() or len(id) > ID_CHARACTERS_MAX or "\x00" in id:
        raise UsageError(
            f"{id[:40]!r} cannot be an instance's id: it needs 1 to {ID_CHARACTERS_MAX} characters, not all blank, no NUL"
        )
    try:
        id.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{id[:40]!r} cannot be an instance's id: it is not UTF-8 text") from None
    return id
