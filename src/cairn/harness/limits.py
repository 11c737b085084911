"""Every number that bounds an agent's work: its unit in its name, its reason beside it, its default here and nowhere else.

Laws. Pure data. `None` means "no limit" and is only allowed where the type says so. Time under an attempt counts; time
in which a submission is parked does not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from cairn.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one submission of an agent may use before it is stopped, by name. `Agent(limits=Limits(turns=50))`.

    *Raises* UsageError for a number that is not positive where it must be.
    """

    # --- how much work ----------------------------------------------------------------------------------------------

    turns: int = 200
    """Model round-trips per submission. Long repairs take about 100; frameworks that stop at 10 or 25 stop real work."""
    tool_calls: int = 1_000
    """Calls per submission, all tools together: five per turn at the default number of turns."""
    identical_calls: int = 10
    """The same tool with the same arguments in a row. Polling a build a few times is honest work, ten times is a loop."""
    cost_usd: float | None = None
    """US dollars per submission. None, because prices are not known for every model; set it wherever money matters."""
    tokens: int | None = None
    """Input plus output tokens per submission, cached ones included. None: the window and `turns` already bound it."""
    stop_continues: int = 32
    """How often `on_stop` may send the model back to work (Flue: 32)."""
    length_continues: int = 3
    """How often an answer cut off at its maximum length is continued; each costs a whole answer."""

    # --- how long ---------------------------------------------------------------------------------------------------

    running_seconds: float = 3_600.0
    """Running time of one submission over all attempts, parked time excluded (L3)."""
    attempts: int = 10
    """Consecutive attempts without a new durable fact; then the input itself is what kills them (L3)."""
    tool_seconds: float = 600.0
    """One call, unless the tool names its own `timeout`: a slow test suite fits, a hung connection does not stay."""
    hook_seconds: float = 60.0
    """One call of `on_message`, `on_stop` or `on_settled`."""
    first_event_seconds: float = 120.0
    """From the request to the first event of the response. A provider under load queues for up to a minute or so."""
    idle_seconds: float = 300.0
    """Between two events of one response. Reasoning that is not shown can be silent for minutes (Flue: 300)."""
    abort_seconds: float = 5.0
    """From an abort to the settlement: what has not stopped by then is abandoned and reported."""

    # --- how much at once -------------------------------------------------------------------------------------------

    parallel_tools: int = 8
    """Calls of one message that run at the same time."""

    # --- when the provider fails ------------------------------------------------------------------------------------

    model_retries: int = 3
    """Further requests after one that failed for a reason that may pass. Reset by every answer."""
    retry_base_seconds: float = 2.0
    """The wait before the first of them; it doubles each time (pi and Flue: 2, 4, 8 s)."""
    retry_cap_seconds: float = 60.0
    """No computed wait is longer than this."""
    retry_jitter: float = 0.25
    """The share of a wait that is left to chance, so that a fleet does not return in one wave."""
    retry_after_seconds: float = 900.0
    """A Retry-After up to this is honoured (the wait is parked and costs nothing); a longer one fails at once."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            zero_is_fine = field.name in _ZERO_IS_FINE
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
                raise UsageError(f"Limits({field.name}={value!r}): a number is needed")
            if value < 0 or (value == 0 and not zero_is_fine):
                least = "zero or more" if zero_is_fine else "more than zero"
                raise UsageError(f"Limits({field.name}={value!r}): it must be {least}")
        if self.retry_jitter > 1:
            raise UsageError(f"Limits(retry_jitter={self.retry_jitter!r}): it is a share, at most 1")

    def retry_seconds(self, failures: int, random: float, retry_after: float | None = None) -> float | None:
        """How long to wait after the `failures`-th failure in a row (1 is the first); None: do not try again.

        `random` is in [0, 1). A Retry-After is a lower bound that jitter never shortens.
        """
        if failures > self.model_retries:
            return None
        if retry_after is not None and retry_after > self.retry_after_seconds:
            return None
        # 2**30 s is beyond any cap; the exponent is bounded so that a huge count cannot overflow a float.
        wait = min(self.retry_cap_seconds, self.retry_base_seconds * 2.0 ** min(failures - 1, 30))
        wait *= 1.0 - self.retry_jitter * random
        return max(wait, retry_after or 0.0)


_ZERO_IS_FINE = frozenset({"stop_continues", "length_continues", "model_retries", "retry_jitter", "retry_base_seconds"})
