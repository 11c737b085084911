"""What the names in a URL stand for: an object, or an object of an object. Pure.

    /agents/{kind}/{id}[/rest]                                   the object
    /agents/{kind}/{id}/sub/{child kind}/{name}[/sub/…][/rest]   one of its sub-objects

Laws. Segments come decoded, one by one, so that a name may hold anything. Whoever names a sub-object goes through its parent:
the id it has in the store is no name in a URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cairn.framework.classes import RESERVED
from cairn.framework.http import problems
from cairn.runtime.naming import ID_CHARACTERS_MAX


@dataclass(frozen=True, slots=True)
class Hop:
    """One step down: a child of the object before it."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Below:
    """What follows the id of the first object."""

    hops: tuple[Hop, ...] = ()
    rest: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """What the object that is meant is asked for."""
        return "/" + "/".join(self.rest)


def below(segments: Sequence[str]) -> Below:
    """The sub-objects that are named, outermost first, and what is left. Raises Problem 404 for one that is half named."""
    hops: list[Hop] = []
    rest = tuple(segments)
    while rest[:1] == (RESERVED,):
        if len(rest) < 3 or not rest[1] or not rest[2]:
            raise problems.route_not_found("/".join(("…", *rest)))
        hops.append(Hop(rest[1], rest[2]))
        rest = rest[3:]
    return Below(tuple(hops), rest)


def check_name(name: str) -> str:
    """The name, if an object can have it. Raises Problem 400."""
    if not name or "\0" in name or len(name) > ID_CHARACTERS_MAX:
        raise problems.invalid_request(f"A name has 1 to {ID_CHARACTERS_MAX} characters and holds no NUL.")
    return name
