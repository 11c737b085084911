"""Writes the golden history of files: `python -m tests.workspace.make_history` makes `history-1.json`.

Run once, by the version that introduces a form of the records, and never again (S15): what it wrote is what logs hold.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from tests.workspace.desk import Desk, copy_of

from cairn.runtime import workspace_draft

HERE = Path(__file__).parent


def plain(copy: dict[str, Any]) -> dict[str, Any]:
    """A copy of files as JSON."""
    return {
        path: [kind, mode, base64.b64encode(content).decode() if isinstance(content, bytes) else content]
        for path, (kind, mode, content) in copy.items()
    }


async def main() -> None:
    workspace_draft.RECORD_CHANGES_BYTES = 1_500  # type: ignore[misc]
    workspace_draft.RECORD_CONTENT_BYTES = 4_000  # type: ignore[misc]
    async with Desk() as desk:
        files = desk.files
        await files.write("/text", "naïve ☃\n".encode())
        await files.write("/binary", bytes(range(256)))
        await files.write("/large", b"large" * 20_000)
        await files.write("/huge", b"huge" * (9 << 18))
        await files.mkdir("/d/e", parents=True)
        await files.symlink("../text", "/d/link")
        await files.append("/large", b"tail")
        await files.copy("/large", "/d/e/copy")
        await files.rename("/d", "/moved")
        await files.chmod("/text", 0o600)
        await files.touch("/text", mtime=1_000_000_000.5)
        await desk.instance.save_checkpoint()
        async with files.transaction() as draft:
            for number in range(40):
                await draft.write(f"/staged/{number}", bytes([number]) * 300, parents=True)
        await files.remove("/binary")
        found = await desk.store.checkpoint(desk.instance.n)
        assert found is not None
        rows = await desk.store.read(desk.instance.n, -1, limit=1_000)
        blobs: dict[str, str] = {}
        tree = desk.instance.files.tree
        for node in tree.below(1):
            if node.content is not None:
                for hash in (node.content.manifest, *await files._contents.chunks(node.content)):
                    if hash:
                        blobs[hash] = base64.b64encode(await desk.store.get_blob("default", hash)).decode()
        history = {
            "rows": [[row.ordinal, row.prev, row.batch.records.decode()] for row in rows],
            "checkpoint": [found[0], found[1].decode()],
            "blobs": {hash: data if len(data) < 200_000 else None for hash, data in blobs.items()},
            "files": plain({path: entry for path, entry in (await copy_of(files)).items() if path != "/huge"}),
            "huge": files.stat("/huge").size,  # type: ignore[union-attr]
        }
    (HERE / "history-1.json").write_text(json.dumps(history, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
