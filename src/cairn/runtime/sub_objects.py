"""Objects that belong to another one: how they are addressed, and what their parent's fold knows of them. Pure.

Laws. A sub-object is an object like any other: its own log, its own alarms, any worker. Its id says whose it is:
`<parent kind>/<parent id>/<name>`, the name percent-encoded, so that it can be read back (kinds have no `/`). It is in its
parent's log before it exists, and is not taken off before it is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from cairn.runtime import records as r
from cairn.runtime.naming import check_id

if TYPE_CHECKING:
    from cairn.runtime.state import RuntimeState


class SubObject(msgspec.Struct, frozen=True, omit_defaults=True):
    kind: str
    name: str
    leaving: bool = False
    """It is to be destroyed, or is already."""


@dataclass(frozen=True, slots=True)
class Parent:
    """What a sub-object's id says."""

    kind: str
    id: str
    name: str


def sub_id(parent_kind: str, parent_id: str, name: str) -> str:
    """The id of a sub-object, under its own kind."""
    return f"{parent_kind}/{parent_id}/{quote(name, safe='')}"


def parent_of(id: str) -> Parent | None:
    """Whose sub-object has this id; None for one that has not the form."""
    kind, first, rest = id.partition("/")
    parent, second, name = rest.rpartition("/")
    if not (first and second and kind and parent and name):
        return None
    return Parent(kind, parent, unquote(name))


def checked_id(id: str) -> str:
    """The id, if an object can have it. *Raises* UsageError. A sub-object's holds names that were looked at one by one."""
    return id if isinstance(id, str) and parent_of(id) is not None and "\0" not in id else check_id(id)


def sub_key(kind: str, name: str) -> str:
    """Under which the parent's fold has it."""
    return f"{kind}/{name}"


def _added(state: RuntimeState, record: r.SubObjectAdded, ordinal: int) -> None:
    state.subs[sub_key(record.kind, record.name)] = SubObject(record.kind, record.name)


def _removed(state: RuntimeState, record: r.SubObjectRemoved, ordinal: int) -> None:
    key = sub_key(record.kind, record.name)
    if record.gone:
        state.subs.pop(key, None)
    else:
        state.subs[key] = SubObject(record.kind, record.name, leaving=True)


HANDLERS: dict[type[r.Record], Callable[[Any, Any, int], None]] = {r.SubObjectAdded: _added, r.SubObjectRemoved: _removed}
