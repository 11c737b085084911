"""The built page can be made again from its source, to the byte: what is in the package is what is in the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.browser.test_build import CONSOLE, HOW

from cairn.framework.http.page import BUILT

pytestmark = pytest.mark.system

PATIENCE_SECONDS = 240


def npm(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["npm", *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env={**os.environ, "CI": ""}
    )
    assert done.returncode == 0, f"npm {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"


def test_a_build_from_the_lock_file_gives_the_same_files(tmp_path: Path) -> None:
    """`npm ci && npm run build` somewhere else: the types check, and every file has the digest of the committed one."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not on this machine: install Node 20 or newer")
    console = tmp_path / "console"
    shutil.copytree(CONSOLE, console, ignore=shutil.ignore_patterns("node_modules"))

    npm(console, "ci", "--no-audit", "--no-fund")
    npm(console, "run", "build")

    made = json.loads((tmp_path / "src" / "cairn" / "framework" / "console" / "build.json").read_text())
    assert made == json.loads((BUILT / "build.json").read_text()), HOW
