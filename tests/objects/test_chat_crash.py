"""A tab that stays while the process that answers dies: in virtual time, at many moments, and on several servers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.http.calling import World, in_world
from tests.objects.chatting import Tab, tab, text_of

from cairn import Agent, Limits
from cairn.harness.models.protocol import ModelRequest
from cairn.testing.scripted import Call, Reply, Say, ScriptedModel, already_said

pytestmark = pytest.mark.slow

LONG = " ".join(f"wörd{number} 🌿" for number in range(40))


def clerk() -> Agent[Any]:
    """Says a long text slowly, in virtual time; with "look" a call first. Wherever it was interrupted it goes on."""

    def say(request: ModelRequest) -> Reply:
        if "look" in str(request.messages[0]) and len(request.messages) == 1:
            return [Say("One moment. "), Call("look", {})]
        return Say(LONG[len(already_said(request.messages)) :], chunk=3, pause=0.05)

    agent = Agent("clerk", model=ScriptedModel(say), limits=Limits(model_retries=0))

    @agent.tool(repeat="safe")
    async def look() -> str:
        """Looks."""
        return "seen"

    return agent


@pytest.mark.parametrize("moment", [1, 2, 30, 200, len(LONG) - 3])
@pytest.mark.parametrize("words", ["speak", "look"])
def test_tabs_of_two_servers_see_the_answer_go_on_when_its_process_dies(words: str, moment: int) -> None:
    """S1, S3, L2: whoever asked, whoever watches, and whoever comes in between: one stream, each letter once, told that it is
    being taken up again and that it has been."""

    async def main(world: World) -> None:
        near, far = await world.app(clerk()), await world.app(clerk())
        worker = world.work(clerk(), name="first")
        async with tab(near, "c") as one, tab(far, "c") as two:
            request = one.ask(words)
            await one.until(lambda: one.chunks(request) and len(one.text(request)) >= moment)
            worker.kill()
            async with tab(far, "c") as late:
                await late.until(lambda: late.line.said("cf_agent_stream_resuming"))
                (offer,) = late.line.said("cf_agent_stream_resuming")
                late.say("stream_resume_ack", id=offer["id"])
                world.work(clerk(), name="second")
                ends = [(one, request), (two, (await two.ends(1))[0]), (late, offer["id"])]
                for each, stream in ends:
                    assert (await each.end(stream))["outcome"] == "completed"
                    assert each.text(stream).endswith(LONG) and each.text(stream).count("wörd7 ") == 1
                    assert each.message(stream) == one.message(request)
                    assert [chunk["type"] for chunk in each.chunks(stream)].count("finish") == 1
                    assert text_of(each.transcript[-1]) == each.text(stream)
                    assert _starts(each, stream) == 1
            told = [frame["recovering"] for frame in one.line.said("cf_agent_chat_recovering")]
            assert told in ([True, False], [])

    in_world(main)


def _starts(each: Tab, stream: str) -> int:
    return sum('"start"' in frame["body"] for frame in each.told(stream))


def test_a_crash_in_the_middle_of_words_is_said() -> None:
    """S1: between the death and the first new word."""

    async def main(world: World) -> None:
        app, worker = await world.app(clerk()), world.work(clerk(), name="first")
        async with tab(app, "c") as one:
            request = one.ask("speak")
            await one.until(lambda: one.chunks(request) and len(one.text(request)) >= 50)
            worker.kill()
            world.work(clerk(), name="second")
            await one.end(request)
            assert [frame["recovering"] for frame in one.line.said("cf_agent_chat_recovering")] == [True, False]
            assert all(frame["id"] == request for frame in one.line.said("cf_agent_chat_recovering"))

    in_world(main)
