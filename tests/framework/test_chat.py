"""`cairn chat`: in a pipe, at a terminal, on a server."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.framework.shell import CAIRN, ECHO, SCRIPTED, Shell

from cairn.client import Chunk
from cairn.framework.cli.heard import Heard

TALKER = f"""{SCRIPTED}
from cairn.testing.scripted import last_text

def script(request):
    text = last_text(request)
    if text in ("stall", "deaf"):
        return Stall("Well, ", deaf=text == "deaf")
    if text == "fail":
        from cairn.errors import ModelError
        return Fail(ModelError("no credit", kind="quota"))
    return Say("You said: " + text.replace("\\n", "|"))

talker = Agent("talker", model=ScriptedModel(script))
"""

SLOW = f"""{SCRIPTED}
talker = Agent(
    "talker", model=ScriptedModel(by_turn([Say("Hello there, hello again, and once more hello.", chunk=2, pause=0.05)]))
)
"""

TOOLED = f"""{SCRIPTED}
tooled = Agent("tooled", model=ScriptedModel(by_turn([["Let me see.", Call("look", {{"place": "door"}})], "It is open."])))

@tooled.tool(repeat="safe")
def look(place: str) -> str:
    "Look at a place."
    return f"the {{place}} is open"
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


# --- a program ------------------------------------------------------------------------------------------------------


def test_each_line_is_a_message_and_stdout_is_the_answers(shell: Shell) -> None:
    """S1: what is around them goes to stderr; the conversation can be gone on with by its id."""
    shell.write("agents/echo.py", ECHO)

    first = shell.cairn("chat", "--id", "c", stdin=b"one\n\n  \ntwo\n")
    assert (first.code, first.out) == (0, "You said: one\nYou said: two\n")
    assert "echo/c" in first.err

    again = shell.cairn("chat", "echo", "--id", "c", stdin="drei €".encode())
    assert (again.code, again.out) == (0, "You said: drei €\n")
    assert "› two" in again.err and "You said: two" in again.err


def test_tool_calls_are_shown_beside_the_answer(shell: Shell) -> None:
    """The answer in the pipe is the final words alone."""
    shell.write("tooled.py", TOOLED)

    done = shell.cairn("chat", "tooled.py", stdin=b"Is it open?\n")
    assert (done.code, done.out) == (0, "It is open.\n")
    assert "→ look door" in done.err and "the door is open" in done.err


def test_json_is_one_chunk_a_line(shell: Shell) -> None:
    """Programs get what the server says, with a beginning and an end of ours."""
    shell.write("agents/echo.py", ECHO)

    done = shell.cairn("chat", "--json", stdin=b"one\n")
    types = [event["type"] for event in done.events]
    assert types[:3] == ["chat.opened", "chat.sent", "message-appended"] and types[-2:] == [
        "submission-settled",
        "chat.answered",
    ]
    assert done.events[-1]["text"] == "You said: one" and done.events[-1]["outcome"] == "completed"


def test_a_failed_answer_is_the_exit_code(shell: Shell) -> None:
    """And the reason is said."""
    shell.write("agents/talker.py", TALKER)

    done = shell.cairn("chat", stdin=b"fail\n")
    assert (done.code, done.out) == (1, "") and "failed: no credit" in done.err
    assert shell.cairn("chat", stdin=b"fail\nfine\n").code == 0


def test_who_is_meant_has_to_be_clear(shell: Shell) -> None:
    """Every way it can be unclear says what there is."""
    assert "there are no agents" in shell.cairn("chat").err
    shell.write("agents/one.py", ECHO.replace('"echo"', '"one"'))
    shell.write("agents/two.py", ECHO.replace('"echo"', '"two"'))
    unclear = shell.cairn("chat", stdin=b"Hello.\n")
    assert unclear.code == 2 and "there are: one, two" in unclear.err
    assert shell.cairn("chat", "two", stdin=b"Hello.\n").out == "You said: Hello.\n"
    assert shell.cairn("chat", "three", stdin=b"").code == 2
    gone = shell.cairn("chat", "http://127.0.0.1:9/agents/one/c/d", stdin=b"")
    assert gone.code == 2 and "…/agents/AGENT/ID" in gone.err


def test_what_is_heard_of_values_that_are_no_text() -> None:
    """Blocks by their texts, anything else as JSON; a chunk nobody knows shows nothing."""
    heard = Heard()

    def feed(**fields: Any) -> list[Any]:
        return list(heard.feed(Chunk(fields["type"], fields, (1, 0), "-1")))

    feed(type="tool-input", toolCallId="c", toolName="look", input=["a"])
    (done,) = feed(type="tool-output", toolCallId="c", output={"a": 1})
    assert (done.name, done.text) == ("look", '{"a":1}')
    (blocks,) = feed(type="tool-output", toolCallId="d", output=[{"type": "text", "text": "x"}, {"type": "text", "text": "y"}])
    assert blocks.text == "x\ny"
    (progress,) = feed(type="data-part", messageId="m", name="tool-progress:c", data={"text": "half"})
    assert progress.text == "half"
    assert feed(type="data-part", messageId="m", name="tool-progress:c", data=None) == []
    feed(type="message-started", messageId="m", submissionId="s", attempt=1)
    again = feed(type="message-started", messageId="m", submissionId="s", attempt=2)
    assert [type(event).__name__ for event in again] == ["AttemptStarted", "MessageStarted"]
    assert feed(type="something-new") == []


# --- a person -------------------------------------------------------------------------------------------------------


class Terminal:
    """A person at a terminal: types, and waits for what appears."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process = process
        self._ours = ours
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._read = 0

    def until(self, text: str) -> str:
        """Everything up to the next appearance of `text`, which is found after what was found before."""
        end = time.monotonic() + PATIENCE_SECONDS
        while (at := self.seen.find(text, self._read)) < 0:
            assert time.monotonic() < end, f"{text!r} did not appear: {self.seen[self._read :]!r}"
            assert self._more(), f"it ended without {text!r}: {self.seen[self._read :]!r}"
        found, self._read = self.seen[self._read : at], at + len(text)
        return found

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def prompted(self, text: str) -> None:
        """Typed at the next prompt."""
        self.until(f"{PASTING}› ")
        self.type(text)

    def end(self) -> int:
        while self._more():
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _more(self) -> bool:
        if not select.select([self._ours], [], [], PATIENCE_SECONDS)[0]:
            return False
        with suppress(OSError):  # the terminal is hung up when the process has ended
            if data := os.read(self._ours, 65_536):
                self.seen += self._decoder.decode(data)
                return True
        return False


#: Seconds for anything that is waited for: a guard against hanging.
PATIENCE_SECONDS = 20

#: What the line editor sends before each prompt: a paste comes as a whole.
PASTING = "\x1b[?2004h"


@contextmanager
def at_terminal(shell: Shell, *arguments: str, **environment: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [CAIRN, *arguments],
        cwd=shell.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "INPUTRC": "/dev/null", **environment},
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.system
def test_a_person_talks_pastes_and_leaves(shell: Shell) -> None:
    """A paste of several lines is one message; commands are none; Ctrl-D leaves."""
    shell.write("agents/talker.py", TALKER)

    with at_terminal(shell, "chat", "--id", "c") as terminal:
        terminal.prompted("Hello.\r")
        terminal.until("You said: Hello.")
        terminal.prompted("\x1b[200~one\ntwo\nthree\x1b[201~\r")
        terminal.until("You said: one|two|three")
        terminal.prompted("/nonsense\r")
        terminal.until("there is no /nonsense")
        terminal.prompted("//slash\r")
        terminal.until("You said: /slash")
        terminal.prompted("/id\r")
        terminal.until("c\x1b")
        terminal.prompted("/abort\r")
        terminal.until("nothing is being answered")
        terminal.prompted("fail\r")
        terminal.until("failed: no credit")
        terminal.prompted("/new other\r")
        terminal.until("talker/other")
        terminal.prompted("/new c\r")
        terminal.until("/history shows them")
        terminal.prompted("\x04")
        assert terminal.end() == 0
    assert [record["type"] for record in shell.log("talker/c")].count("fiber.accepted") == 4


@pytest.mark.system
def test_ctrl_c_stops_the_answer_then_leaves(shell: Shell) -> None:
    """Once: the answer is aborted and the chat goes on. At the prompt, or twice: it leaves."""
    shell.write("agents/talker.py", TALKER)

    with at_terminal(shell, "chat", "--id", "c") as terminal:
        terminal.prompted("stall\r")
        terminal.until("Well, ")
        terminal.type("\x03")
        terminal.until("aborted")
        terminal.prompted("Hello.\r")
        terminal.until("You said: Hello.")
        terminal.prompted("deaf\r")
        terminal.until("Well, ")
        terminal.type("\x03")
        terminal.until("again leaves")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "Traceback" not in terminal.seen


@pytest.mark.system
def test_without_a_line_editor_a_paste_is_one_message_too(shell: Shell) -> None:
    """Some interpreters have none: lines that come at once belong together."""
    shell.write("agents/talker.py", TALKER)
    shell.write("plain/readline.py", "raise ImportError('none here')\n")

    with at_terminal(shell, "chat", PYTHONPATH=str(shell.folder / "plain")) as terminal:
        terminal.until("› ")
        terminal.type("one\ntwo\nthree\n")
        terminal.until("You said: one|two|three")
        terminal.until("› ")
        terminal.type("/quit\n")
        assert terminal.end() == 0


# --- a server -------------------------------------------------------------------------------------------------------


@contextmanager
def serving(shell: Shell, port: int, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = shell.process("serve", "--port", str(port), "--json", "--log", "none", *options)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, json.loads(line)["url"]
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


@pytest.mark.system
def test_a_chat_with_a_server_survives_its_death(shell: Shell) -> None:
    """S1, T17: killed in the middle of an answer and started again, the same chat shows the rest of it."""
    shell.write("agents/talker.py", SLOW)

    with serving(shell, 0) as (process, url), at_terminal(shell, "chat", f"{url}/agents/talker/c") as terminal:
        terminal.prompted("Who is there?\r")
        terminal.until("Hello")
        process.kill()
        process.wait()
        with serving(shell, int(re.findall(r"\d+$", url)[0])):
            terminal.prompted("/quit\r")
            assert terminal.end() == 0
    answers = [record for record in shell.log("talker/c") if record["type"] == "fiber.settled"]
    assert [record["result"]["text"] for record in answers] == ["Hello there, hello again, and once more hello."]
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|[^\w:,.]", "", terminal.seen)
    assert shown.count("Hellothere,helloagain,andoncemorehello.") == 1, terminal.seen


@pytest.mark.system
def test_beside_a_cairn_dev_it_talks_there(shell: Shell) -> None:
    """One process runs the project's agents; a file that is named is somebody else's, and runs here."""
    shell.write("agents/talker.py", TALKER)
    shell.write("other.py", ECHO)
    process = shell.process("dev", "--json", "--port", "0")
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        there = shell.cairn("chat", "--json", "--id", "c", stdin=b"Hello.\n").events
        assert there[0]["where"] == f"at {url}" and there[-1]["text"] == "You said: Hello."
        here = shell.cairn("chat", "other.py", "--json", stdin=b"Hello.\n").events
        assert here[0]["where"] == "in this process" and here[-1]["text"] == "You said: Hello."
    finally:
        process.kill()
        process.communicate()
    alone = shell.cairn("chat", "--json", "--id", "c", stdin=b"Hello?\n").events
    assert alone[0]["where"] == "in this process" and alone[-1]["text"] == "You said: Hello?"


@pytest.mark.system
def test_a_server_that_wants_a_token_gets_it(shell: Shell) -> None:
    """X5: from the environment, so that it stands in no list of processes."""
    shell.write("agents/talker.py", TALKER)

    with serving(shell, 0, "--auth", "tokens") as (_, url):
        refused = shell.cairn("chat", url, stdin=b"Hello.\n")
        assert refused.code == 2 and "valid credential" in refused.err
        made = shell.cairn("token", "create", "--json", "ada", "--grant", "read,send")
        assert made.code == 0, made.err
        shell.set("CAIRN_TOKEN", made.events[0]["token"])
        assert shell.cairn("chat", url, stdin=b"Hello.\n").out == "You said: Hello.\n"
