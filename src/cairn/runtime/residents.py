"""The instances in one worker's memory: activated, run, let go; and what became of those that could not go on.

Laws. An instance enters by a claim and leaves by a release, a fence or a failure. One instance's trouble is its own: it is
logged, backed off, and the others go on (L7). A claim whose answer nobody lived to see leaves an *orphan*: owned by this
worker and run by nobody; the worker's sweep asks the store for those and gives them back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from cairn.clock import Clock
from cairn.errors import Fenced, ObjectError
from cairn.ids import Ids
from cairn.runtime.application import Application
from cairn.runtime.claims import Troubles
from cairn.runtime.instance import WAKE, Instance
from cairn.runtime.ready import next_wake, waits_for_code
from cairn.runtime.runner import Runner
from cairn.runtime.settings import BLOCKED_RECHECK_SECONDS, CANCEL_GRACE_SECONDS
from cairn.runtime.storage.store import Address, DueRow, InstanceRow, Store
from cairn.runtime.threads import Threads

logger = logging.getLogger("cairn.runtime")


#: Seconds between two looks whether an instance that is about to hibernate has, or stays after all because something came.
LEAVING_SECONDS = 0.005


class _Resident:
    """An instance that is being activated or runs."""

    def __init__(self, due: DueRow, wanted: bool) -> None:
        self.due = due
        self.wanted = wanted
        """Somebody calls it: activated even when there is nothing to do by itself."""
        self.ready: asyncio.Future[Runner | None] = asyncio.get_running_loop().create_future()
        """None: it could not be activated here."""
        self.task: asyncio.Task[None] | None = None
        self.runner: Runner | None = None
        self.is_leaving = False


class Residents:
    """Activates and runs instances, each in a task of its own. `on_change` is called when one leaves or has nothing to do."""

    def __init__(
        self,
        store: Store,
        applications: Mapping[str, Application],
        *,
        clock: Clock,
        ids: Ids,
        worker: str,
        threads: Threads,
        idle_seconds: float,
        tidy_seconds: float | None,
        on_change: Callable[[], None],
        objects: Callable[[], Any] | None = None,
    ) -> None:
        self.troubles = Troubles()
        self._store = store
        self._applications = applications
        self._clock = clock
        self._ids = ids
        self._worker = worker
        self._threads = threads
        self._idle_seconds = idle_seconds
        self._tidy_seconds = tidy_seconds
        self._on_change = on_change
        self._objects = objects
        self._by_instance: dict[int, _Resident] = {}
        self._by_address: dict[Address, _Resident] = {}
        self._orphans: set[int] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._by_instance)

    def __contains__(self, n: int) -> bool:
        return n in self._by_instance

    @property
    def running(self) -> list[Address]:
        return [resident.due.address for resident in self._by_instance.values() if resident.runner is not None]

    def per_tenant(self) -> Counter[str]:
        return Counter(resident.due.address.tenant for resident in self._by_instance.values())

    def start(self, due: DueRow, *, wanted: bool = False) -> None:
        """Begin to activate the instance. Whatever comes of it is known to nobody but the log."""
        resident = self._by_instance[due.n] = self._by_address[due.address] = _Resident(due, wanted)
        resident.task = asyncio.create_task(self._serve(resident), name=f"{due.address}")
        resident.task.add_done_callback(lambda _: self._left(due.n))

    async def reach(self, row: InstanceRow, *, room: bool) -> Runner | None:
        """The instance, activated here; None when it cannot be, because somebody else has it by now, or there is no room.
        *Raises* what its activation raised, ObjectError while that is not tried again."""
        if (resident := self._by_instance.get(row.n)) is None:
            due = DueRow(row.n, row.address, WAKE, 0.0, row.epoch, row.owner)
            if (why := self.troubles.why(due, self._clock.monotonic())) is not None:
                raise ObjectError(f"{row.address} cannot be activated; it is tried again within a minute: {why}")
            if not room:
                self.make_room(1)
                return None
            self.start(due, wanted=True)
            resident = self._by_instance[row.n]
        assert resident.task is not None
        runner = await asyncio.shield(resident.ready)
        while runner is not None and runner.instance.handlers.is_leaving:
            await asyncio.wait({resident.task}, timeout=LEAVING_SECONDS)
            if resident.task.done():
                return None
        return runner

    def present(self, address: Address) -> Runner | None:
        """The instance, if it is in memory here and stays there for now."""
        resident = self._by_address.get(address)
        runner = resident.runner if resident is not None else None
        return runner if runner is not None and not runner.instance.handlers.is_leaving and not runner.instance.fenced else None

    def lose(self, workers: frozenset[str]) -> None:
        """Only these workers are known: the connections of all others are over."""
        for resident in self._by_instance.values():
            if resident.runner is not None:
                resident.runner.lose(workers)

    def make_room(self, wanted: int) -> None:
        """Let instances without work hibernate because others wait for their place."""
        for resident in self._by_instance.values():
            if wanted <= 0:
                return
            if resident.runner is not None and resident.runner.is_quiet and not resident.is_leaving:
                resident.is_leaving = True
                resident.runner.stop()
                wanted -= 1

    def stop(self) -> None:
        """Ask all for a clean stop; whoever is still being activated stops as soon as it is."""
        self._stopping = True
        for resident in self._by_instance.values():
            if resident.runner is not None:
                resident.runner.stop()

    async def drain(self, seconds: float) -> None:
        """Everything has been released, or dropped because it took longer than `seconds` (L6)."""
        self.stop()
        tasks = self._tasks()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        if late:
            logger.error("%d instances did not stop within %g s; their work counts as interrupted", len(late), seconds)
            await self._cancel(late, CANCEL_GRACE_SECONDS)

    async def drop(self) -> None:
        """Everything has stopped, without a word to the store: this worker may not be the owner any more."""
        await self._cancel(self._tasks(), None)

    async def return_orphans(self) -> None:
        """Give back what the store says is this worker's and nobody here runs."""
        for n in sorted(self._orphans - self._by_instance.keys()):
            row = await self._store.instance(n)
            if row is not None and row.owner == self._worker and n not in self._by_instance:
                await self._store.release(n, row.epoch, None)
            self._orphans.discard(n)

    async def are_quiet(self) -> bool:
        """Whether none has anything to do, nor anything in its log that it has not seen."""
        for n, resident in list(self._by_instance.items()):
            row = await self._store.instance(n)
            runner = resident.runner
            if row is None or runner is None or not runner.is_quiet or runner.instance.head != row.head:
                return False
        return True

    def _tasks(self) -> set[asyncio.Task[None]]:
        return {resident.task for resident in self._by_instance.values() if resident.task is not None}

    async def _cancel(self, tasks: set[asyncio.Task[None]], timeout: float | None) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def _left(self, n: int) -> None:
        resident = self._by_instance.pop(n)
        if self._by_address.get(resident.due.address) is resident:  # else there is a new one of that name
            del self._by_address[resident.due.address]
        if not resident.ready.done():
            resident.ready.set_result(None)
        self._orphans.add(n)
        self._on_change()

    # --- one instance

    async def _serve(self, resident: _Resident) -> None:
        """Activate the instance and run it until it hibernates, is taken over, or fails."""
        try:
            instance = await self._load(resident)
            if instance is None or not await instance.claim():
                return
            resident.runner = Runner(
                instance, idle_seconds=self._idle_seconds, tidy_seconds=self._tidy_seconds, on_quiet=self._on_change
            )
            if self._stopping:
                resident.runner.stop()
            resident.ready.set_result(resident.runner)
            await resident.runner.run()
            self.troubles.cured(resident.due.n)
        except Fenced:
            return
        except Exception as error:
            if not resident.ready.done():
                resident.ready.set_exception(error)
                _ = resident.ready.exception()  # whoever waits for it raises it; that nobody does is no news
            self._failed(resident.due, error)

    async def _load(self, resident: _Resident) -> Instance | None:
        """The instance, folded, if it is still as it was found and this code has something to do for it."""
        due = resident.due
        row = await self._store.instance(due.n)
        if row is None or (row.epoch, row.owner) != (due.epoch, due.owner):
            return None
        application = self._applications.get(due.address.kind)
        if application is None:  # it was taken from this worker between the scan and here
            return None
        instance = Instance(self._store, self._clock, self._ids, application, row, self._worker, self._threads)
        instance.objects = self._objects
        await instance.load(self._store)
        if (
            not resident.wanted
            and not instance.runtime.destroy
            and waits_for_code(instance.runtime, application, self._clock.wall())
        ):
            self._wait_for_code(due, instance)
            return None
        return instance

    def _wait_for_code(self, due: DueRow, instance: Instance) -> None:
        """Leave it unclaimed: a claim a minute would fill its log. A process with other code looks for itself."""
        now = self._clock.wall()
        later = next_wake(instance.runtime, instance.application, after=now)
        wait = BLOCKED_RECHECK_SECONDS if later is None else min(BLOCKED_RECHECK_SECONDS, later - now)
        what = "; ".join(fiber.blocked.message for fiber in instance.runtime.unsettled() if fiber.blocked is not None)
        self.troubles.waits(due.n, what, self._clock.monotonic() + wait, due.due_at)

    def _failed(self, due: DueRow, error: Exception) -> None:
        trouble = self.troubles.failed(due.n, f"{type(error).__name__}: {error}", self._clock.monotonic())
        logger.log(
            logging.WARNING if getattr(error, "retryable", False) else logging.ERROR,
            "instance %s cannot go on (failure %d in a row); it is left alone until the next try, others go on: %s",
            due.address,
            trouble.failures,
            trouble.what,
            exc_info=error if trouble.failures == 1 else None,
        )
