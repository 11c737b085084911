"""The published `@flue/sdk` on a network that breaks off, at every place where it can."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.http.serving import serving
from tests.npm.judging import LONG, of, once, said, sound
from tests.npm.node import Node

pytestmark = pytest.mark.system


def test_a_connection_may_break_anywhere(node: Node, project: Path) -> None:
    """T17: S3, L5. 120 readers of one live text, whose connection breaks off at each boundary between two events, within
    each event, and within each long-poll answer, as an error or as an end: each has the history at its end, and has never
    shown a word twice."""
    with serving(project) as server:
        found = of(node.run("cut.mjs", server.url, project), "observers")

    for end in found["ends"]:
        sound(end)
        assert end["text"] == "Hello to you." + LONG
    cut = [end["cut"]["live"] for end in found["ends"] if end["was"]]
    assert cut.count("sse") >= 9 and cut.count("long-poll") >= 3, "hardly anything broke: this proves nothing"
    once(found["wait"]["events"])
    assert said(found["wait"]["events"]) == LONG
