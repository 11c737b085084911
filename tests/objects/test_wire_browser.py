"""The published `useAgent`, unmodified, in a real Chromium, on a real `cairn serve`: what a person at a tab sees.

Method: the page is an application's own, bundled from the packages of the lock file, and is served by an object. A test waits
for what it wants to see, never for time. No tab may raise an error.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser.conftest import chromium
from tests.http.serving import CAIRN, Server, serving
from tests.npm.node import installed
from tests.objects.test_wire_npm import folder_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
TARGET = "page_app:app"
PATIENCE_MS = 20_000

SITE = """
from dataclasses import dataclass
from pathlib import Path

from cairn import App, Tokens
from cairn.runtime import DurableObject
from cairn.runtime.request import Request, Response
from rooms import CLASSES

POLICY = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src *"
TYPES = {".js": "text/javascript", ".html": "text/html; charset=utf-8"}

@dataclass
class Nothing:
    pass

class Site(DurableObject[Nothing]):
    async def on_request(self, request: Request) -> Response:
        file = Path("page") / ("room.js" if request.path == "/room.js" else "index.html")
        return Response(file.read_bytes(), 200, (("content-type", TYPES[file.suffix]), ("content-security-policy", POLICY)))

app = App(objects=[*CLASSES, Site])
guarded = App(objects=CLASSES, auth=Tokens(), cors=["http://127.0.0.1:*"])
closed = App(objects=CLASSES)
"""

HTML = """<!doctype html><meta charset="utf-8"><title>Room</title><link rel="icon" href="data:,"><style>
body{font:16px sans-serif;max-width:42em;margin:2em auto}small{font-weight:normal;color:#667}output{display:block;padding:.6em;
background:#f3f3f0;border-radius:.5em;font-family:monospace}button{margin-right:.4em}</style>
<div id="root"></div><script src="room.js"></script>"""


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with its page, bundled as an application would."""
    packages, folder = installed(), folder_of(tmp_path_factory.mktemp("site"))
    (folder / "page").mkdir()
    done = subprocess.run(
        [
            packages / "node_modules" / ".bin" / "esbuild", HERE / "room_page" / "room.jsx", "--bundle", "--format=iife",
            "--jsx=automatic", f"--outfile={folder / 'page' / 'room.js'}", "--define:process.env.NODE_ENV='production'",
            "--log-level=error",
        ],
        env={**os.environ, "NODE_PATH": str(packages / "node_modules")},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "page" / "index.html").write_text(HTML)
    (folder / "page_app.py").write_text(SITE)
    return folder


@pytest.fixture(scope="module")
def server(page_folder: Path) -> Iterator[Server]:
    with serving(page_folder, TARGET) as running:
        yield running
        assert "Traceback" not in running.output


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of this module."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-features=LocalNetworkAccessChecks", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=arguments)
        yield instance
        instance.close()


Open = Callable[..., "Tab"]


class Tab:
    """One tab with one room."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @property
    def state(self) -> Any:
        return json.loads(self.page.get_by_test_id("state").inner_text())

    @property
    def said(self) -> list[str]:
        return self.page.get_by_test_id("said").locator("li").all_inner_texts()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def until_state(self, **fields: Any) -> None:
        for name, value in fields.items():
            self.page.wait_for_function(
                "([name, value]) => JSON.stringify(JSON.parse(document.querySelector('output').textContent)?.[name]) === value",
                arg=[name, json.dumps(value, separators=(",", ":"))],
            )

    def until_said(self, text: str) -> None:
        self.page.get_by_test_id("said").get_by_text(re.compile(f"^{re.escape(text)}")).first.wait_for()

    def until_is(self, word: str) -> None:
        self.page.get_by_test_id("is").get_by_text(word, exact=True).wait_for()


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[Open]:
    """Opens a tab with the room these parameters name; at the end none has raised an error."""
    context = browser.new_context(viewport={"width": 900, "height": 500})
    context.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []

    def opening(**given: str) -> Tab:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        query = "&".join(f"{name}={value}" for name, value in given.items())
        page.goto(f"{server.url}/agents/site/page/index.html?{query}")
        page.get_by_test_id("is").wait_for()
        return Tab(page)

    yield opening
    context.close()
    assert faults == []


def test_two_tabs_share_a_room(open_tab: Open) -> None:
    """State set in one is seen in the other, whoever sets it; calls, streams, errors and messages are as under Node."""
    one, two = open_tab(name="shared"), open_tab(name="shared")
    one.until_state(count=0)
    two.until_state(count=0)

    one.press("Add")
    two.until_state(count=1)
    two.press("Sign")
    one.until_state(names=["me"])
    one.press("Fail")
    one.until_said("fail failed: no such luck")
    one.press("Count")
    one.until_said("counted 0 1 2 3")
    one.press("Greet")
    two.until_said("local: hello")
    two.press("Spoil")
    two.until_said("refused: State update rejected")

    assert one.state == {"count": 1, "names": ["me"]}
    assert "add: 1" in one.said and "local: hello" not in one.said
    assert one.page.get_by_role("heading").inner_text().startswith("room / shared")


def test_a_reader_is_told_that_it_is_one(open_tab: Open) -> None:
    hall = open_tab(agent="Hall", name="read")
    hall.until_state(count=0)
    hall.press("Sign")
    hall.until_said("refused: Connection is readonly")


def test_a_sub_object_is_a_room_of_its_own(open_tab: Open) -> None:
    """`useAgent({ sub })` reaches what is there, and stops where nothing is."""
    room = open_tab(name="parent")
    room.until_state(count=0)
    room.page.evaluate("() => room.call('greet', ['a/ä'])")
    desk = open_tab(name="parent", sub="a%2F%C3%A4")
    desk.until_state(notes=["made"])
    assert desk.page.get_by_role("heading").inner_text().startswith("desk / a/ä")
    missing = open_tab(name="parent", sub="missing")
    missing.until_said("over: 1008")


def test_tabs_come_through_kill_9(open_tab: Open, server: Server) -> None:
    """S1, L2: what was seen stays seen; what is pressed while there is no server is done once when there is one."""
    one, two = open_tab(name="killed"), open_tab(name="killed")
    one.press("Add")
    two.until_state(count=1)
    server.kill()
    one.until_is("closed")
    two.until_is("closed")
    one.press("Add")
    server.restart()
    one.until_is("open")
    two.until_is("open")
    one.until_state(count=2)
    two.until_state(count=2)
    assert one.said.count("add: 2") == 1


def test_a_page_of_another_origin_needs_to_be_allowed(open_tab: Open, page_folder: Path) -> None:
    """X6: by a server that allows it, it is let in with a token as a subprotocol; by one that does not, never."""
    store = page_folder / "guarded" / "cairn.db"
    with (
        serving(page_folder, "page_app:guarded", store=store) as guarded,
        serving(page_folder, "page_app:closed", store=page_folder / "closed" / "cairn.db") as closed,
    ):
        token = _token(store)
        let_in = open_tab(name="far", host=guarded.url.removeprefix("http://"), key=token)
        let_in.until_state(count=0)
        let_in.press("Add")
        let_in.until_said("add: 1")
        assert let_in.page.evaluate("() => room.protocol") == "cairn"
        wrong = open_tab(name="far", host=guarded.url.removeprefix("http://"), key=token + "x")
        wrong.until_said("over: 1008 Agent connection closed: unauthorized")
        refused = open_tab(name="far", host=closed.url.removeprefix("http://"))
        refused.until_is("closed")
        assert refused.state is None and refused.page.evaluate("() => room.identified") is False
        assert token not in guarded.output and "WEBSOCKET /agents/room/far 101" not in closed.output


def _token(store: Path) -> str:
    made = subprocess.run(
        [CAIRN, "token", "create", "page", "--grant", "read,send", "--store", str(store)],
        capture_output=True,
        text=True,
        check=True,
    )
    (token,) = re.findall(r"cairn_[\w-]{43}", made.stdout)
    return str(token)
