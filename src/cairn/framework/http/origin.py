"""Which hosts this server answers for, which pages of other origins may call it, and what its own address is.

Laws. Pure: a decision over the request's headers. `Host` is checked on every request, because a page that rebinds its name to
our address sends its own name there. `Origin` is checked on every request that has one, reads and streams included. What a
browser says of itself (`Sec-Fetch-Site`) is believed when it accuses, never when it excuses. Forwarded headers count only
when a trusted proxy is the peer; for the checks they can add a host to the one that was sent, never replace it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from cairn.errors import UsageError
from cairn.framework.http import problems
from cairn.framework.http.responses import Scope

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: The origins `cairn dev` accepts: a page under development is served on some other port of this machine.
LOOPBACK_ORIGINS = ("http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*")
LOOPBACK_PROXIES = ("127.0.0.0/8", "::1/128")

#: Each of these says that a proxy sent the request on.
FORWARDED_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "via")

#: What a page of an allowed origin may send and read beyond the few harmless headers.
ALLOWED_HEADERS = "content-type, authorization, traceparent, tracestate, x-request-id"
ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
EXPOSED_HEADERS = "Stream-Next-Offset, Stream-Up-To-Date, Location, flue-error-ref, Retry-After, x-request-id"
#: Seconds a browser may remember the answer to a preflight (Chromium caps it at 7,200).
PREFLIGHT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class OriginRules:
    """Who may call, as the application said. The loopback names and the address a connection came in on are always ours."""

    hosts: tuple[str, ...] = ()
    """Names, with or without a port; `*.example.com` for all below; `*` for any, which gives the protection up."""
    origins: tuple[str, ...] = ()
    """Origins such as `https://app.example.com`; the port may be `*`."""
    proxies: tuple[str, ...] = LOOPBACK_PROXIES
    """Addresses and networks whose forwarded headers are believed."""
    networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for origin in self.origins:
            _check_origin(origin)
        for host in self.hosts:
            if not host or "/" in host or "*" in host.removeprefix("*"):
                raise UsageError(f"hosts: {host!r} is no host; write a name such as 'agents.example.com', without a scheme")
        try:
            networks = tuple(ip_network(each, strict=False) for each in self.proxies)
        except ValueError as error:
            raise UsageError(f"proxies: {error}; give addresses or networks such as '10.0.0.0/8'") from None
        object.__setattr__(self, "networks", networks)


def _check_origin(origin: str) -> None:
    try:
        parts = urlsplit(origin.removesuffix(":*"))
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.path and not parts.query
    except ValueError:
        right = False
    if not right or "*" in origin.removesuffix(":*"):
        raise UsageError(f"cors: {origin!r} is no origin; write it as the browser does: 'https://app.example.com'")


# --- where a request came from --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """The client as far as it can be known, and the address it used for us."""

    client: str
    """The client's address; empty when it cannot be known."""
    address: str
    """The address the connection comes from: the client's or a proxy's."""
    scheme: str
    host: str
    """Host and port as the client wrote them; what the nearest trusted proxy says, if there is one."""
    sent_host: str
    """The Host header itself."""
    is_local: bool
    """The client is on this machine: what came through a proxy is so only if a trusted one says it."""

    @property
    def url(self) -> str:
        """What absolute URLs of this server begin with."""
        return f"{self.scheme}://{self.host}"


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers; repeated ones joined by a comma."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def peer_of(scope: Scope, headers: Mapping[str, str], rules: OriginRules) -> Peer:
    """The client, through as many proxies as are trusted. Nothing that an untrusted peer says is believed."""
    client = scope.get("client")
    address = str(client[0]) if client else ""
    sent = headers.get("host", "").strip().lower()
    scheme = scope.get("scheme", "http")
    hops = _hops(headers)
    if not hops or not _is_within(address, rules.networks):
        is_direct = not any(name in headers for name in FORWARDED_HEADERS)
        return Peer(address, address, scheme, sent, sent, is_direct and is_loopback(address))
    # One proxy writes one kind of header and hands the other on as the client sent it: with both, somebody may be lying.
    is_local = all(is_loopback(each.address) for each in hops) and not ("forwarded" in headers and _is_x_forwarded(headers))
    # The last hop is what our own proxy wrote. Behind further trusted ones, what the outermost of them wrote counts.
    hop = hops.pop()
    while hops and _is_within(hop.address, rules.networks):
        hop = hops.pop()
    host = hop.host.lower() if hop.host and allows_host(hop.host, scope, rules) else sent
    return Peer(hop.address, address, hop.scheme or scheme, host, sent, is_local)


@dataclass(frozen=True, slots=True)
class _Hop:
    address: str = ""
    scheme: str = ""
    host: str = ""


def _hops(headers: Mapping[str, str]) -> list[_Hop]:
    """What proxies wrote, the nearest last: the `X-Forwarded-…` three, or else `Forwarded` (RFC 7239)."""
    if not _is_x_forwarded(headers):
        return [_hop(element) for element in _listed(headers.get("forwarded", ""))]
    addresses = _listed(headers.get("x-forwarded-for", ""))
    schemes = _listed(headers.get("x-forwarded-proto", ""))
    hosts = _listed(headers.get("x-forwarded-host", ""))
    count = max(len(addresses), len(schemes), len(hosts))
    return [
        _Hop(_address(_from_end(addresses, index)), _scheme(_from_end(schemes, index)), _from_end(hosts, index))
        for index in range(count, 0, -1)
    ]


def _is_x_forwarded(headers: Mapping[str, str]) -> bool:
    return any(headers.get(f"x-forwarded-{name}") for name in ("for", "proto", "host"))


def _hop(element: str) -> _Hop:
    pairs = {}
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        pairs[name.strip().lower()] = value.strip().strip('"')
    return _Hop(_address(pairs.get("for", "")), _scheme(pairs.get("proto", "")), pairs.get("host", ""))


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")] if value else []


def _from_end(values: Sequence[str], index: int) -> str:
    """The index-th from the end. Of the scheme and the host there is often one for all hops."""
    return values[-index] if index <= len(values) else (values[0] if len(values) == 1 else "")


def _scheme(text: str) -> str:
    return text.lower() if text.lower() in ("http", "https") else ""


def _address(text: str) -> str:
    """The address without its port; empty for `unknown`, hidden or garbled ones."""
    text = text.strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def _is_within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network or parsed in network for network in networks)


def is_loopback(address: str) -> bool:
    """Whether the address is this machine's own."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


# --- may it ---------------------------------------------------------------------------------------------------------


def check(scope: Scope, headers: Mapping[str, str], peer: Peer, rules: OriginRules, *, is_page: bool = False) -> dict[str, str]:
    """The request may go on; returns the headers its answer needs so that a page of an allowed origin may read it.

    `is_page`: this is a page for people, so a link on somebody's site may lead to it. *Raises* Problem 400, 403, 421.
    """
    if not peer.sent_host or "," in peer.sent_host:
        raise problems.invalid_request("One Host header is needed.")
    if not allows_host(peer.sent_host, scope, rules):
        raise problems.host_not_allowed(
            f"It was asked as '{peer.sent_host[:100]}'. If that is its name, allow it: App(hosts=[…]) or --allow-host."
        )
    origin = headers.get("origin")
    if origin is not None:
        return _check_origin_header(origin, peer, rules)
    site = headers.get("sec-fetch-site", "none")
    if site in ("same-origin", "none"):
        return _vary(rules)
    # An image or a script of another site: it has no Origin, and the page that holds it may be named in Referer.
    if is_page and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document":
        return _vary(rules)
    referrer = urlsplit(headers.get("referer", ""))
    if is_allowed_origin(f"{referrer.scheme}://{referrer.netloc}", rules):
        return _vary(rules)
    raise problems.origin_not_allowed(f"A page of another site ('{site[:20]}') asked for this, without saying which.")


def _check_origin_header(origin: str, peer: Peer, rules: OriginRules) -> dict[str, str]:
    if is_allowed_origin(origin, rules):
        return {"access-control-allow-origin": origin, "access-control-expose-headers": EXPOSED_HEADERS, "vary": "Origin"}
    # Same host is same origin, whatever the scheme: behind a proxy that ends TLS we may not know it (Go's
    # CrossOriginProtection compares alike).
    authority = origin.partition("://")[2].lower()
    if authority and authority in (peer.host, peer.sent_host):
        return _vary(rules)
    raise problems.origin_not_allowed(f"'{origin[:100]}' is not allowed here. Allow it: App(cors=['{origin[:100]}']).")


def _vary(rules: OriginRules) -> dict[str, str]:
    return {"vary": "Origin"} if rules.origins else {}


def preflight(method: str, headers: Mapping[str, str], rules: OriginRules) -> dict[str, str] | None:
    """The headers of the 204 for a browser that asks whether it may; None when this is no such question."""
    origin = headers.get("origin")
    if method != "OPTIONS" or origin is None or "access-control-request-method" not in headers:
        return None
    if not is_allowed_origin(origin, rules):
        return None
    return {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": ALLOWED_METHODS,
        "access-control-allow-headers": ALLOWED_HEADERS,
        "access-control-max-age": str(PREFLIGHT_SECONDS),
        "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }


def is_allowed_origin(origin: str, rules: OriginRules) -> bool:
    """Whether the application named it. `null`, the origin of sandboxed frames and files, never is."""
    for allowed in rules.origins:
        if allowed == origin:
            return True
        if allowed.endswith(":*"):
            before, rest = allowed[:-2], origin.removeprefix(allowed[:-2])
            if origin.startswith(before) and (not rest or (rest[0] == ":" and rest[1:].isdecimal())):
                return True
    return False


def allows_host(host: str, scope: Scope, rules: OriginRules) -> bool:
    """Whether this server answers for that name: a loopback name, the address the connection came in on, or a named one."""
    host = host.lower()
    name = _without_port(host)
    if name in LOOPBACK_HOSTS:
        return True
    server = scope.get("server")
    if server and _bare(name) == str(server[0]).lower() and _is_address(_bare(name)):
        return True
    return any(_matches(pattern.lower(), host, name) for pattern in rules.hosts)


def _matches(pattern: str, host: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return pattern in (host, name)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _bare(name: str) -> str:
    return name.strip("[]")


def _is_address(name: str) -> bool:
    """A name could be made to point here by whoever owns it; an address cannot."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
