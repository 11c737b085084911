"""T17, T9: readers of a real server that is killed under them, again and again, and comes back on its port."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx
import pytest
from tests.http.calling import chunks_of, offset_of
from tests.http.following import MODES, same
from tests.http.reducer import Client
from tests.http.serving import PATIENCE_SECONDS, Server, serving

from cairn.testing import seeds

KILLS = 4
PATH = "/agents/talker/c"
AGENTS = """
from cairn import Agent
from cairn.testing.scripted import Call, Say, ScriptedModel, by_turn

def turns():
    for number in range(12):
        yield [Say(f"Step {number}: " + "words " * 12, chunk=6, pause=0.02), Call("look", {"at": number})]
    yield "That is all."

talker = Agent("talker", model=ScriptedModel(by_turn(list(turns()))))

@talker.tool(repeat="safe")
def look(at: int) -> dict:
    "Look."
    return {"at": at}
"""


class Following:
    """One reader, through all lives of the server."""

    def __init__(self, server: Server, mode: str) -> None:
        self.server = server
        self.mode = mode
        self.client = Client()
        self.offset = "-1"
        self.lost = 0

    async def run(self) -> Client:
        async with httpx.AsyncClient(timeout=httpx.Timeout(5, read=40)) as http:
            while not self.client.settlements:
                try:
                    await self._once(http)
                except httpx.TransportError:
                    self.lost += 1
                    await asyncio.sleep(0.02)
        return self.client

    async def _once(self, http: httpx.AsyncClient) -> None:
        live = "" if self.mode == "plain" else f"&live={self.mode}"
        url = f"{self.server.url}{PATH}?view=updates&offset={self.offset}{live}"
        if self.mode == "sse":
            await self._stream(http, url)
            return
        answer = await http.get(url)
        if answer.status_code == 200:
            self.client.feed(answer.json())
            self.offset = answer.headers["stream-next-offset"]

    async def _stream(self, http: httpx.AsyncClient, url: str) -> None:
        seen = bytearray()
        try:
            async with http.stream("GET", url) as answer:
                async for data in answer.aiter_raw():
                    seen += data
                    if b"submission-settled" in data:
                        return
        finally:
            self.client.feed(chunks_of(bytes(seen)))
            self.offset = offset_of(bytes(seen), self.offset)


@pytest.mark.system
def test_readers_of_a_server_that_is_killed_again_and_again_end_with_its_conversation(tmp_path: Path) -> None:
    """T17, T9, S3, S10: no word is lost or doubled for anybody, whenever it died."""
    (tmp_path / "agents.py").write_text(AGENTS)
    (seed,) = seeds(1)
    dice = random.Random(seed)

    async def kill(server: Server) -> None:
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0.2, 0.8))
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

    async def main(server: Server) -> None:
        following = [Following(server, mode) for mode in MODES for _ in range(2)]
        clients, _ = await asyncio.gather(asyncio.gather(*(each.run() for each in following)), kill(server))
        async with httpx.AsyncClient() as http:
            state = (await http.get(server.url + PATH)).json()
        assert all(same(client, state) for client in clients), f"repeat with CAIRN_TEST_SEED={seed}"
        assert sum(each.lost for each in following) >= KILLS
        words = "".join(part.get("text", "") for message in state["messages"] for part in message["parts"])
        assert [words.count(f"Step {number}: ") for number in range(12)] == [1] * 12

    with serving(tmp_path, "agents.py", options=("--log", "none")) as server:
        assert httpx.post(server.url + PATH, json={"kind": "user", "body": "Go."}).status_code == 202
        asyncio.run(asyncio.wait_for(main(server), PATIENCE_SECONDS))
