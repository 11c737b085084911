"""The bytes of files: cut into chunks on the way into the store, put together on the way out, one chunk in memory at a time.

Laws. Content is named by its hash and kept by tenant, so two instances of a tenant share what is equal and nobody else can name
it (X11). A chunk that was put is collected after a grace period unless an append refers to it. What is kept in memory is
bounded and is only ever content that cannot change: a hash, or a place in the log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import NamedTuple

import msgspec

from cairn.errors import StoreCorrupt
from cairn.runtime import files_log
from cairn.runtime.files import CHUNK_BYTES, INLINE_BYTES_MAX, Content, Node
from cairn.runtime.storage.store import Store

#: A file of more chunks than this names a list of them, so that a record stays small however large the file is.
CHUNKS_MAX = 8

#: Content of small files and of the chunk read last, kept in memory per workspace: a model that edits reads what it wrote.
CACHE_BYTES = 2 << 20

_manifest = msgspec.json.Decoder(tuple[str, ...]).decode


class Stored(NamedTuple):
    """Content that a file can have: bytes for the record, or where they are; and the chunks that are to be kept with it."""

    size: int
    content: Content | bytes | None
    chunks: tuple[str, ...] = ()


class Contents:
    """The content of one instance's files."""

    def __init__(self, store: Store, n: int, tenant: str) -> None:
        self._store = store
        self._n = n
        self._tenant = tenant
        self._cache: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._cached = 0

    # --- reading

    def glance(self, node: Node) -> bytes | None:
        """All of a small file, when it is in memory."""
        content = node.content
        if content is None:
            return b""
        if content.ordinal < 0:
            return None
        return self._known(("", content.ordinal, content.id))

    async def read(self, node: Node, start: int = 0, size: int | None = None) -> bytes:
        """Raises StoreCorrupt, NotFound (its instance was deleted meanwhile)."""
        return b"".join([piece async for piece in self.stream(node, start, size)])

    async def stream(self, node: Node, start: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` on, a chunk at a time."""
        end = node.size if size is None else min(node.size, start + size)
        content = node.content
        if start >= end or content is None:
            return
        if content.ordinal >= 0:
            yield (await self._inline(content))[start:end]
        elif content.start or (len(content.chunks) == 1 and not content.manifest):
            chunk = await self._chunk(content.chunks[0])
            yield chunk[content.start + start : content.start + end]
        else:
            chunks = await self.chunks(content)
            for index in range(start // CHUNK_BYTES, (end - 1) // CHUNK_BYTES + 1):
                above = index * CHUNK_BYTES
                chunk = await self._store.get_blob(self._tenant, chunks[index])
                yield chunk if start <= above and above + len(chunk) <= end else chunk[max(0, start - above) : end - above]

    async def chunks(self, content: Content) -> tuple[str, ...]:
        """The hashes of a file's pieces."""
        if not content.manifest:
            return content.chunks
        return _manifest(await self._chunk(content.manifest))

    async def _chunk(self, hash: str) -> bytes:
        known = self._known((hash, 0, 0))
        if known is None:
            known = await self._store.get_blob(self._tenant, hash)
            self._keep((hash, 0, 0), known)
        return known

    async def _inline(self, content: Content) -> bytes:
        key = ("", content.ordinal, content.id)
        known = self._known(key)
        if known is None:
            rows = await self._store.read(self._n, content.ordinal - 1, limit=1)
            found = files_log.inline(rows[0]) if rows and rows[0].ordinal == content.ordinal else {}
            if content.id not in found:
                raise StoreCorrupt(
                    f"batch {content.ordinal} does not hold the content of node {content.id}; restore a backup"
                )  # S14
            for id, data in found.items():
                self._keep(("", content.ordinal, id), data)
            known = found[content.id]
        return known

    def remember(self, ordinal: int, inline: Mapping[int, bytes]) -> None:
        """What was just written into a record need not be read back."""
        for id, data in inline.items():
            self._keep(("", ordinal, id), data)

    def _known(self, key: tuple[str, int, int]) -> bytes | None:
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
        return found

    def _keep(self, key: tuple[str, int, int], data: bytes) -> None:
        if key in self._cache:
            return
        self._cache[key] = data
        self._cached += len(data)
        while self._cached > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached -= len(dropped)

    # --- writing

    async def put(self, data: bytes | AsyncIterable[bytes], before: Node | None = None, *, limit: int | None = None) -> Stored:
        """The content, after that of the file `before` if given. One chunk is in memory, whatever its size.

        Stops reading once it has more than `limit` bytes; the size says so.
        """
        known: tuple[str, ...] = ()
        rest, size = b"", 0
        if before is not None:
            known, rest, size = await self._whole_chunks(before)
        hashes, waiting = list(known), bytearray(rest)
        async for piece in _pieces(data):
            waiting += piece
            size += len(piece)
            while len(waiting) >= CHUNK_BYTES:
                hashes.append(await self._store.put_blob(self._tenant, bytes(waiting[:CHUNK_BYTES])))
                del waiting[:CHUNK_BYTES]
            if limit is not None and size > limit:
                return Stored(size, None)
        if not hashes and len(waiting) <= INLINE_BYTES_MAX:
            return Stored(size, bytes(waiting))
        if waiting:
            hashes.append(await self._store.put_blob(self._tenant, bytes(waiting)))
        return await self._listed(size, tuple(hashes))

    async def _whole_chunks(self, node: Node) -> tuple[tuple[str, ...], bytes, int]:
        """The chunks of a file that stay as they are when something is appended, what comes after them, and its size."""
        full, content = node.size // CHUNK_BYTES, node.content
        if content is None or content.ordinal >= 0 or content.start or not full:
            return (), await self.read(node), node.size
        chunks = await self.chunks(content)
        return chunks[:full], await self.read(node, full * CHUNK_BYTES), node.size

    async def _listed(self, size: int, hashes: tuple[str, ...]) -> Stored:
        if len(hashes) <= CHUNKS_MAX:
            return Stored(size, Content(hashes), hashes)
        manifest = await self._store.put_blob(self._tenant, msgspec.json.encode(hashes))
        return Stored(size, Content(manifest=manifest), (manifest, *hashes))

    async def pack(self, files: Mapping[int, bytes]) -> dict[int, Content]:
        """Small files as one chunk: where each is."""
        hash = await self._store.put_blob(self._tenant, b"".join(files.values()))
        places, start = {}, 0
        for id, data in files.items():
            places[id] = Content((hash,), start)
            start += len(data)
        return places


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, str):
        raise TypeError("a file's content is bytes; text has to be encoded first: text.encode()")
    if isinstance(data, bytes | bytearray | memoryview):
        for start in range(0, len(data), CHUNK_BYTES):
            yield bytes(data[start : start + CHUNK_BYTES])
        return
    async for piece in data:
        for start in range(0, len(piece), CHUNK_BYTES):
            yield piece[start : start + CHUNK_BYTES]
