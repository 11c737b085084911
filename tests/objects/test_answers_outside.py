"""Answering from outside of the process: over HTTP by whom the credential names, with the client, at the command line; and
what a thousand conversations that wait cost.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.framework.shell import Shell
from tests.http.asking import Answer, Ask

from cairn import Agent, App, Context, Tokens
from cairn.client import Client, inside
from cairn.client.conversation import Conversation
from cairn.client.questions import PendingCall
from cairn.clock import SystemClock
from cairn.errors import Conflict, NotFound, UsageError
from cairn.framework.http.auth import Grant
from cairn.framework.http.tokens import create
from cairn.harness.application import AgentApplication
from cairn.harness.asking import approval
from cairn.harness.client_tool import client_tool
from cairn.harness.handle import ConversationHandle
from cairn.harness.loop import Services
from cairn.ids import SystemIds
from cairn.runtime.instance import QUESTIONS
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Store
from cairn.runtime.worker import Worker, WorkerSettings
from cairn.testing.scripted import Call, Script, ScriptedModel, by_turn


def shop(script: Script | None = None, *, by: tuple[str, ...] = ()) -> Agent[Any]:
    model = ScriptedModel(script or by_turn([Call("pay", {"amount": 300}), "Done."]))
    agent = Agent("shop", model=model, tools=[client_tool("where", "Where the user is.")])

    @agent.tool(approval=approval(lambda arguments: "more than 100" if arguments["amount"] > 100 else False, by=by))
    async def pay(ctx: Context, amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    return agent


async def waiting(conversation: Any, *, after: str = "") -> Any:
    """The one question, once it is asked; another than `after`."""
    async with asyncio.timeout(20):
        while True:
            found = [each for each in await conversation.questions() if each.call != after]
            if found:
                return found[0]
            await asyncio.sleep(0.01)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.01)


async def at_rest(conversation: ConversationHandle) -> bool:
    return not await conversation.unsettled()


# --- the client ----------------------------------------------------------------------------------------------------------


def talking(main: Callable[[Conversation, App], Awaitable[None]], agent: Agent[Any] | None = None) -> None:
    async def run() -> None:
        async with (
            App([agent or shop()], store=":memory:") as app,
            Client("http://localhost", transport=inside(app)) as client,
        ):
            await main(client.conversation("shop", "ann/1"), app)

    asyncio.run(run())


def test_the_client_approves_what_it_is_shown() -> None:
    """X10: the same question inside and over the wire; approved, run, answered; twice is once."""

    async def main(conversation: Conversation, app: App) -> None:
        receipt = await conversation.send("Buy it.")
        question: PendingCall = await waiting(conversation)
        (same,) = await app.conversation("shop", "ann/1").questions()
        assert (question.call, question.digest, question.arguments, question.reason) == (
            same.call, same.digest, {"amount": 300}, "more than 100",
        )  # fmt: skip
        assert question.expires_at is not None and question.expires_at.timestamp() == pytest.approx(same.expires_at, abs=0.01)

        first = await conversation.approve(question.call, digest=question.digest)
        again = await conversation.approve(question.call, digest=question.digest)

        assert (first.duplicate, again.duplicate) == (False, True)
        assert (await receipt.reply()).text == "Done."
        assert await conversation.questions() == []
        (late,) = [await conversation.approve(question.call, digest=question.digest)]
        assert late.duplicate

    talking(main)


def test_the_client_is_told_why_an_answer_is_refused() -> None:
    """X10: the same errors as inside of the process."""

    async def main(conversation: Conversation, app: App) -> None:
        with pytest.raises(NotFound):
            await conversation.questions()
        with pytest.raises(NotFound):
            await conversation.approve("call_1", digest="sha256:0")
        receipt = await conversation.send("Buy it.")
        question = await waiting(conversation)
        with pytest.raises(Conflict, match="other arguments"):
            await conversation.approve(question.call, digest="sha256:0")
        with pytest.raises(NotFound, match="no call 'other'"):
            await conversation.approve("other", digest=question.digest)
        with pytest.raises(UsageError, match="approve or reject"):
            await conversation.answer(question.call, 7, digest=question.digest)
        await conversation.reject(question.call, "too dear", digest=question.digest)
        with pytest.raises(Conflict, match="answered otherwise"):
            await conversation.approve(question.call, digest=question.digest)
        assert (await receipt.reply()).text == "Done."

    talking(main)


def test_the_client_carries_out_what_is_its_to_do() -> None:
    """F1: an output, or why there is none."""

    async def main(conversation: Conversation, app: App) -> None:
        receipt = await conversation.send("Where am I?")
        first = await waiting(conversation)
        await conversation.answer(first.call, {"city": "Oslo"}, digest=first.digest)
        second = await waiting(conversation, after=first.call)
        await conversation.answer(second.call, error="no permission", digest=second.digest)
        await receipt.reply()
        parts = [part for message in (await conversation.history()).messages for part in message.parts]
        tools = [part for part in parts if part["type"] == "dynamic-tool"]
        assert [part.get("output", part.get("errorText")) for part in tools] == [{"city": "Oslo"}, "no permission"]
        shown = [part["data"]["state"] for part in parts if part["type"].startswith("data-question:")]
        assert shown == ["answered", "answered"]

    talking(main, shop(by_turn([Call("where"), Call("where"), "Somewhere."])))


def test_the_client_rewinds_and_has_a_message_answered_again() -> None:
    """S6: to a message, to nothing; regenerated with the same words, by the answer's id too; each key is one request."""

    async def main(conversation: Conversation, app: App) -> None:
        async def texts(count: int) -> list[str]:
            async with asyncio.timeout(20):
                while True:
                    history = await conversation.history()
                    shown = [message.text for message in history.messages if message.role != "system"]
                    if len(shown) == count and not await app.conversation("shop", "ann/1").unsettled():
                        return shown
                    await asyncio.sleep(0.01)

        await (await conversation.send("first")).reply()
        await (await conversation.send("second")).reply()
        assert await texts(4) == ["first", "heard 1", "second", "heard 2"]
        messages = (await conversation.history()).messages

        again = await conversation.regenerate(messages[-1].id, key="again")
        same = await conversation.regenerate(messages[-1].id, key="again")
        assert (same.submission, same.deduplicated) == (again.submission, True)
        assert (await again.reply()).text == "heard 2" and await texts(4) == ["first", "heard 1", "second", "heard 2"]

        await conversation.rewind(messages[1].id)
        assert await texts(2) == ["first", "heard 1"]
        with pytest.raises(NotFound):
            await conversation.rewind(messages[3].id)
        with pytest.raises(NotFound):
            await conversation.regenerate("msg_none")
        await conversation.rewind(messages[0].id)
        assert await texts(1) == ["first"]
        await (await conversation.send("third")).reply()
        assert await texts(3) == ["first", "third", "heard 2"]  # the model has read both
        await conversation.rewind()
        assert await texts(0) == []

    users = Agent(
        "shop",
        model=ScriptedModel(lambda request: f"heard {sum(m.__class__.__name__ == 'UserMessage' for m in request.messages)}"),
    )
    talking(main, users)


# --- who may -----------------------------------------------------------------------------------------------------------


def test_who_answers_is_whom_the_token_names() -> None:
    """X10, X5: a body cannot name somebody; another token is refused with 403; the right one is recorded."""

    async def main() -> None:
        async with App([shop(by=("ann",))], store=":memory:", auth=Tokens()) as app:
            grants = (Grant.READ, Grant.SEND)
            tokens = {name: await create(app.store, app.clock, name, grants=grants) for name in ("ann", "mallory")}
            reader = await create(app.store, app.clock, "reader", grants=(Grant.READ,))
            ask = Ask(app)

            async def said(token: str, body: Any, path: str = "answers", method: str = "POST") -> Answer:
                headers = {"authorization": f"Bearer {token}"}
                return await ask(method, f"/agents/shop/1{path and '/' + path}", body, headers)

            assert (await said(tokens["mallory"], {"kind": "user", "body": "Buy it."}, "")).status == 202
            question = await waiting(app.conversation("shop", "1"))
            shown = (await said(reader, None, "questions", "GET")).json["questions"]
            assert [(each["call"], each["by"]) for each in shown] == [(question.call, ["ann"])]
            body = {"call": question.call, "digest": question.digest, "answer": "approve"}

            assert (await said(tokens["mallory"], body)).error == "forbidden"
            assert (await said(reader, body)).error == "forbidden"
            assert (await said(tokens["mallory"], {**body, "by": "ann"})).error == "invalid_request"
            assert (await said(tokens["ann"], {**body, "digest": "sha256:0"})).error == "answer_conflict"
            assert (await said(tokens["ann"], {**body, "call": "call_9"})).error == "question_not_found"
            for wrong in ("perhaps", {}, None, 7):
                assert (await said(tokens["ann"], {**body, "answer": wrong})).error == "invalid_request"
            assert (await said(tokens["ann"], {**body, "answer": "output"})).error == "invalid_request"
            assert await app.conversation("shop", "1").questions() == [question]
            accepted = await said(tokens["ann"], body)

            assert accepted.status == 200 and accepted.json["call"] == question.call
            assert (await said(tokens["ann"], body)).json["deduplicated"] is True
            assert (await said(tokens["mallory"], body)).error == "forbidden"
            await until(lambda: at_rest(app.conversation("shop", "1")))
            (entry,) = [each for each in await app.conversation("shop", "1").history() if each.calls]
            assert entry.answers[question.call].by == "ann"

    asyncio.run(main())


# --- the command line ----------------------------------------------------------------------------------------------------


async def parked(store: Path, count: int) -> None:
    """So many conversations that wait, and nobody who serves them."""
    async with App([shop()], store=str(store)) as app:
        for number in range(count):
            await app.conversation("shop", str(number)).send("Buy it.")
        await until(lambda: asks(app.store, count))


async def asks(store: Store, count: int) -> bool:
    """Whether just so many instances ask something."""
    return len(await store.instances(alarm=QUESTIONS, limit=2_000)) == count


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_approvals_are_listed_and_given_at_the_command_line(shell: Shell) -> None:
    """X10: over all instances, a page at a time; approved with nobody serving; it goes on when somebody does."""
    store = shell.folder / "it.db"
    asyncio.run(parked(store, 3))

    listed = shell.cairn("approvals", "--store", str(store), "--json")
    (rows,) = listed.events
    assert [(row["kind"], row["id"], row["tool"], row["arguments"]) for row in rows["questions"]] == [
        ("shop", str(number), "pay", {"amount": 300}) for number in range(3)
    ]
    page = shell.cairn("approvals", "--store", str(store), "--limit", "2", "--json").events[0]
    assert len(page["questions"]) == 2 and page["next"] is not None
    rest = shell.cairn("approvals", "--store", str(store), "--after", str(page["next"]), "--json").events[0]
    assert [row["id"] for row in rest["questions"]] == ["2"] and rest["next"] is None
    shown = shell.cairn("approvals", "--store", str(store)).out.splitlines()
    assert len(shown) == 4 and '{"amount":300}' in shown[1] and "more than 100" in shown[1]

    call = rows["questions"][0]["call"]
    approved = shell.cairn("approvals", "shop/0", "--approve", call, "--by", "ann", "--store", str(store))
    assert approved.out.splitlines()[0] == f"approved {call}, as ann" and "no worker serves 'shop'" in approved.out
    assert "before by the same word" in shell.cairn("approvals", "shop/0", "--approve", call, "--store", str(store)).out
    rejected = shell.cairn("approvals", "shop/1", "--reject", call, "--reason", "too dear", "--store", str(store), "--json")
    assert rejected.events[0]["answer"] == "rejected"
    assert shell.cairn("approvals", "shop/1", "--approve", call, "--store", str(store)).code == 2
    assert shell.cairn("approvals", "shop/2", "--approve", "call_9", "--store", str(store)).code == 2
    assert shell.cairn("approvals", "--approve", call, "--store", str(store)).code == 2
    assert len(shell.cairn("approvals", "--store", str(store), "--json").events[0]["questions"]) == 1

    asyncio.run(served(store))


async def served(store: Path) -> None:
    async with App([shop()], store=str(store)) as app:
        for id, outcome in (("0", "ok"), ("1", "rejected")):
            conversation = app.conversation("shop", id)
            await until(lambda conversation=conversation: at_rest(conversation))  # type: ignore[misc]
            results = [result for entry in await conversation.history() for result in entry.results.values()]
            assert [result.outcome for result in results] == [outcome]
        assert len(await app.conversation("shop", "2").questions()) == 1


# --- what waiting costs ----------------------------------------------------------------------------------------------------


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
def test_a_thousand_conversations_that_wait_hold_no_task_and_no_socket(tmp_path: Path) -> None:
    """F3: rows only: tasks and open files are those of a worker with nothing to do, and all thousand are found at once."""

    async def main() -> None:
        store = SqliteStore(str(tmp_path / "it.db"), clock=SystemClock(), ids=SystemIds())
        await store.open()
        application = AgentApplication(shop(), Services(resolve=lambda model: model), "")  # type: ignore[arg-type, return-value]

        def conversation(id: str) -> ConversationHandle:
            return ConversationHandle(application, store, SystemClock(), SystemIds(), Address("shop", id))

        settings = WorkerSettings(idle_seconds=0.05, tidy_seconds=None)
        async with Worker(store, [application], clock=SystemClock(), ids=SystemIds(), settings=settings) as worker:

            async def quiet(count: int) -> None:
                async def is_so() -> bool:
                    return not worker.running and await asks(store, count)

                await until(is_so)

            for number in range(50):  # enough to have every connection and thread there will ever be
                await conversation(f"warm-{number}").send("Buy it.")
            await quiet(50)
            tasks, files = len(asyncio.all_tasks()), open_files()

            for number in range(1_000):
                await conversation(str(number)).send("Buy it.")
            await quiet(1_050)

            assert len(asyncio.all_tasks()) <= tasks and open_files() <= files
            question = await waiting(conversation("567"))
            await conversation("567").approve(question.call, digest=question.digest)
            await until(lambda: at_rest(conversation("567")))
            await quiet(1_049)
        await store.close()

    asyncio.run(main())


def test_the_listing_is_json_a_program_can_read(shell: Shell) -> None:
    """Everything an answer needs stands in it."""
    store = shell.folder / "it.db"
    asyncio.run(parked(store, 1))

    (row,) = json.loads(shell.cairn("approvals", "shop/0", "--store", str(store), "--json").out)["questions"]

    assert {"kind", "id", "call", "tool", "asks", "arguments", "digest", "asked_at", "expires_at", "reason", "by"} <= row.keys()
