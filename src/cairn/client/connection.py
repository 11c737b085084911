"""Requests to one server: its address, the credential, what a failure becomes, and what is tried again.

Laws. A request is repeated only when that cannot do anything twice: because it reads, because it is idempotent, or because
nothing of it was sent. A server on this machine is never asked through a proxy. httpx is imported by the first request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from cairn.client.problems import error_of
from cairn.clock import Clock, SystemClock
from cairn.errors import CairnError, RemoteError, Unreachable, UsageError
from cairn.ids import Ids, SystemIds

if TYPE_CHECKING:
    import httpx

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]

#: The first and the longest wait between two tries, in seconds. A server that restarts is back within one; the longest is
#: what a person waits for after a long outage.
BACKOFF_BASE_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0
BACKOFF_FACTOR = 1.7
#: Seconds to connect and to get an answer; a server answers all but live reads at once.
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
#: Seconds of silence after which a live read is taken for dead: the server says something every 15.
SILENCE_SECONDS = 50.0
#: Bytes of a refusal that are read.
REFUSAL_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A success."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, type: Any = Any) -> Any:
        """The body. Raises RemoteError for what is not as expected: no server of ours, or a newer one."""
        try:
            return msgspec.json.decode(self.body, type=type)
        except msgspec.MsgspecError as error:
            raise RemoteError(f"the server sent what cannot be read: {error}", type="invalid_answer") from None


class Backoff:
    """The waits between tries."""

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._tries = 0

    async def wait(self, error: CairnError) -> None:
        """Longer each time, never all clients at once, and at least as long as the server asks for."""
        most = min(BACKOFF_MAX_SECONDS, BACKOFF_BASE_SECONDS * BACKOFF_FACTOR**self._tries)
        self._tries = min(self._tries + 1, 64)
        asked = getattr(error, "retry_after", None) or 0.0
        await self._clock.sleep(max(asked, most * (0.5 + 0.5 * self._ids.random())))

    def reset(self) -> None:
        self._tries = 0


class Connection:
    """Every request of one Client."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        headers: Headers | None,
        transport: httpx.AsyncBaseTransport | None,
        patience_seconds: float,
        clock: Clock | None,
        ids: Ids | None,
    ) -> None:
        self.url = checked_url(url)
        self.clock: Clock = clock or SystemClock()
        self.ids: Ids = ids or SystemIds()
        self._token = token
        self._headers = headers
        self._transport = transport
        self._patience = patience_seconds
        self._http: httpx.AsyncClient | None = None

    @property
    def streams(self) -> bool:
        """Whether an answer can be read while it is written; httpx's own transport into an application collects it first."""
        return type(self._transport).__name__ != "ASGITransport"

    def address(self, *segments: str) -> str:
        """The URL of something; each segment may be any text."""
        return "/".join((self.url, *(quote(segment, safe="") for segment in segments)))

    def backoff(self) -> Backoff:
        return Backoff(self.clock, self.ids)

    async def request(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        is_repeatable: bool = True,
    ) -> Answer:
        """The server's answer. A request that fails for now is tried again for as long as the client's patience lasts, if it
        `is_repeatable`; one that is not is only tried again when nothing of it was sent. *Raises* what the server refused with,
        Unreachable."""
        backoff, until = self.backoff(), self.clock.monotonic() + self._patience
        while True:
            try:
                return await self._once(method, url, query, json)
            except RemoteError as error:
                may_repeat = error.retryable if is_repeatable else isinstance(error, Unreachable) and not error.was_sent
                if not may_repeat or self.clock.monotonic() >= until:
                    raise
                await backoff.wait(error)

    async def _once(self, method: str, url: str, query: Mapping[str, str] | None, json: Any) -> Answer:
        async with self._sent(method, url, query, json) as response:
            try:
                body = await response.aread()
            except Exception as error:
                raise unreachable(error, url) from error
            return Answer(response.status_code, response.headers, body)

    @asynccontextmanager
    async def stream(self, url: str, query: Mapping[str, str]) -> AsyncGenerator[httpx.Response, None]:
        """A live read: its bytes are read by the caller. *Raises* as `request`, after one try."""
        async with self._sent("GET", url, query, None, silence_seconds=SILENCE_SECONDS) as response:
            yield response

    @asynccontextmanager
    async def _sent(
        self,
        method: str,
        url: str,
        query: Mapping[str, str] | None,
        json: Any,
        *,
        silence_seconds: float = ANSWER_SECONDS,
    ) -> AsyncGenerator[httpx.Response, None]:
        """The request is sent and accepted; its answer has begun."""
        import httpx

        http = self._client()
        content = None if json is None else msgspec.json.encode(json)
        headers = self._request_headers(is_json=json is not None)
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=silence_seconds)
        try:
            request = http.build_request(method, url, params=query, content=content, headers=headers, timeout=timeout)
            response = await http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise unreachable(error, url) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise UsageError(f"{url!r} cannot be asked: {error}") from None
        try:
            if response.status_code >= 300:
                raise error_of(response.status_code, response.headers, await _refusal(response), f"{method} {url}")
            yield response
        finally:
            await response.aclose()

    def _request_headers(self, *, is_json: bool) -> dict[str, str]:
        given = self._headers() if callable(self._headers) else self._headers or {}
        headers = {"content-type": "application/json"} if is_json else {}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        return headers | {name.lower(): value for name, value in given.items()}

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            import httpx

            limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
            self._http = httpx.AsyncClient(transport=self._transport, limits=limits, trust_env=not _is_here(self.url))
        return self._http

    async def close(self) -> None:
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()


async def _refusal(response: httpx.Response) -> bytes:
    """As much of an error's body as is needed."""
    found = b""
    async for part in response.aiter_bytes():
        found += part
        if len(found) > REFUSAL_BYTES_MAX:
            break
    return found


def unreachable(error: Exception, url: str) -> Unreachable:
    """No answer, or none that ended."""
    import httpx

    was_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.UnsupportedProtocol)
    parts = urlsplit(url)
    why = str(error) or type(error).__name__
    what = "broke off" if was_sent else "does not answer"
    return Unreachable(f"the server at {parts.scheme}://{parts.netloc} {what}: {why}", was_sent=was_sent)


def is_timeout(error: Exception) -> bool:
    """Whether nothing came for as long as something should have."""
    import httpx

    return isinstance(error, httpx.ReadTimeout)


def checked_url(url: str) -> str:
    """The URL without a slash at its end. Raises UsageError for what is none."""
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
        has_password = bool(parts.username or parts.password)
    except ValueError:
        is_fine = has_password = False
    if has_password:
        raise UsageError("a URL with a password in it ends up in logs; give the credential as token= or headers=")
    if not is_fine:
        raise UsageError(
            f"{url!r} is no URL of a server; write it like 'https://agents.example.com' or 'http://127.0.0.1:8000'"
        )
    return url.rstrip("/")


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
