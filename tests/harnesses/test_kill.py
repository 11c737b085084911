"""Other harnesses on the runtime, in real processes: killed with SIGKILL at each of their model requests and tool calls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.harnesses.shops import LIBRARIES, PROMPTS, TOOLS, Found, Shop, judge, look, place, respond
from tests.harnesses.victim import Order

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Connection, Objects, Request
from cairn.runtime.frames import Sent, StateFrame
from cairn.runtime.storage import SqliteStore
from cairn.testing.providers import Break, Hang, ProviderRequest, ProviderServer, Reply, serve_in_thread
from cairn.testing.world import World

ROOT = Path(__file__).parents[2]

REQUESTS = ((PROMPTS[0], 0), (PROMPTS[0], 3), (PROMPTS[0], 4), (PROMPTS[1], 0))

#: Events of a stream after which it stalls, and its client is killed: the first piece of a text is through, the second is not.
STREAMED = {"pydantic_ai": 3, "openai_agents": 5}

pytestmark = pytest.mark.system


class Victims:
    """The server that forks them, for one library."""

    def __init__(self, library: str) -> None:
        self.library = library
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

    def __init__(self, directory: Path, at: tuple[str, int] | None, streamed: int, seen: threading.Event | None) -> None:
        self.directory, self.at, self.streamed, self.seen = directory, at, streamed, seen
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
        if self.seen is not None:
            await asyncio.to_thread(self.seen.wait)
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
    victims: Victims,
    directory: Path,
    *,
    at: tuple[str, int] | None = None,
    streamed: int = 0,
    seen: threading.Event | None = None,
    tool: str = "",
    when: str = "",
) -> tuple[Found, Found, list[str]]:
    """A process that dies there, once `seen`, and one that goes on; what was there at its death and at the end."""
    killer = Killer(directory, at, streamed, seen)
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


async def watched(
    directory: Path, shop: Shop, lives: Callable[[threading.Event], object], until: str = "\0"
) -> list[dict[str, str]]:
    """What a client in this process is told while other processes serve the object and die: its frames, in order."""
    clock, ids = SystemClock(), SystemIds()
    store = SqliteStore(str(directory / "cairn.db"), clock=clock, ids=ids)
    await store.open()
    application = shop.application(World(), "http://127.0.0.1:9")
    objects = Objects(store, None, {application.kind: application}, clock=clock, ids=ids)
    seen = threading.Event()
    living = asyncio.get_running_loop().run_in_executor(None, lives, seen)
    told: list[dict[str, str]] = []
    answers: dict[str, str] = {}
    async with asyncio.timeout(60):
        client = await objects.connect(application.kind, "a", Connection("watcher"), Request())
        frames = client.frames()
        while len(answers) < len(PROMPTS):
            frame = await anext(frames)
            if isinstance(frame, Sent):
                told.append(msgspec.json.decode(frame.data))
                if told[-1].get("text") == until:
                    seen.set()
            elif isinstance(frame, StateFrame):
                answers = msgspec.json.decode(frame.state)["answers"]
    await living
    await objects.close()
    await store.close()
    return told


def test_a_client_is_told_what_is_finished_once_whoever_dies(victims: Victims, tmp_path: Path) -> None:
    """T9, S10: the client's socket is in another process. The process is killed in the middle of the last text: its beginning
    comes again, the texts and results before it do not. It is killed in a tool: no text comes again."""
    shop = Shop(victims.library)
    cut, tool = below(tmp_path, "cut"), below(tmp_path, "tool")

    def cut_off(seen: threading.Event) -> object:
        return lives(victims, cut, at=REQUESTS[2], streamed=STREAMED[victims.library], seen=seen)

    told = asyncio.run(watched(cut, shop, cut_off, until="It is "))
    assert texts(told) == "Let me see.It is It is on its way.You are welcome."
    assert results(told) == ["look", "charge", "launch", "ship"]

    told = asyncio.run(watched(tool, shop, lambda _: lives(victims, tool, tool="ship", when="after")))
    assert texts(told) == "Let me see.It is on its way.You are welcome."
    assert results(told) == ["look", "charge", "launch", "ship"]


def texts(told: list[dict[str, str]]) -> str:
    return "".join(frame["text"] for frame in told if frame["type"] == "text")


def results(told: list[dict[str, str]]) -> list[str]:
    return sorted((frame["tool"] for frame in told if frame["type"] == "tool"), key=list(TOOLS).index)


def test_a_process_killed_at_any_model_request_repeats_only_that_one(victims: Victims, tmp_path: Path) -> None:
    """T9, S1 S2 S7: SIGKILL before each answer of the model, and in the middle of each; the next process goes on."""
    _, whole, _ = lives(victims, below(tmp_path, "whole"))

    for number, at in enumerate(REQUESTS):
        for streamed in (0, STREAMED[victims.library]):
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
