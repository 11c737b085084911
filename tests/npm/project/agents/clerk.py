"""The agents the clients talk to: what they say depends on the last message alone, so another process can go on with it.

A message's first words choose its scene. Files beside the project are how a test and a tool speak to each other: a tool adds
a line to `effects` whenever it acts, and holds until `gates/NAME` is there.
"""

import asyncio
import os
from dataclasses import dataclass, replace
from pathlib import Path

from cairn import Agent, Context, Limits, ModelError
from cairn.harness.messages import Text, UserMessage
from cairn.harness.models.protocol import ModelRequest
from cairn.testing.scripted import Call, Fail, Reply, Say, ScriptedModel, Stall, already_said, by_turn

#: What the long scenes say, whoever asks and however often they are interrupted. Tests make the same.
LONG = " ".join(f"w{number}" for number in range(80))
_POLL_SECONDS = 0.02


def _until_killed(request: ModelRequest) -> Reply:
    """The first half, and then silence for ever: only another life says the rest. Who speaks can be found in `speaker`."""
    Path("speaker").write_text(str(os.getpid()))
    if already_said(request.messages):
        return Say(LONG)
    return [Say(LONG[: len(LONG) // 2], pause=0.01), Stall()]


def _a_little_per_life(request: ModelRequest) -> Reply:
    """Some words more, and then silence: as many lives as it takes."""
    end = len(already_said(request.messages)) + 60
    return Say(LONG) if end >= len(LONG) else [Say(LONG[:end], pause=0.005), Stall()]


SCENES = {
    "hello": [Say("Hello to you.")],
    "slowly": [Say(LONG, pause=0.005)],
    "at length": [Say(LONG, pause=0.02)],
    "until killed": [_until_killed],
    "a little": [_a_little_per_life],
    "for ever": [Stall(after="Let me think")],
    "weather": [[Say("Let me look. "), Call("weather", {"city": "Oslo"})], Say("It is fine.")],
    "two cities": [[Call("weather", {"city": "Oslo"}), Call("weather", {"city": "Bergen"})], Say("Both are fine.")],
    "same id": [Call("weather", {"city": "Oslo"}, id="x"), Call("weather", {"city": "Bergen"}, id="x"), Say("Twice.")],
    "wrong arguments": [Call("weather", {"town": 1}), Say("My mistake.")],
    "unknown tool": [Call("nothing", {}), Say("There is none.")],
    "broken": [Call("broken"), Say("It is broken.")],
    "provider": [Fail(ModelError("the model refuses this", kind="invalid", status=400), after="I was about to")],
    "show": [Call("show"), Say("Seen.")],
    "think": [Say("Forty-two.", thinking="What is six times seven?")],
    "hold": [[Say("One moment. "), Call("hold", {"gate": "hold"})], Say("Held.")],
    "hold the abort": [Call("hold", {"gate": "never"})],
    "also": [Say("And that too.")],
    "pay": [[Say("I am paying. "), Call("pay", {"amount": 3})], Say("About the payment: done.")],
    "how many": [lambda request: Say(f"There are {_attachments(request)}.")],
    "<": [lambda request: Say(f"I was told: {_words(request.messages[0])}")],
}


def scene(request: ModelRequest) -> Reply:
    """The reply to the last message that a person or a signal brought."""
    start = max(place for place, message in enumerate(request.messages) if _is_message(message))
    rest = replace(request, messages=tuple(request.messages[start:]))
    words = _words(rest.messages[0])
    name = max((name for name in SCENES if words.startswith(name)), key=len)
    return by_turn(SCENES[name])(rest)


def _is_message(message: object) -> bool:
    return isinstance(message, UserMessage) and not _words(message).startswith("<note ")


def _words(message: object) -> str:
    return "".join(block.text for block in getattr(message, "content", ()) if isinstance(block, Text))


def _attachments(request: ModelRequest) -> int:
    return sum(not isinstance(block, Text) for block in request.messages[0].content)


clerk = Agent("clerk", model=ScriptedModel(scene), limits=Limits(model_retries=0))


@clerk.tool(repeat="safe")
async def weather(ctx: Context, city: str) -> dict[str, object]:
    """The weather of a city."""
    return {"city": city, "celsius": 7}


@clerk.tool
async def broken() -> str:
    """Always fails."""
    raise ValueError("the printer is on fire")


@clerk.tool
async def show(ctx: Context) -> str:
    """Shows people something."""
    ctx.show("map", {"zoom": 1})
    ctx.describe(tokens=3, nested={"a": 1})
    ctx.progress("half of it")
    ctx.show("map", {"zoom": 2})
    ctx.describe(nested={"b": 2})
    return "shown"


@clerk.tool
async def hold(gate: str) -> str:
    """Returns when it may."""
    file = Path("gates") / gate
    while not file.exists():  # noqa: ASYNC110 - it is another process that opens the gate
        await asyncio.sleep(_POLL_SECONDS)
    return "let through"


@clerk.tool
async def pay(amount: int) -> str:
    """Pays, and then hangs for ever: it has an effect and never an outcome."""
    _note(f"paid {amount}")
    await asyncio.Event().wait()
    return "paid"


def _note(effect: str) -> None:
    with Path("effects").open("a") as effects:
        effects.write(f"{effect}\n")


@dataclass
class Order:
    """What an order desk begins with."""

    customer: str = ""
    items: int = 0


desk = Agent(
    "desk",
    model=ScriptedModel(lambda request: Say(f"{request.system}")),
    state=Order,
    instructions=lambda turn: f"{turn.state.customer} wants {turn.state.items}.",
)
