"""Where an agent's commands run and its files are. One protocol, so that the file tools work over any of them.

Laws for implementations. A non-zero exit is a result, not an exception; `SandboxError` means the command could not be
run or its fate is unknown. Cancelling `exec` kills the whole process tree before it returns. Paths given by tools are
resolved against `cwd`. Output handed to `on_output` arrives in order and never after `exec` returned.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from cairn.runtime.workspace import Workspace
    from cairn.runtime.workspace_draft import Draft


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process tree that a command runs in: enough for a successor on the same host to find and end it."""

    pid: int
    group: int
    started: float
    """Start time in clock ticks since boot as in /proc/<pid>/stat, so that a reused pid is not mistaken for it."""
    boot: str
    host: str


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended. `output` is stdout and stderr in the order they were written, bounded: `dropped` bytes are
    missing from its middle or start; the whole is at `full_output` when that is set."""

    exit_code: int
    output: bytes
    timed_out: bool = False
    dropped: int = 0
    full_output: str | None = None
    background: bool = False
    """The command ended but a child of it held the output open; that child was ended too."""
    left_running: int = 0
    """Processes the command left behind that had let go of its output. They end with the sandbox, at the latest."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    path: str
    kind: str
    """`file`, `directory`, `symlink` or `other`."""
    size: int
    mode: int = 0o644
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a sandbox can and cannot do, for those who choose one, for the contract tests, and for what people are told."""

    isolation: str = "none"
    """`none` (the host itself), `virtual` (no processes at all), `kernel` (shares the host's), `machine` (another one)."""
    network: str = "host"
    """`none`, `listed` (only hosts that were named), or `host` (whatever the machine it runs on can reach)."""
    background: bool = True
    """A process that let go of its output may outlive its command, until the sandbox is closed."""
    has_system: bool = True
    """Commands are real programs: a shell of the host or the machine, with signals, permissions and named pipes."""
    keeps_files: bool = True
    """Whoever opens it again for the same instance finds the files."""


class Sandbox(Protocol):
    """An open sandbox, belonging to one instance."""

    @property
    def name(self) -> str:
        """`local`, `virtual`, …"""
        ...

    @property
    def cwd(self) -> str: ...

    async def exec(
        self,
        command: str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        on_output: Callable[[bytes], None] | None = None,
        on_started: Callable[[ProcessInfo], Awaitable[None]] | None = None,
    ) -> ExecResult:
        """Run a shell command to its end. `on_started` is awaited before the command itself begins.

        *Cancelled*: every process it started is dead when the cancellation propagates. *Raises* SandboxError.
        """
        ...

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        """A file's bytes, or `size` of them from `start` on (fewer where it ends), so that a huge file needs little memory.

        *Raises* FileNotFoundError, IsADirectoryError, PermissionError, SandboxError (not a regular file, no such path).
        """
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Replace the file atomically, creating parent directories; mode of an existing file is kept, a link followed.

        *Cancelled*: the file is as before or as asked, and nothing is still being written.
        """
        ...

    async def stat(self, path: str) -> FileInfo | None:
        """What is there, links followed; None if nothing is. A link that leads nowhere is itself what is there."""
        ...

    async def list(self, path: str) -> list[FileInfo]:
        """A directory's entries by name, links not followed. Raises FileNotFoundError, NotADirectoryError."""
        ...

    async def remove(self, path: str) -> None:
        """Nothing is there any more: a file, a link (not what it leads to), or a directory with all that is in it."""
        ...

    async def real_path(self, path: str) -> str:
        """The one absolute name of the file, all links followed, whether or not it exists: what writers lock on."""
        ...

    async def reap(self, process: ProcessInfo) -> bool:
        """End what is left of a tree started by a former owner on this host; True if something was ended."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class WorkspaceSandbox(Sandbox, Protocol):
    """A sandbox whose files are the instance's workspace: what a call changes is committed with its outcome, or not at all."""

    @property
    def is_hermetic(self) -> bool:
        """Nothing a command does leaves the workspace, so one whose outcome is unknown can be run again: it never happened."""
        ...

    def view(self, draft: Draft) -> DraftView:
        """The sandbox as one call sees it: its files and its commands read and write `draft`, and nothing else."""
        ...


class DraftView(Sandbox, Protocol):
    """What `WorkspaceSandbox.view` returns. Closing it leaves the sandbox open."""

    @property
    def is_spoiled(self) -> bool:
        """The draft has a part of what a command did, and must not be kept."""
        ...

    def committed(self) -> None:
        """The draft and what was to be remembered are in the log."""
        ...

    @property
    def remembered(self) -> bytes | None:
        """What the sandbox wants to find again as `Place.recall`, for the same batch as the draft; None: nothing new."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Which instance a sandbox is opened for, its files, and one small value that outlives the process."""

    tenant: str
    uid: str
    workspace: Workspace | None
    recall: bytes | None
    """What was remembered last for this instance and this sandbox's name: a hosted sandbox's id, a shell's state."""
    remember: Callable[[bytes], Awaitable[None]]
    """Durable when it returns; replaces what was remembered. At most `REMEMBERED_BYTES_MAX`."""


#: A value that is remembered rides in a record (1 MB) beside a call's outcome.
REMEMBERED_BYTES_MAX = 256 * 1024


class SandboxFactory(Protocol):
    """What `Agent(sandbox=…)` takes: says how to open a sandbox for an instance.

    One that may be over different files for one instance also has a `key`, the same text in every process for the same files;
    without one its name is its key. Two that are equal (`==`) are one: assigning the other opens nothing.
    """

    @property
    def name(self) -> str: ...

    async def open(self, instance: str, directory: str, place: Place | None = None) -> Sandbox:
        """A sandbox for the instance addressed `kind/id`; `directory` is private to it and lasts as long as it does. `place` is
        there whenever an agent runs; a sandbox that can do without it may be opened without one."""
        ...
