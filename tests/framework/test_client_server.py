"""`cairn.client` and a real server that is killed and started again under it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.http.serving import serving

from cairn.client import Client
from cairn.errors import Unreachable

#: Seconds for anything that is waited for: a guard against hanging.
PATIENCE_SECONDS = 60

WORDS = " ".join(f"word{number}" for number in range(60)) + "."

AGENT = f"""
from cairn import Agent
from cairn.testing.scripted import Say, ScriptedModel, by_turn

teller = Agent("teller", model=ScriptedModel(by_turn([Say({WORDS!r}, chunk=5, pause=0.02)])))
"""


@pytest.mark.system
def test_a_server_killed_again_and_again_loses_no_word_for_whoever_follows_or_waits(tmp_path: Path) -> None:
    """S1, S3, T17, L2: three kills in the middle of one answer; every word once and in order, and the reply is all of them."""
    (tmp_path / "teller.py").write_text(AGENT)

    async def main() -> None:
        with serving(tmp_path, target="teller.py") as server:
            async with Client(server.url) as client:
                conversation = client.conversation("teller", "c")
                receipt = await conversation.send("Tell me.", key="k")
                waiting = asyncio.ensure_future(receipt.reply())
                words, kills, positions = "", 0, []
                async for chunk in receipt.follow():
                    positions.append(chunk.position)
                    if chunk.type == "message-delta":
                        words += chunk["delta"]
                    if kills < 3 and len(words) > 40 + 60 * kills:
                        kills += 1
                        server.kill()
                        # Also a message is taken by the next life, once, when it has a key.
                        again = asyncio.ensure_future(conversation.send("Tell me.", key="k"))
                        await asyncio.to_thread(server.start)
                        assert (await again).submission == receipt.submission
                assert (kills, words) == (3, WORDS)
                assert positions == sorted(set(positions))
                assert (await asyncio.wait_for(waiting, PATIENCE_SECONDS)).text == WORDS
                server.kill()
                async with Client(server.url, patience_seconds=0) as hasty:
                    with pytest.raises(Unreachable) as caught:
                        await hasty.conversation("teller", "d").send("Lost.")
                assert not caught.value.was_sent

    asyncio.run(main())
