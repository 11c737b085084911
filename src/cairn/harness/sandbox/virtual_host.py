"""Answers to what a command asks of this side: entries and contents of its draft, commands in Python, requests to the network.

Laws. A worker can ask for anything; it gets what its instance's own draft has, what its agent's commands return, and pages of
hosts its agent was granted. An answer is bounded, and an error is words.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from cairn.errors import WorkspaceError
from cairn.harness.sandbox import virtual_wire as wire
from cairn.harness.sandbox.virtual_log import CommandLog
from cairn.harness.sandbox.virtual_paths import target_outside

if TYPE_CHECKING:
    from cairn.harness.sandbox.virtual_commands import Commands
    from cairn.harness.sandbox.virtual_network import Network
    from cairn.runtime.files import Entry
    from cairn.runtime.workspace_reading import Reading

#: A file that a command reads: it has it in memory as a whole.
READ_BYTES_MAX = 64 * 1024 * 1024
#: What is read ahead for a search in one go.
READ_MANY_BYTES_MAX = 4 * 1024 * 1024

_KINDS = {"file": 0, "directory": 1, "link": 2}

#: Error kinds of the shell's file-system interface.
_ERRORS = {
    errno.ENOENT: 1,
    errno.EEXIST: 2,
    errno.EACCES: 3,
    errno.EINVAL: 4,
    errno.EISDIR: 5,
    errno.ENOTDIR: 6,
    errno.ENOTEMPTY: 7,
}

Answer = tuple[Any, bytes]


class CommandHost:
    """One command's side in the host. It raises only for a worker that cannot be trusted to go on."""

    def __init__(self, files: Reading, log: CommandLog, commands: Commands, network: Network | None) -> None:
        self._files = files
        self._log = log
        self._commands = commands
        self._network = network
        self.asked = 0
        """How many questions there were."""

    def output(self, data: bytes) -> None:
        self._log.feed(data)

    async def answer(self, asked: wire.Frame, payload: bytes) -> Answer:
        self.asked += 1
        try:
            match asked:
                case wire.Look():
                    found = self._files.lstat(asked.path)
                    return {"entry": None if found is None else _entry(found)}, b""
                case wire.List():
                    return {"entries": [(entry.name, _entry(entry)) for entry in self._files.list(asked.path)]}, b""
                case wire.Read():
                    return {}, await self._read(asked.path)
                case wire.ReadMany():
                    return await self._read_many(asked.paths)
                case wire.Run():
                    return await self._commands.run(asked, payload)
                case wire.Fetch() if self._network is not None:
                    answer: Answer = await self._network.fetch(asked, payload)
                    return answer
        except WorkspaceError as error:
            text = os.strerror(error.errno) if error.errno else str(error)
            return {"error": text, "kind": _ERRORS.get(error.errno or 0, 0)}, b""
        raise wire.Garbage("a shell worker asked for what its agent was not given")

    async def _read(self, path: str) -> bytes:
        found = self._files.stat(path)
        if found is not None and found.size > READ_BYTES_MAX:
            raise WorkspaceError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return await self._files.read(path)

    async def _read_many(self, paths: list[str]) -> Answer:
        """As many of the files as fit, in order; None for one that cannot be read."""
        sizes: list[int | None] = []
        contents: list[bytes] = []
        room = READ_MANY_BYTES_MAX
        for path in paths:
            found = self._files.lstat(path)
            if found is None or not found.is_file or (sizes and found.size > room):
                break
            data = await self._read(path)
            room -= len(data)
            sizes.append(len(data))
            contents.append(data)
        return {"sizes": sizes}, b"".join(contents)


def _entry(found: Entry) -> tuple[int, int, int, float, str]:
    target = target_outside(found.target)
    return _KINDS[found.kind], found.mode, found.size, found.mtime, target
