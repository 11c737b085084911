"""Importing a provider's library, which costs seconds of CPU, while the store is opened and the message admitted."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress

from cairn.harness.models.adapter import load
from cairn.harness.models.provider import Provider


def begin(provider: Provider) -> None:
    """The import has begun, in a thread the process does not wait for. Whoever needs the library imports it too, waits for
    this one to be done, and meets its errors."""
    threading.Thread(target=_import, args=(provider,), name=f"import {provider.name}", daemon=True).start()


def _import(provider: Provider) -> None:
    # An import makes hundreds of thousands of objects that live as long as the process. Looking through them for garbage
    # again and again is a fifth of its CPU, and once more at the end of the process another third (bench_cli.py).
    gc.disable()
    try:
        with suppress(Exception):
            load(provider)
    finally:
        gc.freeze()
        gc.enable()
