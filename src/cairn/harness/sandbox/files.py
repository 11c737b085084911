"""The file tools: what a coding model expects to find in a sandbox, over any sandbox."""

from __future__ import annotations

from dataclasses import replace

from cairn.harness.sandbox.bash import REAL_SHELL, bash_tool
from cairn.harness.sandbox.edit import edit_tool
from cairn.harness.sandbox.glob import glob_tool
from cairn.harness.sandbox.grep import grep_tool
from cairn.harness.sandbox.ls import ls_tool
from cairn.harness.sandbox.protocol import Sandbox, WorkspaceSandbox
from cairn.harness.sandbox.read import read_tool
from cairn.harness.sandbox.toolbox import Locks
from cairn.harness.sandbox.write import write_tool
from cairn.harness.tools import Tool


def file_tools(sandbox: Sandbox | None = None, *, shell: bool = True) -> list[Tool]:
    """`read`, `write`, `edit`, `bash`, `grep`, `glob` and `ls`, working on the sandbox of each call.

    For a `sandbox` whose files are the workspace they say how its shell differs; where nothing leaves the workspace, a call
    that was interrupted is made again, because it never happened.
    `shell=False` is for sandboxes that have files but run no commands: without `bash`, and without `grep`, which runs one.
    """
    locks = Locks()
    commands = {"bash", "grep"}
    bash = bash_tool(getattr(sandbox, "about_shell", None) or REAL_SHELL)
    tools = [read_tool(), write_tool(locks), edit_tool(locks), bash, grep_tool(), glob_tool(), ls_tool()]
    if isinstance(sandbox, WorkspaceSandbox) and sandbox.is_hermetic:
        tools = [replace(tool, repeat="safe") for tool in tools]
    return [tool for tool in tools if shell or tool.name not in commands]
