"""The loop: it asks the log where the submission is, does the next thing, and asks again.

There is one, in health as after a crash. It holds no flag across an await and tests no kind of record: `recovery.py` decides,
this file carries out. Actions that only add records are staged and asked about before they are committed; whatever reaches
outside (the model, a tool, a hook, a wait) happens after all that is staged is durable (S8, S10). So a sequential tool step
is two synced commits: [message.completed, tool.called] and [tool.outcome, turn.started].

An exception that leaves `run` is none of the model's or a tool's: the runner settles the submission as failed, or drops the
instance when the store is at fault, and the next claim recovers from the log (S9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from cairn.errors import ModelError
from cairn.harness import records as h
from cairn.harness import recovery
from cairn.harness.agent import Agent
from cairn.harness.attaching import AnotherSandbox, Attachment
from cairn.harness.attempt import Attempt, View
from cairn.harness.attempt import Services as Services
from cairn.harness.call_runner import CallRunner
from cairn.harness.context import declare, request, turn_notes
from cairn.harness.cut import Cut, CutReason
from cairn.harness.hook_runner import HookRunner
from cairn.harness.messages import Text
from cairn.harness.models.protocol import Model, ModelRequest
from cairn.harness.recovery import Action
from cairn.harness.settling import refuse_cut, reply_of, settle
from cairn.harness.sizes import BATCH_BYTES_MAX
from cairn.harness.submission import CallStatus, Control
from cairn.harness.turn import Response, TurnStream, recordable
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.state import Phase
from cairn.runtime.step import error_info
from cairn.runtime.storage.store import Durability

logger = logging.getLogger("cairn.harness")

#: Records that decisions may add before something reaches outside: a few for each call of a message, and the settlements of
#: all who joined. More is a circle in the table, and stops the instance instead of filling the memory.
STAGED_MAX = 10_000


class Loop:
    """One attempt at one submission."""

    def __init__(
        self,
        agent: Agent[Any],
        fiber: Fiber,
        services: Services,
        attachment: Attachment,
        current: Callable[[], Agent[Any]] | None = None,
    ) -> None:
        """`current` is asked at each turn which definition of the agent holds by now; a turn keeps the one it began with."""
        attempt = self._attempt = Attempt(agent, fiber, services, attachment, current)
        calls, hooks = CallRunner(attempt), HookRunner(attempt)
        self._pure: dict[Action, Callable[[View], list[r.Record]]] = {
            Action.TURN: self._start_turn,
            Action.CLOSE_PARTIAL: partial(self._close_partial, keep=True),
            Action.DROP_PARTIAL: partial(self._close_partial, keep=False),
            Action.PLAN_CALLS: calls.plan,
            Action.REFUSE_CALLS: lambda view: refuse_cut(view.control, attempt.now()),
            Action.CLOSE_CALLS: calls.close,
            Action.COMPLETE: partial(self._settle, kind="completed"),
            Action.FAIL: partial(self._settle, kind="failed"),
            Action.ABORT: partial(self._settle, kind="aborted"),
        }
        self._parks: dict[Action, Callable[[View], list[r.Record]]] = {Action.WAIT: self._park, Action.PARK: calls.park}
        self._effects: dict[Action, Callable[[asyncio.Future[CutReason]], Awaitable[list[r.Record]]]] = {
            Action.REQUEST: self._request,
            Action.RUN_CALLS: calls.run,
            Action.HEAR: hooks.hear,
            Action.ASK_STOP: hooks.ask_stop,
            Action.END_WAITS: calls.end_waits,
        }

    def close(self) -> None:
        """What its calls did to files and is not in the log never happened. *Idempotent*."""
        self._attempt.close()

    async def run(self) -> None:
        """Carry the submission on until the log says it is settled or parked.

        *Cancelled*: streams are closed, tools are cancelled; what was unfinished is decided at the next claim.
        """
        attempt = self._attempt
        if recovery.is_aside(attempt.conversation.control, attempt.fiber.id):
            await self._step_aside()
            return
        started = attempt.fiber.state.phase is not Phase.RUNNING
        staged: list[r.Record] = [r.FiberStarted(fiber=attempt.fiber.id, at=attempt.now())] if started else []
        if staged and attempt.instance.runtime.crashed and attempt.fiber.state.abort is None:
            # The agent's own code runs while the first turn is prepared. If that is what killed the owner before this one,
            # the attempt has to be durable first, or nobody would ever count it (L3). One that is only started to be aborted
            # runs beside the one at work: its start and its end are one commit, so that it is never the one at work.
            await attempt.commit(staged)
            staged = []
        await attempt.attach(attempt.expected_sandbox(attempt.view(staged)))
        await self._end_leftovers()
        while True:
            view = attempt.view(staged)
            action = self._decide(view)
            if action in recovery.PURE:
                try:
                    made = self._pure[action](view)
                except AnotherSandbox as needed:
                    if staged:
                        await attempt.commit(staged)
                    staged = []
                    await attempt.attach(needed.factory)
                    continue
                assert made, f"'{action.value}' of {attempt.fiber.id} added nothing, so it would be decided again for ever"
                staged += made
                assert len(staged) <= STAGED_MAX, (
                    f"{len(staged)} records of {attempt.fiber.id} lead to no effect: {action.value}"
                )
                continue
            if action in self._parks:
                staged += self._parks[action](view)
            if staged:
                await attempt.commit(staged)
                staged = []
            if action is Action.END or action in self._parks:
                return
            if self._decide(attempt.view()) is action:
                staged = await self._carry_out(action)

    def _decide(self, view: View) -> Action:
        return recovery.decide(recovery.situate(view.control, self._attempt.instance.runtime, self._attempt.given()))

    async def _carry_out(self, action: Action) -> list[r.Record]:
        attempt = self._attempt
        with Cut(attempt.instance, attempt.fiber.id, attempt.agent.limits.running_seconds) as cut:
            return await self._effects[action](cut)

    async def _step_aside(self) -> None:
        """Settle without a look at the work, which is another submission's. Only an abort starts one that is not at the
        head of the queue."""
        attempt = self._attempt
        why = r.ErrorInfo(kind="aborted", message=attempt.fiber.state.abort or "")
        await attempt.commit(settle([attempt.fiber.id], "aborted", why, attempt.now(), then=attempt.has_aftermath))

    async def _end_leftovers(self) -> None:
        """End what a former process of this host left running, before anything is decided about its calls."""
        attempt = self._attempt
        for call in attempt.conversation.control.calls:
            gone = call.status is CallStatus.CALLED and call.epoch != attempt.instance.epoch
            if gone and call.process is not None and attempt.sandbox is not None:
                await attempt.sandbox.reap(call.process)

    # --- actions that only add records

    def _start_turn(self, view: View) -> list[r.Record]:
        attempt, control = self._attempt, view.control
        attempt.renew()
        first = [control.submission] if control.submission not in control.included else []
        includes = tuple(id for id in (*first, *recovery.joining(control, attempt.instance.runtime)) if id)
        try:
            rendered = attempt.next_turn(view.values, (*control.included, *includes))
        except AnotherSandbox:
            raise
        except Exception as error:
            logger.exception("%r could not be rendered", attempt.agent)
            return attempt.settled(control, "failed", error_info(error))
        declared, told = declare(attempt.conversation, rendered, attempt.environment())
        turn = attempt.instance.ids.new("turn")
        attempt.begin_turn(turn, rendered)
        return [
            *declared,
            h.TurnStarted(
                submission=control.submission or "",
                turn=turn,
                message=attempt.instance.ids.new("msg"),
                epoch=attempt.instance.epoch,
                at=attempt.now(),
                model=rendered.model_spec,
                attempt=max(1, attempt.fiber.state.attempt),
                includes=includes,
                notes=(*turn_notes(control, includes), *told),
            ),
        ]

    def _close_partial(self, view: View, *, keep: bool) -> list[r.Record]:
        control = view.control
        halted, _ = self._attempt.halt(control)
        reason: Any = {recovery.Halt.ABORT: "abort", recovery.Halt.FAIL: "timeout"}.get(halted, "crash")
        return [self._interrupted(control, reason, keep and control.kept_text)]

    def _interrupted(self, control: Control, reason: Any, keep: bool) -> h.MessageInterrupted:
        return h.MessageInterrupted(
            submission=control.submission or "",
            turn=control.turn,
            message=control.message,
            reason=reason,
            keep=keep,
            at=self._attempt.now(),
        )

    def _settle(self, view: View, *, kind: r.Outcome) -> list[r.Record]:
        attempt, control = self._attempt, view.control
        if kind == "completed":
            said = "".join(block.text for block in view.content if isinstance(block, Text))
            text = attempt.conversation.said_before(control.message) + said
            return attempt.settled(control, kind, result=reply_of(text, control.message))
        halted, why = attempt.halt(control)
        error = why if halted is not recovery.Halt.NO else control.error
        if error is None:
            limit = attempt.agent.limits.length_continues
            error = r.ErrorInfo(kind="limit_length", message=f"the answer was cut off at its maximum length {limit + 1} times")
        return attempt.settled(control, kind, error)

    def _park(self, view: View) -> list[r.Record]:
        attempt = self._attempt
        name, until = f"retry:{view.control.turn}", view.control.retry_at
        return [r.FiberParked(fiber=attempt.fiber.id, name=name, at=attempt.now(), until=until)]

    # --- the model

    async def _request(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        """Ask the model; the deltas are in the log when this returns, how it ended is returned."""
        attempt = self._attempt
        control, begun = attempt.conversation.control, attempt.clock.monotonic()
        try:
            model, asked = await self._asked()
        except ModelError as error:
            response = Response(error=error)
        else:
            stream = TurnStream(attempt.clock, attempt.agent.limits, partial(attempt.commit, durability=Durability.DELTA))
            response = await stream.run(model, asked, control.message, cut)
        return self._responded(control, response, round((attempt.clock.monotonic() - begun) * 1000))

    async def _asked(self) -> tuple[Model, ModelRequest]:
        """The model and what it is asked. Raises ModelError when the agent or its model cannot be had."""
        attempt = self._attempt
        try:
            rendered = attempt.rendered()
            model = attempt.services.resolve(rendered.model)
        except ModelError:
            raise
        except Exception as error:
            logger.warning("%r cannot ask its model: %r", attempt.agent, error, exc_info=error)
            raise ModelError(str(error) or type(error).__name__, kind="invalid_request") from error
        asked = request(attempt.conversation, rendered, attempt.instance.uid)
        return model, await attempt.images.load(asked) if attempt.conversation.has_images else asked

    def _responded(self, control: Control, response: Response, duration_ms: int) -> list[r.Record]:
        completed = response.completed
        if completed is not None:
            record = h.MessageCompleted(
                submission=control.submission or "",
                turn=control.turn,
                message=control.message,
                content=recordable(completed.content, self._attempt.conversation.call_ids),
                stop=completed.stop,
                at=self._attempt.now(),
                model=completed.response_model or self._attempt.rendered().model_spec,
                usage=completed.usage,
                response_id=completed.response_id,
                duration_ms=duration_ms,
            )
            fault = _unrecordable(record)
            if fault is None:
                return [record]
            response.error = ModelError(fault, kind="invalid_request")
        elif response.cut is not None:
            return [self._interrupted(control, response.cut, keep=False)]
        assert response.error is not None
        return self._failed(control, response, response.error)

    def _failed(self, control: Control, response: Response, error: ModelError) -> list[r.Record]:
        attempt, wait = self._attempt, None
        if error.retryable:
            chance = attempt.instance.ids.random()
            wait = attempt.agent.limits.retry_seconds(control.failures + 1, chance, error.retry_after)
        info = r.ErrorInfo(kind=error.kind, message=str(error), status=error.status, retryable=error.retryable)
        failed = h.TurnFailed(
            submission=control.submission or "",
            turn=control.turn,
            message=control.message,
            error=info,
            at=attempt.now(),
            retry_at=None if wait is None else attempt.now() + wait,
        )
        if not response.started:
            return [failed]
        reason = "stall" if error.kind == "timeout" else "cut"
        return [self._interrupted(control, reason, keep=wait is not None and response.text), failed]


def _unrecordable(record: h.MessageCompleted) -> str | None:
    """Why the response cannot become a record, if it cannot."""
    try:
        size = len(r.encode([record]))
    except (TypeError, ValueError, RecursionError) as error:
        return f"the response cannot be recorded: {error}"
    return None if size <= BATCH_BYTES_MAX else "the response is larger than a record may be (1 MB)"
