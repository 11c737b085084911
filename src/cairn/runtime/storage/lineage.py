"""Whose rows a log consists of. A fork shares its source's rows up to its offset, and that source may be a fork itself.

Functions of a connection, without state. A lineage is a few segments, oldest first; each begins right after the row at which
the one before it ends, so the `prev` chain runs through all of them unbroken (S2).
"""

from __future__ import annotations

from typing import NamedTuple

from cairn.errors import NotFound
from cairn.runtime.storage.connection import Connection
from cairn.runtime.storage.queries import query


class Segment(NamedTuple):
    """The rows of instance `n` with `above` < ordinal <= `upto`."""

    n: int
    above: int
    upto: int


class Place(NamedTuple):
    """A row: whose it is, and its ordinal."""

    n: int
    ordinal: int


def lineage(connection: Connection, n: int) -> list[Segment]:
    """The segments of a log, oldest first; the last is its own. Empty when there is no such instance."""
    return [Segment(*row) for row in connection.execute(query("find_lineage"), (n,))]


def boundary(connection: Connection, n: int, at: int) -> Place:
    """The last row at or before `at`, or the merged row that covers it. Raises NotFound."""
    segments = lineage(connection, n)
    if not segments:
        raise NotFound(f"there is no instance {n}; it may have been deleted")
    for segment in segments:
        if segment.above < at <= segment.upto:
            return _boundary(connection, segment, at)
    if at < 0:
        raise NotFound(f"instance {n} has no batch at or before {at}; its first one is 0")
    return Place(n, segments[-1].upto)  # beyond the head


def _boundary(connection: Connection, segment: Segment, at: int) -> Place:
    [(ordinal, merged_from)] = connection.execute(query("find_row"), (segment.n, at)) or [(at + 1, None)]
    if ordinal != at and (merged_from is None or merged_from > at):
        [(ordinal,)] = connection.execute(query("find_row_before"), (segment.n, at))
        if ordinal is None:  # between the segments: what a boot of the machine has skipped
            ordinal = segment.above
    return Place(segment.n, ordinal)
