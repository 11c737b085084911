"""Real processes: told before they begin, side by side, dead when they are ended; and what a system has beside files."""

from __future__ import annotations

import asyncio
import tempfile

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import ProcessInfo, Sandbox
from cairn.testing.sandbox.case import HEARD, HEARTBEAT, Case, furnished, quoted, raises


class ProcessCases(Case):
    """What `exec`, `reap` and `close` promise where a command is a tree of processes."""

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
            result = await sandbox.exec(command, timeout_seconds=1)
            assert (result.timed_out, result.output) == (True, b"before\n")
            await self.assert_still(sandbox)

        self.judge(body)

    def test_cancellation_ends_the_whole_tree_before_it_returns(self) -> None:
        """Nothing acts after the cancelled call has returned."""

        async def body(sandbox: Sandbox) -> None:
            seen = asyncio.Event()
            command = f"(setsid sh -c {quoted(HEARTBEAT)} > /dev/null 2>&1 &) ; {HEARD}; echo on; {HEARTBEAT}"
            running = asyncio.ensure_future(sandbox.exec(command, on_output=lambda _: seen.set()))
            await seen.wait()
            running.cancel()
            await raises(asyncio.CancelledError, running)
            await self.assert_still(sandbox)

        self.judge(body)

    def test_a_background_process_that_holds_the_output_is_ended_and_told(self) -> None:
        """The command's end is not delayed by a daemon that nobody waits for."""

        async def body(sandbox: Sandbox) -> None:
            command = f"(setsid sh -c {quoted(HEARTBEAT)} &); {HEARD}; echo started"
            result = await sandbox.exec(command, timeout_seconds=30)
            assert (result.exit_code, result.output, result.background) == (0, b"started\n", True)
            await self.assert_still(sandbox)

        self.judge(body)

    def test_closing_ends_what_was_left_running(self) -> None:
        """A process that let go of the output may go on, but not longer than its sandbox."""

        async def main() -> None:
            with tempfile.TemporaryDirectory(prefix="cairn-sandbox-") as name:
                directory = furnished(name)
                first = await self.factory(directory).open("test/sandbox", str(directory / "private"))
                await first.exec(f"setsid sh -c {quoted(HEARTBEAT)} > /dev/null 2>&1 & {HEARD}")
                await first.close()
                await first.close()
                second = await self.factory(directory).open("test/sandbox", str(directory / "private"))
                await self.assert_still(second)
                await second.close()

        asyncio.run(main())

    def test_closing_ends_what_runs(self) -> None:
        """Whoever awaits the command gets an answer, and nothing of it acts after `close` has returned."""

        async def main() -> None:
            with tempfile.TemporaryDirectory(prefix="cairn-sandbox-") as name:
                directory = furnished(name)
                first = await self.factory(directory).open("test/sandbox", str(directory / "private"))
                seen = asyncio.Event()
                command = f"({HEARTBEAT}) & {HEARD}; echo on; wait"
                running = asyncio.ensure_future(first.exec(command, on_output=lambda _: seen.set()))
                await seen.wait()
                await first.close()
                second = await self.factory(directory).open("test/sandbox", str(directory / "private"))
                await self.assert_still(second)
                await second.close()
                async with asyncio.timeout(10):
                    await asyncio.wait([running])
                assert running.exception() is not None or running.result().exit_code != 0

        asyncio.run(main())

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
