"""`isolated()` over a workspace: what commands do to a real directory is in the workspace, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.sandboxes.isolated_desk import IsolatedDesk

from cairn.errors import SandboxError
from cairn.harness.sandbox.isolated import Limits
from cairn.harness.sandbox.protocol import Sandbox, WorkspaceSandbox
from cairn.runtime.files import Quota
from cairn.testing.sandbox import ShellContract

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap"),
]

Body = Callable[[IsolatedDesk], Awaitable[None]]


def judge(directory: Path, body: Body, **options: object) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), IsolatedDesk(directory, **options) as desk:  # type: ignore[arg-type]
            await body(desk)

    asyncio.run(main())


class TestWorkspace(ShellContract):
    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Sandbox]:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="cairn-mirror-") as name:
            async with IsolatedDesk(Path(name)) as desk:
                assert isinstance(desk.sandbox, WorkspaceSandbox)
                yield desk.sandbox


def test_what_a_command_does_is_in_the_workspace(tmp_path: Path) -> None:
    """P-files: files, directories, links, modes, renames and removals; and the next command finds the workspace's own."""

    async def body(desk: IsolatedDesk) -> None:
        await desk.files.write("/src/old.py", b"old", parents=True)
        await desk.files.write("/gone/a/b", b"", parents=True)
        code, printed = await desk.run(
            "cat src/old.py; mv src/old.py src/new.py; chmod 750 src/new.py; rm -r gone; mkdir -p empty/deep; "
            "ln -s src/new.py link; ln -s /workspace/src absolute; ln -s /usr/bin/env system; printf x > src/x; mkfifo pipe"
        )
        assert (code, printed) == (0, "old")
        tree = await desk.tree()
        assert tree == {
            "/absolute": ("link", 0o777, "/src"),
            "/empty": ("directory", 0o755, ""),
            "/empty/deep": ("directory", 0o755, ""),
            "/link": ("link", 0o777, "src/new.py"),
            "/src": ("directory", 0o755, ""),
            "/src/new.py": ("file", 0o750, b"old"),
            "/src/x": ("file", 0o644, b"x"),
            "/system": ("link", 0o777, "../usr/bin/env"),
        }
        assert await desk.run("cat absolute/x; ./system true && readlink absolute") == (0, "x/workspace/src\n")
        assert await desk.tree() == tree

    judge(tmp_path, body)


def test_a_command_that_was_dropped_leaves_nothing(tmp_path: Path) -> None:
    """A draft that is not kept, a timeout, a cancellation: the workspace and the next command's files are as before."""

    async def body(desk: IsolatedDesk) -> None:
        await desk.run("echo one > file; mkdir folder; echo two > folder/kept")
        before = await desk.tree()
        harm = "echo broken > file; rm -r folder; mkdir file2; ln -s / folder; chmod 000 file"

        async with desk.files.turn:
            await desk.sandbox.view(desk.files.draft()).exec(harm)
        await desk.run(f"{harm}; sleep 30", timeout_seconds=0.3)
        seen = asyncio.Event()
        running = asyncio.ensure_future(desk.run(f"{harm}; echo; sleep 30", on_output=lambda _: seen.set()))
        await seen.wait()
        running.cancel()
        await asyncio.wait([running])

        assert await desk.tree() == before
        assert await desk.run("cat file folder/kept; ls") == (0, "one\ntwo\nfile\nfolder\n")
        assert await desk.tree() == before

    judge(tmp_path, body)


def test_a_change_of_one_file_of_many_copies_one_file(tmp_path: Path) -> None:
    """By count, in both directions, and after a restart."""

    async def body(desk: IsolatedDesk) -> None:
        await desk.run("mkdir d; for i in $(seq 300); do echo $i > d/$i; done")
        sandbox = await desk.restart()
        assert (await desk.run("true"))[0] == 0
        assert sandbox.mirror.copied == 0
        await desk.run("echo changed > d/7")
        assert sandbox.mirror.copied == 1
        await desk.files.write("/d/8", b"by a tool")
        assert await desk.run("cat d/7 d/8") == (0, "changed\nby a tool")
        assert sandbox.mirror.copied == 2

    judge(tmp_path, body)


def test_content_of_the_same_size_written_at_once_is_noticed(tmp_path: Path) -> None:
    """A change within the tick of the clock in which the file was looked at, with the old modification time put back."""

    async def body(desk: IsolatedDesk) -> None:
        for number in range(30):
            text = f"{number:04}"
            await desk.run(f"touch -r file before 2>/dev/null; printf {text} > file; touch -r before file 2>/dev/null; true")
            assert await desk.files.read("/file") == text.encode()

    judge(tmp_path, body)


@pytest.mark.parametrize("is_clean", [True, False])
def test_files_are_found_again_after_a_restart(tmp_path: Path, is_clean: bool) -> None:
    """The log alone decides; what the mirror knew may be lost, and its directory may hold anything."""

    async def body(desk: IsolatedDesk) -> None:
        await desk.run("mkdir -p a/b; echo kept > a/b/c; ln -s a/b/c link")
        await desk.restart(is_clean=is_clean)
        (tmp_path / "files" / "stray").write_text("not in the log")
        (tmp_path / "files" / "a" / "b" / "c").write_text("KEPT\n")

        assert await desk.run("cat link; ls") == (0, "kept\na\nlink\n")

    judge(tmp_path, body)


def test_what_does_not_fit_into_the_workspace_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """The quota of the workspace holds for commands, too."""

    async def body(desk: IsolatedDesk) -> None:
        await desk.run("echo small > file")
        before = await desk.tree()
        with pytest.raises(SandboxError, match="what it did cannot be kept"):
            await desk.run("head -c 200000 /dev/zero > large")
        assert await desk.tree() == before
        assert await desk.run("ls") == (0, "file\n")

    judge(tmp_path, body, quota=Quota(bytes=100_000))


def test_a_command_that_is_ended_for_a_limit_changes_nothing(tmp_path: Path) -> None:
    """It was stopped half way; half of its work is nobody's wish."""

    async def body(desk: IsolatedDesk) -> None:
        code, printed = await desk.run("i=0; while i=$((i+1)); do head -c 4M /dev/zero > f$i || exit 9; done")
        assert code != 0
        assert "take more than" in printed
        assert await desk.tree() == {}
        assert await desk.run("ls") == (0, "")

    judge(tmp_path, body, limits=Limits(disk_bytes=32 << 20, seconds=20))


@pytest.mark.parametrize("seed", range(3))
def test_a_directory_and_its_workspace_agree_after_any_commands(tmp_path: Path, seed: int) -> None:
    """Random commands, drops, writes by tools and restarts, against a plain directory that sees the same."""
    chance = random.Random(seed)
    model = tmp_path / "model"
    model.mkdir()
    names = ["a", "b", "c", "d/e", "d/f", "d/g/h"]

    def command() -> str:
        one, other = chance.choice(names), chance.choice(names)
        return chance.choice([
            f"mkdir -p $(dirname {one}) && rm -rf {one} && printf %s {chance.random()} > {one}",
            f"mkdir -p $(dirname {one}) && printf x >> {one}",
            f"rm -rf {one}", f"mkdir -p {one}", f"mkdir -p $(dirname {other}) && mv {one} {other}",
            f"mkdir -p $(dirname {other}) && ln -sf {one} {other}", f"[ -f {one} ] && chmod 7{chance.choice('05')}0 {one}",
            "rm -rf d; mkdir d", f"head -c {chance.randrange(70_000)} /dev/zero > b",
        ]) + " 2>/dev/null; true"  # fmt: skip

    async def body(desk: IsolatedDesk) -> None:
        for _ in range(25):
            step = command()
            if chance.random() < 0.2:
                async with desk.files.turn:
                    await desk.sandbox.view(desk.files.draft()).exec(step)
                continue
            if chance.random() < 0.1:
                await desk.restart(is_clean=chance.random() < 0.5)
            await desk.run(step)
            shell = await asyncio.create_subprocess_shell(step, cwd=model)
            await shell.wait()
            assert real(model) == {path[1:]: what for path, what in (await desk.tree()).items()}, step
        assert real(model) == real(tmp_path / "s" / "files")

    judge(tmp_path / "s", body)


def real(top: Path) -> dict[str, tuple[str, int, object]]:
    found: dict[str, tuple[str, int, object]] = {}
    for path in top.rglob("*"):
        kind = "link" if path.is_symlink() else "directory" if path.is_dir() else "file"
        content = os.readlink(path) if kind == "link" else path.read_bytes() if kind == "file" else ""
        found[str(path.relative_to(top))] = (kind, path.lstat().st_mode & 0o777, content)
    return found
