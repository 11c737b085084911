"""What a user gets: the wheel and the source archive, and the base install in an environment of its own, with no extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from cairn.runtime.storage.format import FORMAT

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "cairn"

#: Packages the base install names. Ten is the limit: a command line, a server and its client, and records.
BASE_PACKAGES_MAX = 10
#: … and all that come with them. The shell and the WebSockets of the base bring nothing else.
ALL_PACKAGES_MAX = 20

pytestmark = pytest.mark.system


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "CAIRN_STORE"}}
    done = subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built from the files of the repository."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has the wheel, at the locked versions, and nothing else."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=True)
    (wheel,) = built.glob("*.whl")
    python = str(folder / "bin" / "python")
    constraints = ROOT / "requirements.lock"
    pins = [line.split(" \\")[0] for line in constraints.read_text().splitlines() if "==" in line]
    (folder / "constraints.txt").write_text("\n".join(pins))
    run(python, "-m", "pip", "install", "-q", "-c", str(folder / "constraints.txt"), str(wheel), cwd=folder)
    return folder / "bin"


def data_files() -> set[str]:
    """Everything in the package that is no Python: SQL, the marker of types, the demo's project."""
    return {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_code_its_data_and_the_license(built: Path) -> None:
    """A missing .sql file would only be noticed by the first user."""
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py")}

    assert code <= names
    assert data_files() <= names
    assert {"cairn/py.typed", "cairn/runtime/storage/schema.sql", "cairn/runtime/storage/queries.sql"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if not name.startswith(("cairn/", "cairn_agents-"))]


def test_the_source_archive_holds_what_is_needed_to_build_and_to_test(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}

    assert {
        "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "requirements.lock",
        "requirements-dev.lock", "src/cairn/py.typed", "tests/conftest.py", "docs/promises.md",
    } <= names  # fmt: skip
    assert data_files() <= {name.removeprefix("src/") for name in names}
    assert not [name for name in names if ".venv" in name or "__pycache__" in name or name.endswith((".pyc", "-wal"))]


def test_the_base_install_is_small_and_starts(installed: Path, tmp_path: Path) -> None:
    """Without an extra there is no provider; the command, the face and the store work."""
    listed = json.loads(run(str(installed / "python"), "-m", "pip", "list", "--format=json", cwd=tmp_path).stdout)
    packages = {each["name"].lower() for each in listed} - {"pip", "setuptools", "cairn-agents"}
    cairn = str(installed / "cairn")

    help = run(cairn, "--help", cwd=tmp_path).stdout
    doctor = json.loads(run(cairn, "doctor", "--json", cwd=tmp_path).stdout)

    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(named) <= BASE_PACKAGES_MAX, named
    assert len(packages) <= ALL_PACKAGES_MAX, packages
    assert not packages & {"pydantic", "pydantic-ai-slim", "anthropic", "openai", "starlette"}
    assert "usage: cairn" in help
    states = {check["name"]: check["state"] for check in doctor["checks"]}
    assert doctor["ok"]
    assert states["extra anthropic"] == states["extra openai"] == states["extra google"] == "missing"


STORE = """
import asyncio
from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore

async def main():
    store = SqliteStore("it.db", clock=SystemClock(), ids=SystemIds())
    await store.open()
    print((await store.info()).format, len(await store.check()))
    await store.close()

asyncio.run(main())
"""


def test_the_base_install_can_keep_a_store_and_define_an_agent(installed: Path, tmp_path: Path) -> None:
    """The SQL files are found inside the installed package, not beside the repository."""
    python = str(installed / "python")

    kept = run(python, "-c", STORE, cwd=tmp_path).stdout.split()
    checked = run(str(installed / "cairn"), "store", "check", "--store", "it.db", cwd=tmp_path).stdout
    agent = run(python, "-c", "import cairn; print(cairn.Agent('a', model='anthropic:x').name)", cwd=tmp_path).stdout

    assert kept == [str(FORMAT), "0"]
    assert "no problems" in checked
    assert agent == "a\n"


def test_an_agent_without_its_extra_is_told_what_to_install(installed: Path, tmp_path: Path) -> None:
    """One sentence that can be copied into the shell, not an ImportError from five files away."""
    script = """
from cairn.errors import MissingExtra
from cairn.harness.models import resolve
try:
    resolve("anthropic:claude-sonnet-4-6")
except MissingExtra as error:
    print(error)
"""

    assert "cairn-agents[anthropic]" in run(str(installed / "python"), "-c", script, cwd=tmp_path).stdout
