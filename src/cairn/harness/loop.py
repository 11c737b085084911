"""The loop: it asks the log where the submission is, does the next thing, and asks again.

There is one, in health as after a crash. It holds no flag across an await and tests no kind of record: `recovery.py` decides,
this file carries out. Actions that only add records are staged and asked about before they are committed; whatever reaches
outside (the model, a tool, a hook, a wait) happens after all that is staged is durable (S8, S10). So a sequential tool step
is two synced commits: [message.completed, tool.called] and [tool.outcome, turn.started].

An exception that leaves `run` leaves the instance too: the runner drops it, and the next claim recovers from the log (S9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from cairn.errors import CairnError, Fenced, ModelError
from cairn.harness import records as h
from cairn.harness import recovery
from cairn.harness.agent import Agent
from cairn.harness.batch import startable
from cairn.harness.calls import LiveCall, bounded, bounded_content, details_of, outcome_of, state_change
from cairn.harness.context import declare, request, turn_notes
from cairn.harness.conversation import Conversation
from cairn.harness.cut import Cut, CutReason
from cairn.harness.hooks import Hook, Received, Stopping
from cairn.harness.images import Images, blobs_of
from cairn.harness.messages import Content, ResultContent, Text, ToolCall
from cairn.harness.models.protocol import Model
from cairn.harness.recovery import Action, Given
from cairn.harness.sandbox.protocol import Sandbox
from cairn.harness.settling import close_calls, outcome, refuse_cut, settle
from cairn.harness.submission import CallState, CallStatus, Control
from cairn.harness.tools import Tool
from cairn.harness.turn import Response, TurnStream
from cairn.harness.turn_view import Rendered
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber, error_info
from cairn.runtime.state import Phase
from cairn.runtime.storage.store import Durability

logger = logging.getLogger("cairn.harness")

#: Bytes of one finished message: a batch holds at most 1 MB, and this one carries the intents with their arguments too.
MESSAGE_BYTES_MAX = 450_000
#: Outcomes of parallel calls that share one batch (100 KB each at most).
OUTCOMES_PER_BATCH = 8


@dataclass(frozen=True, slots=True)
class Services:
    """What the loop is given by whoever embeds it."""

    resolve: Callable[[str | Model], Model]
    committed: Callable[[Any, int, Sequence[r.Record]], None] = lambda instance, ordinal, records: None
    """Told after each commit, in order; must not raise and must not wait."""


@dataclass(slots=True)
class View:
    """Where staged records would lead."""

    control: Control
    values: dict[str, msgspec.Raw]
    content: tuple[Content, ...]
    """Of the message the submission is at, when it is finished."""


class Loop:
    """One attempt at one submission."""

    def __init__(
        self, agent: Agent[Any], fiber: Fiber, services: Services, sandbox: Sandbox | None, sandbox_tools: Sequence[Tool]
    ) -> None:
        self.agent = agent
        self.fiber = fiber
        self.instance = fiber.instance
        self.clock = fiber.instance.clock
        self.services = services
        self.sandbox = sandbox
        self.sandbox_tools = tuple(sandbox_tools)
        self.conversation: Conversation = fiber.instance.state
        self._rendered: tuple[str, Rendered] | None = None
        self._images = Images(fiber.instance.store, fiber.instance.address.tenant)
        self._pure: dict[Action, Callable[[View], list[r.Record]]] = {
            Action.TURN: self._start_turn,
            Action.CLOSE_PARTIAL: partial(self._close_partial, keep=True),
            Action.DROP_PARTIAL: partial(self._close_partial, keep=False),
            Action.PLAN_CALLS: self._plan_calls,
            Action.REFUSE_CALLS: lambda view: refuse_cut(view.control, self._now()),
            Action.CLOSE_CALLS: self._close_calls,
            Action.COMPLETE: partial(self._settle, kind="completed"),
            Action.FAIL: partial(self._settle, kind="failed"),
            Action.ABORT: partial(self._settle, kind="aborted"),
        }
        self._effects: dict[Action, Callable[[asyncio.Future[CutReason]], Awaitable[list[r.Record]]]] = {
            Action.REQUEST: self._request,
            Action.RUN_CALLS: self._run_calls,
            Action.HEAR: self._hear,
            Action.ASK_STOP: self._ask_stop,
        }

    async def run(self) -> None:
        """Carry the submission on until the log says it is settled or parked.

        *Cancelled*: streams are closed, tools are cancelled; what was unfinished is decided at the next claim.
        """
        await self._end_leftovers()
        started = self.fiber.state.phase is not Phase.RUNNING
        staged: list[r.Record] = [r.FiberStarted(fiber=self.fiber.id, at=self._now())] if started else []
        if staged and self.instance.runtime.crashed:
            # The agent's own code runs while the first turn is prepared. If that is what killed the owner before this one,
            # the attempt has to be durable first, or nobody would ever count it (L3).
            await self._commit(staged)
            staged = []
        while True:
            view = self._view(staged)
            action = self._decide(view)
            if action in recovery.PURE:
                staged += self._pure[action](view)
                continue
            if action is Action.WAIT:
                staged.append(self._park(view))
            if staged:
                await self._commit(staged)
                staged = []
            if action in (Action.WAIT, Action.END):
                return
            if self._decide(self._view(staged)) is action:
                staged = await self._carry_out(action)

    # --- deciding

    def _now(self) -> float:
        return self.clock.wall()

    def _given(self) -> Given:
        agent = self.agent
        return Given(
            now=self._now(),
            epoch=self.instance.epoch,
            limits=agent.limits,
            hears=bool(agent.message_hooks),
            stops=bool(agent.stop_hooks),
        )

    def _view(self, staged: list[r.Record]) -> View:
        control = self.conversation.control.copy()
        for record in staged:
            control.apply(record)
        return View(control, self.conversation.values_after(staged), self.conversation.content_after(staged))

    def _decide(self, view: View) -> Action:
        return recovery.decide(recovery.situate(view.control, self.instance.runtime, self._given()))

    async def _commit(self, records: Sequence[r.Record], durability: Durability = Durability.FACT) -> None:
        ordinal = await self.instance.append(records, durability=durability, blobs=blobs_of(records))
        self.services.committed(self.instance, ordinal, records)

    # --- actions that only add records

    def _start_turn(self, view: View) -> list[r.Record]:
        control = view.control
        try:
            rendered = self._render(view.values)
        except Exception as error:
            logger.exception("%r could not be rendered", self.agent)
            return settle(control, "", "failed", error_info(error), self._now(), then=self._then)
        declared, told = declare(self.conversation, rendered)
        turn = self.instance.ids.new("turn")
        first = [control.submission] if control.submission not in control.included else []
        joining = recovery.joining(control, self.instance.runtime)
        self._rendered = (turn, rendered)
        return [
            *declared,
            h.TurnStarted(
                submission=control.submission or "",
                turn=turn,
                message=self.instance.ids.new("msg"),
                epoch=self.instance.epoch,
                at=self._now(),
                model=rendered.model_spec,
                attempt=max(1, self.fiber.state.attempt),
                includes=tuple(id for id in (*first, *joining) if id),
                notes=(*turn_notes(control), *told),
            ),
        ]

    def _close_partial(self, view: View, *, keep: bool) -> list[r.Record]:
        control = view.control
        halted, _ = self._halt(control)
        reason: Any = {recovery.Halt.ABORT: "abort", recovery.Halt.FAIL: "timeout"}.get(halted, "crash")
        return [self._interrupted(control, reason, keep and control.kept_text)]

    def _interrupted(self, control: Control, reason: Any, keep: bool) -> h.MessageInterrupted:
        return h.MessageInterrupted(
            submission=control.submission or "",
            turn=control.turn,
            message=control.message,
            reason=reason,
            keep=keep,
            at=self._now(),
        )

    def _plan_calls(self, view: View) -> list[r.Record]:
        """Intents of the calls that may begin now; a call that cannot be made has its outcome at once."""
        control, records = view.control, list[r.Record]()
        blocks = {block.id: block for block in view.content if isinstance(block, ToolCall)}
        rendered = self._rendered_for(control.turn)
        rules = {tool.name: tool.sequential for tool in rendered.tools}
        for call in startable(control.calls, lambda name: rules.get(name, False), self.agent.limits.parallel_tools):
            tool = rendered.tool(call.name)
            if tool is None:
                known = ", ".join(tool.name for tool in rendered.tools) or "none"
                text = f"There is no tool named '{call.name}'. Available tools: {known}."
                records.append(outcome(control, call, "error", text, self._now()))
                continue
            try:
                records.append(self._called(control, call, tool, blocks[call.id]))
            except ValueError as error:
                records.append(outcome(control, call, "error", str(error), self._now()))
        return records

    def _called(self, control: Control, call: CallState, tool: Tool, block: ToolCall) -> h.ToolCalled:
        if block.arguments_error is not None:
            raise ValueError(f"The arguments of this call could not be read: {block.arguments_error}")
        return h.ToolCalled(
            submission=control.submission or "",
            turn=control.turn,
            call=call.id,
            name=call.name,
            arguments=msgspec.Raw(msgspec.json.encode(tool.validate(block.arguments))),
            repeat=tool.repeat,
            epoch=self.instance.epoch,
            at=self._now(),
        )

    def _close_calls(self, view: View) -> list[r.Record]:
        halted, _ = self._halt(view.control)
        return close_calls(view.control, self.instance.epoch, halted is not recovery.Halt.NO, self._now())

    def _settle(self, view: View, *, kind: r.Outcome) -> list[r.Record]:
        halted, why = self._halt(view.control)
        error = why if halted is not recovery.Halt.NO else view.control.error
        if kind == "failed" and error is None:
            limit = self.agent.limits.length_continues
            error = r.ErrorInfo(kind="limit_length", message=f"the answer was cut off at its maximum length {limit + 1} times")
        error = None if kind == "completed" else error
        said = "".join(block.text for block in view.content if isinstance(block, Text))
        text = self.conversation.said_before(view.control.message) + said if kind == "completed" else ""
        return settle(view.control, text, kind, error, self._now(), then=self._then)

    def _park(self, view: View) -> r.FiberParked:
        return r.FiberParked(
            fiber=self.fiber.id, name=f"retry:{view.control.turn}", at=self._now(), until=view.control.retry_at
        )

    @property
    def _then(self) -> bool:
        return bool(self.agent.settled_hooks)

    def _halt(self, control: Control) -> tuple[recovery.Halt, r.ErrorInfo | None]:
        return recovery.halt(control, self.fiber.state, self._given())

    # --- actions that reach outside

    async def _carry_out(self, action: Action) -> list[r.Record]:
        with Cut(self.instance, self.fiber.id, self.agent.limits.running_seconds) as cut:
            return await self._effects[action](cut)

    async def _request(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        """Ask the model; the deltas are in the log when this returns, how it ended is returned."""
        control, begun = self.conversation.control, self.clock.monotonic()
        rendered = self._rendered_for(control.turn)
        stream = TurnStream(self.clock, self.agent.limits, partial(self._commit, durability=Durability.DELTA))
        try:
            model = self.services.resolve(rendered.model)
            asked = request(self.conversation, rendered, self.instance.uid)
            if self.conversation.has_images:
                asked = await self._images.load(asked)
            response = await stream.run(model, asked, control.message, cut)
        except (ModelError, CairnError) as error:
            if isinstance(error, Fenced):
                raise
            failed = error if isinstance(error, ModelError) else ModelError(str(error), kind="invalid_request")
            response = Response(error=failed)
        return self._responded(control, response, round((self.clock.monotonic() - begun) * 1000))

    def _responded(self, control: Control, response: Response, duration_ms: int) -> list[r.Record]:
        completed = response.completed
        if completed is not None:
            record = h.MessageCompleted(
                submission=control.submission or "",
                turn=control.turn,
                message=control.message,
                content=completed.content,
                stop=completed.stop,
                at=self._now(),
                model=completed.response_model or self._rendered_for(control.turn).model_spec,
                usage=completed.usage,
                response_id=completed.response_id,
                duration_ms=duration_ms,
            )
            if len(r.encode([record])) <= MESSAGE_BYTES_MAX:
                return [record]
            response.error = ModelError(
                f"the response is larger than a record may be ({MESSAGE_BYTES_MAX:,} bytes)", kind="invalid_request"
            )
        if response.cut is not None:
            return [self._interrupted(control, response.cut, keep=False)]
        assert response.error is not None
        return self._failed(control, response, response.error)

    def _failed(self, control: Control, response: Response, error: ModelError) -> list[r.Record]:
        wait = None
        if error.retryable:
            chance = self.instance.ids.random()
            wait = self.agent.limits.retry_seconds(control.failures + 1, chance, error.retry_after)
        info = r.ErrorInfo(kind=error.kind, message=str(error), status=error.status, retryable=error.retryable)
        failed = h.TurnFailed(
            submission=control.submission or "",
            turn=control.turn,
            message=control.message,
            error=info,
            at=self._now(),
            retry_at=None if wait is None else self._now() + wait,
        )
        if not response.started:
            return [failed]
        reason = "stall" if error.kind == "timeout" else "cut"
        return [self._interrupted(control, reason, keep=wait is not None and response.text), failed]

    async def _run_calls(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        """Run the called calls; each outcome is committed as it comes, with the intents of what may begin next (P4, F4).
        The last one is returned, so that the next turn rides in its batch."""
        running: dict[asyncio.Task[list[r.Record]], CallState] = {}
        try:
            while True:
                for call in self.conversation.control.calls:
                    if call.status is CallStatus.CALLED and all(call.id != other.id for other in running.values()):
                        running[asyncio.create_task(self._run_call(call))] = call
                if not running:
                    return []
                wanted: set[asyncio.Future[Any]] = {*running, cut}
                await asyncio.wait(wanted, return_when=asyncio.FIRST_COMPLETED)
                if cut.done():
                    return await self._cut_calls(running)
                finished = [task for task in running if task.done()][:OUTCOMES_PER_BATCH]
                records = [record for task in finished for record in task.result()]
                for task in finished:
                    del running[task]
                planned = self._plan_more(records)
                if not running and planned is None:
                    return records
                await self._commit([*records, *(planned or [])])
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _plan_more(self, records: list[r.Record]) -> list[r.Record] | None:
        """Intents of planned calls that may begin after these records; None when there are none left to plan."""
        view = self._view(records)
        if all(call.status is not CallStatus.PLANNED for call in view.control.calls):
            return None
        return self._plan_calls(view)

    async def _run_call(self, call: CallState) -> list[r.Record]:
        started = self.clock.monotonic()
        limits = self.agent.limits
        tool = self._rendered_for(self.conversation.control.turn).tool(call.name)
        if tool is None:
            text = f"The tool '{call.name}' no longer exists; whether this call took effect before is unknown."
            return [outcome(self.conversation.control, call, "unknown", text, self._now())]
        live = self._live(call.id)
        arguments = msgspec.json.decode(self.conversation.arguments[call.id])
        seconds = tool.timeout_seconds or limits.tool_seconds
        kind, result = await outcome_of(tool, live, arguments, seconds, limits.abort_seconds)
        changes: list[r.Record] = []
        try:
            changes = state_change(live.draft, self.conversation.versions, call.id) if kind == "ok" else []
        except CairnError as error:
            kind, result = "error", type(result)(str(error), is_error=True)
        content = result.content if isinstance(result.content, tuple) else (Text(text=result.content),)
        stored: tuple[ResultContent, ...] = await self._images.store(bounded_content(content))
        record = h.ToolOutcome(
            submission=self.conversation.control.submission or "",
            turn=self.conversation.control.turn,
            call=call.id,
            name=call.name,
            outcome=kind,
            content=stored,
            at=self._now(),
            terminate=result.terminate and kind == "ok",
            details=details_of(result),
            duration_ms=round((self.clock.monotonic() - started) * 1000),
        )
        return [record, *changes]

    async def _cut_calls(self, running: dict[asyncio.Task[list[r.Record]], CallState]) -> list[r.Record]:
        """The run must stop: running calls are cancelled, the finished ones keep their outcome, the rest get one."""
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=self.agent.limits.abort_seconds + 1.0)
        records = [record for task in running if task.done() and not task.cancelled() for record in task.result()]
        return [*records, *self._close_calls(self._view(records))]

    async def _hear(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        control = self.conversation.control
        pending = [id for id in (control.submission, *recovery.joining(control, self.instance.runtime)) if id]
        unheard = next(id for id in pending if id not in control.heard and id not in control.included)
        message = self.conversation.message_of(unheard)
        text = self.conversation.entry(f"msg_{unheard}").text
        event = Received(submission=unheard, message=message, text=text)
        return await self._hooks(self.agent.message_hooks, "on_message", unheard, event, cut)

    async def _ask_stop(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        control = self.conversation.control
        event = Stopping(
            submission=self.fiber.id,
            text=self.conversation.said_before(control.message) + self.conversation.entry(control.message).text,
            calls=tuple(self.conversation.calls_of(self.fiber.id)),
            continues=control.continues,
        )
        return await self._hooks(self.agent.stop_hooks, "on_stop", control.turn, event, cut)

    async def _hooks(
        self, hooks: Sequence[Hook], seam: Any, of: str, event: Any, cut: asyncio.Future[CutReason]
    ) -> list[r.Record]:
        """Run the hooks of a seam one after the other; one record says that they have run."""
        texts: list[str] = []
        live = self._live(f"{seam}:{of}")
        limits = self.agent.limits
        try:
            for hook in hooks:
                work = asyncio.ensure_future(
                    bounded(hook.run(live, event), limits.hook_seconds, limits.abort_seconds, hook.name)
                )
                either: set[asyncio.Future[Any]] = {work, cut}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    work.cancel()
                    await asyncio.wait({work}, timeout=limits.abort_seconds + 1.0)
                    return []
                texts += [text] if (text := work.result()) else []
            changes = state_change(live.draft, self.conversation.versions, live.call)
        except (Fenced, asyncio.CancelledError):
            raise
        except Exception as error:
            logger.warning("%s of %r raised %r", seam, self.agent, error, exc_info=error)
            info = r.ErrorInfo(kind=f"{seam}_failed", message=f"{type(error).__name__}: {error}")
            return settle(self.conversation.control, "", "failed", info, self._now(), then=self._then)
        finally:
            await live.close()
        done = h.HookCompleted(
            submission=self.fiber.id, hook=seam, of=of, at=self._now(), text="\n\n".join(texts) if texts else None
        )
        return [done, *changes]

    # --- what they share

    def _render(self, values: dict[str, msgspec.Raw]) -> Rendered:
        return self.agent.render(values, conversation=self.instance.address.id, sandbox_tools=self.sandbox_tools)

    def _rendered_for(self, turn: str) -> Rendered:
        if self._rendered is None or self._rendered[0] != turn:
            self._rendered = (turn, self._render(self.conversation.values))
        return self._rendered[1]

    def _live(self, call: str) -> LiveCall:
        return LiveCall(
            self.fiber,
            call,
            draft=self.agent.draft(self.conversation.values, self.conversation.versions),
            sandbox=self.sandbox,
            append=self._commit,
            run_sync=self.instance.threads.call,
        )

    async def _end_leftovers(self) -> None:
        """End what a former process of this host left running, before anything is decided about its calls."""
        for call in self.conversation.control.calls:
            gone = call.status is CallStatus.CALLED and call.epoch != self.instance.epoch
            if gone and call.process is not None and self.sandbox is not None:
                await self.sandbox.reap(call.process)
