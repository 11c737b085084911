"""The read tool: limits, where to go on, and what is not text."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.harness.sandbox.support import Desk, at_desk, blocks_of, text_of

from cairn.harness.messages import Image
from cairn.harness.sandbox.read import IMAGE_BYTES_MAX, Window, image_type

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def test_a_small_file_is_shown_as_it_is(tmp_path: Path) -> None:
    """P27: no line numbers, no notes; line ends and the byte order mark are not shown."""

    async def body(desk: Desk) -> None:
        (desk.folder / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\nthree")
        assert await desk.use("read", path="a.txt") == "one\n\nthree"
        (desk.folder / "empty").touch()
        assert await desk.use("read", path="empty") == "(empty is empty)"

    at_desk(tmp_path, body)


def test_more_than_2000_lines_are_continued_by_offset(tmp_path: Path) -> None:
    """P27: the note names the lines and the next offset; following it reads every line once."""

    async def body(desk: Desk) -> None:
        (desk.folder / "long").write_text("".join(f"line {n}\n" for n in range(1, 4_501)))
        first = await desk.use("read", path="long")
        second = await desk.use("read", path="long", offset=2001)
        third = await desk.use("read", path="long", offset=4001)
        assert first.endswith("line 2000\n\n[Lines 1–2000 of 4500. To go on, read with offset=2001.]")
        assert second.startswith("line 2001\n")
        assert third.endswith("line 4500")
        parts = [text.partition("\n\n[")[0] for text in (first, second, third)]
        assert "\n".join(parts).split("\n") == [f"line {n}" for n in range(1, 4501)]

    at_desk(tmp_path, body)


def test_more_than_50_kb_are_cut_at_a_line(tmp_path: Path) -> None:
    """P27: whichever limit comes first, never a part of a line."""

    async def body(desk: Desk) -> None:
        (desk.folder / "wide").write_text(("x" * 999 + "\n") * 100)
        text = await desk.use("read", path="wide")
        shown, _, note = text.partition("\n\n")
        assert shown == "\n".join(["x" * 999] * 51)
        assert note == "[Lines 1–51 of 100. To go on, read with offset=52.]"

    at_desk(tmp_path, body)


def test_offset_and_limit_choose_lines(tmp_path: Path) -> None:
    """P27: as strings too; what a limit leaves out is said."""

    async def body(desk: Desk) -> None:
        (desk.folder / "ten").write_text("".join(f"{n}\n" for n in range(1, 11)))
        assert await desk.use("read", path="ten", offset="9") == "9\n10"
        assert (
            await desk.use("read", path="ten", offset=3, limit=2) == "3\n4\n\n[Lines 3–4 of 10. To go on, read with offset=5.]"
        )

    at_desk(tmp_path, body)


def test_an_offset_past_the_end_is_an_error_with_the_count(tmp_path: Path) -> None:
    """P27."""

    async def body(desk: Desk) -> None:
        (desk.folder / "three").write_text("1\n2\n3")
        (desk.folder / "one").write_text("1\n")
        assert await desk.refused("read", path="three", offset=4) == "offset 4 is past the end: three has 3 lines."
        assert await desk.refused("read", path="one", offset=2) == "offset 2 is past the end: one has 1 line."
        assert "offset" in await desk.refused("read", path="one", offset=0)

    at_desk(tmp_path, body)


def test_a_line_that_is_too_long_names_a_command_that_reads_it(tmp_path: Path) -> None:
    """P27: and the command works."""

    async def body(desk: Desk) -> None:
        (desk.folder / "min.js").write_text("short\n" + "y" * 60_000 + "\nend\n")
        text = await desk.use("read", path="min.js")
        assert text == "short\n\n[Lines 1–1 of 3. To go on, read with offset=2.]"
        told = await desk.refused("read", path="min.js", offset=2)
        assert told.startswith("Line 2 of min.js alone is longer than the limit of 50 KB.")
        command = told.partition("with a command: ")[2]
        assert await desk.use("bash", command=command) == "y" * 25_600

    at_desk(tmp_path, body)


@pytest.mark.slow
def test_a_huge_file_needs_little_memory(tmp_path: Path) -> None:
    """P27: memory does not depend on the file's size; from a place far inside, too, and with one endless line."""

    async def body(desk: Desk) -> None:
        with (desk.folder / "huge").open("wb") as file:
            for _ in range(200):
                file.write((b"z" * 1023 + b"\n") * 1024)
            file.write(b"w" * 50_000_000)
        tracemalloc.start()
        text = await desk.use("read", path="huge", offset=200_000, limit=1)
        told = await desk.refused("read", path="huge", offset=204_801)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert text.endswith("[Lines 200000–200000 of 204801. To go on, read with offset=200001.]")
        assert "alone is longer" in told
        assert peak < 8_000_000

    at_desk(tmp_path, body)


def test_images_are_known_by_their_bytes(tmp_path: Path) -> None:
    """P27: whatever the name says; a caption comes with it."""

    async def body(desk: Desk) -> None:
        (desk.folder / "photo.txt").write_bytes(PNG)
        caption, image = blocks_of(await desk.result("read", path="photo.txt"))
        assert isinstance(image, Image)
        assert (image.mime_type, image.data, image.filename) == ("image/png", PNG, "photo.txt")
        assert text_of(await desk.result("read", path="photo.txt")) == "photo.txt: image/png, 28 bytes"
        assert caption != image

    at_desk(tmp_path, body)


def test_an_image_that_no_model_takes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """P27: too large, or of a kind that providers do not know."""

    async def body(desk: Desk) -> None:
        (desk.folder / "big.png").write_bytes(PNG + b"\0" * IMAGE_BYTES_MAX)
        assert "Make a smaller copy" in await desk.refused("read", path="big.png")
        (desk.folder / "old.bmp").write_bytes(b"BM" + b"\1\0\0\0" + b"\0" * 20)
        assert "convert it to PNG" in await desk.refused("read", path="old.bmp")

    at_desk(tmp_path, body)


def test_the_kinds_of_images() -> None:
    """By their first bytes; a text that begins alike is a text."""
    assert image_type(b"\xff\xd8\xff\xe0") == "image/jpeg"
    assert image_type(b"GIF89a..") == "image/gif"
    assert image_type(b"RIFF\0\0\0\0WEBPVP8 ") == "image/webp"
    assert image_type(b"BM is how this text begins, at some length") is None
    assert image_type(b"") is None


def test_what_is_not_text_is_said(tmp_path: Path) -> None:
    """P27: a binary file, a directory, a device, a missing file with those like it."""

    async def body(desk: Desk) -> None:
        (desk.folder / "program").write_bytes(b"\x7fELF\0\0\0")
        (desk.folder / "folder").mkdir()
        (desk.folder / "readme.md").touch()
        assert await desk.refused("read", path="program") == (
            "program is not text (7 bytes); look at it with a command, such as file or xxd."
        )
        assert await desk.refused("read", path="folder") == "folder is a directory, not a file; list it with ls."
        assert "not a file" in await desk.refused("read", path="/dev/zero")
        assert await desk.refused("read", path="readmee.md") == "readmee.md does not exist. Similar in .: readme.md."
        assert await desk.refused("read", path="no/such/file") == (
            "no/such/file does not exist, nor does its directory no/such."
        )
        assert "NUL" in await desk.refused("read", path="a\0b")

    at_desk(tmp_path, body)


def test_bytes_that_are_not_utf8_are_shown_as_replaced(tmp_path: Path) -> None:
    """One wrong byte does not hide a file."""

    async def body(desk: Desk) -> None:
        (desk.folder / "latin").write_bytes(b"caf\xe9\nok\n")
        assert await desk.use("read", path="latin") == "caf\ufffd\nok"

    at_desk(tmp_path, body)


def test_names_that_look_the_same_are_found(tmp_path: Path) -> None:
    """P27: decomposed accents, narrow spaces, curly apostrophes; not when two do."""

    async def body(desk: Desk) -> None:
        (desk.folder / "Bildschirmfoto 9.41\u202fPM.txt").write_text("shot")
        (desk.folder / "u\u0308ber.txt").write_text("accent")
        (desk.folder / "it\u2019s").write_text("curly")
        assert await desk.use("read", path="Bildschirmfoto 9.41 PM.txt") == "shot"
        assert await desk.use("read", path="\u00fcber.txt") == "accent"
        assert await desk.use("read", path="it's") == "curly"

    at_desk(tmp_path, body)


def test_paths_lead_wherever_the_user_may_read(tmp_path: Path) -> None:
    """`local()` is no isolation: `..`, absolute paths, links and the home directory all work, and that is said."""

    async def body(desk: Desk) -> None:
        (tmp_path / "outside").write_text("outside")
        os.symlink("../outside", desk.folder / "link")
        for path in ("../outside", str(tmp_path / "outside"), "link"):
            assert await desk.use("read", path=path) == "outside"

    at_desk(tmp_path, body)


@given(
    st.lists(st.text("ab", max_size=5), max_size=30), st.integers(1, 35), st.integers(1, 8), st.integers(1, 7), st.booleans()
)
def test_the_window_is_the_same_however_the_bytes_are_cut(
    lines: list[str], first: int, lines_max: int, step: int, ended: bool
) -> None:
    """P27: lines, total and limits do not depend on the blocks."""
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    data = text.encode()
    expected = text.split("\n")
    if expected[-1] == "":
        expected.pop()
    window = Window(first, lines_max, bytes_max=12)
    for at in range(0, len(data), step):
        window.feed(data[at : at + step])

    chosen: list[str] = []
    for line in expected[first - 1 : first - 1 + lines_max]:
        if len("\n".join([*chosen, line])) > 12:
            break
        chosen.append(line)
    assert window.total == len(expected)
    assert window.lines() == chosen
