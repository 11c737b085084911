"""A program that lives in a scripted world until its work is settled, however often it dies on the way.

    def agent(world: World) -> Agent: ...              its tools and its model write into the world
    async def client(conversation, world) -> None: ... sends and waits; it dies with the program and is called again

    run = play(agent, client, crashes=[Crash(7, "after")])
    run.world.effects("pay"), run.records, run.violations()

Laws. Everything is in virtual time and from one seed: retries, stalls and deadlines cost nothing, and life `i` up to its
crash is the same run each time. A life is a simulated process with its own store face, worker and client; a crash kills it
where it stands. A client is idempotent: it sends with keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cairn.clock import Clock
from cairn.errors import FiberFailed
from cairn.harness.agent import Agent
from cairn.harness.application import AgentApplication
from cairn.harness.entries import Entry
from cairn.harness.handle import ConversationHandle, Receipt
from cairn.harness.loop import Services
from cairn.harness.models.protocol import Model
from cairn.ids import Ids
from cairn.runtime.instance import Fold
from cairn.runtime.owners import Owners
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Store, WorkerRow
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker
from cairn.testing.checker import Violation, check
from cairn.testing.faults import Crash, FaultyStore
from cairn.testing.history import History, Log, RecordingStore, logs_of
from cairn.testing.simulation import Process, Simulation, simulate
from cairn.testing.world import Witness, World

#: The id of the conversation a client talks to.
CONVERSATION = "c"

#: Lives of one program before the driver gives up: more than any list of crashes, less than a program that never settles.
LIVES_MAX = 50

#: Steps of one play: twenty times the longest one here. An agent that goes round in circles ends here.
STEPS_MAX = 200_000

AgentOf = Callable[[World], Agent[Any]]
Client = Callable[[ConversationHandle, World], Awaitable[None]]


class KnownDead:
    """The `Owners` of one simulated process: as with a kernel's locks, who was killed is dead, provably and at once.

    `processes` says who runs which worker; all processes of a simulation share it.
    """

    boot = ""

    def __init__(self, process: Process, processes: dict[str, Process]) -> None:
        self._process = process
        self._processes = processes

    def hold(self, worker: str) -> str:
        self._processes[worker] = self._process
        return worker

    def drop(self, worker: str) -> None:
        self._processes.pop(worker, None)

    def is_dead(self, row: WorkerRow) -> bool:
        process = self._processes.get(row.id)
        return process is not None and not process.is_alive

    def forget(self, row: WorkerRow) -> None:
        self._processes.pop(row.id, None)


async def settled(receipt: Receipt) -> str:
    """The reply's text, or why there is none, once the submission has settled."""
    try:
        return (await receipt.reply()).text
    except FiberFailed as error:
        return str(error)


async def live(
    agent: Agent[Any],
    client: Client,
    world: World,
    store: Store,
    *,
    clock: Clock,
    ids: Ids,
    owners: Owners | None = None,
    threads: Threads | None = None,
    directory: str = ".cairn",
) -> None:
    """One life of a program that serves an agent and talks to it: returns when the client has, and all work is settled."""
    services = Services(resolve=_resolve)
    application = AgentApplication(agent, services, directory)
    conversation = ConversationHandle(application, store, clock, ids, Address(agent.name, CONVERSATION))
    async with Worker(store, [application], clock=clock, ids=ids, owners=owners, threads=threads) as worker:
        await client(conversation, world)
        await all_settled(application, store, conversation.address)
        await worker.idle()


async def all_settled(application: AgentApplication, store: Store, address: Address) -> None:
    """Return when every fiber of the instance has its outcome, those that back off included; a worker has to be at it."""
    row = await store.find(address)
    fold = Fold(application, 0 if row is None else row.n, address)
    await fold.load(store)
    while fold.runtime.unsettled():
        await store.changed(fold.n, fold.head)
        await fold.catch_up(store)


def _resolve(model: str | Model) -> Model:
    assert not isinstance(model, str), f"the agent of a played scenario brings its model; '{model}' would need a provider"
    return model


@dataclass
class Run:
    """What happened in a world from the first life to the last."""

    world: World
    history: History
    logs: list[Log]
    entries: list[Entry]
    """The conversation as people see it, folded from the log in the end."""
    writes: list[int] = field(default_factory=list)
    """Durable writes of each life: the crash points it passed."""
    steps: int = 0

    @property
    def lives(self) -> int:
        return len(self.writes)

    @property
    def facts(self) -> int:
        """Synced commits, claims and releases included."""
        return len(self.world.commits("fact"))

    @property
    def deltas(self) -> int:
        """Relaxed commits."""
        return len(self.world.commits("delta"))

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every record of the conversation's log, in order."""
        return [record for log in self.logs for row in log.rows for record in msgspec.json.decode(row.batch.records)]

    def violations(self) -> list[Violation]:
        """What the history and the final log show to be broken."""
        return check(self.history, self.logs)


def play(agent: AgentOf, client: Client, crashes: Sequence[Crash] = (), *, seed: int = 0) -> Run:
    """Let the program live until a life ends by itself; life `i` dies at `crashes[i]`.

    Raises what a life raised, Deadlock and Livelock. `Crash.reached` says whether a life came as far as its crash.
    """
    done = simulate(lambda simulation: _lives(simulation, agent, client, crashes), seed=seed, faults=False, steps_max=STEPS_MAX)
    done.value.steps = done.steps
    return done.value


async def _lives(simulation: Simulation, agent: AgentOf, client: Client, crashes: Sequence[Crash]) -> Run:
    store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
    await store.open()
    world, history, processes = World(), History(simulation.note), dict[str, Process]()
    served, writes = agent(world), list[int]()

    async def one(number: int) -> bool:
        """One life; True when it was its crash that ended it."""
        faces: list[FaultyStore] = []
        world.begin_life()

        async def main(process: Process) -> None:
            crash = crashes[number] if number < len(crashes) else None
            faces.append(FaultyStore.of(process, Witness(store, world), crash=crash, faults=frozenset()))
            face = RecordingStore(faces[0], history, process.name)
            owners, threads = KnownDead(process, processes), Threads(inline=True)
            await live(served, client, world, face, clock=process.clock, ids=process.ids, owners=owners, threads=threads)

        process = simulation.process(f"life-{number}", main)
        await process.wait()
        writes.append(faces[0].writes)
        return process.was_killed

    while await one(len(writes)):
        assert len(writes) < LIVES_MAX, f"{LIVES_MAX} lives were not enough"
    conversation = ConversationHandle(
        AgentApplication(served, Services(resolve=_resolve), ""), store, simulation.clock, simulation.ids,
        Address(served.name, CONVERSATION),
    )  # fmt: skip
    run = Run(world, history, await logs_of(store), await conversation.history(), writes)
    await store.close()
    return run
