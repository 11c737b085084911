"""Offsets as text: `0000000000000000_<16 digits>`, `-1` before everything. Pure."""

from __future__ import annotations

import re

from cairn.framework.http import problems
from cairn.runtime.log import BEGINNING

#: More digits are no ordinal, and must not become a number of a million digits.
_FORM = re.compile(r"[0-9]{1,32}_([0-9]{1,32})", re.ASCII)


def text(ordinal: int) -> str:
    """An ordinal as clients see it."""
    return "-1" if ordinal == BEGINNING else f"{0:016}_{ordinal:016}"


def ordinal(given: str) -> int:
    """The ordinal a client means. Raises the 400 for anything that is none; `now` is none."""
    if given == "-1":
        return BEGINNING
    found = _FORM.fullmatch(given)
    if found is None:
        raise problems.invalid_request(f"offset '{given[:64]}' is none: it is -1, or what this server gave as an offset.")
    return int(found.group(1))
