"""The page on a phone and on a desk, dark and light: nothing overflows, overlaps or is cut; the keyboard reaches all of it.

`CAIRN_TEST_SCREENSHOTS=<folder>` keeps the screenshots that each run makes, to be looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser.conftest import DESKTOP, PHONE, Gates, open_all, say, tabs
from tests.http.serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.system

SIZES = {"phone": PHONE, "desk": DESKTOP}

#: Elements that stick out of the window, or of the column they are in, where no ancestor lets one scroll to them.
STICKING_OUT = """
() => {
  const width = document.documentElement.clientWidth
  const scrolls = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { overflowX, position } = getComputedStyle(at)
      const isOwn = at.classList.contains('scroll') || at.tagName === 'BODY'
      if (!isOwn && (overflowX === 'auto' || overflowX === 'scroll' || overflowX === 'hidden')) return true
      if (position === 'fixed') return false
    }
    return false
  }
  return [...document.querySelectorAll('#root *')]
    .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest('.unseen, svg'))
    .filter((element) => {
      const box = element.getBoundingClientRect()
      return box.width > 0 && (box.left < -1 || box.right > width + 1) && !scrolls(element.parentElement)
    })
    .map((element) => element.outerHTML.slice(0, 120))
}
"""

#: Pairs of the page's fixed pieces that lie over each other.
OVERLAPPING = """
() => {
  const pieces = ['header', '.frame', '.composer'].map((selector) => document.querySelector(`main > ${selector}`))
  const boxes = pieces.map((piece) => piece.getBoundingClientRect())
  return boxes.slice(1).map((box, index) => box.top - boxes[index].bottom).filter((gap) => gap < -1)
}
"""

#: Text that is cut without an ellipsis, a scroll bar or a way to open it.
CUT_OFF = """
() => [...document.querySelectorAll('#root *')]
  .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest('.unseen, .sr-only'))
  .filter((element) => {
    const style = getComputedStyle(element)
    const isCut = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0
    const isKnown = style.textOverflow === 'ellipsis' || ['auto', 'scroll', 'visible'].includes(style.overflowX)
    return isCut && !isKnown && element.tagName !== 'TEXTAREA' && element.tagName !== 'SELECT'
  })
  .map((element) => element.outerHTML.slice(0, 120))
"""

SCROLLS_SIDEWAYS = """
() => [document.documentElement, document.querySelector('.scroll')]
  .filter((element) => element.scrollWidth > element.clientWidth)
  .map((element) => `${element.tagName}.${element.className}`)
"""

Look = Callable[[str], None]


@pytest.fixture(params=["phone", "desk"])
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(browser: Browser, server: Server, size: str, scheme: str) -> Iterator[Page]:
    options: dict[str, Any] = {"viewport": SIZES[size], "color_scheme": scheme, "has_touch": size == "phone"}
    with tabs(browser, server.url, **options) as opening:
        yield opening()


@pytest.fixture
def look(page: Page, size: str, scheme: str, tmp_path: Path) -> Look:
    """Take a screenshot under a name, and check that nothing overflows, overlaps or is cut."""
    folder = Path(os.environ.get("CAIRN_TEST_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def looking(name: str) -> None:
        page.screenshot(path=folder / f"{size}-{scheme}-{name}.png")
        assert page.evaluate(SCROLLS_SIDEWAYS) == []
        assert page.evaluate(STICKING_OUT) == []
        assert page.evaluate(OVERLAPPING) == []
        assert page.evaluate(CUT_OFF) == []

    return looking


def test_everything_fits(page: Page, look: Look, gates: Gates, size: str) -> None:
    """Empty, thinking and tools at work, a tool with an error, streaming, a long report, everything opened, the list, a
    failure, an abort, a refused send."""
    page.get_by_text("Write a message below").wait_for()
    look("1-empty")
    say(page, "slowly")
    page.locator("[data-state=running]").get_by_text("the first step").wait_for()
    look("2-tool-running")
    gates.open("first")
    gates.open("second")
    page.get_by_text("That took a while.").wait_for()
    say(page, "report")
    page.locator("[data-state=output-error]").wait_for()
    look("3-tool-error")
    page.get_by_text("What was found").wait_for()
    look("4-streaming")
    page.get_by_text("Nothing else was changed.").wait_for()
    page.get_by_role("button", name="Abort").wait_for(state="detached")
    look("5-report")
    open_all(page)
    page.locator("[data-state=output-error]").scroll_into_view_if_needed()
    look("6-opened")
    say(page, "fail")
    page.get_by_role("alert").wait_for()
    say(page, "stall")
    page.get_by_text("I begin, and then").wait_for()
    page.get_by_role("button", name="Abort").click()
    page.get_by_text("Aborted.").wait_for()
    page.route("**/agents/assistant/*", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    say(page, "a message that nobody gets, with a rather long text that is more than one line in the box on a phone")
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    look("7-notices")
    if size == "phone":
        page.get_by_role("button", name="Conversations").click()
        page.get_by_role("button", name="New conversation").wait_for()
        page.locator(".sidebar").evaluate("bar => Promise.all(bar.getAnimations().map((one) => one.finished))")
        look("8-list")


def test_long_words_and_hostile_text_fit(page: Page, look: Look) -> None:
    """Words without breaks, wide tables, HTML as text."""
    say(page, "hostile " + "w" * 400 + " " + "https://example.org/" + "path/" * 60)
    page.get_by_text("The end of it.").nth(1).wait_for()
    open_all(page)

    look("9-hostile")


@pytest.mark.parametrize(("size", "scheme"), [("desk", "light")], indirect=True)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: Page) -> None:
    """Each stop of the Tab key has a visible focus; a tool call opens with Enter."""
    say(page, "weather")
    page.get_by_text("It is fine in Oslo.").wait_for()
    page.get_by_role("button", name="Abort").wait_for(state="detached")
    page.get_by_label("Message", exact=True).fill("text")
    stops: list[str] = []
    focus = "() => [document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText.split('\\n')[0], "
    focus += "getComputedStyle(document.activeElement).outlineStyle]"

    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(focus)
        if page.evaluate("document.activeElement === document.body"):
            break
        assert outline != "none", name
        stops.append(name)

    assert {"Agent", "New conversation", "Conversation", "Attach images", "Message", "Send"} <= {name.strip() for name in stops}
    page.locator("[data-tool=weather] > summary").focus()
    page.keyboard.press("Enter")
    page.locator("[data-tool=weather][open]").wait_for()


@pytest.mark.parametrize(("size", "scheme"), [("phone", "dark")], indirect=True)
def test_on_a_phone_the_list_is_a_drawer(page: Page) -> None:
    """It is out of sight and out of the Tab order until it is opened, and closes with Escape, a choice, or beside it."""
    new = page.get_by_role("button", name="New conversation")
    burger = page.get_by_role("button", name="Conversations")
    assert not new.is_visible()

    burger.click()
    new.wait_for()
    page.keyboard.press("Escape")
    new.wait_for(state="hidden")
    burger.click()
    new.wait_for()
    page.mouse.click(350, 400)
    new.wait_for(state="hidden")
    burger.click()
    before = page.url
    new.click()
    new.wait_for(state="hidden")

    assert page.url != before
