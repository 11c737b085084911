"""X7: a real server under clients that want all of it: slow, huge, deep, many. The good client goes on, the memory stays.

Method: one `cairn serve` with short times, raw sockets against it. Memory is the process's high-water mark, which the kernel
counts and a test may reset. Times are guards against hanging; what a good client waits is printed, and only bounded grossly.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.http.serving import Server, serving

pytestmark = pytest.mark.system

HEADER_SECONDS = 3.0
BODY_SECONDS = 1.0
#: Connections the server takes: one more is refused.
CONNECTIONS_MAX = 5_000
MB = 1024 * 1024

#: What a good client may wait at worst while the server is attacked: far above what it does wait, far below "hangs".
GOOD_SECONDS_MAX = 2.0
PATIENCE_SECONDS = 60.0

PROJECT = f"""
from cairn import Agent, App
from cairn.framework.http.limits import HttpLimits
from cairn.testing.scripted import ScriptedModel

echo = Agent("echo", model=ScriptedModel(lambda request: "I heard you."))
limits = HttpLimits(header_seconds={HEADER_SECONDS}, body_seconds={BODY_SECONDS}, connections_max={CONNECTIONS_MAX})
app = App(agents=[echo], store="exhausted.db", limits=limits)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    project = tmp_path_factory.mktemp("exhausted")
    (project / "victim.py").write_text(PROJECT)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with serving(project, target="victim:app", options=["--log", "none"]) as running:
            assert httpx.post(f"{running.url}/agents/echo/c", json={"kind": "user", "body": "hi"}).status_code == 202
            yield running
            assert httpx.get(f"{running.url}/health").status_code == 200, "it lives after all of it"
            assert "Traceback" not in running.output, running.output
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- looking on -----------------------------------------------------------------------------------------------------


class Memory:
    """How much memory the server held at most since this was made, beyond what it held then."""

    def __init__(self, server: Server) -> None:
        self._folder = Path(f"/proc/{server.pid}")
        (self._folder / "clear_refs").write_text("5")
        self._before = self._kilobytes("VmRSS")

    @property
    def grown_mb(self) -> float:
        return (self._kilobytes("VmHWM") - self._before) / 1024

    def _kilobytes(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def good_client(server: Server, stop: asyncio.Event) -> list[float]:
    """Reads a conversation again and again until it is told to stop; how long each time took."""
    took = []
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        while not stop.is_set() or not took:
            began = time.monotonic()
            answer = await client.get(f"{server.url}/agents/echo/c")
            took.append(time.monotonic() - began)
            assert answer.status_code == 200
            await asyncio.sleep(0.01)
    return took


def beside_a_good_client(server: Server, attack: Callable[[], Awaitable[None]]) -> None:
    """The attack, with a good client all along that hardly notices."""

    async def run() -> None:
        stop = asyncio.Event()
        good = asyncio.create_task(good_client(server, stop))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await attack()
        finally:
            stop.set()
        took = sorted(await good)
        print(f"good client: {len(took)} requests, median {took[len(took) // 2] * 1000:.1f} ms, worst {took[-1] * 1000:.1f} ms")
        assert took[-1] < GOOD_SECONDS_MAX

    asyncio.run(run())


async def status(reader: asyncio.StreamReader) -> int:
    """The status of the next answer; 0 when the connection ended without one."""
    line = await reader.readline()
    return int(line.split()[1]) if line else 0


# --- slow -----------------------------------------------------------------------------------------------------------


def test_two_hundred_connections_that_never_finish_their_headers(server: Server) -> None:
    """Slow-loris: each sends a little now and then for ever; each is closed in its time, whatever it sends."""

    async def loris() -> int:
        reader, writer = await connect(server)
        writer.write(b"GET /agents/echo/c HTTP/1.1\r\nHost: localhost\r\n")
        ended = asyncio.ensure_future(reader.readline())
        while not ended.done():
            writer.write(b"X-A: b\r\n")
            await asyncio.wait({ended}, timeout=0.3)
        writer.transport.abort()
        line = await ended
        return int(line.split()[1]) if line else 0

    async def attack() -> None:
        began = time.monotonic()
        assert set(await asyncio.gather(*(loris() for _ in range(200)))) <= {0, 408}
        assert time.monotonic() - began >= HEADER_SECONDS * 0.9, "it was the time limit that ended them"

    beside_a_good_client(server, attack)


def test_a_hundred_bodies_that_trickle(server: Server) -> None:
    """Slow bodies: 408 for each, and what they had sent was not held in memory."""
    memory = Memory(server)

    async def slow(number: int) -> int:
        reader, writer = await connect(server)
        writer.write(
            b"POST /agents/echo/slow HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000\r\n\r\n" + b'"' + b"x" * 900_000
        )
        ended = asyncio.ensure_future(status(reader))
        while not ended.done():
            writer.write(b"x")
            await asyncio.wait({ended}, timeout=0.1)
        writer.transport.abort()
        return await ended

    async def attack() -> None:
        assert set(await asyncio.gather(*(slow(number) for number in range(100)))) == {408}

    beside_a_good_client(server, attack)
    print(f"90 MB of bodies on their way: +{memory.grown_mb:.1f} MB")
    assert memory.grown_mb < 60


# --- huge -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_of_two_hundred_megabytes(server: Server, framing: str) -> None:
    """Refused in both framings, with an answer the client can read, and without being kept."""
    memory = Memory(server)

    async def attack() -> None:
        reader, writer = await connect(server)
        how = b"Content-Length: %d" % (200 * MB) if framing == "length" else b"Transfer-Encoding: chunked"
        writer.write(
            b"POST /agents/echo/huge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + how + b"\r\n\r\n"
        )
        piece = b"x" * MB
        sending = asyncio.create_task(_send(writer, piece if framing == "length" else b"%x\r\n%s\r\n" % (MB, piece), 200))
        assert await status(reader) == 413
        await sending
        writer.transport.abort()

    beside_a_good_client(server, attack)
    print(f"200 MB, {framing}: +{memory.grown_mb:.1f} MB")
    assert memory.grown_mb < 40


async def _send(writer: asyncio.StreamWriter, piece: bytes, times: int) -> None:
    try:
        for _ in range(times):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass  # it need not take what it has refused


def test_many_large_bodies_at_once(server: Server) -> None:
    """Eight have a place; the others are told to come again, and the memory is that of eight."""
    memory = Memory(server)

    async def large() -> int:
        reader, writer = await connect(server)
        writer.write(
            b"POST /agents/echo/large HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (4 * MB)
        )
        sending = asyncio.create_task(_send(writer, b"x" * (3 * MB), 1))
        found = await status(reader)
        await sending
        writer.transport.abort()
        return found

    async def attack() -> None:
        found = await asyncio.gather(*(large() for _ in range(30)))
        assert sorted(set(found)) == [408, 429]
        assert found.count(408) == 8

    beside_a_good_client(server, attack)
    print(f"30 × 4 MB: +{memory.grown_mb:.1f} MB")
    assert memory.grown_mb < 60


# --- odd ------------------------------------------------------------------------------------------------------------

SEND = "/agents/echo/odd"
JSON = {"content-type": "application/json"}
ODD = {
    "deep JSON": (
        400,
        "POST",
        SEND,
        b'{"kind":"user","body":"x","initialData":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        JSON,
    ),
    "many parts": (400, "POST", SEND, b'{"kind":"user","body":"x","initialData":[' + b"[]," * 500_000 + b"[]]}", JSON),
    "many keys": (
        400,
        "POST",
        SEND,
        b'{"kind":"user","body":"x","initialData":{%s}}' % b",".join(b'"%d":{}' % n for n in range(150_000)),
        JSON,
    ),
    "gzip": (415, "POST", SEND, b"\x1f\x8b\x08" + b"\0" * 1_000, {**JSON, "content-encoding": "gzip"}),
    "no JSON": (400, "POST", SEND, b"\xff" * 1_000_000, JSON),
    "a number of a million digits": (400, "POST", SEND, b'{"kind":"user","body":' + b"9" * 1_000_000 + b"}", JSON),
    "another type": (415, "POST", SEND, b"<xml/>", {"content-type": "text/xml"}),
    "a huge offset": (400, "GET", f"/agents/echo/c?view=updates&offset={'9' * 4_000}", b"", {}),
    "an offset beyond": (416, "GET", "/agents/echo/c?view=updates&offset=9999999999999999_9999999999999999", b"", {}),
    "a thousand parameters": (400, "GET", "/agents/echo/c?" + "&".join(f"p{n}=1" for n in range(1_000)), b"", {}),
    "a body where none belongs": (200, "GET", "/health", b"x" * 100_000, {}),
    "a long id": (400, "POST", "/agents/echo/" + "x" * 4_097, b'{"kind":"user","body":"x"}', JSON),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_is_refused_in_its_own_words(server: Server, what: str) -> None:
    """T19: never a 500, and never anything but an envelope."""
    expected, method, path, body, headers = ODD[what]
    answer = httpx.request(method, f"{server.url}{path}", content=body, headers=headers, timeout=PATIENCE_SECONDS)

    assert answer.status_code == expected, answer.text[:500]
    if expected >= 400:
        assert set(answer.json()["error"]) >= {"type", "message", "details"}


def test_ten_thousand_headers(server: Server) -> None:
    async def attack() -> None:
        reader, writer = await connect(server)
        sending = asyncio.create_task(_send(writer, b"GET /health HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000, 1))
        assert await status(reader) == 431
        await sending
        writer.transport.abort()

    beside_a_good_client(server, attack)


# --- many -----------------------------------------------------------------------------------------------------------


def test_five_thousand_idle_connections(server: Server) -> None:
    """They cost little, the good client is answered beside them, one beyond the limit is refused, and they are let go."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(CONNECTIONS_MAX, hard - 500)
    if count < CONNECTIONS_MAX:
        print(f"only {hard} files may be open here: {count} connections")
    memory = Memory(server)

    async def attack() -> None:
        writers = []
        readers = []
        for start in range(0, count - 1, 100):
            batch = min(100, count - 1 - start)
            for reader, writer in await asyncio.gather(*(connect(server) for _ in range(batch))):
                readers.append(reader)
                writers.append(writer)
        print(
            f"{len(writers)} idle connections: +{memory.grown_mb:.1f} MB, {memory.grown_mb * 1024 / len(writers):.1f} KB each"
        )
        if count == CONNECTIONS_MAX:
            newcomers = await asyncio.gather(*(connect(server) for _ in range(20)))
            found = await asyncio.gather(*(status(reader) for reader, _ in newcomers))
            assert 503 in found
            writers += [writer for _, writer in newcomers]
        ends = await asyncio.gather(*(reader.read() for reader in readers))
        assert all(end == b"" or end.startswith(b"HTTP/1.1 503 ") for end in ends)
        for writer in writers:
            writer.transport.abort()

    beside_a_good_client(server, attack)
    assert memory.grown_mb < 150
