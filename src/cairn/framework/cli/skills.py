"""`cairn skills check`: everything that is wrong with skills, by file, field and rule; offline.

Laws. Nothing is changed. A path is one skill, or a directory of skills. The exit code is 2 when something has to change, so
that it can stand in CI and in a hook before a commit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cairn.errors import UsageError
from cairn.framework.cli.output import Exit, json_line, line, one_line
from cairn.framework.modules import shown
from cairn.harness.sandbox.text import size_of
from cairn.harness.skill import INSTRUCTION_LINES_ADVISED, MANIFEST, Problem, Skill, SkillError
from cairn.harness.skill_files import distinct, load_skill


def check(paths: Sequence[str], *, json: bool) -> int:
    """Every problem of every skill under the paths."""
    skills: list[Skill] = []
    problems: list[dict[str, Any]] = []
    for directory in _directories(paths):
        try:
            skills.append(load_skill(directory))
        except SkillError as error:
            problems += [_problem(each) for each in error.problems]
    try:
        distinct(skills)
    except UsageError as error:
        problems.append({"file": "", "line": None, "field": "name", "problem": str(error)})
    notes = [note for skill in skills for note in _notes(skill)]
    if json:
        json_line({"skills": [_view(skill) for skill in skills], "problems": problems, "notes": notes})
    else:
        _show(skills, problems, notes)
    return Exit.USAGE if problems else Exit.OK


def _problem(problem: Problem) -> dict[str, Any]:
    return {"file": shown(problem.file), "line": problem.line, "field": problem.field, "problem": problem.text}


def _show(skills: Sequence[Skill], problems: Sequence[dict[str, Any]], notes: Sequence[str]) -> None:
    for problem in problems:
        place = problem["file"] if problem["line"] is None else f"{problem['file']}:{problem['line']}"
        line(one_line(": ".join(part for part in (place, problem["field"], problem["problem"]) if part)))
    for note in notes:
        line(f"note: {note}")
    for skill in skills:
        files = f", {len(skill.files)} files, {size_of(sum(map(len, skill.files.values())))}" if skill.files else ""
        line(f"ok: {skill.name} ({len(skill.instructions.splitlines())} lines{files})")


def _view(skill: Skill) -> dict[str, Any]:
    return {
        "name": skill.name,
        "description": skill.description,
        "place": shown(skill.place),
        "lines": len(skill.instructions.splitlines()),
        "files": sorted(skill.files),
        "digest": skill.digest,
    }


def _notes(skill: Skill) -> Iterator[str]:
    lines = len(skill.instructions.splitlines())
    if lines > INSTRUCTION_LINES_ADVISED:
        advice = f"more than the {INSTRUCTION_LINES_ADVISED} advised; move details into files it refers to"
        yield f"{shown(skill.place)}/{MANIFEST}: {lines} lines of instructions, {advice}"


def _directories(paths: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for given in paths:
        path = Path(os.path.abspath(given))
        if path.name == MANIFEST and path.is_file():
            path = path.parent
        if not path.is_dir():
            raise UsageError(f"there is no directory {given!r}; name a skill's directory, or one that holds skills")
        below = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith((".", "_"))]
        has_own = any(entry.name.lower() == MANIFEST.lower() for entry in path.iterdir())
        skills = [entry for entry in below if any(each.name.lower() == MANIFEST.lower() for each in entry.iterdir())]
        found += [path] if has_own or not skills else skills
    return found
