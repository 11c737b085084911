"""Images travel as blobs: stored once, named by their hash in records, put back for a model request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from cairn.harness.messages import AssistantMessage, ContextMessage, Image, ResultContent
from cairn.harness.models.protocol import ModelRequest
from cairn.runtime.records import Record
from cairn.runtime.storage.store import Store


class Images:
    """Moves image bytes between records and the blob store of one tenant."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._loaded: dict[int, tuple[ContextMessage, ContextMessage]] = {}

    async def store(self, content: tuple[ResultContent, ...]) -> tuple[ResultContent, ...]:
        """The content with inline images replaced by references to durable blobs."""
        if not any(isinstance(block, Image) and block.data is not None for block in content):
            return content
        return tuple([await self._stored(block) for block in content])

    async def _stored(self, block: ResultContent) -> ResultContent:
        if not isinstance(block, Image) or block.data is None:
            return block
        hash = await self._store.put_blob(self._tenant, block.data)
        return msgspec.structs.replace(block, blob=hash, data=None, size=len(block.data))

    async def load(self, request: ModelRequest) -> ModelRequest:
        """The request with image bytes in place; messages without images keep their identity, those with keep theirs too."""
        messages = [await self._filled(message) for message in request.messages]
        return replace(request, messages=messages)

    async def _filled(self, message: ContextMessage) -> ContextMessage:
        if isinstance(message, AssistantMessage) or not any(isinstance(block, Image) for block in message.content):
            return message
        known = self._loaded.get(id(message))
        if known is None or known[0] is not message:
            content: Any = tuple([await self._bytes(block) for block in message.content])
            known = (message, msgspec.structs.replace(message, content=content))
            self._loaded[id(message)] = known
        return known[1]

    async def _bytes(self, block: ResultContent) -> ResultContent:
        if not isinstance(block, Image) or block.blob is None:
            return block
        return msgspec.structs.replace(block, data=await self._store.get_blob(self._tenant, block.blob))


def blobs_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The blobs these records refer to: kept as long as the instance."""
    content = [block for record in records for block in getattr(record, "content", ())]
    return tuple(block.blob for block in content if isinstance(block, Image) and block.blob is not None)
