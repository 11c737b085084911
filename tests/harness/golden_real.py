"""Golden histories of what the simulation cannot play: programs in the real interpreter, commands in the real shell.

They are recorded by an `App` on the machine's clock, in memory; what is in them is what a person's store holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cairn import Agent, App
from cairn.harness.records import HARNESS
from cairn.harness.sandbox.virtual import virtual
from cairn.harness.sandbox.virtual_pool import shared_pool
from cairn.runtime import records as r
from cairn.testing.history import logs_of
from cairn.testing.scripted import Call, ScriptedModel

Batches = list[tuple[int, bytes]]

_PROGRAM = """
import asyncio
prices = await asyncio.gather(*[price(thing=thing) for thing in ["nail", "roof"]])
print("together", sum(prices))
await pay(amount=sum(prices))
"""


async def _recorded(agent: Agent[Any], answers: Callable[[Any], Any] | None = None) -> Batches:
    """The one log that one message to the agent leaves."""
    async with App([agent], store=":memory:") as app:
        conversation = app.conversation(agent, "c")
        receipt = await conversation.send("Go.", key="0")
        if answers is not None:
            await answers(conversation)
        await receipt.reply()
        (log,) = await logs_of(app.store)
    decoder = r.decoder(HARNESS)
    assert all(decoder.decode(row.batch.records) for row in log.rows)
    return [(row.ordinal, row.batch.records) for row in log.rows]


def program() -> Batches:
    """Code mode: the types do not fit, then a program that calls two functions at once, and a third that asks."""
    replies = [Call("run_program", {"code": "await pay('much')"}), Call("run_program", {"code": _PROGRAM}), "Paid."]
    agent = Agent("toy", model=ScriptedModel(replies), codemode=True)

    @agent.tool(repeat="safe")
    def price(thing: str) -> int:
        """What a thing costs."""
        return {"nail": 1, "roof": 900}[thing]

    @agent.tool(approval=lambda arguments: "much money" if arguments["amount"] > 100 else False)
    def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    async def approve(conversation: Any) -> None:
        while not (questions := await conversation.questions()):  # noqa: ASYNC110 - it is in a store
            await asyncio.sleep(0.01)
        (question,) = questions
        await conversation.approve(question.call, digest=question.digest, by="ann")

    return asyncio.run(_recorded(agent, approve))


def shell() -> Batches:
    """An agent in its workspace: commands that write, move and fail, and a call that is stopped with nothing written."""
    commands = [
        {"command": "mkdir src; cd src; echo one > a.txt; ln -s a.txt link; NAME=ann"},
        {"command": "mv a.txt b.txt; chmod 755 b.txt; rm link; pwd; echo $NAME; exit 3"},
        {"command": "echo lost > late; sleep 30", "timeout": 0.5},
        {"command": "cat late b.txt"},
    ]
    replies = [*(Call("bash", command) for command in commands), "Done."]
    agent = Agent("worker", model=ScriptedModel(replies), sandbox=virtual())

    async def main() -> Batches:
        try:
            return await _recorded(agent)
        finally:
            shared_pool().close()

    return asyncio.run(main())


#: Histories that real programs wrote.
REAL: dict[str, tuple[str, Callable[[], Batches]]] = {
    "program": ("Programs of code mode: one that is refused, one that calls functions and asks.", program),
    "shell": ("Commands in a virtual sandbox: files, the shell's state, a timeout.", shell),
}
