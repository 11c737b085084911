"""What conversations are called in a list: the first words of the first message.

Laws. Words come from the stored chunks of batch 1, which never changes: a title is read once and kept, the longest unasked is
forgotten first. Few are read at a time, whoever asks. A log that is damaged has no title, and its neighbours are listed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from cairn.errors import StoreCorrupt
from cairn.framework.http.limits import HttpLimits
from cairn.runtime.storage.store import InstanceRow, Store

#: Characters of a title: a line in a list.
TITLE_CHARACTERS_MAX = 80

#: Characters of a message among which its first words are looked for. One of a million is not split for eighty of them.
SEARCHED_CHARACTERS = 1_024

#: The ordinal before the first message: batch 0 says that the conversation was created.
_CREATED = 0

_SENT = b'{"type":"message-appended"'


class _Part(msgspec.Struct):
    type: str
    text: str = ""


class _Message(msgspec.Struct):
    parts: list[_Part]


class _Appended(msgspec.Struct):
    message: _Message


_decode = msgspec.json.Decoder(_Appended).decode


class Titles:
    """The titles of one store."""

    def __init__(self, store: Store, limits: HttpLimits) -> None:
        self._store = store
        self._most = limits.titles_max
        self._turn = asyncio.Semaphore(limits.title_reads_max)
        self._kept: OrderedDict[int, str] = OrderedDict()

    async def of(self, rows: Sequence[InstanceRow]) -> list[str]:
        """A title for each, in their order; "" for what has none."""
        return await asyncio.gather(*(self._title(row.n) for row in rows))

    async def _title(self, n: int) -> str:
        kept = self._kept.get(n)
        if kept is not None:
            self._kept.move_to_end(n)
            return kept
        async with self._turn:
            try:
                found = await self._store.read(n, _CREATED, limit=1)
            except StoreCorrupt:
                return ""
        title = self._kept[n] = title_of(found[0].batch.chunks) if found else ""
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return title


def title_of(chunks: bytes) -> str:
    """The first words of the first message among stored chunks, on one line; "" when there are none."""
    for line in chunks.split(b"\n"):
        if line.startswith(_SENT):
            texts = (part.text for part in _decode(line).message.parts if part.type == "text")
            return shortened(next(texts, ""))
    return ""


def shortened(text: str) -> str:
    """The first words of a text. What is left out is left out after a whole word, if there is one, and shown as `…`."""
    words = " ".join(text.lstrip()[:SEARCHED_CHARACTERS].split())
    if len(words) <= TITLE_CHARACTERS_MAX:
        return words
    cut = words[:TITLE_CHARACTERS_MAX]
    whole, space, _ = cut.rpartition(" ")
    return f"{whole if space else cut[:-1]}…"
