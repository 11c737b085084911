"""An agent of the OpenAI Agents SDK inside a durable object: kill it in the middle of anything, run it again, it goes on.

    OPENAI_API_KEY=… python examples/openai_agents_harness/chat.py "Order a lamp."

The harness is the SDK's; that it survives is Cairn's. Each message is a fiber, the model's answers and the tools' results are
its steps, and the conversation is the state of the object.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

from adapter import StepConfig, Steps, this_try
from agents import Agent, Runner, function_tool

from cairn.clock import SystemClock
from cairn.errors import FiberFailed
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore, Worker


@function_tool
async def price(item: str) -> int:
    """What an item costs."""
    return len(item) * 10


@function_tool
async def charge(amount: int) -> str:
    """Charge the customer's card."""
    return f"charged {amount}, payment {this_try().key[-12:]}"


def shop(model: str) -> Agent[None]:
    instructions = "You sell lamps. Look up the price, then charge the card."
    return Agent(name="shop", model=model, instructions=instructions, tools=[price, charge])


@dataclass
class History:
    items: list[Any] = field(default_factory=list)


class Chat(DurableObject[History]):
    """One conversation with the agent."""

    kind = "openai-chat"
    agent: ClassVar[Agent[None]]
    tools: ClassVar[dict[str, StepConfig]] = {"price": {"repeat": "safe"}, "charge": {"repeat": "keyed"}}

    async def turn(self, fiber: Fiber, prompt: str) -> str:
        """Answer one message, after all that came before it."""
        await self._before(fiber)
        # As it was when the turn began: the turn may be called again after it has added its own.
        size = await fiber.step("history", lambda: len(self.state.items))
        history = self.state.items[:size]
        steps = Steps(fiber, tools=self.tools, show=self.show)
        said: Any = {"role": "user", "content": prompt}
        run = await Runner.run(steps.agent(self.agent), [*history, said], run_config=steps.config)
        new = run.to_input_list()[len(history) :]
        await self.change(fiber, "remember", lambda state: state.items.extend(new))
        return str(run.final_output)

    async def _before(self, fiber: Fiber) -> None:
        """Return once the turns that were accepted earlier are over: a conversation has one order."""

        def find() -> list[str]:
            turns = [other.id for other in fiber.instance.runtime.unsettled() if other.method == fiber.state.method]
            return list(takewhile(lambda id: id != fiber.id, turns))[-1:]

        for earlier in await fiber.step("the turn before", find):
            with suppress(FiberFailed):
                await fiber.join(earlier)

    async def show(self, event: Any) -> None:
        """What happens, while it happens; a turn that is called again does not tell it again."""
        if isinstance(event, tuple):
            print(f"[{event[0]}: {event[1]}]", flush=True)
        elif event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)


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
    parser = argparse.ArgumentParser(description="A durable agent of the OpenAI Agents SDK: kill it and run it again.")
    parser.add_argument("prompt", nargs="?", default="Order a lamp.")
    parser.add_argument("--model", default="gpt-5", help="as the SDK names it (default: gpt-5)")
    parser.add_argument("--data", type=Path, default=Path(".cairn"), help="where its log is (default: .cairn)")
    options = parser.parse_args()
    asyncio.run(main(options.prompt, options.model, options.data))
