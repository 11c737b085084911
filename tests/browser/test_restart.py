"""The page outlives its server: nothing is lost, nothing is doubled, nobody has to reload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from tests.browser.conftest import Gates, Open, console_server, say, tabs
from tests.http.serving import Server

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.system

COUNTED = " ".join(f"n{number}" for number in range(150)) + " end"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may kill."""
    with console_server(tmp_path) as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Open]:
    with tabs(browser, server.url) as opening:
        yield opening


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_stream_goes_on_after_the_server_died_under_it(open_page: Open, server: Server, end: str) -> None:
    """kill -9 or SIGTERM in the middle of a text, then a new process on the same store: the same page shows the rest, each
    word once, and says meanwhile that it is reconnecting (P1)."""
    page = open_page()
    marked = page.evaluate("window.isTheSamePage = true")
    say(page, "count")
    page.get_by_text("n20 ").wait_for()

    server.kill() if end == "kill" else server.stop()
    page.get_by_text("Reconnecting…").wait_for()
    server.restart()
    page.get_by_text("n149 end").wait_for()
    page.get_by_role("button", name="Abort").wait_for(state="detached")

    assert marked is page.evaluate("window.isTheSamePage")
    assert page.locator(".answer .markdown").all_inner_texts() == [COUNTED]
    assert page.locator(".said").count() == 1
    assert page.get_by_text("Reconnecting…").count() == 0
    page.reload()
    page.get_by_text("n149 end").wait_for()
    assert "".join(page.locator(".answer .markdown").all_inner_texts()) == COUNTED


def test_a_tool_that_ran_when_the_server_died_comes_to_an_end(open_page: Open, server: Server, gates: Gates) -> None:
    """A call that may be repeated is, and the page shows one call with its result."""
    page = open_page()
    say(page, "slowly")
    page.get_by_text("the first step of two").wait_for()

    server.kill()
    gates.open("first")
    gates.open("second")
    server.restart()
    page.get_by_text("That took a while.").wait_for()

    assert page.locator("[data-tool=slowly]").count() == 1
    assert page.locator("[data-tool=slowly]").get_attribute("data-state") == "output-available"


def test_a_message_sent_to_nobody_stays_in_the_box(open_page: Open, server: Server) -> None:
    """With the server gone a send is refused at once; when it is back, the same text goes through, and once."""
    page = open_page()
    say(page, "say the first")
    page.get_by_text("It is said.").wait_for()

    server.kill()
    say(page, "say the second")
    page.get_by_role("alert").get_by_text("The server does not answer.").wait_for()
    assert page.get_by_label("Message", exact=True).input_value() == "say the second"
    server.restart()
    page.get_by_text("Reconnecting…").wait_for(state="detached")
    page.get_by_role("button", name="Send").click()
    page.locator(".answer").nth(1).wait_for()

    assert page.locator(".said").all_inner_texts() == ["You\nsay the first", "You\nsay the second"]
    assert page.get_by_role("alert").count() == 0


def test_a_reconnect_reads_only_what_is_new(open_page: Open, server: Server) -> None:
    """After a restart the page asks for what follows its last offset; the history is not loaded again."""
    page = open_page()
    say(page, "say something")
    page.get_by_text("It is said.").wait_for()
    page.get_by_role("button", name="Abort").wait_for(state="detached")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    server.kill()
    page.get_by_text("Reconnecting…").wait_for()
    server.restart()
    page.get_by_text("Reconnecting…").wait_for(state="detached")
    say(page, "say more")
    page.locator(".answer").nth(1).wait_for()

    assert any("view=updates" in url for url in asked)
    assert not any("view=history" in url for url in asked)
