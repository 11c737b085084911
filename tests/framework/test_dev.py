"""What `cairn dev` decides, without a process."""

from __future__ import annotations

import pytest

from cairn.framework.cli.browser import has_screen


@pytest.mark.parametrize(
    ("environment", "is_terminal", "platform", "opens"),
    [
        ({"DISPLAY": ":0"}, True, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, "linux", True),
        ({}, True, "darwin", True),
        ({}, True, "linux", False),
        ({"DISPLAY": ":0"}, False, "linux", False),
        ({"DISPLAY": ":0", "CI": "true"}, True, "linux", False),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "1.2.3.4 1 5.6.7.8 22"}, True, "linux", False),
        ({"SSH_TTY": "/dev/pts/1"}, True, "darwin", False),
    ],
)
def test_a_browser_is_opened_only_where_somebody_sees_it(
    environment: dict[str, str], is_terminal: bool, platform: str, opens: bool
) -> None:
    """Not in CI, not in a distant shell, not when the output is a pipe."""
    assert has_screen(environment, is_terminal, platform) is opens
