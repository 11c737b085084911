"""Hostile programs: the host lives, nothing is read or reached, the interpreters work on, and each gets a clear answer."""

from __future__ import annotations

import asyncio
import os
import resource
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from tests.programs.hostile import programs
from tests.programs.scenes import Stage, run, staged, until

from cairn.runtime.program import MESSAGE_CHARACTERS_MAX, ProgramLimits

CANARY = "canary-7f3a9c"

LIMITS = ProgramLimits(run_seconds=0.15, memory_bytes=24 << 20, calls=50, calls_at_once=20)

EVERYTHING = list(programs())

#: What each kind of program must at most be able to do: end with a value, or with one of these.
KINDS = {"syntax", "type", "error", "time", "memory", "recursion", "calls", "value", "crashed", "refused"}


def test_there_are_enough_of_them() -> None:
    """Three hundred and more, each another."""
    assert len(EVERYTHING) >= 300
    assert len({text for _, text in EVERYTHING}) == len(EVERYTHING)


@pytest.mark.slow
@pytest.mark.parametrize("checked", [True, False], ids=["checked", "unchecked"])
def test_no_program_hurts_the_host_or_reads_anything(checked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """X2, X7, X8: with the type check, and without it, since a check is no boundary."""
    monkeypatch.setenv("CANARY", CANARY)
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    found: Counter[str] = Counter()

    async def main() -> None:
        stage = Stage(limits=LIMITS)
        stage.check = checked
        async with staged(stage) as (_, client, worker):
            for number, (kind, text) in enumerate(EVERYTHING):
                came = await run(client, text, id=f"{number % 7}")
                said = str(came)
                assert CANARY not in said and "root:x:" not in said and "AppData" not in said, (kind, text, came)
                failure = came["failure"]
                if failure is None:
                    found["value"] += 1
                else:
                    assert failure[0] in KINDS and failure[1].strip(), (kind, text, came)
                    assert len(failure[1]) <= MESSAGE_CHARACTERS_MAX + 10, (kind, text)
                    assert str(Path(__file__).parents[2]) not in failure[1] and "site-packages" not in failure[1], (
                        kind,
                        text,
                        failure,
                    )
                    found[failure[0]] += 1
                if number % 25 == 0:
                    assert (await run(client, "1 + 1", id="good"))["value"] == 2, (kind, text)
            assert (await run(client, "await fetch_any('unseen')", id="good"))["failure"] is None
            assert not worker.troubles

    before = set(os.listdir(tmp_path))
    asyncio.run(main())
    assert set(os.listdir(tmp_path)) == before, "nothing was written"
    assert not Path("/tmp/evil").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000, "the host's memory is its own"
    assert found["memory"] >= 10 and found["time"] >= 10, found
    assert found["calls"] >= 2 and found["recursion"] >= 3, found


TAMPERED = [0, 1, 31, 32, 33, 40, 64, 100, 200, 500, -1, -10, -100]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flip", "cut", "empty", "zero", "other", "unsigned"])
def test_a_dump_that_was_touched_is_not_believed(how: str) -> None:
    """X2: a state that is not signed by us is made again from the journal; the outcome is the same."""
    source = "a = await fetch(1)\nb = await ask('go')\nc = await fetch(2)\n[a['size'], b, c['size']]"

    async def main() -> None:
        for place in TAMPERED if how == "flip" else [0]:
            async with staged(Stage()) as (stage, client, _), asyncio.timeout(30):
                receipt = await client.accept("one", "run", [source, {}])
                name = f"program:{receipt.fiber}:program"
                await until(lambda: client.questions("one"))
                dump = await until(partial(stage.store.dump, receipt.n, name))
                await stage.store.save_dump(receipt.n, name, touched(dump, how, place))
                (question,) = await client.questions("one")
                await client.answer("one", question.fiber, question.name, question.digest, "yes")
                result = await client.result(receipt)
                assert result["value"] == [10, "yes", 10], (place, result)
                assert stage.outside.effects == {"fetch 1": 1, "fetch 2": 1}, "nothing finished was done again"

    asyncio.run(main())


def touched(dump: bytes, how: str, place: int) -> bytes:
    """The dump as somebody left it."""
    match how:
        case "flip":
            at = place % len(dump)
            return dump[:at] + bytes([dump[at] ^ 1]) + dump[at + 1 :]
        case "cut":
            return dump[: len(dump) // 2]
        case "empty":
            return b""
        case "zero":
            return bytes(len(dump))
        case "other":
            return dump[:32] + dump[40:]
        case _:
            return bytes(32) + dump[32:]


def test_a_budget_is_of_all_calls_together_whatever_they_are() -> None:
    """X7: the call that would exceed it is not made; what was made stands, and is counted once over a restart of the
    interpreter."""
    from tests.programs.scenes import once

    source = "a = await fetch_any(1)\nb = await fetch_any(2)\nawait charge(3)"
    assert once(source, ProgramLimits(cost=8.0))["failure"] is None
    came = once(source, ProgramLimits(cost=7.9))
    assert came["failure"][0] == "cost" and "charge was not called" in came["failure"][1]
    assert came["calls"] == 3
