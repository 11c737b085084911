"""What a program asks: shown to people like a call of the model's, and answered like one: X10.

The same conversation everywhere: a program pays much, and waits for somebody.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.programs.test_codemode_crash import Stage, asked, eventually, on_stage, unfinished

from cairn import Agent, App, Context
from cairn.client import Client, inside
from cairn.errors import CairnError, Conflict, Denied, NotFound, UsageError
from cairn.harness.answers import PendingCall
from cairn.harness.asking import approval
from cairn.harness.client_tool import client_tool
from cairn.harness.handle import ConversationHandle
from cairn.harness.shown_questions import Chunk
from cairn.testing.scripted import Call, ScriptedModel, by_turn

PAYS = "try:\n    paid = await pay(amount=500)\nexcept PermissionError as error:\n    paid = str(error)\npaid"


def payer(effects: Counter[str], code: str = PAYS, asks: Any = None) -> Agent[Any]:
    model = ScriptedModel(by_turn([Call("run_program", {"code": code}), "Done."]))
    agent = Agent("analyst", model=model, codemode=True, tools=[client_tool("where", "Where the user is.")])
    rule = asks or approval(lambda arguments: "more than 100" if arguments["amount"] > 100 else False, by=["ann", "bob"])

    @agent.tool(approval=rule)
    async def pay(ctx: Context[Any], amount: int) -> str:
        """Pay."""
        effects[f"pay {amount}"] += 1
        return f"paid {amount}"

    return agent


Try = Callable[[ConversationHandle, PendingCall], Awaitable[Any]]

REFUSED: dict[str, tuple[Try, type[CairnError], str]] = {
    "forged: another digest": (
        lambda c, q: c.approve(q.call, digest="sha256:" + "0" * 64, by="ann"), Conflict, "other arguments",
    ),
    "forged: no digest": (lambda c, q: c.approve(q.call, digest="", by="ann"), Conflict, "other arguments"),
    "forged: a call there is not": (lambda c, q: c.approve("call_9", digest=q.digest, by="ann"), NotFound, "no call"),
    "forged: another program's": (
        lambda c, q: c.approve(q.call.replace(":call_", ":call_7"), digest=q.digest, by="ann"), NotFound, "no call",
    ),
    "by another user": (lambda c, q: c.approve(q.call, digest=q.digest, by="mallory"), Denied, "ann, bob may"),
    "by nobody": (lambda c, q: c.reject(q.call, digest=q.digest), Denied, "nobody in particular"),
    "an outcome instead of leave": (
        lambda c, q: c.answer(q.call, "paid 500", digest=q.digest, by="ann"), UsageError, "approve or reject",
    ),
    "a reason that is a book": (lambda c, q: c.reject(q.call, "no " * 5_000, digest=q.digest, by="ann"), UsageError, "reason"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_answer_that_is_none_is_refused_and_changes_nothing(name: str) -> None:
    """X10: not a record more in the log, the question still stands, and the right answer works."""
    attempt, error, words = REFUSED[name]

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
            before = await head(stage, conversation)
            with pytest.raises(error, match=words):
                await attempt(conversation, question)
            assert await head(stage, conversation) == before
            assert await conversation.questions() == [question]
            await conversation.approve(question.call, digest=question.digest, by="bob")
            await receipt.reply()
        assert stage.effects == Counter(["pay 500"])

    on_stage(main, payer)


async def head(stage: Stage, conversation: ConversationHandle) -> int:
    row = await stage.store.find(conversation.address)
    assert row is not None
    return row.head


def test_twice_is_once_and_after_it_the_first_stands() -> None:
    """X10: a double click is the first one's receipt; a second opinion is refused; after the program nothing is asked."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
        answers = [conversation.approve(question.call, digest=question.digest, by="ann") for _ in range(2)]
        first, again = await asyncio.gather(*answers)
        assert sorted([first.duplicate, again.duplicate]) == [False, True]
        with pytest.raises(Conflict, match="answered otherwise by ann"):
            await conversation.reject(question.call, "no", digest=question.digest, by="bob")
        async with stage.worker():
            await receipt.reply()
            assert await unfinished(conversation) == 0
        with pytest.raises(CairnError):
            await conversation.reject(question.call, "no", digest=question.digest, by="bob")
        assert stage.effects == Counter(["pay 500"]) and stage.answers == ['"paid 500"']

    on_stage(main, payer)


def test_a_rejection_is_told_with_its_reason_and_the_program_goes_on() -> None:
    """X10; the model reads what the program made of it."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
            await conversation.reject(question.call, "too dear", digest=question.digest, by="ann")
            await receipt.reply()
        assert stage.answers == ['"a person said no: too dear"'] and not stage.effects

    on_stage(main, payer)


def test_nobody_answers_in_time_and_a_late_yes_is_refused() -> None:
    """X10: expiry is told like a no; nobody pays."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
            await receipt.reply()
            with pytest.raises(CairnError):
                await conversation.approve(question.call, digest=question.digest, by="ann")
        assert stage.answers == ['"nobody approved it in time"'] and not stage.effects

    on_stage(main, lambda effects: payer(effects, asks=approval(expires=0.3)))


def test_an_answer_given_while_no_process_is_there_counts() -> None:
    """X10: it is a request in the log; whoever serves the conversation next acts on it."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
        await stage.interpreters.close()
        await conversation.approve(question.call, digest=question.digest, by="ann")
        async with stage.worker():
            await receipt.reply()
        assert stage.effects == Counter(["pay 500"])

    on_stage(main, payer)


# --- what clients are shown -------------------------------------------------------------------------------------------


async def shown(conversation: ConversationHandle, name: str) -> list[Chunk]:
    """All that was ever shown of that question."""
    found = []
    async for row in rows(conversation):
        for line in bytes(row.batch.chunks or b"").splitlines():
            chunk = json.loads(line)
            if chunk["type"] == "data-part" and chunk["name"] == f"question:{name}":
                found.append(chunk["data"])
    return found


async def rows(conversation: ConversationHandle) -> Any:
    from cairn.runtime import log

    row = await log.locate(conversation._store, conversation.address)
    async for each in log.read(conversation._store, row.n):
        yield each


@pytest.mark.parametrize("how", ["approve", "reject", "abort", "expire"])
def test_a_question_of_a_program_reaches_clients_and_is_resolved(how: str) -> None:
    """As a tool's own: the arguments, the digest, the reason; then what became of it."""
    expected = {"approve": "approved", "reject": "rejected", "abort": "aborted", "expire": "expired"}[how]
    rule = approval(lambda arguments: "more than 100", by=["ann"], expires=0.3 if how == "expire" else 60.0)

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
            if how == "approve":
                await conversation.approve(question.call, digest=question.digest, by="ann")
            elif how == "reject":
                await conversation.reject(question.call, "no", digest=question.digest, by="ann")
            elif how == "abort":
                await conversation.abort()

            async def is_over() -> bool:
                return not await unfinished(conversation)

            await eventually(is_over)
        first, *_, last = await shown(conversation, question.call)
        assert (first["state"], last["state"]) == ("waiting", expected)
        assert (first["toolName"], first["input"], first["digest"]) == ("pay", {"amount": 500}, question.digest)
        assert (first["reason"], first["by"], "expiresAt" in first) == ("more than 100", ["ann"], True)
        assert last.get("answeredBy") == ("ann" if how in ("approve", "reject") else None)
        fold = await conversation._loaded(None)
        assert fold is not None and fold.state.shown.asked == {}

    on_stage(main, lambda effects: payer(effects, asks=rule))


def test_what_a_client_carries_out_is_asked_by_a_program_too() -> None:
    """A client's tool in a program: its output is the call's outcome."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
            assert (question.tool, question.kind) == ("where", "client_tool")
            await conversation.answer(question.call, {"city": "Oslo"}, digest=question.digest, by="browser")
            await receipt.reply()
        assert stage.answers == ['{"city":"Oslo"}']
        assert [each["state"] for each in await shown(conversation, question.call)] == ["waiting", "answered"]

    on_stage(main, lambda effects: payer(effects, "await where()"))


# --- over HTTP and at the command line --------------------------------------------------------------------------------


def test_over_http_it_is_asked_shown_and_answered(tmp_path: Path) -> None:
    """The client's way: the question's address is its name, whatever is in it."""
    effects: Counter[str] = Counter()

    async def main() -> None:
        async with (
            App([payer(effects, asks=approval())], store=tmp_path / "c.db") as app,
            Client("http://localhost", transport=inside(app)) as client,
        ):
            conversation = client.conversation("analyst", "ann/1")
            receipt = await conversation.send("Go.")

            async def look() -> list[Any]:
                return list(await conversation.questions())

            (question,) = await eventually(look)
            assert (question.tool, question.arguments) == ("pay", {"amount": 500})
            with pytest.raises(Conflict):
                await conversation.approve(question.call, digest="sha256:0")
            await conversation.approve(question.call, digest=question.digest)
            assert (await receipt.reply()).text == "Done."

    asyncio.run(asyncio.wait_for(main(), 30))
    assert effects == Counter(["pay 500"])


@pytest.mark.system
def test_at_the_command_line_it_is_listed_and_approved(tmp_path: Path) -> None:
    """`cairn approvals`, of a store that nobody serves; the next process acts on it."""
    effects: Counter[str] = Counter()
    store = tmp_path / "c.db"

    async def first() -> None:
        async with App([payer(effects, asks=approval())], store=store) as app:
            conversation = app.conversation("analyst", "c")
            await conversation.send("Go.", key="k")
            await asked(conversation)

    async def second() -> None:
        async with App([payer(effects, asks=approval())], store=store) as app:
            receipt = await app.conversation("analyst", "c").send("Go.", key="k")
            assert (await asyncio.wait_for(receipt.reply(), 20)).text == "Done."

    def cairn(*arguments: str) -> str:
        command = [sys.executable, "-m", "cairn.framework.cli", "approvals", *arguments, "--store", str(store)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    asyncio.run(first())
    (question,) = json.loads(cairn("--json"))["questions"]
    assert question["arguments"] == {"amount": 500}
    cairn("analyst/c", "--approve", question["call"], "--by", "ann")
    asyncio.run(second())
    assert effects == Counter(["pay 500"])
