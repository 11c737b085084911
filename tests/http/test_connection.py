"""One connection of the real server, over real sockets: what it takes in which time, and what it says to the rest (X7, X14).

Method: `Serving` with a small application in this process's loop, and clients that write bytes. Limits are short, so that what
is on time and what is late are far apart.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from cairn.framework.http.limits import KB, HttpLimits
from cairn.framework.http.server import listen, loop_factory
from cairn.framework.http.serving import Serving

#: Seconds for anything a test waits for: a guard against hanging, not a measurement.
PATIENCE_SECONDS = 20.0
LIMITS = HttpLimits(header_seconds=0.3, idle_seconds=0.3, write_stall_seconds=0.3, drain_seconds=0.3)
ROOMY = HttpLimits()

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def type(self) -> str:
        return str(json.loads(self.body)["error"]["type"])


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(first.split()[1]), headers, body)

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def closed(self) -> bytes:
        """What the server still sent before it closed the connection."""
        try:
            return await self.reader.read(-1)
        except ConnectionError:
            return b""


class Toy:
    """Answers every request with what it was; counts those that came through."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.leaving: list[str] = []
        self.gate = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests.append(scope)
        path = scope["path"]
        body = b""
        if path in ("/body", "/wait"):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.leaving.append(path)
                    return
                body += message.get("body", b"")
                more = message.get("more_body", False)
        if path == "/wait":
            await self.gate.wait()
        self.bodies.append(body)
        if path == "/flood":
            await self._flood(receive, send)
            return
        answer = json.dumps({"path": path, "bytes": len(body)}).encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _flood(self, receive: Any, send: Any) -> None:
        """Send without end, until the client is gone."""
        assert (await receive())["type"] == "http.request"
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            await asyncio.sleep(0)
        self.leaving.append("/flood")
        self.gate.set()


class Place:
    """A server that runs."""

    def __init__(self, serving: Serving, toy: Toy, port: int) -> None:
        self.serving = serving
        self.toy = toy
        self.port = port
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        return client

    async def until(self, condition: Callable[[], bool]) -> None:
        """Whoever waits for the other side of a socket can only look."""
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    def leave(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()


def serving(main: Callable[[Place], Awaitable[None]], limits: HttpLimits = LIMITS, *, connections_max: int = 100) -> None:
    async def run() -> None:
        toy = Toy()
        listener = listen("127.0.0.1", 0, limits)
        port = listener.getsockname()[1]
        server = Serving(toy, limits, connections_max)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await server.listening.wait()
        place = Place(server, toy, port)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await main(place)
        finally:
            toy.gate.set()
            place.leave()
            server.stop()
            await running

    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # the loop that `cairn serve` has
        runner.run(run())


# --- the head -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("beginning", [b"G", GET, GET + b"X-Slow: a", b"\r\n"])
def test_a_head_that_does_not_end_in_time_ends_the_connection(beginning: bytes) -> None:
    """X7, slow-loris: however much of it came, and however it trickles."""

    async def main(place: Place) -> None:
        client = await place.connect()
        await client.send(beginning)
        answer = await client.closed()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
        assert place.toy.requests == []

    serving(main)


@pytest.mark.slow
def test_a_head_that_trickles_is_no_longer_on_time_than_one_that_stops() -> None:
    """X7: bytes now and then do not start the clock again."""

    async def main(place: Place) -> None:
        client = await place.connect()
        trickle = asyncio.create_task(_trickle(client))
        await client.closed()
        trickle.cancel()
        assert place.toy.requests == []

    serving(main)


async def _trickle(client: Client) -> None:
    await client.send(GET)
    while True:
        await client.send(b"X-A: b\r\n")
        await asyncio.sleep(0.02)


@pytest.mark.slow
def test_nothing_at_all_ends_the_connection_too() -> None:
    async def main(place: Place) -> None:
        client = await place.connect()
        assert await client.closed() == b""

    serving(main)


@pytest.mark.slow
def test_the_second_head_on_a_connection_has_its_own_time() -> None:
    """X7: one good request does not buy an endless second one."""

    async def main(place: Place) -> None:
        client = await place.connect()
        assert (await client.ask(GET + b"\r\n")).status == 200
        await client.send(GET)
        assert (await client.closed()).startswith(b"HTTP/1.1 408 ")
        assert len(place.toy.requests) == 1

    serving(main, replace(LIMITS, idle_seconds=15.0))


@pytest.mark.slow
def test_a_connection_without_another_request_is_closed() -> None:
    async def main(place: Place) -> None:
        client = await place.connect()
        assert (await client.ask(GET + b"\r\n")).status == 200
        assert await client.closed() == b""

    serving(main, replace(LIMITS, header_seconds=15.0))


@pytest.mark.slow
def test_blank_lines_between_requests_do_not_keep_a_connection() -> None:
    """X7: what is no request does not count as one."""

    async def main(place: Place) -> None:
        client = await place.connect()
        assert (await client.ask(GET + b"\r\n")).status == 200
        trickle = asyncio.create_task(_blank_lines(client))
        await client.closed()
        trickle.cancel()

    serving(main)


async def _blank_lines(client: Client) -> None:
    while True:
        await client.send(b"\r\n")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * (16 * KB) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GET + b"X-Long: " + b"a" * (16 * KB) + b"\r\n\r\n",
        GET + b"X-A: " + b"b" * 1_000 + b"\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"b" * 900) for n in range(17)) + b"\r\n",
        GET + b"".join(b"X-%d: b\r\n" % number for number in range(10_000)) + b"\r\n",
        GET + b"".join(b"X: b\r\n" for _ in range(101)) + b"\r\n",
        GET + b"X" * (400 * KB),
        GET + b"X-Long: " + b"a" * (400 * KB),
        b"GET /" + b"a" * (400 * KB),
    ],
)
@pytest.mark.parametrize("piece", [1_000_000, 3_000])
def test_a_head_that_is_too_large_is_refused_before_it_is_kept(head: bytes, piece: int) -> None:
    """X7: in one piece or in many, whole or endless; and the client can read why."""

    async def main(place: Place) -> None:
        client = await place.connect()
        sending = asyncio.create_task(_in_pieces(client, head, piece))
        answer = await client.answer()
        assert (answer.status, answer.type) == (431, "headers_too_large")
        assert answer.headers["connection"] == "close"
        await client.closed()
        sending.cancel()
        assert place.toy.requests == []

    serving(main, ROOMY)


async def _in_pieces(client: Client, data: bytes, piece: int) -> None:
    try:
        for start in range(0, len(data), piece):
            await client.send(data[start : start + piece])
    except ConnectionError:
        pass


def test_a_head_just_within_the_limits_is_answered() -> None:
    async def main(place: Place) -> None:
        client = await place.connect()
        fields = b"".join(b"X-%02d: %s\r\n" % (number, b"b" * 140) for number in range(99))
        assert len(GET + fields) < 16 * KB
        assert (await client.ask(GET + fields + b"\r\n")).status == 200
        assert (await client.ask(GET + b"\r\n")).status == 200

    serving(main, ROOMY)


def test_requests_that_follow_each_other_are_counted_one_by_one() -> None:
    """A client that sends the next request early is not refused for the sum."""

    async def main(place: Place) -> None:
        client = await place.connect()
        one = GET + b"X-Long: " + b"a" * (10 * KB) + b"\r\n\r\n"
        post = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
        sending = asyncio.create_task(client.send((one + post) * 5))
        for _ in range(5):
            assert (await client.answer()).status == 200
            assert json.loads((await client.answer()).body)["bytes"] == 60_000
        await sending

    serving(main, ROOMY)


# --- what is no request (X14) ---------------------------------------------------------------------------------------

POST = b"POST /body HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n ",
        b"G\x00T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
        GET + b"Bad Name: x\r\n\r\n",
        GET + b"X : x\r\n\r\n",
        GET + b": x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        POST + b"Content-Length: -5\r\n\r\nhello",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length: 0x5\r\n\r\nhello",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"5x\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\nhello",
        CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
        CHUNKED + b"\r\nhello",
        CHUNKED + b"5 \r\nhello\r\n0\r\n\r\nGET",
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(request_bytes: bytes) -> None:
    """X14, request smuggling: two lengths, odd chunks, odd names. The connection ends with it: nothing is read after it."""

    async def main(place: Place) -> None:
        client = await place.connect()
        await client.send(request_bytes)
        rest = await client.closed()
        # Refused at once with an envelope; or, when the head was already being answered, cut.
        assert rest == b"" or b" 400 " in rest.split(b"\r\n")[0], rest
        assert all(not body for body in place.toy.bodies) or place.toy.bodies == [b"hello"]
        assert b'"bytes": 5' not in rest

    serving(main)


def test_chunks_in_every_size_are_the_body() -> None:
    """X14: what is framed rightly is whole, extensions and trailers and all."""

    async def main(place: Place) -> None:
        client = await place.connect()
        chunks = b"".join(b"%x;name=value\r\n%s\r\n" % (size, b"x" * size) for size in range(1, 200))
        answer = await client.ask(CHUNKED + chunks + b"0\r\nX-Trailer: y\r\n\r\n")
        assert json.loads(answer.body)["bytes"] == sum(range(1, 200))
        assert (await client.ask(GET + b"\r\n")).status == 200

    serving(main, ROOMY)


@pytest.mark.parametrize(
    "fields",
    [
        b"Range: bytes=0-0\r\n",
        b"Range: bytes=" + b"0-0," * 1_000 + b"0-0\r\n",
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n",
        b"Expect: 100-continue\r\n",
    ],
)
def test_what_is_asked_for_beyond_the_request_is_ignored(fields: bytes) -> None:
    """X14: ranges and other protocols are nothing this server has; the request is answered as it is."""

    async def main(place: Place) -> None:
        client = await place.connect()
        answer = await client.ask(GET + fields + b"\r\n")
        assert answer.status == 200
        assert "content-range" not in answer.headers

    serving(main, ROOMY)


@pytest.mark.parametrize("seed", range(2))
def test_garbage_of_any_kind_is_answered_or_ended_and_hurts_nobody(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """T19, X14: requests with bytes changed, left out, repeated and cut, in any pieces."""
    random = Random(seed)
    whole = [
        GET + b"\r\n",
        POST + b"Content-Length: 5\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        GET + b"Connection: close\r\n\r\n",
    ]

    def garbled() -> bytes:
        data = bytearray(b"".join(random.choices(whole, k=random.randint(1, 3))))
        for _ in range(random.randint(1, 6)):
            at = random.randrange(len(data))
            change = random.randrange(4)
            if change == 0:
                data[at] = random.randrange(256)
            elif change == 1:
                del data[at : at + random.randint(1, 5)]
            elif change == 2:
                data[at:at] = data[at : at + 20] * random.randint(1, 3)
            else:
                data[at:at] = random.choice([b"\r\n", b"\n", b"\0", b"\xff", b":", b"\r\n\r\n", b"Content-Length: 1\r\n"])
        return bytes(data)

    async def main(place: Place) -> None:
        async def one() -> None:
            client = await place.connect()
            data = garbled()
            await _in_pieces(client, data, random.choice([1, 7, 10_000]))
            rest = await client.closed()
            assert rest == b"" or rest.startswith(b"HTTP/1.1 ")

        await asyncio.gather(*(one() for _ in range(300)))
        assert (await (await place.connect()).ask(GET + b"\r\n")).status == 200

    serving(main, connections_max=1_000)
    assert not [record for record in caplog.records if record.exc_info], caplog.text


# --- the body -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_body_that_nobody_reads_is_not_kept_and_not_waited_for() -> None:
    """X7: an answer before the body's end leaves the client some time to stop sending, and no more."""

    async def main(place: Place) -> None:
        client = await place.connect()
        await client.send(b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        assert (await client.answer()).status == 200
        sending = asyncio.create_task(_for_ever(client))
        await client.closed()
        sending.cancel()

    serving(main)


async def _for_ever(client: Client) -> None:
    try:
        while True:
            await client.send(b"x" * 65_536)
            await asyncio.sleep(0)
    except ConnectionError:
        pass


def test_the_rest_of_a_body_that_comes_in_time_is_followed_by_the_next_request() -> None:
    async def main(place: Place) -> None:
        client = await place.connect()
        await client.send(b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
        assert (await client.answer()).status == 200
        await client.send(b"x" * 200_000)
        assert (await client.ask(GET + b"\r\n")).status == 200

    serving(main, ROOMY)


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_client_that_takes_nothing_is_dropped() -> None:
    """X7: what waits for it is bounded, and so is the time it waits."""

    async def main(place: Place) -> None:
        client = await place.connect()
        await client.send(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await place.toy.gate.wait()
        assert place.toy.leaving == ["/flood"]

    serving(main)


@pytest.mark.slow
def test_a_client_that_takes_little_but_takes_it_is_kept() -> None:
    """Slow is not stuck."""

    async def main(place: Place) -> None:
        client = await place.connect()
        await client.send(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
        taken = 0
        for _ in range(40):
            taken += len(await client.reader.read(64 * KB))
            await asyncio.sleep(0.02)
        assert place.toy.leaving == []
        assert taken > 0

    serving(main, replace(LIMITS, write_stall_seconds=0.2))


# --- how many -------------------------------------------------------------------------------------------------------


def test_one_connection_too_many_is_told_so_and_the_others_go_on() -> None:
    """X7: the limit refuses the newcomer, not those who are there."""

    async def main(place: Place) -> None:
        first = [await place.connect() for _ in range(3)]
        for client in first:
            assert (await client.ask(GET + b"\r\n")).status == 200
        newcomer = await place.connect()
        answer = await newcomer.answer()
        assert (answer.status, answer.type) == (503, "runtime_unavailable")
        await newcomer.closed()
        for client in first:
            assert (await client.ask(GET + b"\r\n")).status == 200
        first[0].writer.close()
        await first[0].writer.wait_closed()
        await place.until(lambda: len(place.serving.server_state.connections) == 2)
        assert (await (await place.connect()).ask(GET + b"\r\n")).status == 200

    serving(main, ROOMY, connections_max=3)


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_stopping_server_finishes_answers_lets_nobody_in_and_ends() -> None:
    """L6: what is in flight ends, what is idle is closed, what is late is cut."""

    async def main(place: Place) -> None:
        idle, busy, late = [await place.connect() for _ in range(3)]
        assert (await idle.ask(GET + b"\r\n")).status == 200
        await busy.send(b"POST /wait HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        await late.send(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
        await place.until(lambda: len(place.toy.requests) == 3)

        place.serving.stop()
        assert await idle.closed() == b""
        with pytest.raises(ConnectionError):
            await place.connect()
        place.toy.gate.set()
        assert (await busy.answer()).status == 200
        assert await busy.closed() == b""
        await late.closed()

    serving(main)


@pytest.mark.slow
def test_a_client_that_takes_nothing_does_not_hold_up_the_end() -> None:
    """L6: whoever reads goes on reading to the end; whoever does not is left after a moment, not after all of the time."""

    async def main(place: Place) -> None:
        stuck = await place.connect()
        await stuck.send(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await place.until(lambda: any(each.flow.write_paused for each in place.serving.server_state.connections))
        place.serving.stop()
        await place.toy.gate.wait()

    serving(main, replace(ROOMY, drain_seconds=PATIENCE_SECONDS * 3))
