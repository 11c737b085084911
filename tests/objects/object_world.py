"""Objects called from every process while the processes are killed, frozen, cut from the store and misdated.

Each worker's process has users of its own: they call accounts, directly or through the log as ownership goes, listen to one of
them over a socket, and plant trees that others fell. What they were told is kept where no crash reaches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tests.simulation.runtime_world import HEALED_SECONDS, SETTINGS, Locks, World, heal, insist, weather

from cairn.errors import CallInterrupted, NotFound, ObjectError, RemoteError, StoreError, UsageError
from cairn.runtime import records as r
from cairn.runtime.connections import Connection
from cairn.runtime.frames import Sent
from cairn.runtime.instance import wake_now
from cairn.runtime.object import DurableObject, ObjectApplication, callable
from cairn.runtime.objects import Objects
from cairn.runtime.request import Request
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Append, Batch
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker
from cairn.testing import History, Process, Simulation, Violation, check
from cairn.testing.history import Log, logs_of

ACCOUNTS = 3
TREES = 4
HEARD = "0"
"""The account whose entries are broadcast."""


@dataclass
class Entries:
    tokens: list[str] = field(default_factory=list)


class Account(DurableObject[Entries]):
    @callable
    async def add(self, token: str, seconds: float) -> int:
        self.state.tokens.append(token)
        self.storage.put(token, len(self.state.tokens))
        self.broadcast(token)
        await self._instance.clock.sleep(seconds)
        return len(self.state.tokens)

    @callable(read_only=True)
    async def read(self) -> list[str]:
        return self.state.tokens


class Tree(DurableObject[Entries]):
    @callable
    async def grow(self, name: str) -> int:
        return int(await self.sub_object(Tree, name).mark(name))

    @callable
    async def mark(self, token: str) -> int:
        self.state.tokens.append(token)
        return len(self.state.tokens)

    @callable
    async def trim(self, name: str) -> None:
        await self.sub_object(Tree, name).destroy()


KINDS = (Account, Tree)


def applications() -> dict[str, ObjectApplication]:
    return {application.kind: application for application in map(ObjectApplication, KINDS)}


@dataclass
class Told:
    """What the world outside was told."""

    answers: dict[str, int] = field(default_factory=dict)
    """By token: what `add` answered."""
    refused: set[str] = field(default_factory=set)
    """Tokens of calls that were told that nothing of them is committed."""
    asked: dict[str, str] = field(default_factory=dict)
    """By token: the account."""
    frames: list[list[str]] = field(default_factory=list)
    """What each socket heard, in order."""
    felled: set[str] = field(default_factory=set)


@dataclass
class ObjectWorld(World):
    told: Told = field(default_factory=Told)

    async def work(self, process: Process) -> None:
        store, known = self.face(process), applications()
        worker = Worker(
            store,
            list(known.values()),
            clock=process.clock,
            ids=process.ids,
            owners=Locks(self, process),
            threads=Threads(inline=True),
            settings=SETTINGS,
        )
        await insist(process, worker.start)
        objects = Objects(store, worker, known, clock=process.clock, ids=process.ids)
        users = [asyncio.create_task(user(self, process, objects)) for user in (adds, adds, aborts, listens, plants)]
        try:
            await worker.join()
        finally:
            for each in users:
                each.cancel()
            await asyncio.gather(*users, return_exceptions=True)


async def adds(world: ObjectWorld, process: Process, objects: Objects) -> None:
    """Adds tokens to accounts for as long as there is weather; says each once, and again only if nothing came of it."""
    dice, told = process.ids, world.told
    while world.simulation.now() < world.storm_seconds:
        await process.clock.sleep(dice.random() * 30)
        account = str(int(dice.random() * ACCOUNTS))
        token = dice.new("tok")
        told.asked[token] = account
        try:
            call = objects.of(Account, account).call("add", token, dice.random() * 4, timeout=300)
            told.answers[token] = await call
        except (CallInterrupted, StoreError) as error:
            if isinstance(error, CallInterrupted):
                told.refused.add(token)
        except (TimeoutError, ObjectError):
            continue  # it may have happened, and may not


async def aborts(world: ObjectWorld, process: Process, objects: Objects) -> None:
    """Aborts whatever an account is at, at the worst moments there are: a call is cut, or has settled before."""
    while world.simulation.now() < world.storm_seconds:
        await process.clock.sleep(process.ids.random() * 120)
        row = await objects.store.find(objects.address("account", str(int(process.ids.random() * ACCOUNTS))))
        if row is not None:
            abort = r.AbortRequested(at=process.clock.wall(), reason="the test wants it")
            request = Append(row.n, Batch(r.encode([abort])), due=(wake_now(abort.at),))
            await insist(process, lambda: objects.store.append(request))  # noqa: B023


async def listens(world: ObjectWorld, process: Process, objects: Objects) -> None:
    """One socket after the other, for the same client."""
    dice = process.ids
    while True:
        await process.clock.sleep(dice.random() * 20)
        try:
            connection = Connection(f"client of {process.name}")
            attached = await objects.connect("account", HEARD, connection, Request())
        except (ObjectError, RemoteError, StoreError, TimeoutError):
            continue
        heard: list[str] = []
        world.told.frames.append(heard)
        async for frame in attached.frames():
            if isinstance(frame, Sent):
                heard.append(str(frame.data))


async def plants(world: ObjectWorld, process: Process, objects: Objects) -> None:
    """Trees grow branches and lose some; now and then one is felled, and is never spoken to again."""
    dice, told = process.ids, world.told
    while world.simulation.now() < world.storm_seconds:
        await process.clock.sleep(dice.random() * 40)
        id = str(int(dice.random() * TREES))
        root = objects.of(Tree, id)
        try:
            if dice.random() < 0.1 and process.name == "w0":
                felled = f"felled {dice.new('tree')}"
                await objects.of(Tree, felled).grow("leaf")
                await objects.destroy("tree", felled)
                told.felled.add(felled)
            elif dice.random() < 0.5:
                await root.call("grow", f"{int(dice.random() * 3)}", timeout=200)
            elif dice.random() < 0.5:
                await root.call("trim", f"{int(dice.random() * 3)}", timeout=200)
            else:
                await objects.destroy("tree", id)
        except (ObjectError, NotFound, RemoteError, StoreError, TimeoutError, UsageError):
            continue


@dataclass
class Outcome:
    violations: list[Violation]
    told: Told
    tokens: dict[str, list[str]]
    """What each account has in the end."""
    broadcast: list[str]
    logs: list[Log]
    unsettled: list[str]
    subs: set[str]
    """Ids of sub-objects that their parents know of."""
    destroyed: list[str]
    """Instances that are to be destroyed and still there."""
    workers: int = 0


async def run_objects(simulation: Simulation, *, jumps: bool, storm_seconds: float) -> Outcome:
    """The storm, then ten healed minutes."""
    store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
    await store.open()
    world = ObjectWorld(simulation, store, History(simulation.note), storm_seconds)
    for number in range(simulation.random.randint(3, 5)):
        world.start_worker(f"w{number}")
    await weather(world, jumps=jumps)
    heal(world)
    await simulation.clock.sleep(HEALED_SECONDS)
    logs = await logs_of(store)
    assert await store.check() == []
    # The checker knows no deletions: it judges what nobody destroys.
    violations = [each for each in check(world.history, logs) if each.where.startswith("account")]
    outcome = judged(world.told, logs, violations)
    await store.close()
    return outcome


def judged(told: Told, logs: Sequence[Log], violations: list[Violation]) -> Outcome:
    """The end of all objects, by a fold of the test's own."""
    from cairn.runtime.state import RuntimeState
    from cairn.runtime.sub_objects import sub_id

    tokens: dict[str, list[str]] = {}
    broadcast: list[str] = []
    unsettled: list[str] = []
    subs: set[str] = set()
    destroyed: list[str] = []
    decode = r.decoder().decode
    for log in logs:
        state, address = RuntimeState(), log.instance.address
        for row in log.rows:
            for record in decode(row.batch.records):
                state.apply(record, row.ordinal)
                if address.kind == "account" and isinstance(record, r.StateChanged):
                    tokens[address.id] = msgspec.json.decode(record.changes["tokens"])
                if address.kind == "account" and address.id == HEARD and isinstance(record, r.ObjectSent):
                    broadcast.append(str(record.text))
        unsettled += [f"{address} {fiber.method}" for fiber in state.unsettled()]
        subs |= {sub_id(address.kind, address.id, sub.name) for sub in state.subs.values()}
        if state.destroy:
            destroyed.append(str(address))
    return Outcome(violations, told, tokens, broadcast, list(logs), unsettled, subs, destroyed)


def contiguous(part: list[Any], whole: list[Any]) -> bool:
    """Whether `part` stands in `whole` without a gap."""
    return not part or any(whole[at : at + len(part)] == part for at, each in enumerate(whole) if each == part[0])
