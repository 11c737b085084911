"""Where logs are kept: the `Store` protocol (store.py) and the SQLite store. The driver is imported when first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cairn.runtime.storage.sqlite import SqliteStore

__all__ = ["SqliteStore"]


def __getattr__(name: str) -> object:
    if name == "SqliteStore":
        from cairn.runtime.storage.sqlite import SqliteStore

        return SqliteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
