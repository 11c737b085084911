"""What one attempt at a submission works with: the agent, the log it reads and writes, and what the agent is at a turn.

Laws. Nothing here decides. A `View` is where staged records would lead; only `commit` makes them so (S10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from cairn.errors import UsageError
from cairn.harness import records as h
from cairn.harness import recovery
from cairn.harness.agent import Agent
from cairn.harness.attaching import AnotherSandbox, Attachment
from cairn.harness.call_files import CallFiles
from cairn.harness.calls import LiveCall
from cairn.harness.client_tool import declared_tools
from cairn.harness.conversation import Conversation
from cairn.harness.environment import Environment, environment_of, is_unread, key_of
from cairn.harness.guidance import read_guidance
from cairn.harness.images import Images, blobs_of
from cairn.harness.messages import Content
from cairn.harness.models.protocol import Model
from cairn.harness.recovery import Given, Halt
from cairn.harness.sandbox.protocol import Sandbox, SandboxFactory, WorkspaceSandbox
from cairn.harness.settling import settle
from cairn.harness.sizes import batches
from cairn.harness.submission import Control
from cairn.harness.tools import Tool
from cairn.harness.turn_view import Rendered
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.program_pool import Interpreters
from cairn.runtime.storage.store import Durability
from cairn.runtime.workspace import Workspace

#: Sandboxes opened for one turn. The state is the same at each render, so one that is asked again says the same; a second
#: change can only come from an agent that was edited in between.
ATTACHED_MAX = 3


@dataclass(frozen=True, slots=True)
class Services:
    """What the loop is given by whoever embeds it."""

    resolve: Callable[[str | Model], Model]
    interpreters: Interpreters | None = None
    """Where programs run; None: nowhere."""
    secret: bytes = b""
    """What the state of programs is signed with."""
    committed: Callable[[Any, int, Sequence[r.Record]], None] = lambda instance, ordinal, records: None
    """Told of each batch of an instance at work here, in order; must not raise and must not wait."""


@dataclass(slots=True)
class View:
    """Where staged records would lead."""

    control: Control
    values: dict[str, msgspec.Raw]
    content: tuple[Content, ...]
    """Of the message the submission is at, when it is finished."""


class Attempt:
    """One try at one submission, by one owner."""

    def __init__(
        self,
        agent: Agent[Any],
        fiber: Fiber,
        services: Services,
        attachment: Attachment,
        current: Callable[[], Agent[Any]] | None = None,
    ) -> None:
        self.agent = agent
        self._current = current or (lambda: agent)
        self.fiber = fiber
        self.instance = fiber.instance
        self.clock = fiber.instance.clock
        self.services = services
        self.attachment = attachment
        self.images = Images(fiber.instance.store, fiber.instance.address.tenant)
        self.conversation: Conversation = fiber.instance.state
        self._attached = 0
        """Sandboxes that were opened for the turn that is about to begin."""
        self._guidance = ""
        self._files: dict[str, CallFiles] = {}
        """What the calls that ran here have of the workspace, by call."""
        self._rendered: tuple[str, Rendered] | None = None
        # By the instance and not after an append: whoever is cancelled while it writes would not come back to tell.
        self.instance.on_written = partial(services.committed, self.instance)

    # --- the sandbox

    @property
    def sandbox(self) -> Sandbox | None:
        """The one that is open."""
        return self.attachment.sandbox

    def expected_sandbox(self, view: View) -> SandboxFactory | None:
        """The one of the open turn; before the first turn of a submission, the one that turn is going to have."""
        control, own, told = view.control, self.agent.sandbox, self.conversation.told
        if not self.agent.is_dynamic or self.halt(control)[0] is not Halt.NO:
            # What goes no further asks nothing of the agent's own code: it may be what kills its process (L3).
            return own
        if not control.turn and (told is None or told.sandbox.key == key_of(own)):
            return own  # most likely; the turn that begins says so
        try:
            if control.turn:
                return self._as_begun().sandbox
            return self.render(view.values, (*control.included, *filter(None, [control.submission]))).sandbox
        except Exception:  # said when the turn begins, which renders again
            return own

    async def attach(self, factory: SandboxFactory | None) -> None:
        """Turns may begin with this sandbox: it is open, the former is closed, and what the project in it has to say is read.
        No call may be running. *Raises* what opening it raises."""
        await self.attachment.use(factory)
        self._guidance = ""
        opens = self.conversation.head is None
        if self.sandbox is not None and (opens or is_unread(self.conversation.told, self.environment())):
            self._guidance = await read_guidance(self.sandbox, self.agent.skill_names)
        self._attached += 1

    def environment(self) -> Environment:
        """What there is to tell the model of the sandbox that is open."""
        return environment_of(self.attachment.factory, self.sandbox, self.agent.sandbox, self._guidance)

    # --- where it stands

    def now(self) -> float:
        return self.clock.wall()

    def given(self) -> Given:
        """What the table needs beside the fold."""
        agent = self.agent
        return Given(
            now=self.now(),
            epoch=self.instance.epoch,
            limits=agent.limits,
            hears=bool(agent.message_hooks),
            stops=bool(agent.stop_hooks),
        )

    def view(self, staged: Sequence[r.Record] = ()) -> View:
        """Where the submission would stand with these."""
        control, values, content = self.conversation.control.copy(), self.conversation.values, self._content()
        for record in staged:
            control.apply(record)
            if isinstance(record, r.StateChanged):
                values = values | record.changes
            elif isinstance(record, h.MessageCompleted):
                content = record.content
        return View(control, values, content)

    def _content(self) -> tuple[Content, ...]:
        control = self.conversation.control
        is_asked = control.submission is not None and control.message != ""
        return self.conversation.entry(control.message).content if is_asked else ()

    def halt(self, control: Control) -> tuple[Halt, r.ErrorInfo | None]:
        """Whether it must not go on, and why."""
        return recovery.halt(control, self.fiber.state, self.given())

    # --- the log

    async def commit(self, records: Sequence[r.Record], durability: Durability = Durability.FACT) -> None:
        """The records are in the log and folded. In more than one batch only when they would not fit into one. *Raises*
        Fenced, StoreError."""
        for batch in batches(records):
            held = [self._files[each.call] for each in batch if isinstance(each, h.ToolOutcome) and each.call in self._files]
            blobs = (*blobs_of(batch), *(blob for files in held for blob in files.blobs))
            await self.instance.append(batch, durability=durability, blobs=blobs)
            for files in held:
                files.committed()

    def close(self) -> None:
        """What calls did to files and is not in the log never happened; others may have the workspace's turn."""
        for files in self._files.values():
            files.drop()

    def settled(
        self, control: Control, kind: r.Outcome, error: r.ErrorInfo | None = None, result: msgspec.Raw = r.NULL
    ) -> list[r.Record]:
        """The records that settle the submission at work and what joined it. One whose abort was asked for is left out: it
        is settled on its own, and a second settlement would be refused (S7)."""
        fibers = self.instance.runtime.fibers
        joined = [id for id in control.included if id in fibers and fibers[id].abort is None]
        together = list(dict.fromkeys((control.submission or "", *joined)))
        return settle(together, kind, error, self.now(), result=result, then=self.has_aftermath)

    @property
    def has_aftermath(self) -> bool:
        """`on_settled` has to run."""
        return bool(self.agent.settled_hooks)

    # --- the agent at a turn

    def render(self, values: dict[str, msgspec.Raw], submissions: Sequence[str]) -> Rendered:
        """The agent with this state, answering these submissions. *Raises* what a `prepare` function raises."""
        return self.agent.render(
            values,
            conversation=self.instance.address.id,
            sandbox_tools=self.attachment.tools_of,
            client_tools=self._client_tools(submissions),
            extra=self._extra(submissions),
        )

    def _client_tools(self, submissions: Sequence[str]) -> Sequence[Tool]:
        """What the clients that sent these carry out; of two of one name, the later message's."""
        declared = [spec for id in submissions for spec in self.conversation.delivery_of(id).client_tools]
        return declared_tools(tuple({spec.name: spec for spec in declared}.values())) if declared else ()

    def _extra(self, submissions: Sequence[str]) -> dict[str, Any]:
        """What clients said beside these messages; of two things of one name, the later message's."""
        return {name: value for id in submissions for name, value in self.conversation.delivery_of(id).extra.items()}

    def renew(self) -> None:
        """Between two turns: from here on the agent is as it is defined now, if it was edited meanwhile."""
        self.agent = self._current()

    def next_turn(self, values: dict[str, msgspec.Raw], submissions: Sequence[str]) -> Rendered:
        """The agent at a turn that begins now. *Raises* AnotherSandbox: attach that one and ask again; else as `render`."""
        rendered = self.render(values, submissions)
        if not self.attachment.is_open(rendered.sandbox):
            if self._attached >= ATTACHED_MAX:
                raise UsageError(f"{self.agent!r} chose another sandbox at each render of one turn; make them outside prepare")
            raise AnotherSandbox(rendered.sandbox)
        return rendered

    def begin_turn(self, turn: str, rendered: Rendered) -> None:
        """The turn is asked with `rendered`."""
        self._rendered, self._attached, self._guidance = (turn, rendered), 0, ""
        self.attachment.is_fresh = False

    def rendered(self) -> Rendered:
        """The agent at the present turn; after a crash, as it renders now with the state of then."""
        turn = self.conversation.control.turn
        if self._rendered is None or self._rendered[0] != turn:
            self._rendered = (turn, self._as_begun())
        return self._rendered[1]

    def _as_begun(self) -> Rendered:
        return self.render(self.conversation.values_at_turn(), self.conversation.control.included)

    def files(self, call: str) -> CallFiles | None:
        """The sandbox of one call, when what it changes is to be in the log with its outcome."""
        if not isinstance(self.sandbox, WorkspaceSandbox):
            return None
        files = self._files[call] = CallFiles(self.sandbox, Workspace.of(self.instance))
        return files

    def live(self, call: str, files: CallFiles | None = None) -> LiveCall:
        """What a call, or a hook, is given."""
        return LiveCall(
            self.fiber,
            call,
            draft=self.agent.draft(self.conversation.values, self.conversation.versions),
            sandbox=files or self.sandbox,
            append=self.commit,
            run_sync=self.instance.threads.call,
            extra=self._extra(self.conversation.control.included),
        )
