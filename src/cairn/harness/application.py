"""An agent as the runtime sees it: its vocabulary, its fold, and how its fibers run.

A submission is a fiber; so is what runs after one has settled. There is no second mechanism.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from cairn.errors import StoreCorrupt, UsageError
from cairn.harness import program_fiber, rewinding
from cairn.harness import records as h
from cairn.harness.agent import Agent
from cairn.harness.attaching import Attachment
from cairn.harness.attempt import Attempt
from cairn.harness.calls import LiveCall, bounded
from cairn.harness.conversation import Conversation
from cairn.harness.hooks import Settled
from cairn.harness.loop import Loop, Services
from cairn.harness.projection import PROJECTION, project
from cairn.harness.sandbox.protocol import Place, Sandbox, SandboxFactory
from cairn.harness.settling import Reply
from cairn.harness.tidying import tidy
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.instance import Instance
from cairn.runtime.method import run_method
from cairn.runtime.program import ProgramResult
from cairn.runtime.state import FiberState
from cairn.runtime.storage.store import Durability
from cairn.runtime.workspace import Workspace

logger = logging.getLogger("cairn.harness")

#: Records that are new durable facts about their submission: what was paid for or happened, not what was meant to (L3).
_PROGRESS = (h.MessageCompleted, h.ToolOutcome, h.HookCompleted)


class AgentApplication:
    """One agent on the runtime."""

    def __init__(self, agent: Agent[Any], services: Services, directory: str) -> None:
        agent.skills  # noqa: B018 - read here, so that what is wrong with them is said before anything is served
        self.agent = agent
        """May be exchanged for an edited one of the same name: a live turn keeps the one it began with, the next takes this."""
        self.services = services
        self._directory = directory

    @property
    def kind(self) -> str:
        return self.agent.name

    @property
    def records(self) -> tuple[type[r.Record], ...]:
        return h.HARNESS

    @property
    def projection(self) -> int:
        return PROJECTION

    @property
    def serial(self) -> bool:
        return True

    def initial(self) -> Conversation:
        return Conversation()

    def apply(self, state: Conversation, record: r.Record, ordinal: int) -> None:
        state.apply(record, ordinal)

    def dump(self, state: Conversation) -> bytes:
        return state.dump()

    def load(self, data: bytes) -> Conversation:
        return Conversation.load(data)

    def project(self, state: Conversation | None, records: Sequence[r.Record]) -> bytes:
        state = state or Conversation()
        return project(state.shown, state.delivery_of, state.control.queue, records)

    def progress(self, record: r.Record) -> str | None:
        return record.submission if isinstance(record, _PROGRESS) else None

    def declares(self, schedule: str) -> bool:
        return any(each.key == schedule for each in self.agent.schedules)

    def refusal(self, state: Conversation, records: Sequence[r.Record]) -> str | None:
        after = state.control.copy()
        try:
            for record in records:
                after.apply(record)
        except StoreCorrupt as error:
            return f"refused before it was appended, which is a defect of Cairn: {error}"
        return None

    def blocked(self, fiber: FiberState) -> r.ErrorInfo | None:
        if fiber.method in (h.SUBMISSION, h.SETTLED_HOOK, h.REWIND, h.PROGRAM):
            return None
        return r.ErrorInfo(kind="unknown_method", message=f"agent '{self.kind}' has no method '{fiber.method}'")

    def shown(self, state: Conversation) -> msgspec.Raw | None:
        """The state as connected clients see it, defaults and all; None: the agent declares none."""
        declared = self.agent.state_type
        return None if declared is None else msgspec.Raw(msgspec.json.encode(declared.load(state.values)))

    async def tidy(self, instance: Instance) -> None:
        """The deltas of settled answers are merged."""
        decoder = r.decoder(self.records)
        await tidy(instance, lambda row: log.decode(decoder, row, str(instance.address)))

    async def run(self, fiber: Fiber) -> None:
        if fiber.state.method == h.SETTLED_HOOK:
            await run_method(fiber, lambda: self._after(fiber))
            return
        if fiber.state.method == h.REWIND:
            await rewinding.run(fiber)
            return
        if fiber.state.method == h.PROGRAM:
            await run_method(fiber, lambda: self._program(fiber))
            return
        attachment = self._attachment(fiber)
        loop = Loop(self.agent, fiber, self.services, attachment, lambda: self.agent)
        try:
            await loop.run()
        finally:
            loop.close()
            await attachment.close()

    async def _program(self, fiber: Fiber) -> ProgramResult:
        """Run the program of a call, with the tools that the agent has now."""
        attachment = self._attachment(fiber)
        attempt = Attempt(self.agent, fiber, self.services, attachment)
        try:
            await attachment.use(attempt.expected_sandbox(attempt.view()))
            rendered = attempt.rendered()
            if self.services.interpreters is None or rendered.codemode is None:
                raise UsageError(f"{self.agent!r} runs no programs any more; write Agent(…, codemode=True)")
            services = self.services
            return await program_fiber.run(attempt, rendered, self.services.interpreters, services.secret)
        finally:
            attempt.close()
            await attachment.close()

    def _attachment(self, fiber: Fiber) -> Attachment:
        """What opens sandboxes for the instance; none is open."""
        instance = fiber.instance
        directory = os.path.join(self._directory, instance.uid)

        async def open(factory: SandboxFactory) -> Sandbox:
            return await factory.open(str(instance.address), directory, self._place(instance, factory.name))

        return Attachment(open)

    def _place(self, instance: Instance, name: str) -> Place:
        """Where the sandbox of an instance belongs."""

        async def remember(value: bytes) -> None:
            await instance.append([h.SandboxRemembered(sandbox=name, value=value)])

        return Place(
            tenant=instance.address.tenant,
            uid=instance.uid,
            workspace=Workspace.of(instance),
            recall=instance.state.remembered.get(name),
            remember=remember,
        )

    async def forget(self, uid: str) -> None:
        """The files that sandboxes kept for a deleted instance are gone, as far as they can be removed from here."""
        if self.agent.sandbox is not None or self.agent.is_dynamic:
            import shutil

            await asyncio.to_thread(shutil.rmtree, os.path.join(self._directory, uid), ignore_errors=True)

    async def _after(self, fiber: Fiber) -> None:
        """Run `on_settled`: at least once, and without a say in the outcome."""
        submission = fiber.arguments(str)
        settled = fiber.instance.runtime.fiber(submission)
        if settled is None or settled.outcome is None:
            return
        text = msgspec.json.decode(settled.result, type=Reply).text if settled.outcome == "completed" else ""
        event = Settled(
            submission=submission,
            outcome=settled.outcome,
            text=text,
            error=settled.error.message if settled.error else "",
        )
        limits = self.agent.limits
        conversation: Conversation = fiber.instance.state

        async def append(records: Sequence[r.Record], durability: Durability) -> object:
            return await fiber.instance.append(records, durability=durability)

        for hook in self.agent.settled_hooks:
            live = LiveCall(
                fiber,
                f"on_settled:{submission}",
                draft=self.agent.draft(conversation.values, conversation.versions),
                sandbox=None,
                append=append,
                run_sync=fiber.instance.threads.call,
            )
            await bounded(hook.run(live, event), limits.hook_seconds, limits.abort_seconds, hook.name)
