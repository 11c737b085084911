"""What a program of an agent asks, in code mode: listed once, answered like a call of the model's, told truly later (X10)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.framework.shell import Shell
from tests.http.asking import Ask

from cairn import Agent, App, Context, approval
from cairn.testing.scripted import Call, ScriptedModel, by_turn

CODE = "first = await pay(amount=300)\nsecond = await pay(amount=400)\n[first, second]"


def shop() -> Agent[Any]:
    agent = Agent("shop", model=ScriptedModel(by_turn([Call("run_program", {"code": CODE}), "Done."])), codemode=True)

    @agent.tool(approval=approval(lambda arguments: "much money", by=["ann"]))
    def pay(ctx: Context[Any], amount: int) -> str:
        """Pay somebody."""
        return f"paid {amount}"

    return agent


async def asked(app: App, amount: int) -> Any:
    """The question of that amount, once it is asked."""
    async with asyncio.timeout(20):
        while True:
            for each in await app.conversation("shop", "1").questions():
                if each.arguments == {"amount": amount}:
                    return each
            await asyncio.sleep(0.01)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_a_program_that_asks_is_answered_at_the_command_line(shell: Shell) -> None:
    """X10: one line for one question; another name is refused; the same word again is no mistake, another one is."""
    store = str(shell.folder / "it.db")

    async def begin() -> None:
        async with App([shop()], store=store) as app:
            await app.conversation("shop", "1").send("Pay.")
            await asked(app, 300)

    asyncio.run(begin())
    (row,) = shell.cairn("approvals", "--store", store, "--json").events[0]["questions"]
    assert (row["tool"], row["arguments"], row["asks"], row["by"]) == ("pay", {"amount": 300}, "approval", ["ann"])
    verb = ("approvals", "shop/1", "--store", store, "--by")

    assert shell.cairn(*verb, "bob", "--approve", row["call"]).code == 2
    assert shell.cairn(*verb, "ann", "--approve", row["call"]).out.startswith(f"approved {row['call']}, as ann")
    assert "before by the same word" in shell.cairn(*verb, "ann", "--approve", row["call"]).out
    assert shell.cairn(*verb, "ann", "--reject", row["call"]).code == 2
    assert shell.cairn("approvals", "--store", store).out.strip() == "nothing waits for an answer"


def test_a_program_that_asks_is_answered_over_http() -> None:
    """X10: each call by its own name and digest: an answer to one is none to the next; a double click is one click, also
    when the program is over."""

    async def main() -> None:
        async with App([shop()], store=":memory:") as app:
            ask = Ask(app)

            async def said(question: Any, **more: Any) -> Any:
                body = {"call": question.call, "digest": question.digest, "answer": "approve", **more}
                return await ask("POST", "/agents/shop/1/answers", body)

            receipt = await app.conversation("shop", "1").send("Pay.")
            first = await asked(app, 300)
            (listed,) = (await ask("GET", "/questions")).json["questions"]
            assert (listed["call"], listed["tool"], listed["instance"]["kind"]) == (first.call, "pay", "shop")
            assert (await said(first)).error == "forbidden"  # whoever is at this machine is not ann
            await app.conversation("shop", "1").approve(first.call, digest=first.digest, by="ann")

            second = await asked(app, 400)
            assert second.call != first.call and second.digest != first.digest
            assert (await said(second, digest=first.digest)).error == "forbidden"
            conversation = app.conversation("shop", "1")
            assert (await conversation.approve(first.call, digest=first.digest, by="ann")).duplicate
            await conversation.reject(second.call, "too dear", digest=second.digest, by="ann")
            assert (await asyncio.wait_for(receipt.reply(), 20)).text == "Done."
            assert (await conversation.reject(second.call, "too dear", digest=second.digest, by="ann")).duplicate
            assert (await said(second)).error == "forbidden"
            assert (await said(first, call="approve none")).error == "question_not_found"

    asyncio.run(main())
