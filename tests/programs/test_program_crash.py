"""A program whose process dies before and after every durable write, and in the middle of every call, goes on from there.

The interpreter is the real one, in processes of its own; a life ends by a store that refuses everything and tasks that are cut
off. Each death is played twice: once with the dumps, once for an interpreter that takes none of them (another version), where
the journal answers. The result, and the world outside, are compared with a life without deaths.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from tests.programs.scenes import Outside, Stage

from cairn.clock import SystemClock
from cairn.errors import Conflict, NotFound
from cairn.ids import SystemIds
from cairn.runtime import Client, SqliteStore, Worker, WorkerSettings
from cairn.runtime.storage.store import WorkerRow
from cairn.testing.faults import Crash, FaultyStore, crash_points, until_crash

PROGRAM = """
import asyncio, random, time

async def item(number):
    found = await fetch(number)
    return [found["size"], await charge_keyed(number)]

seen = f"{random.random()} {time.time()}"
await fetch_any(seen)
first = await fetch(1)
print("found", first["item"])
try:
    second = await charge(20)
except RuntimeError as error:
    second = str(error).split(":")[0]
both = await asyncio.gather(item(2), item(3), fetch(4))
try:
    await refuse()
except PermissionError as error:
    refused = str(error)
paid = await pay(500)
await asyncio.sleep(0.01)
[first, second, both, refused, paid, seen == f"{seen.split()[0]} {time.time()}"]
"""

SETTINGS = WorkerSettings(idle_seconds=0.0, sweep_seconds=0.02, poll_seconds=0.1)


class Dead:
    """The kernel: whoever did not end is dead once the next life begins."""

    boot = ""

    def __init__(self) -> None:
        self.alive: set[str] = set()

    def hold(self, worker: str) -> str:
        self.alive = {worker}
        return ":1:1"

    def drop(self, worker: str) -> None: ...

    def is_dead(self, row: WorkerRow) -> bool:
        return row.id not in self.alive

    def forget(self, row: WorkerRow) -> None: ...


class Forgetful(FaultyStore):
    """Keeps no dumps: as if every next life had another interpreter."""

    async def dump(self, n: int, name: str) -> bytes | None:
        return None


@dataclass
class Played:
    """What came of it."""

    result: dict[str, Any]
    effects: Counter[str]
    dumps_left: int


def play(crashes: Sequence[Crash] = (), deadly: Sequence[int] = (), *, forget: bool = False) -> Played:
    """Lives that end at these points, and then one that does not."""

    async def main() -> Played:
        clock, ids, dead = SystemClock(), SystemIds(), Dead()
        inner = SqliteStore(":memory:", clock=clock, ids=ids, inline=True)
        await inner.open()
        stage = Stage(Outside())
        stage.outside.deadly = set(deadly)
        application = stage.application
        client = Client(inner, application, clock=clock, ids=ids)
        receipt = await client.accept("one", "run", [PROGRAM, {}], key="k")

        async def live(store: FaultyStore) -> None:
            async with Worker(store, [application], clock=clock, ids=ids, owners=dead, settings=SETTINGS):
                result = asyncio.ensure_future(client.result(receipt))
                while not result.done():
                    for question in await client.questions("one"):
                        with suppress(Conflict, NotFound):
                            await client.answer("one", question.fiber, question.name, question.digest, {"answer": "approve"})
                    await asyncio.wait({result}, timeout=0.005)

        died = True
        for crash in itertools.chain(crashes, itertools.repeat(None)):
            store = (Forgetful if forget else FaultyStore)(inner, crash=crash)
            stage.outside.die = store.die
            died = await asyncio.wait_for(until_crash(store, live(store)), 60)
            if not died:
                break
            await stage.interpreters.close()
        result = await client.result(receipt)
        left = len(await inner._read(lambda db: db.execute("select name from dumps")))  # what nobody needs any more is gone
        await stage.interpreters.close()
        await inner.close()
        return Played(result, stage.outside.effects, left)

    return asyncio.run(main())


@pytest.fixture(scope="module")
def undisturbed() -> Played:
    return play()


def judge(played: Played, undisturbed: Played) -> None:
    """The same result but for what may be unknown, and no call made twice that must not be."""
    value, expected = played.result["value"], undisturbed.result["value"]
    assert played.result["failure"] is None, played.result
    assert value[1] in ("charged 20", "OutcomeUnknown"), value
    assert value[4] == expected[4]
    assert [*value[:1], *value[2:]] == [*expected[:1], *expected[2:]]
    assert played.result["printed"] == "found 1\n"
    assert played.effects["charge 20"] <= 1 and (value[1] == "OutcomeUnknown" or played.effects["charge 20"])
    assert played.effects["pay 500"] == 1
    assert played.dumps_left == 0


def test_a_life_without_deaths(undisturbed: Played) -> None:
    """What the others are compared with: each effect once. Its first call is of its clock and its dice: would a repeat see
    others, it would be another call, and the program would end as diverged."""
    value = undisturbed.result["value"]
    assert value == [
        {"item": 1, "size": 10},
        "charged 20",
        [[10, "charged 2"], [10, "charged 3"], {"item": 4, "size": 10}],
        "not today",
        "charged 500",
        True,
    ]
    assert set(undisturbed.effects.values()) == {1}
    assert undisturbed.dumps_left == 0


@pytest.mark.slow
@pytest.mark.parametrize("forget", [False, True], ids=["dumps", "journal"])
def test_every_durable_write_may_be_the_last(forget: bool, undisturbed: Played) -> None:
    """T3, S8, S9: before and after each of them."""
    lives = 0
    for crash in crash_points():
        played = play([crash], forget=forget)
        if played.result["failure"] is not None:
            # pay(500) was begun, and whether it happened is unknown: the program, which does not catch that, is told so
            assert "OutcomeUnknown" in played.result["failure"][1], played.result
            assert played.effects["pay 500"] <= 1
            continue
        judge(played, undisturbed)
        lives += 1
    assert lives > 40


@pytest.mark.slow
@pytest.mark.parametrize("forget", [False, True], ids=["dumps", "journal"])
def test_every_call_may_be_the_last_one_by_one_and_in_pairs(forget: bool, undisturbed: Played) -> None:
    """T3, S9: the effect has happened and nobody lived to say so; a `safe` call is made again, a `keyed` one with its key."""
    total = undisturbed.effects.total()
    pairs = [(a, b) for a in range(1, total + 1) for b in range(a + 1, total + 2)]
    for deadly in [*((number,) for number in range(1, total + 1)), *pairs]:
        played = play(deadly=deadly, forget=forget)
        if played.result["failure"] is not None:
            # pay(500) died with its process: the program does not catch that, and is told that nobody knows
            assert "OutcomeUnknown" in played.result["failure"][1], played.result
            assert played.effects["pay 500"] == 1
            continue
        judge(played, undisturbed)
        assert all(count == 1 for name, count in played.effects.items() if name.startswith(("charge ", "pay ")))
        assert max(played.effects.values()) <= 1 + len(deadly)
