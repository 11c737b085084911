"""Writes the golden store of today's format: `python tests/golden/make_store.py` makes `store-format-N.db` and `.json`.

Run once per format, by the version that introduces it, and never again: the files are what that version really wrote, and
test_store.py opens them with every later one (S15). The life in it is small and has a bit of everything.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.format import FORMAT
from cairn.runtime.storage.store import (
    Address,
    Admission,
    Append,
    Batch,
    Creation,
    Due,
    Durability,
    Producer,
    TokenRow,
    WorkerRow,
)

HERE = Path(__file__).parent

#: The keys of the golden life, for the tests that repeat them.
ADMISSION = Admission("order-17", "fiber-1", b"digest of the body")
PRODUCER = Producer("shop", 3, 0)
BLOB = b"an attachment, " * 70
TOKEN = TokenRow("hash of a token", "ci", "default", ("read", "send"), ("toy/*",), False, 6.0, 7e9)


def store_at(path: str, boot: str) -> SqliteStore:
    return SqliteStore(path, clock=SystemClock(), ids=SystemIds(), inline=True, boot=boot, ballast=False)


async def live(path: str) -> None:
    """A life over two boots of the machine."""
    store = store_at(path, "first boot")
    await store.open()
    born = Batch(b'[{"type":"instance.created","kind":"toy","id":"one","uid":"uid-1","at":1.5}]', b"[]", 1)
    asked = Batch('[{"type":"fiber.accepted","fiber":"fiber-1","text":"naïve ☃"}]'.encode(), b'[{"chunk":1}]', 1)
    creation = Creation("uid-1", "incarnation-1", born, 1.5)
    request = Append(0, asked, admission=ADMISSION, due=(Due("run", 2.25), Due("later", 1e10)))
    n = (await store.admit(Address("toy", "one"), creation, request)).n
    await store.register(WorkerRow("worker-1", "host", 7, ("toy", "other"), 1.0, 0.0, "boot:1:2"), 60.0, lambda: True)
    await store.claim(n, "worker-1", expected_epoch=0, make=lambda epoch: Batch(b'[{"claimed":%d}]' % epoch))
    name = await store.put_blob("default", BLOB)
    await store.append(Append(n, Batch(b'[{"fact":1}]'), 1, blobs=(name,), due=(Due("run", None),)))
    await store.append(Append(n, Batch(b'[{"delta":1}]', b"[]"), 1, Durability.DELTA))
    await store.append(Append(n, Batch(b'[{"produced":1}]'), producer=PRODUCER))
    await store.save_checkpoint(n, 1, 4, b"fold at 4")
    await store.release(n, 1, Batch(b'[{"released":1}]'))
    await store.admit(Address("toy", "two", "tenant-2"), Creation("uid-2", "inc-2", Batch(b"[]"), 2.0), Append(0, Batch(b"[]")))
    await store.close()
    store = store_at(path, "second boot")
    await store.open()
    await store.append(Append(n, Batch(b'[{"after the second boot":1}]')))
    await share(store, n)
    await store.close()


async def share(store: SqliteStore, n: int) -> None:
    """What formats 2 and 3 brought: a fork, a fork whose source is deleted, merged rows, a snapshot, a token; a dump."""
    forked = await store.fork(n, 3, Address("toy", "fork"), Creation("uid-3", "inc-3", Batch(b'[{"forked":3}]', b"[]", 1), 3.0))
    for i in range(4):
        await store.append(Append(forked.n, Batch(b'[{"delta":%d}]' % i, b"[]", 1), None, Durability.DELTA))
    await store.merge(forked.n, forked.ordinal + 1, forked.ordinal + 3, Batch(b'[{"deltas":[0,1,2]}]', b"[]", 1))
    await store.save_snapshot(forked.n, forked.ordinal + 4, 1, b"seen by a reader")
    await store.save_dump(forked.n, "program", b"of an interpreter")
    admitted = await store.admit(
        Address("toy", "source"),
        Creation("uid-4", "inc-4", Batch(b'["gone but for a fork"]'), 4.0),
        Append(0, Batch(b'["kept"]')),
    )
    await store.append(Append(admitted.n, Batch(b'["not kept"]')))
    await store.fork(admitted.n, 1, Address("toy", "orphan"), Creation("uid-5", "inc-5", Batch(b'["forked"]'), 5.0))
    await store.delete(admitted.n)
    await store.put_token(TOKEN)


async def read(store: SqliteStore) -> dict[str, Any]:
    """Everything a reader sees, as JSON."""
    found = []
    for instance in await store.instances():
        checkpoint = await store.checkpoint(instance.n)
        snapshot = await store.snapshot(instance.n, 1)
        found.append(
            {
                "n": instance.n,
                "address": [instance.address.tenant, instance.address.kind, instance.address.id],
                "uid": instance.uid,
                "incarnation": instance.incarnation,
                "head": instance.head,
                "reserved": instance.reserved,
                "epoch": instance.epoch,
                "owner": instance.owner,
                "created_at": instance.created_at,
                "checkpoint": None if checkpoint is None else [checkpoint[0], checkpoint[1].decode()],
                "log": [
                    [row.ordinal, row.prev, row.epoch, row.batch.projection, row.merged_from]
                    + [base64.b64encode(part).decode() for part in (row.batch.records, row.batch.chunks)]
                    for row in await store.read(instance.n, -1)
                ],
                # What format 1 could not say is said only where there is something to say.
                **({} if instance.forked_from is None else {"fork": [instance.forked_from, instance.fork_offset]}),
                **({} if snapshot is None else {"snapshot": [snapshot[0], snapshot[1].decode()]}),
            }
        )
    due = [[row.n, row.name, row.due_at] for row in await store.due(["toy"], 1e12)]
    tokens = [json.loads(json.dumps(asdict(token))) for token in await store.tokens()]
    return {"instances": found, "due": due, **({"tokens": tokens} if tokens else {})}


async def lived(path: str) -> dict[str, Any]:
    await live(path)
    store = store_at(path, "second boot")
    await store.open()
    seen = await read(store)
    await store.close()
    return seen


def main(folder: Path) -> None:
    target = folder / f"store-format-{FORMAT}.db"
    if target.exists():
        sys.exit(f"{target} exists; a golden file is made once")
    with tempfile.TemporaryDirectory() as work:
        seen = asyncio.run(lived(f"{work}/cairn.db"))
        target.write_bytes(Path(work, "cairn.db").read_bytes())
    target.with_suffix(".json").write_text(json.dumps(seen, indent=1) + "\n")


if __name__ == "__main__":
    main(HERE)
