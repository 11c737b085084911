"""Every number of the runtime, with its unit and its reason. Pass another `Settings` to a worker to change one."""

from __future__ import annotations

#: Interrupted attempts in a row without a new durable fact before a fiber is a dead letter (Flue: 10).
FIBER_ATTEMPTS_MAX = 10
#: Seconds a fiber may run, parked time not counted, unless it was accepted with another limit (Flue: 1 h).
FIBER_TIMEOUT_SECONDS = 3600.0
#: The wait before the second interrupted attempt, in seconds; doubles from there.
BACKOFF_BASE_SECONDS = 1.0
#: The longest wait between attempts, in seconds: long enough to stop burning, short enough for L3.
BACKOFF_MAX_SECONDS = 60.0
#: Seconds a cancelled method is given to clean up before it is abandoned.
CANCEL_GRACE_SECONDS = 5.0
