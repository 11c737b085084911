"""Code mode end to end: a model that searches, describes, mends a type error, and runs a program."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.programs.scenes import until

from cairn import Agent, App, Context
from cairn.harness.messages import Text, ToolMessage
from cairn.harness.models.protocol import ModelRequest
from cairn.testing.scripted import Call, ScriptedModel


@dataclass
class Till:
    taken: list[int] = field(default_factory=list)


def shop(*script: Any, effects: list[str], **options: Any) -> Agent[Till]:
    agent = Agent("shop", model=ScriptedModel(list(script)), state=Till, codemode=True, **options)

    @agent.tool(repeat="safe")
    def list_orders(customer: str) -> list[dict[str, int]]:
        """The orders of a customer.

        Args:
            customer: The customer's id.
        """
        effects.append(f"list {customer}")
        return [{"id": 1, "price": 20}, {"id": 2, "price": 30}]

    @agent.tool
    async def refund(ctx: Context[Till], order: int, price: int) -> str:
        """Give the money of an order back."""
        effects.append(f"refund {order}")
        ctx.state.taken = [*ctx.state.taken, price]
        return f"refunded {order}"

    @agent.tool(approval=lambda arguments: "much money" if arguments["amount"] > 100 else False)
    def pay(amount: int) -> str:
        """Pay somebody."""
        effects.append(f"pay {amount}")
        return f"paid {amount}"

    return agent


def results(request: ModelRequest) -> list[str]:
    return [
        block.text
        for message in request.messages
        if isinstance(message, ToolMessage)
        for block in message.content
        if isinstance(block, Text)
    ]


PROGRAM = """
import asyncio
orders = await list_orders(customer="c1")
done = await asyncio.gather(*[refund(order["id"], order["price"]) for order in orders])
print("refunded", len(done))
total = sum(order["price"] for order in orders)
{"done": done, "total": total, "paid": await pay(amount=500)}
"""


def test_a_model_finds_functions_mends_a_type_error_and_runs_a_program_that_asks(tmp_path: Path) -> None:
    """One scene of code mode: search, describe, an error before anything ran, five calls, an approval, one answer."""
    effects: list[str] = []
    agent = shop(
        Call("search_functions", {"query": "refund order"}),
        Call("describe_functions", {"names": ["refund", "list_orders"]}),
        Call("run_program", {"code": "await refund('one', 5)"}),
        Call("run_program", {"code": PROGRAM}),
        "All done.",
        effects=effects,
    )

    async def main() -> None:
        async with App([agent], store=tmp_path / "c.db") as app:
            conversation = app.conversation(agent, "c")
            receipt = await conversation.send("Go.")
            async with asyncio.timeout(20):
                (question,) = await until(conversation.questions)
            assert (question.tool, question.arguments, question.reason) == ("pay", {"amount": 500}, "much money")
            assert effects == ["list c1", "refund 1", "refund 2"]
            await conversation.approve(question.call, digest=question.digest, by="ann")
            assert (await asyncio.wait_for(receipt.reply(), 20)).text == "All done."

    asyncio.run(main())
    model = agent.model
    assert isinstance(model, ScriptedModel)
    first, *_, last = model.requests
    assert [spec.name for spec in first.tools] == ["run_program", "search_functions", "describe_functions"]
    searched, described, failed, ran = results(last)
    assert searched.splitlines()[0] == "- refund: Give the money of an order back."
    assert "async def refund(order: int, price: int) -> Any:" in described
    assert "It was not run: the types do not fit." in failed and "Expected `int`" in failed
    assert ran.startswith('{"done":["refunded 1","refunded 2"],"paid":"paid 500","total":50}'), ran
    assert ran.endswith("It printed:\nrefunded 2\n")
    assert effects == ["list c1", "refund 1", "refund 2", "pay 500"]


def test_what_a_tool_that_fails_changed_is_not_kept(tmp_path: Path) -> None:
    """S8 and the draft of a call: in a program as outside, a failed call leaves nothing behind, and one that works does."""
    agent: Agent[Till] = Agent(
        "shop",
        model=ScriptedModel(
            [
                Call("run_program", {"code": "try:\n    await break_off(1)\nexcept RuntimeError:\n    pass\nawait take(2)"}),
                "Done.",
            ]
        ),
        state=Till,
        codemode=True,
    )

    @agent.tool
    def break_off(ctx: Context[Till], price: int) -> str:
        """Take money, and fail."""
        ctx.state.taken = [price]
        raise ValueError("the drawer is stuck")

    @agent.tool
    def take(ctx: Context[Till], price: int) -> str:
        """Take money."""
        ctx.state.taken = [*ctx.state.taken, price]
        return str(ctx.state.taken)

    async def main() -> None:
        async with App([agent], store=tmp_path / "c.db") as app:
            receipt = await app.conversation(agent, "c").send("Go.")
            await asyncio.wait_for(receipt.reply(), 20)

    asyncio.run(main())
    model = agent.model
    assert isinstance(model, ScriptedModel)
    assert results(model.requests[-1]) == ['"[2]"']
