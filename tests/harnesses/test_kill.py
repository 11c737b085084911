"""Other harnesses on the runtime, in real processes: killed with SIGKILL at each of their model requests and tool calls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.harnesses.shops import LIBRARIES, PROMPTS, TOOLS, Found, judge, look, place, respond
from tests.harnesses.victim import Order

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.testing.providers import Break, Hang, ProviderRequest, ProviderServer, Reply, serve_in_thread
from cairn.testing.world import World

ROOT = Path(__file__).parents[2]

REQUESTS = ((PROMPTS[0], 0), (PROMPTS[0], 3), (PROMPTS[0], 4), (PROMPTS[1], 0))

#: Events of a stream after which it stalls, and its client is killed: some text or a part of a call is through.
STREAMED = 5

pytestmark = pytest.mark.system


class Victims:
    """The server that forks them, for one library."""

    def __init__(self, library: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "PYTHONWARNINGS": "ignore"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.harnesses.victim", library],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def run(self, order: Order) -> int:
        """One life; its exit status, negative for a signal."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(msgspec.json.encode(order) + b"\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        """No process is left."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(10)


@pytest.fixture(scope="module", params=LIBRARIES)
def victims(request: pytest.FixtureRequest) -> Iterator[Victims]:
    made = Victims(request.param)
    yield made
    made.close()


class Killer:
    """A provider that kills its client once, at one request: before it answers, or in the middle of its answer."""

    def __init__(self, directory: Path, at: tuple[str, int] | None, streamed: int) -> None:
        self.directory, self.at, self.streamed = directory, at, streamed
        self.server: ProviderServer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __call__(self, request: ProviderRequest) -> Reply:
        reply = respond(request)
        if place(request) != self.at:
            return reply
        self.at = None
        self._tasks.append(asyncio.create_task(self._kill()))
        fault = Break("stall", self.streamed) if self.streamed else Hang()
        return Reply(reply.parts, fault=fault)

    async def _kill(self) -> None:
        assert self.server is not None
        await self.server.wait_until(lambda server: server.broken > 0)
        os.kill(int((self.directory / "pid").read_text()), signal.SIGKILL)


def found(directory: Path, server: ProviderServer) -> Found:
    """What is in the files, read by a process that had no part in it. The store is sound."""

    async def main() -> Found:
        store = SqliteStore(str(directory / "cairn.db"), clock=SystemClock(), ids=SystemIds())
        await store.open()
        assert await store.check() == []
        seen = await look(store, World(directory / "world.jsonl"), server.requests)
        await store.close()
        return seen

    return asyncio.run(main())


def lives(
    victims: Victims, directory: Path, *, at: tuple[str, int] | None = None, streamed: int = 0, tool: str = "", when: str = ""
) -> tuple[Found, Found, list[str]]:
    """A process that dies there, and one that goes on; what was there at its death and at the end."""
    killer = Killer(directory, at, streamed)
    with serve_in_thread(killer) as server:
        killer.server = server
        order = Order(str(directory), server.url("anthropic"), tool, when)
        first = victims.run(order)
        died = found(directory, server)
        if at is not None or tool:
            assert first == -signal.SIGKILL
            assert victims.run(Order(str(directory), order.url)) == 0
        return died, found(directory, server), msgspec.json.decode((directory / "answers.json").read_bytes())


def below(directory: Path, name: str) -> Path:
    made = directory / name
    made.mkdir()
    return made


def test_a_process_killed_at_any_model_request_repeats_only_that_one(victims: Victims, tmp_path: Path) -> None:
    """T9, S1 S2 S7: SIGKILL before each answer of the model, and in the middle of each; the next process goes on."""
    _, whole, _ = lives(victims, below(tmp_path, "whole"))

    for number, at in enumerate(REQUESTS):
        for streamed in (0, STREAMED):
            died, ended, answers = lives(victims, below(tmp_path, f"{number}-{streamed}"), at=at, streamed=streamed)

            judge(died, ended, whole, answers, f"killed at {at}, {streamed} events through")
            assert {key: ended.requests[key] for key in REQUESTS} == {key: 1 + (key == at) for key in REQUESTS}
            assert ended.effects == dict.fromkeys(TOOLS, 1)
            assert ended.state == whole.state


def test_a_process_killed_in_any_tool_call_asks_no_model_again(victims: Victims, tmp_path: Path) -> None:
    """T9, S5 S8 S9: SIGKILL right before and right after the effect of each tool: a safe one runs again, a keyed one with
    its key, one that must not be repeated does not."""
    _, whole, _ = lives(victims, below(tmp_path, "whole"))

    for tool, repeat in TOOLS.items():
        for when in ("before", "after"):
            died, ended, answers = lives(victims, below(tmp_path, f"{tool}-{when}"), tool=tool, when=when)

            judge(died, ended, whole, answers, f"killed {when} the effect of {tool}")
            assert set(ended.requests.values()) == {1}
            happened = int(when == "after")
            assert died.effects.get(tool, 0) == happened
            assert ended.effects.get(tool, 0) == happened + (repeat != "never")
