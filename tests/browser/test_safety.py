"""X6 in the page: whatever a model, a tool, a file name or an attribute says is text; nothing of it runs, loads or leads away
unseen. Each test also ends with what `tabs` checks: no request to anybody else, no dialog, no error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.browser.conftest import Open, open_all, say
from tests.browser.test_chat import PNG
from tests.http.serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.system

PAYLOADS = (
    "<img src=x onerror=\"document.title='pwned'\">",
    "<script>document.title='pwned'</script>",
    '"><svg onload="document.title=\'pwned\'">',
    "javascript:document.title='pwned'",
    "<iframe srcdoc=\"<script>parent.document.title='pwned'</script>\"></iframe>",
    "{{constructor.constructor('document.title=1')()}}",
    "</textarea><img src=https://evil.example/x>",
    "]]><a href=https://evil.example ping=https://evil.example>x</a>",
)

#: What untrusted text must never have become, anywhere in the transcript or the list.
DANGEROUS = """
() => [...document.querySelectorAll('#root *')]
  .filter((element) => {
    const isForeign = element.matches('script, iframe, object, embed, style, link, base, meta, video, audio')
    const urls = ['href', 'src', 'action', 'formaction', 'xlink:href', 'ping', 'srcset']
    const handlers = [...element.attributes].some(
      ({ name, value }) =>
        name.startsWith('on') ||
        name === 'srcdoc' ||
        (urls.includes(name) && /^\\s*(javascript:|vbscript:|data:text)/i.test(value)),
    )
    const source = element.getAttribute('src') ?? ''
    const isInline = source === '' || source.startsWith('data:image/')
    const isOurs = isInline || new URL(source, location.href).origin === location.origin
    return isForeign || handlers || !isOurs
  })
  .map((element) => element.outerHTML)
"""


def assert_inert(page: Page) -> None:
    assert page.evaluate(DANGEROUS) == []
    assert "pwned" not in page.title()


def test_what_a_model_and_a_tool_say_is_inert(open_page: Open) -> None:
    """HTML, remote and inline images in every Markdown form, scripts in links, in text, thinking, tool names' inputs,
    outputs, errors and data parts: all of it is shown, none of it acts, also after a reload."""
    page = open_page()
    for _ in range(2):
        if page.locator(".said").count() == 0:
            say(page, "hostile")
        page.get_by_text("The end of it.").nth(1).wait_for()
        page.get_by_role("button", name="Abort").wait_for(state="detached")
        open_all(page)

        assert_inert(page)
        assert page.locator(".markdown img").count() == 0
        assert "<img src=x onerror=" in page.locator(".answer").first.inner_text()
        page.reload()
        page.get_by_text("The end of it.").nth(1).wait_for()


def test_a_link_says_where_it_leads_and_gives_nothing_away(open_page: Open) -> None:
    """A link that a model wrote shows its host, opens a window of its own, and passes on neither address nor window."""
    page = open_page()
    say(page, "report")
    link = page.get_by_role("link", name="the notes")
    link.wait_for()

    assert link.get_attribute("target") == "_blank"
    assert {"noopener", "noreferrer"} <= set((link.get_attribute("rel") or "").split())
    page.get_by_text("(example.org)").wait_for()


def test_names_and_attributes_are_inert(open_page: Open, server: Server) -> None:
    """A file's name, a signal's body and attributes, a person's message, and the title in the list."""
    page = open_page()
    files = [{"name": f"{payload}.png".replace("/", "_"), "mimeType": "image/png", "buffer": PNG} for payload in PAYLOADS]
    page.set_input_files("input[type=file]", files)
    page.locator(".images img").nth(len(PAYLOADS) - 1).wait_for()
    say(page, "say " + " ".join(PAYLOADS))
    page.get_by_text("It is said.").wait_for()
    for payload in PAYLOADS:
        signal = {"kind": "signal", "type": "note", "tagName": "note", "body": payload, "attributes": {"from": payload}}
        assert page.request.post(page.url.replace("/chat/", "/agents/"), data=signal).status == 202
    page.locator(".aside").nth(len(PAYLOADS) - 1).wait_for()
    open_all(page)

    assert_inert(page)
    for payload in PAYLOADS:
        assert payload in page.locator(".said").first.inner_text()
        assert page.locator(".aside").get_by_text(payload, exact=True).count() == 1
    page.reload()
    page.locator(".said img").nth(len(PAYLOADS) - 1).wait_for()
    assert_inert(page)
    assert page.locator(".sidebar").get_by_text("say <img").count() == 1


def test_the_address_is_inert(open_page: Open) -> None:
    """An agent's name and an id that somebody put into a link are text as well."""
    page = open_page("/chat/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E/%3Cscript%3Ealert(1)%3C%2Fscript%3E")

    page.get_by_role("heading", name="<img src=x onerror=alert(1)>").first.wait_for()
    assert_inert(page)


def test_the_page_cannot_be_framed_and_guards_itself(open_page: Open, server: Server) -> None:
    """The headers of X6, on the document and on what it loads."""
    page = open_page()
    document = page.request.get(f"{server.url}/chat/assistant/x")
    script = page.request.get(server.url + (page.locator("script[src]").get_attribute("src") or ""))

    for answer in (document, script):
        assert answer.status == 200
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
