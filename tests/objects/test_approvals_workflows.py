"""What waits in workflows and other durable objects, answered from outside: over HTTP, at the command line, by everybody who
may and by nobody else (X10).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.framework.shell import Shell
from tests.http.asking import Answer, Ask
from tests.http.test_openapi import schema
from tests.objects.knocking import knock

from cairn import Agent, App, Context, Tokens, approval
from cairn.clock import Clock, SystemClock
from cairn.errors import Conflict, UsageError
from cairn.framework.http.auth import Grant
from cairn.framework.http.tokens import create
from cairn.runtime import DurableObject, Fiber, WorkerSettings
from cairn.runtime.answering import Approval, Given, give
from cairn.runtime.client import Client
from cairn.runtime.program import Function, FunctionCall
from cairn.runtime.program_pool import Interpreters
from cairn.runtime.workflow import Workflow, workflows
from cairn.testing.scripted import Call, ScriptedModel, by_turn

QUICK = WorkerSettings(idle_seconds=0.0, poll_seconds=0.2)
BOTH = (Grant.READ, Grant.SEND)
ASKS = 'answer = await wait_for_approval({"ship": item})\nanswer'
PAYS = "await pay(amount=amount)"


@dataclass
class DeskState:
    told: str = ""


class Desk(DurableObject[DeskState]):
    """Asks in each way an object can."""

    kind = "desk"

    async def ship(self, fiber: Fiber, item: str, by: list[str], expires: float) -> dict[str, Any]:
        answer = await fiber.ask("ship?", {"item": item}, by=by, expires=expires or None, approval=True)
        return {"approved": answer.approved, "reason": answer.reason, "by": answer.by}

    async def colour(self, fiber: Fiber) -> Any:
        answer = await fiber.ask("which colour?", ["red", "blue"])
        return [answer.value(), answer.by]


class Watch(SystemClock):
    """The machine's clock, which can be put on."""

    ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead


async def pay(call: FunctionCall) -> str:
    return f"paid {call.arguments['amount']}"


def onboarding(interpreters: Interpreters) -> type[Workflow]:
    may = Function("pay", pay, ("amount",), approval=lambda call: "much", approvers=("ann",))
    return workflows([may], kind="onboarding", interpreters=interpreters)


@dataclass
class House:
    """An open App with a desk, a kind of workflows and an agent, and what tokens name."""

    app: App
    clock: Watch
    tokens: dict[str, str]

    async def said(self, who: str, method: str, path: str, body: Any = None) -> Answer:
        return await Ask(self.app)(method, path, body, {"authorization": f"Bearer {self.tokens[who]}"})

    async def asked(self, path: str, who: str = "ann", count: int = 1) -> list[dict[str, Any]]:
        """The questions there, once there are so many."""
        async with asyncio.timeout(20):
            while True:
                answer = await self.said(who, "GET", path)
                if answer.status == 200 and len(answer.json["questions"]) >= count:
                    found: list[dict[str, Any]] = answer.json["questions"]
                    return found
                await asyncio.sleep(0.01)

    async def result(self, id: str, fiber: str) -> Any:
        client = self.app.classes["desk"].handle(self._client(), id)
        async with asyncio.timeout(20):
            return (await client.client.settled(id, fiber)).value()

    def _client(self) -> Any:
        return Client(self.app.store, self.app.classes["desk"], clock=self.app.clock, ids=self.app.ids)

    async def start(self, id: str, method: str, *arguments: Any) -> str:
        desk = self.app.classes["desk"].handle(self._client(), id)
        return (await desk.start(method, *arguments)).fiber


def shop() -> Agent[Any]:
    agent = Agent("shop", model=ScriptedModel(by_turn([Call("refund", {"order": 7}), "Done."])))

    @agent.tool(approval=approval(by=["ann"]))
    def refund(ctx: Context[Any], order: int) -> str:
        """Give money back."""
        return "refunded"

    return agent


CALLERS: dict[str, dict[str, Any]] = {
    "ann": {"grants": BOTH},
    "bob": {"grants": BOTH},
    "reader": {"grants": (Grant.READ,)},
    "sender": {"grants": (Grant.SEND,)},
    "stranger": {"grants": BOTH, "tenant": "other"},
    "clerk": {"grants": BOTH, "agents": ("desk/1",)},
}


def in_house(main: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        interpreters, clock = Interpreters(), Watch()
        app = App(
            [shop()], objects=[Desk, onboarding(interpreters)], store=":memory:", auth=Tokens(), clock=clock, settings=QUICK
        )
        try:
            async with app:
                tokens = {name: await create(app.store, app.clock, name, **given) for name, given in CALLERS.items()}
                await main(House(app, clock, tokens))
        finally:
            await interpreters.close()

    asyncio.run(run())


def reply(question: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"call": question["call"], "digest": question["digest"], "answer": "approve", **more}


# --- the two ways a workflow asks -------------------------------------------------------------------------------------


def test_a_step_of_a_workflow_is_answered_over_http() -> None:
    """X10, F1: read, bound, approved by whom the token names; a double click is one click, also when the workflow has ended."""

    async def main(house: House) -> None:
        path = "/agents/onboarding/acme"
        await house.app.object("onboarding", "acme").call("start", ASKS, {"item": "a lamp"})
        (question,) = await house.asked(f"{path}/questions")
        assert question["kind"] == "approval" and question["input"] == {"ship": "a lamp"}
        assert not list(schema("Questions").iter_errors({"questions": [question]}))

        first = await house.said("ann", "POST", f"{path}/answers", reply(question))
        assert first.status == 200 and not list(schema("Answered").iter_errors(first.json))

        standing = await until(house, "acme", "completed")
        assert standing["result"] == {"approved": True, "reason": "", "by": "ann"}
        again = await house.said("ann", "POST", f"{path}/answers", reply(question))
        assert again.json == {**first.json, "deduplicated": True}
        changed = await house.said("ann", "POST", f"{path}/answers", reply(question, answer="reject", reason="no"))
        assert changed.error == "answer_conflict"

    in_house(main)


def test_a_function_that_needs_an_approval_is_rejected_with_a_reason() -> None:
    """X10: the function and its arguments are shown; only who may answers; the program reads why not."""

    async def main(house: House) -> None:
        path = "/agents/onboarding/acme"
        source = "try:\n    said = await pay(amount=300)\nexcept PermissionError as error:\n    said = str(error)\nsaid"
        await house.app.object("onboarding", "acme").call("start", source, {})
        (question,) = await house.asked(f"{path}/questions")
        assert (question["tool"], question["input"], question["by"]) == ("pay", {"amount": 300}, ["ann"])

        assert (await house.said("bob", "POST", f"{path}/answers", reply(question))).error == "forbidden"
        rejected = await house.said("ann", "POST", f"{path}/answers", reply(question, answer="reject", reason="too dear"))
        assert rejected.status == 200

        assert "too dear" in (await until(house, "acme", "completed"))["result"]

    in_house(main)


async def until(house: House, id: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (found := await house.app.object("onboarding", id).call("inspect"))["status"] != status:  # noqa: ASYNC110 - it is only asked
            await asyncio.sleep(0.01)
    standing: dict[str, Any] = found
    return standing


# --- X10 --------------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_none_is_refused_and_changes_nothing() -> None:
    """X10, X5, X11: forged, replayed, for another question, by another, by another tenant, malformed, unknown."""

    async def main(house: House) -> None:
        path = "/agents/desk/1"
        fiber = await house.start("1", "ship", "lamp", ["ann"], 0)
        other = await house.start("2", "ship", "desk", ["ann"], 0)
        (question,) = await house.asked(f"{path}/questions")
        (elsewhere,) = await house.asked("/agents/desk/2/questions")
        good = reply(question)
        refused: list[tuple[str, str, dict[str, Any], str]] = [
            ("ann", path, {**good, "digest": "sha256:0"}, "answer_conflict"),
            ("ann", path, reply(elsewhere), "answer_conflict"),
            ("ann", path, {**good, "call": "delete?"}, "question_not_found"),
            ("ann", path, {**good, "fiber": "fib_0"}, "question_not_found"),
            ("ann", path, {**good, "fiber": other}, "question_not_found"),
            ("ann", path, {**good, "by": "ann"}, "invalid_request"),
            ("ann", path, {**good, "fiber": 7}, "invalid_request"),
            ("ann", path, {**good, "answer": "output", "output": {"answer": "maybe"}}, "invalid_request"),
            ("ann", path, {**good, "answer": "error", "error": "x"}, "invalid_request"),
            ("ann", path, {**good, "answer": "reject", "reason": "x" * 5_000}, "invalid_request"),
            ("bob", path, good, "forbidden"),
            ("reader", path, good, "forbidden"),
            ("stranger", path, good, "stream_not_found"),
            ("clerk", "/agents/desk/2", reply(elsewhere), "stream_not_found"),
            ("ann", "/agents/desk/never", good, "stream_not_found"),
        ]
        for who, where, body, error in refused:
            answer = await house.said(who, "POST", f"{where}/answers", body)
            assert answer.error == error, (who, body, answer.body)
        assert await house.asked(f"{path}/questions") == [question]
        assert (await house.said("stranger", "GET", f"{path}/questions")).error == "stream_not_found"
        assert (await house.said("sender", "GET", f"{path}/questions")).error == "forbidden"

        assert (await house.said("ann", "POST", f"{path}/answers", {**good, "fiber": fiber})).status == 200
        assert await house.result("1", fiber) == {"approved": True, "reason": "", "by": "ann"}
        assert (await house.said("bob", "POST", f"{path}/answers", good)).error == "forbidden"
        replayed = await house.said("ann", "POST", "/agents/desk/2/answers", good)
        assert replayed.error == "answer_conflict"
        assert await house.asked("/agents/desk/2/questions") == [elsewhere]

    in_house(main)


def test_an_answer_after_its_time_is_refused() -> None:
    """X10: whether or not anybody has noticed that the time is over."""

    async def main(house: House) -> None:
        await house.start("1", "ship", "lamp", [], 3_600)
        (question,) = await house.asked("/agents/desk/1/questions")
        house.clock.ahead = 3_601.0

        late = await house.said("ann", "POST", "/agents/desk/1/answers", reply(question))

        assert late.error == "answer_conflict"

    in_house(main)


def test_of_two_answers_at_once_one_counts() -> None:
    """X10, S6: a yes and a no at the same moment: one is taken, the other hears so."""

    async def main(house: House) -> None:
        fiber = await house.start("1", "ship", "lamp", [], 0)
        (question,) = await house.asked("/agents/desk/1/questions")
        both = [
            house.said("ann", "POST", "/agents/desk/1/answers", reply(question)),
            house.said("bob", "POST", "/agents/desk/1/answers", reply(question, answer="reject")),
        ]

        yes, no = await asyncio.gather(*both)

        assert sorted([yes.status, no.status]) == [200, 409]
        result = await house.result("1", fiber)
        assert result["approved"] == (yes.status == 200) and result["by"] == ("ann" if yes.status == 200 else "bob")

    in_house(main)


def test_an_answer_that_another_overtook_is_told_so() -> None:
    """X10, S6: both looked before either wrote: the log says whose it was, and the same word is no quarrel."""

    async def main(house: House) -> None:
        await house.start("1", "ship", "lamp", [], 0)
        await house.asked("/agents/desk/1/questions")
        client = house._client()
        (question,) = await client.questions("1")
        looked, go_on = asyncio.Barrier(3), asyncio.Event()

        class Slow(Client):
            """Writes when it is told to."""

            async def request(self, *given: Any, **more: Any) -> int:
                await looked.wait()
                await go_on.wait()
                return await super().request(*given, **more)

        async def late(answer: Approval) -> Given:
            slow = Slow(client.store, client.application, clock=client.clock, ids=client.ids)
            return await give(slow, "1", question.fiber, question.name, question.digest, answer, by="bob")

        answers = [asyncio.ensure_future(late(Approval("reject"))), asyncio.ensure_future(late(Approval("approve")))]
        await looked.wait()
        await client.answer("1", question.fiber, question.name, question.digest, Approval("approve"), by="ann")
        go_on.set()
        other, same = await asyncio.gather(*answers, return_exceptions=True)

        assert isinstance(other, Conflict) and "ann" in str(other)
        assert isinstance(same, Given) and same.duplicate
        assert await house.result("1", question.fiber) == {"approved": True, "reason": "", "by": "ann"}

    in_house(main)


def test_a_question_that_asks_for_no_leave_takes_a_value_and_no_yes() -> None:
    """X10: who takes any word for a yes is given none: an approval goes to what asked for one."""

    async def main(house: House) -> None:
        fiber = await house.start("1", "colour")
        (question,) = await house.asked("/agents/desk/1/questions")
        assert (question["kind"], question["tool"], question["input"]) == ("question", "which colour?", ["red", "blue"])

        for answer in ("approve", "reject"):
            refused = await house.said("ann", "POST", "/agents/desk/1/answers", reply(question, answer=answer))
            assert refused.error == "invalid_request"
        given = await house.said("ann", "POST", "/agents/desk/1/answers", reply(question, answer="output", output="blue"))

        assert given.status == 200 and await house.result("1", fiber) == ["blue", "ann"]

    in_house(main)


def test_two_fibers_that_ask_the_same_are_told_apart() -> None:
    """X10: by the digest, or by the fiber; never by chance."""

    async def main(house: House) -> None:
        first, second = [await house.start("1", "ship", "lamp", [], 0) for _ in range(2)]
        questions = await house.asked("/agents/desk/1/questions", count=2)
        assert {each["fiber"] for each in questions} == {first, second}

        body = reply(questions[0])
        assert (await house.said("ann", "POST", "/agents/desk/1/answers", body)).error == "answer_conflict"
        named = {**body, "fiber": second}
        assert (await house.said("ann", "POST", "/agents/desk/1/answers", named)).status == 200
        assert (await house.said("ann", "POST", "/agents/desk/1/answers", named)).json["deduplicated"] is True

        assert (await house.result("1", second))["approved"]
        assert [each["fiber"] for each in await house.asked("/agents/desk/1/questions")] == [first]

    in_house(main)


def test_nobody_approves_in_anothers_name_by_a_socket() -> None:
    """X10: a workflow's own `approve` takes the name of the credential, whatever the frame says."""

    async def main(house: House) -> None:
        await house.app.object("onboarding", "acme").call("start", PAYS, {"amount": 300})
        (question,) = await house.asked("/agents/onboarding/acme/questions")
        headers = {"authorization": f"Bearer {house.tokens['bob']}"}
        async with knock(house.app, "/agents/onboarding/acme", headers) as line:
            told = await line.call("approve", question["call"], question["digest"], "ann")
        assert told["success"] is False and "may not answer" in told["error"]
        assert len(await house.asked("/agents/onboarding/acme/questions")) == 1

    in_house(main)


def test_python_is_refused_what_http_is() -> None:
    """X10: an approval is answered with a yes or a no, by the handle too."""

    async def main(house: House) -> None:
        await house.start("1", "ship", "lamp", [], 0)
        await house.asked("/agents/desk/1/questions")
        client = house._client()
        (question,) = await client.questions("1")
        with pytest.raises(UsageError, match="approve or reject"):
            await client.answer("1", question.fiber, question.name, question.digest, "yes")
        with pytest.raises(Conflict, match="another question"):
            await client.answer("1", question.fiber, question.name, "sha256:0", Approval("approve"))
        assert await client.questions("1") == [question]

    in_house(main)


# --- what waits everywhere --------------------------------------------------------------------------------------------


def test_what_waits_everywhere_is_what_the_caller_may_read() -> None:
    """X5, X11: agents and objects alike, a page at a time; nothing of others, and a question that was answered is gone."""

    async def main(house: House) -> None:
        for id in ("1", "2", "3"):
            await house.start(id, "ship", f"lamp {id}", [], 0)
        await house.app.conversation("shop", "order").send("Refund it.")
        await house.app.object("onboarding", "acme").call("start", PAYS, {"amount": 300})
        found = await house.asked("/questions", count=5)

        page = (await house.said("ann", "GET", "/questions")).json
        assert page["next"] is None and not list(schema("Inbox").iter_errors(page))
        where = {(each["instance"]["kind"], each["instance"]["id"], each["tool"]) for each in found}
        assert where == {
            ("desk", "1", "ship?"), ("desk", "2", "ship?"), ("desk", "3", "ship?"), ("shop", "order", "refund"),
            ("onboarding", "acme", "pay"),
        }  # fmt: skip
        assert [each["instance"]["id"] for each in await house.asked("/questions", "clerk")] == ["1"]
        assert (await house.said("stranger", "GET", "/questions")).json == {"questions": [], "next": None}
        assert (await house.said("sender", "GET", "/questions")).error == "forbidden"

        seen, cursor = [], ""
        while cursor is not None:
            page = (await house.said("ann", "GET", f"/questions?limit=2{cursor and '&cursor=' + cursor}")).json
            assert len(page["questions"]) <= 2
            seen += [each["instance"]["url"] for each in page["questions"]]
            cursor = page["next"]
        assert len(seen) == len(set(seen)) == 5

        for each in found:
            path = each["instance"]["url"].partition("localhost")[2]
            assert (await house.said("ann", "POST", f"{path}/answers", reply(each))).status == 200
        assert (await house.said("ann", "GET", "/questions")).json["questions"] == []
        for wrong in ("limit=0", "cursor=x"):
            assert (await house.said("ann", "GET", f"/questions?{wrong}")).error == "invalid_request"

    in_house(main)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


async def parked(store: str, clock: Clock | None = None) -> None:
    """Two workflows and a desk that wait, and nobody who serves them."""
    interpreters = Interpreters()
    try:
        async with App([], objects=[Desk, onboarding(interpreters)], store=store, settings=QUICK) as app:
            house = House(app, Watch(), {})
            await app.object("onboarding", "acme").call("start", ASKS, {"item": "a lamp"})
            await app.object("onboarding", "ajax").call("start", PAYS, {"amount": 300})
            await house.start("1", "colour")
            async with asyncio.timeout(20):
                while len(await app.store.instances(alarm="questions")) < 3:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
    finally:
        await interpreters.close()


async def served(store: str) -> list[Any]:
    interpreters = Interpreters()
    try:
        async with App([], objects=[Desk, onboarding(interpreters)], store=store, settings=QUICK) as app:
            house = House(app, Watch(), {})
            acme, ajax = await until(house, "acme", "completed"), await until(house, "ajax", "failed")
            (fiber,) = await house._client().fibers("1", method="colour")
            return [acme["result"], ajax["error"], await house.result("1", fiber.id)]
    finally:
        await interpreters.close()


def test_workflows_and_objects_are_answered_at_the_command_line(shell: Shell) -> None:
    """X10: by name, while nothing serves them and without their code; they go on when something does."""
    store = str(shell.folder / "it.db")
    asyncio.run(parked(store))
    listed = {row["id"]: row for row in shell.cairn("approvals", "--store", store, "--json").events[0]["questions"]}
    assert {id: row["asks"] for id, row in listed.items()} == {"acme": "approval", "ajax": "approval", "1": "question"}
    acme, ajax, desk = listed["acme"]["call"], listed["ajax"]["call"], listed["1"]["call"]

    approved = shell.cairn("approvals", "onboarding/acme", "--approve", acme, "--by", "ann", "--store", store)
    assert approved.out.startswith(f"approved {acme}, as ann") and "no worker serves 'onboarding'" in approved.out
    again = shell.cairn("approvals", "onboarding/acme", "--approve", acme, "--store", store)
    assert "before by the same word" in again.out
    assert shell.cairn("approvals", "onboarding/acme", "--reject", acme, "--store", store).code == 2
    assert shell.cairn("approvals", "onboarding/ajax", "--approve", ajax, "--by", "bob", "--store", store).code == 2
    reject = ("approvals", "onboarding/ajax", "--reject", ajax, "--reason", "too dear", "--by", "ann", "--store", store)
    assert shell.cairn(*reject).code == 0
    assert shell.cairn("approvals", "desk/1", "--approve", desk, "--store", store).code == 2
    assert shell.cairn("approvals", "desk/1", "--answer", desk, "--store", store).code == 2
    given = shell.cairn(
        "approvals", "desk/1", "--answer", desk, "--output", '"blue"', "--by", "cho", "--store", store, "--json"
    )
    assert given.events[0]["answer"] == "answered"
    assert shell.cairn("approvals", "desk/1", "--approve", "none", "--store", store).code == 2
    assert shell.cairn("approvals", "desk/9", "--approve", "none", "--store", store).code == 2
    assert json.loads(shell.cairn("approvals", "--store", store, "--json").out)["questions"] == []

    accepted, refused, colour = asyncio.run(served(store))

    assert accepted == {"approved": True, "reason": "", "by": "ann"}
    assert "too dear" in refused and colour == ["blue", "cho"]
