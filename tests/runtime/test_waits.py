"""Fibers that wait: for time, for signals, for answers, for each other; parked, and holding nothing while they do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.runtime.stage import Stage, play
from tests.runtime.toy import Method

from cairn.errors import Conflict, FiberFailed, NotFound, WaitExpired
from cairn.runtime.fiber import Fiber
from cairn.runtime.state import Phase
from cairn.runtime.worker import WorkerSettings


async def waits_for_go(fiber: Fiber) -> Any:
    return await fiber.wait("go")


def test_a_signal_ends_the_wait_for_it_and_brings_its_payload() -> None:
    """S1, L1: whoever sent it need not know where the fiber is, or whether any process has it."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        await stage.client.signal("a", "go", {"by": "ann"})
        return await stage.result(receipt)

    assert play(waits_for_go, body) == {"by": "ann"}


def test_a_signal_that_was_sent_before_the_wait_is_not_lost() -> None:
    """S1: it is kept until somebody waits for it, and costs that wait no park."""

    async def body(stage: Stage) -> Any:
        await stage.client.accept("a", "other")
        await stage.client.signal("a", "go", 1)
        await stage.quiet()
        found = await stage.result(await stage.start())
        return found, await stage.kinds()

    async def other(fiber: Fiber) -> None: ...

    found, kinds = play({"run": waits_for_go, "other": other}, body)

    assert found == 1
    assert "FiberParked" not in kinds


def test_each_signal_is_taken_once_by_the_oldest_that_waits() -> None:
    """S11: two signals, three fibers; the third goes on waiting."""

    async def body(stage: Stage) -> Any:
        receipts = [await stage.start() for _ in range(3)]
        await stage.quiet()
        for number in range(2):
            await stage.client.signal("a", "go", number)
        first = [await stage.result(receipt) for receipt in receipts[:2]]
        await stage.quiet()
        third = await stage.client.inspect("a", receipts[2].fiber)
        return first, third.phase if third is not None else None

    assert play(waits_for_go, body) == ([0, 1], Phase.PARKED)


def test_a_signal_that_was_kept_is_given_to_one() -> None:
    """S6: two fibers begin to wait after it was sent; one of them gets it."""

    async def nothing(fiber: Fiber) -> None: ...

    async def body(stage: Stage) -> Any:
        await stage.start("nothing")
        await stage.client.signal("a", "go", 1)
        await stage.quiet()
        receipts = [await stage.start() for _ in range(2)]
        await stage.quiet()
        states = [await stage.client.inspect("a", receipt.fiber) for receipt in receipts]
        return [state.phase for state in states if state is not None]

    assert sorted(phase.value for phase in play({"run": waits_for_go, "nothing": nothing}, body)) == ["parked", "settled"]


def test_a_signal_for_one_fiber_is_for_that_one_only() -> None:
    """S12: an older fiber that waits for the same event does not get it."""

    async def body(stage: Stage) -> Any:
        older, younger = await stage.start(), await stage.start()
        await stage.quiet()
        await stage.client.signal("a", "go", "for you", fiber=younger.fiber)
        found = await stage.result(younger)
        await stage.quiet()
        state = await stage.client.inspect("a", older.fiber)
        return found, state.phase if state is not None else None

    assert play(waits_for_go, body) == ("for you", Phase.PARKED)


def test_a_signal_with_a_key_is_one_signal() -> None:
    """S6: a webhook that is delivered twice wakes one fiber; another payload under the key is refused."""

    async def body(stage: Stage) -> Any:
        receipts = [await stage.start() for _ in range(2)]
        await stage.client.signal("a", "go", 1, key="evt-1")
        await stage.client.signal("a", "go", 1, key="evt-1")
        with pytest.raises(Conflict):
            await stage.client.signal("a", "go", 2, key="evt-1")
        await stage.quiet()
        states = [await stage.client.inspect("a", receipt.fiber) for receipt in receipts]
        return [state.phase for state in states if state is not None]

    assert play(waits_for_go, body) == [Phase.SETTLED, Phase.PARKED]


def test_a_wait_that_nothing_ends_expires_and_stays_expired() -> None:
    """L3: a signal that comes too late changes nothing for an attempt that runs again; it is kept for the next wait."""

    async def method(fiber: Fiber) -> list[Any]:
        found: list[Any] = []
        try:
            await fiber.wait("go", timeout=60)
        except TimeoutError as error:
            found.append(isinstance(error, WaitExpired))
        await fiber.sleep("pause", 100)
        found.append(await fiber.wait("go", name="again"))
        return found

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.sleep(70)
        await stage.client.signal("a", "go", "late")
        return await stage.result(receipt)

    assert play(method, body) == [True, "late"]


@pytest.mark.parametrize("first", ["signal", "time"])
def test_a_signal_and_the_end_of_the_wait_race_and_the_log_says_who_won(first: str) -> None:
    """S3, T3: in both orders; whoever is first in the log is what every later attempt sees."""

    async def method(fiber: Fiber) -> str:
        try:
            return str(await fiber.wait("go", timeout=60))
        except WaitExpired:
            return "expired"

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.sleep(59 if first == "signal" else 61)
        await stage.client.signal("a", "go", "in time")
        return await stage.result(receipt)

    assert play(method, body) == ("in time" if first == "signal" else "expired")


def test_branches_that_wait_are_parked_together_and_sleep_at_the_same_time() -> None:
    """L4: two sleeps beside each other take as long as the longer one."""

    async def method(fiber: Fiber) -> None:
        await asyncio.gather(fiber.sleep("a", 100), fiber.sleep("b", 300))

    async def body(stage: Stage) -> Any:
        began = stage.now()
        await stage.result(await stage.start())
        return stage.now() - began

    assert 300 <= play(method, body) < 310


def test_a_task_group_parks_like_gather() -> None:
    """L4: unwinding is a cancellation, which structured code passes on."""

    async def method(fiber: Fiber) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(fiber.sleep("a", 10))
            go = group.create_task(fiber.wait("go"))
        return str(go.result())

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.sleep(20)
        await stage.client.signal("a", "go", "done")
        return await stage.result(receipt)

    assert play(method, body) == "done"


def test_a_step_beside_a_wait_is_not_cut_off_by_the_park() -> None:
    """S9: a fiber is parked when all its branches wait, and not before; the step runs once."""
    called: list[str] = []

    async def method(fiber: Fiber) -> list[Any]:
        async def work() -> str:
            called.append("work")
            await fiber.instance.clock.sleep(500)
            return "worked"

        return list(await asyncio.gather(fiber.step("work", work), fiber.wait("go", timeout=100_000), fiber.sleep("nap", 50)))

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.sleep(1000)
        await stage.client.signal("a", "go", 1)
        return await stage.result(receipt)

    assert play(method, body) == ["worked", 1, None]
    assert called == ["work"]


def test_an_abort_ends_a_fiber_that_waits() -> None:
    """S7: at once, and without calling its method."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        await stage.client.cancel("a", receipt.fiber)
        return (await stage.client.settled("a", receipt.fiber)).outcome

    assert play(waits_for_go, body) == "aborted"


@pytest.mark.parametrize("order", ["cancel first", "signal first"])
def test_cancel_and_signal_in_both_orders_settle_a_fiber_once(order: str) -> None:
    """S7: a cancelled fiber is aborted even when what it waited for comes; the log has one settlement."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        cancel = stage.client.cancel("a", receipt.fiber)
        signal = stage.client.signal("a", "go", 1)
        for request in (cancel, signal) if order == "cancel first" else (signal, cancel):
            await request
        settled = await stage.client.settled("a", receipt.fiber)
        await stage.quiet()
        return settled.outcome, (await stage.kinds()).count("FiberSettled")

    assert play(waits_for_go, body) == ("aborted", 1)


def test_cancel_after_the_settlement_is_legal_and_has_no_effect() -> None:
    """S7: requests commute with the owner's records."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.client.signal("a", "go", 1)
        await stage.result(receipt)
        await stage.client.cancel("a", receipt.fiber)
        await stage.client.signal("a", "go", 2, fiber=receipt.fiber)
        await stage.quiet()
        settled = await stage.client.inspect("a", receipt.fiber)
        return settled.outcome if settled is not None else None, (await stage.client.fold("a")).runtime.signals

    assert play(waits_for_go, body) == ("completed", [])


# --- questions and answers


async def asks(fiber: Fiber) -> Any:
    answer = await fiber.ask("deploy?", {"to": "production", "version": 7})
    return [answer.value(), answer.by]


def test_a_question_is_answered_from_outside_with_a_name() -> None:
    """S12: what is asked can be read by anybody who may; the answer says who gave it."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        [question] = await stage.client.questions("a")
        assert question.value() == {"to": "production", "version": 7}
        await stage.client.answer("a", question.fiber, question.name, question.digest, "yes", by="ann")
        assert await stage.client.questions("a") == []
        return await stage.result(receipt)

    assert play(asks, body) == ["yes", "ann"]


def test_an_answer_that_does_not_fit_is_refused() -> None:
    """S12: another question, another name, another fiber, a second answer: each is told why."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        [question] = await stage.client.questions("a")
        with pytest.raises(Conflict, match="another question"):
            await stage.client.answer("a", question.fiber, "deploy?", "sha256:0", "yes")
        with pytest.raises(NotFound):
            await stage.client.answer("a", question.fiber, "delete?", question.digest, "yes")
        with pytest.raises(NotFound):
            await stage.client.answer("a", "fib_0", "deploy?", question.digest, "yes")
        await stage.client.answer("a", question.fiber, "deploy?", question.digest, "no", by="ann")
        with pytest.raises(Conflict, match="ann"):
            await stage.client.answer("a", question.fiber, "deploy?", question.digest, "yes", by="bob")
        return await stage.result(receipt)

    assert play(asks, body) == ["no", "ann"]


def test_of_two_answers_at_once_one_is_taken_and_the_other_is_told() -> None:
    """S6: whoever gets no error has been heard, and nobody else."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        [question] = await stage.client.questions("a")
        answers = [
            stage.client.answer("a", question.fiber, "deploy?", question.digest, by, by=by) for by in ("ann", "bob", "cho")
        ]
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        heard = [by for by, outcome in zip(("ann", "bob", "cho"), outcomes, strict=True) if not isinstance(outcome, Exception)]
        return heard, await stage.result(receipt)

    heard, (_, by) = play(asks, body)

    assert heard == [by]


def test_a_question_expires_and_a_late_answer_is_refused() -> None:
    """L3: a park has its own end."""

    async def method(fiber: Fiber) -> str:
        try:
            await fiber.ask("deploy?", expires=3600)
        except WaitExpired as error:
            return str(error)
        return "answered"

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        [question] = await stage.client.questions("a")
        await stage.sleep(3601)
        with pytest.raises((Conflict, NotFound)):
            await stage.client.answer("a", question.fiber, question.name, question.digest, "yes")
        return await stage.result(receipt)

    assert "nobody answered" in play(method, body)


# --- other fibers


def test_a_fiber_runs_another_and_holds_nothing_while_it_does() -> None:
    """S6: started once, however often the parent is called; the result comes by the log."""
    called: list[str] = []

    async def parent(fiber: Fiber) -> Any:
        called.append("parent")
        return await asyncio.gather(*(fiber.run(f"child {n}", "child", n) for n in range(3)))

    async def child(fiber: Fiber) -> int:
        [number] = fiber.arguments()
        called.append(f"child {number}")
        await fiber.sleep("nap", 10 * (number + 1))
        return int(number) * 2

    async def body(stage: Stage) -> Any:
        return await stage.result(await stage.start("parent"))

    assert play({"parent": parent, "child": child}, body) == [0, 2, 4]
    assert sorted(set(called)) == ["child 0", "child 1", "child 2", "parent"]


def test_the_failure_of_a_fiber_is_raised_at_the_one_that_joins_it() -> None:
    """S7: with its recorded error."""

    async def parent(fiber: Fiber) -> str:
        try:
            await fiber.run("child", "child")
        except FiberFailed as error:
            return str(error)
        return "fine"

    async def child(fiber: Fiber) -> None:
        await fiber.sleep("nap", 5)
        raise ValueError("the printer is on fire")

    async def body(stage: Stage) -> Any:
        return await stage.result(await stage.start("parent"))

    assert "the printer is on fire" in play({"parent": parent, "child": child}, body)


# --- what a parked fiber costs


@pytest.mark.slow
def test_parked_fibers_hold_no_task() -> None:
    """L7: a thousand that wait for a signal, an answer, a time or a fiber are rows; the tasks are those of an idle worker."""

    async def nothing(fiber: Fiber) -> None: ...

    async def asks_or_sleeps(fiber: Fiber) -> None:
        [number] = fiber.arguments()
        match number % 3:
            case 0:
                await fiber.wait("never")
            case 1:
                await fiber.ask("?", number)
            case _:
                await fiber.sleep("long", 1e6)

    async def body(stage: Stage) -> Any:
        await stage.result(await stage.start("nothing"))
        await stage.quiet()
        idle = len(asyncio.all_tasks())
        for number in range(1000):
            await stage.start("parks", [number])
        await stage.quiet()
        parked = await stage.client.fibers("a", status="parked", limit=2000)
        return len(parked), len(asyncio.all_tasks()) - idle, stage.worker.running

    methods: dict[str, Method] = {"nothing": nothing, "parks": asks_or_sleeps}
    assert play(methods, body, settings=WorkerSettings(idle_seconds=0.0)) == (1000, 0, [])
