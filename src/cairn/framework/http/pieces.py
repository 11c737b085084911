"""Answers that may be large: sent as they are made, a piece at a time. No state.

Laws. No more is in memory than one piece. A client that went away ends the work; one that takes nothing ends it too, and then
the answer is visibly cut off, because its connection is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from cairn.framework.http.responses import Receive, Send, encoded

#: Bytes that are gathered before they are sent.
PIECE_BYTES = 64 * 1024


async def send_pieces(
    send: Send,
    receive: Receive,
    parts: AsyncIterator[bytes],
    type: str,
    headers: Mapping[str, str],
    *,
    stall_seconds: float,
) -> None:
    """The parts are sent, or the client is gone. *Raises* TimeoutError when it took nothing for `stall_seconds`, and what
    `parts` raises; the answer has begun then and stays incomplete."""

    async def write(data: bytearray, *, more: bool) -> None:
        async with asyncio.timeout(stall_seconds):
            await send({"type": "http.response.body", "body": bytes(data), "more_body": more})

    gone = asyncio.ensure_future(_gone(receive))
    piece = bytearray()
    try:
        await send({"type": "http.response.start", "status": 200, "headers": encoded({"content-type": type, **headers})})
        async for part in parts:
            piece += part
            if len(piece) < PIECE_BYTES:
                continue
            await asyncio.sleep(0)  # neither a store in memory nor a fast client would let anybody else have a turn
            if gone.done():
                return
            await write(piece, more=True)
            piece.clear()
        await write(piece, more=False)
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
