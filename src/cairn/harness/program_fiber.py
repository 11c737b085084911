"""The program of a `run_program` call: a fiber beside the submission that waits for it, calling the agent's tools.

Laws. A tool in a program is the same tool: validated, timed, with a state and files of its own call that are committed with its
outcome. A program whose submission has settled is ended. What the model is told of a program is one text: its result, what it
printed, or why it failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import CairnError, FiberFailed
from cairn.harness import records as h
from cairn.harness.arguments import compile_schema
from cairn.harness.calls import LiveCall, outcome_of, state_change
from cairn.harness.code_stubs import declaration, function_names, parameters_of
from cairn.harness.conversation import Conversation
from cairn.harness.messages import Text
from cairn.harness.program_names import fiber_of, name_of
from cairn.harness.sizes import shortened
from cairn.harness.snippets import Saved, Snippet, used
from cairn.harness.tools import Tool, ToolResult
from cairn.runtime import records as r
from cairn.runtime.program import Function, FunctionCall, Program, ProgramResult
from cairn.runtime.program_files import file_functions
from cairn.runtime.program_run import run_program
from cairn.runtime.storage.store import Durability
from cairn.runtime.workspace import Workspace

if TYPE_CHECKING:
    from cairn.harness.attempt import Attempt
    from cairn.harness.turn_view import Rendered
    from cairn.runtime.program_pool import Interpreters

#: Characters of a program's result, and of its output, that the model reads; the rest is cut in the middle.
SHOWN_CHARACTERS_MAX = 24_000


class Asked(msgspec.Struct, frozen=True):
    """The argument of a program's fiber: which call it is the outcome of, and its text."""

    submission: str
    call: str
    code: str
    digest: str
    snippets: tuple[Saved, ...] = ()
    """The saved programs that it names, as they were when it began."""


def accepted(submission: str, call: str, code: str, at: float, snippets: Sequence[Snippet] = ()) -> r.FiberAccepted:
    """The program will be run. In one batch with the question that it answers."""
    asked = Asked(submission, call, code, Program(code).digest, used(snippets, code))
    arguments = msgspec.Raw(msgspec.json.encode(asked))
    return r.FiberAccepted(fiber=fiber_of(submission, call), method=h.PROGRAM, at=at, arguments=arguments, beside=True)


async def run(attempt: Attempt, rendered: Rendered, interpreters: Interpreters, secret: bytes) -> ProgramResult:
    """What came of the program; the fiber's result."""
    fiber, tools = attempt.fiber, rendered.functions
    assert rendered.codemode is not None
    asked: Asked = fiber.arguments(Asked)
    program, mode = Program(asked.code), rendered.codemode
    if program.digest != asked.digest:
        raise FiberFailed(f"the text of the program of call '{asked.call}' is not the one that was asked for; it is not run")
    names = function_names(tool.spec for tool in tools)
    costs = mode.costs
    functions = [ToolFunction(attempt, asked, tool, names[tool.name], costs.get(tool.name, 0.0)).function for tool in tools]

    async def work_on(program: Program, functions: Sequence[Function], **more: Any) -> ProgramResult:
        files = file_functions(Workspace.of(attempt.instance), mode.files) if mode.files is not None else ()
        return await run_program(
            fiber, program, functions, interpreters=interpreters, limits=mode.limits, secret=secret, files=files, **more
        )

    saved = [SavedFunction(each, functions, work_on).function for each in asked.snippets if each.name not in names.values()]
    name = name_of(asked.submission, asked.call)
    work = asyncio.ensure_future(work_on(program, [*functions, *saved], name=name))
    over = asyncio.ensure_future(_settled(attempt, asked.submission))
    try:
        await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        return ProgramResult()  # nobody waits for it any more
    finally:
        for each in (work, over):
            each.cancel()
        await asyncio.wait({work, over}, timeout=attempt.agent.limits.abort_seconds)


async def _settled(attempt: Attempt, submission: str) -> None:
    """Return once the submission has settled."""
    while submission in attempt.instance.runtime.fibers:
        await attempt.instance.changed()


class SavedFunction:
    """A saved program, as programs call it: a program of its own on the same fiber, which calls tools."""

    def __init__(self, saved: Saved, tools: Sequence[Function], run: Callable[..., Awaitable[ProgramResult]]) -> None:
        snippet = Snippet(saved.name, saved.description, saved.source, saved.inputs)
        if snippet.digest != saved.digest:
            raise FiberFailed(f"the saved program '{saved.name}' is not the text of its digest; it is not run")
        self._program, self._tools, self._run = Program(saved.source), tools, run
        self._validate = compile_schema(snippet.spec.parameters)
        self.function = Function(
            saved.name, self._call, tuple(saved.inputs), waits=True, stub=declaration(snippet.spec, saved.name)
        )

    async def _call(self, call: FunctionCall) -> Any:
        try:
            inputs = self._validate(dict(call.arguments))
        except ValueError as error:
            raise TypeError(str(error)) from None
        result = await self._run(self._program, self._tools, inputs=inputs, name=call.name)
        if result.failure is not None:
            raise RuntimeError(f"the saved program {call.function} failed ({result.failure.kind}): {result.failure.message}")
        return msgspec.json.decode(result.value)


class ToolFunction:
    """One tool, as programs call it."""

    def __init__(self, attempt: Attempt, asked: Asked, tool: Tool, name: str, cost: float = 0.0) -> None:
        self._attempt, self._asked, self._tool = attempt, asked, tool
        repeat = "keyed" if tool.repeat == "resume" else tool.repeat
        asks = tool.asks
        is_client = asks is not None and asks.kind == "client_tool"
        self.function = Function(
            name,
            self._ask if is_client else self._call,
            parameters_of(tool.spec),
            repeat,
            cost=cost,
            waits=is_client,
            approval=self._reason if asks is not None and asks.kind == "approval" else None,
            approval_seconds=asks.expires_seconds if asks is not None else None,
            approvers=asks.by if asks is not None else (),
            stub=declaration(tool.spec, name),
        )

    def _reason(self, call: FunctionCall) -> str | bool | None:
        assert self._tool.asks is not None
        reason = self._tool.asks.reason(dict(call.arguments))
        return None if reason is None else reason or True

    async def _ask(self, call: FunctionCall) -> Any:
        """A client's tool: what it answers is the outcome."""
        asks = self._tool.asks
        assert asks is not None
        question = {"function": call.function, "arguments": call.arguments, "reason": "", "kind": "client_tool"}
        answer = (await call.fiber.ask(call.name, question, expires=asks.expires_seconds, by=asks.by)).value()
        if isinstance(answer, dict) and answer.get("answer") == "output":
            return answer.get("output")
        said = answer.get("error") or answer.get("reason") if isinstance(answer, dict) else None
        raise RuntimeError(str(said or "it was not carried out"))

    async def _call(self, call: FunctionCall) -> Any:
        attempt, tool = self._attempt, self._tool
        try:
            arguments = tool.validate(dict(call.arguments))
        except ValueError as error:
            raise TypeError(str(error)) from None
        files = attempt.files(call.name)
        live = _ProgramCall(attempt, self._asked, call, files or attempt.sandbox)
        if files is not None:
            call.ended.append(files.committed)
        limits = attempt.agent.limits
        try:
            kind, result = await outcome_of(
                tool, live, arguments, tool.timeout_seconds or limits.tool_seconds, limits.abort_seconds
            )
            if kind == "ok":
                call.also.extend(state_change(live.draft, attempt.conversation.versions, self._asked.call, live.kept))
            if files is not None and live.has_returned:
                call.also.extend(await files.stage())
                call.blobs.extend(files.blobs)
        except CairnError as error:
            call.also.clear()
            raise RuntimeError(str(error)) from None
        if kind != "ok":
            raise RuntimeError(_text(result))
        return msgspec.json.decode(_text(result)) if result.is_value else _text(result)


def _text(result: ToolResult) -> str:
    content = (Text(text=result.content),) if isinstance(result.content, str) else result.content
    return "\n".join(block.text if isinstance(block, Text) else "[an image]" for block in content)


class _ProgramCall(LiveCall):
    """What a tool is given when a program calls it. Clients see it as part of the program's call."""

    def __init__(self, attempt: Attempt, asked: Asked, call: FunctionCall, sandbox: Any) -> None:
        conversation: Conversation = attempt.conversation

        async def append(records: Sequence[r.Record], durability: Durability) -> object:
            return await attempt.instance.append(records, durability=durability)

        super().__init__(
            attempt.fiber,
            asked.call,
            draft=attempt.agent.draft(conversation.values, conversation.versions),
            sandbox=sandbox,
            append=append,
            run_sync=attempt.instance.threads.call,
        )
        self._asked, self._function_call = asked, call

    @property
    def key(self) -> str:
        return self._function_call.key

    @property
    def _submission(self) -> str:
        return self._asked.submission

    async def step(self, name: str, callback: Any, *, repeat: str = "safe") -> Any:
        scope = f"{self._function_call.name}\x1e"
        return await self._fiber.step(name, callback, repeat=repeat, scope=scope)  # type: ignore[call-overload]


# --- what the model is told ------------------------------------------------------------------------------------------


def told(settled: r.Outcome, result: bytes, error: r.ErrorInfo | None) -> tuple[str, bool]:
    """What the model reads of the program, and whether it failed."""
    if settled != "completed":
        return f"The program did not end: {error.message if error is not None else settled}", True
    came = msgspec.json.decode(result, type=ProgramResult)
    printed = f"\n\nIt printed:\n{shortened(came.printed, SHOWN_CHARACTERS_MAX)}" if came.printed else ""
    if came.failure is None:
        return f"{shortened(bytes(came.value).decode(), SHOWN_CHARACTERS_MAX)}{printed}", False
    kinds = {
        "type": "It was not run: the types do not fit.",
        "syntax": "It was not run: it does not parse.",
        "error": "It failed.",
    }
    said = kinds.get(came.failure.kind, f"It was stopped ({came.failure.kind}).")
    made = f" {came.calls} calls were made; what they did stands." if came.calls else ""
    return f"{said}{made}\n\n{came.failure.message}{printed}", True
