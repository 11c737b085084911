"""Which files of a project have changed, by looking at them.

Laws. Nothing tells us: a look compares what is there with what was there, so nothing can be missed, and it works on every file
system and in every container. Where agents and what they import lie is looked at; environments, packages of other languages and
hidden folders are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: In the agents' folder: code, and what prompts are written in.
AGENT_SUFFIXES = (".py", ".md", ".txt", ".jinja", ".jinja2", ".j2", ".json", ".toml", ".yaml", ".yml")
#: Elsewhere only code counts: tools write other files there.
CODE_SUFFIXES = (".py",)
#: Files of one look at most, so that a folder that holds the world does not stop us. Those are the first in order of name.
FILES_MAX = 5_000
#: Folders of one walk at most, for the same reason.
FOLDERS_MAX = 2_000
#: Folders nobody writes agents in.
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "env", "build", "dist"})

Stamp = tuple[int, int, int]
Look = dict[str, Stamp]


@dataclass(frozen=True, slots=True)
class Places:
    """What to look at."""

    agents: tuple[Path, ...]
    """Files and folders agents are written in: everything below."""
    code: tuple[Path, ...]
    """Folders code is imported from: what lies in them, not below."""
    files: tuple[Path, ...] = ()
    deep: Path | None = None
    """While something is wrong, all code below: what is missing may appear anywhere."""

    def look(self) -> Look:
        """Every file there is, and what tells one version of it from another."""
        found: Look = {}
        for path in self._paths():
            if len(found) >= FILES_MAX:
                break
            try:
                status = os.stat(path)
            except OSError:
                continue
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found

    def _paths(self) -> Iterator[str]:
        yield from map(str, self.files)
        for place in self.agents:
            yield from _below(place, AGENT_SUFFIXES) if place.is_dir() else (str(place),)
        for place in self.code:
            yield from _within(place, CODE_SUFFIXES)
        if self.deep is not None:
            yield from _below(self.deep, CODE_SUFFIXES)


def changed(before: Look, after: Look) -> list[str]:
    """The files that came, went or are others now."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def folders_of(files: Iterable[str]) -> set[Path]:
    return {Path(file).parent for file in files}


def _within(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(each.path for each in entries if each.name.endswith(suffixes))
    except OSError:
        return


def _below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    for number, (at, folders, names) in enumerate(os.walk(folder)):
        if number >= FOLDERS_MAX:
            return
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        yield from (os.path.join(at, name) for name in sorted(names) if name.endswith(suffixes))
