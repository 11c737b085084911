"""T17 in bad weather: readers that come and go while the processes that answer die, people interrupt, and rows are merged.

Method: a conversation with several messages, some aborted; workers that are killed at random moments; readers that follow in a
random mode for a random time, lose their connection, and go on from their last offset, or begin with a history
do. In the end each of them holds the conversation as it is, and none was ever sent anything it could not place.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.http.calling import Reader, World, ask, chunks_of, history, in_world, offset_of, send, settled
from tests.http.following import MODES, PATH, same, toy, updates
from tests.http.reducer import Client

from cairn import App
from cairn.testing import Process, seeds

READERS = 6
MESSAGES = 5
KILLS = 4
STORM_SECONDS = 8.0
#: Virtual seconds in which the rest is answered, the instance let go, and its rows merged.
QUIET_SECONDS = 30.0
#: Seeds in CI; `CAIRN_TEST_SEEDS` runs more.
SEEDS = 20


class Storm:
    """One conversation, and those who read it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.over = False
        self.cuts = 0

    def dice(self, purpose: str) -> random.Random:
        return self.world.simulation.stream(purpose)

    async def run(self) -> None:
        agent = toy()
        apps = [await self.world.app(agent) for _ in range(2)]
        worker = self.world.work(agent)
        await send(apps[0], PATH, "message")
        readers = [asyncio.ensure_future(self.read(apps[number % 2], number)) for number in range(READERS)]
        killer = asyncio.ensure_future(self.kill(worker))
        await self.talk(apps[1])
        await killer
        await settled(apps[0], PATH)
        await self.world.clock.sleep(QUIET_SECONDS)
        self.over = True
        state = await history(apps[0], PATH)
        for client in await asyncio.gather(*readers):
            assert client.dropped == []
            assert same(client, state)

    async def talk(self, app: App) -> None:
        dice = self.dice("sender")
        for number in range(1, MESSAGES):
            await self.world.clock.sleep(dice.random() * 2 * STORM_SECONDS / MESSAGES)
            await send(app, PATH, f"message {number}")
            if dice.random() < 0.3:
                await self.world.clock.sleep(dice.random())
                await ask(app, "POST", f"{PATH}/abort")

    async def kill(self, worker: Process) -> None:
        dice = self.dice("killer")
        for number in range(KILLS):
            await self.world.clock.sleep(dice.random() * 2 * STORM_SECONDS / KILLS)
            worker.kill()
            await self.world.clock.sleep(dice.random())
            worker = self.world.work(toy(), name=f"worker {number}")

    async def read(self, app: App, number: int) -> Client:
        """Follow until it is over, and then to the end."""
        dice, client, offset = self.dice(f"reader {number}"), Client(), "-1"
        is_last = False
        while not is_last:
            is_last = self.over
            if dice.random() < 0.1:
                state = await history(app, PATH)
                resets, dropped = client.resets, client.dropped
                client, offset = Client.seeded(state), state["offset"]
                client.resets, client.dropped = resets, dropped
            mode = "plain" if is_last else dice.choice(MODES)
            reader = Reader(app, updates(offset, mode))
            if mode == "plain":
                await reader.end()
            await self.world.clock.sleep(dice.random() ** 3 * 4)
            await reader.leave()
            self.cuts += 1
            seen = reader.data
            if mode == "sse":
                client.feed(chunks_of(seen))
                offset = offset_of(seen, offset)
            elif seen:
                assert reader.status == 200, seen
                client.feed(reader.answer().json())
                offset = reader.answer().next
            is_last = is_last and "stream-up-to-date" in reader.headers
        return client


def storm(seed: int) -> int:
    cuts: list[int] = []

    async def main(world: World) -> None:
        one = Storm(world)
        await one.run()
        cuts.append(one.cuts)

    in_world(main, seed=seed)
    return cuts[0]


def test_readers_of_a_conversation_whose_owners_die_see_what_it_became() -> None:
    """T17: the sentence of the next test, for a fast look."""
    for seed in seeds(2):
        storm(seed)


@pytest.mark.slow
def test_no_storm_makes_a_reader_see_anything_else_than_the_conversation() -> None:
    """T17, S3, S10, L5: whatever dies and whoever leaves; thousands of connections that were lost."""
    assert sum(map(storm, seeds(SEEDS))) > 4_000 or len(seeds(SEEDS)) < SEEDS
