"""An agent written as a folder: what lies in it becomes the same Agent a single file would have made.

    support/
      agent.py           agent = Agent(model=…, …); optional when instructions.md says enough
      instructions.md    the instructions; a front matter may hold model and description
      tools/*.py         any number of @tool functions per file
      skills/*/SKILL.md  what it loads when it needs it
      lib/  _anything    yours: never looked at

Laws. Whatever is wrong is collected, not only the first. A name that is nearly right is refused with the right one, and a
folder that would have no effect is never silently accepted.
"""

from __future__ import annotations

import difflib
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cairn.errors import UsageError
from cairn.framework.modules import ModuleProblem, import_file, shown
from cairn.harness.agent import Agent
from cairn.harness.skill import Skill, SkillError
from cairn.harness.skill_files import load_skill
from cairn.harness.tools import ATTRIBUTE, Tool

AGENT = "agent.py"
INSTRUCTIONS = "instructions.md"
TOOLS = "tools"
SKILLS = "skills"

_FILES = (AGENT, INSTRUCTIONS)
_FOLDERS = (TOOLS, SKILLS, "lib")

#: Names that a later version gives a meaning: refused now, so that nobody believes they work.
_LATER = ("subagents", "connections", "schedules", "hooks", "channels", "workspace")

#: Front matter keys of instructions.md.
_KEYS = ("model", "description")


@dataclass(slots=True)
class Findings:
    """What loading found out: `problems` make it fail, `notes` are for `cairn info`."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, place: Path | str, text: str) -> None:
        self.problems.append(f"{shown(place)}: {text}")


def is_private(path: Path) -> bool:
    """Whether discovery never looks at it: underscored, hidden, `lib/`, and tests beside the code."""
    name = path.name
    is_test = name.startswith("test_") or name.endswith("_test.py") or name in ("conftest.py", "tests")
    return name.startswith(("_", ".")) or name == "lib" or is_test


def is_agent_folder(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _FILES)


def load_folder(folder: Path, root: Path, findings: Findings) -> Agent[Any] | None:
    """The folder's agent, or None; what is wrong is in `findings`. *Idempotent*: the same folder gives the same agent."""
    before = len(findings.problems)
    _check_names(folder, findings)
    agent = _agent_of(folder, root, findings)
    text, matter = _instructions(folder / INSTRUCTIONS, findings)
    tools = load_tools(folder / TOOLS, root, findings)
    skills = _skills_of(folder / SKILLS, findings)
    if agent is None or len(findings.problems) > before:
        return None
    try:
        agent.complete(
            name=agent.name or folder.name,
            instructions=text,
            model=matter.get("model"),
            description=matter.get("description"),
            tools=tools,
            skills=skills,
        )
    except UsageError as error:
        findings.problem(folder, str(error))
        return None
    return agent


def agents_in(module: types.ModuleType) -> dict[str, Agent[Any]]:
    """The agents a module defines, by variable name; those it only imported are left out when it has its own."""
    found: dict[str, Agent[Any]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Agent) and not any(value is agent for agent in found.values()):
            found[name] = value
    own = {name: agent for name, agent in found.items() if agent.place.rpartition(":")[0] == module.__file__}
    return own or found


def load_tools(folder: Path, root: Path, findings: Findings) -> list[Tool]:
    """Every @tool function of the folder's files: files by name, functions in the order they are written."""
    if not folder.is_dir():
        return []
    tools: list[Tool] = []
    for file in sorted(folder.iterdir()):
        if is_private(file):
            continue
        if file.is_dir():
            findings.problem(file, "a folder here is never looked at; move its files up, or name it lib/")
        elif file.suffix == ".py":
            try:
                module = import_file(file, root)
            except ModuleProblem as problem:
                findings.problems.append(str(problem))
                continue
            found = _tools_of(module)
            if not found:
                findings.problem(file, "it holds no tool: write @tool above a function, or start the name with _")
            tools.extend(found)
    return tools


def _skills_of(folder: Path, findings: Findings) -> list[Skill]:
    """Every directory of the folder is a skill. A file there, such as a README, is not looked at."""
    skills: list[Skill] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_dir() or path.name.startswith(("_", ".")):
            continue
        try:
            skills.append(load_skill(path))
        except SkillError as error:
            for problem in error.problems:
                findings.problem(path, str(problem).removeprefix(f"{path}/"))
    return skills


def _tools_of(module: types.ModuleType) -> list[Tool]:
    marked = [
        tool
        for value in vars(module).values()
        if isinstance(tool := getattr(value, ATTRIBUTE, None), Tool) and getattr(value, "__module__", None) == module.__name__
    ]
    unique = {id(tool): tool for tool in marked}
    return sorted(unique.values(), key=lambda tool: int(tool.place.rpartition(":")[2] or 0))


def _agent_of(folder: Path, root: Path, findings: Findings) -> Agent[Any] | None:
    file = folder / AGENT
    if not file.is_file():
        return Agent()
    try:
        found = agents_in(import_file(file, root))
    except ModuleProblem as problem:
        findings.problems.append(str(problem))
        return None
    if "agent" in found:
        return found["agent"]
    if len(found) == 1:
        return next(iter(found.values()))
    what = f"it holds {len(found)} agents" if found else "it holds no agent"
    findings.problem(file, f"{what}; write `agent = Agent(…)` in it")
    return None


def _check_names(folder: Path, findings: Findings) -> None:
    if not is_agent_folder(folder):
        findings.problem(folder, f"this folder holds neither {AGENT} nor {INSTRUCTIONS}, so it is no agent")
    for path in sorted(folder.iterdir()):
        name = path.name
        if is_private(path) or name in _FILES or name in _FOLDERS:
            continue
        known = _FOLDERS[:2] if path.is_dir() else _FILES
        close = difflib.get_close_matches(name.lower(), known, 1, 0.7)
        if close:
            findings.problem(path, f"it is never looked at; did you mean {close[0]}{'/' if path.is_dir() else ''}?")
        elif path.is_dir() and name in _LATER:
            findings.problem(path, f"this version of Cairn does not know {name}/; remove it, or rename it to _{name}")
        elif name == f"{TOOLS}.py":
            findings.problem(path, f"it is never looked at; make it {TOOLS}/{folder.name.replace('-', '_')}.py")
        else:
            findings.notes.append(f"{shown(path)}: not part of the agent; ignored")


def _instructions(file: Path, findings: Findings) -> tuple[str | None, dict[str, str]]:
    """The text and the front matter of instructions.md; None when there is none."""
    if not file.is_file():
        return None, {}
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        findings.problem(file, f"it cannot be read: {error}")
        return None, {}
    body, matter = _front_matter(file, text, findings)
    if not body.strip():
        findings.problem(file, "it says nothing; write the instructions, or remove it")
    return body.strip(), matter


def _front_matter(file: Path, text: str, findings: Findings) -> tuple[str, dict[str, str]]:
    """`key: value` lines between two `---` at the very top. No YAML: two keys do not need it."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return text, {}
    end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        findings.problem(f"{file}:1", "the front matter has no end; close it with a line `---`")
        return text, {}
    matter: dict[str, str] = {}
    for number, line in enumerate(lines[1:end], 2):
        key, colon, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not colon or line[:1].isspace() or not value:
            findings.problem(f"{file}:{number}", f"a front matter line is `key: value`, not {line.strip()!r}")
        elif key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(_KEYS)}"
            findings.problem(f"{file}:{number}", f"the front matter has no key {key!r}; {hint}")
        else:
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            matter[key] = value[1:-1] if quoted else value
    return "\n".join(lines[end + 1 :]), matter
