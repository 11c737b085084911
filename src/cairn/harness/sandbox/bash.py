"""The `bash` tool: a command to its end, what it wrote, and how it ended.

Laws. The process tree is recorded before the command's first instruction. Whatever ends the command, what it had written until
then is kept: on cancellation too, where it rides on the exception as `tool_result`.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from cairn.errors import SandboxError, ToolError
from cairn.harness.sandbox.output import HELD_BYTES_MAX, SPILL_BYTES_MAX
from cairn.harness.sandbox.protocol import ExecResult
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, TEXT_LINES_MAX, decode, printable, size_of, tail
from cairn.harness.sandbox.toolbox import make_tool, sandbox_of
from cairn.harness.tools import Tool, ToolResult

#: Without a timeout a server started in the foreground would hold the conversation. Builds and test runs fit into five
#: minutes; the model asks for more where it needs to.
TIMEOUT_SECONDS_DEFAULT = 300
TIMEOUT_SECONDS_MAX = 3_600

#: The loop's own deadline, behind ours: ours keeps the output.
LOOP_SLACK_SECONDS = 30

#: What readers are shown of a running command: its last 4 KB.
PROGRESS_BYTES = 4 * 1024


#: How a shell of real processes behaves between and after calls.
REAL_SHELL = (
    "Each call is a new shell. A process left in the background is ended with the call, unless its output is redirected."
)


def bash_tool(about_shell: str = REAL_SHELL) -> Tool:
    """Runs commands. Repeat class `never`: nobody knows what a command does."""
    return make_tool(
        "bash",
        f"""Run a shell command in the working directory and wait for it to end. Returns what it wrote to stdout and stderr: the
        last {TEXT_LINES_MAX} lines or {TEXT_BYTES_MAX // 1024} KB, and where the rest is. There is no input and no terminal.
        {about_shell}""",
        {
            "command": {"type": "string", "minLength": 1, "description": "The command, or several lines of them."},
            "timeout": {
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": TIMEOUT_SECONDS_MAX,
                "description": f"Seconds after which it is stopped; {TIMEOUT_SECONDS_DEFAULT} if not given.",
            },
        },
        _run,
        required=("command",),
        repeat="never",
        writes=True,
        timeout_seconds=TIMEOUT_SECONDS_MAX + LOOP_SLACK_SECONDS,
    )


async def _run(context: Any, arguments: dict[str, Any]) -> ToolResult:
    sandbox = sandbox_of(context)
    timeout = arguments.get("timeout") or TIMEOUT_SECONDS_DEFAULT
    recent = bytearray()

    def on_output(data: bytes) -> None:
        recent.extend(data[-HELD_BYTES_MAX:])
        if len(recent) > 2 * HELD_BYTES_MAX:
            del recent[:-HELD_BYTES_MAX]
        context.progress(_latest(recent))

    try:
        result = await sandbox.exec(
            arguments["command"],
            timeout_seconds=timeout,
            on_output=on_output,
            on_started=context.process_started,
        )
    except asyncio.CancelledError as cancelled:
        cancelled.tool_result = _told(ExecResult(130, bytes(recent[-HELD_BYTES_MAX:])), "[The command was cancelled.]")  # type: ignore[attr-defined]
        raise
    except SandboxError as error:
        raise ToolError(_after_output(recent, str(error))) from error
    ending = await _ending(sandbox, result, timeout)
    return _told(result, *ending)


def _latest(recent: bytearray) -> str:
    """The end of the output, from a character's beginning on and without a character that is still incomplete."""
    data = bytes(recent[-PROGRESS_BYTES:])
    while data and data[0] & 0xC0 == 0x80:
        data = data[1:]
    for cut in range(1, min(4, len(data) + 1)):
        if data[-cut] >= 0xC0:  # a lead byte; how long its character is decides
            length = 2 if data[-cut] < 0xE0 else 3 if data[-cut] < 0xF0 else 4
            data = data[:-cut] if length > cut else data
            break
        if data[-cut] < 0x80:
            break
    return printable(decode(data))


def _after_output(output: bytearray, reason: str) -> str:
    text = tail(printable(decode(bytes(output)))).text
    return f"{text}\n\n[{reason}]" if text else reason


async def _ending(sandbox: Any, result: ExecResult, timeout: float) -> list[str]:
    """A sentence for everything about the end that the output does not say."""
    notes = []
    if result.full_output is not None:
        info = await sandbox.stat(result.full_output)
        if info is not None and info.size < len(result.output) + result.dropped:
            notes.append(f"[That file holds the first {size_of(min(info.size, SPILL_BYTES_MAX))} only.]")
    if result.background:
        notes.append("[A background process still held the output when the command had ended, and was ended too.]")
    if result.left_running:
        notes.append(f"[Left running in the background: {result.left_running}. Ended at the latest when this work is done.]")
    if result.timed_out:
        notes.append(f"[Stopped: it was still running after {timeout:g} seconds.]")
    elif result.exit_code:
        notes.append(f"[{_exit(result.exit_code)}]")
    return notes


def _exit(code: int) -> str:
    try:
        return f"Exit code {code}: ended by {signal.Signals(code - 128).name}."
    except ValueError:
        return f"Exit code {code}."


def _told(result: ExecResult, *notes: str) -> ToolResult:
    written = len(result.output) + result.dropped
    cut = tail(printable(decode(result.output)))
    parts = [cut.text] if cut.text.strip() else []
    if result.dropped or not cut.is_whole:
        of = size_of(written) if result.dropped or cut.broken else f"{cut.total} lines"
        shown = size_of(len(cut.text.encode("utf-8", "replace"))) if result.dropped or cut.broken else f"{cut.lines} lines"
        where = f" Everything is in {result.full_output}." if result.full_output else ""
        parts.append(f"[The last {shown} of {of}.{where}]")
    if not parts:
        parts.append("(no output)")
    text = "\n\n".join([parts[0], "\n".join([*parts[1:], *notes])]).rstrip()
    details = {
        "exit_code": result.exit_code,
        "timed_out": result.timed_out,
        "bytes": written,
        "full_output": result.full_output,
    }
    return ToolResult(text, is_error=bool(result.exit_code) or result.timed_out, details=details)
