"""What today's records are must be readable for ever: a log written once, folded by every later version."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.workspace.desk import copy_of, nodes_of
from tests.workspace.make_history import plain

from cairn.errors import NotFound
from cairn.runtime import files_log
from cairn.runtime.files_tree import Files
from cairn.runtime.storage.store import Address, Batch, InstanceRow, Row
from cairn.runtime.workspace_history import Past

HISTORY = json.loads((Path(__file__).parent / "history-1.json").read_text())
ROWS = [Row(ordinal, prev, 1, Batch(records.encode())) for ordinal, prev, records in HISTORY["rows"]]


class Golden:
    """As much of a store as reading files takes."""

    async def read(self, n: int, after: int, *, limit: int = 1) -> list[Row]:
        return [row for row in ROWS if row.ordinal > after][:limit]

    async def get_blob(self, tenant: str, hash: str) -> bytes:
        data = HISTORY["blobs"].get(hash)
        if data is None:
            raise NotFound(hash)
        return base64.b64decode(data)


def folded(files: Files, after: int) -> Files:
    for row in ROWS:
        if row.ordinal > after:
            for record in files_log.records_of(row):
                files.apply(record, row.ordinal)
    return files


@pytest.mark.parametrize("start", ["the first row", "the checkpoint"])
def test_a_log_of_an_older_version_has_the_same_files(start: str) -> None:
    """S15, T18: every form of a record: inline text and bytes, chunks, lists of chunks, packs, staged changes, moves."""
    ordinal, data = HISTORY["checkpoint"]
    restored = files_log.restored(data.encode())
    assert restored is not None
    files = folded(Files(), -1) if start == "the first row" else folded(restored, ordinal)

    row = InstanceRow(1, Address("toy", "a"), "uid", "life", 0, 0, 0, None, 0.0)
    store: Any = Golden()
    past = Past(store, row, files.tree, ROWS[-1].ordinal)
    huge = past.stat("/huge")
    assert huge is not None and huge.size == HISTORY["huge"]
    tree = files.tree
    del tree._children[1]["huge"]  # its chunks are not kept here
    assert plain(asyncio.run(copy_of(past))) == HISTORY["files"]
    assert past.stat("/text").mtime == 1_000_000_000.5  # type: ignore[union-attr]


def test_a_checkpoint_and_the_log_say_the_same() -> None:
    """S15: both forms of one state."""
    ordinal, data = HISTORY["checkpoint"]
    restored = files_log.restored(data.encode())
    assert restored is not None
    assert nodes_of(folded(restored, ordinal).tree) == nodes_of(folded(Files(), -1).tree)
