"""Commands in Python: `virtual(commands={"deploy": deploy})` is a command of the shell that runs here, in the host.

Laws. A command is given what its signature declares, as text converted by its annotations, and nothing else: neither the
shell's variables nor its files, unless it is told them. What it raises is what the shell's user reads on stderr. It runs
outside the sandbox, so what it does is for its author to limit.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_type_hints

from cairn.errors import ToolError, UsageError
from cairn.harness.sandbox.virtual_wire import Run

logger = logging.getLogger("cairn.harness")

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

#: What a command may print, as the shell's own do.
OUTPUT_BYTES_MAX = 16 * 1024 * 1024

#: Parameters with a meaning: the command's standard input, and where the shell is.
INPUT, CWD = "stdin", "cwd"

_CONVERSIONS: dict[Any, Callable[[str], Any]] = {str: str, int: int, float: float, inspect.Parameter.empty: str}

Answer = tuple[Any, bytes]


class Commands:
    """The commands of one agent's shell."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = dict(functions)
        self._commands = {name: _Command(name, function) for name, function in functions.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Commands) and self._functions == other._functions

    __hash__ = None  # type: ignore[assignment]

    @property
    def names(self) -> list[str]:
        return sorted(self._commands)

    async def run(self, asked: Run, data: bytes) -> Answer:
        """What the command said. Never raises but for cancellation."""
        command = self._commands.get(asked.name)
        if command is None:
            return _said(127, b"", f"{asked.name}: command not found")
        try:
            arguments, named = command.arguments(asked.argv, data, asked.cwd)
        except ValueError as error:
            return _said(2, b"", f"{asked.name}: {error}\nusage: {command.usage}")
        try:
            value = await command.call(arguments, named)
        except ToolError as error:
            return _said(1, b"", f"{asked.name}: {error}")
        except Exception as error:
            logger.warning("command '%s' raised %r", asked.name, error, exc_info=error)
            return _said(1, b"", f"{asked.name}: {type(error).__name__}: {error}")
        if isinstance(value, bool) or not (value is None or isinstance(value, (str, bytes, int))):
            return _said(
                1, b"", f"{asked.name}: returned {type(value).__name__}; it may return text, bytes, an exit code or None"
            )
        if isinstance(value, int):
            return _said(value & 0xFF, b"", "")
        output = value.encode("utf-8", "replace") if isinstance(value, str) else value or b""
        return _said(0, output[:OUTPUT_BYTES_MAX], "")


def _said(code: int, output: bytes, errors: str) -> Answer:
    return {"code": code, "errors": f"{errors}\n" if errors else ""}, output


class _Command:
    """A function, as a command."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        if not NAME.fullmatch(name):
            raise UsageError(f"virtual(commands=…): {name!r} cannot be the name of a command")
        if not callable(function):
            raise UsageError(f"virtual(commands={{{name!r}: …}}): {function!r} is not a function")
        self._name = name
        self._function = function
        hints = get_type_hints(function)
        self._parameters: list[inspect.Parameter] = []
        self._given: set[str] = set()
        for parameter in inspect.signature(function).parameters.values():
            hint = hints.get(parameter.name, inspect.Parameter.empty)
            if parameter.name in (INPUT, CWD):
                self._given.add(parameter.name)
                self._input = hint
                continue
            known = hint in _CONVERSIONS or (hint is bool and parameter.kind is parameter.KEYWORD_ONLY)
            if not known or parameter.kind is parameter.VAR_KEYWORD:
                raise UsageError(
                    f"virtual(commands={{{name!r}: …}}): parameter {parameter.name!r} is {hint}; parameters are str, "
                    f"int or float, and bool for a flag (keyword-only); 'stdin' and 'cwd' are filled in"
                )
            self._parameters.append(parameter.replace(annotation=hint))

    @property
    def usage(self) -> str:
        parts = [self._name]
        for parameter in self._parameters:
            word = parameter.name.replace("_", "-")
            if parameter.kind is parameter.KEYWORD_ONLY:
                shown = f"--{word}" if parameter.annotation is bool else f"--{word} VALUE"
            else:
                shown = f"{word.upper()}..." if parameter.kind is parameter.VAR_POSITIONAL else word.upper()
            is_needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
            parts.append(shown if is_needed and parameter.annotation is not bool else f"[{shown}]")
        return " ".join(parts)

    def arguments(self, argv: list[str], data: bytes, cwd: str) -> tuple[list[Any], dict[str, Any]]:
        """What the function is called with. *Raises* ValueError, in words."""
        options = {p.name.replace("_", "-"): p for p in self._parameters if p.kind is p.KEYWORD_ONLY}
        positional = [p for p in self._parameters if p.kind is not p.KEYWORD_ONLY and p.kind is not p.VAR_POSITIONAL]
        takes_more = any(p.kind is p.VAR_POSITIONAL for p in self._parameters)
        values: list[str] = []
        named: dict[str, Any] = {}
        words = iter(argv)
        for word in words:
            if word == "--":
                values += words
            elif word.startswith("--") and options:
                self._option(word[2:], words, options, named)
            else:
                values.append(word)
        if len(values) > len(positional) and not takes_more:
            raise ValueError(f"unexpected argument '{values[len(positional)]}'")
        missing = [p.name for p in positional[len(values) :] if p.default is p.empty]
        missing += [
            f"--{word}"
            for word, p in options.items()
            if p.default is p.empty and p.name not in named and p.annotation is not bool
        ]
        if missing:
            raise ValueError(f"missing {', '.join(missing)}")
        for parameter in options.values():
            if parameter.annotation is bool and parameter.default is parameter.empty:
                named.setdefault(parameter.name, False)
        converted = [_converted(p, value) for p, value in zip(positional, values, strict=False)]
        rest = next((p for p in self._parameters if p.kind is p.VAR_POSITIONAL), None)
        if rest is not None:
            converted += [_converted(rest, value) for value in values[len(positional) :]]
        if INPUT in self._given:
            named[INPUT] = data if self._input is bytes else data.decode("utf-8", "replace")
        if CWD in self._given:
            named[CWD] = cwd
        return converted, named

    def _option(self, word: str, words: Any, options: dict[str, inspect.Parameter], named: dict[str, Any]) -> None:
        name, given, value = word.partition("=")
        parameter = options.get(name)
        if parameter is None:
            raise ValueError(f"unknown option --{name}")
        if parameter.annotation is bool:
            if given:
                raise ValueError(f"--{name} takes no value")
            named[parameter.name] = True
            return
        if not given:
            following: str | None = next(words, None)
            if following is None:
                raise ValueError(f"--{name} needs a value")
            value = following
        named[parameter.name] = _converted(parameter, value)

    async def call(self, arguments: list[Any], named: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(*arguments, **named)
        value = await asyncio.to_thread(self._function, *arguments, **named)
        return await value if isinstance(value, Awaitable) else value


def _converted(parameter: inspect.Parameter, value: str) -> Any:
    try:
        return _CONVERSIONS[parameter.annotation](value)
    except ValueError:
        raise ValueError(f"{parameter.name} is '{value}', which is not {parameter.annotation.__name__}") from None
