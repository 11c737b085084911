"""Bodies: counted as they arrive, on time, few large ones at a time, and parsed only when they are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from cairn.framework.http.body import Body, LargeBodies, decode
from cairn.framework.http.limits import MB, HttpLimits
from cairn.framework.http.problems import Problem

LIMITS = HttpLimits()


class Client:
    """Sends these pieces, and then what it is told: nothing, or that it is gone."""

    def __init__(self, pieces: Iterable[bytes], *, ends: bool = True, leaves: bool = False) -> None:
        self._pieces = iter(pieces)
        self._ends = ends
        self._leaves = leaves
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        for piece in self._pieces:
            return {"type": "http.request", "body": piece, "more_body": True}
        if self._leaves:
            return {"type": "http.disconnect"}
        if self._ends:
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError


def body_of(
    client: Client, *headers: tuple[bytes, bytes], limits: HttpLimits = LIMITS, large: LargeBodies | None = None
) -> Body:
    return Body(client, headers, limits, large or LargeBodies(limits.large_bodies_max))


def read(body: Body, limit: int) -> bytes:
    return asyncio.run(body.read(limit))


def refused(body: Body, limit: int) -> Problem:
    with pytest.raises(Problem) as caught:
        read(body, limit)
    return caught.value


# --- counting -------------------------------------------------------------------------------------------------------


def test_a_body_is_whole_whatever_pieces_it_came_in() -> None:
    """X7: what passes through a temporary file is what was sent."""
    pieces = [bytes([number % 251]) * (number * 1_000) for number in range(1, 60)]
    assert sum(map(len, pieces)) > LIMITS.large_body_bytes

    assert read(body_of(Client(pieces)), 16 * MB) == b"".join(pieces)


def test_reading_twice_gives_the_same_and_asks_the_client_once() -> None:
    client = Client([b"abc"])
    body = body_of(client)

    async def twice() -> tuple[bytes, bytes]:
        return await body.read(10), await body.read(10)

    assert asyncio.run(twice()) == (b"abc", b"abc")
    assert client.asked == 2


def test_a_body_that_says_it_is_too_large_is_refused_before_any_of_it_is_read() -> None:
    """X7: Content-Length is enough to refuse."""
    client = Client([b"x"])
    problem = refused(body_of(client, (b"content-length", b"1001")), 1_000)

    assert (problem.status, problem.type) == (413, "payload_too_large")
    assert client.asked == 0


@pytest.mark.parametrize("length", [None, b"10"])
def test_a_body_that_says_less_than_it_is_is_refused_at_the_limit(length: bytes | None) -> None:
    """X7: without a Content-Length (chunked), or with a false one, the bytes themselves are counted."""
    client = Client(b"x" * 1_000 for _ in range(1_000))
    headers = [(b"content-length", length)] if length else []
    problem = refused(body_of(client, *headers), 10_000)

    assert problem.status == 413
    assert client.asked == 11


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"", b"1,1", b"\xb2", b"9" * 40])
def test_a_content_length_that_is_no_number_is_refused(length: bytes) -> None:
    """X14: what another server's parser lets through is not guessed at."""
    assert refused(body_of(Client([b"x"]), (b"content-length", length)), 1_000).status in (400, 413)


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"deflate", b"gzip, gzip", b"x" * 500])
def test_a_compressed_body_is_refused_before_any_of_it_is_read(encoding: bytes) -> None:
    """X7: a bomb is small until somebody unpacks it. Nobody does."""
    client = Client([b"x"])
    problem = refused(body_of(client, (b"content-encoding", encoding)), 1_000)

    assert problem.status == 415
    assert client.asked == 0


def test_a_client_that_goes_away_leaves_nothing() -> None:
    large = LargeBodies(1)
    body = body_of(Client([b"x" * (2 * MB)], leaves=True), large=large)

    assert refused(body, 16 * MB).status == 499
    body.close()
    large.take()


# --- time and places ------------------------------------------------------------------------------------------------


def test_a_body_that_does_not_arrive_in_time_is_refused() -> None:
    """X7: a slow body costs its time and no more."""
    limits = HttpLimits(body_seconds=0.02)

    assert refused(body_of(Client([b"x"], ends=False), limits=limits), 1_000).status == 408


def test_only_a_few_large_bodies_are_taken_at_a_time() -> None:
    """X7: memory is bounded by places, which are kept until the request is over and not only read."""
    large = LargeBodies(2)
    bodies = [body_of(Client([b"x" * (2 * MB)]), large=large) for _ in range(3)]
    read(bodies[0], 16 * MB)
    read(bodies[1], 16 * MB)

    problem = refused(bodies[2], 16 * MB)
    assert (problem.status, "retry-after" in problem.headers) == (429, True)
    read(body_of(Client([b"small"]), large=large), 16 * MB)

    bodies[2].close()
    bodies[0].close()
    bodies[0].close()
    read(body_of(Client([b"x" * (2 * MB)]), large=large), 16 * MB)


# --- parsing --------------------------------------------------------------------------------------------------------


class Message(msgspec.Struct):
    body: str
    data: Any = None


def parse(text: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        decode(text, Message, LIMITS)
    return caught.value


def test_a_message_is_what_was_sent() -> None:
    text = msgspec.json.encode({"body": "[{" * 5_000 + '"', "data": {"a": [1, {"b": []}]}})

    assert decode(text, Message, LIMITS) == Message("[{" * 5_000 + '"', {"a": [1, {"b": []}]})


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [201, 1_100, 100_000])
def test_what_is_nested_too_deeply_is_malformed(opening: bytes, depth: int) -> None:
    """X7: deep JSON is a 400, in bodies that end and in those that do not."""
    for end in (b"", b"1" + (b"]" if opening == b"[" else b"}") * depth):
        problem = parse(b'{"body":"x","data":' + opening * depth + end + b"}")

        assert (problem.status, problem.type) == (400, "invalid_request")
        assert "deep" in problem.details or "lists and objects" in problem.details


def test_a_body_of_many_small_parts_is_malformed() -> None:
    """X7: five million empty lists are 16 MB of text and hundreds of them decoded."""
    problem = parse(b'{"body":"x","data":[' + b",".join([b"[]"] * 200_000) + b"]}")

    assert problem.status == 400
    assert "lists and objects" in problem.details


@pytest.mark.parametrize(
    ("text", "type"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"body":"x"} trailing', "invalid_json"),
        (b'{"body":"\xff"}', "invalid_json"),
        (b'{"body":1}', "invalid_request"),
        (b"[]", "invalid_request"),
        (b"null", "invalid_request"),
    ],
)
def test_what_is_no_message_is_told_apart_from_what_is_no_json(text: bytes, type: str) -> None:
    problem = parse(text)

    assert (problem.status, problem.type) == (400, type)


def test_the_check_of_a_hostile_body_takes_no_longer_than_reading_it() -> None:
    """X7, regex DoS: a body of 16 MB made to confuse the check is answered. It would take hours if the check went back."""
    hostile = (
        b'"' + b"\\" * (16 * MB - 1),
        b'"' * (16 * MB),
        b'{"a":"' * (2 * MB),
        b"[" * (16 * MB),
        b"[" * 300 + b'"' + b'\\"' * (7 * MB),
        b"[" * 300 + b'\\"[' * (4 * MB),
        b"[" * 300 + b'"\\' * (7 * MB),
    )
    for text in hostile:
        assert parse(text).status == 400
