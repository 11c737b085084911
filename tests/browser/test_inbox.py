"""The page's view of what waits everywhere: agents' calls and what objects ask, with the buttons, and a count in the list."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest
from tests.browser.conftest import DESKTOP, PHONE, Open, console_server, say, tabs

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser
    from tests.http.serving import Server

pytestmark = pytest.mark.system

VIEW, LABEL = "/chat?view=approvals", "What waits for an answer"


def begin(server: Server, path: str) -> None:
    """An object begins to ask."""
    with urlopen(Request(f"{server.url}/agents/errands/{path}", data=b"", method="POST")):
        pass


def waiting(server: Server) -> list[str]:
    with urlopen(f"{server.url}/questions") as answer:
        return [f"{each['instance']['kind']}/{each['instance']['id']}" for each in json.load(answer)["questions"]]


def test_what_waits_everywhere_is_answered_on_one_page(browser: Browser, tmp_path: Path) -> None:
    """X10, L5: a call of an agent's and what objects ask stand together, as text; each is answered where it stands, and is
    gone; what comes later appears by itself; the count says how many."""
    with console_server(tmp_path) as server, tabs(browser, server.url) as opening:
        chat = opening("/chat/assistant/inbox-1")
        say(chat, "order")
        chat.locator("[data-question=waiting]").wait_for()
        chat.locator("[data-count='1']").wait_for()  # of its own; of others it is told when somebody looks
        begin(server, "1/send")
        chat.get_by_role("link", name="Approvals").click()
        agents, objects = (chat.locator(f"[data-instance='{each}']") for each in ("assistant/inbox-1", "errands/1"))
        agents.wait_for()
        objects.wait_for()
        assert '"amount": 300' in agents.locator("pre").inner_text()
        assert '"to": "Oslo"' in objects.locator("pre").inner_text() and "<img src=x" in objects.locator("pre").inner_text()
        chat.locator("[data-count='2']").wait_for()

        objects.get_by_role("button", name="Reject…").click()
        objects.get_by_label("Reason").fill("far too far")
        objects.get_by_role("button", name="Reject", exact=True).click()
        objects.wait_for(state="detached")
        begin(server, "2/paint")
        painter = chat.locator("[data-instance='errands/2']")
        painter.get_by_label("Answer", exact=True).fill("blue")
        painter.get_by_role("button", name="Answer", exact=True).click()
        painter.wait_for(state="detached")
        agents.get_by_role("button", name="Approve").click()
        chat.get_by_text("Nothing waits for an answer.").wait_for()
        assert waiting(server) == [] and chat.locator("[data-count]").count() == 0

        chat.go_back()
        chat.get_by_text("That was the order.").wait_for()
        assert chat.url.endswith("/chat/assistant/inbox-1")


def test_what_a_program_asks_is_answered_in_its_conversation(open_page: Open) -> None:
    """X10, L5: the function and its arguments are shown, with the buttons, like a call of the model's."""
    page = open_page("/chat/coder/program-1")
    say(page, "Pay.")
    asks = page.locator("[data-program-asks=transfer]")
    asks.locator("[data-question=waiting]").wait_for()
    assert '"amount": 300' in asks.locator("pre").inner_text() and "much money" in asks.inner_text()

    asks.get_by_role("button", name="Approve").click()
    page.get_by_text("It is paid.").wait_for()

    assert asks.locator("[data-question=approved]").inner_text().startswith("Approved by ")


def test_an_answer_that_was_given_elsewhere_is_told(open_page: Open, server: Server) -> None:
    """X10: two people at two pages: the second reads that the first has answered."""
    begin(server, "late/send")
    one, two = open_page(VIEW, LABEL), open_page(VIEW, LABEL)
    for page in (one, two):
        page.locator("[data-instance='errands/late']").wait_for()
    two.route("**/questions", lambda route: route.abort())
    one.locator("[data-instance='errands/late']").get_by_role("button", name="Approve").click()
    one.locator("[data-instance='errands/late']").wait_for(state="detached")

    late = two.locator("[data-instance='errands/late']")
    late.get_by_role("button", name="Reject…").click()
    late.get_by_role("button", name="Reject", exact=True).click()

    late.get_by_role("alert").wait_for()
    assert "answered otherwise" in late.get_by_role("alert").inner_text()


def test_nothing_is_polled_unless_the_view_is_open(open_page: Open) -> None:
    """A conversation's page asks once; what is asked for again and again is only asked while somebody reads it."""
    page = open_page("/chat/assistant/quiet-1")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/questions") else None)

    page.clock.install()
    page.clock.run_for(60_000)
    assert len(asked) <= 1  # the one of its beginning may be on its way
    page.get_by_role("link", name="Approvals").click()
    page.get_by_role("heading", name="Approvals").wait_for()
    for _ in range(3):
        with page.expect_request("**/questions"):
            page.clock.run_for(3_100)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_view_fits_the_screen(browser: Browser, tmp_path: Path, viewport: dict[str, int]) -> None:
    """Its buttons can be reached, and nothing is wider than the screen."""
    with console_server(tmp_path) as server, tabs(browser, server.url, viewport=viewport) as opening:
        begin(server, "a-rather-long-name-of-an-errand-that-somebody-has-given-to-it/send")
        begin(server, "2/paint")
        page = opening("/chat/assistant/fits-1")
        say(page, "order")
        page.locator("[data-question=waiting]").wait_for()
        page.goto(server.url + VIEW)
        page.locator("[data-instance='assistant/fits-1']").wait_for()

        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.get_by_role("button", name="Approve").first.is_visible()
        page.screenshot(path=tmp_path / "view.png")
