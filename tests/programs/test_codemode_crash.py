"""Code mode, killed at every durable write: a model, its program of twenty calls, an approval, one answer.

A life ends by a store that refuses everything and tasks that are cut off; the interpreter is the real one. Each death is played
with the dumps, and for an interpreter that takes none of them, where the journal answers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tests.programs.scenes import Stage as ProgramStage
from tests.programs.scenes import staged, until
from tests.programs.test_codemode import results
from tests.programs.test_program_crash import SETTINGS, Dead, Forgetful

from cairn import Agent
from cairn.clock import SystemClock
from cairn.errors import CairnError
from cairn.harness.application import AgentApplication
from cairn.harness.codemode import CodeMode
from cairn.harness.handle import ConversationHandle
from cairn.harness.loop import Services
from cairn.ids import SystemIds
from cairn.runtime import SqliteStore, Worker
from cairn.runtime.program import ProgramLimits
from cairn.runtime.program_pool import Interpreters
from cairn.runtime.storage.store import Address
from cairn.testing.faults import Crash, FaultyStore, crash_points, until_crash
from cairn.testing.scripted import Call, ScriptedModel, by_turn

PROGRAM = """
import asyncio
shops = await list_shops()
totals = [await read(shop=shop) for shop in shops[:10]]
totals += await asyncio.gather(*[read(shop=shop) for shop in shops[10:15]])
noted = []
for number in range(3):
    try:
        noted.append(await note(text=f"{number}"))
    except RuntimeError as error:
        noted.append("unknown" if "unknown" in str(error) else str(error))
open("noted.txt", "w").write(" ".join(noted))
sent = await send(to="board")
[sum(totals), noted, sent, open("noted.txt").read() == " ".join(noted)]
"""

VALUE = [105, ["noted 0", "noted 1", "noted 2"], "sent to board", True]


def analyst(effects: Counter[str], script: Sequence[Any] | None = None) -> Agent[Any]:
    """An agent whose model makes a mistake with a type, mends it, and says that it is done."""
    runs = [Call("run_program", {"code": "await read(shop='one')"}), Call("run_program", {"code": PROGRAM})]
    model = ScriptedModel(by_turn(list(script or (*runs, "Done."))))
    agent = Agent("analyst", model=model, codemode=CodeMode(files="write"))

    @agent.tool(repeat="safe")
    async def list_shops() -> list[int]:
        """The shops."""
        effects["list"] += 1
        return list(range(15))

    @agent.tool(repeat="safe")
    async def read(shop: int) -> int:
        """What a shop sold."""
        effects[f"read {shop}"] += 1
        return shop

    @agent.tool
    async def note(text: str) -> str:
        """Write it down."""
        effects[f"note {text}"] += 1
        return f"noted {text}"

    @agent.tool(approval=lambda arguments: f"a mail to {arguments['to']}")
    async def send(to: str) -> str:
        """Mail it."""
        effects[f"send {to}"] += 1
        return f"sent to {to}"

    return agent


@dataclass
class Stage:
    """One store that outlives the processes on it."""

    agent: Agent[Any]
    effects: Counter[str]
    store: SqliteStore
    application: AgentApplication
    interpreters: Interpreters
    dead: Dead
    clock: SystemClock
    ids: SystemIds

    def conversation(self, id: str = "c") -> ConversationHandle:
        return ConversationHandle(self.application, self.store, self.clock, self.ids, Address("analyst", id))

    def worker(self, store: Any = None) -> Worker:
        return Worker(
            store or self.store, [self.application], clock=self.clock, ids=self.ids, owners=self.dead, settings=SETTINGS
        )

    async def dumps(self) -> int:
        return len(await self.store._read(lambda db: db.execute("select name from dumps")))

    @property
    def answers(self) -> list[str]:
        """What the model read of its calls, last."""
        assert isinstance(self.agent.model, ScriptedModel)
        return results(self.agent.model.requests[-1])


def on_stage(main: Callable[[Stage], Awaitable[None]], agent: Callable[[Counter[str]], Agent[Any]] = analyst) -> None:
    async def run() -> None:
        clock, ids, effects = SystemClock(), SystemIds(), Counter[str]()
        store = SqliteStore(":memory:", clock=clock, ids=ids, inline=True)
        await store.open()
        made, interpreters = agent(effects), Interpreters()
        services = Services(resolve=lambda model: model, interpreters=interpreters, secret=b"s")  # type: ignore[arg-type, return-value]
        application = AgentApplication(made, services, "")
        try:
            await main(Stage(made, effects, store, application, interpreters, Dead(), clock, ids))
        finally:
            await interpreters.close()
            await store.close()

    asyncio.run(asyncio.wait_for(run(), 60))


async def answered(conversation: ConversationHandle, until: asyncio.Future[Any]) -> None:
    """Whatever is asked is approved, until this is done."""
    while not until.done():
        for question in await conversation.questions():
            with suppress(CairnError):
                await conversation.approve(question.call, digest=question.digest, by="ann")
        await asyncio.wait({until}, timeout=0.005)


def play(crash: Crash | None, *, forget: bool) -> Stage:
    """Lives that end there, and then one that does not."""
    stages: list[Stage] = []

    async def main(stage: Stage) -> None:
        stages.append(stage)
        conversation = stage.conversation()
        receipt = await conversation.send("Go.", key="k")

        async def live(store: FaultyStore) -> None:
            async with stage.worker(store):
                await answered(conversation, asyncio.ensure_future(receipt.reply()))

        for each in (crash, None):
            store = (Forgetful if forget else FaultyStore)(stage.store, crash=each)
            if not await until_crash(store, live(store)):
                break
        assert (await receipt.reply()).text == "Done."
        assert await stage.dumps() == 0, "what nobody needs any more is gone"
        assert await unfinished(conversation) == 0, "nothing is left running"

    on_stage(main)
    return stages[0]


def judge(stage: Stage) -> None:
    failed, ran = stage.answers
    assert "types do not fit" in failed
    effects = stage.effects
    assert all(count == 1 for name, count in effects.items() if name.startswith(("note", "send")))
    assert all(count <= 2 for count in effects.values())
    if "OutcomeUnknown" in ran:
        assert "send happened is unknown" in ran and "19 calls" not in ran, ran
        return
    total, noted, sent, same = msgspec.json.decode(ran)
    assert (total, sent, same) == (105, "sent to board", True)
    assert all(each in (f"noted {number}", "unknown") for number, each in enumerate(noted))


def test_a_life_without_deaths() -> None:
    """What the others are compared with: twenty calls, each once."""
    stage = play(None, forget=False)
    judge(stage)
    assert msgspec.json.decode(stage.answers[1]) == VALUE
    assert set(stage.effects.values()) == {1} and stage.effects.total() == 20


@pytest.mark.slow
@pytest.mark.parametrize(("forget", "step"), [(False, 1), (True, 3)], ids=["dumps", "journal"])
def test_every_durable_write_may_be_the_last(forget: bool, step: int) -> None:
    """T3, S8, S9: before and after each of them; of the journal every third, for the time of it."""
    lives = 0
    for number, crash in enumerate(crash_points()):
        if number % step:
            crash.reached = True  # passed over
            continue
        judge(play(crash, forget=forget))
        lives += 1
    assert lives > 60 // step


def waiting(script: Sequence[Any]) -> Callable[[Counter[str]], Agent[Any]]:
    return lambda effects: analyst(effects, script)


SEND = Call("run_program", {"code": "await note(text='first')\nawait send(to='board')"})


async def eventually(is_so: Callable[[], Any]) -> Any:
    """What it is once it is something."""

    async def look() -> Any:
        found = is_so()
        return await found if isinstance(found, Awaitable) else found

    async with asyncio.timeout(20):
        return await until(look)


async def asked(conversation: ConversationHandle, count: int = 1) -> list[Any]:
    async def look() -> list[Any]:
        found = await conversation.questions()
        assert found or await unfinished(conversation), "nothing is asked, and nothing is under way"
        return found if len(found) == count else []

    return list(await eventually(look))


async def unfinished(conversation: ConversationHandle) -> int:
    fold = await conversation._loaded(None)
    assert fold is not None
    return len(fold.runtime.fibers)


async def approve(conversation: ConversationHandle, question: Any) -> None:
    await conversation.approve(question.call, digest=question.digest, by="ann")


def test_an_interpreter_of_another_version_takes_no_dump_and_the_journal_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decided: a dump is a cache of one version; what was called is not called again."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
        assert await stage.dumps() == 1
        monkeypatch.setattr(Interpreters, "version", property(lambda self: "another"))
        await approve(conversation, question)
        async with stage.worker():
            assert (await receipt.reply()).text == "Done."
        assert stage.answers == ['"sent to board"'] and stage.effects == Counter(["note first", "send board"])

    on_stage(main, waiting([SEND, "Done."]))


def test_a_text_that_does_something_else_than_its_journal_is_diverged_and_does_nothing() -> None:
    """Decided: nothing is guessed, whatever was kept: the dump is of another text, and the journal of another call."""

    async def main() -> None:
        text = "await charge({})\nawait ask('go on?')\nawait charge({})"
        texts = [text.format(1, 2), text.format(7, 8)]
        stage = ProgramStage()
        stage.text = lambda source: texts[0]
        async with staged(stage) as (_, client, worker):
            receipt = await client.accept("one", "run", ["", {}])
            (question,) = await until(lambda: client.questions("one"))
            await eventually(lambda: not worker.running)
            stage.text = lambda source: texts[1]
            await client.answer("one", question.fiber, question.name, question.digest, True)
            result = await asyncio.wait_for(client.result(receipt), 20)
        assert result["failure"][0] == "diverged" and "call 0 was another one" in result["failure"][1], result
        assert stage.outside.effects == Counter(["charge 1"])

    asyncio.run(main())


def test_the_abort_of_a_submission_ends_its_program() -> None:
    """Nothing is left running: no fiber, no interpreter's dump, no question."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
            await conversation.abort()
            with pytest.raises(CairnError):
                await asyncio.wait_for(receipt.reply(), 20)

            async def is_over() -> bool:
                return not await unfinished(conversation)

            await eventually(is_over)
        assert await conversation.questions() == [] and await stage.dumps() == 0
        with pytest.raises(CairnError):
            await approve(conversation, question)
        assert stage.effects == Counter(["note first"])

    on_stage(main, waiting([SEND, "Done."]))


def test_a_fork_while_a_program_waits_has_no_program_and_no_question() -> None:
    """The fork goes its own way; the source's program ends as if there were no fork."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
            fork = await conversation.fork(id="d")
            assert await fork.questions() == []
            with pytest.raises(CairnError):
                await approve(fork, question)
            await approve(conversation, question)
            assert (await receipt.reply()).text == "Done."
            assert await unfinished(fork) == 0
        assert stage.effects == Counter(["note first", "send board"])

    on_stage(main, waiting([SEND, "Done."]))


def test_two_programs_at_once_ask_apart_and_an_answer_to_one_is_none_to_the_other() -> None:
    """X10: the same function, the same arguments, the same place in the text: two questions."""
    send = Call("run_program", {"code": "await send(to='board')"})

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        receipt = await conversation.send("Go.")
        async with stage.worker():
            one, two = await asked(conversation, 2)
            assert one.call != two.call and one.arguments == two.arguments
            await approve(conversation, one)
            assert await asked(conversation, 1) == [two]
            await approve(conversation, one)  # a replay: it changes nothing
            assert await conversation.questions() == [two]
            await conversation.reject(two.call, "once is enough", digest=two.digest, by="ann")
            assert (await receipt.reply()).text == "Done."
        assert stage.effects == Counter(["send board"])
        assert any("once is enough" in each for each in stage.answers) and '"sent to board"' in stage.answers

    on_stage(main, waiting([[send, send], "Done."]))


def test_a_message_that_arrives_while_a_program_waits_is_queued_and_read_after_it() -> None:
    """Decided: never a second model turn beside an unanswered call."""

    async def main(stage: Stage) -> None:
        conversation = stage.conversation()
        first = await conversation.send("Go.")
        async with stage.worker():
            (question,) = await asked(conversation)
            second = await conversation.send("And another thing.")
            assert await conversation.questions() == [question]
            await approve(conversation, question)
            assert {(await first.reply()).text, (await second.reply()).text} <= {"Done.", "More."}
        assert stage.effects == Counter(["note first", "send board"])

    on_stage(main, waiting([SEND, "Done.", "More."]))


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (ProgramLimits(calls=3), "for number in range(9):\n    await read(shop=number)", "It was stopped (calls). 4 calls"),
        (
            ProgramLimits(calls_at_once=2),
            "import asyncio\nawait asyncio.gather(*[read(shop=n) for n in range(3)])",
            "gather fewer",
        ),
        (ProgramLimits(run_seconds=0.2), "while True:\n    pass", "It was stopped (time)"),
        (ProgramLimits(output_bytes=100), "print('x' * 1000)", "It printed:"),
        (ProgramLimits(value_bytes=1000), "'x' * 2000", "It was stopped (value)"),
        (ProgramLimits(source_bytes=10), "1 + 1 + 1 + 1 + 1", "It was stopped (refused)"),
        (ProgramLimits(memory_bytes=8 << 20), "x = 'x' * (64 << 20)", "It was stopped (memory)"),
    ],
    ids=["calls", "at once", "time", "output", "value", "source", "memory"],
)
def test_a_limit_is_told_to_the_model_before_and_after(limits: ProgramLimits, code: str, words: str) -> None:
    """Errors are data that the model can mend: it knows what there is, and what it ran into."""

    def agent(effects: Counter[str]) -> Agent[Any]:
        made = analyst(effects, [Call("run_program", {"code": code}), "Done."])
        made.codemode = CodeMode(limits=limits)
        return made

    async def main(stage: Stage) -> None:
        receipt = await stage.conversation().send("Go.")
        async with stage.worker():
            assert (await receipt.reply()).text == "Done."
        assert words in stage.answers[0], stage.answers
        assert isinstance(stage.agent.model, ScriptedModel)
        (told,) = [tool.description for tool in stage.agent.model.requests[0].tools if tool.name == "run_program"]
        assert f"At most {limits.calls:,} calls" in told and f"{limits.output_bytes:,} bytes" in told

    on_stage(main, agent)
