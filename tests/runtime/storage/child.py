"""A process of its own on a store: `python child.py PATH COMMAND …`. It speaks one line of JSON per event on its output."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.connection import Connection, Parameters, SqliteConnection
from cairn.runtime.storage.store import Address, Append, Batch, Creation, Durability, WorkerRow


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


class StopsInCommit(SqliteConnection):
    """Stops its own process, as a debugger or `docker pause` would, at a commit: with the turn and the lock held."""

    armed = False

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        if sql == "commit" and StopsInCommit.armed:
            StopsInCommit.armed = False
            # To this thread: sent to the process, another one might take it, and this one would be through the commit.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return super().execute(sql, parameters)


def connect(path: str) -> Connection:
    return StopsInCommit(path)


async def register(store: SqliteStore, name: str) -> None:
    await store.register(WorkerRow(name, "host", os.getpid(), ("toy",), 1.0, 0.0), 60.0, lambda: True)


async def admit(store: SqliteStore, id: str) -> int:
    creation = Creation(f"uid of {id}", "incarnation", Batch(b'["born"]'), 1.0)
    return (await store.admit(Address("toy", id), creation, Append(0, Batch(b'["asked"]')))).n


async def write(store: SqliteStore, name: str, seconds: str, mine: str, others: Sequence[str]) -> None:
    """As an owner to `mine` and with requests to all others, until the time is over; says what was confirmed and when."""
    await register(store, name)
    n = await admit(store, mine)
    await store.claim(n, name, expected_epoch=0, make=lambda epoch: Batch(b'["claimed"]'))
    foreign = [await admit(store, other) for other in others]
    say(ready=name)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    clock = SystemClock()
    end = clock.monotonic() + float(seconds)
    done: dict[int, list[int]] = {}
    waits: list[float] = []

    async def keep(target: int, epoch: int | None, durability: Durability) -> None:
        while (began := clock.monotonic()) < end:
            batch = Batch(json.dumps([name, target, len(done.get(target, []))]).encode())
            appended = await store.append(Append(target, batch, epoch, durability))
            done.setdefault(target, []).append(appended.ordinal)
            waits.append(clock.monotonic() - began)

    await asyncio.gather(
        *(keep(n, 1, durability) for durability in (Durability.FACT, Durability.FACT, Durability.DELTA)),
        *(keep(other, None, Durability.FACT) for other in foreign),
    )
    say(done=done, worst=max(waits), count=sum(map(len, done.values())))


async def stop(store: SqliteStore, name: str) -> None:
    """Stop in the middle of a commit; when continued, finish it and say so."""
    await register(store, name)
    n = await admit(store, "shared")
    say(ready=name)
    StopsInCommit.armed = True
    appended = await store.append(Append(n, Batch(b'["by the stopped"]')))
    say(ordinal=appended.ordinal)


async def die(store: SqliteStore, name: str) -> None:
    """Append as fast as possible, saying each confirmed ordinal, until killed."""
    await register(store, name)
    n = await admit(store, "shared")
    say(ready=name)
    while True:
        appended = await store.append(Append(n, Batch(b'["%s"]' % name.encode())))
        say(ordinal=appended.ordinal)


async def main(path: str, command: str, *arguments: str) -> None:
    store = SqliteStore(path, clock=SystemClock(), ids=SystemIds(), connect=connect, ballast=False)
    await store.open()
    if command == "write":
        await write(store, *arguments[:3], others=arguments[3:])
    else:
        await {"stop": stop, "die": die}[command](store, *arguments)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
