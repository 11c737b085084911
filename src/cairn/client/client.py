"""A server of agents: what it serves, and its conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from cairn.client.connection import Connection, Headers
from cairn.client.conversation import Conversation
from cairn.clock import Clock
from cairn.errors import UsageError
from cairn.ids import Ids

if TYPE_CHECKING:
    import httpx

#: Seconds a request is tried again while the server restarts or is busy, unless the client is told otherwise.
PATIENCE_SECONDS = 30.0


class AgentCard(msgspec.Struct, frozen=True):
    """What a server says of one of its agents."""

    name: str
    url: str
    description: str = ""
    model: str | None = None


class Listed(msgspec.Struct, frozen=True, rename="camel"):
    """A conversation in a list."""

    id: str
    uid: str
    created_at: str
    offset: str
    url: str


class _Agents(msgspec.Struct):
    agents: list[AgentCard]


class _Page(msgspec.Struct):
    conversations: list[Listed]
    next: str | None = None


class Client:
    """The conversations of one server. Use it as `async with Client(…) as client:`, or close it.

    `url` is where the application is mounted. `token` is a bearer token; `headers`, a mapping or a function that is asked
    before each request, are sent besides and win. A request that fails for now is repeated for `patience_seconds`; what waits
    for a reply has no such limit. `transport` is httpx's: one into an application (`httpx.ASGITransport(app)`) needs no server.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        headers: Headers | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        self._connection = Connection(
            url,
            token=token,
            headers=headers,
            transport=transport,
            patience_seconds=patience_seconds,
            clock=clock,
            ids=ids,
        )

    @property
    def url(self) -> str:
        return self._connection.url

    def conversation(self, agent: str, id: str) -> Conversation:
        """A handle; nothing is asked of the server, and the conversation begins with the first message."""
        if not agent or not id:
            raise UsageError("a conversation is named by its agent and its id; neither may be empty")
        return Conversation(self._connection, agent, id)

    async def agents(self) -> list[AgentCard]:
        """The agents this caller may talk to."""
        answer = await self._connection.request("GET", self._connection.address("agents"))
        found: _Agents = answer.json(_Agents)
        return found.agents

    async def conversations(self, agent: str, *, page: int = 100) -> AsyncGenerator[Listed, None]:
        """The agent's conversations, newest first; they are asked for a page at a time."""
        url, query = self._connection.address("agents", agent), {"limit": str(page)}
        while True:
            found: _Page = (await self._connection.request("GET", url, query=query)).json(_Page)
            for each in found.conversations:
                yield each
            if found.next is None:
                return
            query = {"limit": str(page), "cursor": found.next}

    async def info(self) -> dict[str, Any]:
        """What this server is, and who the caller is to it."""
        answer = await self._connection.request("GET", self._connection.address("info"))
        found: dict[str, Any] = answer.json(dict[str, Any])
        return found

    async def close(self) -> None:
        """Its connections are closed. *Idempotent*."""
        await self._connection.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def located(url: str) -> tuple[str, str, str]:
    """The server, the agent and the conversation that a URL names; the last two may be empty. Raises UsageError.

    `…/agents/support/issue-1`, `…/agents/support`, the same under `/chat/` as the page has it, or the server alone.
    """
    parts = urlsplit(url)
    segments = parts.path.rstrip("/").split("/")
    for word in ("agents", "chat"):
        if word in segments[1:]:
            place = segments.index(word, 1)
            rest = [unquote(segment) for segment in segments[place + 1 :]]
            if len(rest) > 2:
                raise UsageError(f"{url!r} goes on behind the conversation; write …/agents/AGENT/ID")
            base = urlunsplit((parts.scheme, parts.netloc, "/".join(segments[:place]), "", ""))
            agent, id = [*rest, "", ""][:2]
            return base, agent, id
    return url, "", ""
