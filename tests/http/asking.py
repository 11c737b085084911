"""A client of an App in the same process: requests go in as ASGI, answers come out, no socket between.

app = App([agent], store=":memory:")
async with opened(app) as ask:
    answer = await ask("POST", "/agents/toy/a", {"kind": "user", "body": "Hello."})
    answer.status, answer.json, answer.headers
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from cairn import App

#: Seconds a request may take. A guard against hanging, not a measurement.
PATIENCE_SECONDS = 20.0


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    pieces: int = 1
    """In how many parts the body was sent."""
    is_complete: bool = True

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> str:
        """The type of the error envelope."""
        return str(self.json["error"]["type"])

    @property
    def lines(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in self.body.splitlines()]


class Ask:
    """Makes requests to one App."""

    def __init__(self, app: App, *, mount: str = "", client: str = "127.0.0.1") -> None:
        self.app = app
        self.mount = mount
        self.client = client

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        *,
        raw: bytes | None = None,
        query: str = "",
        hang_up: asyncio.Event | None = None,
    ) -> Answer:
        """The answer, whole. `body` is sent as JSON, `raw` as it is; `hang_up`: the client goes away when that is set."""
        path, _, in_path = path.partition("?")
        data = raw if raw is not None else b"" if body is None else msgspec.json.encode(body)
        sent = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in sent}
        if "host" not in names:
            sent.append(("host", "localhost"))
        if data and "content-type" not in names:
            sent.append(("content-type", "application/json"))
        if data and "content-length" not in names:
            sent.append(("content-length", str(len(data))))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(self.mount + path),
            "raw_path": (self.mount + path).encode("latin-1"),
            "query_string": (query or in_path).encode("latin-1"),
            "root_path": self.mount,
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent],
            "client": (self.client, 50000),
            "server": ("localhost", 80),
        }
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await _ask(self.app, scope, data, hang_up or asyncio.Event())


async def _ask(app: App, scope: dict[str, Any], data: bytes, gone: asyncio.Event) -> Answer:
    sent = iter([{"type": "http.request", "body": data, "more_body": False}])
    answer = Answer(0, {}, b"", 0, False)

    async def receive() -> Any:
        for message in sent:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert answer.status == 0, "one answer begins once"
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            assert answer.status and not answer.is_complete, "a body comes after the head, and ends once"
            answer.body += message.get("body", b"")
            answer.pieces += 1
            answer.is_complete = not message.get("more_body", False)

    await app(scope, receive, send)
    return answer


@asynccontextmanager
async def opened(app: App, *, mount: str = "") -> AsyncIterator[Ask]:
    """The App is open, as a server opens it."""
    app.http  # noqa: B018 - as the lifespan does: what is wrong with its HTTP side is said now
    async with app:
        yield Ask(app, mount=mount)
