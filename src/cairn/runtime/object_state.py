"""What the fold keeps of one object, and how its state is read from it: fields and storage, each as its own JSON text.

Laws. Pure. A field that was never assigned is not stored and has its default. A stored field that the class cannot hold is an
error that names it, never the default: nothing is overwritten because it could not be read (S14).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from cairn.errors import StoreCorrupt, UsageError
from cairn.runtime import records as r

S = TypeVar("S")

_encode = msgspec.json.Encoder().encode


class ObjectFold:
    """One object at one ordinal."""

    def __init__(self) -> None:
        self.fields: dict[str, msgspec.Raw] = {}
        self.storage: dict[str, msgspec.Raw] = {}
        self.storage_bytes = 0

    def apply(self, record: r.Record) -> None:
        if isinstance(record, r.StateChanged):
            self.fields.update((name, raw.copy()) for name, raw in record.changes.items())
        elif isinstance(record, r.StorageChanged):
            for key, raw in record.puts.items():
                self._remove(key)
                self.storage[key] = raw.copy()
                self.storage_bytes += weight(key, raw)
            for key in record.deletes:
                self._remove(key)

    def _remove(self, key: str) -> None:
        before = self.storage.pop(key, None)
        if before is not None:
            self.storage_bytes -= weight(key, before)

    def dump(self) -> bytes:
        return _encode(_Dumped(1, self.fields, self.storage))

    @classmethod
    def load(cls, data: bytes) -> ObjectFold:
        """Raises msgspec.MsgspecError for what another version wrote."""
        dumped = _load(data)
        fold = cls()
        fold.fields, fold.storage = dumped.fields, dumped.storage
        fold.storage_bytes = sum(weight(key, raw) for key, raw in fold.storage.items())
        return fold


class _Dumped(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    fields: dict[str, msgspec.Raw]
    storage: dict[str, msgspec.Raw]


_load = msgspec.json.Decoder(_Dumped).decode


def weight(key: str, raw: msgspec.Raw) -> int:
    return len(key) + len(bytes(raw))


class StateShape(Generic[S]):
    """The class of an object's state: a dataclass or a msgspec Struct."""

    def __init__(self, cls: type[S], owner: str) -> None:
        self.cls = cls
        self._owner = owner
        self._decode = msgspec.json.Decoder(cls).decode
        if issubclass(cls, msgspec.Struct):
            self._names = dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))
        else:
            self._names = {field.name: field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @property
    def names(self) -> tuple[str, ...]:
        """Its fields, as they are stored."""
        return tuple(self._names.values())

    def demand_defaults(self) -> None:
        """A new object can begin. *Raises* UsageError for a field without a default."""
        try:
            self.load({})
        except StoreCorrupt as error:
            text = f"the state of {self._owner} has no beginning: give each field of {self.cls.__name__} a default"
            raise UsageError(f"{text} ({error.__context__})") from None

    def load(self, fields: Mapping[str, msgspec.Raw]) -> S:
        """A fresh value that shares nothing. *Raises* StoreCorrupt for a stored field that the class cannot hold."""
        try:
            return self._whole(self._decode(_joined(fields)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StoreCorrupt(
                f"the stored state of {self._owner} does not fit {self.cls.__name__}: {error}. Give the field a type that "
                f"holds both, or a new name; nothing was changed"
            ) from None

    def read(self, whole: bytes) -> S:
        """A value somebody sent. *Raises* msgspec.MsgspecError."""
        return self._whole(self._decode(whole))

    def _whole(self, value: S) -> S:
        """With the defaults in the instance itself: a decoded dataclass has those of its class, and is encoded without."""
        held = getattr(value, "__dict__", None)
        if held is not None and len(held) < len(self._names):
            for name in self._names:
                held.setdefault(name, getattr(value, name))
        return value

    def encode(self, fields: Mapping[str, msgspec.Raw]) -> msgspec.Raw:
        """The state as JSON, every field of it."""
        whole = self.dump(self.load(fields))
        return msgspec.Raw(_joined({name: msgspec.Raw(text) for name, text in whole.items()}))

    def dump(self, value: S) -> dict[str, bytes]:
        """Every field as JSON. *Raises* UsageError for what is none."""
        try:
            return {stored: _encode(getattr(value, name)) for name, stored in self._names.items()}
        except (TypeError, ValueError, RecursionError, AttributeError) as error:
            raise UsageError(f"the state of {self._owner} cannot be stored: {error}") from None

    def whole(self, fields: Mapping[str, msgspec.Raw]) -> msgspec.Raw:
        """Every field, those too that have their default: msgspec leaves a dataclass's out. *Raises* as `load`."""
        return msgspec.Raw(_joined({name: msgspec.Raw(text) for name, text in self.dump(self.load(fields)).items()}))

    def changes(self, before: Mapping[str, bytes], value: S) -> dict[str, msgspec.Raw]:
        """The fields that differ. *Raises* UsageError for a value that could not be read back."""
        if not isinstance(value, self.cls):
            raise UsageError(f"the state of {self._owner} is a {self.cls.__name__}, not a {type(value).__name__}")
        self._refuse_strangers(value)
        after = self.dump(value)
        changed = {name: msgspec.Raw(text) for name, text in after.items() if text != before.get(name)}
        if changed:
            try:
                # What cannot be read back would stop the object at its next activation; it is refused here instead.
                self._decode(_joined({name: msgspec.Raw(text) for name, text in after.items()}))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise UsageError(f"the state of {self._owner} does not fit {self.cls.__name__}: {error}") from None
        return changed

    def _refuse_strangers(self, value: S) -> None:
        """An attribute that the class does not have is a field misspelt: nothing would keep it."""
        held = getattr(value, "__dict__", {})
        if len(held) > len(self._names):
            strangers = [name for name in held if name not in self._names and not hasattr(self.cls, name)]
            if strangers:
                text = f"the state of {self._owner} has no field '{strangers[0]}'"
                raise UsageError(f"{text}; {self.cls.__name__} has: {', '.join(self._names)}")


def _joined(fields: Mapping[str, msgspec.Raw]) -> bytes:
    return b"{" + b",".join(_encode(name) + b":" + bytes(raw) for name, raw in fields.items()) + b"}"
