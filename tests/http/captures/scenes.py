"""The agent of the recordings, written with ours: the same words, calls, failures and pauses for the same messages."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cairn import Agent, Context, Turn, tool
from cairn.errors import ModelError
from cairn.harness.hooks import Received
from cairn.harness.messages import Text, ToolMessage, UserMessage
from cairn.harness.models.protocol import ModelRequest
from cairn.testing.scripted import Call, Fail, Reply, Say, ScriptedModel, already_said

PLAIN = "Hello! This is a plain reply."
JOINING = "also hello"


def say(text: str, thinking: str = "") -> Say:
    return Say(text, chunk=8, pause=0.03, thinking=thinking)


LOOK: Reply = [say("Let me check."), Call("get_weather", {"city": "Oslo"}, id="call_w1")]

#: What the model does when a message contains the word, in this order.
REPLIES: dict[str, Reply] = {
    "weather": LOOK,
    "multi": [Call("get_weather", {"city": "Oslo"}, id="call_m1"), Call("get_weather", {"city": "Rome"}, id="call_m2")],
    "toolerr": Call("explode", id="call_e1"),
    "badargs": Call("get_weather", {"town": 5}, id="call_b1"),
    "nosuchtool": Call("nosuchtool", id="call_n1"),
    "think": say("The answer is 42.", thinking="Hmm, let me think."),
    "datapart": Call("progress", id="call_d1"),
    "unlock": Call("unlock", id="call_u1"),
    "boom400": Fail(ModelError("fake bad request", kind="invalid_request", status=400)),
    "boom401": Fail(ModelError("fake unauthorized", kind="auth", status=401)),
    "boom500": Fail(ModelError("fake server error", kind="server", status=500)),
    "flaky429": Fail(ModelError("fake rate limit", kind="rate_limit", status=429)),
    "cutoff": Fail(ModelError("the connection was closed", kind="network"), after="Partial "),
    "slowtool": Call("slow_tool", id="call_s1"),
    "slow": Say("Slow text. " * 400, chunk=8, pause=0.05),
}

#: What it does instead once it has done that so often.
LATER: dict[str, tuple[int, Reply]] = {
    "flaky429": (2, say("Recovered after rate limits.")),
    "cutoff": (1, say("Continued fine.")),
}


@dataclass
class Unlocked:
    yes: bool = False


@dataclass
class Scene:
    """One life of the recorded agent, with what happened in it."""

    asked: Counter[str] = field(default_factory=Counter)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    """A tool that takes its time has begun."""

    def script(self, request: ModelRequest) -> Reply:
        last = request.messages[-1]
        if isinstance(last, ToolMessage) or _is_note(request):
            return self._after(request)
        return self._to(_text(last))

    def _to(self, text: str) -> Reply:
        word = next((word for word in REPLIES if word in text), None)
        if word is None:
            return say(PLAIN)
        self.asked[word] += 1
        times, later = LATER.get(word, (1 << 30, ""))
        return REPLIES[word] if self.asked[word] <= times else later

    def _after(self, request: ModelRequest) -> Reply:
        """To the results of tools, or to having been interrupted."""
        if already_said(request.messages):
            cut = next((word for word in ("cutoff", "slow") if word in _person(request)), "")
            return self._to("cutoff") if cut == "cutoff" else say(PLAIN)
        results = _results(request)
        if results == ["unlocked"]:
            return LOOK
        return say("Tool said: " + " | ".join(results))


def _text(message: Any) -> str:
    return "\n".join(block.text for block in message.content if isinstance(block, Text))


def _is_note(request: ModelRequest) -> bool:
    return _text(request.messages[-1]).startswith("<note ")


def _person(request: ModelRequest) -> str:
    texts = [_text(message) for message in request.messages if isinstance(message, UserMessage)]
    return next(text for text in reversed(texts) if not text.startswith("<note "))


def _results(request: ModelRequest) -> list[str]:
    found: list[str] = []
    for message in reversed(request.messages):
        if isinstance(message, ToolMessage):
            found.insert(0, _text(message))
        elif not (isinstance(message, UserMessage) and _text(message).startswith("<note ")):
            break
    return found


def assistant(scene: Scene) -> Agent[Unlocked]:
    """The agent, for one process; its model is scripted by the scene."""
    agent = Agent("assistant", model=ScriptedModel(scene.script), state=Unlocked)
    for define in (_tools, _slow_tools, _hooks):
        define(agent, scene)
    return agent


def _tools(agent: Agent[Unlocked], scene: Scene) -> None:
    @agent.tool
    async def get_weather(ctx: Context[Unlocked], city: str) -> dict[str, Any]:
        """Look outside."""
        await asyncio.sleep(0.1 if city == "Oslo" else 0.2)
        return {"city": city, "tempC": 7}

    @agent.tool
    async def explode(ctx: Context[Unlocked]) -> str:
        """Explode."""
        raise RuntimeError("kaboom")

    @agent.tool
    async def unlock(ctx: Context[Unlocked]) -> str:
        """Unlock."""
        ctx.state.yes = True
        return "unlocked"

    @tool
    async def secret_tool() -> str:
        """Secret."""
        return "hush"

    @agent.prepare
    def prepare(turn: Turn[Unlocked]) -> None:
        if turn.state.yes:
            turn.use(secret_tool)


def _slow_tools(agent: Agent[Unlocked], scene: Scene) -> None:
    @agent.tool
    async def progress(ctx: Context[Unlocked]) -> str:
        """Show how far it is."""
        ctx.show("progress", {"pct": 10})
        scene.running.set()
        await asyncio.sleep(1)
        ctx.show("progress", {"pct": 100})
        await asyncio.sleep(1)
        return "progress complete"

    @agent.tool
    async def slow_tool(ctx: Context[Unlocked]) -> str:
        """Take an hour."""
        scene.running.set()
        await asyncio.sleep(3600)
        return "too late"


def _hooks(agent: Agent[Unlocked], scene: Scene) -> None:
    @agent.on_message
    async def began(ctx: Context[Unlocked], event: Received) -> None:
        if event.text != JOINING:  # the recorded agent's hook runs once an answer, ours once a message
            ctx.describe(startedBy="hook", nested={"a": 1})

    @agent.on_stop
    async def finished(ctx: Context[Unlocked]) -> None:
        ctx.describe(nested={"b": 2}, tokens=27)
