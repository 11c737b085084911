"""Carrying out one call: what the tool is given, how long it may take, and the one outcome that comes of it.

Laws. Whatever a tool does — raises, hangs, ignores being cancelled, returns nonsense — its call gets exactly one outcome.
What a call changed of the state is committed with its outcome or not at all. Progress is never shown after the outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from cairn.errors import Fenced, StepUnknown, ToolError
from cairn.harness import records as h
from cairn.harness.messages import ResultContent, Text
from cairn.harness.sandbox.protocol import ProcessInfo, Sandbox
from cairn.harness.sizes import encoded_bytes, shortened
from cairn.harness.state import Draft
from cairn.harness.tools import Tool, ToolResult, encodable, result_of
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.method import seen
from cairn.runtime.storage.store import Durability

logger = logging.getLogger("cairn.harness")

#: Characters of a progress text that are kept: its end, as a terminal would show.
PROGRESS_CHARACTERS = 4_096
#: Seconds between two progress records of one call: five a second look live and cost nothing.
PROGRESS_SECONDS = 0.2
#: Bytes of one call's result as it is recorded, and of its details: twice what the file tools return at most. Longer output
#: belongs into a file the model can page through.
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
        extra: Mapping[str, Any] = {},
    ) -> None:
        self._fiber = fiber
        self._call = call
        self._draft = draft
        self._sandbox = sandbox
        self.has_returned = False
        """The tool came to its end by itself, with whatever result: what it did to files is kept."""
        self.kept: dict[str, bytes] = {}
        """Values that become the conversation's with the call's outcome."""
        self._append = append
        self._run_sync = run_sync
        self.extra = extra
        self._progress: str | None = None
        self._shown: dict[tuple[str, str], r.Record] = {}
        self._shower: asyncio.Task[None] | None = None
        self._showing = asyncio.Lock()
        self._closed = False
        self._loop = asyncio.get_running_loop()

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
        self._on_loop(lambda: self._take_progress(text))

    def show(self, name: str, value: bytes) -> None:
        record = h.DataShown(submission=self._submission, name=name, value=msgspec.Raw(value))
        self._on_loop(lambda: self._take(("data", name), record))

    def describe(self, values: bytes) -> None:
        record = h.MetadataShown(submission=self._submission, value=msgspec.Raw(values))
        # Each is merged into those before it: none replaces another.
        self._on_loop(lambda: self._take(("metadata", str(len(self._shown))), record))

    @property
    def _submission(self) -> str:
        """The submission this call is part of: the fiber's own, unless the fiber runs a hook after one."""
        return self._fiber.id

    def _on_loop(self, take: Callable[[], None]) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # a plain function in its thread
            self._loop.call_soon_threadsafe(take)
        else:
            take()

    def _take_progress(self, text: str) -> None:
        if not self._closed:
            self._progress = encodable(text[-PROGRESS_CHARACTERS:])
            self._begin_to_show()

    def _take(self, name: tuple[str, str], record: r.Record) -> None:
        if not self._closed:
            self._shown.pop(name, None)
            self._shown[name] = record
            self._begin_to_show()

    def _begin_to_show(self) -> None:
        if self._shower is None or self._shower.done():
            self._shower = asyncio.ensure_future(self._show())

    def keep(self, name: str, value: bytes) -> None:
        self.kept[name] = value

    async def process_started(self, process: ProcessInfo) -> None:
        await self._append([h.ToolProcess(call=self._call, process=process)], Durability.DELTA)

    async def step(self, name: str, callback: Callable[[], Any], *, repeat: str = "safe") -> Any:
        return await self._fiber.step(name, callback, repeat=repeat, scope=self._call)  # type: ignore[call-overload]

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
        while self._progress is not None or self._shown:
            # Shielded: what was taken to be shown would be lost with a cancellation before its turn to be written.
            showing = asyncio.ensure_future(self._show_now())
            showing.add_done_callback(seen)
            await asyncio.shield(showing)
            await self._fiber.instance.clock.sleep(PROGRESS_SECONDS)

    async def _show_now(self) -> None:
        async with self._showing:
            records, self._shown = list(self._shown.values()), {}
            text, self._progress = self._progress, None
            if text is not None:
                records.append(h.ToolProgress(call=self._call, text=text))
            if records:
                await self._append(records, Durability.DELTA)


class Overdue(Exception):
    """Work was stopped at its deadline. Not a TimeoutError: tools raise those of their own."""


async def bounded(work: Awaitable[Any], seconds: float, grace: float, name: str) -> Any:
    """The result of `work`, or Overdue after `seconds`. One that ignores being cancelled is abandoned after `grace`.

    *Cancelled*: the work is cancelled too and waited for no longer than `grace`; what it left to show (`tool_result` of its
    own CancelledError) is on the one raised here. *Raises* what the work raises, but a cancellation or an exit of its own as
    an ordinary error: neither is a reason for anybody else to stop.
    """
    task = asyncio.ensure_future(_contained(work, name))
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError as error:
        await _end(task, grace, name)
        error.tool_result = _left(task)  # type: ignore[attr-defined]
        raise
    if not done:
        await _end(task, grace, name)
        raise Overdue(f"{name} did not finish within {seconds:g} s and was stopped")
    if task.cancelled():
        raise RuntimeError(f"{name} was cancelled from inside")
    return task.result()


def _left(task: asyncio.Future[Any]) -> ToolResult | None:
    """What cancelled work had to show: a command's output so far, say."""
    if not task.cancelled():
        return None
    try:
        task.result()
    except asyncio.CancelledError as error:
        return getattr(error, "tool_result", None)
    return None


async def _contained(work: Awaitable[Any], name: str) -> Any:
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(f"{name} tried to end the process (exit {error.code})") from None


async def _end(task: asyncio.Future[Any], grace: float, name: str) -> None:
    task.add_done_callback(lambda late: late.cancelled() or late.exception())
    if not task.cancel():
        return
    _, pending = await asyncio.wait({task}, timeout=grace)
    if pending:
        logger.warning("%s ignores being cancelled for %g s; it is abandoned and may still run", name, grace)


async def outcome_of(
    tool: Tool, live: LiveCall, arguments: dict[str, Any], seconds: float, grace: float
) -> tuple[h.CallOutcome, ToolResult]:
    """Run the tool and reduce whatever happens to an outcome. Raises only what ends the process's part: Fenced."""
    try:
        value = await bounded(tool.run(live, arguments), seconds, grace, f"tool '{tool.name}'")
    except (Fenced, asyncio.CancelledError):
        raise
    except Overdue:
        return "timeout", error_result(f"The tool did not finish within {seconds:g} s and was stopped.")
    except ToolError as error:
        return "error", error_result(str(error))
    except StepUnknown as error:
        return "unknown", error_result(str(error))
    except Exception as error:
        logger.warning("tool '%s' raised %r", tool.name, error, exc_info=error)
        return "error", error_result(f"{type(error).__name__}: {error}")
    finally:
        await live.close()
    live.has_returned = True
    result = result_of(tool.name, value)
    return ("error" if result.is_error else "ok"), result


def error_result(text: str) -> ToolResult:
    """What the model is told when a call did not work."""
    return ToolResult((Text(text=encodable(text)),), is_error=True)


def state_change(
    draft: Draft[Any] | None, versions: dict[str, int], scope: str, kept: Mapping[str, bytes] = {}
) -> list[r.Record]:
    """What the draft changed, and what else is kept, as a record. Raises UsageError for a value that cannot be stored."""
    changes = {**({} if draft is None else draft.changes()), **kept}
    if not changes:
        return []
    encoded = {name: msgspec.Raw(value) for name, value in changes.items()}
    conflicts = draft.conflicts(versions) if draft is not None else ()
    return [r.StateChanged(changes=encoded, conflicts=conflicts, scope=scope)]


def fitting(content: tuple[ResultContent, ...] | str) -> tuple[ResultContent, ...]:
    """The content, cut to what one record may hold, saying so. Images are stored elsewhere and are left as they are."""
    left = RESULT_BYTES
    kept: list[ResultContent] = []
    for block in (Text(text=content),) if isinstance(content, str) else content:
        if isinstance(block, Text):
            size = encoded_bytes(block.text)
            if size > left:
                return (*kept, Text(text=shortened(block.text, left)))
            left -= size
        kept.append(block)
    return tuple(kept)


def details_of(result: ToolResult) -> msgspec.Raw:
    """Details for people; what is not JSON, or too long, is left out."""
    if result.details is None:
        return r.NULL
    try:
        encoded = msgspec.json.encode(result.details)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return r.NULL
    return msgspec.Raw(encoded) if len(encoded) <= RESULT_BYTES else r.NULL
