"""Opening the page where somebody sits who can see it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def browse(url: str) -> None:
    """The page is opened, in the background; where nobody would see it nothing happens."""
    is_terminal = sys.__stdout__ is not None and sys.__stdout__.isatty()
    if not has_screen(os.environ, is_terminal, sys.platform):
        return
    import threading
    import webbrowser

    # Finding a browser starts programs and waits for them.
    threading.Thread(target=webbrowser.open, args=(url,), name="browser", daemon=True).start()


def has_screen(environment: Mapping[str, str], is_terminal: bool, platform: str) -> bool:
    """Whether a window that opens is seen by whoever started this."""
    is_elsewhere = any(environment.get(name) for name in ("CI", "SSH_CONNECTION", "SSH_TTY"))
    if is_elsewhere or not is_terminal:
        return False
    return platform == "darwin" or any(environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
