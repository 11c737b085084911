"""Carrying out one call: what the tool is given, how long it may take, and the one outcome that comes of it.

Laws. Whatever a tool does — raises, hangs, ignores being cancelled, returns nonsense — its call gets exactly one outcome.
What a call changed of the state is committed with its outcome or not at all. Progress is never shown after the outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from cairn.errors import Fenced, StepUnknown, ToolError
from cairn.harness import records as h
from cairn.harness.messages import ResultContent, Text
from cairn.harness.sandbox.protocol import ProcessInfo, Sandbox
from cairn.harness.state import Draft
from cairn.harness.tools import Tool, ToolResult, result_of
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.storage.store import Durability

logger = logging.getLogger("cairn.harness")

#: Characters of a progress text that are kept: its end, as a terminal would show.
PROGRESS_CHARACTERS = 4_096
#: Seconds between two progress records of one call: five a second look live and cost nothing.
PROGRESS_SECONDS = 0.2
#: Bytes of one call's result as it is recorded. The outcomes of parallel calls share a batch of at most 1 MB; twice what the
#: file tools return at most, and longer output belongs into a file the model can page through.
RESULT_BYTES = 100_000

Append = Callable[[Sequence[r.Record], Durability], Awaitable[object]]
RunSync = Callable[[Callable[[], Any]], Awaitable[Any]]


class LiveCall:
    """The `CallContext` of one running call or hook."""

    def __init__(
        self,
        fiber: Fiber,
        call: str,
        *,
        draft: Draft[Any] | None,
        sandbox: Sandbox | None,
        append: Append,
        run_sync: RunSync,
    ) -> None:
        self._fiber = fiber
        self._call = call
        self._draft = draft
        self._sandbox = sandbox
        self._append = append
        self._run_sync = run_sync
        self._progress: str | None = None
        self._shower: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def call(self) -> str:
        return self._call

    @property
    def key(self) -> str:
        return f"{self._fiber.instance.uid}:{self._fiber.id}:{self._call}"

    @property
    def conversation(self) -> str:
        return self._fiber.instance.address.id

    @property
    def draft(self) -> Draft[Any] | None:
        return self._draft

    @property
    def sandbox(self) -> Sandbox | None:
        return self._sandbox

    def progress(self, text: str) -> None:
        if self._closed:
            return
        self._progress = text[-PROGRESS_CHARACTERS:]
        if self._shower is None or self._shower.done():
            self._shower = asyncio.ensure_future(self._show())

    async def process_started(self, process: ProcessInfo) -> None:
        await self._append([h.ToolProcess(call=self._call, process=process)], Durability.DELTA)

    async def step(self, name: str, callback: Callable[[], Any], *, repeat: str = "safe") -> Any:
        return await self._fiber.step(name, callback, repeat=repeat, scope=self._call)  # type: ignore[arg-type]

    async def run_sync(self, callback: Callable[[], Any]) -> Any:
        return await self._run_sync(callback)

    async def close(self) -> None:
        """Show what is left to show; from now on nothing more."""
        self._closed = True
        if self._shower is not None:
            self._shower.cancel()
            await asyncio.gather(self._shower, return_exceptions=True)
        await self._show_now()

    async def _show(self) -> None:
        while self._progress is not None:
            await self._show_now()
            await self._fiber.instance.clock.sleep(PROGRESS_SECONDS)

    async def _show_now(self) -> None:
        text, self._progress = self._progress, None
        if text is not None:
            await self._append([h.ToolProgress(call=self._call, text=text)], Durability.DELTA)


async def bounded(work: Awaitable[Any], seconds: float, grace: float, name: str) -> Any:
    """The result of `work`, or TimeoutError after `seconds`. One that ignores being cancelled is abandoned after `grace`.

    *Cancelled*: the work is cancelled too and waited for no longer than `grace`.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            await _end(task, grace, name)
            raise TimeoutError
        return task.result()
    except asyncio.CancelledError:
        if not task.done():
            await _end(task, grace, name)
        raise


async def _end(task: asyncio.Future[Any], grace: float, name: str) -> None:
    task.cancel()
    _, pending = await asyncio.wait({task}, timeout=grace)
    if pending:
        logger.warning("%s ignores being cancelled for %g s; it is abandoned and may still run", name, grace)
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
    elif not task.cancelled():
        task.exception()


async def outcome_of(
    tool: Tool, live: LiveCall, arguments: dict[str, Any], seconds: float, grace: float
) -> tuple[h.CallOutcome, ToolResult]:
    """Run the tool and reduce whatever happens to an outcome. Raises only what ends the process's part: Fenced."""
    try:
        value = await bounded(tool.run(live, arguments), seconds, grace, f"tool '{tool.name}'")
    except (Fenced, asyncio.CancelledError):
        raise
    except TimeoutError:
        return "timeout", _error(f"The tool did not finish within {seconds:g} s and was stopped.")
    except ToolError as error:
        return "error", _error(str(error))
    except StepUnknown as error:
        return "unknown", _error(str(error))
    except Exception as error:
        logger.warning("tool '%s' raised %r", tool.name, error, exc_info=error)
        return "error", _error(f"{type(error).__name__}: {error}")
    finally:
        await live.close()
    result = result_of(tool.name, value)
    return ("error" if result.is_error else "ok"), result


def _error(text: str) -> ToolResult:
    return ToolResult((Text(text=text),), is_error=True)


def state_change(draft: Draft[Any] | None, versions: dict[str, int], scope: str) -> list[r.Record]:
    """What the draft changed, as a record. Raises UsageError for a value that cannot be stored."""
    changes = {} if draft is None else draft.changes()
    if not changes:
        return []
    encoded = {name: msgspec.Raw(value) for name, value in changes.items()}
    conflicts = draft.conflicts(versions) if draft is not None else ()
    return [r.StateChanged(changes=encoded, conflicts=conflicts, scope=scope)]


def bounded_content(content: tuple[ResultContent, ...]) -> tuple[ResultContent, ...]:
    """The content, cut to what one record may hold, saying so. Images are not counted: they are stored beside the record."""
    left = RESULT_BYTES
    kept: list[ResultContent] = []
    for block in content:
        if isinstance(block, Text):
            size = len(msgspec.json.encode(block.text))
            if size > left:
                shown = _cut(block.text, left)
                note = f"\n[{len(block.text) - len(shown):,} more characters were left out]"
                return (*kept, Text(text=shown + note))
            left -= size
        kept.append(block)
    return tuple(kept)


def _cut(text: str, size: int) -> str:
    """The longest start of `text` (within a factor of two) whose JSON has at most `size` bytes."""
    text = text[:size]
    while text and len(msgspec.json.encode(text)) > size:
        text = text[: len(text) // 2]
    return text


def details_of(result: ToolResult) -> msgspec.Raw:
    """Details for people; what is not JSON, or too long, is left out."""
    if result.details is None:
        return r.NULL
    try:
        encoded = msgspec.json.encode(result.details)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return r.NULL
    return msgspec.Raw(encoded) if len(encoded) <= RESULT_BYTES else r.NULL
