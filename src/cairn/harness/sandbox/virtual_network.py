"""The network of a virtual sandbox: requests made here, for what was granted, with credentials no script sees.

Laws. Nothing is reached that no grant names. A name is resolved once, every address is checked, and the connection goes to the
one that was checked; a redirect is a new request, checked again. What a grant adds to a request replaces what the script said.
Proxies of the environment are not used. Bodies and time are bounded.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from cairn.errors import UsageError
from cairn.harness.sandbox.virtual_wire import Fetch

#: As other clients of models' tools have it: enough for documents, not for images of disks.
BODY_BYTES_MAX = 10 * 1024 * 1024
SECONDS_MAX = 60.0
REDIRECTS_MAX = 5

#: What a request's other end or its connection decides, and what would say who we are.
_REFUSED_HEADERS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "expect"}
    | {"proxy-authorization", "proxy-connection", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"}
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}")
_METHOD = re.compile(r"[A-Z]{1,16}")
_PORTS = {"https": 443, "http": 80}

#: IPv6 addresses that are IPv4 ones in disguise: translated (NAT64).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Answer = tuple[Any, bytes]


class _Refused(Exception):
    """Not granted, or not possible; the text is what curl says."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be requested: everything below a URL. `headers` are put on each request, outside the sandbox."""

    url: str
    """`https://host/path/`, or a host alone: all of it, by https."""
    headers: Mapping[str, str] = field(default_factory=dict)
    methods: Sequence[str] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    private: bool = False
    """The host may have a private or a loopback address."""


class _Rule:
    """A grant, taken apart. *Raises* UsageError for one that would mean something else than it says."""

    def __init__(self, given: str | Grant) -> None:
        grant = given if isinstance(given, Grant) else Grant(given)
        url = grant.url if "://" in grant.url else f"https://{grant.url}"
        parts = urlsplit(url)
        if (
            parts.scheme not in _PORTS
            or not parts.hostname
            or parts.username
            or parts.query
            or parts.fragment
            or re.search(r"[\s*]", url)
        ):
            raise UsageError(f"virtual(network=…): {grant.url!r} is no host and no http(s) URL of one")
        for name, value in grant.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise UsageError(f"virtual(network=…): {name!r} is not a header that can be sent to {parts.hostname}")
        self.grant = grant
        self.scheme, self.host = parts.scheme, parts.hostname.lower()
        self.port = parts.port or _PORTS[parts.scheme]
        self.path = parts.path or "/"

    def allows(self, method: str, parts: SplitResult) -> bool:
        port = parts.port or _PORTS.get(parts.scheme, 0)
        if (parts.scheme, (parts.hostname or "").lower(), port) != (self.scheme, self.host, self.port):
            return False
        path = parts.path or "/"
        is_plain = not any(step in (".", "..") for step in re.split(r"[/\\]", unquote(path)))
        is_below = path.startswith(self.path) and (self.path.endswith("/") or path == self.path or path[len(self.path)] == "/")
        return method in self.grant.methods and is_below and (is_plain or self.path == "/")


class Network:
    """The grants of one agent."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = rules

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and [rule.grant for rule in self._rules] == [rule.grant for rule in other._rules]

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of(cls, given: str | Grant | Iterable[str | Grant]) -> Network:
        """*Raises* UsageError for a grant that is none."""
        grants = [given] if isinstance(given, (str, Grant)) else list(given)
        return cls([_Rule(each) for each in grants])

    def __str__(self) -> str:
        return ", ".join(sorted({f"{rule.scheme}://{rule.host}" for rule in self._rules})) or "no host"

    async def fetch(self, asked: Fetch, body: bytes) -> Answer:
        """What came of the request, or words for why nothing did. Never raises but for cancellation."""
        try:
            seconds = min(max(asked.seconds, 0.1), SECONDS_MAX)
            async with asyncio.timeout(seconds):
                return await self._follow(asked, body, seconds)
        except _Refused as refused:
            return {"error": str(refused)}, b""
        except TimeoutError:
            return {"error": "the request took too long"}, b""
        except (OSError, ValueError, http.client.HTTPException) as error:
            return {"error": f"{type(error).__name__}: {error}"}, b""

    async def _follow(self, asked: Fetch, body: bytes, seconds: float) -> Answer:
        url, method = asked.url, asked.method
        for _ in range(REDIRECTS_MAX + 1):
            request = await self._checked(method, url, asked.headers)
            status, headers, answer = await asyncio.to_thread(_send, request, body, seconds)
            location = next((value for name, value in headers if name.lower() == "location"), None)
            if not asked.follow or status not in (301, 302, 303, 307, 308) or location is None:
                return {"status": status, "headers": headers, "url": url}, answer
            url = urljoin(url, location)
            if status == 303 or (status in (301, 302) and method == "POST"):
                method, body = "GET", b""
        raise _Refused(f"more than {REDIRECTS_MAX} redirects")

    async def _checked(self, method: str, url: str, headers: Sequence[tuple[str, str]]) -> _Request:
        if not _METHOD.fullmatch(method) or any(ord(character) < 0x21 for character in url) or not url.isascii():
            raise _Refused("this is not a request that can be sent")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None or not parts.hostname:
            raise _Refused(f"{url}: not a URL that can be requested")
        rule = next((rule for rule in self._rules if rule.allows(method, parts)), None)
        if rule is None:
            raise _Refused(f"{method} {parts.scheme}://{parts.hostname} is not granted to this sandbox (granted: {self})")
        address = await _address(rule)
        own = {name.lower() for name in rule.grant.headers}
        sent = [(name, value) for name, value in headers if name.lower() not in own | _REFUSED_HEADERS]
        if not all(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value) for name, value in sent):
            raise _Refused("a header that cannot be sent")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return _Request(rule, address, method, target, [*sent, *rule.grant.headers.items()])


@dataclass(frozen=True, slots=True)
class _Request:
    rule: _Rule
    address: str
    method: str
    target: str
    headers: list[tuple[str, str]]


async def _address(rule: _Rule) -> str:
    """One of the host's addresses, when all of them may be connected to."""
    found = await asyncio.get_running_loop().getaddrinfo(rule.host, rule.port, type=socket.SOCK_STREAM)
    addresses = [str(each[4][0]) for each in found]
    if not rule.grant.private and not all(_is_public(address) for address in addresses):
        raise _Refused(f"{rule.host} has an address that is not public")
    if not addresses:
        raise _Refused(f"{rule.host} has no address")
    return addresses[0]


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
    return address.is_global and not address.is_multicast


def _send(request: _Request, body: bytes, seconds: float) -> tuple[int, list[tuple[str, str]], bytes]:
    """Blocking. To exactly this address, with the host's name in TLS and in the request."""
    rule = request.rule
    connection = http.client.HTTPConnection(rule.host, rule.port, timeout=seconds)
    connection.sock = socket.create_connection((request.address, rule.port), timeout=seconds)
    try:
        if rule.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=rule.host)
        connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
        default = rule.port == _PORTS[rule.scheme]
        connection.putheader("Host", rule.host if default else f"{rule.host}:{rule.port}")
        for name, value in request.headers:
            connection.putheader(name, value)
        if body or request.method in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        data = response.read(BODY_BYTES_MAX + 1)
        if len(data) > BODY_BYTES_MAX:
            raise _Refused(f"the answer has more than {BODY_BYTES_MAX // (1024 * 1024)} MB")
        return response.status, response.getheaders(), data
    finally:
        connection.close()
