"""A draft of an instance's files: changes that reads see and the log does not, until they are appended, all at once.

Laws. Nothing of a draft is anywhere but in memory, apart from content too large for it, which is in the store without anybody
referring to it and is collected when nobody does. A draft that is not appended never happened. Its records go into a batch
of the owner's choosing: what else is in that batch is true exactly when the files are.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from cairn.errors import Conflict, UsageError
from cairn.runtime import records as r
from cairn.runtime.files import Change, Content, Node, fail
from cairn.runtime.files_overlay import Overlay
from cairn.runtime.files_paths import bare, place
from cairn.runtime.files_tree import Nodes
from cairn.runtime.storage.store import Durability
from cairn.runtime.workspace_content import Stored
from cairn.runtime.workspace_reading import Reading

if TYPE_CHECKING:
    from cairn.runtime.workspace import Workspace

#: Content that goes into one record; more of it is packed into a chunk. A record has at most 1 MB, and others share its batch.
RECORD_CONTENT_BYTES = 256 << 10

#: Changes of one record, encoded; more of them are staged in batches before it.
RECORD_CHANGES_BYTES = 600 << 10

_encode = msgspec.json.Encoder().encode


class Draft(Reading):
    """Changes over the files of `workspace` as they are. Used by one task at a time; good for one append.

    Every write raises WorkspaceError (its errno says which) or WorkspaceFull, and then nothing of it is in the draft.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._contents = workspace._contents
        self._over = Overlay(workspace.tree, workspace.quota)
        self._chunks: dict[str, tuple[str, ...]] = {}
        """What is to be kept with each list of chunks."""
        self._staged: tuple[str, int, list[Change]] | None = None

    @property
    def _nodes(self) -> Nodes:
        return self._over

    def _pending(self, node: Node) -> bytes | None:
        return self._over.inline.get(node.id)

    @property
    def is_empty(self) -> bool:
        """Whether appending it would change nothing. A file that was made and removed again is nothing."""
        return self._over.is_empty or not self._over.changes()

    # --- writing

    async def write(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int | None = None, parents: bool = False
    ) -> None:
        """The file has this content; it is made if there is none, with its directories if `parents`. A link is followed."""
        await self._write(path, data, mode=mode, parents=parents)

    async def append(self, path: str, data: bytes | AsyncIterable[bytes]) -> None:
        """The file, made if there is none, ends with this content. Costs what is appended, not what is there."""
        found = place(self._over, path).node
        before = found if found is not None and found.kind == "file" else None
        pending = self._pending(before) if before is not None else None
        if pending is None:
            await self._write(path, data, before)
        else:
            await self._write(path, pending + data if isinstance(data, bytes) else _after(pending, data))

    async def _write(
        self,
        path: str,
        data: bytes | AsyncIterable[bytes],
        before: Node | None = None,
        *,
        mode: int | None = None,
        parents: bool = False,
    ) -> None:
        missing = self._missing(path) if parents else []
        self._check_writable(path, missing)
        stored = await self._stored(path, data, before)
        over, now = self._over, self._now()
        is_new = bool(missing) or place(over, path).node is None
        over.afford(path, 0, len(missing) + is_new, 0)
        for each in missing:
            over.mkdir(each, now)
        node = over.file(path, now, mode)
        over.put(node.id, stored.size, stored.content, now)
        if mode is not None and not is_new:
            over.chmod(path, mode)
        if isinstance(stored.content, Content):
            self._chunks[stored.content.manifest or stored.content.chunks[0]] = stored.chunks
        await self._pack(RECORD_CONTENT_BYTES)

    async def _stored(self, path: str, data: bytes | AsyncIterable[bytes], before: Node | None) -> Stored:
        """The content is in the store, or small. One that cannot fit is not read to its end."""
        over, quota = self._over, self._over.quota
        present = self._present(path)
        limit = quota.bytes - over.used_bytes + (present.size if present is not None else 0)
        limit = max(0, min(limit, quota.history - over.written))
        if isinstance(data, bytes) and len(data) > limit:
            stored = Stored(len(data), None)
        else:
            stored = await self._contents.put(data, before, limit=limit)
        if stored.size > limit:
            over.afford(path, stored.size - (present.size if present is not None else 0), 0, stored.size)
        return stored

    def _present(self, path: str) -> Node | None:
        try:
            return place(self._over, path).node
        except FileNotFoundError:
            return None

    def _check_writable(self, path: str, missing: Sequence[str]) -> None:
        """Before content is stored in vain."""
        is_slashed = path.endswith("/")
        node = None if missing else place(self._over, bare(path), follow=not is_slashed).node
        if is_slashed or (node is not None and node.kind == "directory"):
            fail(errno.EISDIR, path)

    async def mkdir(self, path: str, *, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """There is a directory."""
        if parents:
            for each in self._missing(path):
                self._over.mkdir(each, self._now())
        if exist_ok and (found := self.stat(path)) is not None and found.is_directory:
            return
        self._over.mkdir(path, self._now(), mode)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """A file, a link itself, an empty directory is gone; with `recursive` a directory with all in it."""
        self._over.remove(path, self._now(), recursive=recursive)

    async def rename(self, old: str, new: str) -> None:
        """What was at `old` is at `new`, with all that is in it; a file or an empty directory that was there is gone."""
        self._over.rename(old, new, self._now())

    async def copy(self, old: str, new: str) -> None:
        """The file at `new` has the content and the mode of the one at `old`. No stored content is read."""
        node = self._file(old)
        pending = self._pending(node)
        if pending is not None or node.content is None:
            await self._write(new, pending or b"", mode=node.mode)
            return
        self._check_writable(new, ())
        self._over.put(self._over.file(new, self._now(), node.mode).id, node.size, node.content, self._now())

    async def symlink(self, target: str, path: str) -> None:
        """There is a link. It may lead to nothing; it never leads out."""
        self._over.symlink(target, path, self._now())

    async def chmod(self, path: str, mode: int) -> None:
        """Of its mode nine bits are kept; a workspace has no owner and nothing runs as anybody in it."""
        self._over.chmod(path, mode)

    async def touch(self, path: str, *, mtime: float | None = None) -> None:
        """The file, made if there is none, or the directory has this time, or the present."""
        if place(self._over, path).node is None:
            await self._write(path, b"")
        self._over.set_time(path, self._now() if mtime is None else mtime)

    def _missing(self, path: str) -> list[str]:
        """The directories above a path that are not there, the highest first."""
        found: list[str] = []
        above = path.rstrip("/").rpartition("/")[0].rstrip("/")
        while above and self.stat(above) is None:
            found.append(above)
            above = above.rpartition("/")[0].rstrip("/")
        return found[::-1]

    def _now(self) -> float:
        return self._workspace.now()

    # --- appending

    async def prepare(self) -> None:
        """What does not fit into one record is in the log before it, without effect. Needs the workspace's turn.

        Only for a draft of thousands of changes; nothing for others.
        """
        changes = self._over.changes()
        if _weight(changes) <= RECORD_CHANGES_BYTES:
            return
        transaction = self._workspace.instance.ids.new("files")
        for part in _parts(changes):
            record = r.FilesStaged(transaction=transaction, changes=tuple(part))
            await self._workspace.instance.append([record], durability=Durability.DELTA, blobs=self._kept(part))
        self._staged = (transaction, self._workspace.tree.revision, changes)

    def records(self) -> list[r.Record]:
        """What makes the files as this draft has them: no record, or one.

        Raises Conflict, naming the path, when somebody changed the same meanwhile; WorkspaceFull; UsageError when it is so
        large that `prepare` has to come first.
        """
        over, now = self._over, self._now()
        if self._staged is not None:
            transaction, revision, before = self._staged
            if revision != over.base.revision or before != over.changes():
                raise Conflict("the files were changed after this draft was prepared; prepare it again")
            return [r.FilesChanged(at=now, base=revision, staged=transaction)]
        changes = [] if over.is_empty else over.changes()
        if not changes:
            return []
        if _weight(changes) > RECORD_CHANGES_BYTES:
            raise UsageError(f"{len(changes):,} changes of files do not fit into one record; `await draft.prepare()` first")
        return [r.FilesChanged(at=now, base=over.base.revision, changes=tuple(changes))]

    @property
    def blobs(self) -> tuple[str, ...]:
        """The content that the records refer to: give it to `append` with them."""
        if self._staged is not None:
            return ()
        found: dict[str, None] = {}
        for hash in self._over.hashes():
            found |= dict.fromkeys(self._chunks.get(hash, (hash,)))
        return tuple(found)

    async def commit(self, also: Sequence[r.Record] = ()) -> int | None:
        """The draft is in the log, in one batch with `also`: its ordinal, or None when there is nothing to append.

        Durable. Raises Conflict, WorkspaceFull, Fenced; then nothing was appended.
        """
        await self.prepare()
        records = self.records()
        if not records and not also:
            return None
        same = self._over.base.revision == self._over.revision
        ordinal = await self._workspace.instance.append([*also, *records], blobs=self.blobs)
        if same and self._staged is None:
            self._contents.remember(ordinal, self._over.inline)
        return ordinal

    async def _pack(self, most: int) -> None:
        """The contents that wait for the record are one chunk, when they have become too many for it."""
        if self._over.inline_bytes > most:
            self._over.packed(await self._contents.pack(dict(self._over.inline)))

    def _kept(self, changes: Sequence[Change]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for change in changes:
            for hash in (change.manifest, *change.chunks):
                if hash:
                    found |= dict.fromkeys(self._chunks.get(hash, (hash,)))
        return tuple(found)


async def _after(before: bytes, data: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    yield before
    async for piece in data:
        yield piece


def _weight(changes: Sequence[Change]) -> int:
    """About how long they are in a record; exact where it matters."""
    if len(changes) * 160 + RECORD_CONTENT_BYTES * 4 // 3 < RECORD_CHANGES_BYTES:
        return 0
    return sum(len(_encode(change)) + 1 for change in changes)


def _parts(changes: Sequence[Change]) -> list[list[Change]]:
    """In records that each fit."""
    parts: list[list[Change]] = [[]]
    size = 0
    for change in changes:
        weight = len(_encode(change)) + 1
        if size + weight > RECORD_CHANGES_BYTES and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(change)
        size += weight
    return parts
