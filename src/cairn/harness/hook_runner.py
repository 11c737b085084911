"""Hooks at work: what stands at a seam of a submission is run, one after the other, and one record says that it has run.

Laws. A hook runs at least once and its outcome is a fact before anything depends on it; what it changed of the state is
committed with it or not at all. It cannot hold a run up: it has a deadline and gives way to the cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Literal

from cairn.errors import Fenced
from cairn.harness import records as h
from cairn.harness import recovery
from cairn.harness.attempt import Attempt
from cairn.harness.call_runner import OUTCOME_SECONDS
from cairn.harness.calls import LiveCall, bounded, state_change
from cairn.harness.cut import CutReason
from cairn.harness.hooks import Hook, Received, Stopping
from cairn.harness.settling import settle
from cairn.harness.tools import encodable
from cairn.runtime import records as r

logger = logging.getLogger("cairn.harness")


class HookRunner:
    """Runs the hooks of an attempt's agent."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def hear(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        """`on_message`, for the oldest message it has not run for."""
        attempt, conversation = self._attempt, self._attempt.conversation
        control = conversation.control
        pending = [id for id in (control.submission, *recovery.joining(control, attempt.instance.runtime)) if id]
        unheard = next(id for id in pending if id not in control.heard and id not in control.included)
        event = Received(
            submission=unheard,
            message=conversation.message_of(unheard),
            text=conversation.delivery_of(unheard).body,
        )
        return await self._run(attempt.agent.message_hooks, "on_message", unheard, event, cut)

    async def ask_stop(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        """`on_stop`, for the answer that is there."""
        attempt, conversation = self._attempt, self._attempt.conversation
        control = conversation.control
        event = Stopping(
            submission=attempt.fiber.id,
            text=conversation.said_before(control.message) + conversation.entry(control.message).text,
            calls=tuple(conversation.calls_of(attempt.fiber.id)),
            continues=control.continues,
        )
        return await self._run(attempt.agent.stop_hooks, "on_stop", control.turn, event, cut)

    async def _run(
        self,
        hooks: Sequence[Hook],
        seam: Literal["on_message", "on_stop"],
        of: str,
        event: Received | Stopping,
        cut: asyncio.Future[CutReason],
    ) -> list[r.Record]:
        attempt, texts = self._attempt, list[str]()
        live = attempt.live(f"{seam}:{of}")
        try:
            for hook in hooks:
                work = asyncio.ensure_future(self._call(hook, live, event))
                either: set[asyncio.Future[Any]] = {work, cut}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    work.cancel()
                    await asyncio.wait({work}, timeout=attempt.agent.limits.abort_seconds + OUTCOME_SECONDS)
                    return []
                texts += [encodable(text)] if (text := work.result()) else []
            changes = state_change(live.draft, attempt.conversation.versions, live.call)
        except (Fenced, asyncio.CancelledError):
            raise
        except Exception as error:
            logger.warning("%s of %r raised %r", seam, attempt.agent, error, exc_info=error)
            return self._failed(seam, of, error)
        finally:
            await live.close()
        text = "\n\n".join(texts) if texts else None
        return [h.HookCompleted(submission=attempt.fiber.id, hook=seam, of=of, at=attempt.now(), text=text), *changes]

    async def _call(self, hook: Hook, live: LiveCall, event: Received | Stopping) -> str | None:
        limits = self._attempt.agent.limits
        text: str | None = await bounded(hook.run(live, event), limits.hook_seconds, limits.abort_seconds, hook.name)
        return text

    def _failed(self, seam: str, of: str, error: Exception) -> list[r.Record]:
        """The submission fails; a message that was about to join fails alone, what it would have joined goes on."""
        attempt = self._attempt
        info = r.ErrorInfo(kind=f"{seam}_failed", message=encodable(f"{type(error).__name__}: {error}"))
        if seam == "on_message" and of != attempt.fiber.id:
            return settle([of], "failed", info, attempt.now(), then=attempt.has_aftermath)
        return attempt.settled(attempt.conversation.control, "failed", info)
