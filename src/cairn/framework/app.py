"""Agents, a store, a worker and a server, assembled in one place you can read at a glance.

app = App(agents=[triage])                                  # an ASGI application: `cairn serve`, or `uvicorn app:app`
FastAPI(lifespan=app.lifespan).mount("/ai", app)            # … or part of another one

async with App(agents=[triage]) as app:                     # embedded: scripts, jobs, tests
    conversation = app.conversation(triage, "issue-17307")
    receipt = await conversation.send("Any update?", key="evt-1")
    reply = await receipt.reply()
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cairn.clock import Clock, SystemClock
from cairn.errors import UsageError
from cairn.framework.classes import by_kind
from cairn.framework.config import DEFAULT_STORE, STORE_VARIABLE
from cairn.framework.listeners import Listener, Listeners
from cairn.framework.signing import secret_of
from cairn.harness.agent import Agent
from cairn.harness.application import AgentApplication
from cairn.harness.extras import check_extras
from cairn.harness.handle import ConversationHandle, check_id
from cairn.harness.loop import Services
from cairn.harness.models.protocol import Model
from cairn.harness.schedules import declare
from cairn.ids import Ids, SystemIds
from cairn.runtime.application import Application
from cairn.runtime.client import Client
from cairn.runtime.object import DurableObject, ObjectApplication
from cairn.runtime.objects import Objects
from cairn.runtime.program_pool import Interpreters
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Store
from cairn.runtime.stub import Stub
from cairn.runtime.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from cairn.framework.http.asgi import Http
    from cairn.framework.http.auth import Authenticate
    from cairn.framework.http.limits import HttpLimits
    from cairn.framework.http.responses import Receive, Scope, Send


class App:
    """Agents that can be talked to, and durable objects that can be called, while it is open.

    `store` is a path (`:memory:` for tests), or a Store somebody else opened and will close; by default `CAIRN_STORE`, then
    `.cairn/cairn.db`. `serve=False` only reads and sends: another process runs the agents. A listener is called with each
    event after it is durable; whatever it does cannot change a run. `only` narrows what is run here to some conversations;
    the others can be sent to and read, and wait for a process that runs them.

    Over HTTP: `auth` says who may call (`Tokens()`, a function of your own, `open_to_everyone()`); without it only this
    machine is answered. `cors` are origins whose pages may call from a browser, `hosts` the names this server has beside
    those of this machine, `proxies` the addresses whose forwarded headers are believed. `console=True` serves the chat page.
    `token_in_query=True` lets a WebSocket's token be in its URL, `?token=…`, where logs and histories keep it: only for
    clients that can offer no subprotocol.
    """

    def __init__(
        self,
        agents: Sequence[Agent[Any]] = (),
        *,
        objects: Sequence[type[DurableObject[Any]]] = (),
        store: str | os.PathLike[str] | Store | None = None,
        serve: bool = True,
        only: Callable[[Address], bool] | None = None,
        listeners: Sequence[Listener] = (),
        clock: Clock | None = None,
        ids: Ids | None = None,
        settings: WorkerSettings | None = None,
        auth: Authenticate | None = None,
        cors: Sequence[str] = (),
        hosts: Sequence[str] = (),
        proxies: Sequence[str] | None = None,
        limits: HttpLimits | None = None,
        console: bool = False,
        token_in_query: bool = False,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._ids: Ids = ids or SystemIds()
        self._directory = ".cairn"
        self._given = store
        self._serve = serve
        self._only = only
        self._settings = settings or WorkerSettings()
        self._listeners = Listeners(listeners)
        self._models: dict[str, Model] = {}
        self._interpreters = Interpreters()
        self._secret: bytes | None = None
        self._agents = _by_name(agents)
        self._applications: dict[str, AgentApplication] = {}
        self._classes = by_kind(objects, self._agents)
        self._objects: Objects | None = None
        self._known: dict[str, AgentApplication] = {}
        """Those that were served since it was opened: what still runs of a removed one, or comes back, is the same object."""
        self._is_developed = False
        self._store: Store | None = None
        self._worker: Worker | None = None
        self.auth = auth
        self._origins = (tuple(cors), tuple(hosts), None if proxies is None else tuple(proxies))
        self._limits = limits
        self._console = console
        self.takes_token_in_query = token_in_query
        """Whether a WebSocket's token may be in its URL."""
        self._http: Http | None = None

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def ids(self) -> Ids:
        return self._ids

    @property
    def http(self) -> Http:
        """The HTTP side. Raises UsageError for origins, hosts or proxies that are none."""
        if self._http is None:
            from cairn.framework.http.asgi import Http
            from cairn.framework.http.limits import HttpLimits
            from cairn.framework.http.origin import LOOPBACK_PROXIES, OriginRules

            cors, hosts, proxies = self._origins
            rules = OriginRules(hosts=hosts, origins=cors, proxies=LOOPBACK_PROXIES if proxies is None else proxies)
            self._http = Http(self, self._limits or HttpLimits(), rules, page=self._console)
            if self._store is not None:
                self._http.open()
        return self._http

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request or WebSocket, or the life of the server."""
        if scope["type"] in ("http", "websocket"):
            await self.http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await live(self, receive, send)

    @asynccontextmanager
    async def lifespan(self, host: object = None) -> AsyncIterator[None]:
        """For an application this one is mounted in: `Starlette(lifespan=app.lifespan)`. It is open in between."""
        async with self:
            yield

    @property
    def agents(self) -> tuple[Agent[Any], ...]:
        return tuple(self._agents.values())

    @property
    def classes(self) -> Mapping[str, ObjectApplication]:
        """Its classes of durable objects, by kind."""
        return self._classes

    @property
    def objects(self) -> Objects:
        """The way to its objects, wherever they run. Raises UsageError before `async with`."""
        if self._objects is None:
            raise UsageError("this App is not open; use it as `async with App(…) as app:`")
        return self._objects

    def object(self, cls: type[DurableObject[Any]] | str, id: str, *, tenant: str = "default") -> Stub:
        """The object of that class, or kind, and id, to call: `await app.object(Room, "lobby").join("ann")`."""
        return self.objects.of(cls, id, tenant=tenant)

    @property
    def store(self) -> Store:
        """The open store. Raises UsageError before `async with`."""
        if self._store is None:
            raise UsageError("this App is not open; use it as `async with App(…) as app:`")
        return self._store

    @property
    def worker(self) -> Worker | None:
        """What runs the agents here; None with `serve=False`."""
        return self._worker

    def conversation(self, agent: Agent[Any] | str, id: str, *, tenant: str = "default") -> ConversationHandle:
        """A handle; the conversation itself begins with the first message. Raises UsageError for an unknown agent."""
        name = agent if isinstance(agent, str) else agent.name
        application = self._applications.get(name)
        if application is None:
            store_is_open = self._store is not None
            known = ", ".join(self._agents) or "none"
            raise UsageError(
                f"no agent '{name}' in this App; it has: {known}"
                if store_is_open
                else "open the App first: `async with App(…)`"
            )
        return ConversationHandle(application, self.store, self._clock, self._ids, Address(name, check_id(id), tenant))

    async def __aenter__(self) -> App:
        self._store, directory = self._open_store()
        if not self._is_foreign:
            await self._store.open()
        self._directory = directory
        self._known = {}
        self._applications = {name: self._application(agent) for name, agent in self._agents.items()}
        self._listeners.start()
        if self._serve:
            applications: list[Application] = [*self._applications.values(), *self._classes.values()]
            worker = Worker(
                self._store,
                applications,
                clock=self._clock,
                ids=self._ids,
                settings=self._settings,
                only=self._only,
            )
            try:
                await self._declare()
                await worker.start()
            except BaseException:
                await self._close()
                raise
            self._worker = worker
        everything: dict[str, Application] = {**self._applications, **self._classes}
        self._objects = Objects(self._store, self._worker, everything, clock=self._clock, ids=self._ids)
        if self._http is not None:
            self._http.open()
        return self

    async def _declare(self) -> None:
        """What the agents are told by the clock is scheduled; not by a process that serves only some conversations."""
        for application in self._applications.values():
            if application.agent.schedules and self._only is None:
                await declare(application, Client(self.store, application, clock=self._clock, ids=self._ids))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._http is not None:
                self._http.stop()
                await self._http.left()
            if self._worker is not None:
                self._worker.stop()
                await asyncio.shield(self._worker.join())
            if self._objects is not None:
                await self._objects.close()
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._http is not None:
            self._http.close()
        await self._listeners.stop()
        for model in self._models.values():
            await _let_go(model)
        await self._interpreters.close()
        if not self._is_foreign:
            await self.store.close()
        self._store, self._worker, self._objects = None, None, None

    @property
    def _is_foreign(self) -> bool:
        return self._given is not None and not isinstance(self._given, str | os.PathLike)

    def _open_store(self) -> tuple[Store, str]:
        """The store, and the directory for what sandboxes keep."""
        given = self._given if self._given is not None else os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
        if not isinstance(given, str | os.PathLike):
            return given, ".cairn"
        path = os.fspath(given)
        if path == ":memory:":
            return SqliteStore(path, clock=self._clock, ids=self._ids, inline=True), ".cairn"
        if "://" in path:
            raise UsageError(f"store '{path.split('://')[0]}://…' is not supported by this version; give a path to a file")
        return SqliteStore(path, clock=self._clock, ids=self._ids), str(Path(path).resolve().parent)

    def _resolve(self, model: str | Model) -> Model:
        if not isinstance(model, str):
            return model
        known = self._models.get(model)
        if known is None:
            from cairn.harness.models.resolve import resolve

            known = self._models[model] = resolve(model, clock=self._clock)
        return known

    def _application(self, agent: Agent[Any]) -> AgentApplication:
        """What serves agents of that name."""
        known = self._known.get(agent.name)
        if known is None:
            if agent.codemode is not None and self._secret is None:
                self._secret = secret_of(self._directory, lasts=self._given != ":memory:")
            services = Services(
                resolve=self._resolve,
                committed=self._listeners.committed,
                interpreters=self._interpreters,
                secret=self._secret or b"",
            )
            known = self._known[agent.name] = AgentApplication(agent, services, self._directory)
        return known

    async def replace(self, agents: Sequence[Agent[Any]]) -> None:
        """The App has these agents now, and no others. Conversations, readers and connections stay.

        A live turn ends with the definition it began with; the next one, of the same answer too, has the new one. An agent
        that is new is served at once; one that is gone is no longer found, and what it was at goes on to its end. *Raises*
        UsageError for agents that cannot be together; nothing has changed then.
        """
        found = _by_name(agents)
        by_kind([each.cls for each in self._classes.values()], found)
        if self._store is not None:
            applications = {name: self._application(agent) for name, agent in found.items()}
            if self._worker is not None:
                await self._worker.replace([*applications.values(), *self._classes.values()])
            self._applications = applications
            if self._objects is not None:
                self._objects.applications = {**applications, **self._classes}
            for name, agent in found.items():
                applications[name].agent = agent
            if self._worker is not None:
                await self._declare()
        self._agents = found

    def develop(self) -> None:
        """Before it is opened: this is somebody's workshop. The chat page is there, everybody at this machine may call and
        nobody else, pages of its other ports too; and nothing waits for models to be loaded: what is wrong with one is the
        answer of the first who asks it, and can be mended while all goes on."""
        from cairn.framework.http.origin import LOOPBACK_ORIGINS

        self._is_developed = self._console = True
        self.auth = None
        cors, hosts, proxies = self._origins
        self._origins = ((*cors, *LOOPBACK_ORIGINS), hosts, proxies)

    async def warm(self) -> None:
        """Import and build what the agents' models need, so that the first request does not wait for it. Raises UsageError
        for a missing key or an unknown model, MissingExtra for theirs and what the agents' sandboxes and programs need."""
        for agent in () if self._is_developed else self.agents:
            check_extras(agent)
            if agent.model is not None:
                await self._resolve(agent.model).warm()


async def live(app: App, receive: Receive, send: Send) -> None:
    """The lifespan protocol of ASGI: the App is open from startup to shutdown."""
    await receive()
    try:
        app.http  # noqa: B018 - what is wrong with it is said now
        await app.__aenter__()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    try:
        await app.__aexit__(None, None, None)
    except Exception as error:
        await send({"type": "lifespan.shutdown.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})


async def _let_go(model: Model) -> None:
    """Let go of a model's connections, if it keeps any."""
    close = getattr(model, "aclose", None)
    if close is not None:
        await close()


def _by_name(agents: Sequence[Agent[Any]]) -> dict[str, Agent[Any]]:
    found: dict[str, Agent[Any]] = {}
    for agent in agents:
        if not agent.name:
            raise UsageError(f"{agent!r} has no name; give it one: Agent('support', …)")
        if agent.name in found and found[agent.name] is not agent:
            raise UsageError(f"two agents are named '{agent.name}': {found[agent.name]!r} and {agent!r}")
        found[agent.name] = agent
    return found
