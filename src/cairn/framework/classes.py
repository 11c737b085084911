"""The classes of durable objects an App has, and under which names they are found. Pure.

Laws. A kind is a durable name: kebab-case, said once, and no agent's. What the published client makes of a class name finds the
class too, when nothing else has that name.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

from cairn.errors import UsageError
from cairn.harness.definition import NAME
from cairn.runtime.object import DurableObject, ObjectApplication

#: The segment that leads to sub-objects.
RESERVED = "sub"


def by_kind(classes: Sequence[type[DurableObject[Any]]], agents: Container[str]) -> dict[str, ObjectApplication]:
    """An application for each class. Raises UsageError for kinds that are none, or taken."""
    found: dict[str, ObjectApplication] = {}
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, DurableObject)):
            raise UsageError(f"objects: {cls!r} is no class of durable objects; write `class Room(DurableObject[RoomState])`")
        made = ObjectApplication(cls)
        kind = made.kind
        if not NAME.fullmatch(kind) or kind == RESERVED:
            raise UsageError(
                f"{cls.__name__}: '{kind}' cannot be a kind; set one in kebab-case: `kind = '{kebab(cls.__name__)}'`"
            )
        if kind in agents:
            raise UsageError(f"{cls.__name__} and an agent are both '{kind}'; set another: `kind = '{kind}-object'`")
        if kind in found and found[kind].cls is not cls:
            raise UsageError(f"two classes of objects are '{kind}': {found[kind].cls.__qualname__} and {cls.__qualname__}")
        found.setdefault(kind, made)
    return found


def kind_named(name: str, classes: Mapping[str, ObjectApplication]) -> str | None:
    """The kind that is meant by a name in a URL."""
    if name in classes:
        return name
    return next((kind for kind, each in classes.items() if kebab(each.cls.__name__) == name), None)


def kebab(name: str) -> str:
    """What the published client makes of a class name: `ChatRoom` is `chat-room`, `LOUD_ROOM` is `loud-room`."""
    if name == name.upper() and name != name.lower():
        return name.lower().replace("_", "-")
    found = re.sub(r"[A-Z]", lambda letter: f"-{letter[0].lower()}", name)
    return found.removeprefix("-").replace("_", "-").removesuffix("-")
