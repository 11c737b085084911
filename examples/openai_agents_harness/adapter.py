"""The OpenAI Agents SDK on Cairn: `Runner.run()` inside a fiber is durable, through the SDK's `Model` and `FunctionTool`.

    async def turn(self, fiber: Fiber, prompt: str) -> str:      # a method of a DurableObject
        steps = Steps(fiber, tools={"price": {"repeat": "safe"}, "charge": {"repeat": "keyed"}}, show=self.show)
        run = await Runner.run(steps.agent(shop), prompt, run_config=steps.config)
        return run.final_output

Every model request and tool call is a step: a turn that is called again gets what is finished from the log. The calls of a
tool that `tools` does not name are never repeated.

Laws. A model request is known by its place in the run, a tool call by the id the model gave it: the same whenever the turn
runs again. What runs inside a step (an agent as a tool) is part of that step. Guardrails, hooks and hosted MCP tools are no
steps of ours. Retries of the SDK (`ModelSettings.retry`) start at the first try again after a kill; `model={"retry": …}` not.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Literal, TypedDict

from agents import Agent, FunctionTool, Model, ModelProvider, ModelResponse, MultiProvider, RunConfig, Usage
from agents.items import TResponseStreamEvent
from agents.tool import ToolOutputFileContent, ToolOutputImage, ToolOutputText
from agents.tool_context import ToolContext
from openai.types.responses import ResponseCompletedEvent
from pydantic import TypeAdapter

from cairn.errors import StepUnknown
from cairn.runtime import Fiber, Retry, Try

Show = Callable[[TResponseStreamEvent | tuple[str, Any]], Awaitable[None]]
"""Is told what the model streams, event by event, and what a tool gave, as (tool, output); nothing of it twice."""

_OUTPUT = TypeAdapter[Any](ToolOutputText | ToolOutputImage | ToolOutputFileContent | Any)
_try: ContextVar[Try] = ContextVar("cairn_try")


class StepConfig(TypedDict, total=False):
    """How the calls of a tool, or all model requests, are done: as the arguments of `Fiber.step`."""

    repeat: Literal["safe", "keyed", "never"]
    retry: Retry
    timeout: float


def this_try() -> Try:
    """For a tool: its idempotency key, and whether an earlier try of the same call was interrupted."""
    return _try.get()


async def _unshown(_: object) -> None: ...


class Steps:
    """One attempt at a turn: agents, tools and models whose calls are steps of its fiber."""

    def __init__(
        self,
        fiber: Fiber,
        *,
        tools: Mapping[str, StepConfig] | None = None,
        model: StepConfig | None = None,
        show: Show = _unshown,
        provider: ModelProvider | None = None,
    ) -> None:
        self.fiber, self.tools, self.model, self.show = fiber, tools or {}, model or StepConfig(), show
        self.counts: Counter[str] = Counter()
        self.config = RunConfig(model_provider=DurableProvider(self, provider or MultiProvider()), tracing_disabled=True)
        self._agents: dict[int, Agent[Any]] = {}

    def agent(self, agent: Agent[Any]) -> Agent[Any]:
        """The agent, and those it hands over to, with their calls as steps."""
        known = self._agents.get(id(agent))
        if known is None:
            known = self._agents[id(agent)] = agent.clone()
            known.tools = [self.tool(tool) if isinstance(tool, FunctionTool) else tool for tool in agent.tools]
            known.handoffs = [self.agent(each) if isinstance(each, Agent) else each for each in agent.handoffs]
            if isinstance(agent.model, Model):
                known.model = DurableModel(self, agent.model)
        return known

    def tool(self, tool: FunctionTool) -> FunctionTool:
        config = self.tools.get(tool.name, StepConfig(repeat="never"))

        async def invoke(context: ToolContext[Any], arguments: str) -> Any:
            async def call(this: Try) -> Any:
                token = _try.set(this)
                try:
                    output = await tool.on_invoke_tool(context, arguments)
                finally:
                    _try.reset(token)
                await self.show((tool.name, output))
                return _OUTPUT.dump_python(output, mode="json")

            try:
                found = await self.fiber.step(f"{tool.name} {context.tool_call_id}", call, **config)
            except StepUnknown as unknown:
                return f"Nobody knows whether this call happened: {unknown}"
            return _OUTPUT.validate_python(found)

        return dataclasses.replace(tool, on_invoke_tool=invoke)


class DurableProvider(ModelProvider):
    """Models by name, from another provider, with their requests as steps."""

    def __init__(self, steps: Steps, provider: ModelProvider) -> None:
        self.steps, self.provider = steps, provider

    def get_model(self, model_name: str | None) -> Model:
        return DurableModel(self.steps, self.provider.get_model(model_name))


class DurableModel(Model):
    """A model whose answer is streamed once and recorded whole."""

    def __init__(self, steps: Steps, inner: Model) -> None:
        self.steps, self.inner = steps, inner

    async def stream_response(self, *given: Any, **options: Any) -> AsyncIterator[TResponseStreamEvent]:
        async def ask() -> Any:
            completed = None
            async for event in self.inner.stream_response(*given, **options):
                await self.steps.show(event)
                completed = event if isinstance(event, ResponseCompletedEvent) else completed
            if completed is None:
                raise ConnectionError("the model's stream ended before its answer was complete")
            return completed.model_dump(mode="json", exclude_unset=True)

        asked = options["input"] if "input" in options else given[1]
        place = f"model {1 if isinstance(asked, str) else len(asked)}"
        self.steps.counts[place] += 1
        found = await self.steps.fiber.step(f"{place}.{self.steps.counts[place]}", ask, **self.steps.model)
        yield ResponseCompletedEvent.model_validate(found)

    async def get_response(self, *given: Any, **options: Any) -> ModelResponse:
        [answer] = [event async for event in self.stream_response(*given, **options)]
        assert isinstance(answer, ResponseCompletedEvent)
        counts = answer.response.usage
        usage = Usage(requests=1, **dict(counts)) if counts is not None else Usage()
        return ModelResponse(answer.response.output, usage, answer.response.id)
