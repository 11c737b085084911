"""How much one caller may use: requests a second, live streams, and a memory that is bounded itself (X7)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cairn.framework.http.auth import Identity
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.origin import Peer
from cairn.framework.http.problems import Problem
from cairn.framework.http.quota import Buckets, Quota, network_of
from cairn.testing import SimulatedClock, Simulation, simulate

LIMITS = HttpLimits(requests_per_second=10, readers_per_token=2)


def peer(address: str = "203.0.113.9") -> Peer:
    return Peer(address, address, "http", "localhost", "localhost", False)


def caller(token: str = "hash", **more: object) -> Identity:
    return Identity("caller", token=token, **more)  # type: ignore[arg-type]


def in_time(main: Callable[[SimulatedClock], object]) -> None:
    async def run(simulation: Simulation) -> None:
        result = main(simulation.clock)
        if hasattr(result, "__await__"):
            await result

    simulate(run, seed=0, faults=False)


def refused(quota: Quota, identity: Identity, address: str = "203.0.113.9") -> bool:
    try:
        quota.request(identity, peer(address))
    except Problem as problem:
        assert (problem.status, problem.type) == (429, "too_many_requests")
        assert int(problem.headers["retry-after"]) >= 1
        return True
    return False


def test_a_token_has_its_requests_and_gets_new_ones_as_time_goes_by() -> None:
    """X7: a burst, and from then on the rate."""

    async def main(clock: SimulatedClock) -> None:
        quota = Quota(LIMITS, clock)
        assert [refused(quota, caller()) for _ in range(11)] == [False] * 10 + [True]
        assert not refused(quota, caller("another"))
        await clock.sleep(0.5)
        assert [refused(quota, caller()) for _ in range(6)] == [False] * 5 + [True]
        await clock.sleep(1_000)
        assert sum(not refused(quota, caller()) for _ in range(100)) == 10

    in_time(main)


def test_a_trusted_application_has_no_limit() -> None:
    def main(clock: SimulatedClock) -> None:
        quota = Quota(LIMITS, clock)
        trusted = caller(trusted=True)
        assert not any(refused(quota, trusted) for _ in range(1_000))
        readers = [quota.reader(trusted, peer()) for _ in range(100)]
        for each in readers:
            each.__enter__()

    in_time(main)


def test_a_token_has_so_many_streams_at_a_time() -> None:
    """X7: what is closed makes room, however it was closed."""

    def main(clock: SimulatedClock) -> None:
        quota = Quota(LIMITS, clock)
        with quota.reader(caller(), peer()):
            with pytest.raises(ConnectionError), quota.reader(caller(), peer()):
                raise ConnectionError
            with quota.reader(caller(), peer()):
                with pytest.raises(Problem) as caught, quota.reader(caller(), peer()):
                    pass
                assert caught.value.status == 429
                with quota.reader(caller("another"), peer()):
                    pass
        assert not quota._readers

    in_time(main)


def test_callers_without_a_token_of_their_own_are_told_apart_by_address() -> None:
    """One visitor of an open server does not use up everybody's."""

    def main(clock: SimulatedClock) -> None:
        quota = Quota(LIMITS, clock)
        everyone = Identity("everyone", is_shared=True)
        assert [refused(quota, everyone, "203.0.113.1") for _ in range(11)][-1]
        assert not refused(quota, everyone, "203.0.113.2")
        one = Identity("ours")
        assert [refused(quota, one, f"203.0.113.{number}") for number in range(11)][-1]

    in_time(main)


def test_what_is_remembered_of_callers_is_bounded() -> None:
    """X7: a million addresses are not a million entries."""

    def main(clock: SimulatedClock) -> None:
        buckets = Buckets(clock, rate=1, burst=5, keys_max=100)
        for number in range(10_000):
            buckets.take(str(number))
        assert len(buckets) == 100

    in_time(main)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_one_network_is_one_address(address: str, network: str) -> None:
    assert network_of(address) == network
