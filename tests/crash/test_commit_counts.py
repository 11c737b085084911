"""How often the loop waits for the disk: the synced commits of a submission, written out. One more is a failing test."""

from __future__ import annotations

from typing import Any

import pytest
from tests.crash.scenarios import BY_NAME, agent_of, sending

from cairn import Agent, Context
from cairn.testing.play import Run, play
from cairn.testing.scripted import Call
from cairn.testing.world import World

#: Not the loop's: what clients and workers commit.
_OTHERS = {("fiber.accepted",), ("abort.requested",), ("instance.claimed",), ("instance.released",)}


def commits(run: Run) -> list[str]:
    """The loop's synced commits, each as the tags in it."""
    return [" ".join(event.tags) for event in run.world.commits("fact") if event.tags not in _OTHERS]


START = "fiber.started context.opened turn.started"
END = "message.completed fiber.settled"

EXPECTED = {
    "plain": [START, END],
    "one-tool": [START, "message.completed tool.called", "tool.outcome turn.started", END],
    "keyed": [START, "message.completed tool.called", "tool.outcome turn.started", END],
    "state": [
        START,
        "message.completed tool.called", "tool.outcome state.changed turn.started",
        "message.completed tool.called", "tool.outcome state.changed turn.started",
        END,
    ],
    # Three intents in one commit; each outcome as it comes; the last one with the next turn.
    "parallel": [
        START, "message.completed tool.called tool.called tool.called", "tool.outcome", "tool.outcome",
        "tool.outcome turn.started", END,
    ],
    # A barrier's intent rides with the outcome before it.
    "barrier": [
        START, "message.completed tool.called", "tool.outcome tool.called", "tool.outcome tool.called",
        "tool.outcome turn.started", "message.completed tool.called", "tool.outcome fiber.settled",
    ],
    # Calls that cannot be made have their outcome with the message; a message that joins costs nothing but itself.
    "refused": [
        START, "message.completed tool.outcome tool.outcome tool.outcome tool.called", "tool.outcome turn.started", END,
    ],
    "join": [
        START, "message.completed tool.called", "tool.outcome turn.started", "message.completed fiber.settled fiber.settled",
    ],
    "on-stop": [
        START, "message.completed", "hook.completed turn.started", "message.completed", "hook.completed fiber.settled",
    ],
    "retry": [START, "message.interrupted turn.failed fiber.parked", "fiber.started turn.started", END],
    "length": [START, "message.completed tool.outcome turn.started", "message.completed turn.started", END],
    "second": [START, END, "fiber.started turn.started", END],
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_a_submission_waits_for_the_disk_exactly_as_often_as_written_here(name: str) -> None:
    """S8, S10: intents before effects, and not one sync more."""
    scenario = BY_NAME[name]

    assert commits(play(scenario.agent, scenario.client)) == EXPECTED[name]


def steps(count: int) -> Any:
    def agent(world: World) -> Agent[Any]:
        made = agent_of(world, *(Call("step", {"number": number}) for number in range(count)), "Done.")

        @made.tool
        async def step(ctx: Context, number: int) -> str:
            """Step."""
            world.effect("step", ctx.call)
            return f"step {number}"

        return made

    return agent


@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_sequential_tool_step_is_two_synced_commits_however_many_there_are(count: int) -> None:
    """S8: one commit before the call and one after it; the first turn and the settlement are two more."""
    run = play(steps(count), sending("first"))

    assert len(commits(run)) == 2 + 2 * count
    assert len(run.world.effects("step")) == count
    # Only the last turn says anything, and that is one relaxed commit.
    assert run.deltas == 1
