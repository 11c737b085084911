"""Who asks and what they may do: identities, grants, the application's own authentication, and wrong credentials (X5, X13)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.http.callers import Door, at_the_door, bearer

from cairn.errors import UsageError
from cairn.framework.http.auth import (
    LOCAL,
    OPEN,
    Credentials,
    Grant,
    Identity,
    check_pattern,
    describe,
    open_to_everyone,
    permit,
)
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.problems import Problem, stream_not_found
from cairn.framework.http.tokens import Tokens

FEW = HttpLimits(failures_burst=3, failures_per_minute=6)


def identity(*agents: str, grants: tuple[Grant, ...] = tuple(Grant)) -> Identity:
    return Identity("caller", grants=frozenset(grants), agents=agents)


# --- what an identity sees ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "kind", "id", "sees"),
    [
        ("*", "support", "a/b", True),
        ("support/*", "support", "anything", True),
        ("support/*", "support", None, True),
        ("support/*", "supporters", "x", False),
        ("support/*", "sales", None, False),
        ("support/user-7", "support", "user-7", True),
        ("support/user-7", "support", "user-70", False),
        ("support/user-7", "support", None, True),
        ("support/user-*", "support", "user-7", True),
        ("support/user-*", "support", "other", False),
        ("support/a/b", "support", "a/b", True),
        ("support/a/b", "support", "a", False),
        ("sup*/*", "support", "x", True),
        ("support/*", "SUPPORT", "x", False),
    ],
)
def test_a_pattern_covers_conversations(pattern: str, kind: str, id: str | None, sees: bool) -> None:
    """S12: what a caller sees is decided by whole names and beginnings, nothing cleverer."""
    assert identity(pattern).sees(kind, id) is sees


@pytest.mark.parametrize("pattern", ["", "support", "support/", "/x", "su*port/x", "support/*x", "support/a*b"])
def test_what_is_no_pattern_is_refused_when_it_is_given(pattern: str) -> None:
    with pytest.raises(UsageError, match="agents"):
        check_pattern(pattern)


def test_a_grant_is_only_worth_something_where_one_sees() -> None:
    """S12: both are needed, the grant and the conversation."""
    reader = identity("support/*", grants=(Grant.READ,))

    assert reader.may(Grant.READ, "support", "x")
    assert not reader.may(Grant.SEND, "support", "x")
    assert not reader.may(Grant.READ, "sales", "x")
    assert reader.may(OPEN)


def test_what_is_not_seen_does_not_exist_and_what_is_not_granted_is_forbidden() -> None:
    """S12, X5: a caller cannot tell a conversation that is not theirs from one that is not there."""
    reader = identity("support/*", grants=(Grant.READ,))

    with pytest.raises(Problem) as unseen:
        permit(reader, Grant.READ, "sales", "x")
    with pytest.raises(Problem) as unseen_and_ungranted:
        permit(reader, Grant.SEND, "sales", "x")
    with pytest.raises(Problem) as forbidden:
        permit(reader, Grant.SEND, "support", "x")

    missing = stream_not_found("sales", "x")
    for caught in (unseen, unseen_and_ungranted):
        assert (caught.value.status, caught.value.body()) == (404, missing.body())
    assert (forbidden.value.status, forbidden.value.type) == (403, "forbidden")
    permit(reader, OPEN)


# --- nothing configured ---------------------------------------------------------------------------------------------


def test_without_authentication_only_this_machine_is_answered() -> None:
    """X5: no configuration means nobody from outside, not everybody."""

    async def main(door: Door) -> None:
        assert await door.identify(client="127.0.0.1") is LOCAL
        assert await door.identify(client="::1") is LOCAL
        assert await door.status(client="203.0.113.9") == 403
        assert await door.status(("x-forwarded-for", "203.0.113.9"), client="127.0.0.1") == 403
        assert await door.status(bearer("cairn_anything"), client="203.0.113.9") == 403

    at_the_door(main, auth=None)


def test_a_server_can_be_opened_to_everyone_but_not_for_everything() -> None:
    everyone = open_to_everyone()

    async def main(door: Door) -> None:
        found = await door.identify(client="203.0.113.9")
        assert found.grants == {Grant.READ, Grant.SEND, Grant.ABORT}
        assert not found.trusted

    at_the_door(main, auth=everyone)
    assert describe(everyone) == "open to everyone (abort, read, send)"
    assert describe(None).startswith("none")
    assert describe(Tokens()) == "bearer tokens"


# --- the application's own ------------------------------------------------------------------------------------------


def test_the_applications_own_authentication_is_asked_with_the_request_it_is_about() -> None:
    asked: list[Credentials] = []

    def who(credentials: Credentials) -> Identity | None:
        asked.append(credentials)
        return identity("*") if credentials.headers.get("cookie") == "session=7" else None

    async def main(door: Door) -> None:
        assert (await door.identify(("cookie", "session=7"))).name == "caller"
        assert await door.status(("cookie", "session=8")) == 401
        assert await door.status() == 401

    at_the_door(main, auth=who)
    assert (asked[0].client, asked[0].method, asked[0].path, asked[0].bearer) == ("203.0.113.9", "GET", "/agents", None)


def test_it_may_be_async_and_what_it_raises_lets_nobody_in() -> None:
    async def who(credentials: Credentials) -> Identity | None:
        await asyncio.sleep(0)
        if credentials.bearer == "broken":
            raise RuntimeError("the directory is down")
        return identity("*") if credentials.bearer == "good" else None

    async def main(door: Door) -> None:
        assert await door.status(bearer("good")) == 200
        with pytest.raises(RuntimeError):
            await door.identify(bearer("broken"))
        assert await door.status(bearer("bad")) == 401

    at_the_door(main, auth=who)


def test_an_identity_that_has_expired_is_none() -> None:
    """X5: for the application's own identities too, and for streams that were opened before."""

    async def main(door: Door) -> None:
        found = await door.identify(bearer("x"))
        assert await door.authenticator.still_valid(found)
        await door.now_and_then(10)
        assert not await door.authenticator.still_valid(found)
        assert await door.status(bearer("x")) == 401

    def who_until(at: list[float]) -> Callable[[Credentials], Identity]:
        return lambda credentials: Identity("x", grants=frozenset(Grant), expires_at=at[0])

    until = [0.0]

    async def begin(door: Door) -> None:
        until[0] = door.clock.wall() + 5
        await main(door)

    at_the_door(begin, auth=who_until(until))


# --- in the right place ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["token", "access_token", "ACCESS_TOKEN", "api_key", "authorization", "to%6ben"])
def test_a_credential_in_a_url_is_refused_and_not_repeated(name: str) -> None:
    """X8: URLs are kept by proxies, histories and logs."""

    async def main(door: Door) -> None:
        token = await door.token()
        with pytest.raises(Problem) as caught:
            await door.identify(bearer(token), query=f"view=history&{name}={token}")
        assert caught.value.status == 400
        assert token not in str(caught.value) + caught.value.body().decode()

    at_the_door(main)


def test_two_credentials_of_one_kind_are_refused() -> None:
    """X13: a request says one thing about who it is from."""

    async def main(door: Door) -> None:
        good = await door.token()
        assert await door.status(bearer(good), bearer("cairn_other")) == 400
        assert await door.status(bearer("cairn_other"), bearer(good)) == 400

    at_the_door(main)


# --- wrong ones -----------------------------------------------------------------------------------------------------

#: What can be sent with a guess: none of it may make the guess uncounted.
BESIDE = {
    "nothing": (),
    "a cookie": (("cookie", "session=1"),),
    "a new cookie each time": "cookie",
    "a key": (("x-api-key", "k"),),
    "a proxy's credential": (("proxy-authorization", "Basic eA=="),),
    "a new address each time, unproven": "x-forwarded-for",
}


@pytest.mark.parametrize("beside", BESIDE)
def test_wrong_credentials_are_counted_whatever_is_sent_with_them(beside: str) -> None:
    """X13: a limiter that a second credential switches off is none."""

    async def main(door: Door) -> None:
        statuses = []
        for number in range(6):
            more = BESIDE[beside]
            extra = ((str(more), f"session={number}"),) if isinstance(more, str) else more
            statuses.append(await door.status(bearer(f"cairn_guess{number}"), *extra))
        assert statuses == [401, 401, 401, 429, 429, 429]

    at_the_door(main, limits=FEW)


def test_a_right_cookie_beside_a_wrong_guess_does_not_make_room_for_guesses() -> None:
    """X13: with an application that looks at two kinds, each new pair is a new guess."""

    def who(credentials: Credentials) -> Identity | None:
        return identity("*") if credentials.bearer == "right" else None

    async def main(door: Door) -> None:
        assert await door.status(bearer("right"), ("cookie", "session=good")) == 200
        statuses = [await door.status(bearer(f"wrong{number}"), ("cookie", "session=good")) for number in range(5)]
        assert statuses == [401, 401, 401, 429, 429]

    at_the_door(main, auth=who, limits=FEW)


def test_after_a_while_one_may_try_again_and_is_told_when() -> None:
    async def main(door: Door) -> None:
        for number in range(3):
            await door.status(bearer(f"cairn_{number}"))
        with pytest.raises(Problem) as caught:
            await door.identify(bearer("cairn_x"))
        wait = int(caught.value.headers["retry-after"])
        await door.now_and_then(wait)
        assert await door.status(bearer("cairn_x")) == 401
        assert await door.status(bearer("cairn_y")) == 429

    at_the_door(main, limits=FEW)


def test_a_caller_whose_token_was_accepted_is_not_held_up_by_others_at_its_address() -> None:
    """X13: behind one address may be an attacker and everybody else."""

    async def main(door: Door) -> None:
        good, unused = await door.token("one"), await door.token("two")
        assert await door.status(bearer(good)) == 200
        for number in range(9):
            await door.status(bearer(f"cairn_{number}"))

        assert await door.status(bearer(good)) == 200
        assert await door.status(bearer(unused)) == 429
        assert await door.status(bearer(unused), client="203.0.113.10") == 200

    at_the_door(main, limits=FEW)


def test_many_addresses_together_are_limited_too() -> None:
    """X13: one guess from each of a thousand addresses is a thousand guesses."""
    limits = HttpLimits(failures_burst=3, all_failures_burst=20, all_failures_per_minute=1)

    async def main(door: Door) -> None:
        good = await door.token()
        assert await door.status(bearer(good)) == 200
        statuses = [
            await door.status(bearer(f"cairn_{number}"), client=f"203.0.{number // 200}.{number % 200}") for number in range(30)
        ]
        assert statuses == [401] * 20 + [429] * 10
        assert await door.status(bearer(good), client="198.51.100.1") == 200

    at_the_door(main, limits=limits)


def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    """X13: one customer has 2^64 of them."""

    async def main(door: Door) -> None:
        statuses = [await door.status(bearer(f"cairn_{n}"), client=f"2001:db8:1:2::{n:x}") for n in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert await door.status(bearer("cairn_"), client="2001:db8:1:3::1") == 401

    at_the_door(main, limits=FEW)


def test_a_thousand_guesses_at_once_are_a_thousand() -> None:
    """X13: a guess is counted before it is looked at, not after."""
    inside = 0

    async def slow(credentials: Credentials) -> Identity | None:
        nonlocal inside
        inside += 1
        await asyncio.sleep(1)
        return None

    async def main(door: Door) -> None:
        statuses = await asyncio.gather(*(door.status(bearer(f"guess{number}")) for number in range(1_000)))
        assert sorted(statuses) == [401] * 3 + [429] * 997

    at_the_door(main, auth=slow, limits=FEW)
    assert inside == 3


def test_many_first_requests_with_one_right_token_are_all_let_in() -> None:
    """A page opens and asks for ten things at once: that is no attack."""

    async def slow(credentials: Credentials) -> Identity | None:
        await asyncio.sleep(1)
        return identity("*")

    async def main(door: Door) -> None:
        assert await asyncio.gather(*(door.status(bearer("right")) for _ in range(50))) == [200] * 50

    at_the_door(main, auth=slow, limits=FEW)


def test_requests_without_any_credential_are_no_guesses() -> None:
    """A page that has not been given its token yet may say so often."""

    async def main(door: Door) -> None:
        cookie = ("cookie", "somebody-elses=1")
        assert [await door.status(cookie) for _ in range(10)] == [401] * 10
        assert await door.status(bearer(await door.token())) == 200

    at_the_door(main, limits=FEW)


def test_a_token_that_was_right_and_is_revoked_is_a_guess_like_any_other() -> None:
    """X13: what was accepted once must not stay outside of the count."""

    async def main(door: Door) -> None:
        token = await door.token("gone")
        assert await door.status(bearer(token)) == 200
        await door.store.delete_token("gone")
        await door.now_and_then(60)
        assert [await door.status(bearer(token)) for _ in range(5)] == [401, 401, 401, 429, 429]

    at_the_door(main, limits=FEW)
