"""An instance with files, for tests: its store, its owner, its workspace, and the same after a restart."""

from __future__ import annotations

from typing import Any

from tests.runtime.toy import Toy, World

from cairn.runtime.files import Quota
from cairn.runtime.files_tree import Tree
from cairn.runtime.instance import Fold, Instance
from cairn.runtime.storage.store import Store
from cairn.runtime.workspace import Workspace
from cairn.runtime.workspace_reading import Reading


class Desk:
    """`async with Desk() as desk:` — `desk.files` is the workspace of instance `a`."""

    instance: Instance
    files: Workspace

    def __init__(
        self, store: Store | None = None, *, id: str = "a", quota: Quota | None = None, beside: Desk | None = None
    ) -> None:
        self.world = World(beside.store if beside is not None else store, application=Toy())
        self._shared = beside is not None
        self.id = id
        self._quota = quota
        self._lives = 0

    async def __aenter__(self) -> Desk:
        if not self._shared:
            await self.world.__aenter__()
        await self.world.client.accept(self.id, "run")
        await self.claim()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._shared:
            await self.world.__aexit__()

    def store_of_its_own(self) -> Store:
        """A store in memory that nothing has opened yet."""
        return self.world.store

    @property
    def store(self) -> Store:
        return self.world.store

    @property
    def address(self) -> Any:
        return self.instance.address

    async def claim(self) -> Workspace:
        """The instance has a new owner, which folded it from the store."""
        self._lives += 1
        self.instance = await self.world.activate(self.id, worker=f"{self.id}{self._lives}")
        self.files = Workspace.of(self.instance)
        if self._quota is not None:
            self.files.quota = self._quota
        return self.files

    async def folded(self, at: int | None = None) -> Tree:
        """The files as the log alone says them."""
        fold = Fold(self.world.application, self.instance.n, self.instance.address)
        await fold.load(self.store, at)
        return fold.files.tree


async def copy_of(files: Reading) -> dict[str, tuple[str, int, Any]]:
    """Everything there is: kind, mode and content by path."""
    found: dict[str, tuple[str, int, Any]] = {}
    for entry in files.walk():
        content: Any = None
        if entry.is_file:
            content = await files.read(entry.path)
            assert len(content) == entry.size
        elif entry.is_link:
            content = entry.target
        found[entry.path] = (entry.kind, entry.mode, content)
    return found


def nodes_of(tree: Tree) -> dict[int, Any]:
    return {node.id: node for node in tree.below(1)}
