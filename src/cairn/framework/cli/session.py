"""One conversation that is talked in: where it is, what was said, and a message with everything that follows from it.

Laws. Everything goes through the client, whether the server is far away, beside us or inside of this process: there is one way
to talk. Each message carries a key, so that a lost answer costs nothing and nothing is said twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cairn.client import Chunk, Client, Conversation, History, inside
from cairn.client.chunks import BEGINNING
from cairn.client.following import settlement_in
from cairn.clock import Clock
from cairn.errors import NotFound, UsageError
from cairn.framework.cli.dialogue import Dialogue
from cairn.harness.agent import Agent
from cairn.ids import Ids

#: How the ids begin of conversations that `cairn chat` starts.
PREFIX = "chat"
#: Seconds a person waits for a server that does not answer: a restart takes one, a wrong address is to be told soon.
PATIENCE_SECONDS = 8.0
#: Where an application of this process is, for the client; nothing listens there.
INSIDE = "http://localhost"


@dataclass(frozen=True, slots=True)
class Where:
    """A server, and how it is said to people; or agents to run here, in a store."""

    url: str = INSIDE
    name: str = "in this process"
    token: str | None = None
    agents: tuple[Agent[Any], ...] = ()
    store: Path | None = None


@asynccontextmanager
async def connected(where: Where) -> AsyncGenerator[Client, None]:
    """A client of the server; of an App that runs in this process, if there is none."""
    async with AsyncExitStack() as stack:
        transport = None
        if where.store is not None:
            from cairn.framework.app import App

            app = App(where.agents, store=where.store)
            app.develop()
            transport = inside(await stack.enter_async_context(app))
        yield await stack.enter_async_context(
            Client(where.url, token=where.token, transport=transport, patience_seconds=PATIENCE_SECONDS)
        )


class Session:
    """Talks in one conversation and shows it."""

    def __init__(self, client: Client, agent: str, id: str | None, dialogue: Dialogue, clock: Clock, ids: Ids) -> None:
        self._client = client
        self._agent = agent
        self._dialogue = dialogue
        self._clock = clock
        self._ids = ids
        self._where = ""
        self._after = BEGINNING
        self._conversation = self._named(id)
        self.is_talking = False

    @property
    def id(self) -> str:
        return self._conversation.id

    def _named(self, id: str | None) -> Conversation:
        return self._client.conversation(self._agent, id or self._ids.new(PREFIX))

    async def open(self, where: str) -> None:
        """The conversation is shown as it is; what is unanswered in it is followed to its end."""
        self._where = where
        self._dialogue.opened(self._agent, self.id, where)
        history = await self._history()
        if history is None:
            return
        self._dialogue.recent(history)
        await self._catch_up(history)

    async def begin(self, id: str | None) -> None:
        """Another conversation from here on."""
        self._conversation, self._after = self._named(id), BEGINNING
        await self.open(self._where)

    async def _catch_up(self, history: History) -> None:
        self._after = history.offset
        settled = {each.submission_id for each in history.settlements}
        waiting = [each.submission_id for each in history.messages if each.purpose in ("user", "dispatch")]
        for submission in waiting:
            if submission is not None and submission not in settled:
                await self._follow(submission)

    async def _history(self) -> History | None:
        try:
            return await self._conversation.history()
        except NotFound:
            return None

    async def say(self, text: str) -> str:
        """The message is sent, and shown is everything until it has its outcome, which is returned."""
        key = self._ids.new("key")
        receipt = await self._conversation.send(text, key=key)
        if self._after == BEGINNING and not receipt.deduplicated:
            self._after = receipt.offset
        return await self._follow(receipt.submission)

    async def _follow(self, submission: str) -> str:
        began = self._clock.monotonic()
        self.is_talking = True
        self._dialogue.began(submission)
        try:
            async with aclosing(self._conversation.follow(self._after)) as chunks:
                async for chunk in chunks:
                    self._after = chunk.offset
                    self._dialogue.chunk(chunk)
                    settled = settlement_in(chunk, submission)
                    if settled is not None:
                        return await self._ended(settled, submission, self._clock.monotonic() - began)
        finally:
            self.is_talking = False
        raise AssertionError("following has no end")

    async def _ended(self, settled: Chunk, submission: str, seconds: float) -> str:
        outcome = str(settled["outcome"])
        answer = (await self._conversation.history()).reply(submission).text if outcome == "completed" else ""
        self._dialogue.ended(settled, answer, seconds)
        return outcome

    async def abort(self) -> bool:
        """Whatever is unsettled in the conversation is asked to stop."""
        return await self._conversation.abort()

    async def show_history(self) -> None:
        """All of it."""
        history = await self._history()
        if history is None:
            self._dialogue.note("nothing has been said yet")
        else:
            self._dialogue.recent(history, everything=True)


async def chosen_agent(client: Client, asked: str) -> str:
    """The agent that is meant: the one that was asked for, or the only one there is. *Raises* UsageError."""
    found = {card.name for card in await client.agents()}
    known = ", ".join(sorted(found)) or "none"
    if asked:
        if asked not in found:
            raise UsageError(f"there is no agent '{asked}' at {client.url}; there are: {known}")
        return asked
    if len(found) != 1:
        raise UsageError(f"say which agent is meant, as in `cairn chat {client.url}/agents/NAME`; there are: {known}")
    return found.pop()
