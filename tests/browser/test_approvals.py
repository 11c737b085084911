"""The chat page, when a call waits for an answer: what is asked, and the two buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.browser.conftest import PHONE, Open, console_server, say, tabs

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.system


def test_a_call_is_approved_on_the_page(open_page: Open) -> None:
    """L5, X10: what would run is shown, with the reason, as text; the button lets it run; other tabs see who did."""
    page = open_page("/chat/assistant/approve-1")
    question = page.locator("[data-question=waiting]")

    say(page, "order")
    question.wait_for()
    call = page.locator("[data-tool=pay]")
    assert call.get_attribute("data-state") == "waiting"
    assert "300 is more than 100 <img src=x" in question.inner_text()
    assert "amount: 300" in call.locator("summary").inner_text()
    assert '"amount": 300' in call.locator("pre").inner_text()  # all that would run, without a click
    other = open_page("/chat/assistant/approve-1")
    other.locator("[data-question=waiting]").wait_for()
    question.get_by_role("button", name="Approve").click()
    page.get_by_text("That was the order.").wait_for()

    assert call.get_attribute("data-state") == "output-available"
    assert page.locator("[data-question=approved]").inner_text().startswith("Approved by ")
    other.locator("[data-question=approved]").wait_for()
    assert page.locator("[data-question=waiting]").count() == other.locator("[data-question=waiting]").count() == 0


def test_a_call_is_rejected_on_the_page_with_a_reason(open_page: Open) -> None:
    """F1: the agent is told why; the page shows it at the call."""
    page = open_page("/chat/assistant/reject-1")

    say(page, "order")
    page.get_by_role("button", name="Reject…").click()
    page.get_by_label("Reason").fill("far too dear")
    page.get_by_role("button", name="Reject", exact=True).click()
    page.get_by_text("That was the order.").wait_for()

    call = page.locator("[data-tool=pay]")
    assert call.get_attribute("data-state") == "output-error"
    assert "far too dear" in call.locator("summary").inner_text()
    assert page.locator("[data-question=rejected]").inner_text().startswith("Rejected by ")


def test_an_answer_that_comes_too_late_is_told_on_the_page(open_page: Open) -> None:
    """X10: two tabs, two answers: the second person reads why theirs does not count."""
    first = open_page("/chat/assistant/late-1")
    say(first, "order")
    first.locator("[data-question=waiting]").wait_for()
    url = first.evaluate("location.origin") + "/agents/assistant/late-1"
    # The second tab is cut off from what happens, and still shows the question.
    second = open_page("/chat/assistant/late-1")
    second.locator("[data-question=waiting]").wait_for()
    second.route(f"{url}?**", lambda route: route.abort())
    second.route(
        f"{url}/answers",
        lambda route: route.fulfill(
            status=409,
            json={"error": {"type": "answer_conflict", "message": "The answer does not count.", "details": "It was answered."}},
        ),
    )

    second.get_by_role("button", name="Approve").click()

    second.get_by_role("alert").get_by_text("The answer does not count.").wait_for()
    assert second.get_by_role("button", name="Approve").is_enabled()
    first.get_by_role("button", name="Approve").click()
    first.get_by_text("That was the order.").wait_for()


def test_a_question_fits_a_phone(browser: Browser, tmp_path: Path) -> None:
    """Its buttons can be reached, and nothing is wider than the screen."""
    with console_server(tmp_path) as server, tabs(browser, server.url, viewport=PHONE) as opening:
        page = opening("/chat/assistant/phone-1")
        say(page, "order")
        page.locator("[data-question=waiting]").wait_for()

        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.get_by_role("button", name="Approve").is_visible()
