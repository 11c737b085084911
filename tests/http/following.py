"""What tests of readers share: a talkative agent, and a client that reads on from wherever it is until it has seen the end."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.http.calling import Reader, World, ask, chunks_of, history, offset_of, send, settled
from tests.http.reducer import Client

from cairn import Agent, App, Context
from cairn.harness.messages import ToolMessage
from cairn.testing.scripted import Call, Say, ScriptedModel

PATH = "/agents/toy/c"
MODES = ("plain", "long-poll", "sse")

Json = dict[str, Any]


def toy(pause: float = 0.03) -> Agent[None]:
    """Thinks, speaks, calls a tool that shows things, and speaks again."""
    first = [Say("I look. ", chunk=2, pause=pause, thinking="Hm."), Call("look", {"where": "Oslo\n"})]
    last = Say('It is "fine", 7 °C\nand calm.', chunk=4, pause=pause)
    agent = Agent("toy", model=ScriptedModel(lambda request: last if isinstance(request.messages[-1], ToolMessage) else first))

    @agent.tool
    async def look(ctx: Context[None], where: str) -> dict[str, Any]:
        """Look."""
        ctx.show("map", {"where": where})
        ctx.progress("half way")
        await asyncio.sleep(pause * 10)
        ctx.describe(seen=True)
        return {"where": where}

    return agent


def updates(offset: str, mode: str = "plain", path: str = PATH) -> str:
    live = "" if mode == "plain" else f"&live={mode}"
    return f"{path}?view=updates&offset={offset}{live}"


async def follow(app: Any, client: Client, offset: str, mode: str, *, submissions: int) -> str:
    """Read on until so many submissions have settled; returns the offset the client is at."""
    while len(client.settlements) < submissions:
        if mode == "sse":
            stream = await _streamed(app, offset, submissions - len(client.settlements))
            client.feed(chunks_of(stream))
            offset = offset_of(stream, offset)
        else:
            answer = await ask(app, "GET", updates(offset, mode))
            assert answer.status == 200, answer.body
            client.feed(answer.json())
            offset = answer.next
            await asyncio.sleep(0.01 if mode == "plain" else 0)
    return offset


async def _streamed(app: Any, offset: str, settlements: int) -> bytes:
    """What a stream says until so many submissions have settled and there is no more."""
    reader = Reader(app, updates(offset, "sse"))
    await reader.until(lambda: reader.data.count(b"submission-settled") >= settlements)
    await reader.until(lambda: reader.data.endswith(b'"upToDate":true}\n\n'))
    await reader.leave()
    return bytes(reader.data)


def same(client: Client, state: Json) -> bool:
    return client.state == {"messages": state["messages"], "settlements": state["settlements"]} and client.dropped == []


async def spoken(world: World, **options: Any) -> tuple[App, Json]:
    """An App with one settled conversation, and its history; nobody is at work on it any more."""
    agent = toy()
    app = await world.app(agent, **options)
    worker = world.work(agent)
    await send(app, PATH, "first")
    state = await settled(app, PATH)
    worker.kill()
    return app, await history(app, PATH) if state else state
