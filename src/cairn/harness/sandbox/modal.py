"""`modal()`: a machine at Modal per instance. Extra: `cairn-agents[modal]`; the SDK finds its token itself.

Modal's machines end at their timeout and cannot be stopped: pausing one takes a snapshot of its files and ends it, and the next
use begins a machine from that. A machine whose worker died before it could close is lost at its timeout.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cairn.errors import MissingExtra, SandboxError
from cairn.harness.sandbox.hosted import HostedFactory, MachineGone, OnClose

#: How long a machine may live at all, and how long idle: a day (Modal's most) and ten minutes.
LIFE_SECONDS = 24 * 3600
IDLE_SECONDS = 600

#: How an id of a snapshot begins, beside that of a machine.
_IMAGE = "im-"


def modal(
    app: str = "cairn",
    *,
    image: Any = None,
    network: bool = True,
    directory: str = "workspace",
    env: Collection[str] | Mapping[str, str] = (),
    on_close: OnClose = "pause",
) -> HostedFactory:
    """A sandbox at Modal, made from `image` (a `modal.Image`) by the first command of an instance, in the App `app`.

    `network=False` blocks its network. *Raises* UsageError; when first used, MissingExtra, SandboxError.
    """
    return HostedFactory.of(_Modal(app, image, network), directory, env, on_close)


def _sdk() -> Any:
    try:
        import modal
    except ImportError as error:
        raise MissingExtra("modal() needs its SDK: pip install 'cairn-agents[modal]'") from error
    return modal


@contextmanager
def _errors() -> Iterator[None]:
    exceptions = _sdk().exception
    try:
        yield
    except (exceptions.NotFoundError, exceptions.SandboxTerminatedError, exceptions.SandboxTimeoutError) as error:
        raise MachineGone(f"Modal: {error}") from error
    except exceptions.Error as error:
        raise SandboxError(f"Modal: {error}") from error


@dataclass(frozen=True, slots=True)
class _Modal:
    app: str
    image: Any
    has_network: bool

    name = "modal"

    @property
    def network(self) -> str:
        return "host" if self.has_network else "none"

    async def create(self, labels: Mapping[str, str]) -> _Machine:
        return await self._create(self.image, labels)

    async def _create(self, image: Any, labels: Mapping[str, str]) -> _Machine:
        sdk = _sdk()
        with _errors():
            app = await sdk.App.lookup.aio(self.app, create_if_missing=True)
            made = await sdk.Sandbox.create.aio(
                app=app,
                image=image,
                tags=dict(labels),
                timeout=LIFE_SECONDS,
                idle_timeout=IDLE_SECONDS,
                block_network=not self.has_network,
            )
        return _Machine(made)

    async def attach(self, id: str) -> _Machine:
        sdk = _sdk()
        with _errors():
            if id.startswith(_IMAGE):
                return await self._create(sdk.Image.from_id(id), {})
            found = await sdk.Sandbox.from_id.aio(id)
            if await found.poll.aio() is not None:
                raise MachineGone(f"Modal: sandbox {id} has ended")
            return _Machine(found)


class _Machine:
    def __init__(self, sandbox: Any) -> None:
        self._sandbox = sandbox

    @property
    def id(self) -> str:
        return str(self._sandbox.object_id)

    async def run(self, script: str, on_text: Callable[[str], None]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with _errors():
            process = await self._sandbox.exec.aio("sh", "-c", script, text=False)
            async for data in process.stdout:
                on_text(decoder.decode(data))
            await process.wait.aio()

    async def upload(self, path: str, data: bytes) -> None:
        with _errors():
            process = await self._sandbox.exec.aio("sh", "-c", 'cat > "$0"', path, text=False)
            process.stdin.write(data)
            process.stdin.write_eof()
            await process.stdin.drain.aio()
            if await process.wait.aio() != 0:
                raise SandboxError(f"Modal: {path} could not be uploaded")

    async def pause(self) -> str:
        with _errors():
            image = await self._sandbox.snapshot_filesystem.aio()
            await self._sandbox.terminate.aio()
        return str(image.object_id)

    async def kill(self) -> None:
        with _errors():
            await self._sandbox.terminate.aio()
