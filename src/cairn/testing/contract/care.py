"""Opening, closing, checking, backing up."""

import asyncio
import os
import tempfile

from cairn.errors import CairnError, StoreError, UsageError
from cairn.runtime.storage.store import Due, Producer
from cairn.testing.contract.case import (
    Scene,
    born,
    collector,
    delta,
    fact,
    log,
    owned,
    refused,
)

CASES, case = collector()


async def lived(s: Scene) -> int:
    """A place where a bit of everything has happened."""
    store = s.store
    n = (await born(store)).n
    await owned(store, n)
    name = await store.put_blob("default", b"z" * 300_000)
    await store.append(fact(n, epoch=1, blobs=(name,), due=(Due("a", 5.0),)))
    await store.append(delta(n, epoch=1))
    await store.append(fact(n, epoch=None, producer=Producer("p", 0, 0)))
    await store.save_checkpoint(n, 1, 3, b"state")
    return n


@case()
async def a_sound_store_has_no_problems(s: Scene) -> None:
    """S14."""
    assert await s.store.check() == []
    await lived(s)
    assert await s.store.check() == []


@case()
async def opening_twice_is_opening_once(s: Scene) -> None:
    """S1."""
    await s.store.open()
    assert await s.store.instances() == []


@case()
async def closing_twice_is_closing_once(s: Scene) -> None:
    """L6."""
    await s.store.close()
    await s.store.close()


@case()
async def a_closed_store_refuses_everything_clearly(s: Scene) -> None:
    """L6."""
    n = (await born(s.store)).n
    await s.store.close()
    for call in (
        s.store.append(fact(n)),
        s.store.read(n, -1),
        s.store.changed(n, 0, 0),
        s.store.due(["toy"], 0.0),
        s.store.wait_for_work(0),
        s.store.put_blob("t", b""),
        s.store.check(),
    ):
        error = await refused(call, StoreError)
        assert "open" in str(error)


@case(survives=True)
async def what_was_handed_over_before_closing_is_written(s: Scene) -> None:
    """S1, L6."""
    n = (await born(s.store)).n
    tasks = [asyncio.create_task(s.store.append(fact(n, b"[%d]" % i))) for i in range(50)]
    await asyncio.sleep(0)
    store = await s.reopened()
    await asyncio.gather(*tasks)
    assert (await log(store, n))[2:] == [b"[%d]" % i for i in range(50)]


@case(survives=True)
async def a_store_can_be_opened_again_by_the_same_handle(s: Scene) -> None:
    """S1."""
    n = (await born(s.store)).n
    await s.store.close()
    await s.store.open()
    assert len(await s.store.read(n, -1)) == 2


@case()
async def the_numbers_of_a_store_are_right(s: Scene) -> None:
    """S14."""
    await lived(s)
    await born(s.store, "two")
    info = await s.store.info()
    assert (info.instances, info.rows) == (2, 8)
    assert info.format >= 1 and info.bytes > 0


@case()
async def a_backup_of_a_live_store_is_a_sound_copy(s: Scene) -> None:
    """S1, S2, S14."""
    n = await lived(s)
    before = await s.store.read(n, -1)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "copy.db")
        busy = asyncio.create_task(_keep_appending(s, n))
        await s.store.backup(path)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        assert _sizes(folder).keys() == {"copy.db"} and all(_sizes(folder).values())
    assert (await s.store.read(n, -1))[: len(before)] == before


async def _keep_appending(s: Scene, n: int) -> None:
    while True:
        await s.store.append(fact(n, epoch=1))
        await asyncio.sleep(0)


@case()
async def a_backup_never_overwrites(s: Scene) -> None:
    """S14."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "precious"))
        await refused(s.store.backup(os.path.join(folder, "precious")), UsageError)
        assert os.listdir(folder) == ["precious"]


@case()
async def a_backup_that_cannot_be_written_leaves_nothing(s: Scene) -> None:
    """S14."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            await s.store.backup(os.path.join(folder, "no", "such", "folder", "copy.db"))
        except CairnError as error:
            assert isinstance(error, StoreError)
        else:
            raise AssertionError("a backup into a folder that does not exist was reported as done")
        assert os.listdir(folder) == []


def _sizes(folder: str) -> dict[str, int]:
    return {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
