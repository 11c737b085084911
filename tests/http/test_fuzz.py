"""T19: whatever is sent, as an offset, a body, a query, a header or an id, is answered: never a 500, always an envelope."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote, quote_from_bytes

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.http.asking import Answer, Ask
from tests.http.test_manage import toy

from cairn import App
from cairn.framework.http.operations import ERRORS

#: Examples, and inputs of each: 2,000 together.
EXAMPLES, EACH = 100, 20

PROFILE = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


class Server:
    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.app = App([toy()], store=":memory:", serve=False)
        self.ask = Ask(self.app)

        async def open() -> None:
            self.app.http  # noqa: B018
            await self.app.__aenter__()
            await self.app.conversation("toy", "c").send("Hello.")

        self.runner.run(open())

    def close(self) -> None:
        self.runner.run(self.app.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def sound(answer: Answer) -> None:
    """An answer that HTTP knows, with an envelope when it is a refusal."""
    assert answer.is_complete and 200 <= answer.status < 500, (answer.status, answer.body[:500])
    if answer.status >= 400 and answer.body:
        error = answer.json["error"]
        assert ERRORS[error["type"]][0] == answer.status
        assert {"type", "message", "details"} <= error.keys() and len(answer.body) < 4_000


def all_sound(server: Server, inputs: Sequence[Any], ask: Callable[[Ask, Any], Awaitable[Answer]]) -> None:
    async def run() -> None:
        for each in inputs:
            sound(await ask(server.ask, each))

    server.runner.run(run())


def many(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=EACH, max_size=EACH)


BYTES = st.binary(max_size=40)
DIGITS = st.text("0123456789_-+.e \u0661\u00b2", max_size=40)
OFFSETS = DIGITS | st.text(max_size=20) | st.sampled_from(["-1", "now", "0_0", "0_" + "9" * 30, "9" * 5000, "0_3\n", "٣_٣"])


@pytest.mark.slow
@PROFILE
@given(offsets=many(OFFSETS))
def test_any_text_as_an_offset(server: Server, offsets: list[str]) -> None:
    """T19: an offset, or a 400, or a 416; the same where a fork takes one."""

    async def ask(ask: Ask, offset: str) -> Answer:
        forked = await ask("POST", "/agents/toy/c/fork", {"offset": offset, "id": "c"})
        assert forked.status in (400, 409, 416)
        return await ask("GET", "/agents/toy/c", query=f"view=updates&offset={quote(offset, safe='')}")

    all_sound(server, offsets, ask)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "kind",
    "body",
    "attachments",
    "type",
    "attributes",
    "tagName",
    "uid",
    "idempotencyKey",
    "initialData",
    "id",
    "offset",
)
MESSAGES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["user", "signal"]), "body": st.text(max_size=10)},
    optional={name: JSON_VALUES for name in FIELDS if name not in ("kind", "body")},
)
BODIES = (
    BYTES
    | JSON_VALUES.map(msgspec.json.encode)
    | MESSAGES.map(msgspec.json.encode)
    | MESSAGES.map(lambda message: msgspec.json.encode(message)[:-1])
    | st.sampled_from(
        [b"\xff", b"[" * 5000, b'{"a":' * 3000, b'{"kind":"user","body":"\\ud800"}', b"\xef\xbb\xbf{}", b"{}\x00"]
    )
)


@pytest.mark.slow
@PROFILE
@given(bodies=many(BODIES), path=st.sampled_from(["/agents/toy/c", "/agents/toy/c/fork", "/agents/toy/c/abort"]))
def test_any_bytes_as_a_body(server: Server, bodies: list[bytes], path: str) -> None:
    """T19: admitted, or refused with a reason; not half."""
    all_sound(server, bodies, lambda ask, body: ask("POST", path, raw=body))


NAMES = st.sampled_from(["view", "offset", "live", "limit", "cursor", "chunks", "tail", "wait", "token"]) | st.text(max_size=5)
VALUES = st.sampled_from(["history", "updates", "-1", "0_0", "1", "true", "%", "%zz", "&", ";", "\x00"]) | st.text(max_size=8)
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
RAW_QUERIES = QUERIES.map(lambda query: query.encode("utf-8", "replace").decode("latin-1")) | BYTES.map(quote_from_bytes)


@pytest.mark.slow
@PROFILE
@given(queries=many(RAW_QUERIES), path=st.sampled_from(["/agents/toy/c", "/agents/toy", "/agents/toy/c/export", "/agents"]))
def test_any_query(server: Server, queries: list[str], path: str) -> None:
    """T19: what is unknown is ignored, what is wrong is refused."""
    all_sound(server, queries, lambda ask, query: ask("GET", path, query=query.replace("live=", "lives=")))


HEADER_NAMES = st.sampled_from(
    ["host", "origin", "content-length", "content-type", "authorization", "traceparent", "tracestate", "x-forwarded-for",
     "forwarded", "x-forwarded-proto", "x-request-id", "sec-fetch-site", "referer", "content-encoding", "cookie", "range"]
)  # fmt: skip
HEADER_VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=30) | st.sampled_from(
    [
        "localhost",
        "null",
        "http://[",
        "https://evil.example",
        "for=1.2.3.4;proto=x",
        "-1",
        "9" * 30,
        "identity",
        "Bearer ",
        "1.2.3.4, 127.0.0.1",
    ]
)
HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=5)


@pytest.mark.slow
@PROFILE
@given(headers=many(HEADERS), method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "TRACE", "get"]))
def test_any_headers(server: Server, headers: list[list[tuple[str, str]]], method: str) -> None:
    """T19: also those that say where a request comes from."""
    path = "/agents/toy/none"

    async def ask(ask: Ask, headers: list[tuple[str, str]]) -> Answer:
        return await ask(method, path, headers=headers, raw=b"" if method != "POST" else b"{}")

    all_sound(server, headers, ask)


IDS = st.text(max_size=12) | st.sampled_from(
    [".", "..", "/", "//", "%00", "\x00", "abort", "fork", "a" * 600, "\ud800", "🦉", " "]
)
SEGMENTS = IDS.map(lambda id: quote(id.encode("utf-8", "surrogatepass"), safe="")) | BYTES.map(lambda raw: quote(raw, safe=""))
TAILS = st.sampled_from(
    ["", "/", "/usage", "/export", "/attachments/x", "/fork", "/abort", "//", "/../x", "?view=updates&offset=-1"]
)


@pytest.mark.slow
@PROFILE
@given(paths=many(st.tuples(SEGMENTS, TAILS)), method=st.sampled_from(["GET", "HEAD", "POST", "DELETE"]))
def test_any_id(server: Server, paths: list[tuple[str, str]], method: str) -> None:
    """T19: any text is an id or is refused as one; nothing leads to another conversation's place."""
    body = {"kind": "user", "body": "Hello."}

    async def ask(ask: Ask, path: tuple[str, str]) -> Answer:
        return await ask(method, f"/agents/toy/{path[0]}{path[1]}", body if method == "POST" and not path[1] else None)

    all_sound(server, paths, ask)


@pytest.mark.slow
@PROFILE
@given(paths=many(st.lists(SEGMENTS | st.sampled_from(["agents", "toy", "c", "chat", "assets", "docs"]), max_size=6)))
def test_any_path(server: Server, paths: list[list[str]]) -> None:
    """T19: a route, or a 404."""
    all_sound(server, paths, lambda ask, path: ask("GET", "/" + "/".join(path)))
