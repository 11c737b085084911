"""The glob and ls tools: what is found, in which order, and what is said of the rest."""

from __future__ import annotations

import os
from pathlib import Path

from tests.harness.sandbox.support import Desk, at_desk
from tests.harness.sandbox.test_grep import plant


def test_glob_finds_by_path_in_order(tmp_path: Path) -> None:
    """P27: hidden files too; not what .gitignore excludes, not .git; relative to what was asked for."""

    async def body(desk: Desk) -> None:
        plant(desk.folder)
        assert await desk.use("glob", pattern="*.py") == "a.py\nb/build/out.py\nb/deep/c.py"
        assert await desk.use("glob", pattern="b/**/*.txt") == "b/b.txt"
        assert await desk.use("glob", pattern="./a.*") == "a.py"
        assert await desk.use("glob", pattern="*.log") == "keep.log"
        assert await desk.use("glob", pattern=".*") == ".gitignore\n.hidden\nb/.gitignore"
        assert await desk.use("glob", pattern="*.{py,txt}", path="b") == "b/b.txt\nb/build/out.py\nb/deep/c.py"
        assert await desk.use("glob", pattern="m.*", path="b/node_modules") == "b/node_modules/m.js"
        assert await desk.use("glob", pattern="none.*") == "No file matches none.*."

    at_desk(tmp_path, body)


def test_glob_and_grep_look_at_the_same_files(tmp_path: Path) -> None:
    """P27: below the top and below a directory with rules above it; a link is not followed, not even in a circle."""

    async def body(desk: Desk) -> None:
        plant(desk.folder)
        os.symlink("..", desk.folder / "b/circle")
        for path in (".", "b", "b/deep"):
            found = (await desk.use("glob", pattern="**", path=path)).split("\n")
            lines = (await desk.use("grep", pattern="^", path=path, limit=1000)).split("\n")
            searched = {line.partition(":")[0] for line in lines}
            assert {name for name in found if name.rpartition("/")[2] != "binary"} == searched

    at_desk(tmp_path, body)


def test_glob_says_that_there_is_more(tmp_path: Path) -> None:
    """P27: only if there is."""

    async def body(desk: Desk) -> None:
        for number in range(12):
            (desk.folder / f"{number:02}.txt").touch()
        assert "[" not in await desk.use("glob", pattern="*.txt", limit=12)
        assert await desk.use("glob", pattern="*.txt", limit=2) == (
            "00.txt\n01.txt\n\n[The first 2; there are more. Narrow the pattern or the path.]"
        )

    at_desk(tmp_path, body)


def test_glob_tells_what_is_wrong(tmp_path: Path) -> None:
    """A path that is not there, one that is a file, a pattern that explodes."""

    async def body(desk: Desk) -> None:
        (desk.folder / "file").touch()
        assert await desk.refused("glob", pattern="*", path="none") == "none does not exist."
        assert await desk.refused("glob", pattern="*", path="file") == "file is a file, not a directory."
        assert "too many alternatives" in await desk.refused("glob", pattern="{a,b}" * 20)

    at_desk(tmp_path, body)


def test_ls_lists_a_directory(tmp_path: Path) -> None:
    """P27: by name without regard to case, hidden entries too, directories with a slash, links as they are called."""

    async def body(desk: Desk) -> None:
        for name in ("b.txt", "A.txt", ".hidden", "two\nlines"):
            (desk.folder / name).touch()
        (desk.folder / "Folder").mkdir()
        os.symlink("Folder", desk.folder / "link")
        assert await desk.use("ls") == ".hidden\nA.txt\nb.txt\nFolder/\nlink\ntwo?lines"
        assert await desk.use("ls", path="Folder") == "(Folder is empty)"
        assert await desk.use("ls", limit=2) == ".hidden\nA.txt\n\n[2 of 6 entries.]"
        assert await desk.use("ls", path="link") == "(link is empty)"
        assert await desk.refused("ls", path="b.txt") == "b.txt is a file, not a directory."
        assert await desk.refused("ls", path="c.txt") == "c.txt does not exist. Similar in .: b.txt, A.txt."

    at_desk(tmp_path, body)


def test_ls_shows_500_entries_at_most(tmp_path: Path) -> None:
    """P27: and says how many there are."""

    async def body(desk: Desk) -> None:
        for number in range(510):
            (desk.folder / f"{number:03}").touch()
        text = await desk.use("ls", limit=9_999)
        assert text.startswith("000\n001\n")
        assert text.endswith("\n499\n\n[500 of 510 entries.]")

    at_desk(tmp_path, body)
