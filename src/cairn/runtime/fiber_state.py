"""What the fold knows of one fiber: its life, its steps, what it waits for, how it ended.

Laws. Pure data. Nothing here decides; `state.py` says how records change it, `ready.py` when it may run.
"""

from __future__ import annotations

import zlib
from enum import Enum

import msgspec

from cairn.runtime import records as r
from cairn.runtime.settings import BACKOFF_BASE_SECONDS, BACKOFF_MAX_SECONDS


def backoff_seconds(interrupted: int, fiber: str | None = None) -> float:
    """How long to wait before the next attempt after that many interruptions in a row: 0, 1, 2, 4, … seconds at most.

    The first is free, because most kills are deployments; a process-killing input meets the doubling. Each fiber waits a
    part of it of its own, between a quarter and all: those that died with the one that kills would otherwise come back with
    it, and die with it again until their budgets were spent too.
    """
    if interrupted <= 1:
        return 0.0
    most = min(BACKOFF_BASE_SECONDS * 2.0 ** (interrupted - 2), BACKOFF_MAX_SECONDS)
    if fiber is None:
        return most
    return most * (1 + 3 * zlib.crc32(f"{fiber} {interrupted}".encode()) / 2**32) / 4


class Phase(Enum):
    ACCEPTED = "accepted"
    RUNNING = "running"
    PARKED = "parked"
    SETTLED = "settled"


class StepState(msgspec.Struct, omit_defaults=True):
    """A step the log knows: started (intent only), tried in vain, or completed."""

    started_epoch: int | None = None
    repeat: str = "safe"
    tries: int = 0
    """Tries that failed."""
    done: bool = False
    result: msgspec.Raw = r.NULL
    error: r.ErrorInfo | None = None


class WaitState(msgspec.Struct, omit_defaults=True):
    """A wait that is not over."""

    name: str
    on: r.WaitKind = "sleep"
    until: float | None = None
    event: str = ""
    digest: str = ""
    request: msgspec.Raw = r.NULL
    since: float = 0.0
    by: tuple[str, ...] = ()
    after: int = -1


class Came(msgspec.Struct, omit_defaults=True):
    """What ended a wait for a signal, an answer or another fiber."""

    at: float
    value: msgspec.Raw = r.NULL
    timed_out: bool = False
    by: str = ""
    ordinal: int = -1
    """Of the answer that was taken."""


class Resolution(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome a person gave."""

    outcome: r.Outcome
    result: msgspec.Raw = r.NULL
    error: r.ErrorInfo | None = None
    by: str = ""


class FiberState(msgspec.Struct, omit_defaults=True):
    id: str
    method: str
    accepted_at: float
    ordinal: int
    """Of its admission: fibers start in this order (S11)."""
    arguments: msgspec.Raw = r.NULL
    key: str | None = None
    timeout_seconds: float | None = None
    retry: r.Retry | None = None
    schedule: str | None = None
    """The schedule whose occurrence it is, and …"""
    occurrence: float | None = None
    """… the time it was due, in wall seconds."""
    call: r.Call | None = None
    """It is the call of a handler, and forgotten once it has settled."""
    chunks: int = 0
    """What that call has yielded."""
    beside: bool = False
    """It never waits for its turn."""
    phase: Phase = Phase.ACCEPTED
    attempt: int = 0
    """How often it was started or taken up again after an interruption; 1 during the first try."""
    tries: int = 0
    """How often its method raised and is to be called again."""
    interrupted: int = 0
    """Attempts in a row that ended with their process and left no new durable fact: what the budget counts."""
    interrupted_at: float = 0.0
    """When the last of them was noticed: the wait before the next attempt begins here."""
    resumed_at: float = 0.0
    """When the present attempt began."""
    last_seen: float = 0.0
    ran_seconds: float = 0.0
    """Time under earlier attempts; parked time and downtime are not in it."""
    snapshot: msgspec.Raw = r.NULL
    """What was stashed last. Not `Raw | None`: msgspec would decode only null into that."""
    steps: dict[str, StepState] = {}
    waits: dict[str, WaitState] = {}
    """What it waits for, by name."""
    waited: dict[str, float] = {}
    """Waits that are over, by name, and since when."""
    came: dict[str, Came] = {}
    """What ended those that something other than time can end."""
    woken: bool = False
    """It is parked, and one of its waits is over."""
    parked_for: str | None = None
    parked_until: float | None = None
    blocked: r.ErrorInfo | None = None
    """Why it is parked for want of code; None when it is not."""
    abort: str | None = None
    """Why it is to be aborted; None when it is not."""
    resolution: Resolution | None = None
    """The outcome a person gave it, which it is to be settled with."""
    forget: bool = False
    """It is to be forgotten as soon as it has settled."""
    outcome: r.Outcome | None = None
    result: msgspec.Raw = r.NULL
    error: r.ErrorInfo | None = None
    """Why it failed; of one that is to be called again, why it did the last time."""
    answered_by: str | None = None
    settled_at: float = 0.0
    dead: bool = False
    """A dead letter nobody has seen to."""
    resolved_by: str | None = None
    """Who saw to the dead letter."""

    @property
    def is_settled(self) -> bool:
        return self.phase is Phase.SETTLED

    def ran(self, now: float) -> float:
        """Seconds under attempts so far."""
        return self.ran_seconds + (max(0.0, now - self.resumed_at) if self.phase is Phase.RUNNING else 0.0)


def step_key(scope: str, name: str) -> str:
    return f"{scope}\x1f{name}"


def retry_name(scope: str, name: str) -> str:
    """What the wait for the next try of a step is called, also to people."""
    return f"retry of step {scope}/{name}" if scope else f"retry of step {name}"
