"""Pydantic AI on Cairn: `agent.run()` inside a fiber is durable, through Pydantic AI's own surface for durable engines.

    agent = Agent("anthropic:claude-sonnet-4-5", name="shop", toolsets=[tools], capabilities=[CairnDurability()])

    async def turn(self, fiber: Fiber, prompt: str) -> str:      # a method of a DurableObject
        with steps_of(fiber, self.show):
            return (await agent.run(prompt, message_history=…)).output

Every model request and tool call is a step: a turn that is called again gets what is finished from the log. What a tool
allows is in its metadata, `metadata={"cairn": {"repeat": "keyed"}}`; the calls of one that says nothing are never repeated.

Laws. A model request is known by its place in the run, a tool call by that place and the id the model gave it: the same
whenever the turn runs again. What runs inside a step (an agent that a tool asks) is part of that step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypedDict

from pydantic_ai import RunContext, durable_exec
from pydantic_ai.agent import EventStreamHandler
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import AgentStreamEvent, FunctionToolCallEvent, FunctionToolResultEvent

from cairn.errors import StepUnknown
from cairn.runtime import Fiber, Retry, Try


class StepConfig(TypedDict, total=False):
    """How the calls of a tool, or all model requests, are done: as the arguments of `Fiber.step`."""

    repeat: Literal["safe", "keyed", "never"]
    retry: Retry
    timeout: float


class Turn:
    """One attempt at a turn."""

    def __init__(self, fiber: Fiber, show: EventStreamHandler[Any] | None, scope: str) -> None:
        self.fiber, self.show, self.scope = fiber, show, scope
        self.told = {name.rpartition(".")[2] for name, step in fiber.state.steps.items() if step.done}
        """The ids of the calls that earlier attempts have finished, and told of."""
        self.counts: Counter[str] = Counter()

    def numbered(self, name: str) -> str:
        """A name of its own for what is asked again at the same place: of another model, after an error."""
        self.counts[name] += 1
        return f"{name}.{self.counts[name]}"


_turn: ContextVar[Turn | None] = ContextVar("cairn_turn", default=None)
_try: ContextVar[Try | None] = ContextVar("cairn_try", default=None)


@contextmanager
def steps_of(fiber: Fiber, show: EventStreamHandler[Any] | None = None, *, scope: str = "") -> Iterator[None]:
    """Agents run as steps of the fiber, beside each other with a `scope` each; `show` is told events while they happen."""
    token = _turn.set(Turn(fiber, show, scope))
    try:
        yield
    finally:
        _turn.reset(token)


def this_try() -> Try:
    """For a tool: its idempotency key, and whether an earlier try of the same call was interrupted."""
    found = _try.get()
    assert found is not None, "this is not a tool call of an agent inside `steps_of`"
    return found


async def _show(context: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
    if (turn := _turn.get()) is not None and turn.show is not None:
        await turn.show(context, events)


class CairnDurability(durable_exec.BaseDurabilityCapability[Any]):
    """Give it to an agent that has a name. Outside `steps_of` the agent is what it was."""

    engine_spec = durable_exec.DurabilityEngineSpec(
        engine_name="Cairn",
        durable_unit_noun="step",
        durable_container_noun="fiber",
        codec=durable_exec.JSON_CODEC,
        journal_discovery=False,
    )

    def __init__(self, *, model: StepConfig | None = None, name: str | None = None) -> None:
        super().__init__(event_stream_handler=_show, name=name)
        self.model = model or StepConfig()

    @property
    def in_durable_context(self) -> bool:
        return _turn.get() is not None and _try.get() is None

    def get_durable_operation_backend(self) -> durable_exec.CallableOperationBackend[StepConfig]:
        def of_tool(_: object, tool: Any, __: str) -> StepConfig | Literal[False]:
            metadata = tool.tool_def.metadata if tool is not None else None
            return (metadata or {}).get("cairn", {"repeat": "never"})  # type: ignore[no-any-return]

        kinds: dict[str, StepConfig] = {"model": self.model, "event": {}, "capability": {}, "tool": {}}
        config = durable_exec.RoleBasedOperationConfig(**kinds, resolve_tool=of_tool)
        return Steps(namer=durable_exec.JournalOperationNamer(self.name), config=config)


class Steps(durable_exec.CallableOperationBackend[StepConfig]):
    """Operations of an agent, as steps of the fiber that runs it."""

    async def execute(
        self, *, operation_id: object, name: str, body: Callable[[], Awaitable[object]], cache_key: Any, config: StepConfig
    ) -> object:
        turn = _turn.get()
        assert turn is not None, "only called in a durable context"
        context = next((each for each in cache_key if isinstance(each, RunContext)), None)
        place = context.run_step if context is not None else 0
        match operation_id:
            case durable_exec.ModelRequestId():
                step = turn.numbered(f"model {place}")
            case durable_exec.CapabilityOperationId() | durable_exec.ModelCompactMessagesId():
                step = turn.numbered(f"{name} {place}")
            case durable_exec.ToolsetCallToolId() if context is not None:
                step = f"{context.tool_name} {place}.{context.tool_call_id}"
            case durable_exec.EventStreamHandlerId() if (
                isinstance(event := cache_key[0], FunctionToolCallEvent | FunctionToolResultEvent)
                and event.part.tool_call_id in turn.told
            ):
                return None
            case _:
                return await body()  # looking, not doing: what tools there are, whether arguments fit
        return await _step(turn, step, body, config)


async def _step(turn: Turn, name: str, body: Callable[[], Awaitable[object]], config: StepConfig) -> object:
    async def call(this: Try) -> object:
        token = _try.set(this)
        try:
            return await body()
        finally:
            _try.reset(token)

    try:
        return await turn.fiber.step(name, call, scope=turn.scope, **config)
    except StepUnknown as unknown:
        raise ToolFailed(f"Nobody knows whether this call happened: {unknown}") from unknown
