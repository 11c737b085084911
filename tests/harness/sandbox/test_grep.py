"""The grep tool: what it finds, what it says it left out, and that its two searchers agree.

`ripgrep.json` is what ripgrep 13 answers to `REQUESTS` over `TREE`, recorded with
`python -m tests.harness.sandbox.test_grep /path/to/rg`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.harness.sandbox.support import Desk, at_desk

from cairn.harness.sandbox.grep import search_command
from cairn.harness.sandbox.local import local

RECORDED = Path(__file__).with_name("ripgrep.json")

TREE: dict[str, bytes] = {
    "a.py": b"import os\n\n\ndef find(name):\n    return os.environ.get(name)\n\n\nprint(find('HOME'))\n",
    "b/b.txt": b"Find me\nnot me\nfind me too\n",
    "b/deep/c.py": b"# find\n" + b"x" * 700 + b" find\n",
    ".hidden": b"find hidden\n",
    ".git/config": b"find never\n",
    ".gitignore": b"*.log\n/build/\n!keep.log\nb/deep/ignored.*\n# find\n",
    "noise.log": b"find never\n",
    "keep.log": b"find kept\n",
    "build/out.py": b"find never\n",
    "b/build/out.py": b"find: only the build at the top is ignored\n",
    "b/deep/ignored.txt": b"find never\n",
    "b/.gitignore": b"*.tmp\nnode_modules/\n",
    "b/x.tmp": b"find never\n",
    "b/node_modules/m.js": b"find never\n",
    "binary": b"\0find never\n",
    "latin1": b"caf\xe9 find\n",
    "windows": b"first\r\nfind\r\nlast",
    "special (a+b).txt": b"a+b (find)\n",
}

REQUESTS: list[dict[str, Any]] = [
    {"pattern": "find"},
    {"pattern": "FIND", "ignoreCase": True},
    {"pattern": "(find)", "literal": True},
    {"pattern": "a+b", "literal": True},
    {"pattern": r"find\w*\("},
    {"pattern": "find", "glob": "*.py"},
    {"pattern": "find", "glob": "b/**/*.{py,txt}"},
    {"pattern": "find", "glob": "[ab].*"},
    {"pattern": "return", "context": 1},
    {"pattern": "me", "context": 2},
    {"pattern": "find", "limit": 3},
    {"pattern": "find", "context": 1, "limit": 4},
    {"pattern": "^find$"},
    {"pattern": "nothing has this"},
    {"pattern": "-e find"},
    {"pattern": "find", "path": "b"},
    {"pattern": "find", "path": "b/b.txt"},
    {"pattern": "find", "path": "b/node_modules"},
]


def plant(folder: Path) -> None:
    for name, data in TREE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def programs(folder: Path, ripgrep: str | None = None) -> dict[str, str]:
    """A PATH on which there is what a search needs, and ripgrep only if given: as the text of a script."""
    folder.mkdir()
    for name in ("bash", "head", "cat"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    if ripgrep is not None:
        (folder / "rg").write_text(ripgrep)
        (folder / "rg").chmod(0o755)
    return {"PATH": str(folder)}


@pytest.mark.slow
def test_both_searchers_show_the_same(tmp_path: Path) -> None:
    """P27: ripgrep where it is, Python where it is not: same files, same order, same lines, same notes."""
    answer = tmp_path / "answer"
    ripgrep = programs(tmp_path / "with", f"#!/bin/sh\nexec cat {answer}\n")
    python = programs(tmp_path / "without")
    answers: list[str] = json.loads(RECORDED.read_text())

    async def body(desk: Desk) -> list[str]:
        plant(desk.folder)
        shown = []
        for request, recorded in zip(REQUESTS, answers, strict=True):
            answer.write_text(recorded)
            shown.append(await desk.use("grep", **request))
        return shown

    for request, ours, theirs in zip(REQUESTS, at_desk(tmp_path, body, python), at_desk(tmp_path, body, ripgrep), strict=True):
        assert ours == theirs, request


def test_matches_are_shown_with_path_and_line(tmp_path: Path) -> None:
    """P27: a path below the one asked for is shown so that it can be read."""

    async def body(desk: Desk) -> None:
        plant(desk.folder)
        assert await desk.use("grep", pattern="return os", path=".") == "a.py:5:     return os.environ.get(name)"
        assert await desk.use("grep", pattern="too", path="b") == "b/b.txt:3: find me too"
        assert await desk.use("grep", pattern="too", path=str(desk.folder / "b")) == f"{desk.folder}/b/b.txt:3: find me too"
        assert await desk.use("grep", pattern="too", path="b/b.txt", context=1) == "b/b.txt-2- not me\nb/b.txt:3: find me too"

    at_desk(tmp_path, body, programs(tmp_path / "bin"))


def test_groups_with_context_are_separated(tmp_path: Path) -> None:
    """As grep does; contexts that touch are one group."""

    async def body(desk: Desk) -> None:
        (desk.folder / "f").write_text("".join(f"{n}\n" for n in range(1, 20)))
        assert await desk.use("grep", pattern="^(5|7|15)$", context=1) == (
            "f-4- 4\nf:5: 5\nf-6- 6\nf:7: 7\nf-8- 8\n--\nf-14- 14\nf:15: 15\nf-16- 16"
        )

    at_desk(tmp_path, body, programs(tmp_path / "bin"))


def test_the_limit_is_told_only_when_there_was_more(tmp_path: Path) -> None:
    """P27: exactly as many matches as the limit is not more."""

    async def body(desk: Desk) -> None:
        (desk.folder / "f").write_text("x\n" * 100)
        assert "[" not in await desk.use("grep", pattern="x")
        assert (await desk.use("grep", pattern="x", limit=99)).endswith(
            "f:99: x\n\n[The first 99 matches; there are more. Narrow the search or raise the limit.]"
        )

    at_desk(tmp_path, body, programs(tmp_path / "bin"))


def test_long_lines_and_long_results_are_cut(tmp_path: Path) -> None:
    """P27: 500 characters, 50 KB."""

    async def body(desk: Desk) -> None:
        (desk.folder / "f").write_text(("y" * 700 + "\n") * 100)
        text = await desk.use("grep", pattern="y")
        assert text.startswith("f:1: " + "y" * 500 + "… (cut)\nf:2: ")
        assert text.endswith("\n\n[The first 50 KB; there are more matches. Narrow the path or the pattern.]")
        assert len(text.encode()) < 52_000

    at_desk(tmp_path, body, programs(tmp_path / "bin"))


def test_a_wrong_pattern_and_a_wrong_path_are_told(tmp_path: Path) -> None:
    """With the searcher's own words."""

    async def body(desk: Desk) -> None:
        assert "not a regular expression" in await desk.refused("grep", pattern="(")
        assert await desk.refused("grep", pattern="x", path="none") == "none does not exist."
        assert "too many alternatives" in await desk.refused("grep", pattern="x", glob="{a,b}" * 12)

    at_desk(tmp_path, body, programs(tmp_path / "bin"))


def test_a_search_leaves_no_file_of_its_output(tmp_path: Path) -> None:
    """What a search answers is not kept beside the outputs of commands."""

    async def body(desk: Desk) -> None:
        (desk.folder / "f").write_text(("y" * 700 + "\n") * 200)
        await desk.use("grep", pattern="y")
        assert list((tmp_path / "private").rglob("*.log")) == []

    at_desk(tmp_path, body, programs(tmp_path / "bin"))


@pytest.mark.slow
def test_a_pattern_that_matches_for_ever_is_ended_with_its_command(tmp_path: Path) -> None:
    """X7: exponential backtracking costs a process for a while, never the worker's event loop."""

    async def main() -> float:
        (tmp_path / "f").write_text("a" * 60 + "b\n")
        sandbox = await local(tmp_path, env=programs(tmp_path / "bin")).open("test/search", str(tmp_path / "private"))
        request = {"pattern": "^(a+)+$", "file": "f", "glob": None, "ignore_case": False, "literal": False}
        command = search_command(request | {"context": 0, "limit": 2}, sys.executable)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        result = await sandbox.exec(command, timeout_seconds=1)
        ticking.cancel()
        await sandbox.close()
        assert result.timed_out
        return ticks

    assert asyncio.run(main()) > 20


def record(ripgrep: str) -> None:
    answers = []
    with tempfile.TemporaryDirectory() as name:
        plant(Path(name))
        for request in REQUESTS:
            path = Path(request.get("path", "."))
            is_file = (Path(name) / path).is_file()
            wanted = {
                "pattern": request["pattern"],
                "file": path.name if is_file else None,
                "glob": request.get("glob"),
                "ignore_case": request.get("ignoreCase", False),
                "literal": request.get("literal", False),
                "context": request.get("context", 0),
                "limit": request.get("limit", 100) + 1,
            }
            env = os.environ | {"PATH": f"{os.path.dirname(ripgrep)}:{os.environ['PATH']}"}
            folder = Path(name) / (path.parent if is_file else path)
            answer = subprocess.run(["bash", "-c", search_command(wanted)], cwd=folder, env=env, capture_output=True, text=True)
            lines = [line for line in answer.stdout.splitlines() if '"type":"summary"' not in line]
            answers.append("".join(line + "\n" for line in lines))
    RECORDED.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    record(sys.argv[1])
