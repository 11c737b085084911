"""An instance's files for those who do not own it: as they are, as they were at any offset, what changed in between, and what
changes from now on.

Laws. Only the store is read, and nothing is known of the instance but its files: its application need not be installed. What
was replaced or removed can be read as of then for as long as the instance lives, because its log refers to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from cairn.errors import NotFound, StoreCorrupt
from cairn.runtime import files_log, log
from cairn.runtime import records as r
from cairn.runtime.files_changes import FileChange, Watcher, unified
from cairn.runtime.files_tree import Files, Nodes, Tree
from cairn.runtime.storage.store import Address, InstanceRow, Row, Store
from cairn.runtime.workspace_content import Contents
from cairn.runtime.workspace_reading import Reading


class Past(Reading):
    """Files as they were at `offset`; nobody changes them any more."""

    def __init__(self, store: Store, row: InstanceRow, tree: Tree, offset: int) -> None:
        self.offset = offset
        self._tree = tree
        self._contents = Contents(store, row.n, row.address.tenant)

    @property
    def _nodes(self) -> Nodes:
        return self._tree


async def workspace_at(store: Store, address: Address, offset: int | None = None) -> Past:
    """The files of an instance as they were once the batch `offset` was appended, or as they are. Raises NotFound: no such
    instance, or no such offset; StoreCorrupt."""
    row = await log.locate(store, address)
    if offset is not None and not 0 <= offset <= row.reserved:
        raise NotFound(f"{address} has no batch {offset}; its last one is {row.head}")
    files, head = await _folded(store, row, offset)
    return Past(store, row, files.tree, head)


async def changes_between(store: Store, address: Address, before: int, after: int | None = None) -> list[FileChange]:
    """What became of an instance's files from the offset `before` to `after` (or the head), by path. Raises NotFound."""
    row = await log.locate(store, address)
    files, head = await _folded(store, row, before)
    watcher = Watcher()
    async with aclosing(log.read(store, row.n, head)) as rows:
        async for each in rows:
            if after is not None and each.ordinal > after:
                break
            _watch(watcher, files, each)
    return watcher.changes(files.tree)


async def follow_files(store: Store, address: Address, after: int | None = None) -> AsyncIterator[FileChange]:
    """Each change of an instance's files from the offset `after` on (or from now), for ever, whoever makes it.

    A reader of the log: it sees what is durable, in order, once. Raises NotFound when the instance is deleted.
    """
    row = await log.locate(store, address)
    files, head = await _folded(store, row, row.head if after is None else after)
    async with aclosing(log.tail(store, row.n, head)) as rows:
        async for each in rows:
            watcher = Watcher()
            _watch(watcher, files, each)
            for change in watcher.changes(files.tree, each.ordinal):
                yield change


async def diff(store: Store, address: Address, before: int, after: int | None = None) -> str:
    """What became of an instance's files, as a unified diff. Raises NotFound."""
    old, new = await workspace_at(store, address, before), await workspace_at(store, address, after)
    texts = []
    for change in await changes_between(store, address, before, after):
        if change.kind != "directory":
            texts.append(await _diff(old, new, change))
    return "".join(texts)


async def _diff(old: Past, new: Past, change: FileChange) -> str:
    if change.what == "moved" and not change.content:
        return f"rename from {change.was}\nrename to {change.path}\n"
    was = "" if change.what == "created" else change.was or change.path
    now = "" if change.what == "removed" else change.path
    return unified(
        await _bytes(old, was), await _bytes(new, now), f"a{was}" if was else "/dev/null", f"b{now}" if now else "/dev/null"
    )


async def _bytes(files: Past, path: str) -> bytes:
    if not path:
        return b""
    entry = files.lstat(path)
    if entry is not None and entry.is_link:
        return entry.target.encode()
    return await files.read(path)


async def _folded(store: Store, row: InstanceRow, at: int | None) -> tuple[Files, int]:
    """The files at an offset, and the ordinal of the last batch folded."""
    found = await store.checkpoint(row.n, at)
    files, head = None, log.BEGINNING
    if found is not None:
        files, head = files_log.restored(found[1]), found[0]
    if files is None:
        files, head = Files(), log.BEGINNING
    async with aclosing(log.read(store, row.n, head)) as rows:
        async for each in rows:
            if at is not None and each.ordinal > at:
                break
            if each.prev != head and each.merged_from is None:
                raise StoreCorrupt(
                    f"{row.address}: batch {each.ordinal} follows {each.prev}, not {head}; a batch is missing (S2)"
                )
            for record in files_log.records_of(each):
                files.apply(record, each.ordinal)
            head = each.ordinal
    return files, head


def _watch(watcher: Watcher, files: Files, row: Row) -> None:
    for record in files_log.records_of(row):
        if isinstance(record, r.FilesChanged):
            watcher.note(files.tree, files.changes(record))
        files.apply(record, row.ordinal)
