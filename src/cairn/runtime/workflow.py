"""Dynamic workflows: programs that somebody hands in while everything runs, and that may take days.

    Onboarding = workflows([create_account, send_mail], kind="onboarding", interpreters=interpreters)
    app = App(objects=[Onboarding])
    await app.object(Onboarding, "acme").call("start", source, {"company": "ACME"})

A workflow is a durable object with one program in it: the text is pinned by its digest when it is started, whatever becomes of
the code around it. It calls the functions it is granted, and besides `sleep`, `wait_for`, `wait_for_approval`; each call is a
step that happens once. While it waits it is rows in the store.

Laws. What was started is never another text: one that does not have the digest it was started with is refused. Pausing stops at
the next call, cancelling at once; both outlive the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import msgspec

from cairn.errors import Conflict, FiberFailed, NotFound, WaitExpired
from cairn.runtime import records as r
from cairn.runtime.answering import Approval
from cairn.runtime.callables import callable
from cairn.runtime.draft import draft_of
from cairn.runtime.durable import DurableObject
from cairn.runtime.fiber import Fiber, client_of
from cairn.runtime.program import Function, FunctionCall, Program, ProgramLimits, ProgramResult
from cairn.runtime.program_pool import Interpreters
from cairn.runtime.program_run import run_program
from cairn.runtime.settings import ANSWER_SECONDS
from cairn.runtime.state import FiberState

#: Seconds of computing of one workflow, over all its life; the days in between do not count.
WORKFLOW_SECONDS = 24 * 3600.0

#: The signal that lets a paused workflow go on.
_RESUMED = "cairn.workflow.resumed"

Status = Literal["new", "running", "waiting", "paused", "completed", "failed", "cancelled"]


@dataclass
class WorkflowState:
    """What a workflow remembers of itself; how it stands is asked of its fiber."""

    name: str = ""
    digest: str = ""
    run: str = ""
    """The fiber."""
    is_paused: bool = False


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a workflow stands."""

    status: Status
    name: str = ""
    digest: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    printed: str = ""
    steps: tuple[str, ...] = ()
    """The calls that are over, in the order they were made."""
    waits: tuple[str, ...] = ()
    """What it waits for."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow asks a person. An answer has to name the digest: it says what was read."""

    name: str
    digest: str
    question: Any
    expires_at: float | None = None


class Workflow(DurableObject[WorkflowState]):
    """One workflow. Subclasses are made by `workflows`."""

    kind: ClassVar[str] = "workflow"
    functions: ClassVar[Sequence[Function]] = ()
    interpreters: ClassVar[Interpreters]
    limits: ClassVar[ProgramLimits] = ProgramLimits()
    secret: ClassVar[bytes] = b""

    # --- what others call

    @callable
    async def start(self, source: str, inputs: dict[str, Any] | None = None, name: str = "") -> Standing:
        """The text runs from now on, until it ends. *Durable*. *Idempotent*: the same text again is the same run.
        *Raises* Conflict when another one was started here."""
        program = Program(source)
        if self.state.run:
            if self.state.digest != program.digest:
                raise Conflict(f"workflow '{self.id}' runs another text ({self.state.digest}); start this one under another id")
            return self._standing()
        arguments = (source, program.digest, inputs or {})
        receipt = await self.start_fiber(type(self).run, *arguments, key="run", timeout=WORKFLOW_SECONDS)
        self.state.name, self.state.digest, self.state.run = name, program.digest, receipt.fiber
        return self._standing(is_new=True)

    @callable(read_only=True)
    async def inspect(self) -> Standing:
        """How it stands now."""
        return self._standing()

    @callable
    async def pause(self) -> Standing:
        """It makes no further call until it is resumed; one that is under way ends. *Durable*; *idempotent*."""
        self._begun()
        self.state.is_paused = True
        return self._standing()

    @callable
    async def resume(self) -> Standing:
        """It goes on. *Durable*; *idempotent*."""
        self._begun()
        if self.state.is_paused:
            self.state.is_paused = False
            await self.commit()
            await client_of(self._instance).signal(self.id, _RESUMED, fiber=self.state.run)
        return self._standing()

    @callable
    async def cancel_run(self, reason: str = "") -> Standing:
        """It ends where it is, as cancelled; what its calls did stands. *Durable*; without effect once it has ended."""
        self._begun()
        await client_of(self._instance).abort(self.id, self.state.run, reason=reason or "cancelled")
        return self._standing()

    @callable
    async def signal(self, event: str, payload: Any = None, key: str | None = None) -> None:
        """Whoever waits for the event in it, now or later, has it, once. *Durable*; *idempotent* by `key`."""
        self._begun()
        await client_of(self._instance).signal(self.id, f"event:{event}", payload, key=key)

    @callable(read_only=True)
    async def questions(self) -> list[Question]:
        """What it asks people, the oldest first."""
        asked = await client_of(self._instance).questions(self.id)
        return [
            Question(name=each.name, digest=each.digest, question=each.value(), expires_at=each.expires_at) for each in asked
        ]

    @callable
    async def approve(self, name: str, digest: str, by: str = "") -> None:
        """Yes to a question of it. Who says so is whoever the call's credential names; `by` only where there is none, as in
        Python. *Raises* Conflict: nothing of that name is asked, or something else, or it is too late; Denied."""
        await self._answer(name, digest, Approval("approve"), by)

    @callable
    async def reject(self, name: str, digest: str, reason: str = "", by: str = "") -> None:
        """No to a question of it; it is told the reason, and goes on."""
        await self._answer(name, digest, Approval("reject", reason), by)

    async def _answer(self, name: str, digest: str, answer: Approval, by: str) -> None:
        self._begun()
        draft = draft_of(self._instance)
        if draft is not None and draft.call is not None and (draft.call.by or draft.call.connection):
            by = draft.call.by  # nobody from outside answers in another's name (X10)
        try:
            await client_of(self._instance).answer(self.id, self.state.run, name, digest, answer, by=by)
        except NotFound as error:
            raise Conflict(str(error)) from None

    def _begun(self) -> None:
        if not self.state.run:
            raise Conflict(f"workflow '{self.id}' was not started; start it first")

    # --- its life

    async def run(self, fiber: Fiber, source: str, digest: str, inputs: dict[str, Any]) -> ProgramResult:
        """The workflow's fiber."""
        program = Program(source)
        if program.digest != digest:
            text = f"the text of workflow '{self.id}' is not the one it was started with; it is not run"
            raise FiberFailed(text, "failed")
        cls = type(self)

        async def gate(call: FunctionCall) -> None:
            passes = 0
            while self.state.is_paused:
                passes += 1
                await call.fiber.wait(_RESUMED, name=f"paused before {call.name} ({passes})")

        return await run_program(
            fiber,
            program,
            [*cls.functions, *(each for each in WAITS if each.name not in {function.name for function in cls.functions})],
            interpreters=cls.interpreters,
            inputs=inputs,
            limits=cls.limits,
            name="workflow",
            secret=cls.secret,
            gate=gate,
        )

    def _standing(self, *, is_new: bool = False) -> Standing:
        state = self.state
        fiber = self._instance.runtime.fiber(state.run) if state.run else None
        if fiber is None:
            return Standing(status="running" if is_new else "new", name=state.name, digest=state.digest)
        status, error, printed, result = _status(fiber, is_paused=state.is_paused)
        steps = tuple(key.partition("\x1f")[2].split(":")[1] for key, step in fiber.steps.items() if step.done)
        waits = tuple(wait.name for wait in fiber.waits.values())
        return Standing(
            status=status,
            name=state.name,
            digest=state.digest,
            result=result,
            error=error,
            printed=printed,
            steps=steps,
            waits=waits,
        )


def _status(fiber: FiberState, *, is_paused: bool) -> tuple[Status, str, str, msgspec.Raw]:
    """The status, the error, what was printed and the result."""
    if not fiber.is_settled:
        waits = "waiting" if fiber.waits else "running"
        return "paused" if is_paused else waits, "", "", r.NULL  # type: ignore[return-value]
    if fiber.outcome == "aborted":
        return "cancelled", fiber.error.message if fiber.error is not None else "", "", r.NULL
    if fiber.outcome != "completed":
        return "failed", fiber.error.message if fiber.error is not None else "", "", r.NULL
    result = msgspec.json.decode(fiber.result, type=ProgramResult)
    if result.failure is not None:
        return "failed", f"{result.failure.kind}: {result.failure.message}", result.printed, r.NULL
    return "completed", "", result.printed, result.value


def workflows(
    functions: Sequence[Function],
    *,
    interpreters: Interpreters,
    kind: str = "workflow",
    limits: ProgramLimits = ProgramLimits(),
    secret: bytes = b"",
) -> type[Workflow]:
    """A class of workflows that may call these functions; one grant for all of a kind. Give it to `App(objects=[…])`."""
    members = {
        "kind": kind,
        "functions": tuple(functions),
        "interpreters": interpreters,
        "limits": limits,
        "secret": secret,
        "__orig_bases__": (DurableObject[WorkflowState],),
        "__doc__": f"Workflows of the kind '{kind}'.",
    }
    return type("".join(word.title() for word in kind.split("-")), (Workflow,), members)


# --- what every workflow can wait for --------------------------------------------------------------------------------


async def _sleep(call: FunctionCall) -> None:
    await call.fiber.sleep(call.name, max(0.0, float(call.arguments["seconds"])))


async def _wait_for(call: FunctionCall) -> Any:
    timeout = call.arguments.get("timeout")
    try:
        return await call.fiber.wait(f"event:{call.arguments['event']}", timeout=timeout, name=call.name)
    except WaitExpired:
        raise TimeoutError(f"'{call.arguments['event']}' did not happen within {timeout:g} s") from None


async def _wait_for_approval(call: FunctionCall) -> dict[str, Any]:
    expires = call.arguments.get("expires")
    try:
        answer = await call.fiber.ask(
            call.name, call.arguments["question"], expires=ANSWER_SECONDS if expires is None else expires, approval=True
        )
    except WaitExpired:
        raise TimeoutError("nobody answered in time") from None
    return {"approved": answer.approved, "reason": answer.reason, "by": answer.by}


WAITS: tuple[Function, ...] = (
    Function(
        "sleep",
        _sleep,
        ("seconds",),
        waits=True,
        stub='async def sleep(seconds: float) -> None:\n    """Wait; days cost nothing."""\n',
    ),
    Function(
        "wait_for",
        _wait_for,
        ("event", "timeout"),
        waits=True,
        stub=(
            "async def wait_for(event: str, timeout: float | None = None) -> Any:\n"
            '    """The payload of the next signal of that name. Raises TimeoutError."""\n'
        ),
    ),
    Function(
        "wait_for_approval",
        _wait_for_approval,
        ("question", "expires"),
        waits=True,
        stub=(
            "async def wait_for_approval(question: Any, expires: float | None = None) -> dict[str, Any]:\n"
            '    """What a person says: {"approved": bool, "reason": str, "by": str}. Raises TimeoutError."""\n'
        ),
    ),
)
