"""`cairn demo`: start a worker, kill it, start another, and say what that has cost.

Laws. The worker is `cairn run` in a process of its own; the second one is the same command again. This process owns nothing: it
reads the log, from outside, and sends one signal. What it says at the end it has counted. Whatever ends it, no worker stays.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cairn.clock import SystemClock
from cairn.errors import FiberFailed
from cairn.framework.cli.output import Exit, json_line
from cairn.ids import SystemIds

if TYPE_CHECKING:
    from cairn.framework.demo.job import Job
    from cairn.framework.demo.report import Death, Report
    from cairn.framework.demo.screen import Screen
    from cairn.framework.demo.standing import Standing
    from cairn.runtime.records import Record
    from cairn.runtime.storage.store import Row, Store

#: How often a worker that has not appended anything is looked at: whether it still lives.
LOOK_SECONDS = 0.1
#: How long a worker may take to end by itself once its work is settled.
END_SECONDS_MAX = 15.0
#: How long a killed worker's command may live. The promise is one second; beyond ten something is wrong.
ORPHAN_SECONDS_MAX = 10.0
#: Lines of a worker's errors that are shown when it failed.
ERROR_LINES = 5


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line said."""

    model: str | None = None
    seed: int | None = None
    pace: float | None = None
    keep: bool = False
    json: bool = False


def run(request: Request) -> int:
    """0 when the demo has shown what it promises, 1 with what went wrong.

    *Cancelled*: Ctrl-C leaves no worker and no folder. *Raises* UsageError for a model that cannot be asked.
    """
    from cairn.framework.demo.job import prepare

    if request.model is not None:
        # Offline and cheap: a missing key is known before anything happens.
        from cairn.harness.models.resolve import resolve

        resolve(request.model)
    job = prepare()
    try:
        return asyncio.run(_until_interrupted(_Demo(request, job)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        if not request.keep:
            job.remove()
        where = f"; {job.folder} is kept" if request.keep else ""
        sys.stderr.write(f"\ncairn: the demo was interrupted; its worker is dead{where}\n")
        return Exit.ABORTED
    except BaseException:
        if not request.keep:
            job.remove()
        raise


async def _until_interrupted(demo: _Demo) -> int:
    """The demo; SIGINT, SIGTERM and SIGHUP cancel it, so that it can clean up."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(demo.run())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await task


class _Demo:
    """One demo, from the first line to the last."""

    def __init__(self, request: Request, job: Job) -> None:
        from cairn.framework.demo import moment
        from cairn.framework.demo.screen import Screen

        self._request = request
        self._job = job
        self._clock = SystemClock()
        self._seed = request.seed if request.seed is not None else int(SystemIds().random() * moment.SEEDS)
        self._moment = moment.choose(self._seed, is_real=request.model is not None)
        # With --json nobody reads the story; its end is the document.
        self._screen: Screen = Screen(io.StringIO() if request.json else None)

    async def run(self) -> int:
        """Everything, and the exit code."""
        from cairn.framework.demo.job import CONVERSATION, MESSAGE

        started = self._clock.monotonic()
        self._screen.opening(
            model=self._request.model, project=str(self._job.project), seed=self._seed, aim=f"comes {self._moment}"
        )
        shown = f'cairn run triage.py "{MESSAGE}" --id {CONVERSATION}'
        shown += f" --model {self._request.model}" if self._request.model else ""
        async with self._store() as store:
            tail = _Tail(store, self._screen)
            death = await self._first_life(tail, shown)
            # A kill may come too late, while the worker takes leave: then the same command would be a new message.
            if death is not None and not tail.standing.is_settled:
                await self._second_life(tail, shown, death)
            report = await self._report(store, tail.standing, death, self._clock.monotonic() - started)
        if self._request.json:
            json_line(_as_json(report))
        else:
            self._screen.closing(report)
        return Exit.FAILED if report.failures else Exit.OK

    # --- two lives

    async def _first_life(self, tail: _Tail, shown: str) -> Death | None:
        """Until the moment; None when the work was done before it came."""
        from cairn.framework.demo.moment import reached

        async with self._worker() as worker:
            self._screen.started(shown, worker.pid)
            async for _ in tail.follow(worker):
                left = reached(self._moment, tail.standing)
                if left is not None:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(worker.wait(), left)
                    return await self._kill(worker, tail)
            self._check(worker, tail.standing)
            return None

    async def _kill(self, worker: asyncio.subprocess.Process, tail: _Tail) -> Death:
        from cairn.framework.demo import report

        at, before = self._clock.wall(), self._clock.monotonic()
        with suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()
        dead = self._clock.monotonic() - before
        # What it had appended before it died, and this process had not seen.
        await tail.catch_up()
        standing = tail.standing
        children = [call.process.pid for call in standing.open if call.process is not None]
        await self._until_gone(children)
        gone = self._clock.monotonic() - before
        death = report.death(standing, worker.pid, at, dead, len(children), gone)
        self._screen.killed(death)
        return death

    async def _until_gone(self, pids: Sequence[int]) -> None:
        """None of these processes can act any more, or the time for that is over."""
        from cairn.harness.sandbox.supervisor import processes

        deadline = self._clock.monotonic() + ORPHAN_SECONDS_MAX
        while self._clock.monotonic() < deadline:
            found = [processes.lookup(pid) for pid in pids]
            if not any(each is not None and processes.is_running(each) for each in found):
                return
            await self._clock.sleep(0.002)

    async def _second_life(self, tail: _Tail, shown: str, death: Death) -> None:
        """The same command again, until the work is settled."""
        async with self._worker() as worker:
            self._screen.started(shown, worker.pid, again=True)
            tail.on_claim = lambda at: self._screen.resumed(at - death.at)
            async for _ in tail.follow(worker):
                pass
            with suppress(TimeoutError):
                await asyncio.wait_for(worker.wait(), END_SECONDS_MAX)
            self._check(worker, tail.standing)

    def _check(self, worker: asyncio.subprocess.Process, standing: Standing) -> None:
        """Raises FiberFailed when the worker ended and its work is not settled."""
        if standing.is_settled:
            return
        lines = self._job.errors.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        told = " | ".join(lines[-ERROR_LINES:])
        raise FiberFailed(f"the demo's worker ended with exit code {worker.returncode} before its work was done: {told}")

    # --- a worker

    @asynccontextmanager
    async def _worker(self) -> AsyncGenerator[asyncio.subprocess.Process]:
        """A process that runs the agent. Dead when left, whatever happens.

        It has a session of its own: Ctrl-C at the terminal is for the demo, which then ends it.
        """
        from cairn.framework.demo.job import CONVERSATION, MESSAGE, PACE

        command = [sys.executable, "-m", "cairn.framework.cli", "run", self._job.agent.name, MESSAGE, "--id", CONVERSATION]
        command += ["--store", str(self._job.store), "--json"]
        command += ["--model", self._request.model] if self._request.model is not None else []
        environment = dict(os.environ)
        if self._request.pace is not None:
            environment[PACE] = str(self._request.pace)
        with self._job.errors.open("ab") as errors:
            worker = await asyncio.create_subprocess_exec(
                *command,
                cwd=self._job.folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        try:
            yield worker
        finally:
            if worker.returncode is None:
                with suppress(ProcessLookupError):
                    worker.kill()
                await worker.wait()

    @asynccontextmanager
    async def _store(self) -> AsyncGenerator[Store]:
        from cairn.framework.cli.store import opened

        async with opened(self._job.store) as store:
            yield store

    # --- the end

    async def _report(self, store: Store, standing: Standing, death: Death | None, seconds: float) -> Report:
        from cairn.framework.demo import report
        from cairn.framework.demo.job import CONVERSATION, run_tests
        from cairn.runtime.storage.store import Address
        from cairn.runtime.workspace_history import workspace_at

        is_scripted = self._request.model is None
        files = await workspace_at(store, Address("triage", CONVERSATION))
        await self._job.take_out(files)
        changed = tuple(self._job.changed())
        tests = await run_tests(files)
        problems = tuple(f"{problem.where}: {problem.what}" for problem in await store.check())
        lines = self._job.witness.lines()
        found = report.Report(
            seed=self._seed,
            aim=str(self._moment),
            death=death,
            cost=report.cost(death, standing, lines, is_scripted=is_scripted) if death is not None else None,
            verdict=report.Verdict(tests, changed, problems),
            standing=standing,
            seconds=seconds,
            is_scripted=is_scripted,
            folder=str(self._job.folder),
        )
        return replace(found, failures=report.failures(found))


class _Tail:
    """The conversation's log as it grows: folded, shown, and remembered how far."""

    def __init__(self, store: Store, screen: Screen) -> None:
        from cairn.framework.demo.standing import Standing
        from cairn.harness import records as h
        from cairn.harness.events import EventStream
        from cairn.runtime import log
        from cairn.runtime import records as r

        self.standing = Standing()
        self.on_claim: Any = None
        self._store = store
        self._screen = screen
        self._events = EventStream()
        self._decoder = r.decoder(h.HARNESS)
        self._n: int | None = None
        self._offset = log.BEGINNING

    async def follow(self, worker: asyncio.subprocess.Process) -> AsyncGenerator[None]:
        """Once per batch, until the work is settled or the worker has ended and left nothing unread."""
        while True:
            # In this order: what was appended before the worker ended is read after it was seen to have ended.
            has_ended = worker.returncode is not None
            count = 0
            async for row in self._rows():
                count += 1
                self._take(row)
                yield
                if self.standing.is_settled:
                    return
            if has_ended and not count:
                return
            if not count:
                await self._wait()

    async def catch_up(self) -> None:
        """Everything that is in the log now is taken in."""
        async for row in self._rows():
            self._take(row)

    async def _rows(self) -> AsyncGenerator[Row]:
        from cairn.framework.demo.job import CONVERSATION
        from cairn.runtime import log
        from cairn.runtime.storage.store import Address

        if self._n is None:
            found = await self._store.find(Address("triage", CONVERSATION))
            self._n = found.n if found is not None else None
        if self._n is not None:
            async for row in log.read(self._store, self._n, self._offset):
                yield row

    async def _wait(self) -> None:
        if self._n is None:
            await asyncio.sleep(LOOK_SECONDS / 10)
        else:
            await self._store.changed(self._n, self._offset, LOOK_SECONDS)

    def _take(self, row: Row) -> None:
        from cairn.runtime import log

        self._offset = row.ordinal
        records: Sequence[Record] = log.decode(self._decoder, row, "the demo's log")
        claims = len(self.standing.claims)
        self.standing.apply(records)
        if len(self.standing.claims) > claims and self.on_claim is not None:
            self.on_claim(self.standing.claims[-1])
        self._screen.batch(list(self._events.feed(records, row.ordinal)))


def _as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    from dataclasses import asdict

    usage, tests = report.standing.usage, report.verdict.tests
    return {
        "seed": report.seed,
        "aim": report.aim,
        "scripted": report.is_scripted,
        "death": asdict(report.death) if report.death is not None else None,
        "cost": asdict(report.cost) if report.cost is not None else None,
        "tests": {"count": tests.count, "failed": tests.failed, "passed": tests.passed},
        "changed": list(report.verdict.changed),
        "settlements": report.standing.settlements,
        "appends": report.standing.appends,
        "synced_appends": report.standing.facts,
        "answers": report.standing.answers,
        "calls": len(report.standing.calls),
        "usage": {"input": usage.input, "output": usage.output, "cost": usage.cost},
        "text": report.standing.text,
        "seconds": report.seconds,
        "folder": report.folder,
        "failures": report.failures,
    }
