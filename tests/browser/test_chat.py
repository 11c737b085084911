"""The chat page as a person uses it: text, tools, images, aborting, several tabs, the list of conversations."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from tests.browser.conftest import Gates, Open, console_server, say, tabs

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.system

STREAMED = " ".join(f"word{number}" for number in range(60)) + "."
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mNk+M9Qz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
)

#: Notes each length the last answer has while it grows.
WATCH_GROWTH = """
() => {
  window.lengths = []
  new MutationObserver(() => {
    const answer = [...document.querySelectorAll('.answer .markdown')].at(-1)
    if (answer) window.lengths.push(answer.innerText.length)
  }).observe(document.body, { subtree: true, childList: true, characterData: true })
}
"""


def answer(page: Page) -> str:
    return page.locator(".answer .markdown").last.inner_text()


def test_text_is_seen_as_it_streams(open_page: Open) -> None:
    """The words of a person are there at once, those of the model grow in steps, and the end is the whole text."""
    page = open_page()
    page.evaluate(WATCH_GROWTH)

    say(page, "stream")
    page.get_by_text("word59.").wait_for()

    lengths = page.evaluate("window.lengths")
    assert len(set(lengths)) >= 5
    assert lengths == sorted(lengths)
    assert answer(page) == STREAMED
    assert page.get_by_label("Message", exact=True).input_value() == ""


def test_thinking_can_be_folded(open_page: Open) -> None:
    """What a model thought is folded once it has answered, and opens on a click."""
    page = open_page()

    say(page, "think")
    page.get_by_text("I thought about it.").wait_for()
    page.locator(".thinking:not([open])").wait_for()
    page.get_by_text("Thought", exact=True).click()

    page.get_by_text("I should look at the log first").wait_for()


def test_a_tool_call_shows_what_it_was_given_and_what_it_gave(open_page: Open) -> None:
    """A call is one line with its name and input; opened, it shows input and output. What the tool showed has a card."""
    page = open_page()

    say(page, "weather")
    page.get_by_text("It is fine in Oslo.").wait_for()
    call = page.locator("[data-tool=weather]")

    assert call.get_attribute("data-state") == "output-available"
    assert "city: Oslo" in call.locator("summary").inner_text()
    assert '"days"' in page.locator("[data-name=forecast]").inner_text()
    call.locator("summary").click()
    shown = call.inner_text()
    assert '"city": "Oslo"' in shown
    assert '"celsius": 7' in shown


def test_a_running_tool_says_how_far_it_is(open_page: Open, gates: Gates) -> None:
    """Progress replaces progress while the call runs, and is gone when it has its result."""
    page = open_page()
    call = page.locator("[data-tool=slowly]")

    say(page, "slowly")
    call.get_by_text("the first step of two").wait_for()
    assert call.get_attribute("data-state") == "running"
    gates.open("first")
    call.get_by_text("the second step of two").wait_for()
    assert "first" not in call.inner_text()
    gates.open("second")
    page.get_by_text("That took a while.").wait_for()

    assert call.get_attribute("data-state") == "output-available"
    assert "step of two" not in call.inner_text()


def test_a_tool_that_failed_says_why_without_being_opened(open_page: Open) -> None:
    page = open_page()

    say(page, "break")
    page.get_by_text("It did not work.").wait_for()
    call = page.locator("[data-tool=breaks]")

    assert call.get_attribute("data-state") == "output-error"
    assert "permission denied" in call.locator("summary").inner_text()


def test_an_answer_that_failed_is_told(open_page: Open) -> None:
    """A provider's failure is a notice with its words, and the next message is answered."""
    page = open_page()

    say(page, "fail")
    page.get_by_role("alert").get_by_text("no such model").wait_for()
    say(page, "say")

    page.get_by_text("It is said.").wait_for()


@pytest.mark.parametrize("how", ["button", "escape"])
def test_a_running_answer_can_be_aborted(open_page: Open, how: str) -> None:
    """Aborting is there while an answer runs and not before or after; what was said stays; the next message is answered."""
    page = open_page()
    button = page.get_by_role("button", name="Abort")
    assert not button.is_visible()

    say(page, "stall")
    page.get_by_text("I begin, and then").wait_for()
    if how == "button":
        button.click()
    else:
        page.get_by_label("Message", exact=True).press("Escape")
    page.get_by_text("Aborted.").wait_for()
    button.wait_for(state="detached")

    assert page.get_by_text("I begin, and then").is_visible()
    say(page, "say")
    page.get_by_text("It is said.").wait_for()


def test_a_reload_finds_the_history(open_page: Open) -> None:
    """What was said and answered, tools included, is there again under the same address."""
    page = open_page()
    say(page, "weather")
    page.get_by_text("It is fine in Oslo.").wait_for()
    page.get_by_role("button", name="Abort").wait_for(state="detached")
    before = page.locator(".column").inner_text()

    page.reload()
    page.get_by_text("It is fine in Oslo.").wait_for()

    assert page.locator(".column").inner_text() == before


def test_two_tabs_show_one_conversation(open_page: Open) -> None:
    """A tab that waits for a conversation sees it begin in another, follows it live, and can abort it."""
    first = open_page()
    second = open_page(first.evaluate("location.pathname"))

    say(first, "stall")
    second.get_by_text("I begin, and then").wait_for()
    second.get_by_role("button", name="Abort").click()
    first.get_by_text("Aborted.").wait_for()
    say(second, "stream")

    first.get_by_text("word59.").wait_for()
    second.get_by_text("word59.").wait_for()
    assert first.locator(".column").inner_text() == second.locator(".column").inner_text()


def test_a_draft_outlives_a_reload_and_shift_enter_begins_a_line(open_page: Open) -> None:
    page = open_page()
    box = page.get_by_label("Message", exact=True)

    box.fill("say")
    box.press("Shift+Enter")
    box.type("two lines")
    page.reload()
    page.get_by_text("Write a message below").wait_for()

    assert box.input_value() == "say\ntwo lines"
    assert page.locator(".said").count() == 0


def test_a_send_that_failed_keeps_the_text(open_page: Open) -> None:
    """A refusal is told in the server's words, and text and image are in the box again."""
    page = open_page()
    refusal = {"error": {"type": "too_many_requests", "message": "Too many requests.", "details": "Wait a minute."}}
    page.route("**/agents/assistant/*", lambda route: _refused(route, refusal))
    page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": PNG})
    page.locator(".images img").wait_for()

    say(page, "say this again")
    page.get_by_role("alert").get_by_text("Too many requests. Wait a minute.").wait_for()

    assert page.get_by_label("Message", exact=True).input_value() == "say this again"
    assert page.locator(".images img").count() == 1
    assert page.locator(".said").count() == 0
    page.unroute("**/agents/assistant/*")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("It is said.").wait_for()
    assert page.locator(".said").count() == 1


def _refused(route: Route, body: dict[str, object]) -> None:
    if route.request.method == "POST":
        route.fulfill(status=422, json=body)
    else:
        route.continue_()


def test_a_message_whose_receipt_was_lost_is_sent_again_once(open_page: Open) -> None:
    """The server took the message, the answer to that never came: sent again it is the same submission (S6)."""
    page = open_page()
    lost: list[int] = []

    def lose(route: Route) -> None:
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch().status)
            route.abort()
        else:
            route.continue_()

    page.route("**/agents/assistant/*", lose)
    say(page, "say it once")
    page.get_by_role("alert").wait_for()
    page.get_by_role("button", name="Send").click()
    page.get_by_text("It is said.").wait_for()
    page.reload()
    page.get_by_text("It is said.").wait_for()

    assert lost == [202]
    assert page.locator(".said").count() == 1
    assert page.locator(".answer").count() == 1


@pytest.mark.parametrize("way", ["button", "paste", "drop"])
def test_images_are_attached_and_shown(open_page: Open, way: str) -> None:
    """Chosen, pasted or dropped, an image is previewed, sent, and shown from the server after a reload."""
    page = open_page()
    attach(page, way)
    page.locator(".images img").wait_for()

    say(page, "say something about it")
    page.get_by_text("It is said.").wait_for()
    page.reload()
    image = page.locator(".said img")
    image.wait_for()

    assert "/attachments/" in (image.get_attribute("src") or "")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 10


def attach(page: Page, way: str) -> None:
    if way == "button":
        page.set_input_files("input[type=file]", {"name": "dot.png", "mimeType": "image/png", "buffer": PNG})
        return
    event = {"paste": ("ClipboardEvent", "clipboardData", "textarea"), "drop": ("DragEvent", "dataTransfer", "form")}[way]
    page.evaluate(
        """([name, field, target, way, data]) => {
          const files = new DataTransfer()
          const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0))
          files.items.add(new File([bytes], 'dot.png', { type: 'image/png' }))
          const event = new window[name](way, { bubbles: true, cancelable: true, [field]: files })
          document.querySelector(`.composer ${target === 'form' ? '' : target}`.trim()).dispatchEvent(event)
        }""",
        [*event, way, base64.b64encode(PNG).decode()],
    )


def test_what_is_no_image_is_refused_with_a_reason(open_page: Open) -> None:
    page = open_page()

    page.set_input_files("input[type=file]", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"})

    page.get_by_role("alert").get_by_text("notes.txt is not a PNG, JPEG, GIF or WebP image.").wait_for()


def test_conversations_are_listed_and_agents_switched(open_page: Open) -> None:
    """A new conversation has its own address, the list leads back to the old one, and so does the browser's button."""
    page = open_page()
    say(page, "say hello to the list")
    page.get_by_text("It is said.").wait_for()
    old = page.url

    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("Write a message below").wait_for()
    assert page.url != old
    page.get_by_role("link", name="say hello to the list").click()
    page.get_by_text("It is said.").wait_for()
    assert page.url == old

    page.get_by_label("Agent").select_option("other")
    page.get_by_role("heading", name="other").first.wait_for()
    assert "/chat/other/" in page.url
    page.go_back()
    page.get_by_text("It is said.").wait_for()


def test_an_id_may_be_any_text(open_page: Open) -> None:
    """An id with slashes, spaces and signs is one segment of the address, and its conversation is found again."""
    page = open_page("/chat/assistant/a%2Fb%20%C3%A9%3F%23%25")

    say(page, "say")
    page.get_by_text("It is said.").wait_for()
    page.reload()

    page.get_by_text("It is said.").wait_for()
    assert page.get_by_role("link", name="say").first.get_attribute("href") == "/chat/assistant/a%2Fb%20%C3%A9%3F%23%25"


def test_a_reader_who_scrolled_up_is_left_alone(open_page: Open) -> None:
    """New text moves the page only for who is at its end; a button leads there."""
    page = open_page()
    say(page, "long")
    page.get_by_text("Line 59").wait_for()
    page.get_by_role("button", name="Abort").wait_for(state="detached")
    log = page.get_by_role("log")
    at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 2"
    assert log.evaluate(at_end)

    log.evaluate("log => log.scrollTo(0, 0)")
    page.get_by_role("button", name="Go to the end").wait_for()
    page.request.post(page.url.replace("/chat/", "/agents/"), data={"kind": "user", "body": "say from elsewhere"})
    page.get_by_text("It is said.").wait_for(state="attached")
    assert log.evaluate("log => log.scrollTop") == 0

    page.get_by_role("button", name="Go to the end").click()
    assert log.evaluate(at_end)


def test_a_long_conversation_shows_its_end_first(open_page: Open) -> None:
    """A page draws the last hundred messages, and earlier ones when it is asked to."""
    page = open_page()
    log = page.get_by_role("log")
    for number in range(120):
        body = {"kind": "user", "body": f"say {number}"}
        assert page.request.post(page.url.replace("/chat/", "/agents/"), data=body).status == 202
    page.reload()
    page.get_by_text("say 119", exact=True).wait_for()
    page.get_by_role("button", name="Abort").wait_for(state="detached")

    assert page.locator("article").count() == 100
    assert log.get_by_text("say 0", exact=True).count() == 0
    while page.get_by_role("button", name="Show earlier messages").count() > 0:
        page.get_by_role("button", name="Show earlier messages").click()
    log.get_by_text("say 0", exact=True).wait_for()
    assert page.locator("article.said").count() == 120


def test_an_agent_that_is_not_there_is_said(open_page: Open) -> None:
    """An old address tells what is wrong and leads to the agents there are."""
    page = open_page("/chat/gone/some-id")

    page.get_by_text("This server has no agent of the name “gone”.").wait_for()
    page.get_by_label("Agent").select_option("assistant")
    page.get_by_text("Does what the first word of a message says.").wait_for()


def test_a_token_is_asked_for_once(browser: Browser, tmp_path: Path) -> None:
    """A server that wants a token gets it with every request, images included; a wrong one is asked for again."""
    with console_server(tmp_path, CAIRN_TEST_TOKEN="sesame") as server, tabs(browser, server.url) as opening:
        page = opening("/", first="Token")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Continue").click()
        page.get_by_text("was not accepted").wait_for()
        page.get_by_label("Token").fill("sesame")
        page.get_by_role("button", name="Continue").click()
        page.get_by_label("Message", exact=True).wait_for()

        attach(page, "button")
        page.locator(".images img").wait_for()
        say(page, "say")
        page.get_by_text("It is said.").wait_for()
        page.reload()
        page.get_by_text("It is said.").wait_for()

        image = page.locator(".said img")
        assert (image.get_attribute("src") or "").startswith("blob:")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 10
