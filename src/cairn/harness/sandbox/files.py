"""The file tools: what a coding model expects to find in a sandbox, over any sandbox."""

from __future__ import annotations

from cairn.harness.sandbox.bash import bash_tool
from cairn.harness.sandbox.edit import edit_tool
from cairn.harness.sandbox.glob import glob_tool
from cairn.harness.sandbox.grep import grep_tool
from cairn.harness.sandbox.ls import ls_tool
from cairn.harness.sandbox.read import read_tool
from cairn.harness.sandbox.toolbox import Locks
from cairn.harness.sandbox.write import write_tool
from cairn.harness.tools import Tool


def file_tools(*, shell: bool = True) -> list[Tool]:
    """`read`, `write`, `edit`, `bash`, `grep`, `glob` and `ls`, working on the sandbox of each call.

    `shell=False` is for sandboxes that have files but run no commands: without `bash`, and without `grep`, which runs one.
    """
    locks = Locks()
    commands = {"bash", "grep"}
    tools = [read_tool(), write_tool(locks), edit_tool(locks), bash_tool(), grep_tool(), glob_tool(), ls_tool()]
    return [tool for tool in tools if shell or tool.name not in commands]
