"""What every sandbox has to do, as tests: inherit `SandboxContract` in a test module and say how yours is made.

    class TestMine(SandboxContract):
        def factory(self, directory):
            return my_sandbox(directory / "files")

Laws. Each test opens a sandbox of its own over an empty directory and closes it. It uses nothing but the `Sandbox` protocol and
a POSIX shell with the usual tools, so the same suite judges a host, a container and a remote machine. Whether a process is
dead is seen by what it no longer does: it would go on writing to a file.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import ProcessInfo, Sandbox, SandboxFactory

T = TypeVar("T")

#: Appends to a file every 20 ms for as long as it lives, whatever it is asked.
HEARTBEAT = "trap '' TERM HUP INT; while :; do echo x >> beat; sleep 0.02; done"

#: Ten times what a living heartbeat needs to be seen.
STILL_SECONDS = 0.2


class SandboxContract:
    """The suite. `factory` is given a fresh directory on this machine, for sandboxes that need one."""

    def factory(self, directory: Path) -> SandboxFactory:
        raise NotImplementedError

    def judge(self, body: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Run a test's body with an open sandbox, within a time that only a hang can exceed."""

        async def main() -> T:
            async with asyncio.timeout(60), self._open() as sandbox:
                return await body(sandbox)

        return asyncio.run(main())

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Sandbox]:
        with tempfile.TemporaryDirectory(prefix="cairn-sandbox-") as name:
            directory = _furnished(name)
            sandbox = await self.factory(directory).open("test/sandbox", str(directory / "private"))
            try:
                yield sandbox
            finally:
                await sandbox.close()

    # ------------------------------------------------------------------ commands

    def test_a_command_returns_its_output_and_exit_code(self) -> None:
        """The plain case."""

        async def body(sandbox: Sandbox) -> None:
            result = await sandbox.exec("echo out; exit 3")
            assert (result.exit_code, result.output) == (3, b"out\n")
            assert not (result.timed_out or result.background or result.dropped)

        self.judge(body)

    def test_stdout_and_stderr_come_in_the_order_they_were_written(self) -> None:
        """One stream, as on a terminal."""

        async def body(sandbox: Sandbox) -> None:
            result = await sandbox.exec("echo 1; echo 2 >&2; echo 3; echo 4 >&2")
            assert result.output == b"1\n2\n3\n4\n"

        self.judge(body)

    def test_standard_input_is_empty(self) -> None:
        """A command that asks for input gets the end of it, and does not wait for ever."""

        async def body(sandbox: Sandbox) -> None:
            result = await sandbox.exec("cat; read line; echo status $?", timeout_seconds=10)
            assert result.output == b"status 1\n"

        self.judge(body)

    def test_a_command_ended_by_a_signal_has_128_and_its_number(self) -> None:
        """As shells say it."""

        async def body(sandbox: Sandbox) -> None:
            assert (await sandbox.exec("kill -KILL $$")).exit_code == 137
            assert (await sandbox.exec("kill -TERM $$")).exit_code == 143

        self.judge(body)

    def test_a_command_that_does_not_exist_is_a_result(self) -> None:
        """127, with the shell's words; not an exception."""

        async def body(sandbox: Sandbox) -> None:
            result = await sandbox.exec("no-such-program-anywhere")
            assert result.exit_code == 127
            assert b"no-such-program-anywhere" in result.output

        self.judge(body)

    def test_a_writer_whose_reader_has_gone_is_ended_by_sigpipe(self) -> None:
        """`yes | head` has to end: signals the worker ignores are not ignored in commands."""

        async def body(sandbox: Sandbox) -> None:
            result = await sandbox.exec("yes | head -n 2", timeout_seconds=10)
            assert (result.output, result.timed_out) == (b"y\ny\n", False)

        self.judge(body)

    def test_commands_run_where_asked_and_with_what_is_added_to_the_environment(self) -> None:
        """`cwd` is relative to the sandbox's own; `env` adds to it, for this command only."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("below/marker", b"")
            result = await sandbox.exec('ls; echo "$COLOUR"', cwd="below", env={"COLOUR": "blue green"})
            assert result.output == b"marker\nblue green\n"
            assert (await sandbox.exec('echo "<$COLOUR>"')).output == b"<>\n"
            assert (await sandbox.exec("pwd -P")).output.decode().strip() == await sandbox.real_path(sandbox.cwd)

        self.judge(body)

    def test_a_directory_that_does_not_exist_is_an_error(self) -> None:
        """The command could not be run at all."""

        async def body(sandbox: Sandbox) -> None:
            await raises(SandboxError, sandbox.exec("echo never", cwd="no/such/directory"))

        self.judge(body)

    def test_a_nul_character_is_refused(self) -> None:
        """In a command, a variable and a path; nothing is cut short at it."""

        async def body(sandbox: Sandbox) -> None:
            await raises(SandboxError, sandbox.exec("echo a\0b"))
            await raises(SandboxError, sandbox.exec("echo", env={"A": "a\0b"}))
            await raises(SandboxError, sandbox.read("a\0b"))

        self.judge(body)

    def test_output_is_handed_on_as_it_comes_and_not_after_the_end(self) -> None:
        """What `on_output` got is the output, and the first of it came while the command ran."""

        async def body(sandbox: Sandbox) -> None:
            chunks: list[bytes] = []
            seen = asyncio.Event()

            def on_output(data: bytes) -> None:
                chunks.append(data)
                seen.set()

            command = "echo first; while [ ! -e go ]; do sleep 0.01; done; echo second"
            running = asyncio.ensure_future(sandbox.exec(command, on_output=on_output))
            await seen.wait()
            assert b"".join(chunks) == b"first\n"
            await sandbox.write("go", b"")
            result = await running
            assert b"".join(chunks) == result.output == b"first\nsecond\n"

        self.judge(body)

    def test_bytes_pass_unchanged(self) -> None:
        """Output need not be text."""

        async def body(sandbox: Sandbox) -> None:
            assert (await sandbox.exec(r"printf '\377\000\376\303'")).output == b"\xff\0\xfe\xc3"

        self.judge(body)

    def test_long_output_is_bounded_and_whole_in_its_file(self) -> None:
        """The end is kept, what is missing is counted, and the file has everything."""

        async def body(sandbox: Sandbox) -> None:
            result = await sandbox.exec("seq 1 500000")
            whole = b"".join(b"%d\n" % n for n in range(1, 500_001))
            assert len(result.output) <= 1024 * 1024
            assert whole.endswith(result.output)
            assert len(result.output) + result.dropped == len(whole)
            assert result.full_output is not None
            assert await sandbox.read(result.full_output) == whole

        self.judge(body)

    def test_the_process_is_told_before_the_command_begins(self) -> None:
        """S8: the intent, with the process it runs in, is recorded before the first instruction."""

        async def body(sandbox: Sandbox) -> None:
            began_early: list[bool] = []

            async def on_started(process: ProcessInfo) -> None:
                assert process.pid > 0
                await asyncio.sleep(0.05)  # time that a command which did not wait would use
                began_early.append(await sandbox.stat("began") is not None)

            result = await sandbox.exec("touch began; echo ran", on_started=on_started)
            assert (result.output, began_early) == (b"ran\n", [False])

        self.judge(body)

    def test_a_command_whose_start_could_not_be_recorded_never_begins(self) -> None:
        """S8: an error in `on_started` is raised, and nothing has happened."""

        async def body(sandbox: Sandbox) -> None:
            async def on_started(process: ProcessInfo) -> None:
                raise LookupError("the log is gone")

            await raises(LookupError, sandbox.exec("touch began", on_started=on_started))
            await asyncio.sleep(0.05)
            assert await sandbox.stat("began") is None

        self.judge(body)

    def test_a_timeout_ends_the_whole_tree_and_keeps_the_output(self) -> None:
        """A daemon that left its session and ignores TERM, too."""

        async def body(sandbox: Sandbox) -> None:
            command = f"echo before; (setsid sh -c {quoted(HEARTBEAT)} &) ; {HEARTBEAT}"
            result = await sandbox.exec(command, timeout_seconds=0.3)
            assert (result.timed_out, result.output) == (True, b"before\n")
            await self._assert_still(sandbox)

        self.judge(body)

    def test_cancellation_ends_the_whole_tree_before_it_returns(self) -> None:
        """Nothing acts after the cancelled call has returned."""

        async def body(sandbox: Sandbox) -> None:
            seen = asyncio.Event()
            command = f"(setsid sh -c {quoted(HEARTBEAT)} > /dev/null 2>&1 &) ; echo on; {HEARTBEAT}"
            running = asyncio.ensure_future(sandbox.exec(command, on_output=lambda _: seen.set()))
            await seen.wait()
            running.cancel()
            await raises(asyncio.CancelledError, running)
            await self._assert_still(sandbox)

        self.judge(body)

    async def _assert_still(self, sandbox: Sandbox) -> None:
        before = await sandbox.stat("beat")
        await asyncio.sleep(STILL_SECONDS)
        after = await sandbox.stat("beat")
        assert (before and before.size) == (after and after.size), "a process of the tree still runs"

    def test_a_background_process_that_holds_the_output_is_ended_and_told(self) -> None:
        """The command's end is not delayed by a daemon that nobody waits for."""

        async def body(sandbox: Sandbox) -> None:
            result = await sandbox.exec(f"(setsid sh -c {quoted(HEARTBEAT)} &); echo started", timeout_seconds=30)
            assert (result.exit_code, result.output, result.background) == (0, b"started\n", True)
            await self._assert_still(sandbox)

        self.judge(body)

    def test_closing_ends_what_was_left_running(self) -> None:
        """A process that let go of the output may go on, but not longer than its sandbox."""

        async def main() -> None:
            with tempfile.TemporaryDirectory(prefix="cairn-sandbox-") as name:
                directory = _furnished(name)
                first = await self.factory(directory).open("test/sandbox", str(directory / "private"))
                await first.exec(f"setsid sh -c {quoted(HEARTBEAT)} > /dev/null 2>&1 &")
                await first.close()
                await first.close()
                second = await self.factory(directory).open("test/sandbox", str(directory / "private"))
                await self._assert_still(second)
                await second.close()

        asyncio.run(main())

    def test_closing_ends_what_runs(self) -> None:
        """Whoever awaits the command gets an answer, and nothing of it acts after `close` has returned."""

        async def main() -> None:
            with tempfile.TemporaryDirectory(prefix="cairn-sandbox-") as name:
                directory = _furnished(name)
                first = await self.factory(directory).open("test/sandbox", str(directory / "private"))
                seen = asyncio.Event()
                running = asyncio.ensure_future(first.exec(f"echo on; {HEARTBEAT}", on_output=lambda _: seen.set()))
                await seen.wait()
                await first.close()
                second = await self.factory(directory).open("test/sandbox", str(directory / "private"))
                await self._assert_still(second)
                await second.close()
                async with asyncio.timeout(10):
                    await asyncio.wait([running])
                assert running.exception() is not None or running.result().exit_code != 0

        asyncio.run(main())

    def test_a_closed_sandbox_runs_nothing(self) -> None:
        """It says that it is closed."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.close()
            await raises(SandboxError, sandbox.exec("echo"))

        self.judge(body)

    def test_commands_run_beside_each_other(self) -> None:
        """Two that wait for each other's files end; neither sees the other's output."""

        async def body(sandbox: Sandbox) -> None:
            meet = "touch {0}; while [ ! -e {1} ]; do sleep 0.01; done; echo {0}"
            one, two = await asyncio.gather(
                sandbox.exec(meet.format("one", "two"), timeout_seconds=20),
                sandbox.exec(meet.format("two", "one"), timeout_seconds=20),
            )
            assert (one.output, two.output) == (b"one\n", b"two\n")

        self.judge(body)

    def test_reaping_what_has_ended_ends_nothing(self) -> None:
        """False, as often as one asks."""

        async def body(sandbox: Sandbox) -> None:
            seen: list[ProcessInfo] = []

            async def on_started(process: ProcessInfo) -> None:
                seen.append(process)

            await sandbox.exec("true", on_started=on_started)
            assert not await sandbox.reap(seen[0])
            assert not await sandbox.reap(seen[0])

        self.judge(body)

    # ------------------------------------------------------------------ files

    def test_what_was_written_is_read(self) -> None:
        """Any bytes, an empty file, names with spaces and accents, directories made on the way."""

        async def body(sandbox: Sandbox) -> None:
            for path, data in {"a/b/c.bin": bytes(range(256)), "empty": b"", "naïve file – ü.txt": "ü".encode()}.items():
                await sandbox.write(path, data)
                assert await sandbox.read(path) == data

        self.judge(body)

    def test_a_part_of_a_file_is_read(self) -> None:
        """From `start`, at most `size`, fewer where it ends, none past the end."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("digits", b"0123456789")
            assert await sandbox.read("digits", start=3) == b"3456789"
            assert await sandbox.read("digits", start=3, size=2) == b"34"
            assert await sandbox.read("digits", start=8, size=5) == b"89"
            assert await sandbox.read("digits", start=99, size=5) == b""
            assert await sandbox.read("digits", size=0) == b""

        self.judge(body)

    def test_writing_replaces_the_content_and_keeps_the_mode(self) -> None:
        """A script stays executable; nothing of a longer predecessor is left."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("script", b"#!/bin/sh\necho long ago\n")
            await sandbox.exec("chmod 750 script")
            await sandbox.write("script", b"#!/bin/sh\necho now\n")
            assert (await sandbox.exec("./script")).output == b"now\n"
            info = await sandbox.stat("script")
            assert info is not None
            assert info.mode & 0o777 == 0o750

        self.judge(body)

    def test_a_reader_sees_the_old_file_or_the_new_one(self) -> None:
        """Writes are atomic: no reader ever gets a mixture or a part."""

        async def body(sandbox: Sandbox) -> None:
            old, new = b"o" * 300_000, b"n" * 200_000
            await sandbox.write("file", old)

            async def write() -> None:
                for turn in range(20):
                    await sandbox.write("file", old if turn % 2 else new)

            writing = asyncio.ensure_future(write())
            while not writing.done():
                assert await sandbox.read("file") in (old, new)
            await writing

        self.judge(body)

    def test_files_and_commands_see_the_same(self) -> None:
        """What one does, the other finds."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("in.txt", b"text")
            assert (await sandbox.exec("cat in.txt; printf made > out.txt")).output == b"text"
            assert await sandbox.read("out.txt") == b"made"
            assert await sandbox.read(f"{sandbox.cwd}/out.txt") == b"made"

        self.judge(body)

    def test_errors_of_files_are_pythons_own(self) -> None:
        """Missing, a directory, not a directory: each its exception."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("folder/file", b"")
            await raises(FileNotFoundError, sandbox.read("missing"))
            await raises(IsADirectoryError, sandbox.read("folder"))
            await raises(IsADirectoryError, sandbox.write("folder", b""))
            await raises(NotADirectoryError, sandbox.read("folder/file/below"))
            await raises(FileNotFoundError, sandbox.list("missing"))
            await raises(NotADirectoryError, sandbox.list("folder/file"))

        self.judge(body)

    def test_what_is_no_file_is_not_read_or_written(self) -> None:
        """A pipe that nobody writes to does not hold up the reader."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.exec("mkfifo pipe")
            await raises(SandboxError, sandbox.read("pipe"))
            await raises(SandboxError, sandbox.write("pipe", b""))
            info = await sandbox.stat("pipe")
            assert info is not None
            assert info.kind == "other"

        self.judge(body)

    def test_stat_says_what_is_there(self) -> None:
        """Kind and size, links followed; None for nothing; a link to nowhere is itself."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("folder/file", b"12345")
            await sandbox.exec("ln -s folder/file link; ln -s nowhere broken; ln -s loop loop")
            found = {name: await sandbox.stat(name) for name in ("folder", "folder/file", "link", "broken", "loop", "missing")}
            kinds = {name: info and info.kind for name, info in found.items()}
            assert kinds == {
                "folder": "directory",
                "folder/file": "file",
                "link": "file",
                "broken": "symlink",
                "loop": "symlink",
                "missing": None,
            }
            assert found["link"] is not None
            assert found["link"].size == 5
            assert await sandbox.stat("folder/file/below") is None

        self.judge(body)

    def test_a_directory_is_listed_by_name(self) -> None:
        """Hidden entries too; links are themselves; paths can be used as they are."""

        async def body(sandbox: Sandbox) -> None:
            for path in ("d/b", "d/a", "d/.hidden", "d/sub/x"):
                await sandbox.write(path, b"1")
            await sandbox.exec("ln -s a d/link")
            entries = await sandbox.list("d")
            names = [(entry.path.rpartition("/")[2], entry.kind) for entry in entries]
            assert names == [(".hidden", "file"), ("a", "file"), ("b", "file"), ("link", "symlink"), ("sub", "directory")]
            assert await sandbox.read(entries[1].path) == b"1"

        self.judge(body)

    def test_removing_leaves_nothing_and_may_be_repeated(self) -> None:
        """A file, a tree, a link without what it leads to, and what is not there."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("tree/a/b", b"")
            await sandbox.write("kept/file", b"1")
            await sandbox.exec("ln -s kept link")
            for path in ("tree/a/b", "tree", "tree", "link", "missing"):
                await sandbox.remove(path)
                assert await sandbox.stat(path) is None
            assert await sandbox.read("kept/file") == b"1"

        self.judge(body)

    def test_writing_through_a_link_writes_what_it_leads_to(self) -> None:
        """The link stays a link, and both names have one real path."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("folder/file", b"old")
            await sandbox.exec("ln -s folder/file link; ln -s made-later dangling")
            await sandbox.write("link", b"new")
            await sandbox.write("dangling", b"made")
            assert await sandbox.read("folder/file") == b"new"
            assert await sandbox.read("made-later") == b"made"
            assert {entry.path.rpartition("/")[2]: entry.kind for entry in await sandbox.list(".")}["link"] == "symlink"
            assert await sandbox.real_path("link") == await sandbox.real_path("folder/../folder/file")

        self.judge(body)

    def test_a_cancelled_write_writes_nothing_afterwards(self) -> None:
        """The file is as before or as asked, and stays it."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("file", b"old")
            writing = asyncio.ensure_future(sandbox.write("file", b"n" * 1_000_000))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            found = await sandbox.read("file")
            assert found in (b"old", b"n" * 1_000_000)
            await asyncio.sleep(0.05)
            assert await sandbox.read("file") == found

        self.judge(body)


def _furnished(name: str) -> Path:
    directory = Path(name).resolve()
    (directory / "files").mkdir()
    (directory / "private").mkdir()
    return directory


def quoted(command: str) -> str:
    """The command as one word of a shell."""
    return "'" + command.replace("'", "'\\''") + "'"


async def raises(expected: type[BaseException], work: Awaitable[object]) -> None:
    """The work raises the error, or one derived from it."""
    try:
        await work
    except expected:
        return
    raise AssertionError(f"{expected.__name__} was not raised")
