"""What a new workspace begins with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cairn.errors import UsageError

if TYPE_CHECKING:
    from cairn.harness.sandbox.virtual import Seed
    from cairn.runtime.workspace import Workspace


def checked(seed: Seed | None) -> Seed | None:
    """The seed, if it can be one; whether its directory is there is asked when it is planted. *Raises* UsageError."""
    if isinstance(seed, Mapping):
        for path, data in seed.items():
            if not isinstance(path, str) or not isinstance(data, (str, bytes)):
                raise UsageError(f"virtual(seed={{{path!r}: {data!r}}}): a seed maps paths to contents, as text or bytes")
    elif seed is not None and not isinstance(seed, (str, os.PathLike)):
        raise UsageError(f"virtual(seed={seed!r}): give a directory, or a mapping of paths to contents")
    return seed


async def plant(workspace: Workspace, seed: Seed) -> None:
    """The workspace has the seed's files, in one batch. *Raises* UsageError when there is no such directory."""
    if isinstance(seed, Mapping):
        given = {path: data.encode() if isinstance(data, str) else data for path, data in seed.items()}
        async with workspace.transaction() as draft:
            for name, data in given.items():
                await draft.write(name, data, parents=True)
        return
    top = Path(seed)
    if not await asyncio.to_thread(top.is_dir):
        raise UsageError(
            f"virtual(seed={os.fspath(seed)!r}): not a directory; name one, or give a mapping of paths to contents"
        )
    async with workspace.transaction() as draft:
        for path in await asyncio.to_thread(lambda: list(_files(top))):
            name = path.relative_to(top).as_posix()
            data = await asyncio.to_thread(path.read_bytes)
            await draft.write(name, data, mode=path.stat().st_mode & 0o777, parents=True)


def _files(top: Path) -> Iterator[Path]:
    """Regular files below, by name; links and .git are not followed."""
    for path in sorted(top.iterdir()):
        if path.is_symlink() or path.name == ".git":
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path
