"""Stores written by every format there has been, opened by today's code (T18)."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from tests.golden.make_store import ADMISSION, BLOB, PRODUCER, live, read, store_at

from cairn.errors import Conflict
from cairn.runtime.storage.format import FORMAT
from cairn.runtime.storage.store import Address, Admission, Append, Batch, Creation

HERE = Path(__file__).parent
GOLDEN = sorted(HERE.glob("store-format-*.db"))


def copied(golden: Path, tmp_path: Path) -> str:
    path = tmp_path / "cairn.db"
    shutil.copy(golden, path)
    return str(path)


def test_there_is_a_golden_store_of_every_format() -> None:
    """S15: a format without one would be untested for ever."""
    assert [path.stem for path in GOLDEN] == [f"store-format-{i + 1}" for i in range(FORMAT)]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_store_reads_as_it_was_written(golden: Path, tmp_path: Path) -> None:
    """T18, S15, S3: every row, every number."""

    async def main() -> None:
        store = store_at(copied(golden, tmp_path), "second boot")
        await store.open()
        assert await read(store) == json.loads(golden.with_suffix(".json").read_text())
        assert await store.check() == []
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_store_goes_on(golden: Path, tmp_path: Path) -> None:
    """T18, S15, S5, S6: its keys and producers are known, its content is there, and its logs continue."""

    async def main() -> None:
        store = store_at(copied(golden, tmp_path), "third boot")
        await store.open()
        here, creation = Address("toy", "one"), Creation("no", "no", Batch(b"[]"), 0.0)
        known = await store.admit(here, creation, Append(0, Batch(b"[]"), admission=ADMISSION))
        assert (known.duplicate, known.fiber, known.ordinal) == (True, "fiber-1", 1)
        with pytest.raises(Conflict):
            other = Admission(ADMISSION.key, "f", b"another body")
            await store.admit(here, creation, Append(0, Batch(b"[]"), admission=other))
        again = await store.append(Append(known.n, Batch(b'[{"produced":1}]'), producer=PRODUCER))
        assert (again.duplicate, again.ordinal) == (True, 5)
        name = await store.put_blob("default", BLOB)
        assert await store.get_blob("default", name) == BLOB
        found = await store.find(here)
        assert found is not None
        done = await store.append(Append(found.n, Batch(b"[]")))
        assert (done.prev, done.ordinal) == (found.head, found.reserved + 1)
        assert await store.check() == []
        await store.close()

    asyncio.run(main())


def test_todays_code_writes_what_the_newest_golden_store_says(tmp_path: Path) -> None:
    """T18, S15: nothing about the format has changed without a new number."""

    async def main() -> None:
        path = str(tmp_path / "cairn.db")
        await live(path)
        store = store_at(path, "second boot")
        await store.open()
        assert await read(store) == json.loads(GOLDEN[-1].with_suffix(".json").read_text())
        await store.close()

    asyncio.run(main())


def test_the_schema_of_a_golden_store_is_todays(tmp_path: Path) -> None:
    """S15: a migrated store and a new one are the same to SQLite."""

    async def schema(path: str) -> list[tuple[object, ...]]:
        store = store_at(path, "any boot")
        await store.open()
        found = await store._read(lambda db: db.execute("select type, name, sql from sqlite_schema order by type, name"))
        await store.close()
        return found

    async def main() -> None:
        new = await schema(str(tmp_path / "new.db"))
        for golden in GOLDEN:
            assert await schema(copied(golden, tmp_path)) == new

    asyncio.run(main())
