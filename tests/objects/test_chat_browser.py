"""The published `useAgentChat`, unmodified, in a real Chromium, on a real `cairn serve`: what a person at a tab sees.

Laws. A test waits for what it wants to see, never for time. The page is an application's own: it is bundled from the packages
of the lock file, and asks nobody but the server. No tab may raise an error.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser.conftest import chromium
from tests.http.serving import Server, serving
from tests.npm.node import installed
from tests.objects.chat_project.app import LONG

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
HTML = """<!doctype html><meta charset="utf-8"><style>body{font:16px sans-serif;max-width:40em;margin:2em auto}
section{padding:.6em;margin:.4em 0;border-radius:.5em;background:#f3f3f0}section[data-role=user]{background:#dfe9f6}
.tool{border-left:3px solid #99a;padding-left:.6em;margin:.3em 0}button{margin:0 .3em}</style>
<div id="root"></div><script src="chat.js"></script>"""

PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page's script, as an application's bundler makes it."""
    packages, out = installed(), tmp_path_factory.mktemp("page") / "chat.js"
    done = subprocess.run(
        [
            packages / "node_modules" / ".bin" / "esbuild", HERE / "chat_page" / "chat.jsx", "--bundle", "--format=iife",
            "--jsx=automatic", f"--outfile={out}", "--define:process.env.NODE_ENV='production'", "--log-level=error",
        ],
        env={**os.environ, "NODE_PATH": str(packages / "node_modules")},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that lets a page which no server sent talk to one of this machine."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-features=LocalNetworkAccessChecks", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=arguments)
        yield instance
        instance.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(HERE / "chat_project" / "app.py", folder)
    (folder / "gates").mkdir()
    with serving(folder, "app:app") as running:
        yield running
        assert "Traceback" not in running.output


class Tab:
    """One tab with one conversation."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_function("window.chat !== undefined")

    def reload(self) -> None:
        self.page.reload()
        self.ready()

    def ask(self, text: str) -> None:
        self.page.fill("input", text)
        self.page.press("input", "Enter")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).last.click()

    def until(self, condition: str) -> None:
        """`last` is the last message, `text` its words."""
        given = "const last = chat.messages.at(-1), text = last?.parts.map(part => part.text ?? '').join('') ?? '';"
        self.page.wait_for_function(f"() => {{ {given} return ({condition}) }}")

    def answered(self, count: int, text: str) -> None:
        """So many messages, the last of which says this, and nothing runs."""
        quiet = "chat.status === 'ready' && !chat.isStreaming && !chat.isToolContinuation && last?.role === 'assistant'"
        try:
            self.until(f"chat.messages.length === {count} && {quiet} && text === {json.dumps(text)}")
        except Exception as error:
            raise AssertionError(f"it shows {self.page.evaluate('() => [chat.status, chat.messages]')}") from error

    @property
    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.page.evaluate("() => JSON.parse(JSON.stringify(chat.messages))")
        return found

    @property
    def texts(self) -> list[str]:
        return ["".join(part["text"] for part in each["parts"] if part["type"] == "text") for each in self.messages]

    @property
    def seen(self) -> list[str]:
        """The words of the last answer, render by render."""
        seen: list[list[str]] = self.page.evaluate("() => window.seen")
        return [text for id, text in seen if id == seen[-1][0]]

    def shown(self) -> str:
        """What stands in the document."""
        return self.page.inner_text("main")


@pytest.fixture
def context(browser: Browser, server: Server, bundle: str) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 900, "height": 700}) as made:
        made.route("**/an-application/*", lambda route: route.fulfill(
            body=bundle if route.request.url.endswith(".js") else HTML,
            content_type="text/javascript" if route.request.url.endswith(".js") else "text/html",
        ))  # fmt: skip
        made.on("weberror", lambda error: faults.append(str(error.error)))
        faults: list[str] = []
        yield made
        assert faults == []


@pytest.fixture
def opened(context: BrowserContext, server: Server) -> Any:
    def open(name: str) -> Tab:
        return Tab(context.new_page(), f"{server.url}/an-application/?name={name}")

    return open


def test_a_message_is_answered_in_every_tab(opened: Any, server: Server) -> None:
    """S3: as it is said, and to the same end; a tab that is opened later shows the same."""
    one, two = opened("tabs"), opened("tabs")
    one.ask("at length")
    two.until("text.length > 20 && chat.isStreaming")
    one.answered(2, LONG)
    two.answered(2, LONG)
    assert one.texts == two.texts == ["at length", LONG]
    for tab in (one, two):
        assert all(later.startswith(earlier) for earlier, later in pairwise(tab.seen)), "what was shown is never taken back"
        assert len(set(tab.seen)) > 5
    one.ask("think")
    three = opened("tabs")
    for tab in (one, two, three):
        tab.answered(4, "What is six times seven?Forty-two.")
        assert [part["type"] for part in tab.messages[3]["parts"]] == ["step-start", "reasoning", "text"]
    assert [turn["outcome"] for turn in one.page.evaluate("() => window.turns")] == ["completed", "completed"]


def test_an_answer_goes_on_where_a_tab_comes_back(opened: Any) -> None:
    """S3: reloaded in the middle, more than once."""
    one = opened("reload")
    one.ask("at length")
    for least in (20, 150):
        one.until(f"text.length > {least} && chat.isStreaming")
        one.reload()
    one.answered(2, LONG)


def test_an_answer_survives_kill_9_of_the_server_to_the_letter(opened: Any, server: Server) -> None:
    """S1, S3, L2: another process says the rest; nothing that was shown is taken back, nothing is said twice."""
    one, two = opened("killed"), opened("killed")
    one.ask("until killed")
    half = LONG[: len(LONG) // 2]
    for tab in (one, two):
        tab.until(f"text.length >= {len(half.encode('utf-16-le')) // 2}")
    server.kill()
    assert one.texts[-1] == two.texts[-1] == half
    server.restart()
    for tab in (one, two):
        tab.answered(2, LONG)
        assert all(later.startswith(earlier) or not later for earlier, later in pairwise(tab.seen))
    opened("killed").answered(2, LONG)


def test_an_answer_is_stopped_given_anew_and_cleared(opened: Any, server: Server) -> None:
    """S7: for every tab, and durably."""
    one, two = opened("changed"), opened("changed")
    one.ask("for ever")
    two.until("text === 'Let me think'")
    one.press("Stop")
    two.until("!chat.isStreaming && last?.parts.at(-1).state === 'done'")
    one.ask("count")
    one.answered(4, "Number 1.")
    one.press("Again")
    one.answered(4, "Number 2.")
    two.answered(4, "Number 2.")
    assert one.texts[:3] == two.texts[:3] == ["for ever", "Let me think", "count"]
    one.press("Clear")
    two.until("chat.messages.length === 0")
    one.ask("hello")
    two.answered(2, "Hello to you.")
    one.answered(2, "Hello to you.")
    one.reload()
    one.answered(2, "Hello to you.")


def test_a_call_is_approved_and_another_one_rejected(opened: Any, server: Server, tmp_path: Path) -> None:
    """S8: from the tab that asked, and from one that was opened when it was asked already; each runs as often as approved."""
    one, two = opened("approvals"), opened("approvals")
    one.ask("remove a.txt")
    for tab in (one, two):
        tab.until("last?.parts.some(part => part.state === 'approval-requested') && chat.status === 'ready'")
    one.page.screenshot(path=os.environ.get("CAIRN_TEST_SCREENSHOT", tmp_path / "asked.png"))
    one.press("Approve")
    for tab in (one, two):
        tab.answered(2, "Shall I? Done: removed a.txt")
    two.ask("remove b.txt")
    two.until("last?.parts.some(part => part.state === 'approval-requested') && chat.status === 'ready'")
    three = opened("approvals")
    three.press("Reject")
    for tab in (one, two, three):
        tab.answered(4, "Shall I? Done: This call was not run: it was rejected.")
        assert "remove: output-denied" in tab.shown()
    assert (server.project / "effects").read_text() == "removed a.txt\n"


def test_a_call_is_carried_out_by_the_tab(opened: Any) -> None:
    """S9: a tool the page declares runs there; the answer goes on in the same message."""
    one = opened("places")
    one.ask("where")
    one.answered(2, 'Done: {"city":"Oslo"}')
    (call,) = [part for part in one.messages[-1]["parts"] if part["type"] == "tool-where"]
    assert (call["state"], call["input"], call["output"]) == ("output-available", {"precise": True}, {"city": "Oslo"})


def test_a_question_survives_kill_9(opened: Any, server: Server) -> None:
    """S8: it waits in the log, and no process has to be there; approved after, it runs once."""
    one = opened("parked")
    one.ask("remove c.txt")
    one.until("last?.parts.some(part => part.state === 'approval-requested') && chat.status === 'ready'")
    server.kill()
    server.restart()
    one.reload()
    one.press("Approve")
    one.answered(2, "Shall I? Done: removed c.txt")
    assert (server.project / "effects").read_text().count("removed c.txt") == 1


def test_a_failure_is_shown_and_still_is_after_a_reload(opened: Any) -> None:
    one = opened("failure")
    one.ask("fail")
    for _ in range(2):
        one.until("chat.status === 'error' && chat.error.message === 'the model refuses this' && text === 'I was about to'")
        one.reload()
    one.until("chat.status === 'error'")
    one.ask("hello")
    one.answered(4, "Hello to you.")


def test_what_is_sent_by_a_program_is_shown_live(opened: Any, server: Server) -> None:
    """S3: tools and data too; what is sent meanwhile joins the answer."""
    import httpx

    one = opened("program")
    httpx.post(f"{server.url}/agents/clerk/program", json={"kind": "user", "body": "hold"}).raise_for_status()
    one.until("last?.parts.some(part => part.type === 'data-map')")
    assert "hold: input-available" in one.shown() and '{"zoom":2}' in one.shown()
    (server.project / "gates" / "hold").touch()
    one.answered(2, "One moment. Done: let through")
