"""An agent's typed `state=`: how it is read from the log, copied for a call, and what a call changed.

Laws. Pure. State is a set of named fields, each stored as its own JSON text, so that two parallel calls that change
different fields do not disturb each other. A field that still has its default was never stored. What a call gets is its
own copy, an ordinary instance of the user's class; what it changed is found by comparing encoded fields at its end, so
assignment and mutation in place count alike, and assigning an equal value is no change.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from cairn.errors import UsageError

S = TypeVar("S")

_NO_VERSIONS: Mapping[str, int] = {}

_encode = msgspec.json.Encoder().encode


class StateType(Generic[S]):
    """The class given as `Agent(state=…)`, checked: a mutable dataclass or msgspec Struct whose fields all have defaults
    and are JSON.

    *Raises* UsageError, naming every field that does not fit.
    """

    def __init__(self, cls: type[S]) -> None:
        self.cls = cls
        self._decoders = {name: msgspec.json.Decoder(hint) for name, hint in _checked_fields(cls).items()}

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self._decoders)

    def load(self, stored: Mapping[str, bytes | msgspec.Raw]) -> S:
        """A fresh instance holding the stored fields and defaults for the rest; shares nothing with any other.

        A stored field the class no longer has is left alone. *Raises* UsageError for one it can no longer read.
        """
        values: dict[str, Any] = {}
        for name, decoder in self._decoders.items():
            raw = stored.get(name)
            if raw is None:
                continue
            try:
                values[name] = decoder.decode(raw)
            except msgspec.DecodeError as error:
                raise UsageError(
                    f"state field '{self.cls.__name__}.{name}' is stored as {_short(bytes(raw))}, which its present type "
                    f"cannot hold ({error}); give it a type that holds both, or a new name"
                ) from None
        return self.cls(**values)

    def check(self, given: Mapping[str, bytes]) -> None:
        """Raises UsageError for fields that the class does not have, or whose values it cannot hold."""
        for name, raw in given.items():
            decoder = self._decoders.get(name)
            if decoder is None:
                raise UsageError(f"{self.cls.__name__} has no field {name!r}; it has: {', '.join(self.fields)}")
            try:
                decoder.decode(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise UsageError(f"{self.cls.__name__}.{name} cannot be {_short(bytes(raw))}: {error}") from None

    def dump(self, value: S) -> dict[str, bytes]:
        """Every field as JSON. *Raises* UsageError for a field that holds something else than its type says."""
        dumped: dict[str, bytes] = {}
        for name, decoder in self._decoders.items():
            held = getattr(value, name)
            try:
                dumped[name] = _encode(held)
                # What could not be read back would stop the instance at its next activation; refuse it here instead.
                decoder.decode(dumped[name])
            except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
                raise UsageError(
                    f"state field '{self.cls.__name__}.{name}' holds {_short(repr(held).encode())}, "
                    f"which cannot be stored: {error}"
                ) from None
        return dumped


class Draft(Generic[S]):
    """One call's own copy of the state. Nothing of it is visible to anyone until its `changes()` are committed."""

    def __init__(
        self,
        state_type: StateType[S],
        stored: Mapping[str, bytes | msgspec.Raw],
        versions: Mapping[str, int] = _NO_VERSIONS,
    ) -> None:
        """`stored` and `versions` are copied now: what others commit later does not reach this draft.

        `versions[field]` is any number that grows at each commit of that field (its ordinal, a counter).
        """
        self._type = state_type
        self._stored = dict(stored)
        self._versions = dict(versions)
        self._value: S | None = None
        self._before: dict[str, bytes] = {}

    @property
    def value(self) -> S:
        """The instance user code reads and assigns. Made at first use: a call that ignores the state pays nothing."""
        if self._value is None:
            value = self._type.load(self._stored)
            self._before = self._type.dump(value)
            self._value = value
        return self._value

    def changes(self) -> dict[str, bytes]:
        """The fields whose JSON differs from what was copied. *Raises* UsageError for one that cannot be stored."""
        if self._value is None:
            return {}
        after = self._type.dump(self._value)
        return {name: text for name, text in after.items() if text != self._before[name]}

    def conflicts(self, versions: Mapping[str, int]) -> tuple[str, ...]:
        """Of the changed fields, those that somebody else committed since this draft was copied."""
        return conflicts(self.changes(), self._versions, versions)


def conflicts(changed: typing.Iterable[str], copied: Mapping[str, int], current: Mapping[str, int]) -> tuple[str, ...]:
    """The fields of `changed` whose current version is not the one that was copied, in order of name."""
    return tuple(sorted(name for name in changed if copied.get(name, 0) != current.get(name, 0)))


def _checked_fields(cls: Any) -> dict[str, Any]:
    """The state class's fields and their types. Raises UsageError unless all of it can work."""
    if not isinstance(cls, type):
        raise UsageError(f"state={cls!r}: give the class, such as state=Case, not an instance of it")
    if dataclasses.is_dataclass(cls):
        missing = dataclasses.MISSING
        names = [f.name for f in dataclasses.fields(cls) if f.init]
        bare = [f.name for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing]
        frozen = cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    elif issubclass(cls, msgspec.Struct):
        names = list(cls.__struct_fields__)
        bare = [f.name for f in msgspec.structs.fields(cls) if f.required]
        frozen = cls.__struct_config__.frozen
    else:
        raise UsageError(f"state={cls.__name__}: make it a dataclass or a msgspec Struct (add @dataclass above it)")
    if frozen:
        raise UsageError(f"state={cls.__name__} is frozen, so no tool could change it; remove frozen=True")
    if bare:
        raise UsageError(
            f"state={cls.__name__}: give {', '.join(map(repr, bare))} a default; a new conversation starts with it"
        )
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise UsageError(f"state={cls.__name__}: {error}; its annotations must be importable names") from None
    for name in names:
        try:
            msgspec.json.schema(hints[name])
        except TypeError:
            raise UsageError(
                f"state={cls.__name__}: field {name!r} of type {hints[name]!r} is not JSON; use str, int, float, bool, "
                f"list, dict, None, enums, dates, dataclasses or Structs of them"
            ) from None
    return {name: hints[name] for name in names}


def _short(text: bytes) -> str:
    shown = text[:200].decode("utf-8", "replace")
    return shown + "…" if len(text) > 200 else shown
