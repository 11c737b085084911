"""Times as clients read them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(wall: float) -> str:
    """Wall seconds as ISO 8601 with milliseconds, in UTC."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
