"""Transcripts for chat clients, encoded once for all tabs that are told of the same place of a conversation.

Laws. A cache of what `Snapshots` has: whatever it forgets is encoded again. Memory is bounded. The addresses of files are part
of a transcript, so clients that call the server by different names have different ones.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from cairn.framework.http.chat_parts import FileUrl, ui_messages
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.snapshots import Snapshots
from cairn.runtime.storage.store import InstanceRow

if TYPE_CHECKING:
    from cairn.framework.http.request import Request

Json = dict[str, Any]


class Transcripts:
    """The transcripts of one store."""

    def __init__(self, snapshots: Snapshots, limits: HttpLimits) -> None:
        self._snapshots = snapshots
        self._limits = limits
        self._kept: OrderedDict[tuple[int, str], tuple[int, bytes]] = OrderedDict()
        self._bytes = 0

    async def at_head(self, row: InstanceRow, url: FileUrl) -> bytes:
        """The messages as a JSON array, no older than `row`."""
        snapshot = await self._snapshots.at_head(row)
        place = (row.n, url(""))
        kept = self._kept.get(place)
        if kept is None or kept[0] != snapshot.ordinal:
            kept = (snapshot.ordinal, encoded(msgspec.json.decode(snapshot.messages()), url))
            self._keep(place, kept)
        return kept[1]

    def _keep(self, place: tuple[int, str], kept: tuple[int, bytes]) -> None:
        _, old = self._kept.pop(place, (0, b""))
        self._kept[place] = kept
        self._bytes += len(kept[1]) - len(old)
        while self._bytes > self._limits.transcripts_bytes and len(self._kept) > 1:
            _, (_, gone) = self._kept.popitem(last=False)
            self._bytes -= len(gone)


def encoded(messages: list[Json], url: FileUrl) -> bytes:
    return msgspec.json.encode(ui_messages(messages, url))


class FileAddresses:
    """The addresses of a conversation's attachments, as its client sees the server."""

    def __init__(self, request: Request, kind: str, id: str) -> None:
        url = request.url("agents", quote(kind, safe=""), quote(id, safe=""), "attachments", "")
        self._base = f"http{url.removeprefix('ws')}" if url.startswith("ws") else url

    def __call__(self, id: str) -> str:
        return self._base + quote(id, safe="")
