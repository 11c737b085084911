"""Files in and out: directories, archives, fsspec; against the machine and its own tools."""

# ruff: noqa: ASYNC230, ASYNC240 - nothing else runs in the loop of a test

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.toy import run
from tests.workspace.desk import Desk, copy_of

from cairn.errors import UsageError, WorkspaceError, WorkspaceFull
from cairn.runtime.files import Quota
from cairn.runtime.workspace_exchange import export_directory, export_tar, import_directory, import_tar


def project(root: Path) -> None:
    """A directory with one of everything."""
    (root / "src").mkdir(parents=True)
    (root / "src" / "app.py").write_text("print('hi')\n")
    (root / "src" / "empty").write_bytes(b"")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "big.bin").write_bytes(os.urandom(2_500_000))
    (root / "größe €.txt").write_text("ü")
    (root / "none").mkdir()
    (root / "src" / "up").symlink_to("../run.sh")
    (root / "dangling").symlink_to("nowhere/at/all")
    os.utime(root / "run.sh", (1_000_000_000, 1_000_000_000))


def seen(root: Path) -> dict[str, tuple[str, int, Any]]:
    found: dict[str, tuple[str, int, Any]] = {}
    for above, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = Path(above, name)
            kind = "link" if path.is_symlink() else "directory" if path.is_dir() else "file"
            content = os.readlink(path) if kind == "link" else path.read_bytes() if kind == "file" else None
            found[f"/{path.relative_to(root)}"] = (kind, path.lstat().st_mode & 0o777, content)
    return found


def test_a_directory_comes_back_as_it_went_in(tmp_path: Path) -> None:
    """S13: names, modes, times, links and content; in one batch, and out again into a new directory only."""
    project(tmp_path / "in")

    async def main() -> None:
        async with Desk() as desk:
            head = desk.instance.head
            async with desk.files.transaction() as draft:
                await import_directory(draft, tmp_path / "in")
            await export_directory(desk.files, tmp_path / "out")

            assert await copy_of(desk.files) == seen(tmp_path / "in") == seen(tmp_path / "out")
            assert desk.instance.head == head + 1
            assert (tmp_path / "out" / "run.sh").stat().st_mtime == 1_000_000_000
            with pytest.raises(UsageError, match="not empty"):
                await export_directory(desk.files, tmp_path / "out")

    run(main())


def test_an_archive_comes_back_as_it_went_in_and_tar_reads_it(tmp_path: Path) -> None:
    """S13: the machine's tar unpacks what is exported, and what it packs (compressed too) is imported."""
    project(tmp_path / "in")
    subprocess.run(["tar", "czf", str(tmp_path / "in.tar.gz"), "-C", str(tmp_path / "in"), "."], check=True)

    async def main() -> None:
        async with Desk() as desk:
            async with desk.files.transaction() as draft:
                with open(tmp_path / "in.tar.gz", "rb") as archive:
                    await import_tar(draft, archive)
            assert await copy_of(desk.files) == seen(tmp_path / "in")
            with open(tmp_path / "out.tar", "wb") as archive:
                await export_tar(desk.files, archive)
            again = io.BytesIO()
            await export_tar(desk.files, again)
            assert again.getvalue() == (tmp_path / "out.tar").read_bytes(), "the same files, the same bytes"

    run(main())
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "xpf", str(tmp_path / "out.tar"), "-C", str(tmp_path / "out")], check=True)
    assert seen(tmp_path / "out") == seen(tmp_path / "in")


def test_links_never_lead_out_of_what_is_exported(tmp_path: Path) -> None:
    """X1: absolute ones, ones with more `..` than directories, ones that climb through others: to the same place inside."""

    async def main() -> None:
        async with Desk() as desk:
            async with desk.files.transaction() as draft:
                await draft.mkdir("/etc/deep", parents=True)
                await draft.write("/etc/passwd", b"ours")
                await draft.symlink("/etc/passwd", "/absolute")
                await draft.symlink("../../../etc/passwd", "/etc/deep/climbing")
                await draft.symlink("/etc/deep", "/down")
                await draft.symlink("down/../../../../etc/passwd", "/through")
                await draft.symlink("/etc/shadow", "/etc/deep/dangling")
                await draft.symlink("../passwd", "/etc/deep/fine")
            expected = {path: await desk.files.read(path) for path in ("/absolute", "/etc/deep/climbing", "/through")}
            await export_directory(desk.files, tmp_path / "out")
            with open(tmp_path / "out.tar", "wb") as archive:
                await export_tar(desk.files, archive)
        root = os.path.realpath(tmp_path / "out")
        for path, content in expected.items():
            assert content == b"ours" == Path(root + path).read_bytes(), path
        for above, directories, files in os.walk(root):
            for name in [*directories, *files]:
                assert os.path.realpath(f"{above}/{name}").startswith(f"{root}/"), f"{name} leads out"
        assert os.readlink(f"{root}/etc/deep/fine") == "../passwd", "what is harmless stays as it is"
        assert os.readlink(f"{root}/etc/deep/dangling") == "../shadow"
        with tarfile.open(tmp_path / "out.tar") as tar:
            tar.extractall(tmp_path / "again", filter="data")

    run(main())


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b"evil"
) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        info.size = len(content) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(content))

    return add


ATTACKS = {
    "absolute": [member("/etc/passwd")],
    "upwards": [member("../out")],
    "upwards inside": [member("a/../../out")],
    "through a link": [member("d", tarfile.SYMTYPE, "/"), member("d/keep")],
    "through a link upwards": [member("d", tarfile.SYMTYPE, ".."), member("d/keep")],
    "through a link deeper": [member("a/d", tarfile.SYMTYPE, "/"), member("a/d/x/keep")],
    "a hard link out": [member("h", tarfile.LNKTYPE, "../keep")],
    "a hard link absolute": [member("h", tarfile.LNKTYPE, "/keep")],
    "a hard link through a link": [member("d", tarfile.SYMTYPE, "/"), member("h", tarfile.LNKTYPE, "d/keep")],
    "a hard link to a link": [member("d", tarfile.SYMTYPE, "/keep"), member("h", tarfile.LNKTYPE, "d")],
    "a device": [member("null", tarfile.CHRTYPE)],
    "a block device": [member("sda", tarfile.BLKTYPE)],
    "a pipe": [member("fifo", tarfile.FIFOTYPE)],
    "a long name": [member("n" * 256)],
    "a deep name": [member("/".join(["d"] * 300))],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_changes_nothing_outside_of_where_it_is_unpacked(attack: str) -> None:
    """X1: archive slip, by name or by link, devices, names that are too long: refused by name, and nothing is changed."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member("good.txt")(tar)
        for add in ATTACKS[attack]:
            add(tar)
    archive.seek(0)

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/keep", b"precious")
            before = await copy_of(desk.files)
            with pytest.raises(WorkspaceError):
                async with desk.files.transaction() as draft:
                    await import_tar(draft, archive, "/inbox")
            assert await copy_of(desk.files) == before

    run(main())


def test_a_link_in_an_archive_is_replaced_and_not_written_through() -> None:
    """X1: a member with the name of a link that came before it is a file of its own."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member("x", tarfile.SYMTYPE, "/keep")(tar)
        member("x")(tar)
    archive.seek(0)

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/keep", b"precious")
            async with desk.files.transaction() as draft:
                await import_tar(draft, archive, "/inbox")
            assert await desk.files.read("/keep") == b"precious"
            assert await desk.files.read("/inbox/x") == b"evil"

    run(main())


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    """X1: a pipe in a directory would block whoever reads it, a device never end; a name has to be text."""
    os.mkfifo(tmp_path / "pipe")

    async def main() -> None:
        async with Desk() as desk:
            with pytest.raises(WorkspaceError, match="pipe"):
                async with desk.files.transaction() as draft:
                    await import_directory(draft, tmp_path)
            os.unlink(tmp_path / "pipe")
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")).write_bytes(b"x")
            with pytest.raises(WorkspaceError, match="UTF-8"):
                async with desk.files.transaction() as draft:
                    await import_directory(draft, tmp_path)
            assert desk.files.list() == []

    run(main())


@pytest.mark.slow
def test_nobody_who_exchanges_names_meanwhile_has_another_place_imported(tmp_path: Path) -> None:
    """X1: while a directory is imported again and again, a file and a directory in it become links to somewhere else and back,
    10,000 times in all. Either the import fails, or it has what was there; never what the links lead to."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("SECRET")
    root = tmp_path / "in"
    (root / "d").mkdir(parents=True)
    (root / "d" / "key").write_text("mine")
    (root / "f").write_text("mine")
    swaps, over = 0, threading.Event()

    def exchange() -> None:
        nonlocal swaps
        while swaps < 10_000 and not over.is_set():
            for name, target in (("d", tmp_path / "secret"), ("f", tmp_path / "secret" / "key")):
                aside = tmp_path / f"{name}-aside"
                os.rename(root / name, aside)
                os.symlink(target, root / name)
                os.unlink(root / name)
                os.rename(aside, root / name)
                swaps += 1

    async def main() -> None:
        outcomes = {"whole": 0, "failed": 0}
        async with Desk() as desk:
            thread = threading.Thread(target=exchange)
            thread.start()
            try:
                while thread.is_alive():
                    draft = desk.files.draft()
                    try:
                        await import_directory(draft, root)
                    except OSError:
                        outcomes["failed"] += 1
                    else:
                        outcomes["whole"] += 1
                    for path, (kind, _, content) in (await copy_of(draft)).items():
                        assert kind != "file" or content == b"mine", f"{path} came from elsewhere"
            finally:
                over.set()
                thread.join()
        assert swaps >= 10_000 and outcomes["whole"], outcomes

    run(main(), seconds=120)


@pytest.mark.slow
def test_an_archive_that_unpacks_to_more_than_the_quota_is_refused(tmp_path: Path) -> None:
    """X7: a small archive of zeros is not read to its end."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo("zeros")
        info.size = 64 << 20
        with open("/dev/zero", "rb") as zeros:
            tar.addfile(info, zeros)
    archive.seek(0)

    async def main() -> None:
        async with Desk(quota=Quota(bytes=4 << 20)) as desk:
            with pytest.raises(WorkspaceFull, match="zeros"):
                async with desk.files.transaction() as draft:
                    await import_tar(draft, archive)
            assert desk.files.list() == []

    run(main())


def test_fsspec_reads_and_writes_a_workspace(tmp_path: Path) -> None:
    """X11: an fsspec file system of one workspace: from its event loop, and from a thread as libraries use it."""
    from cairn.runtime.workspace_fsspec import WorkspaceFileSystem

    def in_a_thread(fs: Any) -> None:
        with fs.open("/table.csv", "wb") as file:
            file.write(b"a,b\n1,2\n")
        with fs.open("table.csv", "rb") as file:
            assert file.readline() == b"a,b\n" and file.read() == b"1,2\n"
        with fs.open("/table.csv", "r") as file:
            assert file.read() == "a,b\n1,2\n"
        fs.pipe({"/d/one": b"1", "/d/two": b"22"})
        assert fs.cat_file("/d/two", start=1) == b"2" and fs.cat_file("/d/two", start=-1) == b"2"
        assert sorted(fs.find("/")) == ["/d/one", "/d/two", "/table.csv"]
        assert fs.glob("/d/*") == ["/d/one", "/d/two"]
        assert fs.info("/d")["type"] == "directory" and fs.size("/d/two") == 2 and fs.isfile("/d/one")
        assert not fs.exists("/nothing")
        fs.mv("/d", "/e")
        fs.cp_file("/e/one", "/copy/one")
        fs.rm("/e", recursive=True)
        assert sorted(fs.find("/")) == ["/copy/one", "/table.csv"]
        (tmp_path / "up").write_bytes(b"z" * 3_000_000)
        fs.put_file(str(tmp_path / "up"), "/big")
        fs.get_file("/big", str(tmp_path / "down"))
        assert (tmp_path / "down").read_bytes() == b"z" * 3_000_000
        with pytest.raises(FileNotFoundError):
            fs.cat_file("/nothing")

    async def main() -> None:
        async with Desk() as desk:
            fs = WorkspaceFileSystem(desk.files)
            await fs._pipe_file("/x", b"there")
            assert await fs._cat_file("cairn:///x") == b"there"
            await fs._rm_file("/x")
            await asyncio.to_thread(in_a_thread, fs)
            assert await desk.files.read("/table.csv") == b"a,b\n1,2\n"

    run(main())
