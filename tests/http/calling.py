"""An App called as its server would call it, without a socket and in virtual time: whole answers, and readers that come and go.

async def main(world: World) -> None:
    app = await world.app(agent)                           an App over the world's store
    world.work(agent)                                      a process that runs the agents; it can be killed
    answer = await ask(app, "POST", "/agents/toy/c", {"kind": "user", "body": "hi"})
    reader = Reader(app, "/agents/toy/c?view=updates&offset=-1&live=sse")
    await reader.until(lambda: "settled" in reader.text)
    await reader.leave()                                   the client closes its connection
in_world(main)

Laws. What a client sends is bytes of a scope, what it gets is what `send` was given: nothing in between makes it nicer. Nothing
sleeps: time is the simulation's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from cairn import Agent, App
from cairn.harness.application import AgentApplication
from cairn.harness.loop import Services
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Store
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker
from cairn.testing import Process, Simulation, simulate
from cairn.testing.play import KnownDead

Json = dict[str, Any]

#: Virtual seconds for anything that is waited for: whatever takes longer will never come.
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def next(self) -> str:
        return self.headers["stream-next-offset"]


class Reader:
    """One request whose answer is read as it comes. `stuck` readers take nothing."""

    def __init__(
        self, app: Any, target: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.data = bytearray()
        self.writes: list[bytes] = []
        self.ended = False
        self._scope = scope_of(method, target, headers, body)
        self._body = body
        self._gone = asyncio.Event()
        self._came = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self.task = asyncio.ensure_future(app(self._scope, self._receive, self._send))
        self.task.add_done_callback(lambda _: self._came.set())

    @property
    def text(self) -> str:
        return self.data.decode()

    def stick(self) -> None:
        """From now on the client takes nothing."""
        self._free.clear()

    def unstick(self) -> None:
        self._free.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return when the condition holds of what was read. Raises what the App raised, and AssertionError if it ends."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                assert not self.task.done() or self.task.exception() or condition(), f"it ended with {self.text}"
                if self.task.done():
                    self.task.result()
                self._came.clear()
                await self._came.wait()

    async def end(self) -> None:
        """Return when the answer is complete."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.shield(self.task)

    async def leave(self) -> None:
        """The connection is closed by the client; the App is done with it when this returns."""
        self._gone.set()
        self._free.set()
        await self.end()

    def answer(self) -> Answer:
        return Answer(self.status, self.headers, bytes(self.data))

    async def _receive(self) -> Json:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._free.wait()
        if self._gone.is_set():
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.writes.append(message["body"])
            self.data += message["body"]
            self.ended = not message.get("more_body", False)
        self._came.set()


def scope_of(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Json:
    parts = urlsplit(target)
    lines = {"host": "127.0.0.1:4020", **{name.lower(): value for name, value in headers.items()}}
    if body is not None:
        lines.setdefault("content-length", str(len(body)))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 4020),
    }


async def ask(app: Any, method: str, target: str, value: Any = None, headers: Mapping[str, str] = {}) -> Answer:
    """One request and its whole answer. `value` is sent as JSON, bytes as they are."""
    body = value if isinstance(value, bytes) else None if value is None else json.dumps(value).encode()
    if value is not None and not isinstance(value, bytes):
        headers = {"content-type": "application/json", **headers}
    reader = Reader(app, target, method=method, body=body if body is not None else b"", headers=headers)
    await reader.end()
    return reader.answer()


async def send(app: Any, conversation: str, body: str, **more: Any) -> Json:
    """A message that is accepted: the answer's body."""
    answer = await ask(app, "POST", conversation, {"kind": "user", "body": body, **more})
    assert answer.status == 202, answer.body
    return answer.json()  # type: ignore[no-any-return]


async def history(app: Any, conversation: str) -> Json:
    answer = await ask(app, "GET", conversation)
    assert answer.status == 200, answer.body
    return answer.json()  # type: ignore[no-any-return]


async def settled(app: Any, conversation: str, *submissions: str) -> Json:
    """The history once these are settled; all that are known to it when none is named."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            state = await history(app, conversation)
            done = {each["submissionId"] for each in state["settlements"]}
            asked = submissions or [each["submissionId"] for each in state["messages"] if each["purpose"] == "user"]
            if set(asked) <= done:
                return state
            await ask(app, "GET", f"{conversation}?view=updates&live=long-poll&offset={state['offset']}")


# --- server-sent events ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One frame: `data` and `control` with their JSON, `heartbeat` with None."""

    kind: str
    value: Any = None


def events_of(stream: bytes) -> list[Event]:
    """The complete frames. Raises AssertionError for what the published clients could not read."""
    found: list[Event] = []
    *frames, _ = stream.split(b"\n\n")
    for frame in frames:
        if frame == b": heartbeat":
            found.append(Event("heartbeat"))
            continue
        first, _, second = frame.partition(b"\n")
        assert first in (b"event: data", b"event: control"), frame
        assert second.startswith(b"data:") and b"\n" not in second, frame
        found.append(Event(first.removeprefix(b"event: ").decode(), json.loads(second.removeprefix(b"data:"))))
    return found


def chunks_of(stream: bytes) -> list[Json]:
    """The chunks a client has applied: of data frames that a control frame follows."""
    applied: list[Json] = []
    waiting: list[Json] = []
    for event in events_of(stream):
        if event.kind == "data":
            waiting += event.value
        elif event.kind == "control":
            applied += waiting
            waiting = []
    return applied


def offset_of(stream: bytes, before: str) -> str:
    """Where a client that lost this stream goes on."""
    controls = [event.value["streamNextOffset"] for event in events_of(stream) if event.kind == "control"]
    return controls[-1] if controls else before


# --- the world ------------------------------------------------------------------------------------------------------


class World:
    """A store, Apps over it that only serve, and processes that run the agents."""

    def __init__(self, simulation: Simulation, store: Store) -> None:
        self.simulation = simulation
        self.store = store
        self.clock = simulation.clock
        self._owners: dict[str, Process] = {}
        self._open: list[App] = []

    async def app(self, *agents: Agent[Any], **options: Any) -> App:
        """An open App of a process that runs nothing itself."""
        options = {"store": self.store, "clock": self.clock, "ids": self.simulation.ids, "serve": False} | options
        app = App(agents=list(agents), **options)
        assert app.http is not None
        await app.__aenter__()
        self._open.append(app)
        return app

    def work(self, *agents: Agent[Any], name: str = "worker") -> Process:
        """A process that runs these agents until it is killed."""

        async def main(process: Process) -> None:
            services = Services(resolve=lambda model: model)  # type: ignore[arg-type, return-value]
            applications = [AgentApplication(agent, services, "") for agent in agents]
            owners, threads = KnownDead(process, self._owners), Threads(inline=True)
            async with Worker(self.store, applications, clock=process.clock, ids=process.ids, owners=owners, threads=threads):
                await asyncio.Event().wait()

        return self.simulation.process(name, main)

    async def close(self) -> None:
        for app in self._open:
            await app.__aexit__(None, None, None)
        await self.store.close()


def in_world(main: Callable[[World], Awaitable[None]], *, seed: int = 0) -> None:
    """Run `main` in virtual time, over a store in memory."""

    async def run(simulation: Simulation) -> None:
        store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
        await store.open()
        world = World(simulation, store)
        await main(world)
        for process in simulation.processes:
            process.kill()
        await world.close()

    simulate(run, seed=seed, faults=False)
