"""T3: a process dies before and after every durable append of an agent that works in a virtual sandbox.

Method: the shell is a stand-in that runs in the simulation: each command appends a line to a file and counts in the shell's
state, and says both numbers. Whatever dies when, the transcript has to read 1 1, 2 2, 3 3, and the files have to be those of
the last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from tests.crash.scenarios import sending

from cairn import Agent
from cairn.harness.application import AgentApplication
from cairn.harness.loop import Services
from cairn.harness.sandbox import virtual_wire as wire
from cairn.harness.sandbox.protocol import Place
from cairn.harness.sandbox.virtual import VirtualSandbox, virtual
from cairn.harness.sandbox.virtual_process import Host
from cairn.runtime.instance import Fold
from cairn.testing import Crash, crash_points
from cairn.testing.play import Run, play
from cairn.testing.scripted import Call, ScriptedModel, by_turn
from cairn.testing.world import Provider, World

pytestmark = [pytest.mark.slow]

COMMANDS = 3


class CountingWorker:
    """A worker without a process."""

    async def run(self, request: dict[str, Any], state: bytes, host: Host, seconds: float) -> tuple[wire.Done, bytes]:
        count = int(state or b"0") + 1
        answer, data = await host.answer(wire.Read(path="/log"), b"")
        data += b"x\n"
        host.output(b"%d %d" % (data.count(b"\n"), count))
        new_state = b"%d" % count
        is_new = "error" in answer
        moved: list[Any] = [] if is_new else [wire.Move("/log", "/moved"), wire.Move("/moved", "/log")]
        done = wire.Done(
            code=0,
            timed_out=False,
            error=None,
            cwd="/workspace",
            changes=[*moved, wire.Write("/log", len(data))],
            state=len(new_state),
        )
        return done, data + new_state

    def kill(self) -> None:
        pass


class CountingPool:
    @asynccontextmanager
    async def worker(self, tenant: str) -> AsyncIterator[CountingWorker]:
        yield CountingWorker()


class Counting:
    """`virtual()` with that worker."""

    name = "virtual"

    async def open(self, instance: str, directory: str, place: Place | None = None) -> VirtualSandbox:
        sandbox = await virtual().open(instance, directory, place)
        sandbox.pool = CountingPool()  # type: ignore[assignment]
        return sandbox


def agent(world: World) -> Agent:  # type: ignore[type-arg]
    calls = [Call("bash", {"command": "count"})] * COMMANDS
    model = Provider(world, ScriptedModel(by_turn([*calls, "Counted."])))
    return Agent("toy", model=model, sandbox=Counting())


def outcomes(run: Run) -> list[tuple[str, str]]:
    return [(each["outcome"], each["content"][0]["text"]) for each in run.records if each["type"] == "tool.outcome"]


def assert_agrees(run: Run) -> None:
    """The transcript, the files and the shell's state tell the same."""
    assert run.violations() == []
    expected = [("ok", f"{n} {n}") for n in range(1, COMMANDS + 1)]
    assert outcomes(run) == expected
    (log,) = run.logs
    application = AgentApplication(agent(World()), Services(resolve=lambda model: model), "")  # type: ignore[arg-type,return-value]
    fold = Fold(application, log.instance.n, log.instance.address)
    for row in log.rows:
        fold.apply_row(row)
        names = [record["type"] for record in msgspec.json.decode(row.batch.records)]
        assert ("files.changed" in names) == ("tool.outcome" in names) == ("sandbox.remembered" in names), names
    (node,) = [node for node in fold.files.tree.below(1) if node.kind == "file"]
    assert (node.name, node.size) == ("log", 2 * COMMANDS)


def runs(*first: Crash) -> Iterator[Run]:
    for crash in crash_points():
        yield play(agent, sending("Count"), [*first, crash])


def test_files_and_transcript_agree_after_a_crash_at_every_durable_append() -> None:
    """T3, S1: before and after each write; a call whose outcome was not recorded is made again and leaves one line."""
    found = list(runs())
    for run in found:
        assert_agrees(run)

    assert [run.lives for run in found] == [2] * (len(found) - 1) + [1]
    assert len(found) > 20


def test_a_second_crash_during_the_recovery_changes_nothing() -> None:
    """T3: pairs of crash points, the second in the second life."""
    whole = play(agent, sending("Count"))
    for at in range(4, whole.writes[0], 3):
        for run in runs(Crash(at, "before")):
            assert_agrees(run)


def test_a_call_costs_the_two_commits_it_always_costs() -> None:
    """F8: files and shell ride in the batch of the outcome."""
    run = play(agent, sending("Count"))

    plain = play(lambda world: plain_agent(world), sending("Count"))
    assert run.facts == plain.facts


def plain_agent(world: World) -> Agent:  # type: ignore[type-arg]
    """The same agent with a tool that touches nothing."""
    calls = [Call("count", {})] * COMMANDS
    made = Agent("toy", model=Provider(world, ScriptedModel(by_turn([*calls, "Counted."]))))

    @made.tool(repeat="safe")
    async def count() -> str:
        """Count."""
        return "1"

    return made
