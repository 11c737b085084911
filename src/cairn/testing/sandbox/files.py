"""Files: whole or not at all, links followed, errors as Python has them, and the same for commands."""

from __future__ import annotations

import asyncio

from cairn.harness.sandbox.protocol import Sandbox
from cairn.testing.sandbox.case import Case, raises


class FileCases(Case):
    """What `read`, `write`, `stat`, `list`, `remove` and `real_path` promise."""

    def test_what_was_written_is_read(self) -> None:
        """Any bytes, an empty file, names with spaces and accents, directories made on the way."""

        async def body(sandbox: Sandbox) -> None:
            for path, data in {"a/b/c.bin": bytes(range(256)), "empty": b"", "naïve file – ü.txt": "ü".encode()}.items():
                await sandbox.write(path, data)
                assert await sandbox.read(path) == data

        self.judge(body)

    def test_a_part_of_a_file_is_read(self) -> None:
        """From `start`, at most `size`, fewer where it ends, none past the end."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("digits", b"0123456789")
            assert await sandbox.read("digits", start=3) == b"3456789"
            assert await sandbox.read("digits", start=3, size=2) == b"34"
            assert await sandbox.read("digits", start=8, size=5) == b"89"
            assert await sandbox.read("digits", start=99, size=5) == b""
            assert await sandbox.read("digits", size=0) == b""

        self.judge(body)

    def test_writing_replaces_the_content_and_keeps_the_mode(self) -> None:
        """A script stays executable; nothing of a longer predecessor is left."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("script", b"#!/bin/sh\necho long ago\n")
            await sandbox.exec("chmod 750 script")
            await sandbox.write("script", b"#!/bin/sh\necho now\n")
            assert (await sandbox.exec("./script")).output == b"now\n"
            info = await sandbox.stat("script")
            assert info is not None
            assert info.mode & 0o777 == 0o750

        self.judge(body)

    def test_a_reader_sees_the_old_file_or_the_new_one(self) -> None:
        """Writes are atomic: no reader ever gets a mixture or a part."""

        async def body(sandbox: Sandbox) -> None:
            old, new = b"o" * 300_000, b"n" * 200_000
            await sandbox.write("file", old)

            async def write() -> None:
                for turn in range(20):
                    await sandbox.write("file", old if turn % 2 else new)

            writing = asyncio.ensure_future(write())
            while not writing.done():
                assert await sandbox.read("file") in (old, new)
                await asyncio.sleep(0)  # a sandbox that reads from memory never waits by itself
            await writing

        self.judge(body)

    def test_files_and_commands_see_the_same(self) -> None:
        """What one does, the other finds."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("in.txt", b"text")
            assert (await sandbox.exec("cat in.txt; printf made > out.txt")).output == b"text"
            assert await sandbox.read("out.txt") == b"made"
            assert await sandbox.read(f"{sandbox.cwd}/out.txt") == b"made"

        self.judge(body)

    def test_errors_of_files_are_pythons_own(self) -> None:
        """Missing, a directory, not a directory: each its exception."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("folder/file", b"")
            await raises(FileNotFoundError, sandbox.read("missing"))
            await raises(IsADirectoryError, sandbox.read("folder"))
            await raises(IsADirectoryError, sandbox.write("folder", b""))
            await raises(NotADirectoryError, sandbox.read("folder/file/below"))
            await raises(FileNotFoundError, sandbox.list("missing"))
            await raises(NotADirectoryError, sandbox.list("folder/file"))

        self.judge(body)

    def test_stat_says_what_is_there(self) -> None:
        """Kind and size, links followed; None for nothing; a link to nowhere is itself."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("folder/file", b"12345")
            await sandbox.exec("ln -s folder/file link; ln -s nowhere broken; ln -s loop loop")
            found = {name: await sandbox.stat(name) for name in ("folder", "folder/file", "link", "broken", "loop", "missing")}
            kinds = {name: info and info.kind for name, info in found.items()}
            assert kinds == {
                "folder": "directory",
                "folder/file": "file",
                "link": "file",
                "broken": "symlink",
                "loop": "symlink",
                "missing": None,
            }
            assert found["link"] is not None
            assert found["link"].size == 5
            assert await sandbox.stat("folder/file/below") is None

        self.judge(body)

    def test_a_directory_is_listed_by_name(self) -> None:
        """Hidden entries too; links are themselves; paths can be used as they are."""

        async def body(sandbox: Sandbox) -> None:
            for path in ("d/b", "d/a", "d/.hidden", "d/sub/x"):
                await sandbox.write(path, b"1")
            await sandbox.exec("ln -s a d/link")
            entries = await sandbox.list("d")
            names = [(entry.path.rpartition("/")[2], entry.kind) for entry in entries]
            assert names == [(".hidden", "file"), ("a", "file"), ("b", "file"), ("link", "symlink"), ("sub", "directory")]
            assert await sandbox.read(entries[1].path) == b"1"

        self.judge(body)

    def test_removing_leaves_nothing_and_may_be_repeated(self) -> None:
        """A file, a tree, a link without what it leads to, and what is not there."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("tree/a/b", b"")
            await sandbox.write("kept/file", b"1")
            await sandbox.exec("ln -s kept link")
            for path in ("tree/a/b", "tree", "tree", "link", "missing"):
                await sandbox.remove(path)
                assert await sandbox.stat(path) is None
            assert await sandbox.read("kept/file") == b"1"

        self.judge(body)

    def test_writing_through_a_link_writes_what_it_leads_to(self) -> None:
        """The link stays a link, and both names have one real path."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("folder/file", b"old")
            await sandbox.exec("ln -s folder/file link; ln -s made-later dangling")
            await sandbox.write("link", b"new")
            await sandbox.write("dangling", b"made")
            assert await sandbox.read("folder/file") == b"new"
            assert await sandbox.read("made-later") == b"made"
            assert {entry.path.rpartition("/")[2]: entry.kind for entry in await sandbox.list(".")}["link"] == "symlink"
            assert await sandbox.real_path("link") == await sandbox.real_path("folder/../folder/file")

        self.judge(body)

    def test_a_cancelled_write_writes_nothing_afterwards(self) -> None:
        """The file is as before or as asked, and stays it."""

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write("file", b"old")
            writing = asyncio.ensure_future(sandbox.write("file", b"n" * 1_000_000))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            found = await sandbox.read("file")
            assert found in (b"old", b"n" * 1_000_000)
            await asyncio.sleep(0.05)
            assert await sandbox.read("file") == found

        self.judge(body)
