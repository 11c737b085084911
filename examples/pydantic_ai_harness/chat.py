"""A Pydantic AI agent inside a durable object: kill it in the middle of anything, run it again, and it goes on.

    OPENAI_API_KEY=… python examples/pydantic_ai_harness/chat.py "Order a lamp."

The harness is Pydantic AI's; that it survives is Cairn's. Each message is a fiber, the model's answers and the tools' results
are its steps, and the conversation is the state of the object.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
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

from cairn.clock import SystemClock
from cairn.errors import FiberFailed
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore, Worker

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
class History:
    messages: list[Any] = field(default_factory=list)


class Chat(DurableObject[History]):
    """One conversation with the agent."""

    kind = "pydantic-chat"
    agent: ClassVar[Agent[None, str]]

    async def turn(self, fiber: Fiber, prompt: str) -> str:
        """Answer one message, after all that came before it."""
        await self._before(fiber)
        # As it was when the turn began: the turn may be called again after it has added its own.
        size = await fiber.step("history", lambda: len(self.state.messages))
        history = ModelMessagesTypeAdapter.validate_python(self.state.messages[:size])
        with steps_of(fiber, self.show):
            run = await self.agent.run(prompt, message_history=history)
        new = ModelMessagesTypeAdapter.dump_python(run.new_messages(), mode="json")
        await self.change(fiber, "remember", lambda state: state.messages.extend(new))
        return run.output

    async def _before(self, fiber: Fiber) -> None:
        """Return once the turns that were accepted earlier are over: a conversation has one order."""

        def find() -> list[str]:
            turns = [other.id for other in fiber.instance.runtime.unsettled() if other.method == fiber.state.method]
            return list(takewhile(lambda id: id != fiber.id, turns))[-1:]

        for earlier in await fiber.step("the turn before", find):
            with suppress(FiberFailed):
                await fiber.join(earlier)

    async def show(self, context: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        """What happens, while it happens; a turn that is called again does not tell it again."""
        async for event in events:
            match event:
                case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                    print(text, end="", flush=True)
                case FunctionToolResultEvent(part=part):
                    print(f"[{part.tool_name}: {part.model_response_str()}]", flush=True)


async def main(prompt: str, model: str, data: Path) -> None:
    clock, ids = SystemClock(), SystemIds()
    store = SqliteStore(str(data / "cairn.db"), clock=clock, ids=ids)
    await store.open()
    Chat.agent = shop(model)
    chats = ObjectApplication(Chat)
    chat = chats.handle(Client(store, chats, clock=clock, ids=ids), "demo")
    try:
        async with Worker(store, [chats], clock=clock, ids=ids):
            # The same message again is the same work: that is how this program goes on after a kill.
            receipt = await chat.start(Chat.turn, prompt, key=prompt)
            print("\n" + await chat.result(receipt, str))
    finally:
        await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A durable Pydantic AI agent: kill it and run it again.")
    parser.add_argument("prompt", nargs="?", default="Order a lamp.")
    parser.add_argument("--model", default="openai:gpt-5", help="as Pydantic AI names it (default: openai:gpt-5)")
    parser.add_argument("--data", type=Path, default=Path(".cairn"), help="where its log is (default: .cairn)")
    options = parser.parse_args()
    asyncio.run(main(options.prompt, options.model, options.data))
