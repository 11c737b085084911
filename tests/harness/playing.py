"""One scene: an agent with a scripted model, somebody who talks to it, and everything that came of it, in virtual time.

done = scene([Call("look")], "A tree.", define=tools)
done.lines       the events, one short line each
done.requests    what the model was asked
done.run         the world, the log, the entries
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cairn import Agent, Limits
from cairn.harness import records as h
from cairn.harness.events import Event, EventStream, SubmissionSettled
from cairn.harness.handle import ConversationHandle
from cairn.harness.messages import AssistantMessage, ContextMessage, Text, ToolMessage, UserMessage
from cairn.harness.models.protocol import ModelRequest
from cairn.runtime import records as r
from cairn.testing import Crash, Log
from cairn.testing.play import Client, Run, play, settled
from cairn.testing.scripted import Script, ScriptedModel
from cairn.testing.simulation import CURRENT
from cairn.testing.world import World

Define = Callable[[Agent[Any], World], None]

_decode = r.decoder(h.HARNESS).decode


@dataclass
class Scene:
    agent: Agent[Any]
    model: ScriptedModel
    run: Run

    @property
    def requests(self) -> list[ModelRequest]:
        return self.model.requests

    @property
    def records(self) -> list[r.Record]:
        """Everything in the log, in order."""
        return [record for batch in self.batches for record in batch]

    @property
    def batches(self) -> list[list[r.Record]]:
        return [_decode(row.batch.records) for row in self._log.rows]

    @property
    def _log(self) -> Log:
        (log,) = self.run.logs
        return log

    @property
    def events(self) -> list[Event]:
        """What a follower of the whole log is told."""
        stream = EventStream()
        return [event for row in self._log.rows for event in stream.feed(_decode(row.batch.records), row.ordinal)]

    @property
    def lines(self) -> list[str]:
        return [line(event) for event in self.events]

    @property
    def outcomes(self) -> list[str]:
        """How each submission settled, in that order."""
        return [f"{e.outcome}: {e.text or (e.error.message if e.error else '')}" for e in self.events if _is_end(e)]

    def seconds(self, kind: type[r.Record]) -> list[float]:
        """When the records of a kind were made, in seconds from the first message."""
        began = next(record.at for record in self.records if isinstance(record, r.FiberAccepted))
        return [round(record.at - began, 3) for record in self.records if isinstance(record, kind)]  # type: ignore[attr-defined]

    def of(self, kind: type[Any]) -> list[Any]:
        """The records of a kind."""
        return [record for record in self.records if isinstance(record, kind)]


def _is_end(event: Event) -> bool:
    return isinstance(event, SubmissionSettled)


async def die() -> None:
    """SIGKILL to the program this is called in: not one more line of it runs."""
    simulation = CURRENT.get()
    assert simulation is not None
    simulation.processes[-1].kill()
    await asyncio.sleep(1)


def saying(*messages: str) -> Client:
    """Says these, each after the answer to the one before."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        for number, message in enumerate(messages):
            await settled(await conversation.send(message, key=f"{number}"))

    return client


def scene(
    *replies: Any,
    define: Define | None = None,
    client: Client | None = None,
    limits: Limits = Limits(),
    crashes: Sequence[Crash] = (),
    script: Script | None = None,
    seed: int = 0,
    model: Callable[[ScriptedModel], Any] = lambda model: model,
    **options: Any,
) -> Scene:
    """Play it to its end. Without `client` somebody says "Hello." and waits for the answer."""
    scripted = ScriptedModel(script if script is not None else list(replies))
    made: list[Agent[Any]] = []

    def agent(world: World) -> Agent[Any]:
        made.append(Agent("toy", model=model(scripted), limits=limits, **({"instructions": "Be brief."} | options)))
        if define is not None:
            define(made[0], world)
        return made[0]

    run = play(agent, client or saying("Hello."), crashes, seed=seed)
    assert run.violations() == []
    return Scene(made[0], scripted, run)


def line(event: Event) -> str:
    """The event in a few words: its name, what it is about, how it ended."""
    tag = str(event.__struct_config__.tag)
    about = [getattr(event, name, "") for name in _TELLING.get(tag, ())]
    return " ".join([tag, *(str(value) for value in about if value not in ("", None))])


_TELLING = {
    "submission.accepted": ("text",),
    "message.delta": ("kind", "text"),
    "message.completed": ("stop",),
    "message.interrupted": ("reason",),
    "tool.started": ("name",),
    "tool.progress": ("text",),
    "tool.completed": ("name", "outcome"),
    "state.changed": ("changes",),
    "submission.settled": ("outcome", "text"),
}


def told(messages: Sequence[ContextMessage]) -> list[str]:
    """A request's messages, one short line each."""
    return [_told(message) for message in messages]


def _told(message: ContextMessage) -> str:
    text = "".join(block.text for block in message.content if isinstance(block, Text))
    if isinstance(message, UserMessage):
        return f"user: {text}"
    if isinstance(message, ToolMessage):
        return f"{'error' if message.is_error else 'tool'} {message.name}: {text}"
    assert isinstance(message, AssistantMessage)
    calls = [f"{block.name}()" for block in message.content if hasattr(block, "arguments")]
    return " ".join([f"{'cut off' if message.interrupted else 'assistant'}:", *([text] if text else []), *calls])
