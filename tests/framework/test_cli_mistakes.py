"""Every mistake a person can make is one line on stderr that says what to do, exit code 2, and nothing is stored."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.framework.shell import CAIRN, ECHO, SCRIPTED, Done, Shell, end, started, wait_for

from cairn.runtime.storage import SqliteStore

REAL = "from cairn import Agent\nreal = Agent('real', model='anthropic:claude-sonnet-4-6')\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.write("echo.py", ECHO)
    shell.write("real.py", REAL)
    return shell


def is_refused(done: Done, *says: str) -> None:
    """One line, no traceback, 2, nothing on stdout; and it says what it has to."""
    assert (done.code, done.out) == (2, ""), done
    assert done.err.count("\n") == 1 and done.err.endswith("\n"), done.err
    assert done.err.startswith("cairn: ")
    assert "Traceback" not in done.err
    for part in says:
        assert part in done.err


def nothing_is_stored(shell: Shell) -> bool:
    return not (shell.folder / ".cairn").exists()


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], ["needs a verb", "run"]),
        (["runn", "echo.py", "hi"], ["no verb 'runn'", "did you mean 'run'?"]),
        (["run"], ["AGENT", "cairn run --help"]),
        (["run", "echo.py", "hi", "--bogus"], ["--bogus", "--help"]),
        (["run", "echo.py", "fix", "the", "bug"], ["needs quotes"]),
        (["run", "echo.py", "hi", "--id"], ["--id", "--help"]),
        (["run", "echo.py"], ["give a message", "--id"]),
        (["run", "echo.py", ""], ["the message is empty"]),
        (["run", "echo.py", " \n\t"], ["the message is empty"]),
        (["run", "echo.py", "-"], ["the message is empty"]),
        (["run", "echo.py", "\udcff"], ["not UTF-8"]),
        (["run", "echo.py", "x" * 500_001], ["longer than 500,000 bytes", "file"]),
        (["run", "echo.py", "hi", "--id", ""], ["'' cannot be an instance's id"]),
        (["run", "echo.py", "hi", "--id", "  "], ["cannot be an instance's id", "not all blank"]),
        (["run", "echo.py", "hi", "--id", "x" * 513], ["512 characters"]),
        (["run", "echo.py", "hi", "--id", "\udcff"], ["not UTF-8"]),
        (["run", "echo.py", "hi", "--key", ""], ["1 to 256 characters"]),
        (["run", "echo.py", "hi", "--key", "k" * 257], ["1 to 256 characters"]),
        (["run", "echo.py", "hi", "--key", "\udcff"], ["not UTF-8"]),
        (["run", "echo.py", "hi", "--data", "{"], ["--data is not a JSON object", "--data '{"]),
        (["run", "echo.py", "hi", "--data", "[1]"], ["--data is not a JSON object"]),
        (["run", "echo.py", "hi", "--data", '{"a": 1}'], ["declares no state", "state="]),
        (["run", "real.py", "hi"], ["ANTHROPIC_API_KEY is not set", "export ANTHROPIC_API_KEY="]),
        (["run", "echo.py", "hi", "--model", "gpt-5"], ["'openai:gpt-5'"]),
        (["run", "echo.py", "hi", "--model", "antropic:claude-sonnet-4-6"], ["did you mean 'anthropic:claude-sonnet-4-6'?"]),
        (["run", "echo.py", "hi", "--model", "nobody:x"], ["unknown provider 'nobody'", "anthropic", "openai"]),
        (["run", "echo.py", "hi", "--model", "openai:"], ["names no model"]),
        (["run", "echo.py", "hi", "--model", "openai:gpt-5"], ["OPENAI_API_KEY is not set"]),
        (["run", "ech.py", "hi"], ["there is no ech.py", "did you mean echo.py?"]),
        (["run", "no/such/folder/echo.py", "hi"], ["no/such/folder"]),
        (["run", "echo.py:ech", "hi"], ["no agent 'ech'", "echo ("]),
        (["run", "nobody", "hi"], ["there is no agent 'nobody'"]),
        (["run", ".", "hi"], ["neither agent.py nor instructions.md"]),
        (["info", "nobody"], ["there is no agent 'nobody'"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_mistake_in_the_arguments_is_one_line(shell: Shell, arguments: Sequence[str], says: Sequence[str]) -> None:
    """2 means that the caller has to change something first; nothing was stored (S1)."""
    done = shell.cairn(*arguments)

    is_refused(done, *says)
    assert nothing_is_stored(shell)


def test_standard_input_that_is_no_message_is_one_line(shell: Shell) -> None:
    is_refused(shell.cairn("run", "echo.py", "-", stdin=b"\xff\xfe"), "not UTF-8", "byte 0")
    is_refused(shell.cairn("run", "echo.py", "-", stdin=b"\n \n"), "empty")
    is_refused(shell.cairn("run", "echo.py", "-", stdin=b"x" * 500_001), "500,000 bytes")


def test_a_first_state_that_does_not_fit_names_the_field(shell: Shell) -> None:
    """Checked before anything is admitted (S1)."""
    shell.write(
        "case.py",
        f"{SCRIPTED}\nfrom dataclasses import dataclass\n@dataclass\nclass Case:\n    customer: str = ''\n    level: int = 0\n"
        "case = Agent('case', model=ScriptedModel(['hi']), state=Case)\n",
    )

    is_refused(shell.cairn("run", "case.py", "hi", "--data", '{"costumer": "Ada"}'), "no field 'costumer'", "customer")
    is_refused(shell.cairn("run", "case.py", "hi", "--data", '{"customer": "Ada", "level": "high"}'), "level")
    assert nothing_is_stored(shell)


def test_a_conversation_that_is_not_there_cannot_be_continued(shell: Shell) -> None:
    is_refused(shell.cairn("run", "echo.py", "--id", "nowhere"), "no conversation echo/nowhere", "first message")


# --- the agent's file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f(:\n", ["bad.py:1", "invalid syntax"]),
        ("\n\nimport no_such_module\n", ["bad.py:3", "No module named 'no_such_module'", "install it"]),
        ("from cairn import Agnt\n", ["bad.py:1", "Agnt"]),
        ("x = 1\ny = x / 0\n", ["bad.py:2", "ZeroDivisionError"]),
        ("import sys\nsys.exit(3)\n", ["bad.py:2", "__main__"]),
        ("x = 1\n", ["it holds no agent", "bad = Agent('bad'"]),
        ("from cairn import Agent\na = Agent('a', model='x:y')\nb = Agent('b', model='x:y')\n", ["2 agents", "bad.py:a"]),
        ("from cairn import Agent\nbad = Agent('Bad Name', model='x:y')\n", ["bad.py:2", "Bad Name"]),
        ("from cairn import Agent\nbad = Agent('bad')\n", ["has no model", "--model"]),
        ("from cairn import Agent\nbad = Agent('bad', modle='x:y')\n", ["bad.py:2", "'modle'", "model"]),
        (f"{SCRIPTED}bad = Agent('bad', model=ScriptedModel([]), tools=[lambda: 1])\n", ["bad.py:4"]),
        ("\x00", ["bad.py"]),
    ],
)
def test_a_broken_file_is_one_line_with_the_place(shell: Shell, text: str, says: Sequence[str]) -> None:
    """The line of the user's own code, never of ours."""
    shell.write("bad.py", text)

    is_refused(shell.cairn("run", "bad.py", "hi"), *says)
    assert nothing_is_stored(shell)


def test_a_name_that_is_nearly_right_gets_the_right_one(shell: Shell) -> None:
    shell.write("agents/triage.py", ECHO.replace("echo", "triage"))

    is_refused(shell.cairn("run", "tirage", "hi"), "did you mean 'triage'?")
    is_refused(shell.cairn("info", "tirage"), "did you mean 'triage'?")


def test_check_tells_everything_at_once(shell: Shell) -> None:
    """Five mistakes in five files are five lines in one go, for a person and for CI."""
    shell.write("agents/fine.py", ECHO.replace("echo", "fine"))
    shell.write("agents/syntax.py", "def f(:\n")
    shell.write("agents/missing.py", "import no_such_module\n")
    shell.write("agents/empty.py", "x = 1\n")
    shell.write("agents/clerk/instructions.md", "Hello.\n")
    shell.write("agents/clerk/tolls/x.py", "x = 1\n")
    shell.write("agents/unknown.py", "from cairn import Agent\nunknown = Agent('unknown', model='nobody:x')\n")

    done = shell.cairn("check")
    machine = json.loads(shell.cairn("check", "--json").out)

    lines = done.out.splitlines()
    assert done.code == 2
    assert len(lines) == 5 == len(machine["problems"])
    for part in ("syntax.py:1", "missing.py:1", "empty.py", "did you mean tools/?", "unknown provider 'nobody'"):
        assert [line for line in lines if part in line], part


def test_a_broken_project_file_is_one_line(shell: Shell) -> None:
    shell.write("pyproject.toml", "[tool.cairn]\nmodle = 'x:y'\n")
    is_refused(shell.cairn("run", "echo.py", "hi"), "'modle'", "did you mean 'model'?")

    shell.write("pyproject.toml", "[tool.cairn\n")
    is_refused(shell.cairn("check"), "not valid TOML")


# --- what is not installed ------------------------------------------------------------------------------------------

WITHOUT = """
import sys, importlib.abc
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from cairn.framework.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without(shell: Shell, absent: set[str], *arguments: str) -> Done:
    """Typed where these packages are not installed."""
    command = [sys.executable, "-c", WITHOUT.format(absent=absent), *arguments]
    done = subprocess.run(command, cwd=shell.folder, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.system
@pytest.mark.parametrize("absent", ["anthropic", "pydantic_ai"])
def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it(shell: Shell, absent: str) -> None:
    """A line that can be copied into the shell; the message is not stored (S1)."""
    shell.set("ANTHROPIC_API_KEY", "k")

    done = without(shell, {absent}, "run", "real.py", "hi")

    is_refused(done, "pip install 'cairn-agents[anthropic]'")
    assert nothing_is_stored(shell)


@pytest.mark.system
def test_a_package_that_is_there_and_broken_is_a_mistake_too_and_the_message_waits(shell: Shell) -> None:
    """What only the import finds out is found while the store opens: one line, and the same exit code."""
    shell.set("ANTHROPIC_API_KEY", "k")

    done = without(shell, {"httpx2"}, "run", "real.py", "hi", "--id", "1")

    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith("cairn: anthropic models need a package")


# --- the store ------------------------------------------------------------------------------------------------------


def _a_directory(path: Path) -> None:
    path.mkdir()


def _a_text(path: Path) -> None:
    path.write_text("hello " * 1000)


def _another_database(path: Path) -> None:
    script = f"import sqlite3; d = sqlite3.connect({str(path)!r}); d.execute('create table t (x)'); d.close()"
    subprocess.run([sys.executable, "-c", script], check=True)


def _of_the_future(path: Path) -> None:
    subprocess.run([CAIRN, "run", "echo.py", "hi", "--store", str(path)], check=True, capture_output=True)
    script = f"import sqlite3; d = sqlite3.connect({str(path)!r}); d.execute('pragma user_version = 999'); d.close()"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_a_directory, ["is a directory", "name a file in it"]),
        (_a_text, ["is not a database", "Name another file"]),
        (_another_database, ["not a Cairn store"]),
        pytest.param(_of_the_future, ["store format 999", "Upgrade Cairn"], marks=pytest.mark.system),
    ],
)
def test_what_is_no_store_is_refused_and_left_alone(shell: Shell, make: Callable[[Path], None], says: Sequence[str]) -> None:
    """Nothing is written into what is not ours, or not yet (S15)."""
    path = shell.folder / "it.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None

    done = shell.cairn("run", "echo.py", "hi", "--store", "it.db")

    is_refused(done, "it.db", *says)
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("postgres://user:secret@host/db", ["not a path"]),
        ("echo.py/below/it.db", ["echo.py", "Check the path"]),
        ("/proc/no-such-place/it.db", ["/proc/no-such-place", "Check the path"]),
    ],
)
def test_a_place_where_no_store_can_be_is_one_line(shell: Shell, store: str, says: Sequence[str]) -> None:
    done = shell.cairn("run", "echo.py", "hi", "--store", store)

    is_refused(done, *says)
    assert "secret" not in done.err


HOLDER = """
import asyncio, os, signal, sys
from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage.turn import Turn
assert Turn(sys.argv[1]).take_within(5)
print("held", flush=True)
signal.pause()
"""


@pytest.mark.system
def test_a_store_whose_turn_another_process_holds_is_one_line_that_names_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped writer blocks every other: who it is stands in the line; what was typed is not lost
    silently, it was never stored (S1)."""
    monkeypatch.setitem(SqliteStore.__init__.__kwdefaults__, "busy_seconds", 0.3)
    shell.cairn("run", "echo.py", "hi", "--id", "1")
    path = shell.folder / ".cairn" / "cairn.db"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        done = shell.cairn("run", "echo.py", "hello", "--id", "1")
    finally:
        holder.kill()
        holder.wait()

    is_refused(done, str(holder.pid))
    assert len([record for record in shell.log("echo/1") if record["type"] == "fiber.accepted"]) == 1


# --- as a process ---------------------------------------------------------------------------------------------------


@pytest.mark.system
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_stream_is_no_traceback(shell: Shell, closed: str) -> None:
    """Services start programs like that."""
    done = subprocess.run(
        ["bash", "-c", f"'{CAIRN}' run echo.py hi {closed}"], cwd=shell.folder, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.system
def test_a_mistake_in_a_real_process_is_one_line_too(shell: Shell) -> None:
    """Nothing that only a test's process hides: no warning, no traceback at exit."""
    with started(shell, "run", "real.py", "hi") as process:
        is_refused(end(process), "ANTHROPIC_API_KEY")


@pytest.mark.system
def test_an_agent_that_prints_in_another_encoding_can_be_run(shell: Shell) -> None:
    """A terminal of another age gets an escape where it has no letter."""
    import os

    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with started(shell, "run", "echo.py", "grüße", env=environment) as process:
        assert wait_for(process, "completed")
        assert end(process).code == 0
