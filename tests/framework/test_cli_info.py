"""`cairn info` and `cairn check`: what a project offers and what is wrong with it, without a key, a store or a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.framework.shell import ECHO, SCRIPTED, Shell

CLERK = f"""{SCRIPTED}
from dataclasses import dataclass
from cairn import local

@dataclass
class Case:
    customer: str = ""

clerk = Agent(
    "clerk", model="anthropic:claude-sonnet-4-6", description="Files things.", instructions="Be exact.",
    state=Case, sandbox=local("."),
)

@clerk.tool(repeat="safe", timeout=5)
def look_up(order: int, fast: bool = False) -> str:
    \"\"\"Find an order.

    Args:
        order: The number on the invoice.
    \"\"\"
    return ""

@clerk.on_settled
def tell(event):
    pass
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_info_shows_what_the_model_would_see(shell: Shell) -> None:
    """A person reads the tools, their rules and the sandbox's, before anything was asked; no key is needed."""
    shell.write("agents/clerk.py", CLERK)
    shell.write("agents/echo.py", ECHO)

    done = shell.cairn("info")

    assert (done.code, done.err) == (0, "")
    for part in (
        "clerk  (agents/clerk.py:", "Files things.", "anthropic:claude-sonnet-4-6", "state         customer", "on_settled ×1",
        "look_up(order: integer, fast?: boolean)  [safe]", "bash(", "edit(", "echo  (agents/echo.py:",
    ):  # fmt: skip
        assert part in done.out
    assert not (shell.folder / ".cairn").exists()


def test_info_for_programs_holds_the_schemas_as_the_model_gets_them(shell: Shell) -> None:
    shell.write("agents/clerk.py", CLERK)

    found = json.loads(shell.cairn("info", "clerk", "--json").out)

    (agent,) = found["agents"]
    tools = {tool["name"]: tool for tool in agent["tools"]}
    assert found["problems"] == []
    assert (agent["name"], agent["instructions"], agent["state"]) == ("clerk", "Be exact.", ["customer"])
    assert tools["look_up"]["parameters"]["properties"]["order"]["description"] == "The number on the invoice."
    assert tools["look_up"]["parameters"]["required"] == ["order"]
    assert (tools["look_up"]["repeat"], tools["look_up"]["timeout_seconds"]) == ("safe", 5)


def test_info_shows_what_can_be_shown_and_says_what_is_wrong(shell: Shell) -> None:
    """One broken file does not hide the others; `info` looks, `check` judges."""
    shell.write("agents/echo.py", ECHO)
    shell.write("agents/broken.py", "import no_such_module\n")

    info = shell.cairn("info")
    check = shell.cairn("check")

    assert (info.code, check.code) == (0, 2)
    assert "echo  (agents/echo.py:" in info.out
    assert "problem: agents/broken.py:1: No module named 'no_such_module'" in info.out
    assert check.out.startswith("agents/broken.py:1: No module named 'no_such_module'")


def test_check_of_one_agent_looks_at_nothing_else(shell: Shell) -> None:
    shell.write("agents/echo.py", ECHO)
    shell.write("agents/broken.py", "import no_such_module\n")

    assert (shell.cairn("check", "echo").code, shell.cairn("check", "agents/echo.py").out) == (0, "ok: echo\n")


def test_check_finds_what_only_rendering_shows(shell: Shell) -> None:
    """A tool that a `prepare` names twice, a model nobody provides: found offline, before a person waits for an answer."""
    shell.write(
        "agents/late.py",
        ECHO.replace("echo", "late") + "\n@late.prepare\ndef spoil(turn):\n    raise RuntimeError('not today')\n",
    )
    shell.write("agents/unknown.py", "from cairn import Agent\nunknown = Agent('unknown', model='nobody:x')\n")

    done = shell.cairn("check")

    assert done.code == 2
    assert len(done.out.splitlines()) == 2
    assert "not today" in done.out
    assert "unknown provider 'nobody'" in done.out


def test_a_check_that_looked_in_the_wrong_place_does_not_pass(shell: Shell) -> None:
    """CI that finds nothing to check has not checked anything."""
    done = shell.cairn("check")
    info = shell.cairn("info")

    assert done.code == 2
    assert "there are no agents in agents; write agents/NAME.py" in done.out
    assert info.code == 0
    assert "there are no agents in agents" in info.out


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [
        ("sandbox=e2b()", "e2b", "e2b"),
        ("sandbox=modal('app')", "modal", "modal"),
        ("sandbox=daytona()", "daytona", "daytona"),
        ("sandbox=ssh('host')", "asyncssh", "ssh"),
        ("codemode=True", "pydantic_monty", "programs"),
    ],
)
def test_check_names_the_extra_that_a_definition_needs(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, option: str, package: str, extra: str
) -> None:
    """What would fail in the first turn, after a message was accepted, is said before: with the line that installs it."""
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    imports = "\n".join(f"from cairn.harness.sandbox.{name} import {name}" for name in ("daytona", "e2b", "modal", "ssh"))
    shell.write("agents/far.py", f"{SCRIPTED}\n{imports}\nfar = Agent('far', model=ScriptedModel(['ok']), {option})\n")

    done = shell.cairn("check")

    assert done.code == 2 and f"pip install 'cairn-agents[{extra}]'" in done.out + done.err


def test_a_sandbox_that_is_none_is_refused_where_it_is_written(shell: Shell) -> None:
    """A name in quotes is no sandbox: the line is told, and no attribute that it lacks."""
    shell.write("agents/odd.py", f"{SCRIPTED}\nodd = Agent('odd', model=ScriptedModel(['ok']), sandbox='isolated')\n")

    done = shell.cairn("check")

    assert done.code == 2 and "sandbox='isolated' opens none; give virtual()" in done.out + done.err
