"""What a contract case is, what it is given, and the few moves that all cases share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from cairn.clock import SystemClock
from cairn.errors import CairnError
from cairn.runtime.storage.store import (
    Address,
    Admission,
    Admitted,
    Append,
    Appended,
    Batch,
    Creation,
    Durability,
    Row,
    Store,
    WorkerRow,
)

#: No case waits for anything near this long; one that does hangs.
CASE_SECONDS_MAX = 20.0

#: Long enough that a wake-up by another process's commit has come, by polling or by a hint.
SOON = 5.0

#: A wait that is meant to run out.
BRIEF = 0.05


class SkewedClock(SystemClock):
    """The machine's clocks, which a case may move forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def boottime(self) -> float:
        return super().boottime() + self.ahead


class Subject(Protocol):
    """One empty place for logs, and the store to be tested on it."""

    clock: SkewedClock
    """The clock of every store made here."""
    survives: bool
    """What was written is there when a store is closed and another one opened."""
    shared: bool
    """Two stores may have the place open at once, as two processes would."""

    def store(self, boot: str = "first boot") -> Store:
        """A store on the place, not yet open, that believes to run in this boot of the machine."""
        ...


@dataclass(slots=True)
class Scene:
    """What one case works with: an open store on an empty place, and the way to more of them."""

    subject: Subject
    store: Store
    opened: list[Store] = field(default_factory=list)

    async def another(self, boot: str = "first boot") -> Store:
        """A second store on the same place."""
        store = self.subject.store(boot)
        await store.open()
        self.opened.append(store)
        return store

    async def reopened(self, boot: str = "first boot") -> Store:
        """The first store closed, and a new one opened."""
        await self.store.close()
        return await self.another(boot)


Run = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One sentence about stores."""

    name: str
    run: Run
    survives: bool = False
    shared: bool = False

    def __str__(self) -> str:
        return self.name


def collector() -> tuple[list[Case], Callable[..., Callable[[Run], Run]]]:
    """A list of cases and the decorator that fills it."""
    cases: list[Case] = []

    def case(*, survives: bool = False, shared: bool = False) -> Callable[[Run], Run]:
        def add(run: Run) -> Run:
            cases.append(Case(run.__name__, run, survives, shared))
            return run

        return add

    return cases, case


def run(case: Case, subject: Subject) -> bool:
    """Play the case; False when the subject cannot play it. Raises whatever the case finds."""
    if (case.survives and not subject.survives) or (case.shared and not subject.shared):
        return False
    asyncio.run(_play(case, subject))
    return True


async def _play(case: Case, subject: Subject) -> None:
    store = subject.store()
    scene = Scene(subject, store, [store])
    await store.open()
    try:
        async with asyncio.timeout(CASE_SECONDS_MAX):
            await case.run(scene)
    finally:
        for opened in scene.opened:
            await opened.close()


# --- moves


def address(id: str = "one", kind: str = "toy", tenant: str = "default") -> Address:
    return Address(kind, id, tenant)


def creation(uid: str = "uid-1", records: bytes = b"[0]", at: float = 100.0) -> Creation:
    return Creation(uid, f"incarnation of {uid}", Batch(records), at)


def request(records: bytes = b"[1]", key: str | None = None, digest: bytes = b"body", fiber: str = "f1", **more: Any) -> Append:
    """A request; with a key, an admission."""
    admission = Admission(key, fiber, digest) if key is not None else None
    return Append(0, Batch(records), admission=admission, **more)


def fact(n: int, records: bytes = b"[2]", epoch: int | None = 0, **more: Any) -> Append:
    return Append(n, Batch(records), epoch, **more)


def delta(n: int, records: bytes = b"[3]", epoch: int | None = 0, **more: Any) -> Append:
    return Append(n, Batch(records), epoch, Durability.DELTA, **more)


async def born(store: Store, id: str = "one", **more: Any) -> Admitted:
    """An instance with its creation at ordinal 0 and a request at 1."""
    return await store.admit(address(id, **more), creation(f"uid of {id}"), request())


def worker(id: str = "w1", kinds: tuple[str, ...] = ("toy",)) -> WorkerRow:
    return WorkerRow(id, "host", 4711, kinds, 1.5, 0.0, "boot:1:2")


async def owned(store: Store, n: int, id: str = "w1", expected: int = 0) -> Appended | None:
    """Claimed by a registered worker."""
    await store.register(worker(id), 60.0, lambda: True)
    return await store.claim(n, id, expected_epoch=expected, make=lambda epoch: Batch(b'["claimed %d"]' % epoch))


async def log(store: Store, n: int) -> list[bytes]:
    """The records of every row."""
    return [row.batch.records for row in await store.read(n, -1)]


def ordinals(rows: list[Row]) -> list[int]:
    return [row.ordinal for row in rows]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once it holds. Raises TimeoutError when it does not come to."""
    async with asyncio.timeout(SOON):
        while not await condition():  # noqa: ASYNC110 - it happens in the store's thread, which has no event to offer
            await asyncio.sleep(0.01)


E = TypeVar("E", bound=BaseException)


async def refused(what: Awaitable[object], error: type[E]) -> E:
    """The error that the call raised, which must be of this very type."""
    try:
        result = await what
    except error as raised:
        assert type(raised) is error, f"raised {type(raised).__name__}, not {error.__name__}: {raised}"
        assert not isinstance(raised, CairnError) or str(raised), "an error must say what is wrong"
        return raised
    raise AssertionError(f"returned {result!r}; {error.__name__} was to be raised")


async def names(s: Scene, now: float, *kinds: str) -> list[str]:
    """The names of the alarms that are due."""
    return [d.name for d in await s.store.due(kinds or ("toy",), now)]
