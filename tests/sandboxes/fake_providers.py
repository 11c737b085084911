"""Fakes of what three providers' SDKs document, which run everything on this machine: a directory is a machine's home.

The classes have the names, parameters and errors that the installed SDKs have; requests and errors are made of the SDKs' own
types. No network, no account. What a fake does not have, an adapter does not use.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Cloud:
    """All machines of a fake provider, by id; and how it ends one."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cairn-cloud-"))
        self.machines: dict[str, Computer] = {}
        self.made = 0

    def make(self, copy_of: Path | None = None) -> Computer:
        self.made += 1
        home = self.folder / f"home{self.made}"
        if copy_of is None:
            home.mkdir()
        else:
            shutil.copytree(copy_of, home, symlinks=True)
        computer = Computer(home)
        self.machines[f"m{self.made}"] = computer
        return computer

    def id_of(self, computer: Computer) -> str:
        return next(id for id, each in self.machines.items() if each is computer)

    def end(self, id: str) -> None:
        """As a provider does: with all that is on it."""
        computer = self.machines.pop(id)
        computer.kill()
        shutil.rmtree(computer.home)

    def close(self) -> None:
        for computer in self.machines.values():
            computer.kill()
        shutil.rmtree(self.folder)


class Computer:
    """A home and the processes that run in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = "started"
        self._groups: set[int] = set()

    async def shell(self, script: str) -> AsyncIterator[bytes]:
        process = subprocess.Popen(  # noqa: ASYNC220 - a fork takes no time
            ["sh", "-c", script],
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._groups.add(process.pid)
        assert process.stdout is not None
        # Who stops listening does not stop the command, as with a real machine.
        while data := await asyncio.to_thread(os.read, process.stdout.fileno(), 65536):
            yield data
        await asyncio.to_thread(process.wait)
        process.stdout.close()
        self._groups.discard(process.pid)

    def kill(self) -> None:
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue


# --- E2B ------------------------------------------------------------------------------------------------------------


def fake_e2b(cloud: Cloud) -> Any:
    """What stands for `e2b.AsyncSandbox`."""
    import e2b

    def found(id: str) -> Computer:
        if id not in cloud.machines:
            raise e2b.SandboxNotFoundException(f"Sandbox {id} not found")
        return cloud.machines[id]

    class AsyncSandbox:
        def __init__(self, id: str) -> None:
            self.sandbox_id = id
            self.commands = SimpleNamespace(run=self._run)
            self.files = SimpleNamespace(write=self._write)

        @classmethod
        async def create(
            cls, template: str | None = None, timeout: int | None = None, metadata: dict[str, str] | None = None,
            allow_internet_access: bool | None = None, lifecycle: dict[str, Any] | None = None,
        ) -> AsyncSandbox:  # fmt: skip
            assert lifecycle == {"on_timeout": "pause"}
            return cls(cloud.id_of(cloud.make()))

        @classmethod
        async def connect(cls, sandbox_id: str, timeout: int | None = None) -> AsyncSandbox:
            found(sandbox_id).state = "started"
            return cls(sandbox_id)

        async def _run(
            self, cmd: str, background: bool, on_stdout: Callable[[str], None], timeout: float, retain_output: bool
        ) -> Any:
            computer = found(self.sandbox_id)
            assert computer.state == "started"

            async def wait() -> None:
                decoder = codecs.getincrementaldecoder("utf-8")("replace")
                async for data in computer.shell(cmd):
                    on_stdout(decoder.decode(data))
                found(self.sandbox_id)

            return SimpleNamespace(wait=wait)

        async def _write(self, path: str, data: bytes) -> None:
            found(self.sandbox_id)
            await asyncio.to_thread(Path(path).write_bytes, data)

        async def pause(self) -> bool:
            found(self.sandbox_id).state = "paused"
            return True

        async def kill(self) -> bool:
            cloud.end(self.sandbox_id)
            return True

    return AsyncSandbox


# --- Daytona --------------------------------------------------------------------------------------------------------


def fake_daytona(cloud: Cloud) -> Any:
    """What stands for `daytona.AsyncDaytona`."""
    import daytona

    class Sandbox:
        def __init__(self, id: str) -> None:
            self.id = id
            self._commands: dict[tuple[str, str], str] = {}
            self._sessions: set[str] = set()
            self.process = SimpleNamespace(
                create_session=self._create_session,
                execute_session_command=self._execute,
                get_session_command_logs_async=self._logs,
                delete_session=self._delete_session,
            )
            self.fs = SimpleNamespace(upload_file=self._upload)

        @property
        def _computer(self) -> Computer:
            if self.id not in cloud.machines:
                raise daytona.DaytonaNotFoundError(f"Sandbox {self.id} not found")
            return cloud.machines[self.id]

        @property
        def state(self) -> str:
            return self._computer.state

        async def start(self, timeout: float | None = 60) -> None:
            self._computer.state = "started"

        async def stop(self, timeout: float | None = 60) -> None:
            self._computer.state = "stopped"

        async def delete(self, timeout: float | None = 60) -> None:
            cloud.end(self.id)

        async def _create_session(self, session_id: str) -> None:
            assert self._computer.state == "started"
            self._sessions.add(session_id)

        async def _execute(self, session_id: str, req: Any) -> Any:
            assert session_id in self._sessions
            assert req.run_async
            command = f"c{len(self._commands)}"
            self._commands[session_id, command] = req.command
            return SimpleNamespace(cmd_id=command)

        async def _logs(
            self, session_id: str, command_id: str, on_stdout: Callable[[str], None], on_stderr: Callable[[str], None]
        ) -> None:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            async for data in self._computer.shell(self._commands[session_id, command_id]):
                on_stdout(decoder.decode(data))
            assert self._computer

        async def _delete_session(self, session_id: str) -> None:
            self._sessions.discard(session_id)

        async def _upload(self, file: bytes, remote_path: str) -> None:
            assert self._computer
            await asyncio.to_thread(Path(remote_path).write_bytes, file)

    class AsyncDaytona:
        async def create(self, params: Any) -> Sandbox:
            assert isinstance(params, daytona.CreateSandboxFromSnapshotParams)
            return Sandbox(cloud.id_of(cloud.make()))

        async def get(self, sandbox_id_or_name: str) -> Sandbox:
            found = Sandbox(sandbox_id_or_name)
            assert found.state
            return found

        async def close(self) -> None:
            pass

    return AsyncDaytona


# --- Modal ----------------------------------------------------------------------------------------------------------


class Both:
    """A function that is called as `f.aio(…)`, as Modal's are from asyncio."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.aio = function


def fake_modal(cloud: Cloud) -> dict[str, Any]:
    """What stands for `modal.App`, `modal.Sandbox` and `modal.Image`."""
    import modal

    images: dict[str, Path] = {}

    class Stdin:
        def __init__(self) -> None:
            self.data = bytearray()
            self.is_over = asyncio.Event()
            self.drain = Both(self._drain)

        def write(self, data: bytes) -> None:
            self.data += data

        def write_eof(self) -> None:
            self.is_over.set()

        async def _drain(self) -> None:
            pass

    class Process:
        def __init__(self, computer: Computer, args: tuple[str, ...]) -> None:
            assert args[:2] == ("sh", "-c")
            self._computer = computer
            self._script = args[2]
            self.stdin = Stdin()
            self._path = args[3] if len(args) > 3 else None
            self.wait = Both(self._wait)

        @property
        async def stdout(self) -> AsyncIterator[bytes]:
            async for data in self._computer.shell(self._script):
                yield data

        async def _wait(self) -> int:
            if self._path is not None:
                await self.stdin.is_over.wait()
                await asyncio.to_thread(Path(self._path).write_bytes, self.stdin.data)
            return 0

    class Sandbox:
        def __init__(self, id: str) -> None:
            self.object_id = id
            self.exec, self.poll = Both(self._exec), Both(self._poll)
            self.snapshot_filesystem, self.terminate = Both(self._snapshot), Both(self._terminate)

        async def _exec(self, *args: str, text: bool) -> Process:
            if self.object_id not in cloud.machines:
                raise modal.exception.NotFoundError(f"Sandbox {self.object_id} has terminated")
            return Process(cloud.machines[self.object_id], args)

        async def _poll(self) -> int | None:
            return None if self.object_id in cloud.machines else 137

        async def _snapshot(self) -> Any:
            id = f"im-{len(images)}"
            images[id] = cloud.folder / id
            shutil.copytree(cloud.machines[self.object_id].home, images[id], symlinks=True)
            return SimpleNamespace(object_id=id)

        async def _terminate(self) -> None:
            if self.object_id in cloud.machines:
                cloud.end(self.object_id)

    async def create(*, app: Any, image: Any, tags: Any, timeout: int, idle_timeout: int, block_network: bool) -> Sandbox:
        return Sandbox(cloud.id_of(cloud.make(image)))

    async def from_id(id: str) -> Sandbox:
        return Sandbox(id)

    def image(id: str) -> Path:
        return images[id]

    async def lookup(name: str, *, create_if_missing: bool) -> Any:
        return SimpleNamespace(name=name)

    return {
        "App": SimpleNamespace(lookup=Both(lookup)),
        "Sandbox": SimpleNamespace(create=Both(create), from_id=Both(from_id)),
        "Image": SimpleNamespace(from_id=image),
    }
