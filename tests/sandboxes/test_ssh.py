"""`ssh()` against a real OpenSSH server: what every sandbox does, as root and as an ordinary account, and what is its own."""

from __future__ import annotations

import asyncio
import getpass
import importlib.util
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sandboxes.sshd import GUEST, Server, sshd

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import SandboxFactory
from cairn.harness.sandbox.ssh import ssh
from cairn.harness.sandbox.supervisor import processes
from cairn.testing.sandbox import SandboxContract

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not os.path.exists("/usr/sbin/sshd"), reason="sshd is not installed: apt-get install openssh-server"),
    pytest.mark.skipif(importlib.util.find_spec("asyncssh") is None, reason="asyncssh is not installed: cairn-agents[ssh]"),
]

SERVER: list[Server] = []


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with sshd() as server:
        SERVER.append(server)
        yield
        SERVER.clear()


def here(user: str | None = None, **options: object) -> SandboxFactory:
    server = SERVER[0]
    chosen = {"keys": [server.key], "known_hosts": server.known_hosts, "directory": f"cairn-{uuid.uuid4().hex}"} | options
    return ssh("127.0.0.1", port=server.port, user=user or getpass.getuser(), **chosen)  # type: ignore[arg-type]


#: The directory of each test's instance: the same one when a test opens twice.
FOLDERS: dict[str, str] = {}


class TestSsh(SandboxContract):
    def factory(self, directory: Path) -> SandboxFactory:
        # The guest may not enter the test's directory, so it works in its home.
        folder = FOLDERS.setdefault(str(directory), uuid.uuid4().hex)
        return here(GUEST if os.geteuid() == 0 else None, directory=f"sandboxes/{folder}")


@pytest.mark.skipif(os.geteuid() != 0, reason="what root may do is tried as root")
def test_the_same_as_root(tmp_path: Path) -> None:
    """Commands, files, time and cancellation for an account that may do everything."""
    case = TestSsh()
    case.factory = lambda directory: here(directory=str(directory / "files" / "remote"))  # type: ignore[method-assign]
    case.test_writing_replaces_the_content_and_keeps_the_mode()
    case.test_a_background_process_that_holds_the_output_is_ended_and_told()
    case.test_cancellation_ends_the_whole_tree_before_it_returns()


def test_a_host_whose_key_is_not_known_is_refused(tmp_path: Path) -> None:
    """No first trust: neither an unknown key nor another's; and it is said how to add it."""

    async def main() -> None:
        for hosts in (str(SERVER[0].folder / "wrong_hosts"), str(tmp_path / "missing")):
            (tmp_path / "missing").touch()
            with pytest.raises(SandboxError, match="ssh-keyscan"):
                await here(known_hosts=hosts).open("a/b", str(tmp_path))
        sandbox = await here(known_hosts=str(tmp_path / "missing"), insecure_host_key=True).open("a/b", str(tmp_path))
        await sandbox.close()

    asyncio.run(main())


def test_a_key_that_is_not_let_in_is_an_error(tmp_path: Path) -> None:
    """It names what to do."""

    async def main() -> None:
        with pytest.raises(SandboxError, match="does not let this user in"):
            await here(keys=[str(SERVER[0].folder / "other")]).open("a/b", str(tmp_path))

    asyncio.run(main())


def test_files_are_found_again(tmp_path: Path) -> None:
    """A directory per instance: opened again it is there, another instance has its own."""

    async def main() -> None:
        factory = here(directory=str(tmp_path / "remote"))
        first = await factory.open("kind/one", str(tmp_path))
        await first.exec("echo kept > file")
        await first.close()
        again = await factory.open("kind/one", str(tmp_path))
        other = await factory.open("kind/two", str(tmp_path))
        assert await again.read("file") == b"kept\n"
        assert await other.stat("file") is None
        await again.close()
        await other.close()

    asyncio.run(main())


def test_a_lost_connection_is_told_and_the_next_command_connects_again(tmp_path: Path) -> None:
    """The command's fate is unknown; nothing of it goes on; the sandbox is usable at once."""

    async def main() -> None:
        sandbox = await here(directory=str(tmp_path / "remote")).open("a/b", str(tmp_path))
        seen = asyncio.Event()
        running = asyncio.ensure_future(
            sandbox.exec("echo up; while :; do echo x >> beat; sleep 0.02; done", on_output=lambda _: seen.set())
        )
        await seen.wait()
        for process in processes.descendants(SERVER[0].process.pid, processes.table()):
            if b"notty" in (await asyncio.to_thread(Path(f"/proc/{process.pid}/cmdline").read_bytes)):
                os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(SandboxError, match="unknown"):
            await running
        assert (await sandbox.exec("echo again")).output == b"again\n"
        size = await still(Path(sandbox.cwd) / "beat")
        assert size > 0
        await sandbox.close()

    asyncio.run(main())


async def still(path: Path) -> int:
    """The size at which it stays, within a second."""
    deadline = time.monotonic() + 2
    size = -1
    while True:
        now = (await asyncio.to_thread(path.stat)).st_size
        if now == size:
            return now
        assert time.monotonic() < deadline, "a process of the tree still runs"
        size = now
        await asyncio.sleep(0.2)


WORKER = """
import asyncio, sys
from cairn.harness.sandbox.ssh import ssh
port, user, key, hosts, folder = sys.argv[1:]
async def main():
    factory = ssh("127.0.0.1", port=int(port), user=user, keys=[key], known_hosts=hosts, directory=folder)
    sandbox = await factory.open("a/b", folder)
    heart = "while :; do echo x >> beat; sleep 0.02; done"
    await sandbox.exec(f"(trap '' TERM HUP; setsid sh -c '{heart}' >/dev/null 2>&1 &); {heart}", on_output=print)
asyncio.run(main())
"""


def test_nothing_outlives_a_worker_that_was_killed(tmp_path: Path) -> None:
    """The host sees the connection end, and ends the command; a daemon that left its session too."""
    server, beat = SERVER[0], tmp_path / "a-b" / "beat"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(server.port), getpass.getuser(), server.key, server.known_hosts, str(tmp_path)]
    )
    while not (beat.exists() and beat.stat().st_size > 20):
        assert worker.poll() is None
        time.sleep(0.01)

    worker.kill()
    worker.wait()

    asyncio.run(still(beat))
