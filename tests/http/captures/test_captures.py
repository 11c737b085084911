"""The recorded requests, asked of ours: the same statuses, headers and shapes, but for what `shapes.DIFFERENCES` names.

Each recording is replayed in virtual time against an agent written to do what the recorded one did (`scenes.py`). Offsets are
translated: where the recording goes on from an offset it was given, ours goes on from the one it was given there. By default a
request waits until what was sent is settled; `PLANS` says where the recording did not.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import pytest
from tests.http.calling import Answer, Reader, World, ask, events_of, history, in_world, settled
from tests.http.captures import recording, scenes, shapes
from tests.http.captures.recording import Exchange, Traced

REPLAYED = (
    "01", "02", "03", "04", "05", "06", "07", "08", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20", "21", "22",
    "23", "32", "33",
)  # fmt: skip
TRACES = ("31", "34")

#: What of the recorded server is not replayed, and why. These recordings are not kept here.
NOT_REPLAYED = {
    "09": "a task for a sub-agent: there are none yet",
    "10": "a skill: there are none yet",
    "35": "times of a restart, without its exchanges; what is shown after one is in 32",
}

#: Seconds that the recordings of streams in which nothing happens went on.
IDLE_SECONDS = 66.0
#: Seconds after which an instance without work has been let go.
HIBERNATED_SECONDS = 600.0


class Replay:
    """One recording, asked of ours. `pairs` are the recorded answer and ours, request by request."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.pairs: list[tuple[Exchange, Answer]] = []
        self.scene = scenes.Scene()
        self.agent = scenes.assistant(self.scene)
        self.app: Any = None
        self._offsets: dict[str, str] = {}

    async def run(self) -> None:
        self.app = await self.world.app(self.agent)
        self.worker = self.world.work(self.agent)
        plan = PLANS.get(self.name, {})
        for number, exchange in enumerate(recording.exchanges(self.name), 1):
            await plan.get(number, _default)(self, exchange)

    # --- before a request

    async def all_settled(self, exchange: Exchange) -> None:
        await settled(self.app, exchange.path.removesuffix("/abort"))

    async def begun(self, exchange: Exchange) -> None:
        """Some of the answer's text can be read."""
        while True:
            state = await history(self.app, exchange.path)
            if any(part.get("state") == "streaming" for message in state["messages"] for part in message["parts"]):
                return
            await ask(self.app, "GET", f"{exchange.path}?view=updates&live=long-poll&offset={state['offset']}")

    # --- a request

    async def ask(self, exchange: Exchange) -> None:
        target = await self._target(exchange)
        if exchange.is_stream:
            answer = await self._stream(exchange, target)
        else:
            answer = await ask(self.app, exchange.method, target, exchange.body, exchange.headers)
        self.keep(exchange, answer)

    def keep(self, exchange: Exchange, answer: Answer) -> None:
        self.pairs.append((exchange, answer))
        for name, theirs in exchange.answer.headers.items():
            if name == "stream-next-offset":
                self._offsets[theirs] = answer.next

    async def _target(self, exchange: Exchange) -> str:
        found = re.search(r"offset=(\d+_\d+)", exchange.target)
        if found is None:
            return exchange.target
        if found[1] not in self._offsets:  # the recording had asked for the head, and does not show where
            self._offsets[found[1]] = (await history(self.app, exchange.path))["offset"]
        return exchange.target.replace(found[1], self._offsets[found[1]])

    async def _stream(self, exchange: Exchange, target: str) -> Answer:
        """Read it until everything is settled and shown, or for as long as nothing happened in the recording."""
        reader = Reader(self.app, target)
        state = await settled(self.app, exchange.path)
        await reader.until(lambda: f'"streamNextOffset":"{state["offset"]}"' in reader.text)
        if self.name == "15":
            await self.world.clock.sleep(IDLE_SECONDS)
        await reader.leave()
        return reader.answer()


async def _default(replay: Replay, exchange: Exchange) -> None:
    if exchange.method != "POST" and not exchange.is_stream:
        await replay.all_settled(exchange)
    await replay.ask(exchange)


async def _at_once(replay: Replay, exchange: Exchange) -> None:
    await replay.ask(exchange)


async def _after_all(replay: Replay, exchange: Exchange) -> None:
    await replay.all_settled(exchange)
    await replay.ask(exchange)


async def _when_nothing_moves(replay: Replay, exchange: Exchange) -> None:
    """Also not the worker's letting go of an instance that has nothing to do."""
    await replay.all_settled(exchange)
    await replay.world.clock.sleep(HIBERNATED_SECONDS)
    await replay.ask(exchange)


async def _while_speaking(replay: Replay, exchange: Exchange) -> None:
    await replay.begun(exchange)
    await replay.ask(exchange)


async def _while_working(replay: Replay, exchange: Exchange) -> None:
    await replay.scene.running.wait()
    await replay.ask(exchange)


async def _woken(replay: Replay, exchange: Exchange) -> None:
    """Parked at the head; three seconds later somebody sends a message."""
    await replay.all_settled(exchange)
    parked = Reader(replay.app, await replay._target(exchange))
    await replay.world.clock.sleep(3)
    assert not parked.status
    await ask(replay.app, "POST", exchange.path, {"kind": "user", "body": "hello 2"})
    await parked.end()
    replay.keep(exchange, parked.answer())


async def _after_a_crash(replay: Replay, exchange: Exchange) -> None:
    """The process is gone, and what reads the store does not know it yet: the recorded server stood still for 30 s."""
    replay.worker.kill()
    await replay.ask(exchange)
    replay.world.work(replay.agent, name="successor")


Step = Callable[[Replay, Exchange], Awaitable[None]]

#: When a request is not made after all that was sent before is settled, nor as a message or a stream at once.
PLANS: dict[str, dict[int, Step]] = {
    "14": {3: _woken},
    "15": {2: _when_nothing_moves},
    "16": {2: _after_all},
    "17": {2: _while_speaking, 3: _at_once, 8: _at_once, 9: _after_all},
    "18": {2: _while_working, 3: _at_once},
    "22": {2: _while_speaking, 3: _at_once, 4: _at_once},
    "23": {2: _while_working},
    "32": {2: _while_speaking, 3: _after_a_crash},
    "33": {2: _while_working, 3: _after_a_crash},
}


@cache
def replayed(name: str) -> list[tuple[Exchange, Answer]]:
    pairs: list[tuple[Exchange, Answer]] = []

    async def main(world: World) -> None:
        replay = Replay(world, name)
        await asyncio.wait_for(replay.run(), 3_600)
        pairs.extend(replay.pairs)

    in_world(main)
    return pairs


@pytest.mark.parametrize("name", REPLAYED)
def test_a_recorded_scenario_has_the_same_answers_of_ours(name: str) -> None:
    """L5, S1, S7: status, headers, shapes and the order of chunks, request by request."""
    for exchange, answer in replayed(name):
        forms = shapes.form_of(exchange, exchange.answer), shapes.form_of(exchange, answer)
        theirs, ours = shapes.shapes(*forms)
        assert ours == theirs, f"{exchange}\n{json.dumps(theirs, indent=1)}\n{json.dumps(ours, indent=1)}"


def test_nothing_that_may_differ_is_listed_without_need() -> None:
    """A difference that no recording needs could hide one that nobody decided."""
    forms = [
        (shapes.form_of(exchange, exchange.answer), shapes.form_of(exchange, answer))
        for name in REPLAYED
        for exchange, answer in replayed(name)
    ]

    for left_out in shapes.DIFFERENCES:
        rest = tuple(each for each in shapes.DIFFERENCES if each is not left_out)
        assert any(len(set(map(json.dumps, shapes.shapes(*pair, rest)))) == 2 for pair in forms), left_out.name


def test_every_recording_is_replayed_or_has_a_reason() -> None:
    """The list of what is not replayed is the whole of it."""
    kept = {path.name[:2] for path in recording.FOLDER.glob("*.txt")}

    assert kept == {*REPLAYED, *TRACES}
    assert not kept & set(NOT_REPLAYED)


def test_an_idle_stream_shows_signs_of_life_when_the_recorded_one_did() -> None:
    """L5: a control frame at the start and every thirty seconds; a comment between, for proxies."""
    ((_, _), (recorded, answer)) = replayed("15")

    def controls(stream: bytes) -> int:
        return sum(event.kind == "control" for event in events_of(stream))

    assert controls(answer.body) == controls(recorded.answer.body) == 3
    assert [event.kind for event in events_of(answer.body)][1:] == ["control", "heartbeat", "control", "heartbeat", "control"]


# --- what clients were seen to ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRACES)
def test_every_request_that_a_published_client_was_seen_to_make_is_answered_alike(name: str) -> None:
    """L5, S1: in its order, with the status, the type and the headers that decide what a client does next."""
    requests = list(recording.sdk_requests() if name == "31" else recording.react_requests())
    assert len(requests) > 10

    async def main(world: World) -> None:
        replay = Replay(world, name)
        agent = replay.agent
        app = replay.app = await world.app(agent)
        world.work(agent)
        for request in requests:
            await _ask_again(app, request)

    in_world(main)


async def _ask_again(app: Any, request: Traced) -> None:
    path = request.target.partition("?")[0]
    target = re.sub(r"offset=0+_0*[1-9].*?(?=&|$)", "", request.target)
    if target != request.target:
        target = target.rstrip("&") + f"&offset={(await history(app, path))['offset']}"
    body = None if request.body is None else json.dumps(request.body).encode()
    headers = {} if body is None else {"content-type": "application/json"}
    reader = Reader(app, target, method=request.method, body=body, headers=headers)
    await reader.until(lambda: reader.data if request.content_type == "text/event-stream" else reader.ended)
    await reader.leave()
    answer = reader.answer()

    assert (answer.status, answer.headers["content-type"]) == (request.status, request.content_type), request
    if request.has_next is not None:
        assert ("stream-next-offset" in answer.headers) == request.has_next, request
        assert (answer.headers.get("stream-up-to-date") == "true") == request.is_up_to_date, request
