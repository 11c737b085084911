"""Callers for tests of who may do what: a store with tokens in it, in virtual time; an open App to be asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from cairn import App
from cairn.framework.http.auth import Authenticate, Authenticator, Grant, Identity
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.origin import OriginRules, headers_of, peer_of
from cairn.framework.http.problems import Problem
from cairn.framework.http.quota import Failures
from cairn.framework.http.tokens import Tokens, create
from cairn.runtime.storage import SqliteStore
from cairn.testing import Simulation, simulate

ALL = tuple(Grant)

#: Seconds a request may take. A guard against hanging, not a measurement.
PATIENCE_SECONDS = 20.0


class Door:
    """One server's authentication."""

    def __init__(self, simulation: Simulation, auth: Authenticate | None, store: SqliteStore, limits: HttpLimits) -> None:
        self.clock = simulation.clock
        self.store = store
        self.rules = OriginRules()
        self.authenticator = Authenticator(auth, Failures(limits, simulation.clock), simulation.clock)
        self.now_and_then = simulation.clock.sleep
        bind = getattr(auth, "bind", None)
        if bind is not None:
            bind(store, simulation.clock, limits)

    async def identify(self, *headers: tuple[str, str], client: str = "203.0.113.9", query: str = "") -> Identity:
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": "/agents",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (("host", "localhost"), *headers)],
            "client": (client, 5_000),
        }
        found = headers_of(scope)
        return await self.authenticator.identify(scope, found, peer_of(scope, found, self.rules))

    async def status(self, *headers: tuple[str, str], client: str = "203.0.113.9", query: str = "") -> int:
        """200, or what the caller is refused with."""
        try:
            await self.identify(*headers, client=client, query=query)
        except Problem as problem:
            return problem.status
        return 200

    async def token(self, name: str = "caller", grants: tuple[Grant, ...] = ALL, **more: Any) -> str:
        return await create(self.store, self.clock, name, grants, **more)


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


def at_the_door(main: Callable[[Door], Awaitable[None]], *, auth: Any = Tokens, limits: HttpLimits | None = None) -> None:
    """Run `main` in virtual time. `auth` is made for the run when it is a class."""

    async def run(simulation: Simulation) -> None:
        store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
        await store.open()
        made = auth() if isinstance(auth, type) else auth
        await main(Door(simulation, made, store, limits or HttpLimits()))
        await store.close()

    simulate(run, seed=0, faults=False)


# --- a whole App ----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The type of the error envelope."""
        return str(self.json["error"]["type"])


async def ask(
    app: App, method: str, target: str, body: Any = None, headers: Mapping[str, str] = {}, *, client: str = "127.0.0.1"
) -> Answer:
    """One request from that address, and its whole answer."""
    path, _, query = target.partition("?")
    data = b"" if body is None else json.dumps(body).encode()
    lines = {"host": "localhost", "content-length": str(len(data)), "content-type": "application/json", **headers}
    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in lines.items()],
        "client": (client, 5_000),
        "server": ("localhost", 80),
    }
    answer = Answer()
    arriving = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive() -> Any:
        for message in arriving:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    async with asyncio.timeout(PATIENCE_SECONDS):
        await app(scope, receive, send)
    return answer
