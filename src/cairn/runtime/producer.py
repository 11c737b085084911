"""The rule that admits a producer's append to the log, as a table (S5).

Laws. Pure: no clock, no ids, no I/O, no `async`. A *producer* is somebody who may have to repeat an append without knowing
whether the first one arrived. It names each write (producer, epoch, seq): `epoch` is its reign, chosen by it and raised
when it starts anew; `seq` counts its writes in that reign from 0. The log remembers every write it took, so a repeat is
answered with the first one's ordinal for as long as the instance lives. These epochs are the producer's own and have
nothing to do with the epoch that fences an instance's owner.

    the write's epoch, against the    the write's seq, against the     verdict
    epoch the log has                 last seq of that epoch
    --------------------------------  -------------------------------  ---------------------------------------------
    lower                             any                              FENCED     a newer reign began: the writer stops
    higher, or no epoch yet           not 0                            BAD_START  a reign begins at 0
    higher, or no epoch yet           0                                ACCEPT     the log's epoch becomes this one
    equal                             at most it, same digest          DUPLICATE  acknowledged with the first ordinal
    equal                             at most it, other digest         CONFLICT   one name, two contents
    equal                             one above it                     ACCEPT
    equal                             further above                    GAP        a write before it never arrived
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

#: 128 bits: a collision between two contents under one (producer, epoch, seq) is not a thing that happens by accident.
DIGEST_BYTES = 16


class Verdict(Enum):
    """What becomes of a producer's append."""

    ACCEPT = "accept"
    DUPLICATE = "duplicate"
    FENCED = "fenced"
    BAD_START = "bad start"
    CONFLICT = "conflict"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the log has of one producer: its newest reign and the last write of it."""

    epoch: int
    seq: int


def digest(records: bytes) -> bytes:
    """Two writes with equal digests are the same write."""
    return blake2b(records, digest_size=DIGEST_BYTES).digest()


def judge(standing: Standing | None, epoch: int, seq: int, content: bytes, known: bytes | None) -> Verdict:
    """The row of the table that applies. `known` is the digest the log holds under exactly (epoch, seq), if any."""
    if standing is None or epoch > standing.epoch:
        return Verdict.ACCEPT if seq == 0 else Verdict.BAD_START
    if epoch < standing.epoch:
        return Verdict.FENCED
    if seq <= standing.seq:
        return Verdict.DUPLICATE if known == content else Verdict.CONFLICT
    return Verdict.ACCEPT if seq == standing.seq + 1 else Verdict.GAP


def explain(verdict: Verdict, producer: str, standing: Standing | None, epoch: int, seq: int) -> str:
    """The refusal as a sentence: the write, what the log has, what to do."""
    write = f"producer {producer!r} write (epoch {epoch}, seq {seq})"
    has = f"the log has epoch {standing.epoch}, seq {standing.seq}" if standing else "the log has nothing of it yet"
    advice = {
        Verdict.FENCED: "A newer reign of this producer has written; stop, or start a reign above it.",
        Verdict.BAD_START: "A reign starts at seq 0.",
        Verdict.CONFLICT: "This seq was written with other content; a repeat must be identical.",
        Verdict.GAP: f"Write seq {standing.seq + 1 if standing else 0} first.",
    }[verdict]
    return f"{write} was refused as {verdict.value}: {has}. {advice}"
