"""Commands: output, order, environment, and what cannot be run."""

from __future__ import annotations

import asyncio

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import Sandbox
from cairn.testing.sandbox.case import Case, raises


class CommandCases(Case):
    """What `exec` promises, whatever runs the commands."""

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

    def test_output_is_handed_on_while_the_command_runs(self) -> None:
        """Its beginning is there before its end, and together they are the output."""

        async def body(sandbox: Sandbox) -> None:
            chunks: list[bytes] = []
            seen = asyncio.Event()

            def on_output(data: bytes) -> None:
                chunks.append(data)
                seen.set()

            running = asyncio.ensure_future(sandbox.exec("echo first; sleep 2; echo second", on_output=on_output))
            await seen.wait()
            assert not running.done()
            assert b"".join(chunks) == b"first\n"
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
            result = await sandbox.exec("for n in 0 1 2 3 4; do seq $((n * 100000 + 1)) $((n * 100000 + 100000)); done")
            whole = b"".join(b"%d\n" % n for n in range(1, 500_001))
            assert len(result.output) <= 1024 * 1024
            assert whole.endswith(result.output)
            assert len(result.output) + result.dropped == len(whole)
            assert result.full_output is not None
            assert await sandbox.read(result.full_output) == whole

        self.judge(body)

    def test_a_closed_sandbox_runs_nothing(self) -> None:
        """It says that it is closed."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.close()
            await raises(SandboxError, sandbox.exec("echo"))

        self.judge(body)
