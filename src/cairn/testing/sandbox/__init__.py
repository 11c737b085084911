"""What every sandbox has to do, as tests: inherit `SandboxContract` in a test module and say how yours is made.

    class TestMine(SandboxContract):
        def factory(self, directory):
            return my_sandbox(directory / "files")

Laws. Each test opens a sandbox of its own over an empty directory and closes it. It uses nothing but the `Sandbox` protocol and
a POSIX shell with the usual tools, so the same suite judges a host, a container and a remote machine. Whether a process is
dead is seen by what it no longer does: it would go on writing to a file. A sandbox that has `capabilities` is held to them.
"""

from __future__ import annotations

from cairn.testing.sandbox.capabilities import CapabilityCases, ReattachCases
from cairn.testing.sandbox.commands import CommandCases
from cairn.testing.sandbox.files import FileCases
from cairn.testing.sandbox.processes import ProcessCases


class ShellContract(CommandCases, FileCases, CapabilityCases):
    """The suite for sandboxes whose commands are not processes: files, and a shell that has an end."""


class SandboxContract(ShellContract, ProcessCases, ReattachCases):
    """The whole suite. `factory` is given a fresh directory on this machine, for sandboxes that need one."""
