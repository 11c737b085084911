"""Objects under `kill -9` of the real processes that run them; the caller is another process and lives."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from tests.objects.object_process import Ledger
from tests.system.processes import environment, until

from cairn.clock import SystemClock
from cairn.errors import CallInterrupted
from cairn.ids import SystemIds
from cairn.runtime.connections import Connection
from cairn.runtime.frames import Sent
from cairn.runtime.object import ObjectApplication
from cairn.runtime.objects import Objects
from cairn.runtime.request import Request
from cairn.runtime.storage import SqliteStore

pytestmark = pytest.mark.system

CALLS = 60
PATIENCE_SECONDS = 40.0


class Server:
    """One process that runs objects at a time; another one after each kill."""

    def __init__(self, directory: Path) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("object_process.py")), str(directory)]
        self._process = subprocess.Popen(self._command, env=environment())
        self.kills = 0

    def kill(self) -> None:
        """SIGKILL; its successor is started at once."""
        self._process.kill()
        self._process.wait()
        self.kills += 1
        self._process = subprocess.Popen(self._command, env=environment())

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()


class Outside:
    """The test's own face of the store: calls objects, runs none."""

    def __init__(self, directory: Path) -> None:
        clock, ids = SystemClock(), SystemIds()
        self.store = SqliteStore(str(directory / "cairn.db"), clock=clock, ids=ids)
        self.objects = Objects(self.store, None, {"ledger": ObjectApplication(Ledger)}, clock=clock, ids=ids)

    async def __aenter__(self) -> Outside:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.objects.close()
        await self.store.close()


def test_no_kill_loses_a_call_or_doubles_one(tmp_path: Path) -> None:
    """S1 S3 S7 L2: every call has one answer, every frame comes once, while the process that runs the object is killed under
    them; at the end it is destroyed, with what is below it, under a kill too."""

    async def main() -> None:
        with Server(tmp_path) as server:
            async with Outside(tmp_path) as outside:
                ledger, dice = outside.objects.of(Ledger, "a"), random.Random(11)
                attached = await outside.objects.connect("ledger", "a", Connection("ann"), Request())
                heard: list[Any] = []

                async def listen() -> None:
                    async for frame in attached.frames():
                        heard.append(frame.data if isinstance(frame, Sent) else frame)

                async def storm() -> None:
                    for _ in range(4):
                        await asyncio.sleep(dice.uniform(0.6, 1.0))
                        server.kill()

                listening = asyncio.create_task(listen())
                weather = asyncio.create_task(storm())
                answers = []
                for number in range(CALLS):
                    answers.append(await ledger.call("add", str(number), timeout=PATIENCE_SECONDS))
                    await asyncio.sleep(0.02)
                await weather
                tokens = await ledger.call("read", timeout=PATIENCE_SECONDS)
                await until(lambda: heard[-1] == str(CALLS - 1), "the last frame came")

                assert server.kills == 4
                assert answers == list(range(1, CALLS + 1)) and tokens == [str(number) for number in range(CALLS)]
                assert [each for each in heard if isinstance(each, str)] == ["hello", *tokens]

                await ledger.call("grow", "leaf", timeout=PATIENCE_SECONDS)
                ending = asyncio.create_task(outside.objects.destroy("ledger", "a"))
                await asyncio.sleep(0.005)
                server.kill()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await ending
                assert await outside.store.instances() == []
                await listening

    asyncio.run(main())


def test_a_stream_whose_process_is_killed_says_so(tmp_path: Path) -> None:
    """S9: after its first chunk it is not begun again."""

    async def main() -> None:
        with Server(tmp_path) as server:
            async with Outside(tmp_path) as outside:
                came = []
                with pytest.raises(CallInterrupted, match="cannot be taken back"):
                    async for number in outside.objects.of(Ledger, "a").stream("lines", 100, timeout=PATIENCE_SECONDS):
                        came.append(number)
                        if number == 3:
                            server.kill()
                assert came == list(range(len(came))) and 3 in came

    asyncio.run(main())
