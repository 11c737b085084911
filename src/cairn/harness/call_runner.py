"""The calls of one message at work: their intents, as many at a time as may run, and the outcome of each as it comes.

Laws. A call runs after its intent is durable (S8); one that asks waits without a task (call_questions.py). Each outcome is
committed when it is there, whatever its siblings do (P4, F4); the last one is left to the loop, so that the next turn rides in
its batch. Whatever happens to the run, every call of the message ends up with exactly one outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from cairn.errors import CairnError
from cairn.harness import records as h
from cairn.harness.attempt import Attempt, View
from cairn.harness.batch import startable
from cairn.harness.call_questions import CallQuestions, Leave
from cairn.harness.calls import details_of, error_result, fitting, outcome_of, state_change
from cairn.harness.cut import CutReason
from cairn.harness.messages import Text, ToolCall
from cairn.harness.recovery import Halt
from cairn.harness.render import STOPPED_ABORTED
from cairn.harness.settling import close_calls, outcome
from cairn.harness.sizes import BATCH_BYTES_MAX
from cairn.harness.submission import CallState, CallStatus, Control
from cairn.harness.tools import Tool, ToolResult
from cairn.runtime import records as r

#: Seconds beyond the grace of a cancelled tool in which its outcome has to be there: what follows it is our own code.
OUTCOME_SECONDS = 1.0

#: Says that a call is cancelled because its run was cut, and not because the process stops.
CUT = "cut"

Running = dict[asyncio.Task[list[r.Record]], CallState]


class CallRunner:
    """Runs the calls of the message an attempt is at."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._questions = CallQuestions(attempt)
        self.park = self._questions.park
        self.end_waits = self._questions.end_waits

    # --- records

    def plan(self, view: View) -> list[r.Record]:
        """Intents of the calls that may begin now, questions of those that ask, and the outcome of what has been answered; a
        call that cannot be made has its outcome at once."""
        attempt, blocks = self._attempt, {block.id: block for block in view.content if isinstance(block, ToolCall)}
        # What is recorded here counts for what is decided after it.
        control, records = view.control.copy(), list[r.Record]()

        def add(*made: r.Record) -> None:
            records.extend(made)
            for record in made:
                control.apply(record)

        tools = {tool.name: tool for tool in attempt.rendered().tools}
        for call in [call for call in control.calls if call.status is CallStatus.PLANNED]:
            tool = tools.get(call.name)
            if tool is not None and tool.asks is not None:
                try:
                    add(*self._questions.ask(control, call, tool, self._arguments(tool, blocks[call.id])))
                except ValueError as error:
                    add(outcome(control, call, "error", str(error), attempt.now()))
        add(*self._questions.take(control))
        rules = {tool.name: tool.sequential for tool in tools.values()}
        approved = self._questions.approved(control)
        limit = attempt.agent.limits.parallel_tools
        for call in startable(control.calls, lambda name: rules.get(name, False), limit, approved):
            add(self._begun(control, call, tools.get(call.name), tools, blocks[call.id], approved.get(call.id)))
        return records

    def _begun(
        self,
        control: Control,
        call: CallState,
        tool: Tool | None,
        tools: Mapping[str, Tool],
        block: ToolCall,
        leave: Leave | None,
    ) -> r.Record:
        """The intent of one call, or its outcome if it cannot be made."""
        now = self._attempt.now()
        if tool is None and leave is not None:
            text = f"The tool '{call.name}' no longer exists; this call was approved, and was not made."
            return outcome(control, call, "error", text, now)
        if tool is None:
            text = f"There is no tool named '{call.name}'. Available tools: {', '.join(tools) or 'none'}."
            return outcome(control, call, "error", text, now)
        try:
            arguments = leave.arguments if leave is not None else self._arguments(tool, block)
        except ValueError as error:
            return outcome(control, call, "error", str(error), now)
        return h.ToolCalled(
            submission=control.submission or "",
            turn=control.turn,
            call=call.id,
            name=call.name,
            arguments=arguments,
            repeat=tool.repeat,
            epoch=self._attempt.instance.epoch,
            at=now,
            by=leave.by if leave is not None else "",
            answer=leave.answer if leave is not None else "",
        )

    @staticmethod
    def _arguments(tool: Tool, block: ToolCall) -> msgspec.Raw:
        """Coerced and checked. Raises ValueError with a text for the model."""
        if block.arguments_error is not None:
            raise ValueError(f"The arguments of this call could not be read: {block.arguments_error}")
        return msgspec.Raw(msgspec.json.encode(tool.validate(block.arguments)))

    def close(self, view: View) -> list[r.Record]:
        """The outcome of every call that will not run (any more)."""
        halted, _ = self._attempt.halt(view.control)
        return close_calls(view.control, self._attempt.instance.epoch, halted is not Halt.NO, self._attempt.now())

    # --- work

    async def run(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        """Run the called calls, and those that may begin after them, until each has its outcome or the run is cut."""
        running: Running = {}
        known: set[str] = set()
        try:
            while True:
                self._start(running)
                if not running:
                    return []
                with self._questions.watch(known) as news:
                    wanted: set[asyncio.Future[Any]] = {*running, cut, news}
                    await asyncio.wait(wanted, return_when=asyncio.FIRST_COMPLETED)
                if cut.done():
                    return await self._stop(running)
                if news.done():
                    await self.end_waits(cut)
                finished = [task for task in running if task.done()]
                records = [record for task in finished for record in task.result()]
                for task in finished:
                    del running[task]
                known = self._questions.ended()
                planned = self._plan_more(records)
                if not running and planned is None:
                    return records
                if records or planned:
                    await self._attempt.commit([*records, *(planned or [])])
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _start(self, running: Running) -> None:
        busy = {call.id for call in running.values()}
        for call in self._attempt.conversation.control.calls:
            if call.status is CallStatus.CALLED and call.id not in busy:
                running[asyncio.create_task(self._run_call(call))] = call

    def _plan_more(self, records: list[r.Record]) -> list[r.Record] | None:
        """Intents of planned calls that may begin after these records; None when there are none left to plan."""
        view = self._attempt.view(records)
        is_planned = any(call.status is CallStatus.PLANNED for call in view.control.calls)
        return self.plan(view) if is_planned or self._questions.ended(view.control) else None

    async def _stop(self, running: Running) -> list[r.Record]:
        """Running calls are cancelled; those that have finished keep their outcome, the rest get one."""
        for task in running:
            task.cancel(CUT)
        await asyncio.wait(running, timeout=self._attempt.agent.limits.abort_seconds + OUTCOME_SECONDS)
        records = [record for task in running if task.done() and not task.cancelled() for record in task.result()]
        return [*records, *self.close(self._attempt.view(records))]

    async def _run_call(self, call: CallState) -> list[r.Record]:
        attempt = self._attempt
        started, limits = attempt.clock.monotonic(), attempt.agent.limits
        tool = attempt.rendered().tool(call.name)
        if tool is None:
            text = f"The tool '{call.name}' no longer exists; whether this call took effect before is unknown."
            return [outcome(attempt.conversation.control, call, "unknown", text, attempt.now())]
        files = attempt.files(call.id)
        live = attempt.live(call.id, files)
        arguments = msgspec.json.decode(attempt.conversation.arguments[call.id])
        seconds = tool.timeout_seconds or limits.tool_seconds
        try:
            kind, result = await outcome_of(tool, live, arguments, seconds, limits.abort_seconds)
        except asyncio.CancelledError as error:
            left: ToolResult | None = getattr(error, "tool_result", None)
            if left is None or CUT not in error.args:
                raise
            kind, result = "aborted", _stopped(left)
        changes: list[r.Record] = []
        try:
            changes = state_change(live.draft, attempt.conversation.versions, call.id, live.kept) if kind == "ok" else []
            if files is not None and live.has_returned:
                changes += await files.stage()
        except CairnError as error:
            changes = []
            kind, result = "error", error_result(str(error))
        duration_ms = round((attempt.clock.monotonic() - started) * 1000)
        records = [await self._outcome(call, kind, result, duration_ms), *changes]
        if changes and len(r.encode(records)) > BATCH_BYTES_MAX:
            text = "The tool ran, but what it put into the state is larger than a record may be (1 MB); nothing of it was kept."
            if files is not None:
                files.drop()
            return [await self._outcome(call, "error", error_result(text), duration_ms)]
        return records

    async def _outcome(self, call: CallState, kind: h.CallOutcome, result: ToolResult, duration_ms: int) -> h.ToolOutcome:
        attempt = self._attempt
        content = fitting(result.content)
        return h.ToolOutcome(
            submission=attempt.conversation.control.submission or "",
            turn=attempt.conversation.control.turn,
            call=call.id,
            name=call.name,
            outcome=kind,
            content=await attempt.images.store(content),
            at=attempt.now(),
            terminate=result.terminate and kind == "ok",
            details=details_of(result),
            duration_ms=duration_ms,
            is_value=result.is_value and content == result.content,
        )


def _stopped(left: ToolResult) -> ToolResult:
    """The outcome of a call that was stopped and had something to show."""
    shown = (Text(text=left.content),) if isinstance(left.content, str) else left.content
    return ToolResult((Text(text=STOPPED_ABORTED), *shown), is_error=True, details=left.details)
