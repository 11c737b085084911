"""The folder in which a demo happens: a copy of the project, the agent's file, the store, the witness's file.

Laws. Everything a demo touches is below one folder, so that removing it removes the demo. Whether the job is done is found out
here, from the files and by running the tests, never by asking the model.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cairn.framework.demo.knowledge import Run, read_run
from cairn.framework.demo.model import CHARACTERS_PER_SECOND, ScriptedEngineer
from cairn.framework.demo.witness import EFFECTS, Witness

if TYPE_CHECKING:
    from cairn.harness.tools import Tool
    from cairn.runtime.workspace_reading import Reading

PROJECT = Path(__file__).parent / "project"

#: What the agent is told, and the conversation it is told in.
MESSAGE = "Login fails with a plus; see REPORT.md"
CONVERSATION = "login-plus"

#: How fast the scripted model streams, in characters a second; 0 does not wait. For the agent's process.
PACE = "CAIRN_DEMO_PACE"

#: Seconds for one run of the project's tests; it takes a fifth of one.
TESTS_SECONDS_MAX = 60.0

INSTRUCTIONS = """\
Triage a bug report: reproduce the bug, find its cause, and fix it if the fix is small.
Run the tests before and after; never change a test to make it pass.
End with a report of what you did and what you saw."""

AGENT = f'''"""The agent of `cairn demo`: that of examples/triage.py, with a scripted model and a witness.

Its model and its tools only work in this folder. Everything else is what you would write.
"""

from pathlib import Path

from cairn import Agent, virtual
from cairn.framework.demo.job import scripted_model, witnessed_tools

HERE = Path(__file__).parent

triage = Agent(
    "triage",
    model=scripted_model(HERE),  # `cairn demo --model anthropic:…` takes its place
    sandbox=virtual(seed=HERE / "project"),  # files and a shell of its own; nothing of this machine
    tools=witnessed_tools(HERE),  # the file tools; each call also leaves a line in {EFFECTS}
    instructions="""
{chr(10).join("        " + line for line in INSTRUCTIONS.splitlines())}
    """,
)
'''


def scripted_model(folder: Path) -> ScriptedEngineer:
    """The demo's model, at the pace of the environment."""
    pace = float(os.environ.get(PACE, CHARACTERS_PER_SECOND))
    return ScriptedEngineer(pace=pace, witness=Witness(folder / EFFECTS))


def witnessed_tools(folder: Path) -> list[Tool]:
    """The file tools, each of whose calls is witnessed."""
    from cairn.harness.sandbox.files import file_tools

    return Witness(folder / EFFECTS).tools(file_tools())


@dataclass(frozen=True, slots=True)
class Job:
    """One demo's folder."""

    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def agent(self) -> Path:
        return self.folder / "triage.py"

    @property
    def store(self) -> Path:
        return self.folder / ".cairn" / "cairn.db"

    @property
    def witness(self) -> Witness:
        return Witness(self.folder / EFFECTS)

    @property
    def errors(self) -> Path:
        """What the workers wrote to standard error."""
        return self.folder / "worker.log"

    async def take_out(self, files: Reading) -> None:
        """The agent's files are in `project`, as it left them; its temporary ones are not."""
        for entry in files.walk():
            path = self.project / entry.path.lstrip("/")
            if entry.path.startswith("/.tmp") or entry.is_link:
                continue
            if entry.is_directory:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(await files.read(entry.path))
        for path in _files(self.project):
            if not files.exists(path.relative_to(self.project).as_posix()):
                path.unlink()

    def changed(self) -> list[str]:
        """The files that are not as they are in the package, by name."""
        names = {path.relative_to(root).as_posix() for root in (PROJECT, self.project) for path in _files(root)}
        return sorted(name for name in names if _bytes(PROJECT / name) != _bytes(self.project / name))

    def remove(self) -> None:
        """Nothing of it is there any more. Idempotent."""
        shutil.rmtree(self.folder, ignore_errors=True)


def prepare(parent: Path | None = None) -> Job:
    """A new folder with everything a demo needs; below `parent`, or where temporary files go."""
    folder = Path(tempfile.mkdtemp(prefix="cairn-demo-", dir=parent)).resolve()
    shutil.copytree(PROJECT, folder / "project", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    job = Job(folder)
    job.agent.write_text(AGENT, encoding="utf-8")
    job.store.parent.mkdir()
    return job


async def run_tests(files: Reading) -> Run:
    """What the project's tests say now. Run by the demo itself, over the agent's files, and as closed in as the agent."""
    from cairn.harness.sandbox.virtual_once import run_over

    command = "python3 -m unittest"
    result = await run_over(files, command, TESTS_SECONDS_MAX)
    return read_run(command, result.output.decode(errors="replace"))


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
