"""A Pydantic AI agent inside a durable object: kill it in the middle of anything, run it again, and it goes on.

    OPENAI_API_KEY=… python examples/pydantic_ai_harness/chat.py "Order a lamp."

The harness is Pydantic AI's; that it survives is Cairn's. Each message is a fiber, the model's answers and the tools' results
are its steps, the conversation is in the object's storage, and what happens is told to every client of the object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, ClassVar

from adapter import CairnDurability, steps_of, this_try
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolResultEvent,
    ModelMessagesTypeAdapter,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.toolsets import FunctionToolset

from cairn import App
from cairn.errors import FiberFailed
from cairn.runtime import Connection, DurableObject, Fiber, Request, callable
from cairn.runtime.frames import Sent, StateFrame

tools: FunctionToolset[None] = FunctionToolset(id="shop")


@tools.tool_plain(metadata={"cairn": {"repeat": "safe"}})
async def price(item: str) -> int:
    """What an item costs."""
    return len(item) * 10


@tools.tool_plain(metadata={"cairn": {"repeat": "keyed"}})
async def charge(amount: int) -> str:
    """Charge the customer's card."""
    return f"charged {amount}, payment {this_try().key[-12:]}"


def shop(model: str) -> Agent[None, str]:
    instructions = "You sell lamps. Look up the price, then charge the card."
    return Agent(model, name="shop", instructions=instructions, toolsets=[tools], capabilities=[CairnDurability()])


@dataclass
class Talk:
    """What clients see of the conversation beside its frames."""

    answers: dict[str, str] = field(default_factory=dict)
    """By the fiber of the turn."""


class Chat(DurableObject[Talk]):
    """One conversation with the agent."""

    kind = "pydantic-chat"
    agent: ClassVar[Agent[None, str]]

    @callable
    async def say(self, text: str, key: str | None = None) -> str:
        """The message is accepted, once by its key; the fiber of its turn."""
        return (await self.start_fiber(type(self).turn, text, key=key)).fiber

    async def turn(self, fiber: Fiber, prompt: str) -> str:
        """Answer one message, after all that came before it."""
        await self._before(fiber)
        history = ModelMessagesTypeAdapter.validate_python(self._history(fiber))
        with steps_of(fiber, self.show):
            run = await self.agent.run(prompt, message_history=history)
        return await self._over(fiber, run.output, ModelMessagesTypeAdapter.dump_python(run.new_messages(), mode="json"))

    async def show(self, context: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        """What happens, while it happens, to all clients; a turn that is called again does not tell again what is finished."""
        async for event in events:
            match event:
                case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                    await self.emit(json.dumps({"type": "text", "text": text}))
                case FunctionToolResultEvent(part=part):
                    output = part.model_response_str()
                    await self.emit(json.dumps({"type": "tool", "tool": part.tool_name, "output": output}))

    async def _before(self, fiber: Fiber) -> None:
        """Return once the turns that were accepted earlier are over: a conversation has one order."""

        def find() -> list[str]:
            turns = [other.id for other in fiber.instance.runtime.unsettled() if other.method == fiber.state.method]
            return list(takewhile(lambda id: id != fiber.id, turns))[-1:]

        for earlier in await fiber.step("the turn before", find):
            with suppress(FiberFailed):
                await fiber.join(earlier)

    def _history(self, fiber: Fiber) -> list[Any]:
        """What was said in earlier turns: not in this one, which may be called again after it was kept."""
        turns = self.storage.list("turn ")
        return [message for key, turn in turns.items() if key < self._key(fiber) for message in turn]

    async def _over(self, fiber: Fiber, answer: str, messages: list[Any]) -> str:
        """The turn is kept, under a key of its own: if it is kept again, nothing changes."""
        async with self.transaction() as state:
            self.storage.put(self._key(fiber), messages)
            state.answers[fiber.id] = answer
        return answer

    def _key(self, fiber: Fiber) -> str:
        return f"turn {fiber.state.ordinal:012}"


async def main(prompt: str, model: str) -> None:
    """Say one thing and show the answer as a client at the other end of a WebSocket sees it."""
    Chat.agent = shop(model)
    async with App(objects=[Chat]) as app:
        client = await app.objects.connect(Chat.kind, "demo", Connection("terminal"), Request())
        # The same message again is the same work: that is how this program goes on after a kill.
        turn = await app.object(Chat, "demo").say(prompt, prompt)
        answers: dict[str, str] = json.loads(bytes(client.state or b"{}")).get("answers", {})
        frames = client.frames()
        while turn not in answers:
            frame = await anext(frames)
            if isinstance(frame, Sent):
                shown = json.loads(frame.data)
                print(
                    shown["text"] if shown["type"] == "text" else f"[{shown['tool']}: {shown['output']}]\n", end="", flush=True
                )
            elif isinstance(frame, StateFrame):
                answers = json.loads(bytes(frame.state))["answers"]
        print(f"\n=> {answers[turn]}")
        await client.close(1000, "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A durable Pydantic AI agent: kill it and run it again.")
    parser.add_argument("prompt", nargs="?", default="Order a lamp.")
    parser.add_argument("--model", default="openai:gpt-5", help="as Pydantic AI names it (default: openai:gpt-5)")
    options = parser.parse_args()
    asyncio.run(main(options.prompt, options.model))
