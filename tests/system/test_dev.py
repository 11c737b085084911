"""`cairn dev` as a person uses it: started, edited under, broken, mended, started twice, killed."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cairn.client import Client, Conversation
from cairn.errors import NotFound

pytestmark = pytest.mark.system

CAIRN = str(Path(sys.executable).with_name("cairn"))

#: Seconds for anything that is waited for: a guard against hanging, not a measurement.
PATIENCE_SECONDS = 30.0

AGENT = """
from cairn import Agent
from cairn.testing.scripted import Call, Say, ScriptedModel, by_turn, last_text

{name} = Agent("{name}", model=ScriptedModel(by_turn([Call("look"), lambda request: Say(last_text(request))])))

@{name}.tool(repeat="safe")
def look() -> str:
    "Look."
    return "{seen}"
"""

#: Its answer goes on for as long as there is no file `go`: a live turn that outlasts any edit.
LONG = """
import asyncio
from pathlib import Path
from cairn import Agent
from cairn.testing.scripted import ScriptedModel

class Slow(ScriptedModel):
    async def stream(self, request):
        async for event in super().stream(request):
            yield event
            while not Path("go").exists():
                await asyncio.sleep(0.02)

long = Agent("long", model=Slow(lambda request: "{said} and no end, until there is one"))
"""


class Dev:
    """One `cairn dev`. Every event is waited for, none is guessed at."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        dropped = ("CAIRN_STORE", "PORT", "HOST", "CI", "SSH_CONNECTION")
        inherited = {name: value for name, value in os.environ.items() if name not in dropped}
        self.errors = open(folder / f"stderr-{id(self)}", "w+b")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            [CAIRN, "dev", "--json", *arguments],
            cwd=folder,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self._rest = b""

    def next(self) -> dict[str, Any]:
        """The next thing it says."""
        assert self.process.stdout is not None
        end = time.monotonic() + PATIENCE_SECONDS
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"it says nothing: {self.noted()}"
            data = os.read(self.process.stdout.fileno(), 65_536)
            assert data, f"it ended with {self.process.wait(PATIENCE_SECONDS)}: {self.noted()}"
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found

    def until(self, event: str, **fields: Any) -> dict[str, Any]:
        """The next event of that kind; anything else in between is what an editor that writes in steps may cause."""
        while True:
            found = self.next()
            if found["event"] == event and all(found[name] == value for name, value in fields.items()):
                return found

    def ready(self) -> str:
        return str(self.until("dev.ready")["url"])

    def noted(self) -> str:
        return os.pread(self.errors.fileno(), 100_000, 0).decode(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def dev(folder: Path, *arguments: str, **environment: str) -> Iterator[Dev]:
    process = Dev(folder, *arguments, **environment)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.process.kill()
        process.process.communicate()
        process.errors.close()


def write(folder: Path, path: str, text: str) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def agent(name: str, seen: str) -> str:
    return AGENT.format(name=name, seen=seen)


async def said(conversation: Conversation, message: str = "What do you see?") -> str:
    return (await (await conversation.send(message)).reply()).text


def test_an_edit_is_live_for_the_next_turn_and_a_live_turn_ends_as_it_began(tmp_path: Path) -> None:
    """S3, P4: the stream that is read all the while loses nothing, and the same process answers before and after."""
    write(tmp_path, "agents/echo.py", agent("echo", "the old door"))
    write(tmp_path, "agents/long.py", LONG.format(said="Old words"))
    with dev(tmp_path, "--port", "0") as process:
        url = process.ready()

        async def main() -> None:
            async with Client(url) as client:
                assert await said(client.conversation("echo", "a")) == "the old door"
                receipt = await client.conversation("long", "b").send("Tell me.")
                chunks = receipt.follow()
                words = ""
                async for chunk in chunks:
                    if chunk.type == "message-delta":
                        words += chunk["delta"]
                        break

                write(tmp_path, "agents/echo.py", agent("echo", "the new door"))
                write(tmp_path, "agents/long.py", LONG.format(said="New words"))
                changed = await asyncio.to_thread(process.until, "dev.reloaded")
                assert changed["added"] == changed["removed"] == []
                while await said(client.conversation("echo", "fresh"), "?") != "the new door":
                    await asyncio.to_thread(process.until, "dev.reloaded")  # the second file was written a moment later

                write(tmp_path, "go", "")
                async for chunk in chunks:
                    words += chunk["delta"] if chunk.type == "message-delta" else ""
                assert words == "Old words and no end, until there is one" == (await receipt.reply()).text
                assert await said(client.conversation("long", "b")) == "New words and no end, until there is one"

        asyncio.run(main())


def test_what_cannot_be_read_is_told_and_the_last_good_agents_answer_on(tmp_path: Path) -> None:
    """Every error with its file and line; a new agent appears, a removed one is a 404 that says what there is."""
    write(tmp_path, "helper.py", "WHAT = 'a door'\n")
    text = agent("echo", "").replace('return ""', "import helper; return helper.WHAT")
    write(tmp_path, "agents/echo.py", "import helper\n" + text)
    with dev(tmp_path, "--port", "0") as process:
        url = process.ready()

        async def main() -> None:
            async with Client(url) as client:
                write(tmp_path, "agents/broken.py", "x = (\n")
                write(tmp_path, "helper.py", "WHAT = = 1\n")
                while True:
                    told = (await asyncio.to_thread(process.until, "dev.problems"))["problems"]
                    if len(told) == 2:
                        break
                assert told[0].startswith("agents/broken.py:1: ") and "helper.py:1: " in told[1], told
                assert await said(client.conversation("echo", "a")) == "a door"

                (tmp_path / "agents/broken.py").unlink()
                write(tmp_path, "helper.py", "WHAT = 'a wall'\n")
                write(tmp_path, "agents/two.py", agent("two", "both"))
                while "two" not in [card.name for card in await client.agents()]:
                    await asyncio.to_thread(process.next)
                assert await said(client.conversation("echo", "b")) == "a wall"
                assert await said(client.conversation("two", "a")) == "both"

                (tmp_path / "agents/two.py").unlink()
                await asyncio.to_thread(process.until, "dev.reloaded", removed=["two"])
                with pytest.raises(NotFound, match="no such agent; there are: echo"):
                    await client.conversation("two", "a").history()

        asyncio.run(main())


def test_it_begins_with_nothing_and_with_what_is_good(tmp_path: Path) -> None:
    """The first agent may be written after the first start; one that is broken from the start does not keep out the others."""
    with dev(tmp_path, "--port", "0") as process:
        assert "there are no agents" in process.until("dev.problems")["problems"][0]
        url = process.ready()
        write(tmp_path, "agents/echo.py", agent("echo", "a door"))
        process.until("dev.reloaded", added=["echo"])

        async def main() -> None:
            async with Client(url) as client:
                assert await said(client.conversation("echo", "a")) == "a door"

        asyncio.run(main())
        assert process.stop(signal.SIGINT) == 0

    write(tmp_path, "agents/broken.py", "import nothing_of_that_name\n")
    with dev(tmp_path, "--port", "0") as process:
        (told,) = process.until("dev.problems")["problems"]
        assert told.startswith("agents/broken.py:1: No module named 'nothing_of_that_name'")
        assert process.until("dev.ready")["agents"] == ["echo"]
        # What is missing may appear anywhere in the project, not only where was looked so far.
        write(tmp_path, "nothing_of_that_name/__init__.py", "")
        write(tmp_path, "agents/broken.py", "import nothing_of_that_name\n" + agent("mended", "it"))
        process.until("dev.reloaded", added=["mended"])


def test_an_app_of_ones_own_is_followed_too(tmp_path: Path) -> None:
    """Its agents are exchanged; its authentication is for servers, here only this machine is answered."""
    app = "from cairn import App\nfrom robots import echo\napp = App([echo], auth=lambda given: None)\n"
    write(tmp_path, "app.py", app)
    write(tmp_path, "robots.py", agent("echo", "the old door"))
    with dev(tmp_path, "--port", "0") as process:
        url = process.ready()

        async def main() -> None:
            async with Client(url) as client:
                assert await said(client.conversation("echo", "a")) == "the old door"
                write(tmp_path, "robots.py", agent("echo", "the new door"))
                await asyncio.to_thread(process.until, "dev.reloaded")
                assert await said(client.conversation("echo", "b")) == "the new door"
                write(tmp_path, "app.py", app + "(\n")
                told = await asyncio.to_thread(process.until, "dev.problems")
                assert told["problems"][0].startswith("app.py:4: ")
                assert await said(client.conversation("echo", "c")) == "the new door"

        asyncio.run(main())


def test_a_second_one_shows_where_the_first_is_and_ends_with_it(tmp_path: Path) -> None:
    """One project, one process; after a kill the place is free at once."""
    write(tmp_path, "agents/echo.py", agent("echo", "a door"))
    with dev(tmp_path, "--port", "0") as first:
        url = first.ready()
        with dev(tmp_path, "--port", "0") as second, dev(tmp_path) as left:
            attached = second.next()
            assert attached == {"event": "dev.attached", "url": url, "pid": first.process.pid}
            left.until("dev.attached")
            assert left.stop(signal.SIGINT) == 0
            first.process.kill()
            assert second.process.wait(PATIENCE_SECONDS) == 0
            assert "has ended" in second.noted()
        with dev(tmp_path, "--port", "0") as third:
            assert third.ready()


def test_a_killed_one_goes_on_where_it_was(tmp_path: Path) -> None:
    """S1, S2, L2: killed in the middle of an answer; whoever waits for it gets the whole of it from the next one."""
    write(tmp_path, "agents/long.py", LONG.format(said="Many words"))
    with dev(tmp_path, "--port", "0") as first:
        url = first.ready()
        port = url.strip("/").rpartition(":")[2]

        async def main() -> None:
            async with Client(url) as client:
                receipt = await client.conversation("long", "b").send("Tell me.")
                async for chunk in receipt.follow():
                    if chunk.type == "message-delta":
                        break
                waiting = asyncio.ensure_future(receipt.reply())
                first.process.kill()
                await asyncio.to_thread(first.process.wait)
                write(tmp_path, "go", "")
                with dev(tmp_path, "--port", port) as second:
                    await asyncio.to_thread(second.ready)
                    assert (await waiting).text.endswith("Many words and no end, until there is one")

        asyncio.run(main())


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Nobody asked for one: the next is as good, and it is said. Somebody did: that is an error."""
    write(tmp_path, "agents/echo.py", agent("echo", "a door"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with dev(tmp_path, PORT=str(port)) as process:
            url = process.ready()
            assert url.startswith("http://127.0.0.1:") and not url.endswith(f":{port}/")
            assert f"port {port} is in use by something else" in process.noted()
        with dev(tmp_path, "--port", str(port)) as process:
            assert process.process.wait(PATIENCE_SECONDS) == 2
            assert f"port {port} on 127.0.0.1 is in use" in process.noted()


def test_the_page_is_there_and_only_this_machine_may_call(tmp_path: Path) -> None:
    """X6: pages of other ports of this machine may, pages of other sites may not; another Host is none of ours."""
    write(tmp_path, "agents/echo.py", agent("echo", "a door"))

    def status(url: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE_SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with dev(tmp_path, "--port", "0") as process:
        url = process.ready()
        assert status(url) == status(f"{url}agents") == 200
        assert status(f"{url}agents", Origin="http://localhost:5173") == 200
        assert status(f"{url}agents", Origin="https://evil.example") == 403
        assert status(f"{url}agents", Host="evil.example") == 421


def test_options_that_are_read_at_the_start_say_so_when_they_change(tmp_path: Path) -> None:
    """The model of agents that name none is live, where to listen is not; what makes no sense is a problem with its name."""
    write(tmp_path, "pyproject.toml", "[tool.cairn]\nport = 0\n")
    write(tmp_path, "agents/echo.py", agent("echo", "a door"))
    with dev(tmp_path) as process:
        process.ready()
        write(tmp_path, "pyproject.toml", "[tool.cairn]\nport = 0\nstore = 'elsewhere.db'\n")
        process.until("dev.reloaded")
        write(tmp_path, "pyproject.toml", "[tool.cairn]\nportt = 0\n")
        (told,) = process.until("dev.problems")["problems"]
        assert "has no option 'portt'" in told
        assert "store in [tool.cairn] has changed: it is read when `cairn dev` starts" in process.noted()


def test_the_browser_is_opened_where_there_is_a_screen(tmp_path: Path) -> None:
    """Once it is ready, and for somebody who sits at a terminal; where there is none is the table of tests/framework."""
    import pty

    write(tmp_path, "agents/echo.py", agent("echo", "a door"))
    browser = tmp_path / "browser"
    os.mkfifo(tmp_path / "opened")
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    browser.chmod(0o755)
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "SSH_CONNECTION", "SSH_TTY", "PORT")}
    process = subprocess.Popen(
        [CAIRN, "dev", "--port", "0"],
        cwd=tmp_path,
        env={**inherited, "DISPLAY": ":0", "BROWSER": f"{browser} %s"},
        stdout=theirs,
    )
    os.close(theirs)
    try:
        pipe = os.open(tmp_path / "opened", os.O_RDONLY | os.O_NONBLOCK)
        shown = b""
        while b"Ctrl-C" not in shown:
            shown += os.read(ours, 65_536)
        assert select.select([pipe], [], [], PATIENCE_SECONDS)[0], "no browser was opened"
        opened = os.read(pipe, 1000).decode().strip()
        os.close(pipe)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert opened.startswith("http://127.0.0.1:") and opened in shown.decode()
