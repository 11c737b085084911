"""The workspace against a directory of the machine: the same calls, the same results, the same errors."""

# ruff: noqa: ASYNC240 - nothing else runs in the loop of a test

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workspace.desk import Desk, copy_of, nodes_of

from cairn.errors import Conflict

STEPS = 50

names = st.sampled_from(["a", "b", "c", "é"])
paths = st.lists(st.one_of(names, names, names, st.sampled_from([".", ".."])), min_size=1, max_size=4).map("/".join)
slashed = st.tuples(paths, st.sampled_from(["", "", "", "", "", "/"])).map("".join)
contents = st.sampled_from([b"", b"x", b"text\n", b"\x00\xff", b"y" * 20_000])
targets = st.lists(st.one_of(names, st.just("..")), min_size=1, max_size=3).map("/".join)
#: A workspace has no owner and refuses nobody; of users a machine refuses all but root.
modes = st.sampled_from([0o644, 0o600, 0o755, 0o400] if os.geteuid() == 0 else [0o700, 0o755, 0o777])

steps = st.one_of(
    st.tuples(st.just("write"), slashed, contents),
    st.tuples(st.just("write"), paths, contents),
    st.tuples(st.just("append"), paths, contents),
    st.tuples(st.just("mkdir"), slashed),
    st.tuples(st.just("mkdir"), paths),
    st.tuples(st.just("remove"), slashed),
    st.tuples(st.just("tree"), paths),
    st.tuples(st.just("rename"), paths, paths),
    st.tuples(st.just("rename"), paths, paths),
    st.tuples(st.just("rename"), slashed, slashed),
    st.tuples(st.just("symlink"), targets, paths),
    st.tuples(st.just("chmod"), paths, modes),
    st.tuples(st.just("touch"), paths, st.integers(0, 2**31)),
    st.tuples(st.just("read"), slashed),
    st.tuples(st.just("list"), paths),
    st.tuples(st.just("readlink"), paths),
    st.tuples(st.just("stat"), slashed),
    st.tuples(st.just("lstat"), paths),
    st.tuples(st.just("resolve"), paths),
)
Step = tuple[Any, ...]


class Directory:
    """A real directory, with the calls of a workspace."""

    def __init__(self, root: str) -> None:
        self.root = root

    def at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def is_inside(self, path: str) -> bool:
        """A real path may lead out, a workspace's cannot: those are other tests'."""
        for each in (path, os.path.dirname(path.rstrip("/"))):
            if not (os.path.realpath(self.at(each)) + "/").startswith(self.root + "/"):
                return False
        return True

    def write(self, path: str, data: bytes) -> None:
        with open(self.at(path), "wb") as file:
            file.write(data)

    def append(self, path: str, data: bytes) -> None:
        with open(self.at(path), "ab") as file:
            file.write(data)

    def mkdir(self, path: str) -> None:
        os.mkdir(self.at(path), 0o755)

    def remove(self, path: str) -> None:
        is_directory = stat.S_ISDIR(os.lstat(self.at(path)).st_mode)
        (os.rmdir if is_directory else os.unlink)(self.at(path))

    def tree(self, path: str) -> None:
        if stat.S_ISDIR(os.lstat(self.at(path)).st_mode) and not path.endswith((".", "..")):
            shutil.rmtree(self.at(path))
        else:
            self.remove(path)

    def rename(self, old: str, new: str) -> None:
        os.rename(self.at(old), self.at(new))

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.at(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def touch(self, path: str, mtime: int) -> None:
        if not os.path.exists(self.at(path)):
            os.close(os.open(self.at(path), os.O_CREAT | os.O_WRONLY, 0o644))
        os.utime(self.at(path), (mtime, mtime))

    def read(self, path: str) -> bytes:
        with open(self.at(path), "rb") as file:
            return file.read()

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(self.at(path)))

    def readlink(self, path: str) -> str:
        return os.readlink(self.at(path))

    def stat(self, path: str) -> tuple[str, int, int]:
        return _told(os.stat(self.at(path)))

    def lstat(self, path: str) -> tuple[str, int, int]:
        return _told(os.lstat(self.at(path)))

    def resolve(self, path: str) -> str:
        descriptor = os.open(self.at(path), os.O_PATH)
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}")[len(self.root) :] or "/"
        finally:
            os.close(descriptor)

    def everything(self) -> dict[str, tuple[str, int, Any]]:
        found: dict[str, tuple[str, int, Any]] = {}
        for above, directories, files in os.walk(self.root):
            for name in directories + files:
                path = f"{above}/{name}"
                kind, mode, _ = _told(os.lstat(path))
                content = os.readlink(path) if kind == "link" else Path(path).read_bytes() if kind == "file" else None
                found[path[len(self.root) :]] = (kind, mode, content)
        return found


def _told(status: os.stat_result) -> tuple[str, int, int]:
    kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFREG: "file"}[stat.S_IFMT(status.st_mode)]
    return kind, stat.S_IMODE(status.st_mode), status.st_size if kind != "directory" else 0


async def in_workspace(files: Any, step: Step) -> Any:
    """The same call of a workspace or a draft, its answer as the directory gives it."""
    verb, path, *rest = step
    if verb == "tree":
        return await files.remove(path, recursive=True)
    if verb == "touch":
        return await files.touch(path, mtime=rest[0])
    if verb in ("stat", "lstat"):
        entry = getattr(files, verb)(path)
        if entry is None:
            raise OSError(errno.ENOENT, "nothing", path)
        return entry.kind, entry.mode, entry.size
    if verb == "list":
        return [entry.name for entry in files.list(path)]
    answer = getattr(files, verb)(path, *rest)
    return await answer if asyncio.iscoroutine(answer) else answer


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OSError as error:
        return error.errno


async def outcome_of(files: Any, step: Step) -> Any:
    try:
        return await in_workspace(files, step)
    except OSError as error:
        return error.errno


def same(step: Step, ours: Any, theirs: Any) -> bool:
    if step[0] in ("stat", "lstat") and ours == errno.ENOENT:
        return theirs in (errno.ENOENT, errno.ENOTDIR)  # `None` says that nothing is there, not why
    return bool(ours == theirs)


async def compare(script: list[Step], *, restart_every: int, draft_every: int) -> None:
    root = os.path.realpath(tempfile.mkdtemp())
    os.chmod(root, 0o755)
    try:
        real = Directory(root)
        async with Desk() as desk:
            for number, step in enumerate(script):
                where = step[1:3] if step[0] == "rename" else step[2:3] if step[0] == "symlink" else step[1:2]
                if not all(real.is_inside(path) for path in where):
                    continue
                theirs = outcome(lambda step=step: getattr(real, step[0])(*step[1:]))  # type: ignore[misc]
                if number % draft_every == 0:
                    async with desk.files.transaction() as draft:
                        ours = await outcome_of(draft, step)
                else:
                    ours = await outcome_of(desk.files, step)
                assert same(step, ours, theirs), f"{step}: {_named(ours)} here, {_named(theirs)} on the machine"
                if number % restart_every == restart_every - 1:
                    await desk.claim()
            assert await copy_of(desk.files) == real.everything()
            assert nodes_of(await desk.folded()) == nodes_of(desk.instance.files.tree), "the log says the same"
    finally:
        shutil.rmtree(root)


def _named(answer: Any) -> Any:
    return errno.errorcode.get(answer, answer) if isinstance(answer, int) else answer


@pytest.mark.slow
@settings(max_examples=500)
@given(st.lists(steps, min_size=STEPS, max_size=STEPS), st.sampled_from([7, 60]), st.sampled_from([2, 5]))
def test_a_workspace_is_a_directory(script: list[Step], restart_every: int, draft_every: int) -> None:
    """S2, S13: 500 scripts of 50 calls: each call's answer or errno, and what is there in the end, is the machine's; also in
    drafts, and for an owner that folds the log anew in between."""
    asyncio.run(compare(script, restart_every=restart_every, draft_every=draft_every))


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(steps, min_size=STEPS, max_size=STEPS))
def test_a_draft_of_many_changes_is_a_directory(script: list[Step]) -> None:
    """S2: all the calls in one transaction, some of them undoing others: one record, with the machine's result."""

    async def main() -> None:
        root = os.path.realpath(tempfile.mkdtemp())
        os.chmod(root, 0o755)
        try:
            real = Directory(root)
            async with Desk() as desk:
                await desk.files.mkdir("a")
                os.mkdir(f"{root}/a")
                async with desk.files.transaction() as draft:
                    for step in script:
                        where = step[1:3] if step[0] == "rename" else step[2:3] if step[0] == "symlink" else step[1:2]
                        if all(real.is_inside(path) for path in where):
                            theirs = outcome(lambda step=step: getattr(real, step[0])(*step[1:]))  # type: ignore[misc]
                            ours = await outcome_of(draft, step)
                            assert same(step, ours, theirs), f"{step}: {_named(ours)} here, {_named(theirs)} on the machine"
                    assert await copy_of(draft) == real.everything()
                    expected = draft.usage()[:2]
                assert await copy_of(desk.files) == real.everything()
                assert desk.files.usage()[:2] == expected
                assert nodes_of(await desk.folded()) == nodes_of(desk.instance.files.tree)
        finally:
            shutil.rmtree(root)

    asyncio.run(main())


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(steps, min_size=30, max_size=30), st.lists(steps, max_size=6), st.lists(steps, max_size=6))
def test_two_drafts_of_the_same_files_never_make_others(script: list[Step], first: list[Step], second: list[Step]) -> None:
    """S2, S14: two drafts begun at once: the second is a conflict, and changes nothing, or the log takes it, and holds what it
    made beside what the first one did."""

    async def main() -> None:
        async with Desk() as desk:
            for step in script:
                await outcome_of(desk.files, step)
            one, two = desk.files.draft(), desk.files.draft()
            for draft, part in ((one, first), (two, second)):
                for step in part:
                    await outcome_of(draft, step)
            expected, nothing_before, nothing_after = await copy_of(two), one.is_empty, two.is_empty
            await one.commit()
            between = await copy_of(desk.files)
            try:
                await two.commit()
            except Conflict:
                assert await copy_of(desk.files) == between and not nothing_before
            else:
                assert await copy_of(desk.files) == expected or not nothing_before
                assert await copy_of(desk.files) == between or not nothing_after
            assert nodes_of(await desk.folded()) == nodes_of(desk.instance.files.tree)

    asyncio.run(main())
