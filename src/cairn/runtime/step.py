"""One step of a fiber: run once, tried again as its policy says, answered by the log from then on.

Laws. What is recorded is asked first. Only a result or a final error ends a step; a failed try is a record of its own, and the
wait for the next one is a park like any other. A `keyed` or `never` step runs only after its intent is durable (S8); a
`never` step is begun once (S9).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from cairn.errors import Fenced, NonRetryable, StepFailed, StepUnknown, StoreError, UsageError
from cairn.runtime import records as r
from cairn.runtime.encoding import as_json
from cairn.runtime.fiber_state import StepState, retry_name, step_key
from cairn.runtime.storage.store import Durability

if TYPE_CHECKING:
    from cairn.runtime.fiber import Fiber

StepRepeat = Literal["safe", "keyed", "never"]


@dataclass(frozen=True, slots=True)
class Try:
    """What a step's callback is told when it takes an argument."""

    number: int
    """1 at the first try; tries that were interrupted are not counted."""
    key: str
    """The idempotency key: the same at every try of this step, different for every other step anywhere."""
    interrupted: bool
    """A process died during an earlier try: what that one did is unknown."""


StepCallback = Callable[[], Awaitable[Any] | Any] | Callable[[Try], Awaitable[Any] | Any]


@dataclass(frozen=True, slots=True)
class Step:
    """How one step is to be done."""

    name: str
    callback: StepCallback
    repeat: StepRepeat = "safe"
    scope: str = ""
    retry: r.Retry | None = None
    timeout: float | None = None
    announce: bool = False
    also: Callable[[], Sequence[r.Record]] = tuple
    blobs: Callable[[], Sequence[str]] = tuple
    """What the records of `also` refer to."""

    def __post_init__(self) -> None:
        if not callable(self.callback):
            hint = "; pass the function itself, or a lambda that calls it" if inspect.iscoroutine(self.callback) else ""
            raise UsageError(f"step '{self.name}' needs a function to call, not {self.callback!r}{hint}")
        if self.repeat not in (known := get_args(StepRepeat)):
            raise UsageError(f"step '{self.name}': repeat={self.repeat!r} is none of {', '.join(map(repr, known))}")
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"step '{self.name}': timeout={self.timeout!r} is no time; give seconds above 0, or None")
        if self.repeat == "never" and self.retry is not None:
            raise UsageError(
                f"step '{self.name}' is never repeated and has a retry policy; declare it repeat='keyed' and use its key, "
                f"or 'safe'"
            )

    @property
    def identity(self) -> str:
        return step_key(self.scope, self.name)


async def run_step(fiber: Fiber, step: Step) -> bytes:
    """The step's result as JSON, recorded before or now. *Raises* what `Fiber.step` says."""
    while True:
        known = fiber.state.steps.get(step.identity)
        if known is not None and known.done:
            return _recorded(step.name, known)
        if (wait := retry_name(step.scope, step.name)) in fiber.state.waits:
            await fiber.parking.wait(r.FiberWaiting(fiber=fiber.id, name=wait, at=0.0, on="retry"))
            continue
        with fiber.parking.working():
            found = await _try(fiber, step, known or StepState())
        if found is not None:
            return found


async def _try(fiber: Fiber, step: Step, known: StepState) -> bytes | None:
    """One try; None when it failed and is to be repeated later."""
    await _announce(fiber, step, known)
    try:
        result = await _call(fiber, step, known)
    except NonRetryable as error:
        await _complete(fiber, step, error=error_info(error))
        raise
    except (Fenced, StoreError):
        raise
    except Exception as error:
        if step.retry is None:
            raise
        await _failed(fiber, step, step.retry, known.tries + 1, error)
        return None
    encoded = as_json(f"what step '{step.name}' returned", result)
    await _complete(fiber, step, result=encoded)
    return bytes(encoded)


async def _announce(fiber: Fiber, step: Step, known: StepState) -> None:
    """The intent of what must not be repeated blindly is durable; of a safe step it is a note that survives the process."""
    if step.repeat == "never" and known.started_epoch is not None:
        raise StepUnknown(
            f"step '{step.name}' of fiber '{fiber.id}' was started by a process that died; whether it happened is unknown. "
            f"Find out, then settle it in code, or declare the step repeat='keyed' or 'safe'"
        )
    if step.repeat == "safe" and not step.announce:
        return
    epoch = fiber.instance.epoch
    started = r.StepStarted(fiber=fiber.id, name=step.name, scope=step.scope, repeat=step.repeat, epoch=epoch)
    durability = Durability.DELTA if step.repeat == "safe" else Durability.FACT
    if durability is Durability.FACT:
        await fiber.instance.together.append([started])
    else:
        await fiber.instance.append([started], durability=durability)


async def _call(fiber: Fiber, step: Step, known: StepState) -> Any:
    """What the callback returns. *Raises* TimeoutError, or StepUnknown for a `never` step that was cut off by its time."""
    callback: Callable[..., Any] = step.callback
    if takes_try(step.callback):
        told = Try(known.tries + 1, fiber.key(step.name, step.scope), known.started_epoch is not None)
        callback = partial(callback, told)
    if step.timeout is None:
        return await fiber.instance.threads.call_any(callback)
    try:
        async with asyncio.timeout(step.timeout) as limit:
            return await fiber.instance.threads.call_any(callback)
    except TimeoutError:
        if not limit.expired():
            raise
        text = f"step '{step.name}' took longer than its {step.timeout:g} s"
        if step.repeat == "never":
            raise StepUnknown(f"{text}; whether it happened is unknown") from None
        raise TimeoutError(text) from None


async def _failed(fiber: Fiber, step: Step, retry: r.Retry, tries: int, error: Exception) -> None:
    """Record the failed try, or that it was the last. *Raises* StepFailed."""
    info = error_info(error)
    if tries >= retry.attempts:
        text = f"step '{step.name}' failed {tries} times, the last time with {info.kind}: {info.message}"
        await _complete(fiber, step, error=r.ErrorInfo(kind=StepFailed.__name__, message=text))
        raise StepFailed(text) from error
    now = fiber.instance.clock.wall()
    until = now + retry.wait(tries, fiber.instance.ids.random())
    await fiber.instance.together.append(
        [r.StepTried(fiber=fiber.id, name=step.name, scope=step.scope, at=now, until=until, error=info)]
    )


async def _complete(fiber: Fiber, step: Step, *, result: msgspec.Raw = r.NULL, error: r.ErrorInfo | None = None) -> None:
    completed = r.StepCompleted(fiber=fiber.id, name=step.name, scope=step.scope, result=result, error=error)
    also, blobs = (step.also(), step.blobs()) if error is None else ((), ())
    await fiber.instance.together.append([completed, *also], blobs=blobs)


def _recorded(name: str, step: StepState) -> bytes:
    if step.error is not None and step.error.kind == StepFailed.__name__:
        raise StepFailed(step.error.message)
    if step.error is not None:
        raise NonRetryable(step.error.message)
    return bytes(step.result)


def takes_try(callback: Callable[..., Any]) -> bool:
    """Whether it wants to be told which try this is: it has a parameter without a default."""
    code = getattr(callback, "__code__", None)
    if code is not None and not hasattr(callback, "__self__"):
        return bool(code.co_argcount > len(callback.__defaults__ or ()))
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in positional and each.default is inspect.Parameter.empty for each in parameters)


def error_info(error: BaseException) -> r.ErrorInfo:
    kind = type(error).__name__
    return r.ErrorInfo(kind=kind, message=str(error) or kind, retryable=bool(getattr(error, "retryable", False)))
