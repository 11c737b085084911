"""How these tests ask: a model of each protocol against a loopback server, its events gathered, its failure kept."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cairn.errors import ModelError
from cairn.harness.messages import ContextMessage, Text, ToolSpec, UserMessage
from cairn.harness.models import resolve
from cairn.harness.models.adapter import ProviderModel
from cairn.harness.models.protocol import Completed, Model, ModelEvent, ModelRequest, TextDelta, ThinkingDelta
from cairn.testing.providers import ProviderServer, Reply, Wire

SPECS: dict[Wire, str] = {
    "anthropic": "anthropic:claude-sonnet-4-5",
    "openai": "openai:gpt-5",
    "openai-chat": "openai-chat:gpt-5",
    "google": "google:gemini-2.5-pro",
}
#: The three protocols every case runs over; Gemini's has a smaller set of its own.
WIRES: tuple[Wire, ...] = ("anthropic", "openai", "openai-chat")

#: A fixed wall clock: 2026-01-01T00:00:00Z.
NOW = 1767225600.0

ADD = ToolSpec(
    name="add",
    description="Adds two numbers.",
    parameters={"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
)


class StoppedClock:
    """A clock that stands still at `NOW`."""

    def wall(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def boottime(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@dataclass
class Answer:
    """What came out of one request, up to its end or its failure."""

    events: list[ModelEvent] = field(default_factory=list)
    error: ModelError | None = None

    @property
    def completed(self) -> Completed:
        last = self.events[-1]
        assert self.error is None, self.error
        assert isinstance(last, Completed)
        return last

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def thinking(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ThinkingDelta))


def user(text: str) -> UserMessage:
    return UserMessage(content=(Text(text=text),))


def request(wire: Wire, *messages: ContextMessage, **more: Any) -> ModelRequest:
    return ModelRequest(model=SPECS[wire], system="Be brief.", messages=messages or (user("hi"),), **more)


async def ask(model: Model, asked: ModelRequest) -> Answer:
    """Every event of one request; a ModelError is kept, any other exception is the test's."""
    answer = Answer()
    try:
        async for event in model.stream(asked):
            answer.events.append(event)
    except ModelError as error:
        answer.error = error
    return answer


@dataclass
class Setup:
    """A server, and a model that talks to it."""

    server: ProviderServer
    model: ProviderModel
    wire: Wire

    async def ask(self, *messages: ContextMessage, **more: Any) -> Answer:
        return await ask(self.model, request(self.wire, *messages, **more))


def served(
    wire: Wire, replies: Sequence[Reply] | Callable[..., Any], body: Callable[[Setup], Awaitable[None]], **more: Any
) -> None:
    """Runs `body` with a server playing `replies` and a model of `wire`; both are closed afterwards."""

    unseen: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with ProviderServer(replies) as server:
            options = {"api_key": "key-1", "clock": StoppedClock(), **more}
            model = resolve(SPECS[wire], base_url=server.url(wire), **options)
            try:
                await asyncio.wait_for(body(Setup(server, model, wire)), 30)
            finally:
                await model.aclose()

    asyncio.run(main())
    # What nobody awaited and what a collector had to close is a leak, even when the test's own question is answered.
    assert not unseen, unseen


def answered(wire: Wire, reply: Reply, *messages: ContextMessage, **more: Any) -> tuple[Answer, Any]:
    """The answer to one request, and that request as the server recorded it."""
    found: list[tuple[Answer, Any]] = []

    async def body(setup: Setup) -> None:
        found.append((await setup.ask(*messages, **more), setup.server.requests[-1]))

    served(wire, [reply], body)
    return found[0]


@functools.cache
def chunks_of(text: str, size: int) -> tuple[str, ...]:
    return tuple(text[start : start + size] for start in range(0, len(text), size))
