"""A git repository somewhere: a branch fetched from it, a commit sent to it.

Laws. No process is started and no configuration of this machine is read. Objects are kept in a bare repository in a folder that
the caller made and removes. A branch moves only from where the caller says it is. Everything here blocks: call it on a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from cairn.errors import Conflict, MissingExtra, NotFound, RemoteError, UsageError

T = TypeVar("T")

#: Remote helpers and ssh start processes; plain http is read and changed by whoever stands in between.
SCHEMES = ("https://", "file://", "/", "./", "../")


class Head(NamedTuple):
    """A commit of a branch."""

    commit: str
    branch: str


class Credentials(NamedTuple):
    """For https; never stored."""

    username: str
    password: str


class Remote:
    """The repository at a path of this machine or an https address. Raises UsageError for any other, MissingExtra."""

    def __init__(self, url: str, credentials: Credentials | None) -> None:
        try:
            import dulwich  # noqa: F401
        except ImportError as missing:
            raise MissingExtra("a workspace and git need dulwich: pip install 'cairn-agents[git]'") from missing
        if not url.startswith(SCHEMES):
            raise UsageError(f"'{url}' is no https:// address, no file:// address and no path to a repository on this machine")
        if "@" in url.removeprefix("https://").partition("/")[0]:
            raise UsageError(
                "the address of a repository holds a name or a password, which errors would show; give `credentials`"
            )
        self._url = url
        self._credentials = credentials

    def _client(self) -> tuple[Any, bytes]:
        from dulwich.client import get_transport_and_path
        from dulwich.config import StackedConfig

        given = self._credentials._asdict() if self._credentials is not None and self._url.startswith("https://") else {}
        client, path = get_transport_and_path(self._url.removeprefix("file://"), config=StackedConfig([]), quiet=True, **given)
        return client, path.encode()

    def fetched(self, folder: str, branch: str | None, depth: int | None) -> tuple[Any, Head]:
        """A bare repository in the folder with a branch of the remote one."""
        from dulwich.repo import Repo

        client, path = self._client()
        repository = Repo.init_bare(folder)
        wanted: list[bytes] = []

        def wants(refs: Mapping[Any, Any], depth: int | None = None) -> list[Any]:
            name = f"refs/heads/{branch}".encode() if branch is not None else b"HEAD"
            if refs.get(name) is None:
                raise NotFound(
                    f"{self._url} has no branch '{branch}'" if branch is not None else f"{self._url} has no commit yet"
                )
            wanted[:] = [refs[name]]
            return list(wanted)

        found = self._asked(lambda: client.fetch(path, repository, determine_wants=wants, depth=depth))
        if branch is None:
            branch = found.symrefs.get(b"HEAD", b"refs/heads/main").decode().removeprefix("refs/heads/")
        return repository, Head(wanted[0].decode(), branch)

    def opened(self, folder: str, onto: Head) -> tuple[Any, str]:
        """The same, to commit onto a head; its commit, or nothing when the branch is to be new."""
        from dulwich.repo import Repo

        if not onto.commit:
            return Repo.init_bare(folder), ""
        repository, head = self.fetched(folder, onto.branch, 1)
        if head.commit != onto.commit:
            repository.close()
            raise Conflict(_moved(self._url, onto, head.commit))
        return repository, head.commit

    def send(self, repository: Any, onto: Head, commit: str) -> None:
        """The branch is at the commit, if it still was at `onto`."""
        client, path = self._client()
        name = f"refs/heads/{onto.branch}".encode()

        def update(refs: Mapping[Any, Any]) -> dict[Any, Any]:
            there = (refs.get(name) or b"").decode()
            if there.strip("0") and there != onto.commit:
                raise Conflict(_moved(self._url, onto, there))
            return {name: commit.encode()}

        result = self._asked(lambda: client.send_pack(path, update, repository.generate_pack_data))
        refused = (result.ref_status or {}).get(name)
        if refused is not None:
            raise RemoteError(f"{self._url} refused the commit: {refused}", type="git")

    def _asked(self, call: Callable[[], T]) -> T:
        from dulwich.errors import NotGitRepository

        try:
            return call()
        except NotGitRepository:
            raise NotFound(f"{self._url} is not a git repository") from None
        except (Conflict, NotFound):
            raise
        except Exception as wrong:
            raise RemoteError(f"{self._url}: {type(wrong).__name__}: {wrong}", type="git") from wrong


def _moved(url: str, onto: Head, there: str) -> str:
    return f"branch '{onto.branch}' of {url} is at {there[:12]}, not at {onto.commit[:12] or 'nothing'}; pull first"
