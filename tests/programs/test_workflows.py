"""Dynamic workflows: started, watched, paused, asked, signalled, cancelled; over restarts, other code, and ten thousand at
once."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.programs.scenes import until

from cairn import Agent, App
from cairn.errors import CairnError
from cairn.framework.workflow_tools import call_agent, workflow_tools
from cairn.runtime import WorkerSettings
from cairn.runtime.program import Function, FunctionCall, Program
from cairn.runtime.program_pool import Interpreters
from cairn.runtime.workflow import Workflow, workflows
from cairn.testing.scripted import Call, ScriptedModel, last_text

SOURCE = """
account = await step("open the account", create_account, company=company)
answer = await wait_for_approval({"company": company, "account": account})
if not answer["approved"]:
    await send_mail(to=company, text="Sorry: " + answer["reason"])
else:
    await send_mail(to=company, text="Welcome")
    await sleep(0.3)
    paid = await wait_for("paid", timeout=30)
    await send_mail(to=company, text=f"Thanks for {paid}")
{"account": account, "approved": answer["approved"], "by": answer["by"]}
"""

QUICK = WorkerSettings(idle_seconds=0.0, poll_seconds=0.2)


class Office:
    """What the workflows may do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def create_account(self, call: FunctionCall) -> str:
        self.done.append(f"account {call.arguments['company']}")
        return f"acc-{call.arguments['company']}"

    async def send_mail(self, call: FunctionCall) -> None:
        self.done.append(f"mail {call.arguments['text']}")

    def functions(self) -> list[Function]:
        return [
            Function(
                "create_account",
                self.create_account,
                ("company",),
                "keyed",
                stub="async def create_account(company: str) -> str: ...",
            ),
            Function("send_mail", self.send_mail, ("to", "text"), stub="async def send_mail(to: str, text: str) -> None: ..."),
        ]


def made(office: Office, interpreters: Interpreters, **options: Any) -> type[Workflow]:
    return workflows([*office.functions(), *options.pop("more", [])], kind="onboarding", interpreters=interpreters, **options)


async def status(app: App, id: str, *wanted: str) -> dict[str, Any]:
    """How it stands, once it stands like that."""

    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] = await app.object("onboarding", id).call("inspect")
        return found if found["status"] in wanted else None

    async with asyncio.timeout(20):
        found: dict[str, Any] = await until(look)
        return found


async def answer(app: App, id: str, verb: str, *more: Any) -> None:
    workflow = app.object("onboarding", id)
    async with asyncio.timeout(20):
        (question,) = await until(lambda: workflow.call("questions"))
    await workflow.call(verb, question["name"], question["digest"], *more)


def test_a_workflow_from_start_to_end_over_three_processes(tmp_path: Path) -> None:
    """Each part in another process with other code around it: what was done is not done again, what waits goes on waiting."""
    office = Office()

    async def life(part: int) -> None:
        interpreters = Interpreters()
        more = [] if part == 0 else [Function(f"added_in_{part}", office.send_mail)]  # the application's code has changed
        onboarding = made(office, interpreters, more=more)
        try:
            async with App([], objects=[onboarding], store=tmp_path / "w.db", settings=QUICK) as app:
                workflow = app.object(onboarding, "acme")
                if part == 0:
                    standing = await workflow.call("start", SOURCE, {"company": "acme"}, "Onboarding of ACME")
                    assert standing["status"] == "running" and standing["digest"] == Program(SOURCE).digest
                    waiting = await status(app, "acme", "waiting")
                    assert waiting["steps"] == ["create_account"] and waiting["name"] == "Onboarding of ACME"
                elif part == 1:
                    await answer(app, "acme", "approve", "ann")
                    await workflow.call("signal", "paid", 20)
                else:
                    done = await status(app, "acme", "completed", "failed")
                    assert done["result"] == {"account": "acc-acme", "approved": True, "by": "ann"}
        finally:
            await interpreters.close()

    for part in range(3):
        asyncio.run(life(part))
    assert office.done == ["account acme", "mail Welcome", "mail Thanks for 20"]


def test_a_rejection_has_a_reason_and_the_workflow_goes_on(tmp_path: Path) -> None:
    """A person's no is an answer like any other."""
    office, interpreters = Office(), Interpreters()

    async def main() -> None:
        onboarding = made(office, interpreters)
        async with App([], objects=[onboarding], store=tmp_path / "w.db") as app:
            workflow = app.object(onboarding, "acme")
            await workflow.call("start", SOURCE, {"company": "acme"})
            with pytest.raises(CairnError, match="runs another text"):
                await workflow.call("start", SOURCE + "\n1")
            assert (await workflow.call("start", SOURCE, {"company": "acme"}))["digest"] == Program(SOURCE).digest
            await answer(app, "acme", "reject", "not now", "bob")
            done = await status(app, "acme", "completed")
            assert done["result"] == {"account": "acc-acme", "approved": False, "by": "bob"}
        await interpreters.close()

    asyncio.run(main())
    assert office.done == ["account acme", "mail Sorry: not now"]


def test_an_answer_is_to_what_was_asked_and_the_first_one_counts(tmp_path: Path) -> None:
    """X10: another digest, a second answer, a question there is not, an answer after the end."""
    office, interpreters = Office(), Interpreters()

    async def main() -> None:
        onboarding = made(office, interpreters)
        async with App([], objects=[onboarding], store=tmp_path / "w.db") as app:
            workflow = app.object(onboarding, "acme")
            with pytest.raises(CairnError, match="was not started"):
                await workflow.call("pause")
            await workflow.call("start", SOURCE, {"company": "acme"})
            async with asyncio.timeout(20):
                (question,) = await until(lambda: workflow.call("questions"))
            for name, digest in ((question["name"], "sha256:other"), ("another", question["digest"])):
                with pytest.raises(CairnError):
                    await workflow.call("approve", name, digest, "eve")
            await workflow.call("approve", question["name"], question["digest"], "ann")
            with pytest.raises(CairnError):
                await workflow.call("reject", question["name"], question["digest"], "too late", "eve")
            await workflow.call("signal", "paid", 1)
            assert (await status(app, "acme", "completed"))["result"]["by"] == "ann"
            await workflow.call("approve", question["name"], question["digest"], "eve")  # the same word: nothing happens twice
            with pytest.raises(CairnError, match="that stands"):
                await workflow.call("reject", question["name"], question["digest"], "too late", "eve")
            assert (await status(app, "acme", "completed"))["result"]["by"] == "ann"
        await interpreters.close()

    asyncio.run(main())


def test_pause_resume_and_cancel_outlive_the_process(tmp_path: Path) -> None:
    """A paused workflow makes no call, whoever runs it; a cancelled one never goes on."""
    office = Office()
    mail = 'await send_mail(to="a", text="{}")\n'
    source = f'await wait_for("go")\n{mail.format("one")}await wait_for("more")\n{mail.format("two")}'

    async def life(part: int) -> None:
        interpreters = Interpreters()
        onboarding = made(office, interpreters)
        async with App([], objects=[onboarding], store=tmp_path / "w.db", settings=QUICK) as app:
            workflow = app.object(onboarding, "acme")
            if part == 0:
                await workflow.call("start", source)
                await status(app, "acme", "waiting")
                await workflow.call("pause")
                await workflow.call("signal", "go")
                assert (await status(app, "acme", "paused"))["steps"] in ([], ["wait_for"])
            elif part == 1:
                assert (await workflow.call("inspect"))["status"] == "paused" and office.done == []
                await workflow.call("resume")
                await workflow.call("resume")
                async with asyncio.timeout(20):
                    await until(lambda: _true(office.done))
            else:
                await workflow.call("cancel_run", "no longer needed")
                assert (await status(app, "acme", "cancelled"))["error"] == "no longer needed"
                await workflow.call("signal", "more")
                await workflow.call("cancel_run")
        await interpreters.close()

    for part in range(3):
        asyncio.run(life(part))
    assert office.done == ["mail one"]


async def _true(value: Any) -> Any:
    return value


def test_a_text_that_was_altered_after_the_start_is_refused(tmp_path: Path) -> None:
    """S14 and more: the row's checksum is the first fence; the digest, for who can forge that, the second."""
    office = Office()
    path = tmp_path / "w.db"

    async def life(begin: bool) -> dict[str, Any]:
        interpreters = Interpreters()
        onboarding = made(office, interpreters)
        try:
            async with App([], objects=[onboarding], store=path, settings=QUICK) as app:
                if begin:
                    await app.object(onboarding, "acme").call(
                        "start", 'await wait_for("go")\nawait send_mail(to="a", text="good")\n'
                    )
                    return await status(app, "acme", "waiting")
                await app.object(onboarding, "acme").call("signal", "go")
                return await status(app, "acme", "failed", "completed")
        finally:
            await interpreters.close()

    asyncio.run(life(True))
    forge(path)
    standing = asyncio.run(life(False))
    assert standing["status"] == "failed" and "is not the one it was started with" in standing["error"]
    assert office.done == []


def forge(path: Path) -> None:
    """Another text in the place of the one that was started, with checksums that fit, and no caches."""
    from cairn.runtime.storage import row as rows

    with sqlite3.connect(path) as db:
        db.execute("delete from checkpoints")
        db.execute("delete from dumps")
        for n, ordinal, records in db.execute("select n, ordinal, records from log").fetchall():
            if b"good" not in records:
                continue
            forged = bytes(records).replace(b"good", b"evil")
            prev, epoch, merged, projection, chunks = db.execute(
                "select prev, epoch, merged_from, projection, chunks from log where n = ? and ordinal = ?", (n, ordinal)
            ).fetchone()
            checksum = rows.checksum(n, ordinal, prev, epoch, forged, chunks, projection, merged)
            db.execute("update log set records = ?, checksum = ? where n = ? and ordinal = ?", (forged, checksum, n, ordinal))


def test_an_agent_writes_starts_and_watches_a_workflow_that_asks_another_agent(tmp_path: Path) -> None:
    """Both ways, by grant: the clerk's tools, the workflow's `call_agent`."""
    office, interpreters, here = Office(), Interpreters(), list[App]()
    onboarding = made(office, interpreters, more=[call_agent(lambda: here[0], "support")])
    support = Agent("support", model=ScriptedModel(lambda request: "You said: " + last_text(request)))
    source = 'said = await call_agent("support", "hello")\nawait send_mail(to="a", text=said)\nsaid'
    clerk = Agent(
        "clerk",
        model=ScriptedModel(
            [
                Call("workflow_functions", {}),
                Call("start_workflow", {"id": "w", "source": source}),
                Call("inspect_workflow", {"id": "w"}),
                "Started.",
            ]
        ),
        tools=workflow_tools(onboarding, lambda: here[0]),
    )

    async def main() -> None:
        async with App([clerk, support], objects=[onboarding], store=tmp_path / "w.db") as app:
            here.append(app)
            receipt = await app.conversation(clerk, "c").send("Go.")
            assert (await asyncio.wait_for(receipt.reply(), 20)).text == "Started."
            done = await status(app, "c.w", "completed", "failed")
            assert done["result"] == "You said: hello", done
        await interpreters.close()

    asyncio.run(main())
    assert office.done == ["mail You said: hello"]


@pytest.mark.slow
def test_thousands_that_wait_cost_rows_and_no_memory(tmp_path: Path) -> None:
    """The same tasks, and about the same memory, with three thousand parked as with one; each goes on when it is told.

    `benchmarks/bench_programs.py` parks ten thousand.
    """
    office = Office()
    interpreters = Interpreters()
    onboarding = made(office, interpreters)
    source = 'await wait_for("go")\nawait send_mail(to="a", text=str(n))'

    async def main() -> None:
        async with App([], objects=[onboarding], store=tmp_path / "w.db", settings=QUICK) as app:
            gate = asyncio.Semaphore(64)

            async def start(number: int) -> None:
                async with gate:
                    await app.object(onboarding, f"w{number}").call("start", source, {"n": number})

            tasks, memory = list[int](), list[int]()
            for first, last in ((0, 1_000), (1_000, 3_000)):
                await asyncio.gather(*(start(number) for number in range(first, last)))
                await _quiet(app)
                gc.collect()
                tasks.append(len(asyncio.all_tasks()))
                memory.append(_memory())
            assert tasks[1] <= tasks[0] + 2
            assert memory[1] - memory[0] < 20_000, f"{memory[1] - memory[0]} KB more for 2,000 more that wait"
            chosen = (0, 17, 2_999)
            for number in chosen:
                await app.object(onboarding, f"w{number}").call("signal", "go")
                await status(app, f"w{number}", "completed")
            assert sorted(office.done) == sorted(f"mail {number}" for number in chosen)

    asyncio.run(main())
    asyncio.run(interpreters.close())


async def _quiet(app: App) -> None:
    assert app.worker is not None
    async with asyncio.timeout(120):
        await app.worker.idle()
        while app.worker.running:  # noqa: ASYNC110 - instances leave a moment after they are quiet
            await asyncio.sleep(0.05)


def _memory() -> int:
    """KB of this process that are really there."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def test_what_a_workflow_says_of_itself_is_json() -> None:
    """Its log is readable, and its fold needs no interpreter."""
    from cairn.runtime.workflow import Standing

    assert msgspec.json.decode(msgspec.json.encode(Standing(status="new")))["status"] == "new"
