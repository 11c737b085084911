"""`cairn serve` as a process of its own: where it listens, how it stops, what it writes, one or several (L6, X5, X8)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.http.serving import CAIRN, PATIENCE_SECONDS, Server, serving

from cairn import Agent, App
from cairn.clock import SystemClock
from cairn.errors import StoreCorrupt
from cairn.framework.cli import main
from cairn.framework.cli.serve import application_name
from cairn.framework.config import find
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.server import listen, serve
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.testing.scripted import ScriptedModel

system = pytest.mark.system

AGENTS = """
from cairn import Agent, App
from cairn.testing.scripted import Say, ScriptedModel, last_text

def script(request):
    text = last_text(request)
    return Say(text, chunk=1, pause=0.05) if text.startswith("slowly") else Say("You said: " + text)

echo = Agent("echo", model=ScriptedModel(script))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.cairn]\n")
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "echo.py").write_text(AGENTS)
    return tmp_path


class Typed:
    """`cairn serve …` that is not expected to come up, in this process: what it returned and wrote."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        for name in ("HOST", "PORT"):
            monkeypatch.delenv(name, raising=False)
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", list(root.handlers))
        monkeypatch.setattr(root, "level", root.level)

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str]:
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)
        code = main(["serve", *arguments])
        shown = self._capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("cairn: ") and shown.err.count("\n") == 1, shown.err
        return code, shown.err


@pytest.fixture
def typed(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Typed]:
    before = set(sys.modules)
    yield Typed(project, monkeypatch, capsys)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(project)) or name == "agents":
            del sys.modules[name]


def say(url: str, body: str, **more: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/agents/echo/c", json={"kind": "user", "body": body, **more})
    assert answer.status_code == 202, answer.text
    return answer.json()  # type: ignore[no-any-return]


def settled(url: str, submission: str, id: str = "c") -> str:
    """Where the conversation is once the submission has completed; whichever server answers under that address by then."""
    end = time.monotonic() + PATIENCE_SECONDS
    offset = "-1"
    while time.monotonic() < end:
        params = {"view": "updates", "offset": offset, "live": "long-poll"}
        answer = httpx.get(f"{url}/agents/echo/{id}", params=params, timeout=40)
        offset = answer.headers["stream-next-offset"]
        for chunk in answer.json():
            if chunk["type"] == "submission-settled" and chunk["submissionId"] == submission:
                assert chunk["outcome"] == "completed"
                return offset
    raise AssertionError("it did not settle")


class Stream:
    """A reader of server-sent events in a thread."""

    def __init__(self, url: str, headers: dict[str, str] | None = None, **params: str) -> None:
        self.text = ""
        self.ended = threading.Event()
        self.has_begun = threading.Event()
        self.error: Exception | None = None
        self._url = url
        self._headers = headers or {}
        self._params = {"view": "updates", "offset": "-1", "live": "sse", **params}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            given = {"params": self._params, "headers": self._headers, "timeout": PATIENCE_SECONDS}
            with httpx.stream("GET", f"{self._url}/agents/echo/c", **given) as answer:
                for text in answer.iter_text():
                    self.text += text
                    self.has_begun.set()
        except httpx.HTTPError as error:
            self.error = error
        self.ended.set()


def seen_in(stream: str) -> str:
    """The text of all deltas."""
    frames = [json.loads(line[5:]) for line in stream.splitlines() if line.startswith("data:[")]
    return "".join(chunk["delta"] for frame in frames for chunk in frame if chunk["type"] == "message-delta")


# --- stopping -------------------------------------------------------------------------------------------------------


@system
def test_a_stopping_server_lets_its_readers_go_and_the_next_one_goes_on(project: Path) -> None:
    """L6, L2: streams end cleanly, long-polls are answered, the process ends in order; the answer is finished by the next."""
    with serving(project) as server:
        submission = say(server.url, "slowly " + "and on " * 12)["submissionId"]
        stream = Stream(server.url)
        assert stream.has_begun.wait(PATIENCE_SECONDS)
        with a_long_poll(server, "quiet") as polling:
            assert server.stop() == 0
            answer = polling.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"stream-checkpoint" in answer and b"stream-up-to-date: true" in answer
        assert stream.ended.wait(PATIENCE_SECONDS)
        assert stream.error is None, stream.error
        assert stream.text.endswith("\n\n")

        server.start()
        settled(server.url, submission)
        [message] = [
            each for each in httpx.get(f"{server.url}/agents/echo/c").json()["messages"] if each["role"] == "assistant"
        ]
        text = "".join(part["text"] for part in message["parts"])
        said, _, rest = text.partition("You said: <note")  # how the script answers the note that it was cut
        assert rest and ("slowly " + "and on " * 12).startswith(said)
        assert said.startswith(seen_in(stream.text)), "what a reader saw is part of it"


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
        yield connection


@contextmanager
def a_long_poll(server: Server, id: str) -> Iterator[socket.socket]:
    """A reader that waits at the head of a conversation where nothing happens any more."""
    answer = httpx.post(f"{server.url}/agents/echo/{id}", json={"kind": "user", "body": "hello"})
    head = settled(server.url, answer.json()["submissionId"], id)
    path = f"/agents/echo/{id}?view=updates&live=long-poll&offset={head}"
    with connected(server) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        # What is answered on a later connection came after this request.
        assert httpx.get(f"{server.url}/health").status_code == 200
        yield connection


@contextmanager
def an_upload_that_never_ends(server: Server) -> Iterator[socket.socket]:
    with connected(server) as connection:
        connection.sendall(
            b"POST /agents/echo/c HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        yield connection


@system
def test_a_second_signal_ends_it_at_once(project: Path) -> None:
    """L6: whoever asks twice does not wait for anybody; nothing that is on the log is lost by it."""
    with serving(project) as server, an_upload_that_never_ends(server):
        process = server.process
        assert process is not None
        wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 200)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: _refuses(server.url))  # it has stopped listening, and waits for the upload
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)  # signals that come together count as one
        assert process.wait() == 130
        server.process = None


def _refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until(condition: Any) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class FailingStore(SqliteStore):
    """A store that becomes unreadable when it is told to."""

    is_broken = False

    async def due(self, *arguments: Any, **more: Any) -> Any:
        if self.is_broken:
            raise StoreCorrupt("a row fails its checksum")
        return await super().due(*arguments, **more)


def test_a_server_whose_worker_gave_up_ends_and_says_why(tmp_path: Path) -> None:
    """L7, S14: it would take messages and answer none of them; whoever supervises it can start another one."""

    async def main() -> None:
        store = FailingStore(str(tmp_path / "cairn.db"), clock=SystemClock(), ids=SystemIds())
        await store.open()
        app = App(agents=[Agent("echo", model=ScriptedModel(["x"]))], store=store)
        ready = asyncio.Event()
        listener = listen("127.0.0.1", 0, HttpLimits())
        served = asyncio.create_task(serve(app, listener, stop=asyncio.Event(), on_ready=ready.set, access=None))
        await ready.wait()
        store.is_broken = True
        await app.conversation("echo", "c").send("wake up")
        with pytest.raises(StoreCorrupt, match="checksum"):
            await served
        await store.close()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS))


# --- where it listens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_it_does_not_listen_for_others_without_knowing_whom_to_let_in(typed: Typed, host: str) -> None:
    """X5: one line that says what to do, and exit code 2."""
    code, text = typed("--host", host, "--port", "0")

    assert code == 2
    assert "refusing to listen" in text and "--auth tokens" in text


def test_environment_and_project_say_where_and_options_say_it_louder(typed: Typed, project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.cairn]\nhost = "0.0.0.0"\nauth = "tokens"\nport = 0\n')
    assert "refusing to listen on 0.0.0.0" in typed("--auth", "none")[1]
    (project / "pyproject.toml").write_text("[tool.cairn]\nport = 0\n")
    assert "refusing to listen on 0.0.0.0" in typed(HOST="0.0.0.0")[1]
    code, text = typed(PORT="http")
    assert code == 2 and "PORT is 'http'" in text
    assert "65535" in typed("--port", "80000")[1]
    assert "no address" in typed("--host", "nowhere.invalid", "--port", "0")[1]


def test_a_port_in_use_is_said_in_one_line(typed: Typed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = typed("--port", str(port))

    assert code == 2
    assert text == (
        f"cairn: port {port} on 127.0.0.1 is in use: stop what runs there, or choose another with --port (0 for any)\n"
    )


@system
def test_with_tokens_it_listens_for_everybody_and_answers_those_who_have_one(project: Path) -> None:
    """X5, X11: the way from nothing to a server others can use: make a token, serve, call; and back again: revoke it."""
    store = project / ".cairn" / "cairn.db"
    made = subprocess.run(
        [CAIRN, "token", "create", "bot", "--agent", "echo/*", "--store", str(store)],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    token = made.stdout.strip()
    assert token not in made.stderr

    with serving(project, options=["--host", "0.0.0.0", "--auth", "tokens"]) as server:
        headers = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{server.url}/agents").status_code == 401
        assert httpx.get(f"{server.url}/agents", headers=headers).status_code == 200
        assert httpx.get(f"{server.url}/agents", headers={**headers, "host": "evil.example"}).status_code == 421
        message = {"kind": "user", "body": "hello"}
        assert httpx.post(f"{server.url}/agents/echo/c", json=message, headers=headers).status_code == 202
        stream = Stream(server.url, headers)
        assert stream.has_begun.wait(PATIENCE_SECONDS)
        revoked = subprocess.run([CAIRN, "token", "revoke", "bot", "--store", str(store)], capture_output=True, check=False)
        assert revoked.returncode == 0
        wait_until(lambda: httpx.get(f"{server.url}/agents", headers=headers).status_code == 401)
        assert stream.ended.wait(PATIENCE_SECONDS) and stream.error is None, "X11: its streams end with it"
        assert token not in server.output
        assert "bearer tokens" in server.output


# --- what is served -------------------------------------------------------------------------------------------------


@system
def test_an_app_of_ones_own_is_served(project: Path) -> None:
    (project / "mine.py").write_text(f"{AGENTS}\napp = App(agents=[echo], store='mine.db')\n")
    with serving(project, target="mine:app") as server:
        submission = say(server.url, "hello")["submissionId"]
        settled(server.url, submission)
    assert (project / "mine.db").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["missing:app"], "there is no module 'missing'"),
        (["mine:nothing"], "is not there"),
        (["mine:echo"], "needs an App"),
        (["mine:app", "--auth", "tokens"], "says itself what --auth would"),
        (["divides:app"], "divides.py:2: ZeroDivisionError"),
        (["nowhere.py"], "there is no"),
        (["agents/broken.py"], "broken.py"),
    ],
)
def test_what_cannot_be_served_is_one_line(typed: Typed, project: Path, arguments: list[str], text: str) -> None:
    (project / "mine.py").write_text(f"{AGENTS}\napp = App(agents=[echo])\n")
    (project / "agents" / "broken.py").write_text("import nothing_of_that_name\n")
    (project / "divides.py").write_text("import sys\n1 / 0\n")
    code, said = typed(*arguments, "--port", "0")

    assert code == 2
    assert text in said


@system
def test_a_project_with_a_mistake_is_not_served_half(project: Path) -> None:
    """Of several processes the first one finds it, and says it for all."""
    (project / "agents" / "broken.py").write_text("import nothing_of_that_name\n")
    done = subprocess.run(
        [CAIRN, "serve", "--port", "0", "--workers", "3"], cwd=project, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr.count("nothing_of_that_name") == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("from cairn import App\napp = App(agents=[])\n", "app:app"),
        ("from cairn.framework.app import App\napp: App = App(agents=[])\n", "app:app"),
        ("from flask import Flask\napp = Flask('x')\n", None),
        ("from cairn import Agent\nbot = Agent('bot')\n", None),
        ("app = ((", None),
        ("\0", None),
    ],
)
def test_an_app_of_ones_own_is_found_where_it_usually_is(project: Path, text: str, named: str | None) -> None:
    """`app.py` is many programs' name: it is read before it is run, and left alone when it is another's."""
    (project / "app.py").write_text(text)

    assert application_name([], find(project)) == named
    assert application_name([str(project)], find(project)) == named
    assert application_name(["agents/echo.py"], find(project)) is None


# --- what is written ------------------------------------------------------------------------------------------------

CANARY = "cairn_" + "C4n4ry" * 7 + "X"
#: One that no net by shape could catch.
SHAPELESS = "C4n4ry that looks like nothing".replace(" ", "-")


@system
@pytest.mark.parametrize("form", ["text", "json", "none"])
def test_the_access_log_has_a_line_for_each_request_and_no_secret(project: Path, form: str) -> None:
    """X8: what people send, ask for and prove who they are with is in no line."""
    with serving(project, options=["--log", form]) as server:
        headers = {"authorization": f"Bearer {CANARY}", "x-request-id": "abc123", "cookie": f"session={SHAPELESS}"}
        answer = httpx.post(f"{server.url}/agents/echo/a%2Fb%0Ac", json={"kind": "user", "body": SHAPELESS}, headers=headers)
        assert (answer.status_code, answer.headers["x-request-id"]) == (202, "abc123")
        assert httpx.get(f"{server.url}/agents/echo/x?token={CANARY}&q={SHAPELESS}").status_code == 400
        server.stop()
        log = server.output

    assert CANARY not in log and SHAPELESS not in log
    lines = [line for line in log.splitlines() if "/agents/echo/" in line]
    if form == "none":
        assert lines == []
        return
    sent, asked = lines
    if form == "json":
        line = json.loads(sent)
        assert line["method"] == "POST" and line["status"] == 202 and line["request"] == "abc123"
        assert line["path"] == "/agents/echo/a%2Fb%0Ac" and line["client"] == "127.0.0.1"
        assert line["ms"] >= 0 and line["bytes"] == len(answer.content)
        assert json.loads(asked)["status"] == 400
    else:
        assert " 127.0.0.1 POST /agents/echo/a%2Fb%0Ac 202 " in sent and sent.endswith(" abc123")
        assert " 400 " in asked


@system
def test_a_program_that_starts_it_can_read_where_it_is(project: Path) -> None:
    with serving(project, options=["--json"]) as server:
        [line] = [line for line in server.output.splitlines() if line.startswith("{")]
        known = json.loads(line)
        assert known["url"] == server.url
        assert known["agents"] == ["echo"]
        assert known["pid"] == server.pid


# --- several processes ----------------------------------------------------------------------------------------------


def children(server: Server) -> list[int]:
    text = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


@system
def test_several_processes_share_a_port_and_a_store_and_are_kept_alive(project: Path) -> None:
    """L2: one that is killed is replaced, what it ran goes on in another, and no client is refused meanwhile."""
    with serving(project, options=["--workers", "2"]) as server:
        wait_until(lambda: len(children(server)) == 2)
        first = children(server)
        submission = say(server.url, "slowly " + "and on " * 8)["submissionId"]
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        assert httpx.get(f"{server.url}/health", timeout=PATIENCE_SECONDS).status_code == 200
        settled(server.url, submission)
        wait_until(lambda: len(children(server)) == 2 and not set(first) & set(children(server)))

        assert server.stop() == 0
        assert "ended by signal 9" in server.output


@system
def test_children_do_not_outlive_their_parent(project: Path) -> None:
    with serving(project, options=["--workers", "2"]) as server:
        wait_until(lambda: len(children(server)) == 2)
        left = children(server)
        server.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in left))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@system
def test_ctrl_c_at_a_terminal_stops_all_of_them_in_order(project: Path) -> None:
    """L6: the terminal signals every process of the group, and the parent signals its children: still one stop."""
    with serving(project, options=["--workers", "2"]) as server:
        wait_until(lambda: len(children(server)) == 2)
        everybody = [server.pid, *children(server)]
        for pid in everybody:
            os.kill(pid, signal.SIGINT)
        assert server.process is not None
        assert server.process.wait(PATIENCE_SECONDS) == 0
        server.process = None
        assert "Traceback" not in server.output
