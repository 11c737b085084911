"""What may be said in an agent's definition, checked where it is written: names, models, instructions, plain functions.

Laws. Pure. `label` is how the message calls what is being defined; every refusal says what would do instead.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, get_args

from cairn.errors import UsageError
from cairn.harness.messages import ThinkingLevel
from cairn.harness.models.protocol import Model
from cairn.harness.schema import place_of
from cairn.harness.turn_view import Turn
from cairn.harness.turn_view import checked_sandbox as checked_sandbox
from cairn.runtime.threads import is_async

Instructions = str | Callable[[Turn[Any]], str]

#: Names are durable keys and URL segments: kebab-case.
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

#: A name is also a folder's and a URL segment's (DNS labels: 63).
NAME_CHARACTERS_MAX = 63


def check_name(name: Any, *, empty_is_fine: bool = False) -> None:
    """Raises UsageError, with a name that would do, unless this is one."""
    if name == "" and empty_is_fine:
        return
    if not isinstance(name, str) or not NAME.fullmatch(name):
        wanted = re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")
        hint = f", such as {wanted!r}" if NAME.fullmatch(wanted) else ""
        raise UsageError(f"an agent cannot be named {name!r}: use lower-case words joined by hyphens{hint}")
    if len(name) > NAME_CHARACTERS_MAX:
        raise UsageError(f"an agent's name has at most {NAME_CHARACTERS_MAX} characters; {name!r} has {len(name)}")


def checked_model(label: object, model: Any) -> str | Model | None:
    """The model, if it is a spec or looks like a Model. Whether it exists is asked when it is used: offline here."""
    if model is None or isinstance(model, str):
        if isinstance(model, str) and not all(model.partition(":")):
            raise UsageError(f"{label}: model {model!r} is not `provider:model`, such as 'anthropic:claude-sonnet-4-6'")
        return model
    if not callable(getattr(model, "stream", None)):
        raise UsageError(f"{label}: model {model!r} is neither a `provider:model` text nor a Model")
    return model  # type: ignore[no-any-return]


def checked_thinking(label: object, thinking: Any) -> ThinkingLevel | None:
    """The level, if it is one."""
    if thinking is not None and thinking not in get_args(ThinkingLevel):
        raise UsageError(f"{label}: thinking={thinking!r}; use one of {', '.join(get_args(ThinkingLevel))}")
    return thinking  # type: ignore[no-any-return]


def checked_instructions(label: object, instructions: Any) -> Instructions:
    """The text without the indentation of its source, or the function that writes it."""
    if isinstance(instructions, str):
        return inspect.cleandoc(instructions)
    if not callable(instructions):
        raise UsageError(f"{label}: instructions are a text or a function of the turn, not {type(instructions).__name__}")
    refuse_async(f"{label}: instructions", instructions)
    return instructions  # type: ignore[no-any-return]


def refuse_async(label: str, function: Any) -> None:
    """Raises UsageError unless this is a plain function that cannot wait."""
    if not callable(function):
        raise UsageError(f"{label}: a function is needed, not {type(function).__name__}")
    generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if generator or is_async(function):
        raise UsageError(
            f"{label}: {getattr(function, '__name__', function)} ({place_of(function)}) is "
            f"{'a generator' if generator else 'async'}, but it runs before every model call and must be a plain function; "
            f"do the waiting in a tool or in on_message and keep the result in the state"
        )


def caller() -> str:
    """`path:line` of whoever called the function that asks."""
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
