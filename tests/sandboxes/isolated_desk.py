"""An instance whose commands run isolated over its workspace, for tests: open, and opened again as after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.workspace.desk import Desk

from cairn.harness.sandbox.isolated import isolated
from cairn.harness.sandbox.isolated_workspace import IsolatedWorkspace
from cairn.harness.sandbox.protocol import Place


class IsolatedDesk:
    """`async with IsolatedDesk(tmp_path) as desk:` — `desk.sandbox` is open; options are those of `isolated()`."""

    sandbox: IsolatedWorkspace

    def __init__(self, directory: Path, *, quota: Any = None, **options: Any) -> None:
        self.desk = Desk(quota=quota)
        self.directory = directory
        self._options = {"grace_seconds": 0.2} | options

    async def __aenter__(self) -> IsolatedDesk:
        await self.desk.__aenter__()
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sandbox.close()
        await self.desk.__aexit__()

    @property
    def files(self) -> Any:
        return self.desk.files

    async def open(self) -> IsolatedWorkspace:
        async def remember(value: bytes) -> None:
            raise AssertionError("nothing is remembered")

        place = Place("one", "uid", self.desk.files, None, remember)
        opened = await isolated(**self._options).open("toy/a", str(self.directory), place)
        assert isinstance(opened, IsolatedWorkspace)
        self.sandbox = opened
        return opened

    async def restart(self, *, is_clean: bool = True) -> IsolatedWorkspace:
        """Another owner folds the log and opens the sandbox; unless it is clean, what the mirror knew is lost."""
        await self.sandbox.close()
        if not is_clean:
            (self.directory / "mirror").unlink()
        await self.desk.claim()
        return await self.open()

    async def run(self, command: str, **options: Any) -> tuple[int, str]:
        result = await self.sandbox.exec(command, **options)
        return result.exit_code, result.output.decode()

    async def tree(self) -> dict[str, tuple[str, int, Any]]:
        found = {}
        for entry in self.files.walk():
            content = await self.files.read(entry.path) if entry.is_file else entry.target
            found[entry.path] = (entry.kind, entry.mode, content)
        return found
