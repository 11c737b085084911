"""The deadline between two events of a stream holds from the first event on, whatever kind of event that is."""

from __future__ import annotations

from typing import Any

from cairn import Agent, Limits
from cairn.harness.handle import ConversationHandle
from cairn.testing.play import play, settled
from cairn.testing.scripted import Meanwhile, ScriptedModel, Stall
from cairn.testing.world import Provider, World


def agent(world: World) -> Agent[Any]:
    """A provider that gives a sign of life and then nothing."""
    model = ScriptedModel([[Meanwhile(lambda: None), Stall()]])
    limits = Limits(first_event_seconds=100.0, idle_seconds=3.0, model_retries=0)
    return Agent("toy", model=Provider(world, model), limits=limits)


async def client(conversation: ConversationHandle, world: World) -> None:
    await settled(await conversation.send("hello", key="1"))


def test_a_stream_that_stalls_after_a_sign_of_life_meets_the_idle_deadline_and_not_the_first_one() -> None:
    """L3, F2: the wait was begun with the other, longer deadline; the first event shortens it."""
    records = play(agent, client).records

    (failed,) = [record for record in records if record["type"] == "turn.failed"]
    (started,) = [record for record in records if record["type"] == "turn.started"]
    assert failed["error"]["message"] == "the provider sent nothing for 3 s"
    assert failed["at"] - started["at"] < 4.0
