"""A conversation that has as much as it may takes no more messages, says so, and keeps every promise it has made."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.http.calling import World, ask, history, in_world, send, settled
from tests.http.following import PATH, toy
from tests.http.test_conversation import HELLO, image, kind_of

from cairn.framework.http.limits import MB, HttpLimits

#: A message that alone is more than the limit of these tests.
LONG = "words " * 1_000
LIMITS = HttpLimits(log_bytes_max=5_000)


async def log_bytes(app: object, path: str = PATH) -> int:
    answer = await ask(app, "GET", f"{path}/usage")
    assert answer.status == 200, answer.body
    found: int = answer.json()["logBytes"]
    return found


def test_a_conversation_that_is_too_large_takes_no_more() -> None:
    """X7: 507 with its size, the limit and the ways out; nothing of the message is kept, and others are not concerned."""

    async def main(world: World) -> None:
        app = await world.app(toy(), limits=LIMITS)
        await send(app, PATH, LONG)
        before = await history(app, PATH)
        refused = await ask(app, "POST", PATH, HELLO)
        assert kind_of(refused) == (507, "insufficient_storage")
        details = refused.json()["error"]["details"]
        assert f"{await log_bytes(app):,} bytes" in details and "5,000" in details and "log_bytes_max" in details
        assert "Fork" in details and "new conversation" in details
        assert await history(app, PATH) == before
        assert (await ask(app, "POST", "/agents/toy/other", HELLO)).status == 202

    in_world(main)


def test_below_its_limit_a_conversation_takes_messages() -> None:
    """X7: exactly up to it: the limit is of what is stored before, not of the message."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        await send(app, PATH, "Hello.")
        size = await log_bytes(app)
        for most, status in ((size, 507), (size + 1, 202)):
            limited = await world.app(toy(), limits=HttpLimits(log_bytes_max=most))
            assert (await ask(limited, "POST", PATH, HELLO)).status == status

    in_world(main)


def test_what_was_accepted_is_answered_and_its_key_known_however_large_the_log_is() -> None:
    """S1, S6, X7: a retry gets its receipt, other content under its key the conflict; a key that is new is a new message."""

    async def main(world: World) -> None:
        app = await world.app(toy(), limits=LIMITS)
        accepted = await send(app, PATH, LONG, idempotencyKey="k")
        again = await send(app, PATH, LONG, idempotencyKey="k")
        assert (again["submissionId"], again["deduplicated"]) == (accepted["submissionId"], True)
        other = await ask(app, "POST", PATH, {**HELLO, "idempotencyKey": "k"})
        assert kind_of(other) == (409, "submission_conflict")
        new = await ask(app, "POST", PATH, {**HELLO, "idempotencyKey": "new"})
        assert kind_of(new) == (507, "insufficient_storage")
        world.work(toy())
        assert (await settled(app, PATH))["settlements"][0]["outcome"] == "completed"
        assert (await send(app, PATH, LONG, idempotencyKey="k"))["submissionId"] == accepted["submissionId"]

    in_world(main)


def test_a_key_that_was_used_is_answered_also_when_too_much_waits() -> None:
    """S6, X7: the 429 is for one message more, and a retry is none."""

    async def main(world: World) -> None:
        app = await world.app(toy(), limits=HttpLimits(queued_submissions_max=1))
        accepted = await send(app, PATH, "Hello.", idempotencyKey="k")
        assert kind_of(await ask(app, "POST", PATH, {**HELLO, "idempotencyKey": "other"})) == (429, "too_many_requests")
        assert (await send(app, PATH, "Hello.", idempotencyKey="k"))["submissionId"] == accepted["submissionId"]

    in_world(main)


def test_a_fork_of_a_conversation_that_is_too_large_goes_on() -> None:
    """X7, S6: a fork weighs what is its own, and keys of its source mean nothing to it."""

    async def main(world: World) -> None:
        app = await world.app(toy(), limits=LIMITS)
        await send(app, PATH, LONG, idempotencyKey="k")
        made = await ask(app, "POST", f"{PATH}/fork", {"id": "fork"})
        assert made.status == 201
        assert await log_bytes(app, "/agents/toy/fork") < 2_000
        sent = await send(app, "/agents/toy/fork", "Hello.", idempotencyKey="k")
        assert "deduplicated" not in sent
        await send(app, "/agents/toy/fork", LONG)
        assert kind_of(await ask(app, "POST", "/agents/toy/fork", {**HELLO, "idempotencyKey": "new"}))[0] == 507

    in_world(main)


def test_attachments_weigh_on_the_store_and_not_on_the_log() -> None:
    """X7: content is kept once beside the logs; what refers to it is short."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        sent = await ask(app, "POST", PATH, {**HELLO, "attachments": [image(b"\x89PNG\r\n\x1a\n" + bytes(MB))]})
        assert sent.status == 202
        assert await log_bytes(app) < 10_000

    in_world(main)


def test_the_listing_of_a_store_shows_what_each_log_weighs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """L7: `cairn ls --json`, for whoever looks for what fills a disk."""
    from cairn import App
    from cairn.framework.cli import ls

    path = str(tmp_path / "cairn.db")

    async def main() -> int:
        async with App(agents=[toy()], store=path, serve=False) as app:
            await app.conversation("toy", "large").send(LONG)
            found = await app.store.instances()
            return found[0].bytes

    size = asyncio.run(main())
    assert ls.run(path, kind=None, limit=10, after=0, json=True) == 0
    [listed] = json.loads(capsys.readouterr().out)["instances"]
    assert listed["bytes"] == size > len(LONG)
