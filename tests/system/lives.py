"""The demo's job as `cairn run` in processes that die: one folder per job, its log read from outside, and what must hold."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cairn.clock import SystemClock
from cairn.framework.demo.job import MESSAGE, PACE, Job, prepare
from cairn.framework.demo.standing import Standing
from cairn.framework.demo.witness import times_asked, times_run
from cairn.harness import records as h
from cairn.ids import SystemIds
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address
from cairn.runtime.workspace_history import workspace_at

VICTIM = Path(__file__).parent / "victim.py"
CONVERSATION = "login-plus"

#: A guard against hanging, not a measurement.
LIFE_SECONDS = 120

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Log:
    """The conversation's log at one time: its batches as bytes, and what they say."""

    batches: tuple[bytes, ...]
    records: tuple[r.Record, ...]
    standing: Standing
    reply: str | None

    def count(self, kind: type[r.Record]) -> int:
        return sum(isinstance(record, kind) for record in self.records)


@dataclass
class Lives:
    """One job, and the lives of the processes that work on it."""

    job: Job
    environ: dict[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()

    @staticmethod
    def of(parent: Path, *more: str, **environ: str) -> Lives:
        return Lives(prepare(parent), environ, more)

    def begin(self, crash: str | None = None) -> subprocess.Popen[str]:
        """The command, started. With a crash point it will die there."""
        program = [str(VICTIM)] if crash is not None else ["-m", "cairn.framework.cli"]
        command = [sys.executable, *program, "run", self.job.agent.name, MESSAGE, "--id", CONVERSATION]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environ = {**os.environ, PACE: "0", **self.environ, "PATH": path}
        if crash:
            environ["CAIRN_TEST_CRASH"] = crash
        return subprocess.Popen(
            [*command, "--store", str(self.job.store), "--json", *self.more],
            cwd=self.job.folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def live(self, crash: str | None = None) -> tuple[int, str]:
        """One life to its end: (exit code, what it wrote to standard error)."""
        with self.begin(crash) as process:
            try:
                _, errors = process.communicate(timeout=LIFE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                _, errors = process.communicate()
                return 1, f"hung: {errors}"
        return process.returncode, errors

    def log(self) -> Log | None:
        """The log as it is now; None while there is none."""
        return asyncio.run(read_log(self.job))


async def read_log(job: Job) -> Log | None:
    """What the log says; the agent's files, which are in it too, are then in the job's folder."""
    if not job.store.exists():
        return None
    store = SqliteStore(str(job.store), clock=SystemClock(), ids=SystemIds(), ballast=False)
    await store.open()
    try:
        row = await store.find(Address("triage", CONVERSATION))
        if row is None:
            return None
        decoder = r.decoder(h.HARNESS)
        standing = Standing()
        batches, records, reply = [], [], None
        async for each in log.read(store, row.n):
            decoded = log.decode(decoder, each, "the log")
            standing.apply(decoded)
            batches.append(each.batch.records)
            records += decoded
        files = await workspace_at(store, row.address)
        if files.usage().history:  # before that the folder is what the agent's files will be made of
            await job.take_out(files)
        for record in records:
            if isinstance(record, r.FiberSettled) and record.outcome == "completed":
                reply = msgspec.json.decode(record.result)["text"]
        return Log(tuple(batches), tuple(records), standing, reply)
    finally:
        await store.close()


def broken(lives: Lives, died: Log | None, end: Log | None, reference: Log) -> list[str]:
    """What the end of a job that died at `died` says against the promises; empty when all of them were kept."""
    if end is None:
        return ["there is no log at all"]
    wrong: list[str] = []

    def must(holds: bool, sentence: str) -> None:
        wrong.extend([] if holds else [sentence])

    standing, before = end.standing, died.standing if died is not None else Standing()
    must(died is None or end.batches[: len(died.batches)] == died.batches, "S2/S3: what was in the log is not its beginning")
    must(end.count(r.FiberAccepted) == 1, f"the message was admitted {end.count(r.FiberAccepted)} times")
    must(standing.settlements == ["completed"], f"S7: settlements {standing.settlements}")
    must(end.reply == reference.reply, f"the reply is {end.reply!r}")
    must(lives.job.changed() == ["doorkeeper/links.py"], f"files changed: {lives.job.changed()}")
    must(standing.kept >= before.said * before.is_asked, f"{before.said} characters were said, {standing.kept} kept")
    ran = times_run(lives.job.witness.lines())
    for call in before.finished:
        must(ran[call.id] == 1, f"S9: finished call {call.id} ran {ran[call.id]} times")
    for call in before.open:
        after = standing.calls[call.id].outcome
        must(ran[call.id] <= 1 or call.repeat != "never", f"S9: {call.name} ran {ran[call.id]} times, and is never repeated")
        must(after == ("unknown" if call.repeat == "never" else "ok"), f"{call.name}, open at the death, ended as {after}")
    for call in standing.finished:
        must(ran[call.id] >= (call.outcome != "unknown"), f"S8: {call.id} has an outcome and never ran")
    return wrong


def asked_again(lives: Lives, before: Standing, dead: int) -> list[str]:
    """Finished answers that were asked for again by anybody but the process that died, by the witness."""
    later = times_asked([line for line in lives.job.witness.lines() if line.pid != dead])
    return [f"finished answer {number + 1} was asked for again" for number in range(before.answers) if later[number]]


def in_words(problems: Sequence[tuple[str, list[str]]]) -> str:
    return "\n".join(f"{point}: {sentence}" for point, found in problems for sentence in found)
