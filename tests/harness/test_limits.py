"""The numbers that bound an agent's work, and the one rule for waiting between requests."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import UsageError
from cairn.harness.limits import Limits


def test_waits_double_from_two_seconds_and_end_after_the_last_retry() -> None:
    """P20: 2 s, 4 s, 8 s, then no more."""
    assert [Limits().retry_seconds(n, 0.0) for n in (1, 2, 3, 4)] == [2.0, 4.0, 8.0, None]


def test_a_retry_after_is_honoured_up_to_its_cap() -> None:
    """P20: the provider knows when it is ready again; an hour is too long to hope."""
    limits = Limits()

    assert limits.retry_seconds(1, 0.9, retry_after=30) == 30
    assert limits.retry_seconds(1, 0.0, retry_after=1) == 2
    assert limits.retry_seconds(1, 0.0, retry_after=limits.retry_after_seconds) == limits.retry_after_seconds
    assert limits.retry_seconds(1, 0.0, retry_after=limits.retry_after_seconds + 1) is None


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 900))
def test_jitter_shortens_a_wait_by_at_most_a_quarter_and_never_below_retry_after(
    failures: int, random: float, retry_after: float | None
) -> None:
    """P20: a fleet does not come back in one wave, and nobody comes back before it was told to."""
    limits = Limits(model_retries=10_000)
    wait = limits.retry_seconds(failures, random, retry_after)
    full = limits.retry_seconds(failures, 0.0)

    assert wait is not None
    assert full is not None
    assert full <= limits.retry_cap_seconds
    assert wait >= max(full * 0.75, retry_after or 0)
    assert wait <= max(full, retry_after or 0)


@pytest.mark.parametrize(
    ("given_limits", "said"),
    [
        ({"turns": 0}, "more than zero"),
        ({"turns": None}, "a number is needed"),
        ({"running_seconds": -1}, "more than zero"),
        ({"cost_usd": "3"}, "a number is needed"),
        ({"tokens": True}, "a number is needed"),
        ({"idle_seconds": float("nan")}, "a number is needed"),
        ({"model_retries": -1}, "zero or more"),
        ({"retry_jitter": 1.5}, "at most 1"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(given_limits: dict[str, Any], said: str) -> None:
    """F9: a limit is there or it is not; it is never silently without effect."""
    with pytest.raises(UsageError, match=said):
        Limits(**given_limits)


def test_none_and_zero_are_limits_where_they_mean_something() -> None:
    """F9: no cost limit, and no retries."""
    limits = Limits(cost_usd=None, tokens=None, model_retries=0, length_continues=0)

    assert limits.retry_seconds(1, 0.0) is None


def test_every_limit_gives_its_reason_beside_it() -> None:
    """F9: a number without a reason cannot be changed by anyone."""
    source = inspect.getsource(Limits)

    for field in fields(Limits):
        assert re.search(rf'    {field.name}: [^\n]+\n    """.{{30,}}', source), field.name
