"""Tools and hooks made from ordinary functions: `@tool`, and the machinery under `@agent.tool` and `@agent.on_…`.

Laws. A decorator returns the very function it was given. A sync function never runs on the event loop: the call context
runs it in its bounded pool. The `Context` is found by its annotation, wherever it stands.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_args, overload

from cairn.errors import UsageError
from cairn.harness.asking import Asks, Rule, asks_of
from cairn.harness.context_face import Context
from cairn.harness.hooks import Hook
from cairn.harness.messages import ToolSpec
from cairn.harness.schema import is_context, parameters_of, place_of, signature_of
from cairn.harness.tools import ATTRIBUTE, CallContext, Repeat, Tool
from cairn.runtime.threads import is_async

P = ParamSpec("P")
R = TypeVar("R")

#: What every provider accepts as a tool's name (OpenAI and Anthropic: 64 characters of this set).
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")


@overload
def tool(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    repeat: Repeat = "never",
    sequential: bool | str = False,
    timeout: float | None = None,
    approval: bool | Rule | Asks = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """The function itself, marked as a tool: hand it to `Agent(tools=[…])` or `turn.use(…)`, or put it into a `tools/`
    folder.

    The schema comes from its signature and docstring (Google style). `repeat` says what happens when a call's outcome is
    unknown after a crash: `never` (told to the model), `keyed` (called again with the same `ctx.key`), `safe` (called
    again), `resume` (called again, and its `ctx.step`s answer from the log). `sequential=True` runs it alone in its batch;
    a text runs the calls that share it one at a time. `timeout` in seconds. `approval` parks a call until somebody approves it:
    True, a function of the arguments that says whether (or why), or `approval(…)`.

    *Raises* UsageError for a function no model could call.
    """
    local = sys._getframe(1).f_locals
    return decorate(function, options, local, lambda compiled: None)


def decorate(
    function: Callable[..., Any] | None,
    options: Mapping[str, Any],
    localns: Mapping[str, Any],
    keep: Callable[[Tool], None],
) -> Any:
    """The two forms of a decorator, with and without parentheses. `keep` gets the compiled Tool."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = compile_tool(function, localns=localns, **options)
        keep(compiled)
        _attach(function, compiled)
        return function

    return mark if function is None else mark(function)


def as_tool(given: Any) -> Tool:
    """The Tool a thing stands for: a Tool, a function marked with `@tool` or `@agent.tool`, or a plain function.

    *Idempotent*: the same function gives the same Tool. *Raises* UsageError for anything else.
    """
    if isinstance(given, Tool):
        return given
    marked = getattr(given, ATTRIBUTE, None)
    if isinstance(marked, Tool):
        return marked
    if not callable(given) or isinstance(given, type):
        raise UsageError(f"{given!r} is not a tool; give a function, or a Tool")
    compiled = compile_tool(given)
    _attach(given, compiled)
    return compiled


def compile_tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    repeat: Repeat = "never",
    sequential: bool | str = False,
    timeout: float | None = None,
    approval: bool | Rule | Asks = False,
    localns: Mapping[str, Any] | None = None,
    **unknown: Any,
) -> Tool:
    """The Tool of a function. *Raises* UsageError, naming the function, for what cannot work."""
    name = name or str(getattr(function, "__name__", ""))
    _check_options(function, name, repeat, timeout, unknown)
    signature = signature_of(function, localns)
    no_steps = (
        ""
        if repeat == "resume"
        else (
            f"tool {name!r} is repeat={repeat!r}, so it is never run again after an interruption and its steps could not be "
            f"used; declare it @tool(repeat='resume')"
        )
    )

    async def run(call: CallContext, arguments: dict[str, Any]) -> Any:
        values = signature.convert(arguments)
        if signature.context is not None:
            values[signature.context] = Context[Any](call, no_steps=no_steps)
        return await invoke(call, functools.partial(function, **values))

    return Tool(
        spec=ToolSpec(
            name=name,
            description=inspect.cleandoc(description) if description is not None else signature.description,
            parameters=signature.parameters,
        ),
        run=run,
        validate=signature.validate,
        repeat=repeat,
        sequential=sequential,
        timeout_seconds=timeout,
        place=place_of(function),
        asks=asks_of(_called(function), approval),
    )


def compile_hook(kind: str, function: Callable[..., Any], localns: Mapping[str, Any] | None = None) -> Hook:
    """The Hook of a function that takes the Context, the event, both or neither. *Raises* UsageError for more."""
    names, hints = parameters_of(function, localns)
    contexts = [name for name in names if is_context(hints.get(name))]
    events = [name for name in names if name not in contexts]
    if len(contexts) > 1 or len(events) > 1:
        raise UsageError(
            f"{kind}: {_called(function)} takes ({', '.join(names)}); a hook takes at most one parameter annotated Context "
            f"and one for the event"
        )
    _refuse_generator(function)
    place = place_of(function)

    async def run(call: CallContext, event: Any) -> str | None:
        values: dict[str, Any] = {name: Context[Any](call, no_steps=_NO_HOOK_STEPS) for name in contexts}
        values.update((name, event) for name in events)
        answer = await invoke(call, functools.partial(function, **values))
        if answer is not None and not isinstance(answer, str):
            raise UsageError(f"{kind}: {_called(function)} returned {type(answer).__name__}; return a text or None")
        return answer or None

    return Hook(name=getattr(function, "__name__", kind), run=run, place=place)


_NO_HOOK_STEPS = "a hook has no steps: its whole outcome is one record; do the work in a tool with repeat='resume'"


async def invoke(call: CallContext, function: Callable[[], Any]) -> Any:
    """What the function returns: awaited on the loop when it is async, run in the call's bounded pool when it is not."""
    if is_async(function):
        return await function()
    answer = await call.run_sync(function)
    # A sync wrapper around an async function: its awaitable belongs to the loop.
    return await answer if inspect.isawaitable(answer) else answer


def _check_options(
    function: Callable[..., Any], name: str, repeat: str, timeout: float | None, unknown: Mapping[str, Any]
) -> None:
    called = _called(function)
    if unknown:
        raise UsageError(f"{called}: {unknown_option('tool', next(iter(unknown)), _OPTIONS)}")
    if not callable(function) or isinstance(function, type):
        raise UsageError(f"{called} is not a function, so it cannot be a tool")
    _refuse_generator(function)
    if not NAME.fullmatch(name):
        raise UsageError(f"{called}: {name!r} cannot be a tool's name; use up to 64 letters, digits, _ and -, or name=…")
    if repeat not in get_args(Repeat):
        raise UsageError(f"{called}: repeat={repeat!r}; use one of {', '.join(get_args(Repeat))}")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"{called}: timeout={timeout!r}; it is in seconds and must be more than zero")


_OPTIONS = ("name", "description", "repeat", "sequential", "timeout", "approval")


def unknown_option(of: str, given: str, known: Any) -> str:
    """The sentence for an option there is not, with the nearest one there is."""
    import difflib

    close = difflib.get_close_matches(given, list(known), 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
    return f"{of} has no option {given!r}; {hint}"


def _refuse_generator(function: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"{_called(function)} is a generator; return one value, and show progress with ctx.progress(…)")


def _called(function: Any) -> str:
    place = place_of(function) if callable(function) else ""
    name = getattr(function, "__name__", repr(function))
    return f"{name} ({place})" if place else name


def _attach(function: Any, compiled: Tool) -> None:
    # A builtin or a bound method takes no attributes; it is then compiled each time it is named.
    try:
        setattr(function, ATTRIBUTE, compiled)
    except AttributeError:
        pass
