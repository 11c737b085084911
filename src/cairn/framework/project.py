"""Finding agents: one by path or name (`load`), all of a project (`discover`). Files and folders give the same Agents.

Laws. Offline and without side effects beyond importing each module once. Every problem is collected, as `path:line: text`,
before anything is refused. What is explicit (a path, a name in the file) beats what is discovered.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cairn.errors import AgentFileError, UsageError
from cairn.framework import config as configuration
from cairn.framework.config import Config
from cairn.framework.folder import Findings, agents_in, is_agent_folder, is_private, load_folder
from cairn.framework.modules import ModuleProblem, import_file, shown
from cairn.harness.agent import Agent
from cairn.harness.definition import NAME


@dataclass(frozen=True, slots=True)
class Project:
    """What a project holds. `problems` is empty when all of it can be used."""

    config: Config
    agents: tuple[Agent[Any], ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def agent(self, name: str) -> Agent[Any] | None:
        """The agent of that name, or that had it once."""
        by_name = {alias: agent for agent in self.agents for alias in agent.aliases}
        by_name.update({agent.name: agent for agent in self.agents})
        return by_name.get(name)


def load(target: str | Path, *, start: Path | None = None) -> Agent[Any]:
    """The agent `target` names: a file, a folder, `path:NAME` (a variable or an agent's name), or the bare name of an agent
    of the project around `start` (the working directory by default).

    *Raises* AgentFileError with every problem of what it had to read, UsageError when there is nothing of that name.
    """
    start = (start or Path.cwd()).resolve()
    path, name = _split(str(target), start)
    if path is None:
        return _by_name(name, start)
    root = root_of(path, start)
    findings = Findings()
    agent = _from_folder(path, name, root, findings) if path.is_dir() else _from_file(path, name, root, findings)
    if findings.problems or agent is None:
        raise _refusal(path, findings)
    return _with_default_model(agent, configuration.find(path))


def discover(config: Config) -> Project:
    """Every agent under the project's agents folder: each file's and each folder's. Never raises for a file's sake."""
    findings = Findings()
    agents: list[Agent[Any]] = []
    folder = config.agents_folder
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_private(path):
            continue
        if path.is_dir():
            if is_agent_folder(path):
                loaded = load_folder(path, config.root, findings)
                agents.extend([loaded] if loaded is not None else [])
            else:
                findings.problem(path, "it holds neither agent.py nor instructions.md; if it is no agent, name it lib/")
        elif path.suffix == ".py":
            agents.extend(_all_in_file(path, config.root, findings))
        elif path.suffix == ".md":
            findings.problem(path, f"an agent in prose is a folder: make it {path.stem}/instructions.md")
    _check_unique(agents, findings)
    agents = [_with_default_model(agent, config) for agent in agents]
    return Project(config, tuple(agents), tuple(findings.problems), tuple(findings.notes))


def root_of(path: Path, start: Path) -> Path:
    """The folder `path` is imported from: its project's, or where it lies when it has none."""
    config = configuration.find(path)
    if config.file is not None:
        return config.root
    beside = path.parent
    # Without a pyproject.toml the working directory is the root, if the file lies beneath it in importable folders.
    if beside != start and beside.is_relative_to(start) and all("." not in part for part in beside.relative_to(start).parts):
        return start
    return beside


def _split(target: str, start: Path) -> tuple[Path | None, str]:
    """`path:NAME` as its parts. A bare agent name that is no path gives (None, name)."""
    whole = start / target
    if whole.exists() and not (NAME.fullmatch(target) and whole.is_dir() and not is_agent_folder(whole)):
        return whole.resolve(), ""
    before, colon, name = target.rpartition(":")
    if colon and (start / before).exists():
        return (start / before).resolve(), name
    looks_like_path = "/" in target or target.endswith(".py") or ".py:" in target
    if not looks_like_path and not colon:
        return None, target
    raise UsageError(f"there is no {before or target}{_near(start / (before if colon else target))}")


def _near(missing: Path) -> str:
    """A hint at what may have been meant by a path that is not there."""
    folder = missing.parent
    if not folder.is_dir():
        return f"; not even its folder {shown(folder)}"
    names = [path.name for path in folder.iterdir() if path.suffix == ".py" or is_agent_folder(path)]
    close = difflib.get_close_matches(missing.name, names, 1)
    return f"; did you mean {shown(folder / close[0])}?" if close else ""


def _by_name(name: str, start: Path) -> Agent[Any]:
    config = configuration.find(start)
    folder = config.agents_folder
    # An agent that is named as its file is found without reading the others: their mistakes are not in its way.
    for stem in dict.fromkeys((name, name.replace("-", "_"))):
        for path in (folder / f"{stem}.py", folder / stem):
            if path.is_file() or is_agent_folder(path):
                findings = Findings()
                found = [a for a in _all_at(path, config.root, findings) if a.name == name or name in a.aliases]
                if findings.problems:
                    raise _refusal(path, findings)
                if found:
                    return _with_default_model(found[0], config)
    project = discover(config)
    agent = project.agent(name)
    if agent is not None:
        return agent
    if project.problems:
        raise AgentFileError(
            f"there is no agent {name!r}, but not everything in {shown(folder)} could be read", project.problems
        )
    if (start / name).is_dir():
        # Neither an agent's name nor an agent's folder: say what the folder lacks.
        findings = Findings()
        load_folder(start / name, start, findings)
        raise _refusal(start / name, findings)
    known = [agent.name for agent in project.agents]
    if not known:
        raise UsageError(f"there is no agent {name!r}: {shown(folder)} holds none; give a path, such as agents/{name}.py")
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
    raise UsageError(f"there is no agent {name!r} in {shown(folder)}; {hint}")


def _all_at(path: Path, root: Path, findings: Findings) -> list[Agent[Any]]:
    if path.is_dir():
        loaded = load_folder(path, root, findings)
        return [loaded] if loaded is not None else []
    return _all_in_file(path, root, findings)


def _all_in_file(file: Path, root: Path, findings: Findings) -> list[Agent[Any]]:
    found = _import(file, root, findings)
    if not found:
        if found is not None:
            findings.problem(file, "it holds no agent; write `name = Agent('name', …)`, or start the file's name with _")
        return []
    return _named(file, found, findings)


def _from_file(file: Path, name: str, root: Path, findings: Findings) -> Agent[Any] | None:
    if file.suffix != ".py":
        findings.problem(file, "an agent's file is Python (.py); an agent's folder holds agent.py or instructions.md")
        return None
    found = _import(file, root, findings)
    if found is None:
        return None
    _named(file, found, findings)
    listed = ", ".join(f"{variable} ({agent.place.rpartition(':')[2]})" for variable, agent in found.items())
    if name:
        agent = found.get(name) or next((agent for agent in found.values() if agent.name == name), None)
        if agent is None:
            findings.problem(file, f"it holds no agent {name!r}; there are, with their lines: {listed or 'none'}")
        return agent
    if len(found) != 1:
        what = f"it holds {len(found)} agents; say which, as in {shown(file)}:{next(iter(found))}" if found else ""
        findings.problem(file, f"{what} (with their lines: {listed})" if found else _no_agent(file))
        return None
    return next(iter(found.values()))


def _no_agent(file: Path) -> str:
    return f"it holds no agent; write `{file.stem.replace('-', '_')} = Agent('{file.stem.replace('_', '-')}', model=…)`"


def _from_folder(folder: Path, name: str, root: Path, findings: Findings) -> Agent[Any] | None:
    agent = load_folder(folder, root, findings)
    if agent is not None and name and name not in (agent.name, "agent"):
        findings.problem(folder, f"its agent is named {agent.name!r}, not {name!r}")
    return agent


def _import(file: Path, root: Path, findings: Findings) -> dict[str, Agent[Any]] | None:
    try:
        return agents_in(import_file(file, root))
    except ModuleProblem as problem:
        findings.problems.append(str(problem))
        return None


def _named(file: Path, found: dict[str, Agent[Any]], findings: Findings) -> list[Agent[Any]]:
    """The agents, one without a name taking its file's."""
    for agent in found.values():
        if not agent.name:
            try:
                agent.complete(name=file.stem.replace("_", "-"))
            except UsageError as error:
                findings.problem(agent.place or file, f"{error}; or name it in Agent('…')")
    return list(found.values())


def _check_unique(agents: list[Agent[Any]], findings: Findings) -> None:
    seen: dict[str, Agent[Any]] = {}
    for agent in agents:
        for name in (agent.name, *agent.aliases):
            other = seen.setdefault(name, agent)
            if other is not agent:
                findings.problem(agent.place, f"two agents are named {name!r}; the other is at {shown(other.place)}")


def _with_default_model(agent: Agent[Any], config: Config) -> Agent[Any]:
    if agent.model is None and config.model is not None:
        agent.complete(model=config.model)
    return agent


def _refusal(path: Path, findings: Findings) -> AgentFileError:
    problems = tuple(findings.problems) or (f"{shown(path)}: it holds no agent",)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return AgentFileError(f"{problems[0]}{more}", problems)
