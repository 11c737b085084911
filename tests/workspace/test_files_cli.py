"""`cairn files` and `cairn export`: an instance's files from outside, as they are and as they were."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from tests.framework.shell import CAIRN, Shell
from tests.workspace.desk import Desk

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def filled(path: Path) -> tuple[int, int]:
    """A store with files of `toy/a`; the offsets of two moments."""

    async def main() -> tuple[int, int]:
        store = SqliteStore(str(path), clock=SystemClock(), ids=SystemIds())
        async with Desk(store) as desk:
            async with desk.files.transaction() as draft:
                await draft.write("/notes/plan.md", b"one\n", parents=True)
                await draft.write("/run.sh", b"#!/bin/sh\n", mode=0o755)
                await draft.symlink("/notes/plan.md", "/plan")
                await draft.write("/evil\x1b[2J", b"\x1b[31mred\n")
            first = desk.instance.head
            await desk.files.write("/notes/plan.md", b"two\n")
            await desk.files.remove("/run.sh")
            await desk.files.write("/bin", b"\xff\x00")
            return first, desk.instance.head

    return asyncio.run(main())


def test_files_are_listed_and_shown_as_they_are_and_as_they_were(shell: Shell) -> None:
    """S3, S15: without the instance's application; a past offset shows what was there then."""
    first, last = filled(shell.folder / "cairn.db")
    store = ("--store", "cairn.db")

    now = shell.cairn("files", "toy/a", *store)
    assert now.code == 0 and f"at offset {last}" in now.out
    assert "/plan -> /notes/plan.md" in now.out and "/run.sh" not in now.out
    assert "\x1b" not in now.out, "a name does not reach the terminal as a command"
    then = shell.cairn("files", "toy/a", "--at", str(first), *store)
    assert "-rwxr-xr-x" in then.out and "/run.sh" in then.out and "/bin" not in then.out
    assert shell.cairn("files", "toy/a", "/notes", *store).out.count("plan.md") == 1
    listed = shell.cairn("files", "toy/a", "--json", *store).events
    assert {entry["path"]: entry["kind"] for entry in listed}["/plan"] == "link"
    shown = shell.cairn("files", "toy/a", "plan", "--at", str(first), "--json", *store).events
    assert shown[0]["text"] == "one\n"
    assert shell.cairn("files", "toy/a", "/bin", "--json", *store).events[0]["data"] == "/wA="


@pytest.mark.slow
def test_content_goes_into_a_pipe_as_it_is(shell: Shell) -> None:
    """S2: every byte, by the installed command."""
    filled(shell.folder / "cairn.db")
    command = [CAIRN, "files", "toy/a", "/evil\x1b[2J", "--store", "cairn.db"]
    assert subprocess.run(command, capture_output=True, cwd=shell.folder, check=True).stdout == b"\x1b[31mred\n"


def test_what_has_changed_since_an_offset_is_a_diff(shell: Shell) -> None:
    """S3."""
    first, last = filled(shell.folder / "cairn.db")
    text = shell.cairn("files", "toy/a", "--since", str(first), "--store", "cairn.db").out
    assert "-one\n+two\n" in text and "--- a/run.sh\n+++ /dev/null\n" in text
    changes = shell.cairn("files", "toy/a", "--since", str(first), "--json", "--store", "cairn.db").events
    assert [(change["what"], change["path"]) for change in changes] == [
        ("created", "/bin"),
        ("changed", "/notes/plan.md"),
        ("removed", "/run.sh"),
    ]
    none = shell.cairn("files", "toy/a", "--since", str(first), "--at", str(first), "--store", "cairn.db")
    assert none.code == 0 and none.out == "" and last > first


def test_files_are_exported_into_a_new_directory_or_archive(shell: Shell) -> None:
    """S13: as of any offset; never over what is there; links lead inside."""
    first, _ = filled(shell.folder / "cairn.db")
    store = ("--store", "cairn.db")

    done = shell.cairn("export", "toy/a", *store)
    assert done.code == 0 and "toy-a" in done.out
    assert (shell.folder / "toy-a" / "plan").read_text() == "two\n"
    assert str((shell.folder / "toy-a" / "plan").readlink()) == "notes/plan.md"
    assert shell.cairn("export", "toy/a", *store).code == 2, "it is not empty any more"
    done = shell.cairn("export", "toy/a", "--files", "then.tar", "--at", str(first), "--json", *store)
    assert json.loads(done.out)["offset"] == first
    listed = subprocess.run(["tar", "tf", "then.tar"], cwd=shell.folder, capture_output=True, text=True, check=True).stdout
    assert "run.sh" in listed and "notes/plan.md" in listed
    assert shell.cairn("export", "toy/a", "--files", "then.tar", *store).code == 2
    assert sorted(path.name for path in shell.folder.glob("*.partial")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("files", "toy/nobody"), "no instance"),
        (("files", "nonsense"), "KIND/ID"),
        (("files", "toy/a", "/none"), "/none"),
        (("files", "toy/a", "../../etc/passwd"), "etc/passwd"),
        (("files", "toy/a", "--at", "99999999"), "99999999"),
        (("export", "toy/a", "--at", "99999999"), "99999999"),
        (("export", "toy/nobody"), "no instance"),
    ],
)
def test_a_mistake_is_one_line(shell: Shell, arguments: tuple[str, ...], said: str) -> None:
    """S14: exit code 2, what and where, and nothing is made."""
    filled(shell.folder / "cairn.db")
    done = shell.cairn(*arguments, "--store", "cairn.db")
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
    assert not (shell.folder / "toy-nobody").exists()
