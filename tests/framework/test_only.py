"""An App that runs only some conversations: those are carried on, whatever else is due; the others are left as they are."""

from __future__ import annotations

import asyncio

from cairn import Agent, App
from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.settings import SCAN_ROWS
from cairn.runtime.storage import SqliteStore
from cairn.testing.scripted import Say, ScriptedModel

#: More than one scan looks at.
OTHERS = SCAN_ROWS + 50


def test_what_others_left_is_not_run_and_does_not_stand_in_the_way() -> None:
    """The youngest conversation is answered although more older ones are due than a scan looks at (L1, L7)."""

    async def main() -> None:
        agent = Agent("echo", model=ScriptedModel(lambda request: Say("answered")))
        store = SqliteStore(":memory:", clock=SystemClock(), ids=SystemIds(), inline=True)
        await store.open()
        async with App([agent], store=store, serve=False) as outside:
            for number in range(OTHERS):
                await outside.conversation(agent, f"other-{number}").send("wait")
            receipt = await outside.conversation(agent, "mine").send("go")
            async with App([agent], store=store, only=lambda address: address.id == "mine") as app:
                assert app.worker is not None
                assert (await receipt.reply()).text == "answered"
                await app.worker.idle()
            waiting = [await outside.conversation(agent, f"other-{number}").unsettled() for number in (0, OTHERS - 1)]
            claimed = [row.epoch for row in await store.instances(kind="echo", limit=OTHERS + 1) if row.address.id != "mine"]

        assert [len(fibers) for fibers in waiting] == [1, 1]
        assert set(claimed) == {0}
        await store.close()

    asyncio.run(main())


def test_what_becomes_ours_later_is_run_from_then_on() -> None:
    """Which conversations are meant may be known only after the worker has begun (L1)."""

    async def main() -> None:
        agent = Agent("echo", model=ScriptedModel(lambda request: Say("answered")))
        chosen: set[str] = set()
        async with App([agent], store=":memory:", only=lambda address: address.id in chosen) as app:
            assert app.worker is not None
            receipt = await app.conversation(agent, "mine").send("go")
            await app.worker.idle()
            assert not await asyncio.shield(_is_settled(app, agent))
            chosen.add("mine")
            other = await app.conversation(agent, "mine").send("and this")
            assert (await receipt.reply()).text == (await other.reply()).text == "answered"

    async def _is_settled(app: App, agent: Agent) -> bool:  # type: ignore[type-arg]
        return not await app.conversation(agent, "mine").unsettled()

    asyncio.run(main())
