"""An App whose agents follow their files: an edit is live for the next turn.

Laws. What is edited is read anew as a whole, beside what runs; only when all of it is good does it take the old one's place.
Until then the last good agents answer on. Nothing is dropped for an edit: no conversation, no reader, no turn that is at work.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cairn.clock import Clock
from cairn.errors import CairnError
from cairn.framework.app import App
from cairn.framework.fresh import Modules
from cairn.framework.looking import Look, Places, changed, folders_of
from cairn.harness.agent import Agent

#: Seconds between two looks: an edit is live within a second, most of which is a person's.
LOOK_SECONDS = 0.25
#: A look may cost this part of one CPU at most.
LOOK_SHARE = 0.05
#: Seconds in which nothing may change any more before files are read: an editor, or a checkout, writes several.
SETTLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Loaded:
    """What reading the project gave. With problems, `agents` are those that are good all the same."""

    agents: tuple[Agent[Any], ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One change of files, and what became of it."""

    files: tuple[str, ...]
    problems: tuple[str, ...] = ()
    """Why the last good agents answer on; empty when what was edited is live."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    seconds: float = 0.0
    """From the look that saw it."""


class Reloader:
    """Follows the files of one project for one App."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        *,
        root: Path,
        agents: Sequence[Path],
        clock: Clock,
        files: Sequence[Path] = (),
    ) -> None:
        """`load` reads the project, importing what it needs. `agents` are the files and folders they are written in, `files`
        others that matter to it."""
        self._load = load
        self._root = root
        self._clock = clock
        self._modules = Modules(root)
        self._places = Places(tuple(agents), (root,), tuple(files))
        self._seen: Look = {}
        self._is_broken = False

    def first(self) -> Loaded:
        """The project as it is now, read for the first time: what is good of it. Edits from here on are seen."""
        before = self._places.look()
        found = self._load()
        self._after(before, found)
        return found

    async def run(self, app: App, on_change: Callable[[Change], None]) -> None:
        """Keep the App's agents as their files are, for ever; `on_change` is told of each change. *Cancelled*: at once."""
        while True:
            cost = await self._wait_for_change()
            began = self._clock.monotonic()
            now = await self._settled()
            files = tuple(changed(self._seen, now))
            change = await self._change(app, files, now)
            on_change(replace(change, seconds=self._clock.monotonic() - began + cost))

    async def _wait_for_change(self) -> float:
        """Returns the seconds the look took that saw one."""
        while True:
            began = self._clock.monotonic()
            now = await asyncio.to_thread(self._places.look)
            cost = self._clock.monotonic() - began
            if now != self._seen:
                return cost
            await self._clock.sleep(max(LOOK_SECONDS, cost / LOOK_SHARE))

    async def _settled(self) -> Look:
        now = await asyncio.to_thread(self._places.look)
        while True:
            await self._clock.sleep(SETTLE_SECONDS)
            again = await asyncio.to_thread(self._places.look)
            if again == now:
                return now
            now = again

    async def _change(self, app: App, files: tuple[str, ...], now: Look) -> Change:
        try:
            # In a thread: what a project imports may take its time, and conversations go on meanwhile.
            found = await asyncio.to_thread(self._modules.read_anew, self._load, is_good=lambda loaded: not loaded.problems)
        except Exception as error:
            found = Loaded((), (f"{type(error).__name__}: {error}",))
        before = {agent.name for agent in app.agents}
        problems = found.problems
        if not problems:
            try:
                await app.replace(found.agents)
            except CairnError as error:
                problems = (str(error),)
        await asyncio.to_thread(self._after, now, replace(found, problems=problems))
        after = {agent.name for agent in app.agents}
        return Change(files, problems, tuple(sorted(after - before)), tuple(sorted(before - after)))

    def _after(self, before: Look, found: Loaded) -> None:
        """Look, from now on, at what was imported too. What changed while it was read is seen by the next look."""
        folders = {folder for folder in folders_of(self._modules.files()) if not self._is_agents(folder)}
        code = (self._root, *sorted(folders - {self._root}))
        self._places = replace(self._places, code=code, deep=self._root if found.problems else None)
        there = self._places.look()
        self._seen = {path: before.get(path, stamp) for path, stamp in there.items()}
        # What went while it was read is a change too; what is merely not looked at any more is none.
        self._seen |= {path: stamp for path, stamp in before.items() if path not in there and not os.path.exists(path)}

    def _is_agents(self, folder: Path) -> bool:
        return any(folder == place or folder.is_relative_to(place) for place in self._places.agents)
