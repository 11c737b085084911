"""L3: an input that kills every process that touches it is given up after ten attempts; wherever it kills."""

from __future__ import annotations

from typing import Any

import pytest
from tests.crash.scenarios import agent_of, sending

from cairn import Agent, Context, Turn
from cairn.harness.limits import Limits
from cairn.testing.loop import GROUP
from cairn.testing.play import Run, play
from cairn.testing.scripted import Call
from cairn.testing.simulation import Process
from cairn.testing.world import World

ATTEMPTS = Limits().attempts


def die() -> None:
    """Kill the simulated process that runs this."""
    process = GROUP.get()
    assert isinstance(process, Process)
    process.kill()


def deadly_prepare(world: World) -> Agent[Any]:
    """It kills before the first turn has begun, and so before anything is recorded of the attempt."""
    agent = agent_of(world, "Never said.")

    @agent.prepare
    def prepare(turn: Turn[Any]) -> None:
        world.effect("died")
        die()

    return agent


def deadly_model(world: World) -> Agent[Any]:
    def answer(request: object) -> str:
        world.effect("died")
        die()
        return "Never said."

    return agent_of(world, answer)


def deadly_tool(world: World) -> Agent[Any]:
    """It may be repeated, and so it is."""
    agent = agent_of(world, Call("kill"), "Never said.")

    @agent.tool(repeat="safe")
    async def kill(ctx: Context) -> str:
        """Kill."""
        world.effect("died")
        die()
        return "never returned"

    return agent


def outcome(run: Run) -> tuple[str, str]:
    (settled,) = [record for record in run.records if record["type"] == "fiber.settled"]
    return settled["outcome"], settled["error"]["kind"]


@pytest.mark.parametrize(("agent", "extra"), [(deadly_prepare, 1), (deadly_model, 0), (deadly_tool, 0)])
def test_an_input_that_kills_its_process_is_given_up_after_ten_attempts(agent: Any, extra: int) -> None:
    """L3, L7: the attempts are counted by claims. The very first may die before it is recorded (`extra`); no other may."""
    run = play(agent, sending("first"))

    assert outcome(run) == ("failed", "attempts_exhausted")
    assert len(run.world.effects("died")) == ATTEMPTS + extra
    assert run.violations() == []
