"""A shell worker that was taken over: whatever it says, the host, the store and other instances are as before."""

from __future__ import annotations

import asyncio
import json
import resource
from functools import partial

import pytest
from tests.sandboxes.hostile_worker import BELIEVED, ENEMIES, program
from tests.sandboxes.virtual_desk import VirtualDesk

from cairn.errors import SandboxError
from cairn.harness.sandbox.virtual_pool import ShellPool
from cairn.harness.sandbox.virtual_process import ShellProcess

pytestmark = [pytest.mark.slow]

#: What the host may grow by while an enemy floods it: twice what it holds of one output, and what is on its way.
GROWTH_BYTES_MAX = 200 * 1024 * 1024


#: What an honest worker may say too: it is refused, and the worker stays.
HONEST = {"too large a state"}


def pool_of(name: str) -> ShellPool:
    """Workers that are this enemy."""
    return ShellPool(partial(ShellProcess.start, program=program(name)))


@pytest.mark.parametrize("name", ENEMIES)
def test_what_an_enemy_says_ends_it_and_changes_nothing(name: str) -> None:
    """X2: an error in words, no file changed, no worker left; a real worker then serves the instance as before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def main() -> None:
        pool = pool_of(name)
        async with VirtualDesk(pool=pool, seed={"seed": "1\n"}) as desk:
            head = desk.desk.instance.head
            async with asyncio.timeout(30):
                try:
                    result = await desk.sandbox.exec("echo hello", timeout_seconds=0.5)
                    assert result.timed_out
                except SandboxError as error:
                    assert str(error)
            assert pool.processes == (name in HONEST)
            assert desk.tree() == {"/seed": "file"}
            assert desk.remembered.value is None
            assert desk.desk.instance.head == head
            pool.close()
            desk.sandbox.pool = real = ShellPool()
            assert await desk.run("cat seed") == (0, "1\n")
            real.close()

    asyncio.run(main())
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GROWTH_BYTES_MAX


@pytest.mark.parametrize("name", BELIEVED)
def test_what_is_believed_of_an_enemy_is_bounded(name: str) -> None:
    """X1: paths are the workspace's whatever they look like; numbers are cut to what they can mean."""

    async def main() -> None:
        pool = pool_of(name)
        async with VirtualDesk(pool=pool, seed={"seed": "1\n"}) as desk:
            await desk.files.symlink("/etc", "/link")
            result = await desk.sandbox.exec("echo hello", timeout_seconds=5)
            assert 0 <= result.exit_code < 256
            assert desk.files.stat("/seed").mode <= 0o777
            assert desk.sandbox.cwd == "/workspace"
            if desk.files.exists("/answers"):
                for _, header, payload in json.loads(await desk.files.read("/answers")):
                    assert "root:" not in payload
                    assert "error" in header or header.get("entry", 0) is None or header.get("entries") or header["sizes"] == []
        pool.close()

    asyncio.run(main())


def test_a_huge_announcement_is_refused_before_anything_is_read() -> None:
    """X2, X7: eight gigabytes are not waited for."""

    async def main() -> None:
        async with VirtualDesk(pool=pool_of("a huge announcement")) as desk:
            with pytest.raises(SandboxError, match="announced"):
                await desk.sandbox.exec("echo hello", timeout_seconds=5)

    asyncio.run(main())


def test_a_worker_that_cannot_be_closed_in_is_not_used() -> None:
    """X2: without seccomp and Landlock there is no shell, unless that is asked for."""

    async def main() -> None:
        text = (
            "import socket, json, struct, time; s = socket.socket(fileno={descriptor}); "
            "h = json.dumps(dict(op='ready', holds=['limits'], version='1')).encode(); "
            "s.sendall(struct.pack('!II', len(h), 0) + h); time.sleep(600) # {folders} {parent}"
        )
        text = text.replace(
            "dict(op='ready', holds=['limits'], version='1')", "dict(op='ready', holds=['limits'], version='1')"
        )
        with pytest.raises(SandboxError, match="jail=False"):
            await ShellProcess.start("one", program=text)
        worker = await ShellProcess.start("one", program=text, needs_jail=False)
        await worker.end()

    asyncio.run(main())


def test_a_real_worker_has_given_up_all_it_can() -> None:
    """X2: on Linux seccomp and Landlock hold, and namespaces where the system gives them."""

    async def main() -> tuple[str, ...]:
        worker = await ShellProcess.start("one")
        await worker.end()
        return worker.holds

    assert {"limits", "seccomp"} <= set(asyncio.run(main()))
