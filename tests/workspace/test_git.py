"""A workspace and a bare repository, made and looked at by the machine's git."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from tests.runtime.toy import run
from tests.workspace.desk import Desk, copy_of

from cairn.errors import Conflict, NotFound, RemoteError, UsageError, WorkspaceError
from cairn.runtime.workspace_git import Credentials, Head, clone, pull, push

ME = "Ada <ada@example.org>"


class Git:
    """A bare repository, and somebody who works on it with the machine's git."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.work = folder / "project.git", folder / "work"
        self.folder = folder
        self("init", "-q", "--bare", "-b", "main", str(self.bare), at=folder)
        self("clone", "-q", str(self.bare), str(self.work), at=folder)
        self("checkout", "-q", "-b", "main")

    def __call__(self, *arguments: str, at: Path | None = None) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1"}
        identity = ("-c", "user.name=Bob", "-c", "user.email=bob@example.org")
        command = ["git", *identity, *arguments]
        done = subprocess.run(command, cwd=at or self.work, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    def commits(self, files: dict[str, str | None]) -> str:
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        self("add", "-A")
        self("commit", "-q", "-m", "by Bob")
        self("push", "-q", "origin", "main")
        return self("rev-parse", "HEAD").strip()


@pytest.fixture
def git(tmp_path: Path) -> Git:
    made = Git(tmp_path)
    (made.work / "run.sh").write_text("#!/bin/sh\n")
    (made.work / "run.sh").chmod(0o755)
    (made.work / "link").symlink_to("src/app.py")
    made.commits({"src/app.py": "print(1)\n", "README.md": "# Hello\n", ".gitignore": "*.log\nbuild/\n"})
    return made


@pytest.mark.slow
def test_files_go_from_git_and_back_with_modes_and_links(git: Git) -> None:
    """S13: a clone has the commit's files; a push makes a commit on it that the machine's git finds sound and can check out."""

    async def main() -> None:
        async with Desk() as desk:
            head = desk.instance.head
            async with desk.files.transaction() as draft:
                cloned = await clone(draft, str(git.bare), "/code")
            assert cloned == Head(git("rev-parse", "HEAD").strip(), "main") and desk.instance.head == head + 1
            assert await copy_of(desk.files) == {
                "/code": ("directory", 0o755, None),
                "/code/.gitignore": ("file", 0o644, b"*.log\nbuild/\n"),
                "/code/README.md": ("file", 0o644, b"# Hello\n"),
                "/code/link": ("link", 0o777, "src/app.py"),
                "/code/run.sh": ("file", 0o755, b"#!/bin/sh\n"),
                "/code/src": ("directory", 0o755, None),
                "/code/src/app.py": ("file", 0o644, b"print(1)\n"),
            }
            assert await push(desk.files, str(git.bare), "/code", message="nothing", author=ME, onto=cloned) == cloned
            await desk.files.write("/code/src/new.py", b"new\n")
            await desk.files.write("/code/src/noise.log", b"not committed")
            await desk.files.write("/code/build/out", b"not committed", parents=True)
            await desk.files.remove("/code/README.md")
            await desk.files.chmod("/code/run.sh", 0o644)
            url = f"file://{git.bare}"
            pushed = await push(desk.files, url, "/code", message="by Ada", author=ME, onto=cloned, at=1_700_000_000)

            git("pull", "-q")
            assert git("rev-parse", "HEAD").strip() == pushed.commit
            assert git("log", "-1", "--format=%an %ae %ct %s").strip() == "Ada ada@example.org 1700000000 by Ada"
            assert git("rev-parse", "HEAD^").strip() == cloned.commit
            shown = git("show", "--summary", "--name-status", "--format=").split("\n")
            assert sorted(filter(None, shown)) == sorted(["D\tREADME.md", "M\trun.sh", "A\tsrc/new.py"])
            assert git("fsck", "--strict", at=git.bare) == "" and git("status", "--porcelain") == ""
            assert os.readlink(git.work / "link") == "src/app.py" and not os.access(git.work / "run.sh", os.X_OK)

    run(main())


@pytest.mark.slow
def test_a_pull_takes_what_others_committed_and_keeps_what_was_changed_here(git: Git) -> None:
    """S2: both changed one file: a conflict that names it, and nothing is pulled; a branch that was rewritten too."""

    async def main() -> None:
        async with Desk() as desk:
            files, url = desk.files, str(git.bare)
            async with files.transaction() as draft:
                base = await clone(draft, url)
            git.commits({"src/app.py": "print(2)\n", "src/deep/er/new": "n\n", "README.md": None})
            await files.write("/mine", b"only here")
            async with files.transaction() as draft:
                second = await pull(draft, url, base)
            assert await files.read("/src/app.py") == b"print(2)\n" and await files.read("/mine") == b"only here"
            assert not files.exists("/README.md") and files.exists("/src/deep/er/new")
            with pytest.raises(Conflict, match="pull first"):
                await push(files, url, message="stale", author=ME, onto=base)
            third = await push(files, url, message="mine", author=ME, onto=second)

            git("pull", "-q")
            git.commits({"src/app.py": "theirs\n", "src/deep/er/new": None})
            await files.write("/src/app.py", b"ours\n")
            before = await copy_of(files)
            with pytest.raises(Conflict, match=r"src/app\.py"):
                async with files.transaction() as draft:
                    await pull(draft, url, third)
            assert await copy_of(files) == before
            await files.write("/src/app.py", b"theirs\n")
            async with files.transaction() as draft:
                await pull(draft, url, third)
            assert not files.exists("/src/deep"), "git knows no empty directories"

            git("reset", "-q", "--hard", "HEAD~2")
            git("push", "-q", "-f", "origin", "main")
            with pytest.raises(Conflict, match="does not continue"):
                async with files.transaction() as draft:
                    await pull(draft, url, third)

    run(main())


@pytest.mark.slow
def test_a_new_branch_and_a_new_repository_begin_with_a_push(git: Git, tmp_path: Path) -> None:
    """S2: made if it is not there; somebody else's of that name is not overwritten."""
    git("init", "-q", "--bare", str(tmp_path / "empty.git"), at=tmp_path)

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/a", b"1")
            await desk.files.symlink("/a", "/out")
            for url in (str(git.bare), str(tmp_path / "empty.git")):
                pushed = await push(desk.files, url, message="first", author=ME, onto=Head("", "work"))
                assert git("rev-parse", "work", at=Path(url)).strip() == pushed.commit
                assert git("show", "work:out", at=Path(url)) == "a", "a link does not leave the repository"
            with pytest.raises(Conflict):
                await push(desk.files, str(git.bare), message="again", author=ME, onto=Head("", "main"))

    run(main())


def hostile(git: Git, path: str) -> None:
    """A commit with a path that git itself would never make, put into the repository byte by byte."""
    from dulwich.objects import Blob, Commit, Tree
    from dulwich.repo import Repo

    with Repo(str(git.bare)) as repository:
        below: Blob | Tree = Blob.from_string(b"evil")
        repository.object_store.add_object(below)
        for part in reversed(path.split("/")):
            tree = Tree()
            tree[part.encode()] = (0o040000 if isinstance(below, Tree) else 0o100644, below.id)
            repository.object_store.add_object(tree)
            below = tree
        commit = Commit()
        commit.tree, commit.message = below.id, b"evil"
        commit.author = commit.committer = b"E <e@example.org>"
        commit.author_time = commit.commit_time = commit.author_timezone = commit.commit_timezone = 0
        repository.object_store.add_object(commit)
        repository.refs[b"refs/heads/evil"] = commit.id  # type: ignore[index]


@pytest.mark.parametrize("path", [".git/hooks/pre-commit", ".GIT/config", "a/.git/config", "../out", "a/../../out", "a/./b"])
def test_a_repository_cannot_name_places_that_a_checkout_does_not_have(git: Git, path: str) -> None:
    """X1: hooks, configuration, `..`: refused by name, and nothing is changed."""
    hostile(git, path)

    async def main() -> None:
        async with Desk() as desk:
            with pytest.raises(WorkspaceError) as caught:
                async with desk.files.transaction() as draft:
                    await clone(draft, str(git.bare), branch="evil")
            assert caught.value.errno == errno.EINVAL and desk.files.list() == []

    run(main())


def test_what_cannot_be_reached_says_so(git: Git, tmp_path: Path) -> None:
    """S14: no repository, no branch, an address that would start a process; credentials are never in the text."""
    git("init", "-q", "--bare", str(tmp_path / "empty.git"), at=tmp_path)

    async def main() -> None:
        async with Desk() as desk:
            for url, wrong in {
                str(tmp_path): NotFound,
                str(tmp_path / "nowhere"): NotFound,
                str(tmp_path / "empty.git"): NotFound,
                "git@github.com:a/b.git": UsageError,
                "ssh://host/a.git": UsageError,
                "ext::sh -c id": UsageError,
                "http://example.org/a.git": UsageError,
                "--upload-pack=id": UsageError,
                "https://127.0.0.1:1/a.git": RemoteError,
                "https://ada:hunter2@127.0.0.1:1/a.git": UsageError,
            }.items():
                with pytest.raises(wrong) as caught:
                    await clone(desk.files.draft(), url, credentials=Credentials("ada", "hunter2"))
                assert "hunter2" not in str(caught.value)
            with pytest.raises(NotFound, match="no branch 'none'"):
                await clone(desk.files.draft(), str(git.bare), branch="none")
            with pytest.raises(UsageError, match="Name <address>"):
                await push(desk.files, str(git.bare), message="m", author="Ada", onto=Head("", "x"))

    run(main())
