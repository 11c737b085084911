"""Fibers that wait, ask and ring by the clock, under `kill -9` of the real processes that run them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from tests.system.processes import Nursery, Observer, until

from cairn.errors import Conflict, NotFound
from cairn.runtime import records as r
from cairn.runtime.schedule import every

pytestmark = pytest.mark.system

SECONDS = 8.0
FIBERS = 12


async def storm(nursery: Nursery) -> int:
    """Two workers; one of them dies every quarter of a second."""
    dice, kills = random.Random(7), 0
    for _ in range(2):
        nursery.start()
    end = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(dice.uniform(0.05, 0.45))
        nursery.kill(dice.choice(nursery.pids))
        nursery.start()
        kills += 1
    return kills


async def answer_all(observer: Observer) -> Counter[str]:
    """Answer whatever is asked until everybody has been heard; how often each fiber's answer was taken."""
    taken: Counter[str] = Counter()
    while len(taken) < FIBERS:
        for question in await observer.client.questions("talk"):
            for by in ("ann", "bob"):
                try:
                    await observer.client.answer(
                        "talk", question.fiber, question.name, question.digest, f"yes, says {by}", by=by
                    )
                except (Conflict, NotFound):
                    continue
                taken[question.fiber] += 1
        await asyncio.sleep(0.05)
    return taken


def test_no_kill_loses_or_doubles_a_signal_an_answer_or_an_occurrence(tmp_path: Path) -> None:
    """S1 S6 S7 S9, L2, L4: dozens of kills of the workers; every signal is heard, each question answered once, and every
    second rings once."""

    async def main() -> None:
        with Nursery(tmp_path) as nursery:
            async with Observer(tmp_path) as observer:
                client = observer.client
                receipts = [await client.accept("talk", "talks", key=f"{n}") for n in range(FIBERS)]
                await client.schedule("bell", every("1s", missed="each", overlap=True), "rings", key="beat")
                weather = asyncio.create_task(storm(nursery))
                for n, receipt in enumerate(receipts):
                    await asyncio.sleep(SECONDS / FIBERS / 2)
                    await client.signal("talk", "go", n, fiber=receipt.fiber, key=f"{n}")
                taken = await answer_all(observer)
                kills = await weather
                results = [await client.result(receipt) for receipt in receipts]
                await client.cancel("bell", "beat")

                async def rang() -> bool:
                    return not any(state.unsettled() for _, state in await observer.states())

                await until(rang, "every run settled")

                assert kills >= 10
                assert set(taken.values()) == {1} and len(taken) == FIBERS
                assert [result[0] for result in results] == list(range(FIBERS))
                decode = r.decoder().decode
                [log] = [log for log, _ in await observer.states() if log.instance.address.id == "bell"]
                records = [record for row in log.rows for record in decode(row.batch.records)]
                times = [record.occurrence for record in records if isinstance(record, r.FiberAccepted) and record.occurrence]
                gaps = {round(later - earlier, 3) for earlier, later in pairwise(times)}
                assert len(times) >= SECONDS - 1 and gaps == {1.0}
                rings = Counter(effect.fiber for effect in observer.effects() if effect.what == "ring")
                assert set(rings.values()) <= {1}

    asyncio.run(main())
