"""Bearer tokens: made once, known by hash, scoped, expiring, revocable; nowhere but in the caller's hand (X5, X8)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from tests.http.callers import Door, at_the_door, bearer

from cairn.clock import SystemClock
from cairn.errors import Conflict, UsageError
from cairn.framework.http.auth import Grant
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.tokens import Tokens, create, hash_of
from cairn.ids import SystemIds, secret
from cairn.runtime.storage import SqliteStore

SHAPE = re.compile(r"cairn_[A-Za-z0-9_-]{43}")


def test_a_token_is_256_random_bits_behind_a_word_that_scanners_find() -> None:
    """X8: leaked ones can be found by their shape; none is guessed."""

    async def main(door: Door) -> None:
        made = [await door.token(str(number)) for number in range(50)]
        assert all(SHAPE.fullmatch(token) for token in made)
        assert len(set(made)) == 50

    at_the_door(main)
    assert len({secret() for _ in range(1_000)}) == 1_000


def test_a_token_opens_what_it_was_made_for() -> None:
    """S12: its tenant, its grants, its conversations."""

    async def main(door: Door) -> None:
        token = await door.token("bot", (Grant.READ, Grant.SEND), agents=("support/*",), tenant="acme", trusted=True)
        found = await door.identify(bearer(token))

        assert (found.name, found.tenant, found.grants) == ("bot", "acme", {Grant.READ, Grant.SEND})
        assert found.trusted
        assert found.may(Grant.READ, "support", "x")
        assert not found.may(Grant.READ, "sales", "x")
        assert not found.may(Grant.ABORT, "support", "x")

    at_the_door(main)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer cairn_",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer {short}",
        "Bearer {upper}",
        "Bearer cairn_{zeros}",
        "Bearer {huge}",
        "bearer {token}, Bearer {token}",
    ],
)
def test_anything_but_a_whole_token_is_wrong(header: str) -> None:
    """X5."""

    async def main(door: Door) -> None:
        token = await door.token()
        text = header.format(token=token, short=token[:-1], upper=token.upper(), zeros="0" * 43, huge="cairn_" + "x" * 9_000)
        assert await door.status(("authorization", text)) == 401
        assert await door.status(("authorization", f"bearer {token}")) == 200

    at_the_door(main)


def test_a_token_expires() -> None:
    """X5: whether or not it was used just before."""

    async def main(door: Door) -> None:
        token = await door.token(expires_in=100.0)
        identity = await door.identify(bearer(token))
        await door.now_and_then(99.5)
        assert await door.status(bearer(token)) == 200
        await door.now_and_then(1)
        assert await door.status(bearer(token)) == 401
        assert not await door.authenticator.still_valid(identity)

    at_the_door(main)


def test_a_revoked_token_ends_requests_and_streams_within_five_seconds() -> None:
    """X11: the promise is 5 s; the memory of a token and the interval of the check fit into it together."""
    limits = HttpLimits()
    assert limits.identity_seconds + limits.identity_recheck_seconds <= 5.0

    async def main(door: Door) -> None:
        token = await door.token("gone")
        identity = await door.identify(bearer(token))
        assert await door.store.delete_token("gone")

        await door.now_and_then(limits.identity_seconds)
        assert not await door.authenticator.still_valid(identity)
        assert await door.status(bearer(token)) == 401

    at_the_door(main)


def test_a_token_that_is_made_anew_with_less_ends_streams_of_the_old_one() -> None:
    async def main(door: Door) -> None:
        identity = await door.identify(bearer(await door.token("bot")))
        await door.store.delete_token("bot")
        await door.token("bot", (Grant.READ,))
        await door.now_and_then(10)
        assert not await door.authenticator.still_valid(identity)

    at_the_door(main)


def test_a_busy_token_asks_the_store_once_in_a_while() -> None:
    """A thousand requests a second are not a thousand look-ups."""

    async def main(door: Door) -> None:
        token = await door.token()
        asked = 0
        look_up = door.store.token

        async def counted(hash: str) -> Any:
            nonlocal asked
            asked += 1
            return await look_up(hash)

        door.store.token = counted  # type: ignore[method-assign]
        for _ in range(100):
            await door.identify(bearer(token))
            await door.now_and_then(0.05)
        assert 3 <= asked <= 4

    at_the_door(main)


def test_wrong_tokens_do_not_fill_the_memory_of_right_ones() -> None:
    """X7."""
    tokens = Tokens()

    async def main(door: Door) -> None:
        token = await door.token()
        await door.identify(bearer(token))
        for number in range(200):
            await door.status(bearer(f"cairn_{number:043d}"))
        assert len(tokens._verified) == 1

    at_the_door(main, auth=tokens, limits=HttpLimits(failures_burst=1_000, all_failures_burst=1_000))


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "x" * 101}, {"name": "a\nb"}, {"grants": ()}, {"agents": ("support",)}, {"expires_in": 0.0}],
)
def test_a_token_that_could_not_work_is_not_made(wrong: dict[str, Any]) -> None:
    async def main(door: Door) -> None:
        given: dict[str, Any] = {"name": "bot", "grants": (Grant.READ,), **wrong}
        with pytest.raises(UsageError):
            await create(door.store, door.clock, **given)
        assert await door.store.tokens() == []

    at_the_door(main)


def test_a_name_is_one_tokens() -> None:
    async def main(door: Door) -> None:
        await door.token("bot")
        with pytest.raises(Conflict):
            await door.token("bot")

    at_the_door(main)


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_token_itself_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    """X8: not in the file, not in its log, not in a backup; only the hash is."""

    async def main() -> str:
        store = SqliteStore(str(tmp_path / "cairn.db"), clock=SystemClock(), ids=SystemIds())
        await store.open()
        token = await create(store, SystemClock(), "bot", (Grant.READ,))
        await store.backup(str(tmp_path / "copy.db"))
        files = everything_in(tmp_path)
        await store.close()
        assert any(hash_of(token).encode() in data for data in files.values())
        assert not [path for path, data in files.items() if token.encode() in data or token[6:].encode() in data]
        return token

    assert SHAPE.fullmatch(asyncio.run(main()))


def test_tokens_without_an_app_say_what_is_missing() -> None:
    async def main() -> None:
        from cairn.framework.http.auth import Credentials

        with pytest.raises(UsageError, match="App"):
            await Tokens()(Credentials({"authorization": f"Bearer cairn_{secret()}"}, "127.0.0.1", "GET", "/"))

    asyncio.run(main())
