"""An object's own key-value storage: JSON by key, staged in a handler and committed with everything else it changes.

Laws. It is in the object's memory: reading it waits for nothing. Outside a handler and a transaction it is the committed one,
and cannot be changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cairn.errors import StoreCorrupt, UsageError
from cairn.runtime.draft import Draft
from cairn.runtime.instance import Instance


class Storage:
    """`self.storage` of a durable object."""

    def __init__(self, instance: Instance, draft: Callable[[], Draft | None]) -> None:
        self._instance = instance
        self._draft = draft

    def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """What was put under the key; `default` when nothing is. *Raises* StoreCorrupt when it is not of that type."""
        draft = self._draft()
        raw = draft.get(key) if draft is not None else self._instance.state.storage.get(key)
        if raw is None:
            return default
        try:
            return msgspec.json.decode(raw, type=type)
        except msgspec.MsgspecError as error:
            raise StoreCorrupt(f"'{key}' in the storage of {self._instance.address} is not a {type}: {error}") from None

    def put(self, key: str, value: Any) -> None:
        """The value is under the key once the handler has committed. *Raises* UsageError: no handler, not JSON, too large."""
        try:
            raw = msgspec.Raw(msgspec.json.encode(value))
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"'{key}' cannot be stored in {self._instance.address}: {error}") from None
        self._staged().put(key, raw)

    def delete(self, key: str) -> bool:
        """Nothing is under the key once the handler has committed; whether something was."""
        return self._staged().delete(key)

    def list(self, prefix: str = "", *, start: str = "", limit: int | None = None) -> dict[str, Any]:
        """Values by key, in the order of the keys: those that begin with `prefix`, from `start` on."""
        draft = self._draft()
        keys = draft.keys() if draft is not None else sorted(self._instance.state.storage)
        chosen = [key for key in keys if key.startswith(prefix) and key >= start]
        return {key: self.get(key) for key in (chosen if limit is None else chosen[:limit])}

    def _staged(self) -> Draft:
        draft = self._draft()
        if draft is None:
            raise UsageError(
                f"the storage of {self._instance.address} changes in a handler, or inside `async with self.transaction():`"
            )
        return draft
