"""The page inside somebody's application: below a path, beside other routes."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser.conftest import PROJECT, say, tabs

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.system

PATIENCE_SECONDS = 30


@contextmanager
def host_application(store: Path) -> Iterator[str]:
    """A Starlette application with the agents at `/deep er/ai`, served in a thread; its origin."""
    starlette, uvicorn = pytest.importorskip("starlette.applications"), pytest.importorskip("uvicorn")
    from starlette.routing import Mount

    from cairn import App

    spec = importlib.util.spec_from_file_location("console_app", PROJECT / "console_app.py")
    assert spec is not None and spec.loader is not None
    project: Any = importlib.util.module_from_spec(spec)
    sys.modules["console_app"] = project  # its classes look themselves up there
    spec.loader.exec_module(project)
    app = App(agents=[project.assistant], store=store, console=True)
    host = starlette.Starlette(routes=[Mount("/deep er/ai", app)], lifespan=app.lifespan)
    server = uvicorn.Server(uvicorn.Config(host, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while not server.started and time.monotonic() < end:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE_SECONDS)


def test_the_page_works_mounted_below_a_path(browser: Browser, tmp_path: Path) -> None:
    """At a path that has to be spelled in URLs, its files, its conversations and its links are found."""
    with host_application(tmp_path / "cairn.db") as origin, tabs(browser, origin) as opening:
        page = opening("/deep%20er/ai/")
        say(page, "weather")
        page.get_by_text("It is fine in Oslo.").wait_for()
        page.reload()
        page.get_by_text("It is fine in Oslo.").wait_for()

        assert "/deep%20er/ai/chat/assistant/" in page.url
