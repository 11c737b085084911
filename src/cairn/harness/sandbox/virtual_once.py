"""One command over files that are only looked at: nothing of what it does is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cairn.harness.sandbox.protocol import ExecResult
from cairn.harness.sandbox.virtual_commands import Commands
from cairn.harness.sandbox.virtual_host import CommandHost
from cairn.harness.sandbox.virtual_log import CommandLog
from cairn.harness.sandbox.virtual_process import ShellProcess

if TYPE_CHECKING:
    from cairn.runtime.workspace_reading import Reading


async def run_over(files: Reading, command: str, seconds: float) -> ExecResult:
    """How the command ends in a shell of its own over these files: an instance's at any offset, say. *Raises* SandboxError."""
    worker = await ShellProcess.start("")
    try:
        log = CommandLog(None)
        host = CommandHost(files, log, Commands({}), None)
        request: dict[str, Any] = {
            "script": command,
            "cwd": None,
            "env": {},
            "seconds": seconds,
            "now": 0.0,
            "aside": "/.aside",
        }
        done, _ = await worker.run(request | {"commands": [], "network": False}, b"", host, seconds)
        return ExecResult(done.code & 0xFF, log.held, timed_out=done.timed_out, dropped=log.dropped)
    finally:
        await worker.end()
