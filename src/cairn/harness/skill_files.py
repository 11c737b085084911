"""Skills from where they lie: a directory, a resource of an installed package, a sandbox's `.agents/skills`.

Laws. What `Agent(skills=…)` names must be right: every problem of every skill is raised at once. What is discovered in a
workspace is somebody else's: a skill that is wrong there is left out with a note, and one that has the name of the agent's own
is a problem that names both. A link is not followed out of the skill.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cairn.errors import SandboxError, UsageError
from cairn.harness import skill as format
from cairn.harness.sandbox.protocol import Sandbox
from cairn.harness.skill import MANIFEST, Problem, Skill, SkillError

#: Where skills of a workspace lie, relative to its working directory.
DISCOVERED = ".agents/skills"

#: Skills that are discovered in one workspace: each is a line of every prompt.
DISCOVERED_MAX = 100

#: Never part of a skill.
_LEFT_OUT = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", ".DS_Store", ".venv"})

Given = str | os.PathLike[str] | Skill


def load_skills(given: Sequence[Given], *, beside: str = "") -> tuple[Skill, ...]:
    """The skills that are named, in that order. A text is a directory, relative to the file `beside` or to the working
    directory, or `package:directory` for what an installed package brings. A directory without a SKILL.md whose
    directories have one stands for all of them.

    *Raises* SkillError with all that is wrong, UsageError for a name that two of them have.
    """
    problems: list[Problem] = []
    found: list[Skill] = []
    for each in given:
        if isinstance(each, Skill):
            found.append(each)
            continue
        for directory in _directories(os.fspath(each), beside, problems):
            try:
                found.append(load_skill(directory))
            except SkillError as error:
                problems.extend(error.problems)
    if problems:
        raise SkillError(problems)
    return distinct(found)


def distinct(skills: Sequence[Skill]) -> tuple[Skill, ...]:
    """The same, each name once. *Raises* UsageError for two that share a name, with both places."""
    by_name: dict[str, Skill] = {}
    for each in skills:
        present = by_name.setdefault(each.name, each)
        if present != each:
            raise UsageError(f"there are two skills named {each.name!r}: {_place(present)} and {_place(each)}; rename one")
    return tuple(by_name.values())


def _place(skill: Skill) -> str:
    return skill.place or "written in code"


def load_skill(directory: Any) -> Skill:
    """The skill in a directory (a Path, or a resource of a package). *Raises* SkillError with everything that is wrong."""
    name, place = directory.name, str(directory)
    manifest = directory / MANIFEST
    file = f"{place}/{MANIFEST}"
    if not manifest.is_file():
        raise SkillError([Problem(file, "", _no_manifest(directory))])
    try:
        text = manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SkillError([Problem(file, "", f"it cannot be read as UTF-8: {error}")]) from None
    matter, instructions = format.split_manifest(file, text)
    fields, lines = format.read_fields(file, matter)
    problems = format.check_fields(file, fields, lines, directory=name)
    if not instructions.strip():
        problems.append(Problem(file, "", "there are no instructions after the front matter"))
    if (secret := format.secret_in(MANIFEST, text.encode())) is not None:
        problems.append(Problem(file, "", f"it holds what looks like {secret[1]}; take it out", secret[0]))
    files: dict[str, bytes] = {}
    executable: set[str] = set()
    size = 0
    for path, entry in _walk(directory, "", place, problems):
        size += _size(entry)
        if len(files) > format.FILES_MAX or size > format.SKILL_BYTES_MAX:
            problems.append(
                Problem(place, "", f"it is too large: more than {format.FILES_MAX} files or {format.SKILL_BYTES_MAX:,} bytes")
            )
            break
        files[path] = entry.read_bytes()
        if isinstance(entry, Path) and os.access(entry, os.X_OK):
            executable.add(path)
    problems += format.check_files(place, files)
    if problems:
        raise SkillError(problems)
    return format.make(fields, instructions, files, place, frozenset(executable))


def _no_manifest(directory: Any) -> str:
    if not directory.is_dir():
        return "there is no such directory"
    other = next((entry.name for entry in directory.iterdir() if entry.name.lower() == MANIFEST.lower()), None)
    return f"it is called {other!r}; rename it to {MANIFEST}" if other else "it is missing; every skill has one"


def _walk(directory: Any, below: str, place: str, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    for entry in sorted(directory.iterdir(), key=lambda each: str(each.name)):
        path = f"{below}{entry.name}"
        if entry.name in _LEFT_OUT or path == MANIFEST:
            continue
        if isinstance(entry, Path) and entry.is_symlink():
            problems.append(Problem(f"{place}/{path}", "", "it is a link; a skill holds its files itself"))
        elif entry.is_dir():
            yield from _walk(entry, f"{path}/", place, problems)
        elif entry.is_file():
            yield path, entry
        else:
            problems.append(Problem(f"{place}/{path}", "", "it is neither a file nor a directory"))


def _size(entry: Any) -> int:
    return entry.stat().st_size if isinstance(entry, Path) else 0


def _directories(given: str, beside: str, problems: list[Problem]) -> list[Any]:
    """The directories of skills that a text stands for."""
    package, colon, path = given.partition(":")
    if colon and "/" not in package:
        directory = _resource(package, path, given, problems)
        if directory is None:
            return []
    else:
        places = [Path(beside).parent / given, Path.cwd() / given] if beside else [Path.cwd() / given]
        directory = next((place for place in places if place.is_dir()), None)
        if directory is None:
            looked = " and ".join(dict.fromkeys(str(place) for place in places))
            problems.append(Problem(given, "", f"there is no such directory (looked at {looked})"))
            return []
        directory = directory.resolve()
    if (directory / MANIFEST).is_file():
        return [directory]
    below = [entry for entry in sorted(directory.iterdir(), key=lambda each: str(each.name)) if (entry / MANIFEST).is_file()]
    return below or [directory]


def _resource(package: str, path: str, given: str, problems: list[Problem]) -> Any:
    from importlib import resources

    try:
        root = resources.files(package)
    except (ImportError, TypeError, ValueError):
        problems.append(Problem(given, "", f"no package {package!r} is installed here"))
        return None
    directory = root.joinpath(path) if path else root
    if not directory.is_dir():
        problems.append(Problem(given, "", f"package {package!r} has no directory {path!r}"))
        return None
    return directory


# --- in a workspace --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Discovered:
    """What lies under `.agents/skills` of a sandbox: lines for the catalogue, and notes on what was left out."""

    skills: tuple[Skill, ...]
    notes: tuple[str, ...] = ()


async def discover(sandbox: Sandbox, own: Sequence[str] = ()) -> Discovered:
    """The skills of the sandbox's working directory, by name. `own` are the names the agent has itself: one of those there is a
    conflict, which the note names. Their files stay where they are: the model reads them with its file tools."""
    try:
        entries = await sandbox.list(DISCOVERED)
    except (OSError, SandboxError):
        return Discovered(())
    found: list[Skill] = []
    notes: list[str] = []
    for entry in sorted(entries, key=lambda each: each.path):
        name = os.path.basename(entry.path)
        place = f"{DISCOVERED}/{name}"
        if entry.kind != "directory" or name.startswith("."):
            continue
        if name in own:
            notes.append(f"{place}: the agent has a skill {name!r} of its own, which is used; rename this one")
            continue
        if len(found) == DISCOVERED_MAX:
            notes.append(f"{DISCOVERED}: there are more than {DISCOVERED_MAX} skills; the rest is left out")
            break
        try:
            found.append(await _from_sandbox(sandbox, place, name))
        except SkillError as error:
            notes.extend(f"left out: {problem}" for problem in error.problems)
    return Discovered(tuple(found), tuple(notes))


async def _from_sandbox(sandbox: Sandbox, place: str, name: str) -> Skill:
    file = f"{place}/{MANIFEST}"
    try:
        data = await sandbox.read(file, size=format.FILE_BYTES_MAX)
        text = data.decode("utf-8")
    except (OSError, SandboxError, UnicodeDecodeError) as error:
        raise SkillError([Problem(file, "", f"it cannot be read: {error}")]) from None
    matter, instructions = format.split_manifest(file, text)
    fields, lines = format.read_fields(file, matter)
    if problems := format.check_fields(file, fields, lines, directory=name):
        raise SkillError(problems)
    return format.make(fields, instructions, {}, place)
