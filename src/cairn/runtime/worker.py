"""The process that runs instances: claims what is due, runs it, and lets go of it.

    async with Worker(store, [application], clock=clock, ids=ids) as worker:
        await worker.idle()

Laws. What there is to do is asked of the store, not remembered: a lost wake-up costs a poll, a crash nothing. A worker
claims only the kinds it was given, and only what nobody alive owns; if that was an error, the epoch refuses the loser's
appends (S4). One instance's trouble is its own: it is logged, backed off, and the others go on (L7). A store that fails
for good ends the worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from cairn.clock import Clock
from cairn.errors import StoreError, UsageError
from cairn.ids import Ids
from cairn.runtime import settings
from cairn.runtime.application import Application
from cairn.runtime.claims import Troubles, choose
from cairn.runtime.heartbeat import Heartbeat
from cairn.runtime.lease import Standing, margin_of, standing
from cairn.runtime.objects import Objects
from cairn.runtime.owners import Owners, beside
from cairn.runtime.residents import Residents
from cairn.runtime.roster import Census, Roster
from cairn.runtime.runner import Runner
from cairn.runtime.storage.store import Address, DueRow, InstanceRow, Store, WorkerRow
from cairn.runtime.threads import Threads
from cairn.runtime.waiting import nap
from cairn.runtime.worker_settings import WorkerSettings as WorkerSettings

logger = logging.getLogger("cairn.runtime")


class Worker:
    """Serves the kinds of its applications until it is stopped.

    `owners` proves who is alive: by default the kernel locks beside the store's file. One worker per store and process is
    usual, several are sound. `only` narrows it to some instances of its kinds: the others wait for somebody else.
    """

    def __init__(
        self,
        store: Store,
        applications: Sequence[Application],
        *,
        clock: Clock,
        ids: Ids,
        owners: Owners | None = None,
        threads: Threads | None = None,
        settings: WorkerSettings = WorkerSettings(),
        id: str | None = None,
        only: Callable[[Address], bool] | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.ids = ids
        self.settings = settings
        self.id = id if id is not None else ids.new("wrk")
        self.applications = _by_kind(applications)
        self._only = only
        self._owners = owners if owners is not None else beside(store)
        self._threads = threads if threads is not None else Threads(settings.threads_max)
        self._roster = Roster(store, self._owners, clock, self.id, settings.lease_seconds)
        self._heart = Heartbeat(clock, stall_seconds=settings.stall_seconds)
        self._census = Census()
        self._residents = Residents(
            store,
            self.applications,
            clock=clock,
            ids=ids,
            worker=self.id,
            threads=self._threads,
            idle_seconds=settings.idle_seconds,
            tidy_seconds=settings.tidy_seconds,
            on_change=self._stir,
            objects=lambda: self.objects,
        )
        self.objects = Objects(store, self, self.applications, clock=clock, ids=ids)
        self._stop = asyncio.Event()
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._row: WorkerRow | None = None
        self._swept = self._scanned = float("-inf")
        self._collected = clock.monotonic()

    async def reach(self, row: InstanceRow, *, nested: bool = False) -> Runner | None:
        """The instance, activated in this process; None when it is to be reached through its log: another live worker has it,
        or this one cannot have it now. `nested`: somebody in memory waits for it, so it waits for no room. *Raises* as
        `Residents.reach`."""
        if self._swept == float("-inf") and self._main is not None:
            await self._sweep()
        if row.address.kind not in self.applications or (self._only is not None and not self._only(row.address)):
            return None
        if row.n not in self._residents:
            if row.owner is not None and row.owner not in self._census.known:
                await self._sweep()  # it is dead, or newer than the last census
                row = await self.store.instance(row.n) or row
            if not self._may_claim() or (row.owner != self.id and row.owner in self._census.live):
                return None
        return await self._residents.reach(row, room=nested or len(self._residents) < self.settings.instances_max)

    def present(self, address: Address) -> Runner | None:
        """The instance, if this process has it in memory by a sound lease: then nobody else has."""
        return self._residents.present(address) if self._may_claim() else None

    # --- its life

    async def start(self) -> None:
        """The worker is registered and claims what is due. Raises StoreError."""
        sys.setswitchinterval(min(sys.getswitchinterval(), settings.SWITCH_SECONDS))
        lock = self._owners.hold(self.id)
        now = self.store.lease_now()
        self._row = row = WorkerRow(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            kinds=tuple(self.applications),
            started_at=self.clock.wall(),
            lease_until=now + self.settings.lease_seconds,
            lock=lock,
        )
        self._pulse = asyncio.create_task(self._heart.run(), name=f"heartbeat of {self.id}")
        try:
            await self.store.register(row, self.settings.lease_seconds, self._heart.is_beating)
        except BaseException:
            await self._leave()
            raise
        self._main = asyncio.create_task(self._run(), name=f"worker {self.id}")

    def stop(self) -> None:
        """Ask for a drain: nothing new is claimed, what runs is interrupted and released. Idempotent; any task may call."""
        self._stop.set()
        self._residents.stop()
        self._work.set()

    async def join(self) -> None:
        """Returns when the worker has drained and is unregistered. *Raises* what ended it, if it was not `stop`.

        *Cancelled*: it stops at once, without a drain; what ran counts as interrupted.
        """
        assert self._main is not None, "join follows start"
        try:
            await self._main
        finally:
            await self._leave()

    async def replace(self, applications: Sequence[Application]) -> None:
        """These kinds are claimed from now on, and no others; what runs goes on to its end. Other processes see it.

        *Raises* UsageError for two of one kind, StoreError; nothing has changed then.
        """
        kinds = _by_kind(applications)
        if self._row is not None and set(kinds) != set(self.applications):
            row = replace(self._row, kinds=tuple(kinds))
            await self.store.register(row, self.settings.lease_seconds, self._heart.is_beating)
            self._row = row
        self.applications.clear()
        self.applications.update(kinds)
        self._stir()

    async def ended(self) -> None:
        """Returns when it works no more, whatever the reason; `join` says which. *Cancelled*: nothing happens to it."""
        assert self._main is not None, "its end follows its start"
        await asyncio.wait({self._main})

    async def serve(self) -> None:
        """Start, work until SIGTERM or SIGINT, drain."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        for number in signals:
            loop.add_signal_handler(number, self.stop)
        try:
            async with self:
                assert self._main is not None
                await asyncio.wait({self._main})
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def __aenter__(self) -> Worker:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await self.join()

    async def idle(self) -> None:
        """Returns when nothing is due, nothing runs, and nothing that was sent before the call is undone. What sleeps, backs
        off, waits for code or is owned by another live worker does not count. *Raises* what ended the worker."""
        while True:
            news = self._news
            if await self._is_quiet():
                return
            await nap(news, self.settings.poll_seconds)

    @property
    def running(self) -> list[Address]:
        """The instances in memory."""
        return self._residents.running

    @property
    def troubles(self) -> Troubles:
        """The instances this worker could not carry on, and why."""
        return self._residents.troubles

    # --- the loop

    async def _run(self) -> None:
        scout = asyncio.create_task(self._scout(), name=f"scout of {self.id}")
        try:
            while not self._stop.is_set():
                try:
                    timeout = await self._round()
                except StoreError as error:
                    if not error.retryable:
                        raise
                    logger.warning("the store refuses for now; trying again: %s", error)
                    await nap(self._stop, self.settings.sweep_seconds)
                    continue
                await nap(self._work, timeout)
                # Every commit of a busy worker may wake it: one scan serves those that come close together.
                await nap(self._stop, self._scanned + self.settings.scan_gap_seconds - self.clock.monotonic())
            await self._residents.drain(self.settings.drain_seconds)
        finally:
            await self._residents.drop()
            scout.cancel()
            await asyncio.gather(scout, return_exceptions=True)
            self._announce()

    async def _scout(self) -> None:
        """Listen for work without a pause: what stirs while the loop scans must lead to another scan."""
        while True:
            try:
                await self.store.wait_for_work(self.settings.poll_seconds)
            except StoreError:
                await self.clock.sleep(self.settings.sweep_seconds)
            self._stir()

    def _stir(self) -> None:
        """Something may have changed: the loop scans, and `idle` looks again."""
        self._work.set()
        self._announce()

    def _announce(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _round(self) -> float:
        """Sweep if it is time, claim what there is; return how long nothing is known to happen."""
        self._work.clear()
        now = self.clock.monotonic()
        if now >= self._swept + self.settings.sweep_seconds:
            await self._sweep()
        if self._may_claim():
            await self._claim_due()
        self._announce()
        return await self._timeout()

    async def _timeout(self) -> float:
        """Seconds until the next alarm, retry or sweep, whichever is first."""
        waits = [self.settings.poll_seconds, self._swept + self.settings.sweep_seconds - self.clock.monotonic()]
        wall = self.clock.wall()
        alarm = await self.store.next_due(tuple(self.applications), after=wall)
        if alarm is not None:
            waits.append(alarm - wall)
        retry = self.troubles.next_try(self.clock.monotonic())
        if retry is not None:
            waits.append(retry)
        return max(self.settings.scan_gap_seconds, min(waits))

    # --- who is alive

    async def _sweep(self) -> None:
        """Look at all workers, bury the dead, give back what this one owns without running it."""
        self._census = await self._roster.census()
        self._swept = self.clock.monotonic()
        self._residents.lose(self._census.known)
        if self._standing() is Standing.LOST:
            await self._lose_lease()
        await self._residents.return_orphans()
        if self._swept >= self._collected + settings.COLLECT_SECONDS:
            self._collected = self._swept
            await self.store.collect_blobs(settings.COLLECT_GRACE_SECONDS)

    def _standing(self) -> Standing:
        until = self._census.lease_until.get(self.id)
        if until is None:
            return Standing.LOST
        margin = margin_of(self.settings.lease_seconds, margin_seconds=settings.LEASE_MARGIN_SECONDS)
        return standing(until, self.store.lease_now(), margin_seconds=margin)

    def _may_claim(self) -> bool:
        return self._standing() is Standing.SOUND and not self._stop.is_set()

    async def _lose_lease(self) -> None:
        """Others may take over at any moment: stop what runs, without a word to the store, which did not take our renewal."""
        if self._residents:
            text = "worker %s could not renew its lease in time; it drops its %d instances and goes on when it can"
            logger.error(text, self.id, len(self._residents))
        await self._residents.drop()

    # --- claiming

    async def _claim_due(self) -> None:
        """Start an activation for everything due that is free, as far as there is room."""
        rows = await self._due_rows()
        chosen = choose(rows, self._residents.per_tenant(), self.settings.instances_max - len(self._residents))
        for row in chosen:
            self._residents.start(row)
        if len(rows) > len(chosen):
            self._residents.make_room(len(rows) - len(chosen))

    async def _due_rows(self) -> list[DueRow]:
        """What may be claimed now: due, not in trouble, and owned by nobody alive."""
        self._scanned = now = self.clock.monotonic()
        limit = settings.SCAN_ROWS + len(self.troubles) + len(self._residents)
        rows = await self._due(limit, self._census.live)
        rows = [row for row in rows if row.n not in self._residents and not self.troubles.is_waiting(row, now)]
        if any(row.owner is not None and row.owner not in self._census.known for row in rows):
            # Somebody registered after the last census, or was buried in between: ask who that owner is.
            await self._sweep()
            rows = [row for row in rows if row.owner not in self._census.live and row.n not in self._residents]
        return rows

    async def _due(self, limit: int, owners: Set[str]) -> list[DueRow]:
        """The oldest alarms that are not those owners', as many as one scan looks at."""
        kinds, others = tuple(self.applications), sorted(owners)
        while True:
            rows = await self.store.due(kinds, self.clock.wall(), limit, exclude_owners=others)
            if self._only is None:
                return rows
            mine = [row for row in rows if self._only(row.address)]
            if len(mine) > len(self.troubles) + len(self._residents) or len(rows) < limit:
                return mine
            # What is somebody else's must not fill the scan: ours may be younger than all of it (L7).
            limit *= 4

    # --- the end

    async def _leave(self) -> None:
        """Unregister: whatever is still in this worker's name is free at once."""
        if self._pulse is not None:
            self._pulse.cancel()
            with suppress(asyncio.CancelledError):
                await self._pulse
            self._pulse = None
            self._threads.close()
            with suppress(StoreError):
                await self.store.unregister(self.id)
                self._owners.drop(self.id)

    async def _is_quiet(self) -> bool:
        if self._main is not None and self._main.done():
            self._main.result()
            return True
        if self._scanned == float("-inf"):
            return False
        now = self.clock.monotonic()
        limit = settings.SCAN_ROWS + len(self.troubles) + len(self._residents)
        for due in await self._due(limit, self._census.live - {self.id}):
            if due.n not in self._residents and not self.troubles.is_waiting(due, now):
                return False
        return await self._residents.are_quiet()


def _by_kind(applications: Sequence[Application]) -> dict[str, Application]:
    kinds: dict[str, Application] = {}
    for application in applications:
        if kinds.setdefault(application.kind, application) is not application:
            raise UsageError(f"two applications are called '{application.kind}'; a kind names one: rename one of them")
    return kinds
