"""Callers for tests of who may do what: a store with tokens in it, in virtual time, and requests that carry credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cairn.framework.http.auth import Authenticate, Authenticator, Grant, Identity
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.origin import OriginRules, headers_of, peer_of
from cairn.framework.http.problems import Problem
from cairn.framework.http.quota import Failures
from cairn.framework.http.tokens import Tokens, create
from cairn.runtime.storage import SqliteStore
from cairn.testing import Simulation, simulate

ALL = tuple(Grant)


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
