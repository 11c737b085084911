"""Single laws of programs, each by the smallest scene that would show its loss."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.programs.scenes import Stage, staged, until
from tests.programs.test_program_crash import play

from cairn.runtime.program import FunctionCall, ProgramLimits
from cairn.runtime.program_dump import Kept
from cairn.runtime.program_pool import Session

ORDER = """
import asyncio
seen = []
async def one(question):
    await ask(question)
    seen.append(question)
await asyncio.gather(one("a"), one("b"))
await fetch_any(",".join(seen))
await ask("end")
seen
"""


def test_outcomes_are_told_in_the_order_in_which_they_were_decided() -> None:
    """Decided: what is told to a repeat is told in the first order, which is not the order of the calls."""

    async def main() -> dict[str, Any]:
        async with staged(Stage()) as (stage, client, worker):
            receipt = await client.accept("one", "run", [ORDER, {}])
            for done, wanted in enumerate(("b", "a", "end")):

                async def open_question(wanted: str = wanted) -> Any:
                    return [each for each in await client.questions("one") if each.value() == {"question": wanted}]

                async def recorded(done: int = done) -> bool:
                    steps = (await client.fold("one")).runtime.fibers[receipt.fiber].steps
                    return sum(each.done for each in steps.values()) >= done

                (question,) = await until(open_question)
                await until(recorded)
                await parked(worker)
                await stage.store.save_dump(receipt.n, f"program:{receipt.fiber}:program", None)
                await client.answer("one", question.fiber, question.name, question.digest, True)
            return await asyncio.wait_for(client.result(receipt), 20)  # type: ignore[no-any-return]

    result = asyncio.run(main())
    assert result["failure"] is None, result
    assert result["value"] == ["b", "a"]


async def parked(worker: Any) -> None:
    """Nothing of the program is in memory."""

    async def look() -> bool:
        return not worker.running

    await until(look)


def test_a_program_goes_on_from_its_state_and_not_from_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decided: the text is run again only when nothing that was kept can be believed."""
    begun: list[str] = []
    start, load = Session.start, Session.load

    async def starting(self: Session, *arguments: Any, **keywords: Any) -> Any:
        begun.append("start")
        return await start(self, *arguments, **keywords)

    async def loading(self: Session, *arguments: Any, **keywords: Any) -> Any:
        begun.append("load")
        return await load(self, *arguments, **keywords)

    monkeypatch.setattr(Session, "start", starting)
    monkeypatch.setattr(Session, "load", loading)

    async def main() -> dict[str, Any]:
        async with staged(Stage()) as (_, client, worker):
            receipt = await client.accept("one", "run", ["print('once')\n[await ask('one'), await ask('two')]", {}])
            for question in ("one", "two"):

                async def asked(question: str = question) -> Any:
                    return [each for each in await client.questions("one") if each.value() == {"question": question}]

                (found,) = await until(asked)
                await parked(worker)
                await client.answer("one", found.fiber, found.name, found.digest, question)
            return await asyncio.wait_for(client.result(receipt), 20)  # type: ignore[no-any-return]

    result = asyncio.run(main())
    assert (result["value"], result["printed"]) == (["one", "two"], "once\n")
    assert begun[0] == "start" and set(begun[1:]) == {"load"}, begun


def test_a_state_that_somebody_else_signed_is_not_believed() -> None:
    """X2: a dump that is whole, of this program, this fiber and this interpreter, with a word put into its mouth."""
    source = "print('mine')\na = await ask('go')\na"

    async def main() -> dict[str, Any]:
        async with staged(Stage()) as (stage, client, worker):
            receipt = await client.accept("one", "run", [source, {}])
            (question,) = await until(lambda: client.questions("one"))
            await parked(worker)
            name = f"program:{receipt.fiber}:program"
            dump = await until(partial(stage.store.dump, receipt.n, name))
            kept = msgspec.structs.replace(msgspec.msgpack.decode(dump[32:], type=Kept), printed="forged\n")
            await stage.store.save_dump(receipt.n, name, dump[:32] + msgspec.msgpack.encode(kept))
            await client.answer("one", question.fiber, question.name, question.digest, "yes")
            return await asyncio.wait_for(client.result(receipt), 20)  # type: ignore[no-any-return]

    assert asyncio.run(main())["printed"] == "mine\n"


@pytest.mark.parametrize("forget", [False, True], ids=["dumps", "journal"])
def test_a_call_that_is_never_repeated_is_not_repeated(forget: bool) -> None:
    """S8, S9: its process died in the middle of it; the program is told that nobody knows."""
    played = play(deadly=[3], forget=forget)
    assert played.effects["charge 20"] == 1 and played.result["value"][1] == "OutcomeUnknown", played.result


def test_what_holds_a_program_up_comes_before_each_call() -> None:
    """S8: nothing is called until whoever holds it lets it; what was let is not asked again."""

    async def gate(call: FunctionCall) -> None:
        await call.fiber.wait("open", name=f"gate {call.name}")

    async def main() -> None:
        async with staged(Stage(gate=gate)) as (stage, client, worker):
            receipt = await client.accept("one", "run", ["[await charge(1), await charge(2)]", {}])
            for effects in ({}, {"charge 1": 1}):

                async def held(effects: dict[str, int] = effects) -> bool:
                    fiber = (await client.fold("one")).runtime.fibers[receipt.fiber]
                    return bool(fiber.waits) and len(fiber.waited) == len(effects) and not worker.running

                await until(held)
                assert stage.outside.effects == effects
                await client.signal("one", "open")
            assert (await asyncio.wait_for(client.result(receipt), 20))["value"] == ["charged 1", "charged 2"]
            assert stage.outside.effects == {"charge 1": 1, "charge 2": 1}

    asyncio.run(main())


def test_a_file_that_is_written_is_written_when_its_outcome_is() -> None:
    """S8: one batch: whoever reads the journal reads the file; a program that failed leaves what its calls had done."""

    async def main() -> tuple[dict[str, Any], list[str]]:
        async with staged(Stage(files="write", limits=ProgramLimits(calls=3))) as (_, client, _worker):
            source = "for number in range(9):\n    open(f'{number}.txt', 'a').write('x')"
            result = await asyncio.wait_for(client.result(await client.accept("one", "run", [source, {}])), 20)
            return result, await client.result(await client.accept("one", "files", []))

    result, files = asyncio.run(main())
    assert result["failure"][0] == "calls"
    assert files == ["/0.txt", "/1.txt"]
