"""What handlers work with: the agents, the store, and what is kept of conversations for readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cairn.errors import NotFound
from cairn.framework.classes import kind_named
from cairn.framework.http import problems
from cairn.framework.http.auth import Authenticator
from cairn.framework.http.chat_transcripts import Transcripts
from cairn.framework.http.frames import Frames
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.presence import Stopping
from cairn.framework.http.quota import Quota
from cairn.framework.http.request import Request
from cairn.framework.http.snapshots import Snapshots
from cairn.framework.http.sockets import Sockets
from cairn.framework.http.titles import Titles
from cairn.harness.agent import Agent
from cairn.harness.handle import ConversationHandle
from cairn.runtime.objects import Objects
from cairn.runtime.storage.store import Address, InstanceRow, Store

if TYPE_CHECKING:
    from cairn.framework.app import App


class Service:
    """One open App, as its HTTP side sees it."""

    def __init__(self, app: App, limits: HttpLimits, authenticator: Authenticator, quota: Quota) -> None:
        self.app = app
        self.limits = limits
        self.authenticator = authenticator
        self.quota = quota
        self.snapshots = Snapshots(app.store, limits)
        self.transcripts = Transcripts(self.snapshots, limits)
        self.titles = Titles(app.store, limits)
        self.frames = Frames(app.store, self.snapshots, limits)
        self.sockets = Sockets()
        self.stopping = Stopping()
        """Set when the server stops: live readers are let go, and come back to the next one."""

    @property
    def store(self) -> Store:
        return self.app.store

    @property
    def agents(self) -> Mapping[str, Agent]:  # type: ignore[type-arg]
        return {agent.name: agent for agent in self.app.agents}

    @property
    def objects(self) -> Objects:
        return self.app.objects

    def object_kind(self, name: str) -> str | None:
        """The kind of objects that a name in a URL means."""
        return kind_named(name, self.app.classes)

    def agent(self, request: Request) -> Agent:  # type: ignore[type-arg]
        """The agent the path names. Raises the 404."""
        found = self.agents.get(request.kind)
        if found is None:
            raise self.no_such_kind(request)
        return found

    def no_such_kind(self, request: Request) -> problems.Problem:
        """The 404 that names what the caller may see."""
        names = [name for name in (*self.agents, *self.app.classes) if request.identity.sees(name)]
        details = f"There is no such agent; there are: {', '.join(sorted(names)) or 'none'}."
        return problems.Problem("route_not_found", 404, "There is nothing here.", details)

    def address(self, request: Request) -> Address:
        """The conversation the path names. Raises the 400 for what cannot be an id."""
        self.agent(request)
        return self.handle(request).address

    def handle(self, request: Request) -> ConversationHandle:
        self.agent(request)
        return self.app.conversation(request.kind, request.conversation, tenant=request.identity.tenant)

    async def row(self, request: Request) -> InstanceRow:
        """The conversation's row. Raises the 404 when nothing was ever sent to it."""
        row = await self.store.find(self.address(request))
        if row is None:
            raise problems.stream_not_found(request.kind, request.conversation)
        return row

    async def gone(self, row: InstanceRow) -> bool:
        """Whether the conversation was deleted since."""
        try:
            return await self.store.instance(row.n) is None
        except NotFound:
            return True
