"""`e2b()`: a machine at E2B per instance. Extra: `cairn-agents[e2b]`; the key is read by the SDK from `E2B_API_KEY`.

A machine that is idle past its timeout is paused, not killed, so an instance finds its files again; `e2b().open` costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cairn.errors import MissingExtra, SandboxError
from cairn.harness.sandbox.hosted import HostedFactory, MachineGone, OnClose

#: Seconds until a machine that nobody uses is paused; each command starts them anew. E2B's own default.
IDLE_SECONDS = 300


def e2b(
    template: str | None = None,
    *,
    network: bool = True,
    directory: str = "workspace",
    env: Collection[str] | Mapping[str, str] = (),
    idle_seconds: int = IDLE_SECONDS,
    on_close: OnClose = "pause",
) -> HostedFactory:
    """A sandbox at E2B, made from `template` by the first command of an instance. `directory` is below the home there.

    `network=False` takes the machine's way to the internet. *Raises* UsageError; when first used, MissingExtra, SandboxError.
    """
    return HostedFactory.of(_E2B(template, network, idle_seconds), directory, env, on_close)


def _sdk() -> Any:
    try:
        import e2b
    except ImportError as error:
        raise MissingExtra("e2b() needs its SDK: pip install 'cairn-agents[e2b]'") from error
    return e2b


@contextmanager
def _errors() -> Iterator[None]:
    sdk = _sdk()
    try:
        yield
    except (sdk.SandboxNotFoundException, sdk.SandboxNotRunningException) as error:
        raise MachineGone(f"E2B: {error}") from error
    except (sdk.SandboxException, sdk.AuthenticationException) as error:
        raise SandboxError(f"E2B: {error}") from error


@dataclass(frozen=True, slots=True)
class _E2B:
    template: str | None
    has_network: bool
    idle_seconds: int

    name = "e2b"

    @property
    def network(self) -> str:
        return "host" if self.has_network else "none"

    async def create(self, labels: Mapping[str, str]) -> _Machine:
        with _errors():
            made = await _sdk().AsyncSandbox.create(
                self.template,
                timeout=self.idle_seconds,
                metadata=dict(labels),
                allow_internet_access=self.has_network,
                lifecycle={"on_timeout": "pause"},
            )
        return _Machine(made, self.idle_seconds)

    async def attach(self, id: str) -> _Machine:
        with _errors():
            return _Machine(await _sdk().AsyncSandbox.connect(id, timeout=self.idle_seconds), self.idle_seconds)


class _Machine:
    def __init__(self, sandbox: Any, idle_seconds: int) -> None:
        self._sandbox = sandbox
        self._idle_seconds = idle_seconds

    @property
    def id(self) -> str:
        return str(self._sandbox.sandbox_id)

    async def run(self, script: str, on_text: Callable[[str], None]) -> None:
        sdk = _sdk()
        with _errors():
            handle = await self._sandbox.commands.run(
                script, background=True, on_stdout=on_text, timeout=0, retain_output=False
            )
            try:
                await handle.wait()
            except sdk.CommandExitException:
                pass  # the script says itself how the command ended

    async def upload(self, path: str, data: bytes) -> None:
        with _errors():
            await self._sandbox.files.write(path, data)

    async def pause(self) -> str:
        with _errors():
            await self._sandbox.pause()
        return self.id

    async def kill(self) -> None:
        with _errors():
            await self._sandbox.kill()
