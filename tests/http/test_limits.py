"""The limits: what they promise by default, and that none can be switched off by accident."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from cairn.errors import UsageError
from cairn.framework.http.limits import KB, MB, HttpLimits

#: The numbers that are promised to those who run a server.
PROMISED = {
    "header_bytes": 16 * KB,
    "header_seconds": 10.0,
    "send_body_bytes": 16 * MB,
    "other_body_bytes": 1 * MB,
    "attachment_bytes": 10 * MB,
    "body_seconds": 30.0,
    "idle_seconds": 60.0,
    "requests_per_second": 100.0,
    "readers_per_token": 20,
    "connections_max": 5_000,
    "large_bodies_max": 8,
    "queued_submissions_max": 1_000,
    "log_bytes_max": 10 * 1024 * MB,
}


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_the_defaults_are_those_that_are_promised(name: str) -> None:
    """X7: what a server bears is written down."""
    assert getattr(HttpLimits(), name) == PROMISED[name]


@pytest.mark.parametrize("name", [field.name for field in fields(HttpLimits)])
@pytest.mark.parametrize("value", [0, -1])
def test_no_limit_can_be_switched_off(name: str, value: int) -> None:
    """X7: a limit of nothing, or of everything, is refused when the App is made."""
    with pytest.raises(UsageError, match=name):
        replace(HttpLimits(), **{name: value})
