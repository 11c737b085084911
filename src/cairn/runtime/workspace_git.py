"""A workspace and a git repository: files from a commit, files as a commit.

    async with workspace.transaction() as draft:
        head = await clone(draft, "https://example.org/project.git")
    …
    pushed = await push(workspace, "https://example.org/project.git", message="…", author="Ada <ada@example.org>", onto=head)

Laws. The repository stays where it is: a workspace holds files, not a `.git`, because whoever can write one can have hooks,
filters and other people's addresses in it. Objects pass through a bare repository in a temporary directory that nobody else
writes to; no configuration of this machine is read, no process is started. Which repository, and with which credentials, is the
caller's word and never a file's. What comes in is checked as any other names (S13). Needs the extra `git`.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cairn.errors import Conflict, UsageError
from cairn.runtime.files import Entry, fail
from cairn.runtime.files_paths import within
from cairn.runtime.workspace import Workspace
from cairn.runtime.workspace_draft import Draft
from cairn.runtime.workspace_reading import Reading
from cairn.runtime.workspace_remote import Credentials as Credentials
from cairn.runtime.workspace_remote import Head as Head
from cairn.runtime.workspace_remote import Remote

#: What git keeps of a mode.
FILE, PROGRAM, LINK, SUBMODULE = 0o100644, 0o100755, 0o120000, 0o160000


class _Blob(NamedTuple):
    mode: int
    sha: bytes


_Tree = Mapping[str, _Blob]


# --- the three verbs ------------------------------------------------------------------------------------------------


async def clone(
    draft: Draft, url: str, into: str = "/", *, branch: str | None = None, credentials: Credentials | None = None
) -> Head:
    """The draft has the files of a branch's newest commit (default: the repository's own branch) below `into`.

    Only that commit is fetched. Submodules are empty directories. Raises NotFound: no such branch; UsageError, RemoteError;
    WorkspaceError for a name that a workspace does not have.
    """
    with tempfile.TemporaryDirectory() as folder:
        remote = Remote(url, credentials)
        repository, head = await asyncio.to_thread(remote.fetched, folder, branch, 1)
        try:
            await draft.mkdir(into, parents=True, exist_ok=True)
            tree = await asyncio.to_thread(_tree, repository, head.commit)
            for path, blob in tree.items():
                await _put(draft, repository, blob, f"{into.rstrip('/')}/{path}")
        finally:
            repository.close()
    return head


async def pull(draft: Draft, url: str, since: Head, into: str = "/", *, credentials: Credentials | None = None) -> Head:
    """What was committed to the branch after `since` is in the draft; what was changed here only stays.

    Raises Conflict, naming the paths, when both have changed a file, or the branch does not continue `since`.
    """
    with tempfile.TemporaryDirectory() as folder:
        remote = Remote(url, credentials)
        repository, head = await asyncio.to_thread(remote.fetched, folder, since.branch, None)
        try:
            before, after = await asyncio.to_thread(_continued, repository, since, head)
            changed = [path for path in sorted({*before, *after}) if _differs(before.get(path), after.get(path))]
            root = into.rstrip("/")
            ours = {path: await _id(draft, f"{root}/{path}") for path in changed}
            conflicts = [path for path in changed if ours[path] not in (before.get(path), after.get(path))]
            if conflicts:
                more = f" and {len(conflicts) - 5} more" if len(conflicts) > 5 else ""
                raise Conflict(f"changed here and in {url}: {', '.join(conflicts[:5])}{more}; nothing was pulled")
            for path in changed:
                if path not in after and draft.lstat(f"{root}/{path}") is not None:
                    await _remove(draft, f"{root}/{path}", root or "/")
            for path in changed:
                if path in after and ours[path] != after[path]:
                    await _put(draft, repository, after[path], f"{root}/{path}")
        finally:
            repository.close()
    return head


async def push(
    files: Reading,
    url: str,
    path: str = "/",
    *,
    message: str,
    author: str,
    onto: Head,
    at: float | None = None,
    credentials: Credentials | None = None,
) -> Head:
    """The branch of `onto` in the repository has a new commit with the files below `path`, and `onto` is its parent.

    A branch that does not exist is made when `onto.commit` is empty. What `.gitignore` names is left out, unless it was
    committed before. No commit when nothing differs: `onto` is returned. Raises Conflict when the branch is elsewhere
    meanwhile: pull first.
    """
    if at is None:
        if not isinstance(files, Workspace | Draft):
            raise UsageError("a commit needs its time: push(…, at=seconds)")
        at = files.now() if isinstance(files, Workspace) else files._now()
    with tempfile.TemporaryDirectory() as folder:
        remote = Remote(url, credentials)
        repository, head = await asyncio.to_thread(remote.opened, folder, onto)
        try:
            known = await asyncio.to_thread(_tree, repository, head) if head else {}
            tree = await _Committed(files, repository, files.resolve(path).rstrip("/"), known).tree()
            if head and tree == dict(known):
                return onto
            commit = await asyncio.to_thread(_commit, repository, tree, head, message, author, at)
            await asyncio.to_thread(remote.send, repository, onto, commit)
        finally:
            repository.close()
    return Head(commit, onto.branch)


# --- files → objects ------------------------------------------------------------------------------------------------


class _Committed:
    """The files below a directory as git objects."""

    def __init__(self, files: Reading, repository: Any, root: str, known: _Tree) -> None:
        self._files = files
        self._repository = repository
        self._root = root
        self._known = known
        self._above_known = {above for each in known for above in _above(each)}

    async def tree(self) -> dict[str, _Blob]:
        found: dict[str, _Blob] = {}
        waiting: list[tuple[str, tuple[tuple[str, Any], ...]]] = [(self._root or "/", ())]
        while waiting:
            directory, filters = waiting.pop()
            filters = await self._filters(directory, filters)
            for entry in self._files.list(directory):
                path = entry.path[len(self._root) + 1 :]
                if entry.name == ".git" or self._is_ignored(entry, path, filters):
                    continue
                known = self._known.get(path)
                if entry.is_directory and known is not None and known.mode == SUBMODULE:
                    found[path] = known
                elif entry.is_directory:
                    waiting.append((entry.path, filters))
                else:
                    found[path] = await self._blob(entry)
        return found

    async def _filters(self, directory: str, above: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
        from dulwich.ignore import IgnoreFilter

        name = f"{directory.rstrip('/')}/.gitignore"
        entry = self._files.lstat(name)
        if entry is None or not entry.is_file:
            return above
        lines = (await self._files.read(name)).splitlines()
        return (*above, (directory.rstrip("/"), IgnoreFilter([line for line in lines if line and not line.startswith(b"#")])))

    def _is_ignored(self, entry: Entry, path: str, filters: tuple[tuple[str, Any], ...]) -> bool:
        if path in self._known or path in self._above_known:
            return False
        for directory, patterns in reversed(filters):
            inside = entry.path[len(directory) + 1 :] + ("/" if entry.is_directory else "")
            verdict = patterns.is_ignored(inside)
            if verdict is not None:
                return bool(verdict)
        return False

    async def _blob(self, entry: Entry) -> _Blob:
        from dulwich.objects import Blob

        if entry.is_link:
            node = self._files._nodes.node(entry.id)
            assert node is not None
            content, mode = within(self._files._nodes, node).encode(), LINK
        else:
            content, mode = await self._files.read(entry.path), PROGRAM if entry.mode & 0o100 else FILE
        blob = Blob.from_string(content)
        if blob.id not in self._repository.object_store:
            await asyncio.to_thread(self._repository.object_store.add_object, blob)
        return _Blob(mode, blob.id)


async def _id(files: Reading, path: str) -> _Blob | None:
    """What git would call the file as it is."""
    from dulwich.objects import Blob

    entry = files.lstat(path)
    if entry is None or entry.is_directory:
        return None
    content = entry.target.encode() if entry.is_link else await files.read(path)
    return _Blob(LINK if entry.is_link else PROGRAM if entry.mode & 0o100 else FILE, Blob.from_string(content).id)


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _differs(before: _Blob | None, after: _Blob | None) -> bool:
    """Whether there is something to pull; what a submodule holds is not a workspace's."""
    return before != after and SUBMODULE not in (before and before.mode, after and after.mode)


def _commit(repository: Any, tree: _Tree, parent: str, message: str, author: str, at: float) -> str:
    from dulwich.index import commit_tree
    from dulwich.objects import Commit

    if "<" not in author or not author.endswith(">") or "\n" in author:
        raise UsageError(f"the author {author!r} is not of the form 'Name <address>'")
    commit = Commit()
    blobs: Any = [(path.encode(), blob.sha, blob.mode) for path, blob in tree.items()]
    commit.tree = commit_tree(repository.object_store, blobs)
    commit.parents = [_sha(parent)] if parent else []
    commit.author = commit.committer = author.encode()
    commit.author_time = commit.commit_time = int(at)
    commit.author_timezone = commit.commit_timezone = 0
    commit.encoding = b"UTF-8"
    commit.message = message.rstrip("\n").encode() + b"\n"
    repository.object_store.add_object(commit)
    return commit.id.decode()


# --- objects → files ------------------------------------------------------------------------------------------------


def _sha(commit: str) -> Any:
    """As dulwich wants it."""
    return commit.encode()


def _tree(repository: Any, commit: str) -> dict[str, _Blob]:
    """The files of a commit, by path. Raises WorkspaceError for a path that no workspace has."""
    from dulwich.object_store import iter_tree_contents

    found: dict[str, _Blob] = {}
    if not commit:
        return found
    for each in iter_tree_contents(repository.object_store, repository[commit.encode()].tree):
        try:
            path = each.path.decode()
        except UnicodeDecodeError:
            fail(errno.EILSEQ, each.path.decode("utf-8", "backslashreplace"), "a name in the repository is not UTF-8")
        parts = path.split("/")
        if any(part.lower() == ".git" or part in ("", ".", "..") for part in parts):
            fail(errno.EINVAL, path, "the repository holds a path that git does not allow")
        found[path] = _Blob(each.mode, each.sha)
    return found


async def _put(draft: Draft, repository: Any, blob: _Blob, path: str) -> None:
    present = draft.lstat(path)
    if blob.mode == SUBMODULE:
        await draft.mkdir(path, parents=True, exist_ok=True)
        return
    content: bytes = (await asyncio.to_thread(repository.object_store.__getitem__, blob.sha)).as_raw_string()
    if present is not None and (present.is_link or blob.mode == LINK):
        await draft.remove(path)
    await draft.mkdir(path.rpartition("/")[0] or "/", parents=True, exist_ok=True)
    if blob.mode == LINK:
        await draft.symlink(content.decode("utf-8", "surrogateescape"), path)
    else:
        await draft.write(path, content, mode=0o755 if blob.mode & 0o100 else 0o644)


async def _remove(draft: Draft, path: str, root: str) -> None:
    """The file, and the directories that are empty without it: git knows none."""
    await draft.remove(path)
    above = path.rpartition("/")[0]
    while above and above != root and not draft.list(above):
        await draft.remove(above)
        above = above.rpartition("/")[0]


def _continued(repository: Any, since: Head, head: Head) -> tuple[_Tree, _Tree]:
    from dulwich.graph import can_fast_forward

    known = since.commit.encode() in repository.object_store
    if not known or not can_fast_forward(repository, _sha(since.commit), _sha(head.commit)):
        there, here = head.commit[:12], since.commit[:12]
        raise Conflict(f"branch '{since.branch}' is at {there}, which does not continue {here}; clone it anew")
    return _tree(repository, since.commit), _tree(repository, head.commit)
