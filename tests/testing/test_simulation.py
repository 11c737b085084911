"""The simulator itself: what it promises to the tests that stand on it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cairn.testing import Crashed, Deadlock, Livelock, Process, Simulation, seeds, simulate, sometimes

INTERLEAVING = """
from cairn.testing import simulate

async def main(simulation):
    async def worker(name):
        for _ in range(5):
            await simulation.clock.sleep(simulation.random.random())
            simulation.note(name, simulation.ids.new("x"))
    import asyncio
    async with asyncio.TaskGroup() as group:
        for name in {"a", "b", "c", "d"}:
            pass
        for name in "abcd":
            group.create_task(worker(name))

print(simulate(main, seed=3).trace_hash)
"""


def nothing_else() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def race(simulation: Simulation) -> str:
    """Who of three ready tasks is first is the seed's choice."""
    order: list[str] = []

    async def runner(name: str) -> None:
        await asyncio.sleep(0)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(runner(name))
    return "".join(order)


def test_one_seed_is_one_run() -> None:
    """T8: fifty seeds twice each, byte-equal traces."""
    for seed in seeds(50):
        first, second = simulate(race, seed=seed), simulate(race, seed=seed)

        assert first == second


def test_every_order_of_ready_tasks_is_some_seeds_choice() -> None:
    """T7: the schedule is explored, not fixed."""
    orders = {simulate(race, seed=seed).value for seed in range(100)}

    assert orders == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_different_schedules_have_different_traces() -> None:
    """T8: the hash sees what it must, or equality would mean nothing."""
    runs = [simulate(race, seed=seed) for seed in range(100)]

    assert len({run.trace_hash for run in runs}) >= len({run.value for run in runs}) == 6


def test_the_trace_does_not_depend_on_the_hash_seed_of_the_interpreter() -> None:
    """T8: set iteration never decides order; four interpreters, four hash seeds, one trace."""
    source = str(Path(__file__).parents[2] / "src")

    def trace(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": source}
        return subprocess.run(
            [sys.executable, "-c", INTERLEAVING], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert len({trace(hash_seed) for hash_seed in "0123"}) == 1


def test_time_jumps_to_the_next_timer() -> None:
    """T7: a virtual day costs nothing and every sleeper wakes exactly on time."""

    async def main(simulation: Simulation) -> tuple[float, float]:
        before = simulation.clock.wall()
        await asyncio.gather(simulation.clock.sleep(3600), asyncio.sleep(7200))
        return simulation.now(), simulation.clock.wall() - before

    assert simulate(main, seed=1).value == (7200.0, 7200.0)


def test_plain_callbacks_keep_the_order_in_which_they_were_registered() -> None:
    """asyncio documents this order; programs may rely on it, so the simulation must not break it."""

    async def main(simulation: Simulation) -> list[int]:
        seen: list[int] = []
        for number in range(20):
            simulation.loop.call_soon(seen.append, number)
        while len(seen) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return seen

    for seed in range(20):
        assert simulate(main, seed=seed).value == list(range(20))


def test_waiting_for_what_nobody_can_do_is_a_deadlock_that_names_the_waiters() -> None:
    """L3: a stuck system is found at once, not after a time limit."""

    async def forgotten() -> None:
        await nothing_else()

    async def main(simulation: Simulation) -> None:
        await asyncio.gather(forgotten(), asyncio.sleep(5))

    with pytest.raises(Deadlock, match=r"at 5\.000 s(.|\n)*forgotten(.|\n)*test_simulation\.py") as caught:
        simulate(main, seed=4)

    assert any("seed 4" in note and "CAIRN_TEST_SEED=4" in note for note in caught.value.__notes__)


def test_two_tasks_that_only_wake_each_other_are_a_livelock() -> None:
    """L3: so is a system that is always busy and never done."""

    async def spin(simulation: Simulation) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def tick(simulation: Simulation) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(10)

    with pytest.raises(Livelock, match="1000 steps"):
        simulate(spin, seed=1, steps_max=1000)
    with pytest.raises(Livelock, match="3600 virtual seconds"):
        simulate(tick, seed=1, seconds_max=3600)


def test_a_simulated_program_cannot_use_a_thread() -> None:
    """T8: a thread's timing is the machine's, not the seed's; both ways in are closed."""

    async def executor(simulation: Simulation) -> None:
        await asyncio.to_thread(print)

    async def callback(simulation: Simulation) -> None:
        refused: list[RuntimeError] = []

        def intrude() -> None:
            try:
                simulation.loop.call_soon_threadsafe(print)
            except RuntimeError as error:
                refused.append(error)

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        raise refused[0]

    with pytest.raises(RuntimeError, match="a simulation has not"):
        simulate(executor, seed=1)
    with pytest.raises(RuntimeError, match="a thread calls into a simulation"):
        simulate(callback, seed=1)


def test_a_killed_process_runs_nothing_more_not_even_its_finally() -> None:
    """S9: what SIGKILL leaves is what the store has; cleanup code must never be what makes a crash safe."""
    ran: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ran.append("child's finally")

    async def main(simulation: Simulation) -> None:
        async def victim(process: Process) -> None:
            children = asyncio.gather(child(), child())
            try:
                await children
            finally:
                ran.append("finally")
                await asyncio.sleep(0)
                ran.append("await in finally")

        process = simulation.process("w", victim)
        await asyncio.sleep(5)
        process.kill()
        await process.wait()
        await asyncio.sleep(100)
        assert ran == []

    simulate(main, seed=1)


def test_a_paused_process_misses_nothing_and_does_nothing_until_it_is_resumed() -> None:
    """S4: a pause longer than a lease is the way a zombie is made."""

    async def main(simulation: Simulation) -> list[float]:
        ticks: list[float] = []

        async def clockwork(process: Process) -> None:
            while True:
                await process.clock.sleep(1)
                ticks.append(simulation.now())

        process = simulation.process("w", clockwork)
        await asyncio.sleep(2.5)
        process.pause(10)
        await asyncio.sleep(12)
        process.kill()
        return ticks

    assert simulate(main, seed=1).value == [1.0, 2.0, 12.5, 13.5]


def test_a_process_frozen_between_two_ready_steps_does_not_run_the_second() -> None:
    """S4: the pause takes effect at once, also for what was already ready."""

    async def main(simulation: Simulation) -> None:
        ran: list[str] = []

        async def busy(process: Process) -> None:
            while True:
                ran.append("step")
                await asyncio.sleep(0)

        process = simulation.process("w", busy)
        while len(ran) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        process.pause()
        steps_when_paused = len(ran)
        await asyncio.sleep(60)
        assert len(ran) == steps_when_paused

    for seed in range(20):
        simulate(main, seed=seed)


def test_processes_disagree_about_the_day_and_agree_about_the_boot() -> None:
    """T13: wall clocks are skewed, drift and jump; the lease clock is the kernel's."""

    async def main(simulation: Simulation) -> None:
        async def sleeper(process: Process) -> None:
            await process.clock.sleep(100)

        ahead = simulation.process("ahead", sleeper, skew=3600)
        fast = simulation.process("fast", sleeper, rate=1.01)
        await fast.wait()
        fast_woke = simulation.now()
        await ahead.wait()
        ahead.clock.jump(-7200)

        assert fast_woke == pytest.approx(100 / 1.01)
        assert fast.clock.monotonic() == pytest.approx(101)
        assert ahead.clock.wall() - simulation.clock.wall() == pytest.approx(-3600)
        assert ahead.clock.boottime() == fast.clock.boottime() == simulation.clock.boottime()
        assert ahead.clock.monotonic() == 100

    simulate(main, seed=1)


def test_ids_are_the_seeds_and_never_the_same() -> None:
    """T8, S5: names differ within a run and agree between two."""

    async def main(simulation: Simulation) -> list[str]:
        return [simulation.ids.new("sub") for _ in range(1000)]

    first, again, other = (simulate(main, seed=seed).value for seed in (1, 1, 2))

    assert len(set(first)) == 1000
    assert first == again
    assert not set(first) & set(other)


def test_what_a_process_raises_fails_the_simulation_with_its_seed() -> None:
    """T7: a crash of the program is a finding, also when the director does not look."""

    async def main(simulation: Simulation) -> None:
        async def broken(process: Process) -> None:
            raise KeyError("lost")

        simulation.process("w", broken)
        await asyncio.sleep(1)

    with pytest.raises(KeyError, match="lost") as caught:
        simulate(main, seed=9)

    assert any("seed 9" in note for note in caught.value.__notes__)


def test_what_a_forgotten_task_raises_fails_the_simulation() -> None:
    """T7: "exception was never retrieved" is a failure here, not a line in a log."""

    async def main(simulation: Simulation) -> None:
        async def broken() -> None:
            raise KeyError("lost")

        asyncio.ensure_future(broken())
        await asyncio.sleep(1)

    with pytest.raises(KeyError, match="lost"):
        simulate(main, seed=9)


def test_a_process_that_dies_of_a_crash_point_is_no_finding() -> None:
    """T3: `Crashed` is the fault, not the failure; and `except Exception` does not survive it."""

    async def main(simulation: Simulation) -> bool:
        async def victim(process: Process) -> None:
            try:
                raise Crashed
            except Exception:
                await asyncio.sleep(1000)

        process = simulation.process("w", victim)
        await process.wait()
        return process.is_alive

    run = simulate(main, seed=1)
    assert (run.value, run.seconds) == (False, 0.0)


def test_each_seed_switches_on_another_half_of_the_faults() -> None:
    """T7: swarm selection; and outside a simulation, or after it is healed, no fault strikes."""

    async def main(simulation: Simulation) -> frozenset[str]:
        struck = frozenset(name for name in "abcdefgh" for _ in range(200) if sometimes(name))
        simulation.heal()
        assert not any(sometimes(name, 1.0) for name in "abcdefgh")
        return struck

    sets = {simulate(main, seed=seed).value for seed in range(40)}

    assert len(sets) > 30
    assert {len(names) for names in sets} >= {2, 3, 4, 5, 6}
    assert not sometimes("a", 1.0)
    assert simulate(main, seed=1, faults=False).value == frozenset()


def test_the_environment_chooses_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """T7: a printed seed is repeated alone; the night runs more of them."""
    assert list(seeds(3)) == [0, 1, 2]
    monkeypatch.setenv("CAIRN_TEST_SEEDS", "5")
    assert list(seeds(3)) == [0, 1, 2, 3, 4]
    monkeypatch.setenv("CAIRN_TEST_SEEDS", "7-9")
    assert list(seeds(3)) == [7, 8]
    monkeypatch.setenv("CAIRN_TEST_SEED", "17")
    assert list(seeds(3)) == [17]


def test_what_a_killed_process_had_no_time_to_look_at_is_no_finding() -> None:
    """T7: the error of a child whose parent was killed before it could await it."""

    async def main(simulation: Simulation) -> None:
        async def parent(process: Process) -> None:
            async def child() -> None:
                process.kill()
                raise KeyError("nobody will see this")

            await asyncio.create_task(child())

        await simulation.process("w", parent).wait()

    simulate(main, seed=1)


def test_what_is_woken_in_the_order_of_a_set_runs_in_an_order_of_the_seed() -> None:
    """T8: sets of tasks and futures are ordered by address; asyncio's own TaskGroup keeps one."""

    async def main(simulation: Simulation) -> str:
        woken: list[str] = []
        futures = [simulation.loop.create_future() for _ in range(8)]

        async def waiter(index: int) -> None:
            await futures[index]
            woken.append(str(index))

        tasks = [asyncio.ensure_future(waiter(index)) for index in range(8)]
        await asyncio.sleep(1)
        for future in set(futures):
            future.set_result(None)
        await asyncio.gather(*tasks)
        return "".join(woken)

    kept: list[object] = []
    for seed in range(10):
        orders = set()
        for _ in range(5):
            kept.append([object() for _ in range(len(kept) * 37)])
            orders.add(simulate(main, seed=seed).value)
        assert len(orders) == 1


def test_waiting_for_less_than_the_clock_can_tell_ends() -> None:
    """T7: the remainder of a subtraction, added to a large present, is the present; time must go on all the same."""

    async def main(simulation: Simulation) -> int:
        await asyncio.sleep(1000.1)
        deadline, waits = simulation.now() + 1e-13, 0
        while simulation.now() < deadline:
            await asyncio.sleep(max(1e-18, deadline - simulation.now()))
            waits += 1
        return waits

    assert simulate(main, seed=1, steps_max=1000).value <= 1
