"""A newcomer with a key, a project of their own, and the README: its commands, in order, in an environment of their own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cairn.testing.providers import Call, ProviderRequest, Reply, Say, serve_in_thread

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.system

BUGGY = "def login(address):\n    return address.split('+')[0]\n"
FIXED = "def login(address):\n    return address\n"


def readme() -> tuple[str, list[str]]:
    """The agent, and the commands right below it."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- file: triage\.py -->\n```python\n(.*?)```\n+```console\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1], [line.removeprefix("$ ") for line in found[2].splitlines()]


def triage(request: ProviderRequest) -> Reply:
    """What a model does with it: reproduce, edit, check, report; it goes by what the tools return."""
    turn = sum(entry.role == "assistant" for entry in request.entries)
    check = Call(
        "bash", {"command": f'{sys.executable} -c \'import login; assert login.login("a+b") == "a+b"\' && echo passed'}
    )
    if turn == 0:
        return Reply.of(Say("I reproduce it first."), check)
    if turn == 1:
        assert "AssertionError" in request.results[0].text, request.results
        return Reply.of(
            Call("edit", {"path": "login.py", "edits": [{"oldText": "address.split('+')[0]", "newText": "address"}]})
        )
    if turn == 2:
        return Reply.of(check)
    assert "passed" in request.results[0].text, request.results
    return Reply.of(Say("Reproduced, fixed in login.py, checked."))


def shell(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def test_by_the_readme_alone_a_newcomer_comes_to_a_working_triage(tmp_path: Path) -> None:
    """From `pip install` to a fixed bug: the README's file, its commands in its order, and nothing else."""
    agent, commands = readme()
    venv, install, export, run = commands
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")], cwd=ROOT, check=True
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    pins = [line.split(" \\")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    (tmp_path / "pins.txt").write_text("\n".join(pins))
    project = tmp_path / "project"
    project.mkdir()
    (project / "triage.py").write_text(agent)
    (project / "login.py").write_text(BUGGY)

    assert venv == "python3 -m venv .venv && source .venv/bin/activate"
    assert install.startswith("pip install 'cairn-agents[") and export == "export ANTHROPIC_API_KEY=…"
    assert shlex.split(run)[:3] == ["cairn", "run", "triage.py"]
    wanted = install.replace("cairn-agents", str(wheel)) + f" -q --disable-pip-version-check -c {tmp_path / 'pins.txt'}"
    with serve_in_thread(triage) as server:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
            **pip_settings(),
        }
        environment |= {"ANTHROPIC_BASE_URL": server.url("anthropic")}
        done = shell(" && ".join([venv, wanted, export, run]), project, environment)
        again = shell(f"source .venv/bin/activate && cairn log triage/{shlex.split(run)[-1]}", project, environment)

    assert done.stdout.endswith("Reproduced, fixed in login.py, checked.\n")
    assert (project / "login.py").read_text() == FIXED
    assert "fiber.settled" in again.stdout
    assert len(server.requests) == 4


def pip_settings() -> dict[str, str]:
    """How this machine's pip finds packages: part of the machine, not of what a newcomer types."""
    return {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "http"))}
