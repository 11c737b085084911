"""`cairn ls`, `log`, `store`, `doctor`: run as a user runs them, on a real store, most of them in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cairn.clock import SystemClock
from cairn.framework.cli import main
from cairn.ids import SystemIds
from cairn.runtime import records as r
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Admission, Append, Batch, Creation, Store, WorkerRow

CAIRN = str(Path(sys.executable).with_name("cairn"))
SECRET = "sk-" + "ant-api03-abcdefghijklmnopqrstuvwxyz"
AT = 1_700_000_000.0

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cairn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Type a command line in an empty directory: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def batch(*records: r.Record) -> Batch:
    return Batch(records=r.encode(records))


def accepted(fiber: str, argument: object = None) -> r.FiberAccepted:
    return r.FiberAccepted(fiber=fiber, method="count", at=AT, arguments=msgspec.Raw(msgspec.json.encode(argument)), key=fiber)


async def admit(store: Store, address: Address, fiber: str, argument: object = None) -> int:
    """Send a fiber to an instance; the instance's number."""
    created = r.InstanceCreated(kind=address.kind, id=address.id, uid=f"uid-{address}", at=AT)
    creation = Creation(uid=f"uid-{address}", incarnation="inc", batch=batch(created), at=AT)
    admission = Admission(key=fiber, fiber=fiber, digest=b"d")
    request = Append(n=0, batch=batch(accepted(fiber, argument)), admission=admission)
    return (await store.admit(address, creation, request)).n


def fill(work: Callable[[Store], Awaitable[None]], path: str = ".cairn/cairn.db") -> None:
    """Do something with the store of the present directory."""

    async def run() -> None:
        store = SqliteStore(path, clock=SystemClock(), ids=SystemIds(), ballast=False)
        await store.open()
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(run())


def worker_row() -> WorkerRow:
    return WorkerRow(id="w", host="here", pid=os.getpid(), kinds=("counter",), started_at=AT, lease_until=0.0)


async def three_instances(store: Store) -> None:
    """One settled, one parked, one waiting for a kind that nobody serves."""
    await store.register(worker_row(), 15.0, lambda: True)
    done = await admit(store, Address("counter", "done"), "f1")
    parked = await admit(store, Address("counter", "parked"), "f2")
    await admit(store, Address("triage", "issue/7"), "f3")
    for n, records in (
        (done, [r.FiberStarted(fiber="f1", at=AT), r.FiberSettled(fiber="f1", outcome="completed", at=AT)]),
        (parked, [r.FiberStarted(fiber="f2", at=AT), r.FiberParked(fiber="f2", name="approval", at=AT)]),
    ):

        def make(epoch: int) -> Batch:
            return batch(r.InstanceClaimed(epoch=epoch, worker="w", at=AT))

        await store.claim(n, "w", expected_epoch=0, make=make)
        await store.append(Append(n=n, batch=batch(*records), epoch=1))


# --- ls -------------------------------------------------------------------------------------------------------------


def test_ls_shows_owner_and_unsettled_work_and_what_nobody_serves(cairn: Shell) -> None:
    """A person sees why nothing moves (L7): whose process it is, what it waits for, which kind has no worker."""
    shown: dict[str, str] = {}

    async def look(store: Store) -> None:
        await three_instances(store)
        process = await asyncio.create_subprocess_exec(CAIRN, "ls", stdout=asyncio.subprocess.PIPE)
        shown["out"] = (await process.communicate())[0].decode()

    fill(look)

    lines = {line.split()[0]: line for line in shown["out"].splitlines()}
    assert f"pid {os.getpid()} on here, alive" in lines["counter/done"]
    assert lines["counter/done"].endswith("settled")
    assert lines["counter/parked"].endswith("1 parked (approval)")
    assert lines["triage/issue/7"].split()[2] == "-"
    assert lines["triage/issue/7"].endswith("1 accepted")
    assert "no worker serves kind 'triage'" in shown["out"]
    assert "kind 'counter'" not in shown["out"]


def test_ls_for_programs_says_the_same_as_json(cairn: Shell) -> None:
    fill(three_instances)

    code, out, _ = cairn("ls", "--json")

    found = json.loads(out)
    assert code == 0
    assert [each["kind"] + "/" + each["id"] for each in found["instances"]] == [
        "counter/done", "counter/parked", "triage/issue/7",
    ]  # fmt: skip
    assert [[fiber["phase"] for fiber in each["unsettled"]] for each in found["instances"]] == [
        [], ["parked"], ["accepted"],
    ]  # fmt: skip
    # Its worker closed the store: nobody is left to serve anything.
    assert found["unserved_kinds"] == ["counter", "triage"]
    assert found["next"] is None


def test_ls_goes_page_by_page_and_kind_by_kind(cairn: Shell) -> None:
    """A hundred thousand idle instances are listed without being loaded."""
    fill(three_instances)

    _, first, _ = cairn("ls", "--limit", "2")
    after = first.splitlines()[-1].rpartition("--after ")[2]
    _, second, _ = cairn("ls", "--limit", "2", "--after", after)
    _, triage, _ = cairn("ls", "triage")

    assert [line.split()[0] for line in first.splitlines()[1:3]] == ["counter/done", "counter/parked"]
    assert "triage/issue/7" in second
    assert "--after" not in second
    assert "counter/" not in triage


def test_ls_starts_at_a_checkpoint_and_survives_one_it_cannot_read(cairn: Shell) -> None:
    """A checkpoint is a cache: one from another version changes nothing but the time it takes (S15)."""

    async def work(store: Store) -> None:
        await three_instances(store)
        await store.save_checkpoint(2, 1, 2, b'{"format":99,"runtime":{"fibers":7}}')

    fill(work)

    _, out, _ = cairn("ls", "counter")

    assert "1 parked (approval)" in out


def test_ls_of_an_empty_store_says_so(cairn: Shell) -> None:
    async def nothing(store: Store) -> None: ...

    fill(nothing)

    assert cairn("ls") == (0, "no instances: nothing was sent to an agent in this store yet\n", "")


# --- log ------------------------------------------------------------------------------------------------------------


def test_log_is_a_timeline_of_records_with_their_fields(cairn: Shell) -> None:
    """Ordinal, epoch, time, name, fields; records of one batch stand together."""
    fill(three_instances)

    code, out, _ = cairn("log", "counter/parked")

    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert [(line[0], line[1], line[4]) for line in lines] == [
        ("0", "e0", "instance.created"),
        ("1", "e0", "fiber.accepted"),
        ("2", "e1", "instance.claimed"),
        ("3", "e1", "fiber.started"),
        ("·", "e1", "fiber.parked"),
    ]
    assert lines[0][2:4] == ["2023-11-14", "22:13:20.000Z"]
    assert "name=approval" in lines[4]


def test_log_continues_after_an_ordinal_and_for_programs_gives_whole_records(cairn: Shell) -> None:
    fill(three_instances)

    _, out, _ = cairn("log", "counter/parked", "--after", "2", "--json")

    found = [json.loads(line) for line in out.splitlines()]
    assert [(each["ordinal"], each["prev"], each["record"]["type"]) for each in found] == [
        (3, 2, "fiber.started"),
        (3, 2, "fiber.parked"),
    ]


def test_log_hides_secrets_and_shortens_what_is_long(cairn: Shell) -> None:
    """Looking over a shoulder at a log must not be a leak (X8); `--full` shows length, never secrets."""
    argument = {"text": f"my key is {SECRET} " + "x" * 5000, "password": "hunter2"}

    async def work(store: Store) -> None:
        await admit(store, Address("chat", "1"), "f", argument)

    fill(work)

    _, short, _ = cairn("log", "chat/1")
    _, full, _ = cairn("log", "chat/1", "--full")
    _, machine, _ = cairn("log", "chat/1", "--json")

    for out in (short, full, machine):
        assert SECRET not in out
        assert "hunter2" not in out
    assert max(len(line) for line in short.splitlines()) < 400
    assert "x" * 5000 in full
    assert "x" * 5000 in machine


def test_log_shows_records_of_a_vocabulary_it_does_not_know(cairn: Shell) -> None:
    """A viewer has no application installed, and may be older than the log (S15)."""

    async def work(store: Store) -> None:
        await store.register(worker_row(), 15.0, lambda: True)
        n = await admit(store, Address("future", "1"), "f")
        await store.claim(n, "w", expected_epoch=0, make=lambda epoch: batch(r.InstanceClaimed(epoch=1, worker="w", at=AT)))
        await store.append(Append(n=n, batch=Batch(records=b'[{"type":"dream.started","mood":"odd"}]'), epoch=1))

    fill(work)

    code, out, _ = cairn("log", "future/1")
    listed, _, _ = cairn("ls")

    assert (code, listed) == (0, 0)
    assert "dream.started" in out
    assert "mood=odd" in out


@pytest.mark.system
def test_log_follows_what_other_processes_append_until_interrupted(cairn: Shell) -> None:
    """The reader is a process of its own and reaches the tail (L5); Ctrl-C is its normal end, code 130."""

    async def work(store: Store) -> None:
        n = await admit(store, Address("counter", "1"), "f1")
        reader = await asyncio.create_subprocess_exec(
            CAIRN, "log", "counter/1", "--follow", "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert reader.stdout is not None
        seen = [json.loads(await reader.stdout.readline())["ordinal"] for _ in range(2)]
        later = []
        for fiber in ("f2", "f3"):
            assert await admit(store, Address("counter", "1"), fiber) == n
            later.append(json.loads(await reader.stdout.readline()))
        reader.send_signal(signal.SIGINT)
        _, err = await reader.communicate()

        assert seen == [0, 1]
        assert [each["record"]["fiber"] for each in later] == ["f2", "f3"]
        assert (reader.returncode, err) == (130, b"")

    fill(work)


# --- store ----------------------------------------------------------------------------------------------------------


def test_store_check_finds_nothing_in_a_good_store(cairn: Shell) -> None:
    fill(three_instances)

    code, out, err = cairn("store", "check")

    assert (code, err) == (0, "")
    assert "3 instances" in out
    assert "no problems" in out


def test_store_check_names_a_flipped_byte_and_log_refuses_it(cairn: Shell, tmp_path: Path) -> None:
    """A damaged record is told, never skipped (S14)."""
    fill(three_instances)
    path = tmp_path / ".cairn" / "cairn.db"
    data = path.read_bytes()
    assert data.count(b'"approval"') == 1
    path.write_bytes(data.replace(b'"approval"', b'"aqproval"'))

    code, out, _ = cairn("store", "check")
    machine_code, machine, _ = cairn("store", "check", "--json")
    log_code, _, log_error = cairn("log", "counter/parked")

    assert (code, machine_code, log_code) == (1, 1, 1)
    assert "counter/parked" in out or "instance 2" in out
    assert json.loads(machine)["problems"]
    assert "3" in log_error
    assert log_error.count("\n") == 1


def test_store_backup_copies_a_live_store_and_never_overwrites(cairn: Shell, tmp_path: Path) -> None:
    """What was acknowledged before the backup is in the copy (S1), which passes every check."""
    fill(three_instances)

    code, out, _ = cairn("store", "backup", "copy.db")
    again = cairn("store", "backup", "copy.db")
    nowhere = cairn("store", "backup", "no/such/place.db")
    _, listed, _ = cairn("ls", "--store", "copy.db", "--json")

    assert code == 0
    assert "copy.db" in out
    assert len(json.loads(listed)["instances"]) == 3
    assert cairn("store", "check", "--store", "copy.db")[0] == 0
    assert again[0] == nowhere[0] == 2
    assert "never overwrites" in again[2]
    assert "does not exist" in nowhere[2]


# --- which store ----------------------------------------------------------------------------------------------------


def test_the_store_is_named_by_option_then_by_environment_then_by_default(
    cairn: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("option.db", "variable.db", ".cairn/cairn.db"):

        async def work(store: Store, name: str = name) -> None:
            await admit(store, Address("counter", name), "f")

        fill(work, name)

    monkeypatch.setenv("CAIRN_STORE", "variable.db")
    assert "counter/option.db" in cairn("ls", "--store", "option.db")[1]
    assert "counter/variable.db" in cairn("ls")[1]
    monkeypatch.delenv("CAIRN_STORE")
    assert "counter/.cairn/cairn.db" in cairn("ls")[1]


@pytest.mark.parametrize("verb", [["ls"], ["log", "a/b"], ["store", "check"], ["store", "backup", "x.db"]])
def test_looking_never_creates_a_store(cairn: Shell, tmp_path: Path, verb: list[str]) -> None:
    """A typo in a path must not leave an empty store behind that looks like a lost one."""
    code, out, err = cairn(*verb)

    assert (code, out) == (2, "")
    assert "store '.cairn/cairn.db' does not exist" in err
    assert list(tmp_path.iterdir()) == []


def _text(path: Path) -> None:
    path.write_text("hello " * 1000)


def _other_database(path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", f"import sqlite3; d=sqlite3.connect({str(path)!r}); d.execute('create table t(x)'); d.close()"],
        check=True,
    )


@pytest.mark.parametrize(
    ("make", "arguments", "says"),
    [
        (None, ["ls", "--store", "postgresql://u:pw@h/db"], "is not a path"),
        (None, ["ls", "--store", "."], "is a directory"),
        (_text, ["ls", "--store", "it.db"], "not a database"),
        (_other_database, ["ls", "--store", "it.db"], "not a Cairn store"),
        (None, ["log", "nonsense"], "names no instance"),
        (None, ["lgo", "a/b"], "did you mean 'log'?"),
        (None, ["ls", "--limit", "many"], "not a whole number"),
        (None, ["ls", "--limit", "0"], "below 1"),
        (None, ["store"], "needs a verb: check, backup"),
        (None, [], "needs a verb: run"),
        (None, ["log"], "required: KIND/ID"),
        (None, ["doctor", "--nope"], "unrecognized arguments: --nope"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(
    cairn: Shell, tmp_path: Path, make: Callable[[Path], None] | None, arguments: list[str], says: str
) -> None:
    """The line names the thing and its state; nothing is printed on stdout, and no password is repeated (X8)."""
    if make is not None:
        make(tmp_path / "it.db")
    elif arguments[:1] == ["log"]:
        fill(three_instances)

    code, out, err = cairn(*arguments)

    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("cairn: ")
    assert says in err
    assert "pw@" not in err


def test_an_unknown_instance_is_a_mistake(cairn: Shell) -> None:
    fill(three_instances)

    code, out, err = cairn("log", "counter/nobody")

    assert (code, out) == (2, "")
    assert "counter/nobody" in err


# --- doctor ---------------------------------------------------------------------------------------------------------


def test_doctor_says_yes_or_no_about_keys_and_never_shows_them(cairn: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of `cairn doctor` is pasted into bug reports (X8)."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)

    code, out, _ = cairn("doctor")
    _, machine, _ = cairn("doctor", "--json")

    checks: dict[str, dict[str, Any]] = {check["name"]: check for check in json.loads(machine)["checks"]}
    assert code == 0
    assert SECRET not in out + machine
    assert checks["key anthropic"]["found"] == "ANTHROPIC_API_KEY: yes"
    assert checks["key openai"]["state"] == "missing"
    assert {"python", "sqlite", "file system", "open files", "rg", "bwrap"} <= set(checks)


def test_doctor_creates_nothing_and_names_what_is_bad(cairn: Shell, tmp_path: Path) -> None:
    """It is run when something is wrong, and must not change what it looks at."""
    code, out, _ = cairn("doctor", "--store", ".")

    assert code == 1
    assert "is not a file" in out
    assert list(tmp_path.iterdir()) == []


# --- as a process ---------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_a_reader_that_goes_away_ends_a_listing_quietly(cairn: Shell) -> None:
    """`cairn log … | head -1` prints one line and no complaint."""

    async def work(store: Store) -> None:
        for number in range(300):
            await admit(store, Address("counter", "1"), f"f{number}", "x" * 900)

    fill(work)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {CAIRN} log counter/1 --full | head -1"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.system
def test_the_installed_command_reports_exit_codes(cairn: Shell) -> None:
    """The code that `main` returns is the one the shell sees."""
    version = subprocess.run([CAIRN, "--version"], capture_output=True, text=True, check=False)
    mistake = subprocess.run([CAIRN, "lss"], capture_output=True, text=True, check=False)

    assert (version.returncode, mistake.returncode) == (0, 2)
    assert version.stdout.startswith("cairn ")
