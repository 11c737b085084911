"""What the cases share: a sandbox opened over an empty directory, and how to see that nothing acts any more."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from cairn.harness.sandbox.protocol import Sandbox, SandboxFactory

T = TypeVar("T")

#: Appends to a file every 20 ms for as long as it lives, whatever it is asked.
HEARTBEAT = "trap '' TERM HUP INT; while :; do echo x >> beat; sleep 0.02; done"

#: Waits in a shell until the heartbeat is heard.
HEARD = "while [ ! -e beat ]; do sleep 0.01; done"

#: Ten times what a living heartbeat needs to be seen.
STILL_SECONDS = 0.2


class Case:
    """The base of the suite's parts."""

    def factory(self, directory: Path) -> SandboxFactory:
        raise NotImplementedError

    def judge(self, body: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Run a test's body with an open sandbox, within a time that only a hang can exceed."""

        async def main() -> T:
            async with asyncio.timeout(60), self._open() as sandbox:
                return await body(sandbox)

        return asyncio.run(main())

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Sandbox]:
        with tempfile.TemporaryDirectory(prefix="cairn-sandbox-") as name:
            directory = furnished(name)
            sandbox = await self.factory(directory).open("test/sandbox", str(directory / "private"))
            try:
                yield sandbox
            finally:
                await sandbox.close()

    async def assert_still(self, sandbox: Sandbox) -> None:
        """There was a heartbeat, and there is none."""
        before = await sandbox.stat("beat")
        await asyncio.sleep(STILL_SECONDS)
        after = await sandbox.stat("beat")
        assert before is not None, "the heartbeat never began"
        assert after is not None
        assert before.size == after.size, "a process of the tree still runs"


def furnished(name: str) -> Path:
    """A directory for the factory, with `files` and `private` in it."""
    directory = Path(name).resolve()
    (directory / "files").mkdir()
    (directory / "private").mkdir()
    return directory


def quoted(command: str) -> str:
    """The command as one word of a shell."""
    return "'" + command.replace("'", "'\\''") + "'"


async def raises(expected: type[BaseException], work: Awaitable[object]) -> None:
    """The work raises the error, or one derived from it."""
    try:
        await work
    except expected:
        return
    raise AssertionError(f"{expected.__name__} was not raised")
