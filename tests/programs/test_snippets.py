"""Saved programs: written by a model, kept by its conversation, found and called like any function."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.programs.test_codemode import results

from cairn import Agent, App, Context
from cairn.errors import UsageError
from cairn.harness.codemode import CodeMode
from cairn.harness.snippets import Snippet, stored
from cairn.testing.scripted import Call, ScriptedModel

TOTAL = Snippet(
    "total_of",
    "The total of what a customer ordered.",
    "orders = await list_orders(customer=customer)\nsum(order['price'] for order in orders) * factor",
    {"customer": "str", "factor": "int"},
)


def shop(*script: Any, snippets: Any, effects: list[str]) -> Agent[None]:
    agent = Agent("shop", model=ScriptedModel(list(script)), codemode=CodeMode(snippets=snippets))

    @agent.tool(repeat="safe")
    def list_orders(customer: str) -> list[dict[str, int]]:
        """The orders of a customer."""
        effects.append(f"list {customer}")
        return [{"id": 1, "price": 20}, {"id": 2, "price": 30}]

    @agent.tool
    def refund(ctx: Context[None], price: int) -> str:
        """Give money back."""
        effects.append(f"refund {price}")
        return f"refunded {price}"

    return agent


def talk(agent: Agent[None], path: Path, messages: list[str], fork: bool = False) -> list[str]:
    """What the model read of all calls, at the end."""

    async def main() -> None:
        async with App([agent], store=path / "c.db") as app:
            conversation = app.conversation(agent, "c")
            for number, message in enumerate(messages):
                if fork and number:
                    conversation = await conversation.fork(id="d")
                await asyncio.wait_for((await conversation.send(message)).reply(), 20)

    asyncio.run(main())
    assert isinstance(agent.model, ScriptedModel)
    return results(agent.model.requests[-1])


def saving(name: str = "total_of", code: str = TOTAL.source, **more: Any) -> Call:
    inputs = more.pop("inputs", {"customer": "str", "factor": "int"})
    return Call("save_program", {"name": name, "description": "The total of a customer.", "code": code, "inputs": inputs})


@pytest.mark.parametrize("fork", [False, True], ids=["later", "in a fork"])
def test_a_model_saves_a_program_finds_it_and_calls_it(fork: bool, tmp_path: Path) -> None:
    """It lasts with the conversation: in later messages, over another life of the process, in a fork; its calls are calls."""
    effects: list[str] = []
    agent = shop(
        saving(),
        "Saved.",
        Call("search_functions", {"query": "total customer"}),
        Call("describe_functions", {"names": ["total_of"]}),
        Call("run_program", {"code": "await refund(price=await total_of(customer='c1', factor=2))"}),
        "Done.",
        snippets=True,
        effects=effects,
    )
    saved, searched, described, ran = talk(agent, tmp_path, ["Save.", "Use."], fork)
    assert saved.startswith("Saved.")
    assert "- total_of: The total of a customer." in searched
    assert "async def total_of(customer: str, factor: int) -> Any:" in described
    assert ran == '"refunded 100"'
    assert effects == ["list c1", "refund 100"]
    assert isinstance(agent.model, ScriptedModel)
    tools = [[spec.name for spec in request.tools] for request in agent.model.requests]
    assert set(map(tuple, tools)) == {("run_program", "search_functions", "describe_functions", "save_program")}
    heads = {str(request.tools) for request in agent.model.requests}
    assert len(heads) == 1, "what is saved changes nothing of the request's prefix"


def test_a_program_given_in_code_is_a_function_and_the_model_saves_none(tmp_path: Path) -> None:
    """Given ones need no grant to save."""
    effects: list[str] = []
    agent = shop(
        Call("run_program", {"code": "[await total_of('c1', 1), await total_of('c2', 3)]"}),
        Call("run_program", {"code": "await total_of(5, 1)"}),
        Call("run_program", {"code": "x: Any = 'a'\nfrom typing import Any\nawait total_of('c1', x)"}),
        saving(),
        "Done.",
        snippets=[TOTAL],
        effects=effects,
    )
    ran, typed, checked, refused = talk(agent, tmp_path, ["Go."])
    assert ran == "[50,150]"
    assert "types do not fit" in typed and "Expected `str`" in typed
    assert "It failed" in checked or "types do not fit" in checked
    assert "no tool named 'save_program'" in refused
    assert effects == ["list c1", "list c2"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (saving("Total"), "lower case"),
        (saving("list_orders"), "a function called 'list_orders' already"),
        (saving(code="def ("), "does not parse"),
        (saving(code="x" * 70_000), "64"),
        (saving(inputs={"customer": "object"}), "one of"),
        (saving(inputs={"a b": "str"}), "no Python name"),
        (saving(inputs={"class": "str"}), "no Python name"),
    ],
)
def test_what_cannot_be_a_function_is_not_saved(call: Call, words: str, tmp_path: Path) -> None:
    """Errors are data that the model can mend."""
    agent = shop(call, "Oh.", snippets=True, effects=[])
    (said,) = talk(agent, tmp_path, ["Save."])
    assert words in said.replace("65,536", "64"), said


def test_a_text_that_is_not_the_one_of_its_digest_is_nobodys_program() -> None:
    """X2: whoever can write a value cannot put words into a saved program's mouth without its digest."""
    import msgspec

    from cairn.harness.snippets import Saved

    good = Saved("a", "A.", "1", {}, Snippet("a", "A.", "1").digest)
    forged = Saved("b", "B.", "2", {}, good.digest)
    values = {
        "program:a": msgspec.json.encode(good),
        "program:b": msgspec.json.encode(forged),
        "program:c": b"{",
        "state": b"1",
    }
    assert [each.name for each in stored(values)] == ["a"]


@pytest.mark.parametrize("options", [{"snippets": "total"}, {"snippets": [1]}, {"files": "all"}])
def test_a_grant_that_is_none_is_refused(options: dict[str, Any]) -> None:
    """Where it is written."""
    with pytest.raises(UsageError, match="CodeMode"):
        CodeMode(**options)
    with pytest.raises(UsageError, match="description"):
        Snippet("a", "", "1")
