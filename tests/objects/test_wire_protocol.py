"""The protocol below the frames, over real sockets: what a hostile, broken or absent client can do to a server, and what it
cannot.

Method: one real server over a socket, the App behind it, and clients that are the `websockets` library's or nothing but bytes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.objects.rooms import Room
from tests.test_import_cost import loaded
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cairn import Agent, App
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.server import listen, loop_factory
from cairn.framework.http.serving import Serving
from cairn.testing.scripted import ScriptedModel

#: Seconds for anything that is waited for. A guard against hanging, not a measurement.
PATIENCE_SECONDS = 30.0

HANDSHAKE = (
    b"GET /agents/echo/a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(b"0" * 16) + b"\r\n\r\n"
)


class Place:
    """A server that runs, and where it is."""

    def __init__(self, serving: Serving, app: App, port: int) -> None:
        self.serving = serving
        self.app = app
        self.port = port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/agents/echo/a"

    def connect(self, **options: Any) -> connect:
        return connect(self.url, **{"compression": None, "ping_interval": None, "max_size": None, **options})

    @asynccontextmanager
    async def raw(self, sent: bytes = HANDSHAKE) -> Any:
        """Bytes in, bytes out."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            yield reader, writer
        finally:
            writer.transport.abort()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Whoever waits for the other side of a socket can only look."""
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def served(main: Callable[[Place], Awaitable[None]], limits: HttpLimits | None = None, *, connections_max: int = 2_000) -> None:
    async def run() -> None:
        given = limits or HttpLimits()
        app = App(agents=[Agent("echo", model=ScriptedModel(["x"]))], objects=[Room], store=":memory:", limits=given)
        listener = listen("127.0.0.1", 0, given)
        async with app:
            server = Serving(app, app.http.limits, connections_max)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            await server.listening.wait()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await main(Place(server, app, listener.getsockname()[1]))
            finally:
                app.http.stop()
                server.stop()
                await running

    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # the loop that `cairn serve` has
        runner.run(run())


async def call(client: ClientConnection, method: str, id: str = "1") -> dict[str, Any]:
    """The answer to a call of a method there is not."""
    await client.send(json.dumps({"type": "rpc", "id": id, "method": method, "args": []}))
    while True:
        frame: dict[str, Any] = json.loads(await client.recv())
        if frame["type"] == "rpc":
            return frame


async def code_of(client: ClientConnection) -> int:
    """How the server closed it."""
    with pytest.raises(ConnectionClosed):
        while True:
            await client.recv()
    assert client.close_code is not None
    return client.close_code


@pytest.fixture
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing a client did is an error of the server."""
    with caplog.at_level(logging.ERROR):
        yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_server_without_websockets_has_not_loaded_them() -> None:
    """Memory: the library is imported by the first client that asks for one."""
    names = ["app", "http.asgi", "http.connection", "http.serving"]
    found = loaded("\n".join(f"import cairn.framework.{name}" for name in names))
    assert "cairn.framework.http.attending" in found and "websockets" not in found


# --- the handshake --------------------------------------------------------------------------------------------------


def test_a_handshake_that_is_wrong_gets_the_envelope(no_errors: None) -> None:
    """X7: a key that is none, another version, none at all; what asks for something else is answered as the request it is."""

    async def main(place: Place) -> None:
        for change, status in (
            ((b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: x"), b"400"),
            ((b"Version: 13", b"Version: 8"), b"400"),
            ((b"Sec-WebSocket-Version: 13\r\n", b""), b"400"),
            ((b"GET ", b"POST "), b"400"),
            ((b"Upgrade: websocket", b"Upgrade: h2c"), b"404"),
            ((b"/agents/echo/a", b"/agents/echo/" + b"a" * 9_000), b"431"),
        ):
            async with place.raw(HANDSHAKE.replace(*change)) as (reader, _):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.split()[1] == status, (change, head)
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                assert "type" in json.loads(await reader.readexactly(length))["error"]

    served(main)


def test_another_site_is_refused_before_there_is_a_socket(no_errors: None) -> None:
    """X6: the handshake's answer is 403, in the envelope."""

    async def main(place: Place) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with place.connect(origin="https://evil.example"):
                pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body or b"")["error"]["type"] == "origin_not_allowed"

    served(main)


def test_a_socket_outlives_the_times_of_a_request(no_errors: None) -> None:
    """The ends of a head's and of an idle connection's time are not its ends: it is pinged, and stays."""

    async def main(place: Place) -> None:
        async with place.raw() as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            pings = 0
            while pings < 6:
                opcode, payload = await frame_of(reader)
                if opcode == 9:
                    pings += 1
                    writer.write(masked(0x8A, payload))
            writer.write(masked(0x81, b'{"type":"rpc","id":"1","method":"x"}'))
            while not (payload := (await frame_of(reader))[1]).startswith(b'{"type":"rpc"'):
                pass
            assert b"does not exist" in payload

    served(main, HttpLimits(header_seconds=0.15, idle_seconds=0.15, ping_seconds=0.1))


def test_sockets_count_among_the_connections(no_errors: None) -> None:
    """X7: one more than there may be is refused, and told to come later."""

    async def main(place: Place) -> None:
        async with place.connect() as one, place.connect() as two:
            await one.recv(), await two.recv()
            async with place.raw() as (reader, _):
                assert (await reader.readuntil(b"\r\n")).split()[1] == b"503"

    served(main, connections_max=2)


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_message_that_is_too_large_ends_its_socket(no_errors: None) -> None:
    """X7: 1009, whether in one frame or in many; one that just fits is heard."""

    async def main(place: Place) -> None:
        async with place.connect() as client:
            assert (await call(client, "x" * 9_000))["success"] is False
        async with place.connect() as client:
            await client.send("x" * 10_001)
            assert await code_of(client) == 1009
        async with place.connect() as client:
            await client.send("x" * 1_000 for _ in range(11))  # type: ignore[arg-type]
            assert await code_of(client) == 1009

    served(main, HttpLimits(message_bytes=10_000))


def test_only_so_many_large_messages_arrive_at_a_time(no_errors: None) -> None:
    """X7: one that arrives and never ends takes a place; the next one is told to come later, and small ones are heard."""

    async def main(place: Place) -> None:
        async with place.raw() as (_, writer), place.connect() as large, place.connect() as small:
            writer.write(struct.pack("!BBQ", 0x81, 0xFF, 60_000) + b"\0\0\0\0" + b"x" * 50_000)
            await place.until(
                lambda: any(getattr(each, "_has_place", False) for each in place.serving.server_state.connections)
            )
            await large.send("x" * 50_000)
            assert await code_of(large) == 1013
            assert (await call(small, "x"))["error"] == "Method x does not exist"
            writer.transport.abort()
            await place.until(
                lambda: not any(getattr(each, "_has_place", False) for each in place.serving.server_state.connections)
            )
        async with place.connect() as large:
            assert (await call(large, "x" * 50_000))["success"] is False

    served(main, HttpLimits(large_body_bytes=10_000, large_bodies_max=1))


def test_nothing_is_compressed(no_errors: None) -> None:
    """X7: a small message cannot become a large one."""

    async def main(place: Place) -> None:
        async with place.connect(compression="deflate") as client:
            assert client.response is not None
            assert "Sec-WebSocket-Extensions" not in client.response.headers

    served(main)


def test_who_does_not_answer_a_ping_is_gone(no_errors: None) -> None:
    """X7: a client that vanished without a word is noticed."""

    async def main(place: Place) -> None:
        async with place.raw() as (reader, _):
            await reader.read(-1)  # it was closed by the server; nothing was ever answered
            await place.until(lambda: not place.serving.server_state.tasks)

    served(main, HttpLimits(ping_seconds=0.1))


def test_a_reader_that_takes_nothing_is_let_go(no_errors: None) -> None:
    """X7: what it is owed is bounded by its connection's buffers; it ends, and a good client beside it is answered."""

    async def main(place: Place) -> None:
        async with place.raw() as (reader, writer), place.connect() as good:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            ask = masked(0x81, json.dumps({"type": "rpc", "id": "1", "method": "x" * 60_000}).encode())
            stuck = next(
                each
                for each in place.serving.server_state.connections
                if writer.get_extra_info("sockname")[1] == each.client[1]
            )
            for _ in range(200):
                if writer.transport.is_closing():
                    break
                writer.write(ask)
                try:
                    async with asyncio.timeout(1):
                        await writer.drain()
                except (TimeoutError, ConnectionError):
                    break
            await place.until(lambda: stuck not in place.serving.server_state.connections)
            assert (await call(good, "x"))["error"] == "Method x does not exist"

    served(main, HttpLimits(socket_stall_seconds=0.2, write_stall_seconds=0.5, kernel_bytes=16_384))


@pytest.mark.slow
def test_five_hundred_idle_sockets_are_served_beside_a_busy_one(no_errors: None) -> None:
    """X7: they cost no task that runs and no query; the busy one is answered."""

    async def main(place: Place) -> None:
        idle = [await place.connect() for _ in range(500)]
        for each in idle:
            assert json.loads(await each.recv())["type"] == "cf_agent_identity"
        async with place.connect() as busy:
            for number in range(50):
                assert (await call(busy, "x", str(number)))["id"] == str(number)
        for each in idle:
            each.transport.abort()
        await place.until(lambda: not place.serving.server_state.tasks)

    served(main)


def test_a_server_that_stops_tells_its_sockets_to_come_back(no_errors: None) -> None:
    """1012, also to one that takes nothing of it, within the time a server has to stop."""

    async def main(place: Place) -> None:
        async with place.connect() as client, place.raw() as (_, writer):
            await client.recv()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            place.app.http.stop()
            place.serving.stop()
            assert await code_of(client) == 1012
            await place.until(lambda: not place.serving.server_state.connections)

    served(main)


# --- bytes ----------------------------------------------------------------------------------------------------------


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    length = (
        struct.pack("!B", 0x80 | size)
        if size < 126
        else struct.pack("!BH", 0xFE, size)
        if size < 65_536
        else struct.pack("!BQ", 0xFF, size)
    )
    return bytes([first]) + length + b"\0\0\0\0" + payload


async def frame_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """A server's frame: its opcode and payload."""
    first, size = await reader.readexactly(2)
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    return first & 15, await reader.readexactly(size)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (masked(0xF1, b"x"), 1002),  # reserved bits
        (masked(0x83, b"x"), 1002),  # an opcode that is none
        (masked(0x80, b"x"), 1002),  # goes on where nothing began
        (masked(0x01, b"x") + masked(0x81, b"y"), 1002),  # begins where something has not ended
        (masked(0x09, b"x"), 1002),  # a control frame in parts
        (masked(0x89, b"x" * 126), 1002),  # a control frame that is too long
        (masked(0x88, b"\x00"), 1002),  # half a code
        (masked(0x88, struct.pack("!H", 1005)), 1002),  # a code that is never sent
        (masked(0x81, b"\xff\xfe"), 1007),  # not UTF-8
        (masked(0x01, b"\xf0\x9f") + masked(0x80, b"\x98"), 1007),  # half a character
    ],
)
def test_a_broken_frame_ends_its_socket_with_the_code_that_says_how(no_errors: None, sent: bytes, code: int) -> None:
    """X7, RFC 6455: nobody else notices, and nothing of it is an error of ours."""

    async def main(place: Place) -> None:
        async with place.connect() as good, place.raw() as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            opcode = payload = None
            while opcode != 8:
                opcode, payload = await frame_of(reader)
            assert payload is not None and struct.unpack("!H", payload[:2]) == (code,)
            assert (await call(good, "x"))["error"] == "Method x does not exist"

    served(main)


_FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.builds(masked, st.integers(0, 255), st.binary(max_size=200)),
        st.builds(
            masked,
            st.just(0x81),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["type", "id", "method", "args", "state", "x"]), inner, max_size=5)
                ),
                max_leaves=10,
            ).map(lambda value: json.dumps(value).encode()),
        ),
        st.builds(
            lambda type, more: masked(0x81, json.dumps({"type": type, **more}).encode()),
            st.sampled_from(["rpc", "cf_agent_state", "cf_agent_use_chat_request", "cf_agent_identity", "", "constructor"]),
            st.dictionaries(
                st.sampled_from(["id", "method", "args", "state", "init", "messages"]),
                st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
                max_size=4,
            ),
        ),
    ),
    max_size=6,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [b"echo", b"room"])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sent=_FRAMES)
def test_no_bytes_break_the_server(kind: bytes, sent: list[bytes]) -> None:
    """X7: to an agent or an object: whatever comes after the handshake, the server goes on, and nothing is an error of ours."""
    seen: list[logging.LogRecord] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    async def main(place: Place) -> None:
        async with place.raw(HANDSHAKE.replace(b"echo", kind)) as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"".join(sent) + masked(0x88, struct.pack("!H", 1000)))
            await asyncio.wait_for(reader.read(-1), PATIENCE_SECONDS) if not _may_wait(sent) else None
        async with place.connect() as good:
            assert (await call(good, "x"))["error"] == "Method x does not exist"

    handler = Catch(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        served(main)
    finally:
        logging.getLogger().removeHandler(handler)
    assert [record.getMessage() for record in seen] == []


def _may_wait(sent: list[bytes]) -> bool:
    """Free bytes may announce a frame that never ends: nothing is closed then before the client leaves."""
    return any(not each.startswith((b"\x81", b"\x88")) or each[1:2] < b"\x80" for each in sent)
