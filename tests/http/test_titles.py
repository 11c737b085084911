"""What conversations are called in a list."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.http.calling import World, ask, in_world, send
from tests.http.following import PATH, toy
from tests.http.test_conversation import image

from cairn.errors import StoreCorrupt
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.titles import TITLE_CHARACTERS_MAX, Titles, shortened, title_of
from cairn.runtime.storage.store import InstanceRow


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("What is the weather?", "What is the weather?"),
        ("  What\n\tis \u2028 this?\r\n", "What is this?"),
        ("", ""),
        (" \n ", ""),
        ("a" * 80, "a" * 80),
        ("a" * 81, "a" * 79 + "…"),
        ("word " * 16 + "more", "word " * 15 + "word…"),
        ("x" * 75 + " and more", "x" * 75 + " and…"),
        ("\U0001f600" * 200, "\U0001f600" * 79 + "…"),
        (" " * 5_000 + "late", "late"),
        ("a" * 10_000_000, "a" * 79 + "…"),
    ],
)
def test_a_title_is_the_first_words_on_one_line(text: str, title: str) -> None:
    """A line in a list, whatever was sent."""
    assert shortened(text) == title
    assert len(title) <= TITLE_CHARACTERS_MAX and "\n" not in title


def test_a_title_is_found_among_whatever_else_a_batch_shows() -> None:
    """The first message's first text; chunks of other types have no words of anybody."""
    said = {"type": "message-appended", "message": {"parts": [{"type": "file"}, {"type": "text", "text": "Hi."}]}}
    lines = [b'{"type":"conversation-reset"}', json.dumps(said, separators=(",", ":")).encode()]
    assert title_of(b"\n".join(lines)) == "Hi."
    assert title_of(lines[0]) == title_of(b"") == ""


def test_a_list_shows_what_each_conversation_began_with() -> None:
    """The first message and no later one; a signal's words too; a fork is called as what it was forked from."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        await send(app, PATH, "First\nwords.")
        await send(app, PATH, "Later words.")
        await send(app, "/agents/toy/image", "", attachments=[image()])
        await ask(app, "POST", "/agents/toy/signal", {"kind": "signal", "type": "timer", "body": "It is noon."})
        await ask(app, "POST", f"{PATH}/fork", {"id": "fork"})
        await ask(app, "POST", f"{PATH}/fork", {"id": "empty", "offset": "0_0"})
        listed = (await ask(app, "GET", "/agents/toy")).json()["conversations"]
        titles = {each["id"]: each["title"] for each in listed}
        assert titles == {
            PATH.rpartition("/")[2]: "First words.",
            "image": "",
            "signal": "It is noon.",
            "fork": "First words.",
            "empty": "",
        }

    in_world(main)


class Reads:
    """A store's reads: how many at once, and how many in all."""

    def __init__(self, store: Any, damaged: int = -1) -> None:
        self._store = store
        self._damaged = damaged
        self.now = self.most = self.all = 0

    async def read(self, n: int, after: int, **bounds: int) -> Any:
        self.now += 1
        self.all += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if n == self._damaged:
            raise StoreCorrupt(f"instance {n} is damaged")
        return await self._store.read(n, after, **bounds)


async def numbered(world: World, count: int) -> list[InstanceRow]:
    """Conversations whose first messages say which they are."""
    app = await world.app(toy())
    for number in range(count):
        await send(app, f"/agents/toy/{number}", f"Number {number}.")
    return await world.store.instances()


def test_titles_are_read_once_and_a_few_at_a_time() -> None:
    """T17: a list that is asked for again costs no reads."""

    async def main(world: World) -> None:
        rows = await numbered(world, 10)
        reads = Reads(world.store)
        titles = Titles(reads, HttpLimits(title_reads_max=3))  # type: ignore[arg-type]
        for _ in range(2):
            assert await titles.of(rows) == [f"Number {number}." for number in range(10)]
        assert (reads.most, reads.all) == (3, 10)

    in_world(main)


def test_of_many_titles_the_longest_unasked_is_forgotten() -> None:
    """T17: what is remembered is bounded."""

    async def main(world: World) -> None:
        rows = await numbered(world, 3)
        reads = Reads(world.store)
        titles = Titles(reads, HttpLimits(titles_max=2))  # type: ignore[arg-type]
        for number, cost in ((0, 1), (1, 1), (0, 0), (2, 1), (0, 0), (1, 1), (0, 0), (2, 1)):
            before = reads.all
            assert await titles.of([rows[number]]) == [f"Number {number}."]
            assert reads.all - before == cost

    in_world(main)


def test_a_damaged_log_has_no_title_and_its_neighbours_are_listed() -> None:
    """S14: it is refused where it is read, and is not a reason to show nothing at all."""

    async def main(world: World) -> None:
        rows = await numbered(world, 3)
        reads = Reads(world.store, damaged=rows[1].n)
        assert await Titles(reads, HttpLimits()).of(rows) == ["Number 0.", "", "Number 2."]  # type: ignore[arg-type]

    in_world(main)
