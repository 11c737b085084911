"""How much one caller may use, and how often anybody may be wrong. In memory, bounded, per process.

Laws. Time is the injected clock's. What is remembered is bounded: the longest unused is forgotten first, and with many callers
at once a limit for all of them together holds. A caller is its token; callers without one of their own are told apart by
address.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

from cairn.clock import Clock
from cairn.framework.http import problems
from cairn.framework.http.auth import Identity
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.origin import Peer

#: One network is one customer: an IPv6 client has 2^64 addresses to be wrong from (RFC 6177).
IPV6_PREFIX = 64


class Buckets:
    """One token bucket per key: `rate` a second on average, `burst` at once."""

    def __init__(self, clock: Clock, *, rate: float, burst: float, keys_max: int) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._keys_max = keys_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one; 0.0 when there was one, else the seconds until there is."""
        now = self._clock.monotonic()
        level = self._level(key, now)
        if level < 1.0:
            return (1.0 - level) / self._rate
        self._keep(key, level - 1.0, now)
        return 0.0

    def give_back(self, key: str) -> None:
        """What was taken turned out not to count."""
        now = self._clock.monotonic()
        self._keep(key, min(self._burst, self._level(key, now) + 1.0), now)

    def _level(self, key: str, now: float) -> float:
        level, at = self._buckets.get(key, (self._burst, now))
        return min(self._burst, level + (now - at) * self._rate)

    def _keep(self, key: str, level: float, now: float) -> None:
        self._buckets[key] = (level, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)

    def __len__(self) -> int:
        return len(self._buckets)


class Quota:
    """What each caller uses."""

    def __init__(self, limits: HttpLimits, clock: Clock) -> None:
        self._limits = limits
        rate = limits.requests_per_second
        self._requests = Buckets(clock, rate=rate, burst=max(1.0, rate), keys_max=limits.quotas_max)
        self._readers: Counter[str] = Counter()

    def request(self, identity: Identity, peer: Peer) -> None:
        """One request more. Raises Problem 429."""
        if identity.trusted:
            return
        wait = self._requests.take(_caller(identity, peer))
        if wait:
            raise problems.too_many_requests(f"At most {self._limits.requests_per_second:g} requests a second.", wait)

    def wait(self, identity: Identity, peer: Peer) -> float:
        """One message more on a socket: 0.0, or the seconds after which to ask again."""
        return 0.0 if identity.trusted else self._requests.take(_caller(identity, peer))

    @contextmanager
    def reader(self, identity: Identity, peer: Peer) -> Iterator[None]:
        """Inside the block the caller has one live stream more. Raises Problem 429."""
        if identity.trusted:
            yield
            return
        caller = _caller(identity, peer)
        if self._readers[caller] >= self._limits.readers_per_token:
            most = self._limits.readers_per_token
            raise problems.too_many_requests(f"At most {most} live streams at a time; close one, or use long-polling.", 5.0)
        self._readers[caller] += 1
        try:
            yield
        finally:
            self._readers[caller] -= 1
            if not self._readers[caller]:
                del self._readers[caller]


def _caller(identity: Identity, peer: Peer) -> str:
    if identity.token is not None:
        return identity.token
    name = f"{identity.tenant}/{identity.name}"
    return f"{name}@{network_of(peer.client or peer.address)}" if identity.is_shared else name


def network_of(address: str) -> str:
    """What counts as one address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    if parsed.version == 4 or mapped:
        return str(mapped or parsed)
    return str(ip_network((parsed, IPV6_PREFIX), strict=False))


class Failures:
    """Wrong credentials, by address and all together. A try is counted before it is looked at, so that a thousand at once
    are a thousand; one that was right is given back."""

    def __init__(self, limits: HttpLimits, clock: Clock) -> None:
        self._own = Buckets(
            clock, rate=limits.failures_per_minute / 60, burst=limits.failures_burst, keys_max=limits.addresses_max
        )
        self._all = Buckets(clock, rate=limits.all_failures_per_minute / 60, burst=limits.all_failures_burst, keys_max=1)

    def take(self, peer: Peer) -> None:
        """One try more. Raises Problem 429."""
        network = network_of(peer.client or peer.address)
        wait = self._own.take(network)
        if not wait:
            wait = self._all.take("")
            if wait:
                self._own.give_back(network)
        if wait:
            raise problems.too_many_requests("Too many wrong credentials; wait before the next one.", wait)

    def give_back(self, peer: Peer) -> None:
        """The try was right."""
        self._own.give_back(network_of(peer.client or peer.address))
        self._all.give_back("")
