"""Single calls: content of all sizes, quota, paths, patterns, differences."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.toy import run
from tests.workspace.desk import Desk, copy_of

from cairn.errors import WorkspaceError, WorkspaceFull
from cairn.runtime.files import CHUNK_BYTES, INLINE_BYTES_MAX, NAME_BYTES_MAX, Quota
from cairn.runtime.files_changes import unified
from cairn.testing import FaultyStore

SIZES = [
    0,
    1,
    INLINE_BYTES_MAX,
    INLINE_BYTES_MAX + 1,
    CHUNK_BYTES - 1,
    CHUNK_BYTES,
    CHUNK_BYTES + 1,
    pytest.param(9 * CHUNK_BYTES + 7, marks=pytest.mark.slow),
]


def bytes_of(size: int, seed: int = 1) -> bytes:
    return bytes((index * seed) % 251 for index in range(997)) * (size // 997 + 1)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", SIZES)
def test_content_of_any_size_comes_back_whole_and_in_part(size: int) -> None:
    """S2: inline, one chunk, many chunks, a list of chunks; written at once or as a stream; read by this owner or the next."""
    data = bytes_of(size)[:size]

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/at-once", data)
            await desk.files.write("/streamed", pieces(data, 300_000))
            await desk.files.copy("/streamed", "/copied")
            await desk.files.append("/streamed", b"tail")
            await desk.files.append("/streamed", pieces(data, 700_001))
            for _ in range(2):
                assert await desk.files.read("/at-once") == data == await desk.files.read("/copied")
                assert await desk.files.read("/streamed") == data + b"tail" + data
                for start, length in ((0, 10), (size // 2, 100), (max(0, size - 3), 10), (CHUNK_BYTES - 2, 5), (size, 1)):
                    assert await desk.files.read("/at-once", start, length) == data[start : start + length]
                assert b"".join([piece async for piece in desk.files.stream("/at-once", 5)]) == data[5:]
                await desk.claim()

    run(main())


def test_equal_content_is_stored_once_for_a_tenant() -> None:
    """X11: the same chunks in two files and two instances are one; a stream cut elsewhere has the same chunks."""

    async def main() -> None:
        async with Desk() as desk, Desk(beside=desk, id="b") as other:
            before = (await desk.store.info()).bytes
            data = os.urandom(4 << 20)
            await desk.files.write("/a", data)
            once = (await desk.store.info()).bytes
            await desk.files.write("/b", pieces(data, 333_333))
            await other.files.write("/c", data)
            assert (await desk.store.info()).bytes - once < (once - before) // 10
            assert await other.files.read("/c") == data

    run(main())


def test_a_write_over_the_quota_is_refused_whole() -> None:
    """P4, X7: bytes, files, and everything ever written; the error names the path and the numbers, and nothing is changed."""

    async def main() -> None:
        async with Desk(quota=Quota(bytes=1_000, files=3, history=3_000)) as desk:
            files = desk.files
            await files.write("/a", b"x" * 600)
            with pytest.raises(WorkspaceFull, match="/b") as caught:
                await files.write("/b", b"x" * 401)
            assert caught.value.errno == errno.EDQUOT and "1,000" in str(caught.value)
            with pytest.raises(WorkspaceFull):
                await files.write("/b", pieces(b"x" * 401, 100))
            with pytest.raises(WorkspaceFull):
                await files.append("/a", b"x" * 401)
            assert await copy_of(files) == {"/a": ("file", 0o644, b"x" * 600)}
            await files.write("/a", b"y" * 1_000)
            await files.mkdir("/d/e", parents=True)
            for refused in (files.write("/c", b""), files.symlink("a", "/l"), files.mkdir("/m"), files.touch("/t")):
                with pytest.raises(WorkspaceFull, match="3 files"):
                    await refused
            with pytest.raises(WorkspaceFull, match="quota"):
                async with files.transaction() as draft:
                    await draft.remove("/d", recursive=True)
                    await draft.write("/x/y/z", b"", parents=True)
            await files.remove("/d", recursive=True)
            await files.write("/a", b"z" * 900)
            with pytest.raises(WorkspaceFull, match="history"):
                await files.write("/a", b"z" * 501)
            await desk.claim()
            assert desk.files.usage() == (900, 1, 2_500)

    run(main())


def test_a_stream_over_the_quota_is_not_read_to_its_end() -> None:
    """X7: somebody who sends without end is stopped where the quota is, and what he sent is kept by nobody."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield os.urandom(100_000)

    async def main() -> None:
        async with Desk(quota=Quota(bytes=3 << 20)) as desk:
            with pytest.raises(WorkspaceFull):
                await desk.files.write("/a", endless())
            assert taken < 60
            assert await desk.store.collect_blobs(-1.0) > 0 and desk.files.list() == []

    run(main())


PATHS: list[tuple[str, str, int | None]] = [
    # path, what a read of it is or the errno
    ("/etc/passwd", "ours", None),
    ("etc/passwd", "ours", None),
    ("//etc///passwd", "ours", None),
    ("/./etc/./passwd", "ours", None),
    ("../../../../etc/passwd", "ours", None),
    ("/../etc/passwd", "ours", None),
    ("/etc/../../../etc/passwd", "ours", None),
    ("/absolute", "ours", None),
    ("/climbing", "ours", None),
    ("/chain", "ours", None),
    ("/etc/self/etc/passwd", "ours", None),
    ("/rooted/etc/passwd", "ours", None),
    ("/etc/../etc/passwd/..", "", errno.ENOTDIR),
    ("/etc/passwd/", "", errno.ENOTDIR),
    ("/etc/passwd/x", "", errno.ENOTDIR),
    ("/etc", "", errno.EISDIR),
    ("/", "", errno.EISDIR),
    ("/..", "", errno.EISDIR),
    ("", "", errno.ENOENT),
    ("/etc/shadow", "", errno.ENOENT),
    ("/proc/self/root/etc/passwd", "", errno.ENOENT),
    ("/proc/self/fd/0", "", errno.ENOENT),
    ("/dev/zero", "", errno.ENOENT),
    ("/nowhere/../etc/passwd", "", errno.ENOENT),
    ("/loop", "", errno.ELOOP),
    ("/loop/x", "", errno.ELOOP),
    ("/ping", "", errno.ELOOP),
    ("/ETC/PASSWD", "", errno.ENOENT),
    ("/Etc/passwd", "", errno.ENOENT),
    ("/etc/passwd\0", "", errno.EINVAL),
    ("\0", "", errno.EINVAL),
    ("/etc\0/passwd", "", errno.EINVAL),
    ("/etc/passwd\ud800", "", errno.EILSEQ),
    ("\udcff\udcfe", "", errno.EILSEQ),
    ("/" + "n" * (NAME_BYTES_MAX + 1), "", errno.ENAMETOOLONG),
    ("/" + "é" * 128, "", errno.ENAMETOOLONG),
    ("/" + "d/" * 2_048, "", errno.ENAMETOOLONG),
    ("/" + "../" * 1_400, "", errno.ENAMETOOLONG),
    ("/etc/ｐasswd", "", errno.ENOENT),
    ("/etc/pa\u200bsswd", "", errno.ENOENT),
    ("/caf\u00e9", "composed", None),
    ("/cafe\u0301", "decomposed", None),
    ("/..\\etc\\passwd", "", errno.ENOENT),
    ("/%2e%2e/etc/passwd", "", errno.ENOENT),
    ("/．．/etc/passwd", "", errno.ENOENT),
    ("~/x", "", errno.ENOENT),
    ("/...", "dots", None),
    ("/-rf", "dash", None),
    ("/a\nb", "newline", None),
    ("/COM1", "dos", None),
    ("C:\\x", "", errno.ENOENT),
    ("file:///etc/passwd", "", errno.ENOENT),
    ("/l40", "ours", None),
    ("/l41", "", errno.ELOOP),
]


def test_no_path_leads_anywhere_but_into_the_workspace() -> None:
    """X1, S13: upwards, absolute, through links and loops, NUL, surrogates, too long, other forms of the same letters, names
    that mean something elsewhere: each is a name like any other here, or an errno."""

    async def main() -> None:
        async with Desk() as desk:
            async with desk.files.transaction() as draft:
                for name, text in (
                    ("/etc/passwd", "ours"),
                    ("/caf\u00e9", "composed"),
                    ("/cafe\u0301", "decomposed"),
                    ("/...", "dots"),
                    ("/-rf", "dash"),
                    ("/a\nb", "newline"),
                    ("/COM1", "dos"),
                ):
                    await draft.write(name, text.encode(), parents=True)
                for target, path in (
                    ("/etc/passwd", "/absolute"),
                    ("../../../../etc/passwd", "/climbing"),
                    ("climbing", "/chain"),
                    ("..", "/etc/self"),
                    ("/", "/rooted"),
                    ("loop", "/loop"),
                    ("pong", "/ping"),
                    ("/ping", "/pong"),
                ):
                    await draft.symlink(target, path)
                await draft.symlink("/etc/passwd", "/l1")
                for number in range(2, 42):
                    await draft.symlink(f"l{number - 1}", f"/l{number}")
            for path, content, expected in PATHS:
                try:
                    found: Any = (await desk.files.read(path)).decode()
                except OSError as error:
                    assert isinstance(error, WorkspaceError)
                    found = error.errno
                assert found == (content if expected is None else expected), f"{path[:60]!r}: {found}"

    run(main())


@pytest.mark.parametrize("path", ["/a\0b", "/\ud800", "/" + "n" * 256, "", "/d/..", "/.", "/x/" * 1_400])
def test_no_file_gets_a_name_that_is_none(path: str) -> None:
    """X1: whatever makes one."""

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/f", b"")
            for call in (
                desk.files.write(path, b""),
                desk.files.mkdir(path),
                desk.files.symlink("f", path),
                desk.files.rename("/f", path),
                desk.files.copy("/f", path),
            ):
                with pytest.raises(WorkspaceError):
                    await call
            assert list(await copy_of(desk.files)) == ["/f"]

    run(main())


def test_directories_lie_in_each_other_only_so_deep() -> None:
    """X7: neither made nor moved there: what walks or exports it would fail, or take a path that no system has."""

    async def main() -> None:
        async with Desk() as desk, desk.files.transaction() as draft:
            await draft.mkdir("/d" * 256, parents=True)
            with pytest.raises(WorkspaceError) as caught:
                await draft.write("/d" * 256 + "/f", b"")
            assert caught.value.errno == errno.ENAMETOOLONG
            await draft.mkdir("/e/f/g", parents=True)
            with pytest.raises(WorkspaceError):
                await draft.rename("/e", "/d" * 254 + "/e")
            await draft.rename("/e/f", "/d" * 254 + "/f")

    run(main())


def test_patterns_find_what_a_walk_finds() -> None:
    """Each form; links are found and not entered; a pattern of many stars is answered."""

    async def main() -> None:
        async with Desk() as desk:
            async with desk.files.transaction() as draft:
                for path in ("/a.py", "/src/b.py", "/src/c.md", "/src/x/y/d.py", "/src/.hidden", "/b[1].txt", "/" + "a" * 200):
                    await draft.write(path, b"", parents=True)
                await draft.symlink("src", "/link")
            for pattern, expected in {
                "*.py": ["/a.py"],
                "**/*.py": ["/a.py", "/src/b.py", "/src/x/y/d.py"],
                "src/*": ["/src/.hidden", "/src/b.py", "/src/c.md", "/src/x"],
                "src/**": ["/src", "/src/.hidden", "/src/b.py", "/src/c.md", "/src/x", "/src/x/y", "/src/x/y/d.py"],
                "src/**/*.{py,md}": ["/src/b.py", "/src/c.md", "/src/x/y/d.py"],
                "[ab].py": ["/a.py"],
                "?.py": ["/a.py"],
                "**/y/*": ["/src/x/y/d.py"],
                "b[[]1].txt": ["/b[1].txt"],
                "/src/b.py": ["/src/b.py"],
                "l*": ["/link"],
                "nothing/**": [],
                "*a" * 40 + "*b": [],
                "**/**/**/**/**/d.py": ["/src/x/y/d.py"],
            }.items():
                assert [entry.path for entry in desk.files.glob(pattern)] == expected, pattern
            assert [entry.path for entry in desk.files.glob("*.py", "/link")] == ["/src/b.py"]
            for wrong in ("../*", "{a,b}" * 9):
                with pytest.raises(WorkspaceError):
                    desk.files.glob(wrong)

    run(main())


@given(st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d"])), st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d"])))
def test_a_diff_applied_by_patch_gives_the_new_file(old: list[str], new: list[str]) -> None:
    """The text is what `diff -u` and `patch` mean by it. Method: a hunk reader of ten lines."""
    before, after = "".join(old), "".join(new)
    text = unified(before.encode(), after.encode(), "a", "b", context=1)
    assert (text == "") == (before == after)

    source, result, at, marked = before.splitlines(keepends=True), [], 0, " "
    for line in text.splitlines(keepends=True)[2:]:
        if line.startswith("@@"):
            start, _, count = line.split()[1][1:].partition(",")
            first = int(start) - 1 if count != "0" else int(start)
            result += source[at:first]
            at = first
        elif line.startswith("\\"):
            if marked in " +":
                result[-1] = result[-1].rstrip("\n")
        else:
            marked = line[0]
            at += marked in " -"
            result += [line[1:]] if marked in " +" else []
    assert "".join(result + source[at:]) == after


def test_a_diff_of_what_is_no_text_says_only_that_it_differs() -> None:
    """X7: binary and very long files are not compared line by line."""
    assert unified(b"\0", b"\1", "a", "b") == "Files a and b differ (1 and 1 bytes)\n"
    assert unified(b"", b"\xff", "a", "b").startswith("Files a and b differ")
    assert unified(b"x\n" * 20_000, b"", "a", "b").startswith("Files a and b differ")


def test_a_touch_of_one_file_is_small_whatever_else_there_is() -> None:
    """A write, a chmod and a rename say nothing of other files."""

    async def main() -> None:
        store = FaultyStore(Desk().store_of_its_own())
        async with Desk(store) as desk:
            await desk.files.mkdir("/d")
            await desk.files.write("/d/f", b"1")
            weights = []
            for call in (desk.files.write("/d/f", b"2"), desk.files.chmod("/d/f", 0o600), desk.files.rename("/d", "/e")):
                await call
                weights.append(len((await store.read(desk.instance.n, desk.instance.head - 1))[0].batch.records))
            assert max(weights) < 250

    run(main())
