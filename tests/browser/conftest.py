"""The chat page in a real Chromium, on a real `cairn serve`.

Laws. A test waits for what it wants to see, never for time. Whatever a test does, the page must raise no error, break no rule
of its own Content-Security-Policy, open no dialog, and ask nobody but its own server: each page is watched, and its end checks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.http.serving import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROJECT = Path(__file__).parent / "project"
TARGET = "console_app:app"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}


def chromium() -> str:
    """The browser's executable; skips where there is none."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install --no-install-recommends chromium fonts-dejavu-core")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module: Playwright keeps an event loop that other modules must not find running."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=arguments)
        yield instance
        instance.close()


@dataclass
class Gates:
    """Where a tool of the project waits until a test lets it go on."""

    folder: Path

    def open(self, name: str) -> None:
        (self.folder / name).touch()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One `cairn serve` of the project for the tests of a module."""
    with console_server(tmp_path_factory.mktemp("project")) as running:
        yield running


@pytest.fixture
def gates(server: Server) -> Gates:
    """The gates of the server's tools, all closed."""
    folder = server.project / "gates"
    for gate in folder.iterdir():
        gate.unlink()
    return Gates(folder)


@contextmanager
def console_server(folder: Path, **env: str) -> Iterator[Server]:
    """Started in a folder of its own, as a person's project would be."""
    shutil.copy(PROJECT / "console_app.py", folder)
    (folder / "gates").mkdir()
    with serving(folder, TARGET, env={"CAIRN_TEST_GATES": str(folder / "gates"), **env}) as running:
        yield running


@dataclass
class Watch:
    """What a page did that it must never do."""

    origin: str
    faults: list[str] = field(default_factory=list)

    def over(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda message: self._console(message.text))
        page.on("request", lambda request: self._request(request.url))
        page.on("popup", lambda popup: self.faults.append(f"window: {popup.url}"))

    def _console(self, text: str) -> None:
        if "Content Security Policy" in text or "Warning:" in text:
            self.faults.append(f"console: {text}")

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self.origin}/", "data:", f"blob:{self.origin}/")):
            self.faults.append(f"request: {url}")


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Open]:
    """Opens a tab at a path of the server, in one context a test: tabs share storage as those of one person."""
    with tabs(browser, server.url) as opening:
        yield opening


@contextmanager
def tabs(browser: Browser, origin: str, **options: Any) -> Iterator[Open]:
    """What `open_page` is, for a server and a browser context of a test's own. At its end no page has done wrong.
    `first` is the label of what a page begins with."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(20_000)
    watch = Watch(origin)

    def opening(path: str = "/chat/assistant", first: str = "Message") -> Page:
        page = context.new_page()
        watch.over(page)
        page.goto(origin + path)
        page.get_by_label(first, exact=True).wait_for()
        return page

    yield opening
    context.close()
    assert watch.faults == []


def open_all(page: Page) -> None:
    """Open every part of the transcript that is folded."""
    folded = page.locator(".column details:not([open]) > summary")
    while folded.count() > 0:
        folded.first.click()


def say(page: Page, text: str) -> None:
    """Type it and press Enter."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")
