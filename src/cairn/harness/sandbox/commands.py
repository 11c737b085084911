"""Commands from the worker's side: the server that forks supervisors, and one running command.

Laws. Everything here happens on the event loop without a thread: the server is asked with one small write, a command is
followed over its socket, its output is read from a pipe when there is some. When `Command.end` returns, no process of the
tree lives.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import ProcessInfo
from cairn.harness.sandbox.supervisor import processes

#: Between SIGTERM and SIGKILL on timeout, cancellation and close: long enough for a test runner to write its report.
GRACE_SECONDS = 2.0

#: How much longer than the grace a supervisor may take to say that all is dead, before the worker ends the tree itself.
#: Killing what forks fast is bounded at about 5 s (`processes.KILL_ROUNDS_MAX`).
END_SLACK_SECONDS = 6.0

#: How long a supervisor may take to be there: a fork, on a machine that swaps.
START_SECONDS_MAX = 30.0

#: One read from a command's output; the size of a pipe on Linux.
CHUNK_BYTES = 64 * 1024

T = TypeVar("T")

_BOOTSTRAP = "import sys; sys.path.append({folder!r}); from supervisor.server import main; main({descriptor}, {worker})"


@dataclass(frozen=True, slots=True)
class Request:
    """A command to run: an absolute program path with its arguments, where, and with exactly which environment.

    `confine` is what its process gives up first (see `supervisor/confine.py`). `status`: the program is a launcher that says on
    descriptor 3 how it went (`Command.status`), and that is itself spared when its tree is asked to end.
    """

    argv: list[str]
    cwd: str
    env: dict[str, str]
    grace_seconds: float = GRACE_SECONDS
    confine: dict[str, Any] = field(default_factory=dict)
    status: bool = False

    def encode(self) -> bytes:
        fields = {
            "argv": self.argv,
            "cwd": self.cwd,
            "env": self.env,
            "grace": self.grace_seconds,
            "confine": self.confine,
            "status": self.status,
        }
        body = json.dumps(fields).encode()
        return len(body).to_bytes(4, "big") + body


class CommandServer:
    """The process that forks supervisors. Started by the first command, and again if it was killed; ends with `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def begin(self, output: int) -> socket.socket:
        """Fork a supervisor whose command will write to `output`; returns the socket to talk with it."""
        ours, theirs = socket.socketpair()
        try:
            for attempt in (1, 2):
                connection = self._connect()
                try:
                    socket.send_fds(connection, [b"c"], [theirs.fileno(), output])
                    return ours
                except OSError as error:  # killed since the last command: a new one takes its place, once
                    self.close()
                    if attempt == 2:
                        raise SandboxError(f"the command supervisor does not stay up: {error}") from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        raise AssertionError("unreachable")

    def _connect(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        folder = str(Path(__file__).parent)
        ours, theirs = socket.socketpair()
        self._socket = ours
        program = _BOOTSTRAP.format(folder=folder, descriptor=theirs.fileno(), worker=os.getpid())
        # Nothing of the worker's environment: the command could read it in /proc. Only what an interpreter may need to start.
        env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=env,
                start_new_session=True,
            )
        return ours

    def close(self) -> None:
        """The server has ended. Commands that still run are ended by their supervisors within a second. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()  # it holds nothing that could be lost
            self._process.wait()
            self._process = None


class OutputPipe:
    """The read end of a command's output: hands each chunk to `sink` as it comes; `eof` is done when no writer is left."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sink = sink
        self._descriptor, self.writer = os.pipe()
        os.set_blocking(self._descriptor, False)
        self.eof: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._descriptor, self._ready)

    def close_writer(self) -> None:
        """Our own copy of the end that the command writes to; while it is open there is no end of file."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        self.close_writer()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if not self.eof.done():
            self.eof.set_result(None)

    def _ready(self) -> None:
        try:
            data = os.read(self._descriptor, CHUNK_BYTES)
            if data:
                self._sink(data)
                return
        except BlockingIOError:
            return
        except Exception as error:
            self.eof.set_exception(error)
            self.eof.exception()  # whoever waits for the end gets it; if nobody does, it is not "never retrieved"
        self.close()


class Command(asyncio.Protocol):
    """A command under its supervisor. `prepare`, then `go`, then `exited`; `end` at any time, by whoever wants it dead."""

    def __init__(self, grace_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._grace_seconds = grace_seconds
        self._transport: asyncio.WriteTransport | None = None
        self._heard = bytearray()
        self._ready: asyncio.Future[ProcessInfo] = loop.create_future()
        self._exit: asyncio.Future[tuple[int, int]] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._is_dead = False
        self.status = ""

    @classmethod
    async def prepare(cls, control: socket.socket, request: Request) -> Command:
        """The command's processes exist and wait for `go`; nothing of the command itself has run."""
        control.setblocking(False)
        loop = asyncio.get_running_loop()
        _, command = await loop.create_unix_connection(lambda: cls(request.grace_seconds), sock=control)
        try:
            command._say(request.encode())
            async with asyncio.timeout(START_SECONDS_MAX):
                await asyncio.shield(command._ready)
        except TimeoutError:
            command.leave()
            raise SandboxError("the command's supervisor does not answer; the command was not started") from None
        except BaseException:
            command.leave()  # the supervisor sees the end of the socket and ends
            raise
        return command

    @property
    def process(self) -> ProcessInfo:
        """Where it runs; known as soon as it is prepared."""
        return self._ready.result()

    @property
    def exit_code(self) -> int | None:
        """How it ended, as far as has been heard."""
        is_known = self._exit.done() and self._exit.exception() is None
        return self._exit.result()[0] if is_known else None

    @property
    def is_gone(self) -> bool:
        """Nothing of its tree lives. A supervisor that was killed said nothing of the kind."""
        return self._is_dead or (self._gone.done() and self._gone.exception() is None)

    def go(self) -> None:
        self._say(b"g")

    async def exited(self) -> tuple[int, int]:
        """The command ended: its exit code, and how many processes it left behind. Raises SandboxError if it never began."""
        return await asyncio.shield(self._exit)

    async def end(self) -> None:
        """Nothing of the tree lives: TERM, the grace, KILL; by the supervisor, or by us when it does not answer.

        *Cancelled*: the end goes on, but is not awaited; callers that may be cancelled wrap it in `to_the_end`.
        """
        try:
            async with asyncio.timeout(self._grace_seconds + END_SLACK_SECONDS):
                self._say(b"e")
                await asyncio.shield(self._gone)
        except (TimeoutError, SandboxError):
            await asyncio.to_thread(end_tree, self.process)
        finally:
            self.leave()

    def leave(self) -> None:
        """Stop listening. What still lives of the tree is ended by its supervisor, as if the worker had died."""
        self._is_dead = True
        if self._transport is not None:
            self._transport.close()

    def _say(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # ------------------------------------------------------------------ what the supervisor says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        *lines, rest = bytes(self._heard).split(b"\n")
        self._heard = bytearray(rest)
        for line in lines:
            kind, *values = json.loads(line)
            if kind == "ready":
                pid, group, started = values
                boot, host = processes.boot_id(), processes.host_name()
                _settle(self._ready, ProcessInfo(pid=pid, group=group, started=started, boot=boot, host=host))
            elif kind == "exited":
                self.status = values[2]
                _settle(self._exit, (values[0], values[1]))
            elif kind == "failed":
                _settle(self._exit, SandboxError(f"the command could not be started: {values[0]}"))
            elif kind == "gone":
                _settle(self._gone, None)

    def connection_lost(self, error: Exception | None) -> None:
        lost = SandboxError("the command's supervisor was killed; how far the command came is unknown")
        for future in (self._ready, self._exit, self._gone):
            _settle(future, lost)


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    """The future has an outcome, this one unless it had one before."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
        future.exception()  # nobody need ask for it
    else:
        future.set_result(outcome)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is not disturbed by cancellation of the caller; that is raised when the work has ended."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            result = await asyncio.shield(task)
            break
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception as error:
            if cancelled is not None:
                raise cancelled from error
            raise
    if cancelled is not None:
        raise cancelled
    return result


def end_tree(process: ProcessInfo) -> bool:
    """Kill what is left of the tree of this supervisor, and the supervisor; True if there was more than it alone. Blocking.

    Whose supervisor lives is found by descent. Else by the mark in the environment: pids, groups and sessions of a dead tree
    may belong to others by now.
    """
    if process.boot != processes.boot_id() or process.host != processes.host_name():
        return False
    value = processes.mark(process.pid, process.started)

    def find() -> list[processes.Process]:
        table = processes.table()
        supervisor = table.get(process.pid)
        found: dict[int, processes.Process] = {}
        if supervisor is not None and supervisor.started == process.started:
            found[supervisor.pid] = supervisor
            found.update((below.pid, below) for below in processes.descendants(supervisor.pid, table))
        later = (other for other in table.values() if other.started >= process.started and other.pid not in found)
        for other in processes.marked(value, later):
            found[other.pid] = other
            found.update((below.pid, below) for below in processes.descendants(other.pid, table))
        return [each for each in found.values() if processes.is_running(each)]

    # A supervisor that is alone has nothing left to do and is about to end by itself.
    had_something = any(each.pid != process.pid for each in find())
    processes.kill(find)
    return had_something
