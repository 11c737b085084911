"""A process full of readers, for the load test: some read what they are sent, some take nothing.

    python -m tests.http.load_client PORT LIVE LIVE_TARGET STUCK STUCK_TARGET

It says `connected` when every reader has the beginning of its answer; when each live one has seen a submission settle, one
line of JSON about what they read; it ends when its stdin does. Sockets and no HTTP library: it must cost less than the server.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter

from tests.http.calling import chunks_of

#: Connections that are made at a time.
AT_ONCE = 100
#: Bytes a stuck reader's kernel takes for it before it stops taking.
STUCK_BUFFER_BYTES = 4_096


class Reading(asyncio.Protocol):
    """One reader that takes everything."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.begun = asyncio.Event()
        self.settled = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.begun.set()
        if b"submission-settled" in data:
            self.settled.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.settled.set()

    @property
    def text(self) -> str:
        """All words that were shown."""
        body = unchunked(bytes(self.data).partition(b"\r\n\r\n")[2])
        deltas = [chunk["delta"] for chunk in chunks_of(body) if chunk["type"] == "message-delta"]
        return "".join(deltas)


def unchunked(body: bytes) -> bytes:
    """The content of a chunked body, as far as it came."""
    content = bytearray()
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        content += rest[:length]
        body = rest[length + 2 :]
    return bytes(content)


def request(port: int, target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()


async def read(port: int, target: str) -> Reading:
    transport, reading = await asyncio.get_running_loop().create_connection(Reading, "127.0.0.1", port)
    transport.write(request(port, target))
    await reading.begun.wait()
    return reading


async def stick(port: int, target: str) -> socket.socket:
    """A connection whose answer begins and is never read."""
    loop = asyncio.get_running_loop()
    stuck = socket.socket()
    stuck.setblocking(False)
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STUCK_BUFFER_BYTES)
    await loop.sock_connect(stuck, ("127.0.0.1", port))
    await loop.sock_sendall(stuck, request(port, target))
    await loop.sock_recv(stuck, 1)
    return stuck


async def main() -> None:
    port, live, live_target, stuck, stuck_target = sys.argv[1:]
    readings: list[Reading] = []
    for start in range(0, int(live), AT_ONCE):
        count = min(AT_ONCE, int(live) - start)
        readings += await asyncio.gather(*(read(int(port), live_target) for _ in range(count)))
    held = await asyncio.gather(*(stick(int(port), stuck_target) for _ in range(int(stuck))))
    print("connected", flush=True)
    await asyncio.gather(*(reading.settled.wait() for reading in readings))
    texts = Counter(reading.text for reading in readings)
    print(json.dumps({"stuck": len(held), "texts": texts}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
