"""`daytona()`: a machine at Daytona per instance. Extra: `cairn-agents[daytona]`; the SDK reads `DAYTONA_API_KEY` itself.

A machine that is idle is stopped by Daytona and keeps its files; it is started again by the next use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cairn.errors import MissingExtra, SandboxError
from cairn.harness.sandbox.hosted import HostedFactory, MachineGone, OnClose

#: Minutes until a machine that nobody uses is stopped. Daytona's own default.
IDLE_MINUTES = 15

#: States in which the machine is there and does not run.
_AT_REST = ("stopped", "archived", "paused")
_GONE = ("destroyed", "destroying")


def daytona(
    snapshot: str | None = None,
    *,
    network: bool = True,
    directory: str = "workspace",
    env: Collection[str] | Mapping[str, str] = (),
    idle_minutes: int = IDLE_MINUTES,
    on_close: OnClose = "pause",
) -> HostedFactory:
    """A sandbox at Daytona, made from `snapshot` by the first command of an instance. `directory` is below the home there.

    `network=False` blocks all of its network. *Raises* UsageError; when first used, MissingExtra, SandboxError.
    """
    return HostedFactory.of(_Daytona(snapshot, network, idle_minutes), directory, env, on_close)


def _sdk() -> Any:
    try:
        import daytona
    except ImportError as error:
        raise MissingExtra("daytona() needs its SDK: pip install 'cairn-agents[daytona]'") from error
    return daytona


@contextmanager
def _errors() -> Iterator[None]:
    sdk = _sdk()
    try:
        yield
    except sdk.DaytonaNotFoundError as error:
        raise MachineGone(f"Daytona: {error}") from error
    except sdk.DaytonaError as error:
        raise SandboxError(f"Daytona: {error}") from error


@dataclass(frozen=True, slots=True)
class _Daytona:
    snapshot: str | None
    has_network: bool
    idle_minutes: int

    name = "daytona"

    @property
    def network(self) -> str:
        return "host" if self.has_network else "none"

    async def create(self, labels: Mapping[str, str]) -> _Machine:
        sdk = _sdk()
        wanted = sdk.CreateSandboxFromSnapshotParams(
            snapshot=self.snapshot,
            labels=dict(labels),
            auto_stop_interval=self.idle_minutes,
            network_block_all=not self.has_network,
        )
        client = sdk.AsyncDaytona()
        try:
            with _errors():
                return _Machine(client, await client.create(wanted))
        except BaseException:
            await client.close()
            raise

    async def attach(self, id: str) -> _Machine:
        client = _sdk().AsyncDaytona()
        try:
            with _errors():
                found = await client.get(id)
                state = str(getattr(found.state, "value", found.state))
                if state in _GONE:
                    raise MachineGone(f"Daytona: sandbox {id} is {state}")
                if state in _AT_REST:
                    await found.start()
                return _Machine(client, found)
        except BaseException:
            await client.close()
            raise


class _Machine:
    def __init__(self, client: Any, sandbox: Any) -> None:
        self._client = client
        self._sandbox = sandbox
        self._sessions = 0

    @property
    def id(self) -> str:
        return str(self._sandbox.id)

    async def run(self, script: str, on_text: Callable[[str], None]) -> None:
        """A session of its own per script: only those stream what they write."""
        sdk, process = _sdk(), self._sandbox.process
        self._sessions += 1
        session = f"cairn-{id(self):x}-{self._sessions}"
        with _errors():
            await process.create_session(session)
            try:
                request = sdk.SessionExecuteRequest(command=script, run_async=True)
                begun = await process.execute_session_command(session, request)
                await process.get_session_command_logs_async(session, begun.cmd_id, on_text, lambda _: None)
            finally:
                with suppress(sdk.DaytonaError):  # with the machine, sessions go too
                    await process.delete_session(session)

    async def upload(self, path: str, data: bytes) -> None:
        with _errors():
            await self._sandbox.fs.upload_file(data, path)

    async def pause(self) -> str:
        try:
            with _errors():
                await self._sandbox.stop()
        finally:
            await self._client.close()
        return self.id

    async def kill(self) -> None:
        try:
            with _errors():
                await self._sandbox.delete()
        finally:
            await self._client.close()
