"""Node with the published packages: installed once, told to run a script, listened to while it does.

Laws. The packages are what the registry has, checked against the hashes of the lock file, and nothing here touches them. A
script says one JSON document; what it asks for before is done by the test. Whatever it wrote is in the failure's message.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRIPTS = HERE / "scripts"
#: What is installed, and how. The folder of the packages is named by the hash of these.
MANIFEST = ("package.json", "package-lock.json", ".npmrc")

#: Seconds for a whole script, or an installation: a guard against hanging, not a measurement.
PATIENCE_SECONDS = 60.0
INSTALL_SECONDS = 180.0

Answers = Mapping[str, Callable[[], Any]]


def why_not() -> str | None:
    """Why nothing of this can run here; None when it can."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not found: the published clients need Node 18 or later"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return None if int(version.lstrip("v").split(".")[0]) >= 18 else f"node is {version}; the clients need 18 or later"


def installed() -> Path:
    """The packages of the lock file. *Idempotent*: they are installed once for each content of the lock file."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in MANIFEST)).hexdigest()[:16]
    place = ROOT / ".cairn" / "npm" / digest
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    # Installed beside and renamed: a run that is interrupted leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=place.parent) as building:
        for name in MANIFEST:
            shutil.copy(HERE / name, building)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=building, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
        assert done.returncode == 0, f"npm ci failed:\n{done.stdout}{done.stderr}"
        try:
            os.rename(building, place)
        except OSError:  # another run was first
            assert place.is_dir()
        else:
            os.mkdir(building)  # what the context manager removes
    return place


class Node:
    """Runs the scripts of this folder beside the packages."""

    def __init__(self, folder: Path, packages: Path) -> None:
        self._folder = folder
        shutil.copytree(SCRIPTS, folder)
        (folder / "node_modules").symlink_to(packages / "node_modules")

    def run(self, script: str, *arguments: str | Path, answers: Answers | None = None) -> Any:
        """What the script reports; each thing it asks for is answered by the function of that name."""
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                ["node", self._folder / script, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "NODE_ENV": "development"},
            )
            guard = threading.Timer(PATIENCE_SECONDS, process.kill)
            guard.start()
            try:
                said = _converse(process, answers or {})
                assert said is not None, f"{script} said nothing at its end (killed after {PATIENCE_SECONDS:g} s?)"
                return said
            except AssertionError as failure:
                written = os.pread(errors.fileno(), 100_000, 0).decode(errors="replace")
                raise AssertionError(f"{failure}\nstderr of {script}:\n{written}") from None
            finally:
                guard.cancel()
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    with suppress(BrokenPipeError):
                        pipe.close()  # type: ignore[union-attr]


def _converse(process: subprocess.Popen[str], answers: Answers) -> Any:
    """Answer until there is a result; None when the process ends without one."""
    assert process.stdin is not None and process.stdout is not None
    for line in process.stdout:
        said = json.loads(line)
        if "result" in said:
            return said["result"]
        answer = answers[said["ask"]]()
        with suppress(BrokenPipeError):  # it ended meanwhile: what it said of that is read next
            process.stdin.write(json.dumps(answer) + "\n")
            process.stdin.flush()
    return None
