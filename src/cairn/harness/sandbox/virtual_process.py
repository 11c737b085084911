"""One shell worker's process: started with nothing of this one's, talked to over a socket, ended without asking.

Laws. A worker inherits one descriptor, no environment and no directory, and dies with the process that started it. Whatever
goes wrong with it — it dies, hangs, or says what cannot be — it is killed, and who waited for it gets an error that says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cairn.errors import SandboxError
from cairn.harness.sandbox.virtual_wire import BUFFERED_BYTES, Done, Failed, Frame, Garbage, Line, Output, Ready

#: An interpreter's start and the library's, on a machine that swaps.
START_SECONDS_MAX = 30.0

#: How much longer than a command's own time its worker may take to say that it is over, before it is killed.
OVERTIME_SECONDS = 2.0

#: One of these has to hold, or a hostile script that breaks the library could open files: Linux since 3.5 has the first.
JAILS = ("seccomp", "landlock")

_BOOTSTRAP = "import sys; sys.path += {folders!r}; from shell.main import main; main({descriptor}, {parent})"


class Host(Protocol):
    """Who answers what a command asks for."""

    def output(self, data: bytes) -> None: ...
    async def answer(self, asked: Frame, payload: bytes) -> tuple[Any, bytes]: ...


class WorkerLost(SandboxError):
    """The worker is gone, and with it what the command did."""


class ShellProcess:
    """A worker that is ready. `tenant` is whom it has served; nobody else may have it."""

    def __init__(self, process: subprocess.Popen[bytes], line: Line, tenant: str) -> None:
        self._process = process
        self._line = line
        self.tenant = tenant
        self.commands = 0
        self.holds: tuple[str, ...] = ()
        self.is_dead = False
        self._kill = weakref.finalize(self, _kill, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, tenant: str, *, program: str = _BOOTSTRAP, needs_jail: bool = True) -> ShellProcess:
        """A worker that waits for its first command. *Raises* SandboxError when it does not come up, or cannot be closed in."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = _spawn(theirs, program)
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=BUFFERED_BYTES)
        worker = cls(process, Line(reader, writer), tenant)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                said, _ = await worker._line.take()
        except (TimeoutError, EOFError, Garbage) as error:
            await worker.end()
            raise SandboxError(f"a shell worker did not start: {error or 'it ended'}; is bashkit installed?") from error
        except BaseException:
            worker.kill()
            raise
        if not isinstance(said, Ready):
            await worker.end()
            raise SandboxError("a shell worker did not start: it began with something else")
        worker.holds = tuple(said.holds)
        if needs_jail and sys.platform.startswith("linux") and not set(JAILS) & set(worker.holds):
            await worker.end()
            raise SandboxError(
                "this system offers neither seccomp nor Landlock, so a shell worker cannot be closed in; "
                "virtual(jail=False) runs it all the same, as a process of your user"
            )
        return worker

    async def run(self, request: Mapping[str, Any], state: bytes, host: Host, seconds: float) -> tuple[Done, bytes]:
        """Run a script to its end; what it asks for is answered by `host`.

        *Cancelled*: the worker is killed. *Raises* WorkerLost when it died, hung or lied; it is dead then. SandboxError when
        the command could not begin.
        """
        self.commands += 1
        try:
            async with asyncio.timeout(seconds + OVERTIME_SECONDS) as deadline:
                await self._line.send(request, state)
                return await self._follow(host)
        except TimeoutError:
            if not deadline.expired():
                raise
            self.kill()
            raise WorkerLost("hung") from None
        except EOFError:
            self.kill()
            raise WorkerLost(await self._fate()) from None
        except Garbage as error:
            self.kill()
            raise WorkerLost(str(error)) from error
        except WorkerLost:
            raise
        except SandboxError:
            raise
        except BaseException:
            self.kill()
            raise

    async def _follow(self, host: Host) -> tuple[Done, bytes]:
        while True:
            said, payload = await self._line.take()
            match said:
                case Output():
                    host.output(payload)
                case Done():
                    return said, payload
                case Failed():
                    raise SandboxError(said.text)
                case Ready():
                    raise Garbage("a shell worker began anew in the middle of a command")
                case _:
                    header, data = await host.answer(said, payload)
                    await self._line.send(header, data)

    async def _fate(self) -> str:
        code = await asyncio.to_thread(self._process.wait)
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in signal.Signals.__members__.values() else f"signal {-code}"
        return f"was ended by {name}"

    def kill(self) -> None:
        """It will not say or do anything more. Idempotent."""
        self.is_dead = True
        self._line.close()
        self._kill()

    async def end(self) -> None:
        """Killed, and gone. Idempotent."""
        self.kill()
        await asyncio.to_thread(self._process.wait)


def _spawn(connection: socket.socket, program: str) -> subprocess.Popen[bytes]:
    import bashkit

    folders = [str(Path(__file__).parent), str(Path(bashkit.__file__).parent.parent)]
    code = program.format(folders=folders, descriptor=connection.fileno(), parent=os.getpid())
    # Only what an interpreter may need to start: nothing else of this process's environment, where keys are.
    env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[connection.fileno()],
        cwd="/",
        env=env,
        start_new_session=True,
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
