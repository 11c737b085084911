"""`cairn info` and `cairn check`: what was found, what the model would see, and everything that is wrong, offline.

Laws. Nothing is stored, asked or sent; an agent is rendered as for the first turn of a new conversation. `info` shows and
succeeds as long as something can be shown; `check` is for CI and fails for any problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cairn.errors import AgentFileError, CairnError, UsageError
from cairn.framework import config as configuration
from cairn.framework.cli import object_view
from cairn.framework.cli.output import Exit, json_line, line, one_line, shortened
from cairn.framework.imported import app_named, names_an_app
from cairn.framework.modules import shown
from cairn.framework.project import discover, load
from cairn.harness.agent import Agent
from cairn.harness.extras import check_extras
from cairn.harness.sandbox.protocol import SandboxFactory
from cairn.harness.tools import Tool
from cairn.runtime.object import ObjectApplication


@dataclass(frozen=True, slots=True)
class Found:
    """What a target, or the project around the working directory, holds."""

    root: Path
    folder: Path
    """Where agents were looked for."""
    agents: tuple[Agent[Any], ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    objects: tuple[ObjectApplication, ...] = ()
    """An App's classes of durable objects."""


def info(target: str | None, *, json: bool) -> int:
    """Show the agents and all they offer."""
    found = _find(target)
    views = [_view(agent) for agent in found.agents]
    problems = [*found.problems, *(problem for view in views for problem in view["problems"])]
    objects = [object_view.view(each) for each in found.objects]
    if json:
        told = {"root": str(found.root), "agents": views, "objects": objects}
        json_line({**told, "problems": problems, "notes": list(found.notes)})
        return Exit.OK
    for view in views:
        _show(view)
    for view in objects:
        object_view.show(view)
    for note in found.notes:
        line(f"note: {note}")
    for problem in problems:
        line(f"problem: {one_line(problem)}")
    if not views and not objects and not problems:
        line(_nothing(found))
    return Exit.OK


def check(target: str | None, *, json: bool) -> int:
    """Every problem at once; 0 when there is none, 2 when something has to change first."""
    found = _find(target)
    problems = [*found.problems, *(problem for agent in found.agents for problem in _problems(agent))]
    if not found.agents and not found.objects and not problems:
        # A check that looked in the wrong place must not pass.
        problems.append(_nothing(found))
    if json:
        json_line({"agents": [agent.name for agent in found.agents], "problems": problems})
    else:
        for problem in problems:
            line(one_line(problem))
        if not problems:
            line(f"ok: {', '.join([*(agent.name for agent in found.agents), *(each.kind for each in found.objects)])}")
    return Exit.USAGE if problems else Exit.OK


def _nothing(found: Found) -> str:
    file = shown(found.folder / "NAME.py")
    return f"there are no agents in {shown(found.folder)}; write {file} with `name = Agent('name', model=…)`"


def _find(target: str | None) -> Found:
    if target is None:
        project = discover(configuration.find())
        config = project.config
        return Found(config.root, config.agents_folder, project.agents, project.problems, project.notes)
    here = Path.cwd()
    if names_an_app(target, here):
        app = app_named(target, here, "this")
        return Found(here, here, app.agents, (), (), tuple(app.classes.values()))
    try:
        return Found(here, here, (load(target),), ())
    except AgentFileError as error:
        return Found(here, here, (), error.problems or (str(error),))


def _sandbox_tools(factory: SandboxFactory) -> list[Tool]:
    from cairn.harness.sandbox.files import file_tools

    return list(file_tools())


def _problems(agent: Agent[Any]) -> list[str]:
    """What would keep this agent from its first turn, keys excepted: CI has none."""
    problems: list[str] = []
    try:
        rendered = agent.render(sandbox_tools=_sandbox_tools)
    except Exception as error:
        return [f"{agent!r}: {error if isinstance(error, CairnError) else f'{type(error).__name__}: {error}'}"]
    try:
        check_extras(agent)
    except UsageError as error:
        problems.append(f"{agent!r}: {error}")
    if isinstance(rendered.model, str):
        from cairn.harness.models.resolve import check_installed, parse

        try:
            provider, _ = parse(rendered.model)
            check_installed(provider)
        except UsageError as error:
            problems.append(f"{agent!r}: {error}")
    return problems


def _view(agent: Agent[Any]) -> dict[str, Any]:
    view: dict[str, Any] = {
        "name": agent.name,
        "place": shown(agent.place) if agent.place else "",
        "description": agent.description,
        "aliases": list(agent.aliases),
        "sandbox": agent.sandbox.name if agent.sandbox is not None else None,
        "isolation": getattr(agent.sandbox, "about", ""),
        "state": list(agent.state_type.fields) if agent.state_type is not None else None,
        "hooks": {
            "prepare": len(agent.prepares),
            "on_message": len(agent.message_hooks),
            "on_stop": len(agent.stop_hooks),
            "on_settled": len(agent.settled_hooks),
        },
        "problems": _problems(agent),
    }
    try:
        rendered = agent.render(sandbox_tools=_sandbox_tools)
    except Exception:
        return view
    view["model"] = rendered.model_spec
    view["thinking"] = rendered.thinking
    view["instructions"] = rendered.instructions
    view["tools"] = [
        {
            "name": tool.name,
            "description": tool.spec.description,
            "parameters": tool.spec.parameters,
            "repeat": tool.repeat,
            "sequential": tool.sequential,
            "timeout_seconds": tool.timeout_seconds,
            "place": shown(tool.place) if tool.place else "",
        }
        for tool in rendered.tools
    ]
    return view


def _show(view: dict[str, Any]) -> None:
    line(f"{view['name']}  ({view['place']})")
    if view["description"]:
        line(f"  {shortened(view['description'])}")
    line(f"  model         {view.get('model', 'none')}" + (f", thinking {view['thinking']}" if view.get("thinking") else ""))
    line(f"  sandbox       {view['sandbox'] or 'none'}{' (' + view['isolation'] + ')' if view['isolation'] else ''}")
    if view["state"]:
        line(f"  state         {', '.join(view['state'])}")
    hooks = [f"{name} ×{count}" for name, count in view["hooks"].items() if count]
    if hooks:
        line(f"  hooks         {', '.join(hooks)}")
    if view.get("instructions"):
        line(f"  instructions  {shortened(view['instructions'])}")
    for tool in view.get("tools", ()):
        rules = [tool["repeat"], *(["one at a time"] if tool["sequential"] else [])]
        line(f"  tool          {tool['name']}({_signature(tool['parameters'])})  [{', '.join(rules)}]")
        line(f"                {shortened(tool['description'].partition(chr(10))[0])}")


def _signature(parameters: dict[str, Any]) -> str:
    """`path: string, offset?: integer`, as the model's schema has it."""
    required = set(parameters.get("required", ()))
    parts = []
    for name, schema in parameters.get("properties", {}).items():
        kind = schema.get("type") or ("one of" if "enum" in schema else "any")
        kind = " | ".join(kind) if isinstance(kind, list) else kind
        parts.append(f"{name}{'' if name in required else '?'}: {kind}")
    return ", ".join(parts)
