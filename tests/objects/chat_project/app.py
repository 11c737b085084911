"""The agent that the tabs of a real browser talk to: what it says depends on the last message, so that another process can go
on with it. `gates/NAME` is how a test lets a tool go on."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

from cairn import Agent, App, Context, Limits, ModelError
from cairn.harness.messages import Text, UserMessage
from cairn.harness.models.protocol import ModelRequest
from cairn.testing.scripted import Call, Fail, Reply, Say, ScriptedModel, Stall, already_said

#: What the long scenes say. Tests make the same.
LONG = " ".join(f"wörd{number} 🌿" for number in range(60))
_POLL_SECONDS = 0.02
_counter = itertools.count(1)


def scene(request: ModelRequest) -> Reply:
    words = [said for said in map(_words, request.messages) if not said.startswith("<note ")]
    spoken = [said for message, said in zip(request.messages, map(_words, request.messages), strict=True)
              if isinstance(message, UserMessage) and not said.startswith("<note ")]  # fmt: skip
    is_asked = isinstance(request.messages[-1], UserMessage) and not words[-1].startswith("<note ")
    match spoken[-1].split():
        case ["at", "length"]:
            return Say(LONG[len(already_said(request.messages)) :], chunk=3, pause=0.005)
        case ["until", "killed"]:
            said = already_said(request.messages)
            return Say(LONG[len(said) :]) if said else [Say(LONG[: len(LONG) // 2], pause=0.005), Stall()]
        case ["think"]:
            return Say("Forty-two.", thinking="What is six times seven?")
        case ["for", "ever"]:
            return Stall(after="Let me think")
        case ["fail"]:
            return Fail(ModelError("the model refuses this", kind="invalid", status=400), after="I was about to")
        case ["count"]:
            return Say(f"Number {next(_counter)}.")
        case ["hold"] if is_asked:
            return [Say("One moment. "), Call("hold", {"gate": "hold"})]
        case ["remove", file] if is_asked:
            return [Say("Shall I? "), Call("remove", {"file": file})]
        case ["where"] if is_asked:
            return [Call("where", {"precise": True})]
        case ["hold" | "where"] | ["remove", _]:
            return Say(f"Done: {words[-1]}")
    return Say("Hello to you.")


def _words(message: Any) -> str:
    return "".join(block.text for block in message.content if isinstance(block, Text))


def _note(effect: str) -> None:
    with Path("effects").open("a") as effects:
        effects.write(f"{effect}\n")


clerk = Agent("clerk", model=ScriptedModel(scene), limits=Limits(model_retries=0))


@clerk.tool(repeat="safe")
async def hold(ctx: Context, gate: str) -> str:
    """Returns when it may."""
    ctx.show("map", {"zoom": 2})
    file = Path("gates") / gate
    while not file.exists():  # noqa: ASYNC110 - it is another process that opens the gate
        await asyncio.sleep(_POLL_SECONDS)
    return "let through"


@clerk.tool(approval=True)
async def remove(file: str) -> str:
    """Removes a file."""
    _note(f"removed {file}")
    return f"removed {file}"


app = App(agents=[clerk])
