"""The bash tool: how a command ended is told, and what it wrote is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.harness.sandbox.support import Call, Desk, at_desk, text_of

from cairn.errors import ToolError
from cairn.harness.sandbox.bash import bash_tool
from cairn.harness.sandbox.protocol import ExecResult
from cairn.harness.tools import ToolResult


def test_output_and_exit_code(tmp_path: Path) -> None:
    """P27: a code other than 0 is an error that keeps the output; silence is said."""

    async def body(desk: Desk) -> None:
        assert await desk.use("bash", command="echo out; echo err >&2") == "out\nerr"
        assert await desk.use("bash", command="true") == "(no output)"
        result = await desk.result("bash", command="echo why; exit 3")
        assert (text_of(result), result.is_error) == ("why\n\n[Exit code 3.]", True)
        assert result.details == {"exit_code": 3, "timed_out": False, "bytes": 4, "full_output": None}
        assert await desk.refused("bash", command="kill -KILL $$") == "(no output)\n\n[Exit code 137: ended by SIGKILL.]"

    at_desk(tmp_path, body)


def test_a_timeout_keeps_the_output(tmp_path: Path) -> None:
    """P27."""

    async def body(desk: Desk) -> None:
        result = await desk.result("bash", command="echo before; sleep 60", timeout="0.2")
        assert text_of(result) == "before\n\n[Stopped: it was still running after 0.2 seconds.]"
        assert (result.is_error, result.details["timed_out"]) == (True, True)
        for wrong in (0, -1, 86_400):
            assert "timeout" in await desk.refused("bash", command="true", timeout=wrong)

    at_desk(tmp_path, body)


def test_a_cancelled_command_keeps_its_output_on_the_exception(tmp_path: Path) -> None:
    """P27: the loop, which decides what a cancelled call is recorded as, has it."""

    async def body(desk: Desk) -> None:
        running = asyncio.ensure_future(desk.result("bash", command="echo before; sleep 60"))
        await desk.call.has_shown("before\n")
        running.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
        kept = caught.value.tool_result  # type: ignore[attr-defined]
        assert isinstance(kept, ToolResult)
        assert (kept.content, kept.is_error) == ("before\n\n[The command was cancelled.]", True)

    at_desk(tmp_path, body)


def test_long_output_is_shown_from_its_end_with_a_file_that_has_it_all(tmp_path: Path) -> None:
    """P27: 2,000 lines; readable by this user alone."""

    async def body(desk: Desk) -> None:
        text = await desk.use("bash", command="seq 1 5000")
        shown, _, note = text.partition("\n\n")
        assert shown == "\n".join(str(n) for n in range(3001, 5001))
        assert note.startswith("[The last 2000 lines of 5000 lines. Everything is in ")
        _is_private_and_holds(Path(note.removesuffix(".]").rpartition(" ")[2]), "".join(f"{n}\n" for n in range(1, 5001)))

    at_desk(tmp_path, body)


def _is_private_and_holds(path: Path, text: str) -> None:
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_wide_output_is_cut_by_bytes(tmp_path: Path) -> None:
    """P27: 50 KB, at a line; a single endless line is shown from its end."""

    async def body(desk: Desk) -> None:
        text = await desk.use("bash", command="for i in $(seq 100); do printf '%0999d\\n' $i; done")
        assert text.startswith("0")
        assert "[The last 51 lines of 100 lines. Everything is in " in text
        text = await desk.use("bash", command="head -c 100000 /dev/zero | tr '\\0' x")
        shown, _, note = text.partition("\n\n")
        assert shown == "x" * 51_200
        assert note.startswith("[The last 50.0 KB of 97.7 KB. Everything is in ")

    at_desk(tmp_path, body)


def test_a_background_process_is_told(tmp_path: Path) -> None:
    """P27: ended when it held the output, left when it did not."""

    async def body(desk: Desk) -> None:
        told = await desk.use("bash", command="sleep 60 & echo on")
        assert told == "on\n\n[A background process still held the output when the command had ended, and was ended too.]"
        told = await desk.use("bash", command="sleep 60 > /dev/null 2>&1 & echo on")
        assert told == "on\n\n[Left running in the background: 1. Ended at the latest when this work is done.]"
        assert await desk.use("bash", command="pgrep -c -x sleep || ls -d /proc/[0-9]* | wc -l") != "0"

    at_desk(tmp_path, body)


def test_the_process_is_recorded_and_progress_shown(tmp_path: Path) -> None:
    """S8: before the command begins; readers see the last 4 KB, in whole characters."""

    async def body(desk: Desk) -> None:
        await desk.use("bash", command="for i in $(seq 3000); do printf 'é€😀'; done; echo; echo end")
        assert len(desk.call.processes) == 1
        assert desk.call.shown[-1].endswith("é€😀\nend\n")
        assert all(len(text.encode()) <= 4096 for text in desk.call.shown)
        assert not any("\ufffd" in text for text in desk.call.shown)

    at_desk(tmp_path, body)


def test_a_character_split_between_two_chunks_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    """No replacement character for what is only late; one for what is wrong."""

    async def body(desk: Desk) -> None:
        command = (
            r"printf 'a\303'; while [ ! -e go ]; do sleep 0.01; done; printf '\251b'; "
            r"while [ ! -e on ]; do sleep 0.01; done; printf '\377'"
        )
        running = asyncio.ensure_future(desk.use("bash", command=command))
        for wanted, file in (("a", "go"), ("aéb", "on")):
            await desk.call.has_shown(wanted)
            (desk.folder / file).touch()
        assert await running == "aéb\ufffd"
        assert desk.call.shown[:2] == ["a", "aéb"]

    at_desk(tmp_path, body)


def test_colours_are_not_shown(tmp_path: Path) -> None:
    """They cost tokens and say nothing."""

    async def body(desk: Desk) -> None:
        assert await desk.use("bash", command=r"printf '\033[31mred\033[0m\n50%%\r100%%\n'") == "red\n100%"

    at_desk(tmp_path, body)


def test_a_command_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    """One that is too long, one with a NUL; and there may be no sandbox at all."""

    async def body(desk: Desk) -> None:
        assert "write it to a file" in await desk.refused("bash", command="echo " + "x" * 140_000)
        assert "NUL" in await desk.refused("bash", command="echo \0")
        with pytest.raises(ToolError, match="no sandbox"):
            await bash_tool().run(Call(None), {"command": "true"})

    at_desk(tmp_path, body)


def test_a_file_that_stopped_growing_is_not_called_everything(tmp_path: Path) -> None:
    """A runaway command does not fill the disk, and the model knows that the file is a part."""

    class Full:
        async def exec(self, command: str, **options: object) -> ExecResult:
            return ExecResult(0, b"end\n", dropped=5_000_000, full_output=str(tmp_path / "part"))

        async def stat(self, path: str) -> object:
            class Info:
                size = 1_048_576

            return Info()

    async def main() -> str:
        return text_of_any(await bash_tool().run(Call(Full()), {"command": "yes"}))  # type: ignore[arg-type]

    assert "That file holds the first 1.0 MB only." in asyncio.run(main())


def text_of_any(result: ToolResult) -> str:
    assert isinstance(result.content, str)
    return result.content
