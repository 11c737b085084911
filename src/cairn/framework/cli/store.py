"""Which store a command means, opening it, and the verbs `cairn store check` and `cairn store backup`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from cairn.errors import UsageError
from cairn.framework.cli.output import Exit, json_line, line, size
from cairn.framework.config import DEFAULT_STORE, STORE_VARIABLE, find
from cairn.runtime.storage.store import Store


def named(store: str | None) -> Path:
    """The path a command means: `--store`, CAIRN_STORE, the project's, the default. Raises UsageError for what is no path."""
    store = store or os.environ.get(STORE_VARIABLE)
    if not store:
        return find().store or DEFAULT_STORE
    if "://" in store:
        scheme = store.partition("://")[0]
        raise UsageError(f"store '{scheme}://…' is not a path: this version stores in SQLite; name a file")
    return Path(store)


def existing(store: str | None) -> Path:
    """The path of a store that is there. Raises UsageError: looking at a store never creates one."""
    path = named(store)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise UsageError(f"store '{path}' {what}: name one with --store or CAIRN_STORE, or run an agent first")
    return path


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Store, None]:
    """The store, open; closed again whatever happens."""
    from cairn.clock import SystemClock
    from cairn.ids import SystemIds
    from cairn.runtime.storage import SqliteStore

    store = SqliteStore(str(path), clock=SystemClock(), ids=SystemIds(), ballast=False)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def check(store: str | None, *, json: bool) -> int:
    """`cairn store check`: 0 when nothing is wrong, 1 with every problem found."""
    path = existing(store)

    async def work() -> int:
        async with opened(path) as it:
            problems = await it.check()
            info = await it.info()
        if json:
            found = [{"where": problem.where, "what": problem.what} for problem in problems]
            json_line({"store": str(path), "format": info.format, "rows": info.rows, "problems": found})
        else:
            for problem in problems:
                line(f"{problem.where}: {problem.what}")
            verdict = f"{len(problems)} problems; restore from a backup" if problems else "no problems"
            line(f"{path}: {info.instances:,} instances, {info.rows:,} batches, {size(info.bytes)}: {verdict}")
        return Exit.FAILED if problems else Exit.OK

    return asyncio.run(work())


def backup(store: str | None, to: str, *, json: bool) -> int:
    """`cairn store backup`: a consistent copy at `to`, where nothing must be yet."""
    path, target = existing(store), Path(to)
    if target.exists():
        raise UsageError(f"backup target '{target}' exists: a backup never overwrites; choose another name")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"backup target '{target}': its directory does not exist; create it first")

    async def work() -> None:
        async with opened(path) as it:
            await it.backup(str(target))

    asyncio.run(work())
    count = target.stat().st_size
    if json:
        json_line({"store": str(path), "backup": str(target), "bytes": count})
    else:
        line(f"{path} copied to {target} ({size(count)}); verify it with: cairn store check --store {target}")
    return Exit.OK
