"""docs/how-it-works.md says what the next process writes for each place to die; here each row is died at.

Method: the page's table is read. For each kill point a small program is played once to find the commit with the row's "last
durable records"; it is played again and killed right after that commit; then the first facts after the next claim must
be those of the row.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cairn import Agent, Context, Limits
from cairn.errors import ModelError
from cairn.harness.handle import ConversationHandle
from cairn.testing import Crash
from cairn.testing.play import Client, Run, play, settled
from cairn.testing.scripted import Call, Fail, Reply, Say, ScriptedModel, by_turn
from cairn.testing.world import Event, Provider, World

PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"

#: Records of the runtime's own life, between any two others.
OWNERSHIP = {"instance.claimed", "instance.released"}


@dataclass(frozen=True)
class Row:
    last: tuple[str, ...]
    following: tuple[str, ...]


def _tags(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([\w.]+)`", cell))


def rows() -> dict[str, Row]:
    """The kill points of the page."""
    table = PAGE.read_text().split("<!-- kill points")[1].split("\n\n")[1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    return {name: Row(_tags(last), _tags(following)) for name, last, following, _ in cells}


# --- the programs ---------------------------------------------------------------------------------------------------


def _agent(world: World, *replies: Reply) -> Agent[None]:
    model = Provider(world, ScriptedModel(by_turn(replies)))
    return Agent("toy", model=model, limits=Limits(retry_base_seconds=20.0, retry_jitter=0.0))


TEXT = Say("one two three", chunk=4, pause=0.05)


def plain(world: World) -> Agent[None]:
    return _agent(world, TEXT)


def with_tool(repeat: str) -> Callable[[World], Agent[None]]:
    def make(world: World) -> Agent[None]:
        agent = _agent(world, Call("work"), TEXT)

        @agent.tool(repeat=repeat)  # type: ignore[arg-type]
        async def work(ctx: Context[None]) -> str:
            """Work."""
            world.effect("work", ctx.call)
            await asyncio.sleep(1)
            return "done"

        return agent

    return make


def parallel(world: World) -> Agent[None]:
    agent = _agent(world, [Call("wait", {"seconds": 1}), Call("wait", {"seconds": 3})], TEXT)

    @agent.tool
    async def wait(ctx: Context[None], seconds: int) -> str:
        """Wait."""
        world.effect("wait", ctx.call)
        await asyncio.sleep(seconds)
        return "done"

    return agent


def resume(world: World) -> Agent[None]:
    agent = _agent(world, Call("work"), TEXT)

    @agent.tool(repeat="resume")
    async def work(ctx: Context[None]) -> str:
        """Work in two steps."""
        for name in ("first", "second"):
            await ctx.step(name, lambda name=name: world.effect(name))
            await asyncio.sleep(1)
        return "done"

    return agent


def failing_once(world: World) -> Agent[None]:
    failed: list[int] = []

    def script(request: object) -> Reply:
        failed.append(1)
        return Fail(ModelError("overloaded", kind="overload")) if len(failed) == 1 else TEXT

    return Agent("toy", model=Provider(world, ScriptedModel(script)), limits=Limits(retry_base_seconds=20.0, retry_jitter=0.0))


async def send(conversation: ConversationHandle, world: World) -> None:
    await settled(await conversation.send("Go", key="go"))


async def send_and_abort(conversation: ConversationHandle, world: World) -> None:
    receipt = await conversation.send("Go", key="go")
    if not any("abort.requested" in event.tags for event in world.commits()):
        await asyncio.sleep(0.12)
        await conversation.abort(reason="enough")
    await settled(receipt)


PROGRAMS: dict[str, tuple[Callable[[World], Agent[None]], Client]] = {
    "before the admission": (plain, send),
    "admitted": (plain, send),
    "the model was asked": (plain, send),
    "in the middle of the text": (plain, send),
    "a `safe` tool was called": (with_tool("safe"), send),
    "a `never` tool was called": (with_tool("never"), send),
    "one of two parallel tools is done": (parallel, send),
    "the tool is done": (with_tool("never"), send),
    "a step of a `resume` tool is done": (resume, send),
    "waiting to ask again after an error": (failing_once, send),
    "an abort was requested": (plain, send_and_abort),
    "settled": (plain, send),
}


def _commits(run: Run) -> list[Event]:
    return [event for event in run.world.events if event.kind == "commit"]


def _ends_with(event: Event, tags: tuple[str, ...]) -> bool:
    return bool(tags) and event.tags[-len(tags) :] == tags


def _point(run: Run, row: Row) -> int:
    """The number of the first commit that ends with the row's last records."""
    for number, event in enumerate(_commits(run), 1):
        if _ends_with(event, row.last):
            return number
    raise AssertionError(f"no commit ends with {row.last}: {[event.tags for event in _commits(run)]}")


def _next_records(run: Run, killed_after: int) -> tuple[str, ...]:
    """What is written first after the claim that follows the kill, up to the next effect's own records."""
    return tuple(tag for event in _commits(run)[killed_after:] for tag in event.tags if tag not in OWNERSHIP)


def test_the_page_names_at_least_ten_kill_points_and_each_has_a_program() -> None:
    """A row that nobody dies at proves nothing."""
    assert set(rows()) == set(PROGRAMS)
    assert len(rows()) >= 10


@pytest.mark.parametrize("name", [name for name, row in rows().items() if row.last and row.following])
def test_the_next_process_writes_what_the_page_says(name: str) -> None:
    """S1 S8 S9, T3: killed right after the row's records are durable, the successor's first records are the row's."""
    row, (agent, client) = rows()[name], PROGRAMS[name]
    point = _point(play(agent, client), row)

    run = play(agent, client, [Crash(point, "after")])

    assert run.lives == 2, "the crash was not reached"
    assert _next_records(run, point)[: len(row.following)] == row.following
    assert not run.violations()


def test_what_was_not_admitted_is_sent_again() -> None:
    """S1, S6: killed before the admission is durable, nothing is on the log but what the sender sends again."""
    agent, client = PROGRAMS["before the admission"]

    run = play(agent, client, [Crash(1, "before")])

    assert run.lives == 2
    accepted = [record for record in run.records if record["type"] == "fiber.accepted"]
    assert len(accepted) == 1


def test_what_is_settled_stays_settled() -> None:
    """S7: killed after the settlement, nothing more is written about it."""
    agent, client = PROGRAMS["settled"]
    point = _point(play(agent, client), rows()["settled"])

    run = play(agent, client, [Crash(point, "after")])

    assert not [tag for tag in _next_records(run, point) if tag not in ("fiber.accepted",)]


def test_a_lost_never_call_is_told_to_the_model_and_not_repeated() -> None:
    """S9: the outcome is unknown, the effect happened once."""
    agent, client = PROGRAMS["a `never` tool was called"]
    point = _point(play(agent, client), rows()["a `never` tool was called"])

    run = play(agent, client, [Crash(point, "after")])

    outcomes = [record["outcome"] for record in run.records if record["type"] == "tool.outcome"]
    assert outcomes == ["unknown"]
    assert len(run.world.effects("work")) <= 1
