"""The write and edit tools: what is on the disk afterwards, and what the model is told."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.harness.sandbox.support import Desk, at_desk, text_of

from cairn.harness.sandbox.edit import mended
from cairn.harness.sandbox.files import file_tools


def test_write_creates_and_replaces(tmp_path: Path) -> None:
    """P27: with parents; the model is told which of the two, and how much."""

    async def body(desk: Desk) -> None:
        assert await desk.use("write", path="a/b.txt", content="ü\n") == "Created a/b.txt (3 bytes)."
        assert await desk.use("write", path="a/b.txt", content="") == "Replaced a/b.txt (0 bytes)."
        assert (desk.folder / "a/b.txt").read_bytes() == b""
        result = await desk.result("write", path="c", content="1")
        assert result.details == {"path": "c", "bytes": 1, "created": True}

    at_desk(tmp_path, body)


def test_write_says_what_stands_in_its_way(tmp_path: Path) -> None:
    """A directory, a file as a directory, a file one may not write."""

    async def body(desk: Desk) -> None:
        (desk.folder / "folder").mkdir()
        (desk.folder / "file").touch()
        assert await desk.refused("write", path="folder", content="") == "folder is a directory, not a file; list it with ls."
        assert "part of its path is a file" in await desk.refused("write", path="file/below", content="")
        assert "not a file" in await desk.refused("write", path="/dev/null", content="x")

    at_desk(tmp_path, body)


def test_a_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    """Nor does one that failed."""

    async def body(desk: Desk) -> None:
        await desk.use("write", path="a", content="1")
        await desk.use("edit", path="a", edits=[{"oldText": "1", "newText": "2"}])
        assert [path.name for path in desk.folder.iterdir()] == ["a"]

    at_desk(tmp_path, body)


def test_a_new_file_has_the_mode_that_new_files_have(tmp_path: Path) -> None:
    """Not the private one of temporary files."""

    async def body(desk: Desk) -> None:
        before = os.umask(0o027)
        try:
            await desk.use("write", path="new", content="1")
        finally:
            os.umask(before)
        assert (desk.folder / "new").stat().st_mode & 0o777 == 0o640

    at_desk(tmp_path, body)


def test_an_edit_changes_what_it_names_and_shows_the_diff_to_people(tmp_path: Path) -> None:
    """P27: the model is told where; the diff is in the details."""

    async def body(desk: Desk) -> None:
        (desk.folder / "a.py").write_text("def f():\n    return 1\n\n\ndef g():\n    return 2\n")
        edits = [{"oldText": "return 2", "newText": "return 3"}, {"oldText": "return 1", "newText": "return 2"}]
        result = await desk.result("edit", path="a.py", edits=edits)
        assert text_of(result) == "Changed a.py: 2 edits (before the change: line 2, 6)."
        assert (desk.folder / "a.py").read_text() == "def f():\n    return 2\n\n\ndef g():\n    return 3\n"
        assert result.details["first_line"] == 2
        assert "-    return 1\n+    return 2\n" in result.details["diff"]

    at_desk(tmp_path, body)


def test_an_edit_that_does_not_apply_changes_nothing_and_says_all_that_is_wrong(tmp_path: Path) -> None:
    """P27: all edits or none."""

    async def body(desk: Desk) -> None:
        (desk.folder / "a").write_text("one\ntwo\ntwo\n")
        edits = [{"oldText": text, "newText": "x"} for text in ("one", "two", "three")]
        told = await desk.refused("edit", path="a", edits=edits)
        assert told.startswith("a was not changed:\n- edit 2 of 3: the old text occurs 2 times (at lines 2, 3)")
        assert "- edit 3 of 3: the old text was not found" in told
        assert (desk.folder / "a").read_text() == "one\ntwo\ntwo\n"
        assert "does not exist" in await desk.refused("edit", path="b", edits=edits)
        (desk.folder / "bin").write_bytes(b"one\0")
        assert await desk.refused("edit", path="bin", edits=edits) == "bin is not text and was not changed."

    at_desk(tmp_path, body)


def test_an_edit_tells_that_it_matched_loosely(tmp_path: Path) -> None:
    """P27: so that the model reads again before it relies on its memory."""

    async def body(desk: Desk) -> None:
        (desk.folder / "a").write_text("say “hi”  \nnow\n")
        told = await desk.use("edit", path="a", edits=[{"oldText": 'say "hi"\nnow', "newText": "done"}])
        assert told.startswith("Changed a: 1 edit (before the change: line 1–2). The old text did not match to the letter")
        assert (desk.folder / "a").read_text() == "done\n"

    at_desk(tmp_path, body)


def test_bytes_that_are_not_utf8_survive_an_edit(tmp_path: Path) -> None:
    """P27: and the byte order mark, line ends and mode with them."""

    async def body(desk: Desk) -> None:
        path = desk.folder / "a"
        path.write_bytes(b"\xef\xbb\xbfcaf\xe9\r\nold\r\n")
        path.chmod(0o755)
        await desk.use("edit", path="a", edits=[{"oldText": "old", "newText": "new\nline"}])
        assert path.read_bytes() == b"\xef\xbb\xbfcaf\xe9\r\nnew\r\nline\r\n"
        assert path.stat().st_mode & 0o777 == 0o755

    at_desk(tmp_path, body)


EDIT = {"oldText": "a", "newText": "b"}


@pytest.mark.parametrize(
    "sent",
    [
        {"path": "f", "edits": [EDIT]},
        {"path": "f", "edits": json.dumps([EDIT])},
        {"path": "f", "edits": json.dumps(EDIT)},
        {"path": "f", "edits": EDIT},
        {"path": "f", "oldText": "a", "newText": "b"},
        {"path": "f", "old_string": "a", "new_string": "b"},
        {"path": "f", "edits": [], "oldText": "a", "newText": "b"},
        {"path": "f", "edits": [{"old_text": "a", "new_text": "b"}]},
    ],
)
def test_the_shapes_that_models_send_are_understood(sent: dict[str, Any]) -> None:
    """P27: JSON text, one object, the two texts beside the path."""
    edit = next(tool for tool in file_tools() if tool.name == "edit")

    assert edit.validate(sent) == {"path": "f", "edits": [EDIT]}


@pytest.mark.parametrize(
    "sent", [{"path": "f"}, {"path": "f", "edits": "no json"}, {"path": "f", "edits": [1]}, {"edits": [EDIT]}]
)
def test_other_shapes_are_refused_in_words(sent: dict[str, Any]) -> None:
    """Nothing is guessed."""
    edit = next(tool for tool in file_tools() if tool.name == "edit")

    with pytest.raises(ValueError, match="do not fit"):
        edit.validate(sent)


def test_what_is_sent_is_not_changed_in_place() -> None:
    """The arguments are recorded as the model wrote them."""
    sent = {"path": "f", "edits": [{"old_text": "a", "new_text": "b"}], "oldText": "c", "newText": "d"}
    before = json.dumps(sent)

    mended(sent)

    assert json.dumps(sent) == before


def test_edits_of_one_file_that_run_at_once_all_count(tmp_path: Path) -> None:
    """P27: under two names of one file, too; none is lost to another's write."""

    async def body(desk: Desk) -> None:
        (desk.folder / "a").write_text("".join(f"<{n}>\n" for n in range(30)))
        os.symlink("a", desk.folder / "link")
        calls = [
            desk.use("edit", path="link" if n % 2 else "./a", edits=[{"oldText": f"<{n}>", "newText": f"[{n}]"}])
            for n in range(30)
        ]
        await asyncio.gather(*calls)
        assert (desk.folder / "a").read_text() == "".join(f"[{n}]\n" for n in range(30))
        assert (desk.folder / "link").is_symlink()

    at_desk(tmp_path, body)


def test_the_tools_say_what_a_repeat_means_and_which_wait_for_each_other() -> None:
    """S9: nothing that cannot bear it is repeated; what writes to the workspace takes turns."""
    declared = {tool.name: (tool.repeat, tool.sequential) for tool in file_tools()}

    assert declared == {
        "read": ("safe", False),
        "write": ("safe", "workspace"),
        "edit": ("never", "workspace"),
        "bash": ("never", "workspace"),
        "grep": ("safe", False),
        "glob": ("safe", False),
        "ls": ("safe", False),
    }
    assert [tool.name for tool in file_tools(shell=False)] == ["read", "write", "edit", "glob", "ls"]
