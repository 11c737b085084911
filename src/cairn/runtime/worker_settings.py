"""What can be said to one worker otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from cairn.runtime import settings


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The numbers of one worker; the reasons are in `settings.py`."""

    lease_seconds: float = settings.LEASE_SECONDS
    idle_seconds: float = settings.IDLE_SECONDS
    tidy_seconds: float | None = settings.TIDY_SECONDS
    """None: what is settled stays as it was written."""
    instances_max: int = settings.INSTANCES_MAX
    sweep_seconds: float = settings.SWEEP_SECONDS
    scan_gap_seconds: float = settings.SCAN_GAP_SECONDS
    poll_seconds: float = settings.POLL_SECONDS
    drain_seconds: float = settings.DRAIN_SECONDS
    threads_max: int = settings.THREADS_MAX
    stall_seconds: float = settings.LOOP_STALL_SECONDS
