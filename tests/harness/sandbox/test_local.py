"""What `local()` does beyond the contract: its environment, its limits, and files as the host has them."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from cairn.errors import SandboxError, UsageError
from cairn.harness.sandbox.local import PASSED_VARIABLES, LocalFactory, LocalSandbox, local
from cairn.harness.sandbox.output import HELD_BYTES_MAX, SPILL_FILES_MAX, Output

T = TypeVar("T")


def inside(factory: LocalFactory, directory: Path, body: Callable[[LocalSandbox], Awaitable[T]]) -> T:
    async def main() -> T:
        sandbox = await factory.open("test/local", str(directory / "private"))
        try:
            async with asyncio.timeout(60):
                return await body(sandbox)
        finally:
            await sandbox.close()

    return asyncio.run(main())


async def environment(sandbox: LocalSandbox) -> dict[str, str]:
    entries = (await sandbox.exec("env -0")).output.decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def test_a_command_sees_the_allow_list_and_what_the_caller_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """X2, X8: a secret of the worker is in no command's environment, unless somebody said so."""
    monkeypatch.setenv("PROVIDER_API_KEY", "canary")
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("LANG", "C.UTF-8")
    shell_makes = {"PWD", "SHLVL", "_", "OLDPWD", "CAIRN_COMMAND"}

    plain = inside(local(tmp_path), tmp_path, environment)
    named = inside(local(tmp_path, env=("WANTED", "UNSET")), tmp_path, environment)
    given = inside(local(tmp_path, env={"WANTED": "no", "LANG": "C"}), tmp_path, environment)

    assert set(plain) <= {*PASSED_VARIABLES, *shell_makes}
    assert plain["LANG"] == "C.UTF-8"
    assert set(named) - set(plain) == {"WANTED"}
    assert (given["WANTED"], given["LANG"]) == ("no", "C")
    assert "canary" not in repr((plain, named, given))


def test_no_process_between_worker_and_command_carries_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """X8: what a command could read of its supervisor in /proc is empty, and its open files are its own three."""
    monkeypatch.setenv("PROVIDER_API_KEY", "canary")

    async def body(sandbox: LocalSandbox) -> tuple[bytes, bytes]:
        read = await sandbox.exec("tr '\\0' '\\n' < /proc/$PPID/environ; ls /proc/$$/fd > list; wc -l < list")
        return read.output, (await sandbox.exec("cat /proc/$PPID/cmdline")).output

    environ, cmdline = inside(local(tmp_path), tmp_path, body)

    assert b"canary" not in environ
    assert environ.strip() == b"3"
    assert b"canary" not in cmdline


def test_the_environment_and_directory_are_taken_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the worker's environment or directory changes no open sandbox."""
    monkeypatch.setenv("WANTED", "before")
    monkeypatch.chdir(tmp_path)
    factory = local(env=["WANTED"])

    async def body(sandbox: LocalSandbox) -> None:
        monkeypatch.setenv("WANTED", "after")
        monkeypatch.chdir("/")
        assert (await sandbox.exec('echo "$WANTED"; pwd -P')).output.decode() == f"before\n{here}\n"

    here = os.path.realpath(tmp_path)
    inside(factory, tmp_path, body)


def test_mistakes_of_the_caller_are_told() -> None:
    """One line that names the thing and what to do."""
    with pytest.raises(UsageError, match="is one string"):
        local(env="HOME")
    with pytest.raises(UsageError, match="is not a directory; create it or name another"):
        asyncio.run(local("/no/such/place").open("a/b", "/tmp"))


def test_it_says_that_it_is_no_isolation() -> None:
    """Whoever reads the help of `local` learns it first."""
    assert "no isolation" in (local.__doc__ or "")


def test_there_is_no_isolation(tmp_path: Path) -> None:
    """`..`, absolute paths, `~` and links lead wherever the user may go; nothing pretends otherwise."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "work").mkdir()

    async def body(sandbox: LocalSandbox) -> None:
        await sandbox.write("../outside", b"1")
        await sandbox.write("~/mine", b"2")
        assert await sandbox.read(str(tmp_path / "outside")) == b"1"
        assert (await sandbox.exec("cat ../outside ~/mine")).output == b"12"

    inside(local(tmp_path / "work", env={"HOME": str(home)}), tmp_path, body)

    assert (home / "mine").read_bytes() == b"2"


def test_a_command_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    """The end of the output is not the end of the command."""

    async def body(sandbox: LocalSandbox) -> None:
        result = await sandbox.exec("exec >&- 2>&-; while [ ! -e go ]; do sleep 0.01; done; touch done; exit 4")
        assert (result.exit_code, result.output) == (4, b"")

    async def both(sandbox: LocalSandbox) -> None:
        running = asyncio.ensure_future(body(sandbox))
        await asyncio.sleep(0.05)
        assert not running.done()
        await sandbox.write("go", b"")
        await running
        assert await sandbox.stat("done") is not None

    inside(local(tmp_path), tmp_path, both)


@pytest.mark.slow
def test_a_command_deaf_to_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    """Two seconds to write a last word, then SIGKILL; one that hears ends at once."""

    async def body(sandbox: LocalSandbox) -> tuple[float, float]:
        begun = time.monotonic()
        deaf = await sandbox.exec("trap '' TERM; echo on; while :; do sleep 60; done", timeout_seconds=0.1)
        middle = time.monotonic()
        hearing = await sandbox.exec("trap 'echo last; exit 7' TERM; echo on; sleep 60 & wait", timeout_seconds=0.1)
        assert (deaf.exit_code, deaf.output, deaf.timed_out) == (137, b"on\n", True)
        assert (hearing.exit_code, hearing.output, hearing.timed_out) == (7, b"on\nlast\n", True)
        return middle - begun, time.monotonic() - middle

    deaf, hearing = inside(local(tmp_path), tmp_path, body)

    assert deaf > 2.0
    assert hearing < 2.0


@pytest.mark.slow
def test_200_mb_of_output_need_little_memory(tmp_path: Path) -> None:
    """X2: a fire hose costs a bounded file and a quarter of a megabyte."""

    async def body(sandbox: LocalSandbox) -> None:
        tracemalloc.start()
        counted = 0

        def on_output(data: bytes) -> None:
            nonlocal counted
            counted += len(data)

        result = await sandbox.exec("yes | head -c 200M", on_output=on_output)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert counted == len(result.output) + result.dropped == 200 * 1024 * 1024
        assert len(result.output) == HELD_BYTES_MAX
        assert peak < 4_000_000

    inside(local(tmp_path), tmp_path, body)


def test_the_file_of_an_output_stops_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """X2: ten gigabytes of output do not fill the disk; the end is still held."""
    monkeypatch.setattr("cairn.harness.sandbox.output.SPILL_BYTES_MAX", 100_000)
    output = Output(str(tmp_path / "out"))
    for number in range(30_000):
        output.feed(b"%09d\n" % number)
    output.close()

    assert output.path is not None
    assert Path(output.path).stat().st_size == 100_000
    assert output.held.endswith(b"000029999\n")
    assert len(output.held) + output.dropped == 300_000


def test_old_output_files_make_room(tmp_path: Path) -> None:
    """X2: a sandbox keeps the newest few."""
    for _ in range(SPILL_FILES_MAX + 5):
        output = Output(str(tmp_path))
        output.feed(b"x" * 60_000)
        output.close()

    assert len(list(tmp_path.iterdir())) == SPILL_FILES_MAX
    assert output.path is not None
    assert Path(output.path).exists()


def test_output_that_cannot_be_kept_does_not_end_the_command(tmp_path: Path) -> None:
    """A directory that is a file, a full disk: only the file is missing."""
    (tmp_path / "private").touch()

    async def body(sandbox: LocalSandbox) -> None:
        result = await sandbox.exec("seq 1 100000; echo end")
        assert result.output.endswith(b"100000\nend\n")
        assert (result.exit_code, result.full_output) == (0, None)

    inside(local(tmp_path), tmp_path, body)


def test_an_error_in_the_listener_ends_the_command(tmp_path: Path) -> None:
    """Whoever follows the output is part of the call; nothing goes on behind its back."""

    async def body(sandbox: LocalSandbox) -> None:
        def on_output(data: bytes) -> None:
            raise LookupError("cannot show this")

        with pytest.raises(LookupError):
            await sandbox.exec("echo on; echo off", on_output=on_output)
        assert (await sandbox.exec("echo again")).output == b"again\n"

    inside(local(tmp_path), tmp_path, body)


def test_cancelled_commands_leave_no_descriptor(tmp_path: Path) -> None:
    """Cancelled at every stage: before the supervisor answers, before the start, while running."""

    async def body(sandbox: LocalSandbox) -> None:
        await sandbox.exec("true")
        before = len(os.listdir("/proc/self/fd"))
        for turns in range(0, 60, 2):
            running = asyncio.ensure_future(sandbox.exec("echo on; sleep 60"))
            for _ in range(turns):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) <= before + 1

    inside(local(tmp_path), tmp_path, body)


def test_a_cancel_during_the_cancel_still_waits_for_the_end(tmp_path: Path) -> None:
    """However often one cancels, nothing of the tree acts after the call has returned."""

    async def body(sandbox: LocalSandbox) -> None:
        seen = asyncio.Event()
        command = "trap '' TERM; echo on; while :; do echo x >> beat; sleep 0.02; done"
        running = asyncio.ensure_future(sandbox.exec(command, on_output=lambda _: seen.set()))
        await seen.wait()
        while not running.done():
            running.cancel()
            await asyncio.sleep(0.01)
        size = (tmp_path / "beat").stat().st_size
        await asyncio.sleep(0.1)
        assert (tmp_path / "beat").stat().st_size == size

    inside(local(tmp_path, grace_seconds=0.2), tmp_path, body)


def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    """Renaming over it would be allowed; whoever made it read-only did not mean that. (Root may write anything.)"""
    path = tmp_path / "fixed"
    path.write_bytes(b"old")
    path.chmod(0o444)

    async def body(sandbox: LocalSandbox) -> None:
        if os.geteuid() == 0:
            await sandbox.write("fixed", b"new")
            assert path.stat().st_mode & 0o777 == 0o444
        else:
            with pytest.raises(PermissionError):
                await sandbox.write("fixed", b"new")

    inside(local(tmp_path), tmp_path, body)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A name that is too long, a directory in the way."""
    (tmp_path / "folder").mkdir()

    async def body(sandbox: LocalSandbox) -> None:
        with pytest.raises(OSError, match="too long"):
            await sandbox.write("x" * 300, b"1")
        with pytest.raises(SandboxError):
            await sandbox.write("/dev/full", b"1")
        assert os.listdir(tmp_path) == ["folder"]

    inside(local(tmp_path), tmp_path, body)
