"""What a class of durable objects lets others call: which methods, how they are told apart, how their arguments are read.

Laws. A method is callable because it says so; everything else is private to the object and its own schedules. What comes from
outside is JSON and is read against the method's annotations before it runs.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, overload

import msgspec

from cairn.errors import NotCallable, RemoteError, UnknownMethod, UsageError
from cairn.runtime.settings import HANDLER_SECONDS

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__cairn_callable__"


@dataclass(frozen=True, slots=True)
class _Mark:
    read_only: bool
    timeout: float


@overload
def callable(method: F) -> F: ...
@overload
def callable(*, read_only: bool = False, timeout: float = HANDLER_SECONDS) -> Callable[[F], F]: ...
def callable(method: Any = None, *, read_only: bool = False, timeout: float = HANDLER_SECONDS) -> Any:
    """The method may be called from outside: through a stub, over HTTP and WebSockets. An async generator is a stream.

    One runs at a time, and what it changes is committed when it returns. With `read_only` it runs beside the others, on the
    last committed state. `timeout` seconds after it has begun it is cut off, and nothing is committed.
    """

    def mark(function: Any) -> Any:
        if not inspect.isfunction(function):
            raise UsageError(f"@callable is for methods, not for {function!r}")
        if not timeout > 0:
            raise UsageError(f"@callable(timeout={timeout!r}) of {function.__name__}: write a number of seconds above 0")
        setattr(function, _MARK, _Mark(read_only, timeout))
        return function

    return mark(method) if method is not None else mark


class Method:
    """One method of a class, as a handler."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        mark: _Mark | None = getattr(function, _MARK, None)
        self.name = name
        self.function = function
        self.is_callable = mark is not None
        self.read_only = mark is not None and mark.read_only
        self.timeout = mark.timeout if mark is not None else HANDLER_SECONDS
        self.is_stream = inspect.isasyncgenfunction(function)
        self._signature = inspect.signature(function)

    @cached_property
    def _decoders(self) -> tuple[list[_Decode], _Decode | None]:
        # When it is first called: a class has methods that nobody calls from outside, with types that are no JSON.
        return _decoders(self.function, self._signature)

    def arguments(self, raw: msgspec.Raw) -> list[Any]:
        """The recorded arguments, each of its parameter's type. *Raises* RemoteError when they do not fit."""
        given = msgspec.json.decode(raw, type=list[msgspec.Raw] | None) or []
        if (misfit := self.misfit(len(given))) is not None:
            raise RemoteError(f"Method {self.name}: {misfit}", type="TypeError")
        named, rest = self._decoders
        decoders = [*named, *[rest] * max(0, len(given) - len(named))]
        try:
            return [decode(each) for decode, each in zip(decoders, given, strict=False) if decode is not None]
        except msgspec.MsgspecError as error:
            raise RemoteError(f"Method {self.name}: an argument does not fit: {error}", type="TypeError") from None

    def misfit(self, count: int) -> str | None:
        """Why it does not take so many arguments; None when it does."""
        try:
            self._signature.bind(None, *range(count))
        except TypeError as error:
            return str(error)
        return None


_Decode = Callable[[msgspec.Raw], Any]


def _decoders(function: Callable[..., Any], signature: inspect.Signature) -> tuple[list[_Decode], _Decode | None]:
    """How to read each positional parameter after `self`, and those that come after the last."""
    hints = _hints(function)
    named: list[_Decode] = []
    rest: _Decode | None = None
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = _decoder(hints.get(parameter.name, Any))
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            named.append(_decoder(hints.get(parameter.name, Any)))
    return named, rest


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters. One that is only there for type checkers says nothing, and hides nothing of the others."""
    try:
        return typing.get_type_hints(function)
    except Exception:
        found: dict[str, Any] = {}
        for name, hint in getattr(function, "__annotations__", {}).items():
            with suppress(Exception):
                alone = types.SimpleNamespace(__annotations__={name: hint}, __globals__=getattr(function, "__globals__", {}))
                found |= typing.get_type_hints(alone, globalns=alone.__globals__)
        return found


def _decoder(hint: Any) -> _Decode:
    try:
        return msgspec.json.Decoder(hint).decode
    except (TypeError, NameError):  # no JSON, or made of names that are only there for type checkers
        return msgspec.json.Decoder(Any).decode


class Methods:
    """The methods of one class that are not fiber methods, by name."""

    def __init__(self, cls: type, base: type, is_fiber: Callable[[object], bool]) -> None:
        members = inspect.getmembers(cls, inspect.isfunction)
        for name, function in members:
            if hasattr(function, _MARK) and (name.startswith("_") or hasattr(base, name)):
                why = "a name with an underscore is private" if name.startswith("_") else "every object has that method"
                raise UsageError(f"{cls.__name__}.{name} cannot be @callable: {why}; give it another name")
            if is_fiber(function) and hasattr(function, _MARK):
                raise UsageError(
                    f"{cls.__name__}.{name} is @callable and takes a Fiber; a fiber is started: write a @callable that says "
                    f"`return (await self.start_fiber({cls.__name__}.{name}, …)).fiber`"
                )
        self._by_name = {
            name: Method(name, function)
            for name, function in members
            if not name.startswith("_") and not hasattr(base, name) and not is_fiber(function)
        }

    def get(self, name: str) -> Method | None:
        return self._by_name.get(name)

    def callable(self, name: str) -> Method:
        """*Raises* UnknownMethod, NotCallable, with the words that clients know."""
        method = self._by_name.get(name)
        if method is None:
            raise UnknownMethod(f"Method {name} does not exist")
        if not method.is_callable:
            raise NotCallable(f"Method {name} is not callable")
        return method
