"""The built page in the package belongs to its source: checked without Node, by the digests that the build wrote down."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cairn.framework.http.page import BUILT

CONSOLE = Path(__file__).parents[2] / "console"

#: What decides the build; console/plugins/stamp.ts has the same list.
SOURCES = ("plugins", "src", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")

HOW = "run `npm ci && npm run build` in console/ and commit what it writes"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def test_the_built_page_was_made_of_the_source_beside_it() -> None:
    """A change in console/ without a build is found."""
    files = {file.relative_to(CONSOLE).as_posix(): file for name in SOURCES for file in _files(CONSOLE / name)}
    lines = [f"{name}\0{_sha256(files[name].read_bytes())}\n" for name in sorted(files)]

    stamp = json.loads((BUILT / "build.json").read_text())

    assert stamp["sources"] == _sha256("".join(lines).encode()), HOW


def test_the_built_files_are_those_that_were_built() -> None:
    """A built file that was edited, lost, or left behind by an older build is found."""
    files = {
        file.relative_to(BUILT).as_posix(): _sha256(file.read_bytes()) for file in _files(BUILT) if file.name != "build.json"
    }

    stamp = json.loads((BUILT / "build.json").read_text())

    assert stamp["files"] == files, HOW


def test_the_page_is_built_on_the_published_clients() -> None:
    """Both packages are pinned to the versions whose wire is served, and come as they were published."""
    manifest = json.loads((CONSOLE / "package.json").read_text())
    lock = json.loads((CONSOLE / "package-lock.json").read_text())["packages"]

    for name in ("@flue/react", "@flue/sdk"):
        assert manifest["dependencies"][name] == "2.0.3"
        assert lock[f"node_modules/{name}"]["version"] == "2.0.3"
    assert not any("resolved" in package for package in lock.values())


def test_the_bundle_carries_the_licences_of_what_is_in_it() -> None:
    notices = (BUILT / "LICENSES.txt").read_text()

    for name in (
        "react 19.",
        "react-dom 19.",
        "@flue/sdk 2.0.3",
        "@flue/react 2.0.3",
        "react-markdown ",
        "@durable-streams/client ",
    ):
        assert f"\n{name}" in f"\n{notices}"
