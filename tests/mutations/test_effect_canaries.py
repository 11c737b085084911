"""Canaries for effects: a fiber with one step of each kind, its process killed at every durable write, then run again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cairn.errors import FiberFailed
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore, Worker
from cairn.runtime.storage.store import Store
from cairn.testing import Crash, FaultyStore, History, Process, RecordingStore, Simulation, check, logs_of, simulate
from cairn.testing.faults import crash_points

#: What happened outside, which no crash undoes; by fiber method and step, with the keys that were given.
effects: Counter[str] = Counter()
keys: set[str] = set()


@dataclass
class Nothing:
    pass


class Toy(DurableObject[Nothing]):
    async def work(self, fiber: Fiber) -> str:
        """One step of each kind, in an order that puts a crash before, between and after them."""

        async def launch() -> str:
            effects["never"] += 1
            return "launched"

        async def pay() -> str:
            effects["keyed"] += 1
            keys.add(fiber.key("pay"))
            return "paid"

        async def look() -> str:
            effects["safe"] += 1
            return "seen"

        await fiber.step("launch", launch, repeat="never")
        await fiber.step("pay", pay, repeat="keyed")
        return await fiber.step("look", look)

    async def look_around(self, fiber: Fiber) -> int:
        """Three steps that may be repeated, so that nothing but their records keeps them from it."""

        async def look() -> int:
            effects["safe"] += 1
            return effects["safe"]

        for number in range(3):
            await fiber.step(f"look {number}", look)
        return number

    async def deadly(self, fiber: Fiber) -> None:
        """Takes its process with it, every time."""
        effects["deadly"] += 1
        victims[-1].kill()


victims: list[Process] = []


async def live(process: Process, store: Store) -> None:
    """A process that works until it is killed."""
    victims.append(process)
    async with Worker(store, [ObjectApplication(Toy)], clock=process.clock, ids=process.ids) as worker:
        await worker.join()


async def until_settled(simulation: Simulation, method: str, crash: Crash | None) -> str:
    """Ask for the method; processes follow one another until it has an outcome. The first one has the crash point."""
    effects.clear()
    keys.clear()
    victims.clear()
    inner = SqliteStore(":memory:", clock=simulation.clock, ids=simulation.ids, inline=True)
    await inner.open()
    history = History()
    toy = ObjectApplication(Toy)
    handle = toy.handle(Client(RecordingStore(inner, history, "client"), toy, clock=simulation.clock, ids=simulation.ids), "1")
    receipt = await handle.start(method)

    async def lives(process: Process) -> None:
        first = True
        while True:
            point = crash if first else None
            first = False
            life = simulation.process(
                "worker",
                lambda p, point=point: live(p, FaultyStore.of(p, inner, crash=point)),  # type: ignore[misc]
            )
            await life.wait()

    driver = simulation.process("driver", lives)
    try:
        outcome = str(await handle.result(receipt))
    except FiberFailed as failure:
        outcome = str(failure)
    driver.kill()
    assert check(history, await logs_of(inner), others_wrote=True) == []
    return outcome


def test_whatever_the_moment_of_death_no_effect_is_repeated_that_may_not_be() -> None:
    """T3, S8, S9: a never step happens at most once and its loss is said; a keyed one repeats under one key."""
    outcomes: Counter[str] = Counter()

    for crash in crash_points():
        run = simulate(lambda simulation, c=crash: until_settled(simulation, "work", c), seed=1, faults=False)  # type: ignore[misc]

        assert effects["never"] <= 1, f"at {crash} the never step ran twice"
        assert len(keys) <= 1, f"at {crash} the keyed step had two keys"
        assert run.value == "seen" or "unknown" in run.value, f"at {crash}: {run.value}"
        outcomes[run.value if run.value == "seen" else "unknown"] += 1
        if not crash.reached:
            assert effects == {"never": 1, "keyed": 1, "safe": 1}

    # Only the death between a never step and its record makes an outcome unknown.
    assert 1 <= outcomes["unknown"] <= 2 < outcomes["seen"]


def test_what_a_record_answers_is_not_done_again() -> None:
    """T3, S9: a death costs the one step whose record it took, never a step whose record was there."""
    for crash in crash_points():
        run = simulate(lambda simulation, c=crash: until_settled(simulation, "look_around", c), seed=1, faults=False)  # type: ignore[misc]

        assert run.value == "2", f"at {crash}: {run.value}"
        assert effects["safe"] <= 4, f"at {crash}: {effects['safe']} looks for three steps and one death"


def test_a_fiber_that_kills_its_process_is_given_up_after_ten_attempts() -> None:
    """L3, L7: a poisoned fiber settles, with the reason."""
    run = simulate(lambda simulation: until_settled(simulation, "deadly", None), seed=1, faults=False, seconds_max=3600)

    assert "attempts" in run.value
    assert effects["deadly"] == 10
