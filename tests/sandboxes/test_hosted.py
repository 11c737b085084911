"""Hosted sandboxes: what every sandbox does, and that a machine is made late, found again, and missed once.

Against fakes of the SDKs' documented classes that run commands here (`fake_providers.py`); no provider is asked.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sandboxes.fake_providers import Cloud, fake_daytona, fake_e2b, fake_modal

from cairn.errors import SandboxError, UsageError
from cairn.harness.sandbox.daytona import daytona
from cairn.harness.sandbox.e2b import e2b
from cairn.harness.sandbox.modal import modal
from cairn.harness.sandbox.protocol import Place, SandboxFactory
from cairn.testing.sandbox import SandboxContract

PROVIDERS: dict[str, Callable[..., Any]] = {"e2b": e2b, "daytona": daytona, "modal": modal}

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"the SDK is not installed: cairn-agents[{name}]")
        for name in PROVIDERS
    ),
]


def pretend(name: str, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = importlib.import_module(name)
    if name == "e2b":
        monkeypatch.setattr(sdk, "AsyncSandbox", fake_e2b(cloud))
    elif name == "daytona":
        monkeypatch.setattr(sdk, "AsyncDaytona", fake_daytona(cloud))
    else:
        for each, fake in fake_modal(cloud).items():
            monkeypatch.setattr(sdk, each, fake)


class Hosted(SandboxContract):
    provider = ""

    @pytest.fixture(autouse=True)
    def _cloud(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        cloud = Cloud()
        pretend(self.provider, cloud, monkeypatch)
        yield
        cloud.close()

    def factory(self, directory: Path) -> SandboxFactory:
        made: SandboxFactory = PROVIDERS[self.provider](directory=str(directory / "files" / "machine"))
        return made


class TestE2B(Hosted):
    provider = "e2b"


class TestDaytona(Hosted):
    provider = "daytona"


class TestModal(Hosted):
    provider = "modal"


class Log:
    """What an instance remembers, as its log keeps it."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    async def __call__(self, value: bytes) -> None:
        self.values.append(value)

    def place(self) -> Place:
        return Place("tenant", "uid-1", None, self.values[-1] if self.values else None, self)


@pytest.fixture(params=list(PROVIDERS))
def hosted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Callable[..., Any], Cloud]]:
    cloud = Cloud()
    pretend(request.param, cloud, monkeypatch)
    yield PROVIDERS[request.param], cloud
    cloud.close()


Fixture = tuple[Callable[..., Any], Cloud]


def test_files_are_found_again_after_a_restart(hosted: Fixture, tmp_path: Path) -> None:
    """The machine is made by the first use, its id is remembered before it is used, and a paused one is woken."""
    make, cloud = hosted
    log = Log()

    async def main() -> None:
        first = await make().open("kind/one", str(tmp_path), log.place())
        assert (cloud.made, log.values) == (0, [])
        await first.write("folder/file", b"kept")
        assert len(log.values) == 1
        await first.close()
        again = await make().open("kind/one", str(tmp_path), log.place())
        assert await again.read("folder/file") == b"kept"
        assert (await again.exec("cat folder/file")).output == b"kept"
        await again.close()

    asyncio.run(main())


def test_a_worker_that_died_loses_no_machine(hosted: Fixture, tmp_path: Path) -> None:
    """Nobody closed the sandbox: the remembered id leads to the machine that still runs."""
    make, cloud = hosted
    log = Log()

    async def main() -> None:
        first = await make().open("kind/one", str(tmp_path), log.place())
        await first.write("file", b"kept")
        again = await make().open("kind/one", str(tmp_path), log.place())
        assert await again.read("file") == b"kept"
        assert cloud.made == 1

    asyncio.run(main())


@pytest.mark.parametrize("when", ["between two runs", "during one"])
def test_a_machine_that_the_provider_ended_is_missed_once(hosted: Fixture, tmp_path: Path, when: str) -> None:
    """The model is told that its files are gone; what follows works, and a restart does not tell it again."""
    make, cloud = hosted
    log = Log()

    async def main() -> None:
        sandbox = await make(on_close="keep").open("kind/one", str(tmp_path), log.place())
        await sandbox.write("file", b"lost")
        if when == "between two runs":
            await sandbox.close()
            sandbox = await make().open("kind/one", str(tmp_path), log.place())
        cloud.end(next(iter(cloud.machines)))

        with pytest.raises(SandboxError, match="its files are gone"):
            await sandbox.exec("cat file")
        assert (await sandbox.exec("ls; echo works")).output == b"works\n"
        await sandbox.close()
        again = await make().open("kind/one", str(tmp_path), log.place())
        assert (await again.exec("echo works")).output == b"works\n"

    asyncio.run(main())


def test_a_machine_can_be_ended_with_its_sandbox(hosted: Fixture, tmp_path: Path) -> None:
    """`on_close="kill"`: nothing is left at the provider, and nothing is remembered."""
    make, cloud = hosted
    log = Log()

    async def main() -> None:
        sandbox = await make(on_close="kill").open("kind/one", str(tmp_path), log.place())
        await sandbox.exec("true")
        await sandbox.close()
        assert (cloud.machines, log.values[-1]) == ({}, b"")

    asyncio.run(main())


def test_what_makes_no_sense_is_refused() -> None:
    """One string is not a collection of names; an unknown way to close is not guessed."""
    with pytest.raises(UsageError, match="one string"):
        e2b(env="PATH")
    with pytest.raises(UsageError, match="on_close"):
        modal(on_close="forget")  # type: ignore[arg-type]
