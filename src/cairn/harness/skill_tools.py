"""How a model gets at skills: one line of each in the prompt, and two tools for the rest.

Laws. The tools belong to the skills of one render: equal skills, equal tools, so that the request's prefix stays equal. Loading
a skill changes nothing but its own directory in the sandbox, and that only where it differs: both tools may be called again.
"""

from __future__ import annotations

import difflib
import posixpath
import shlex
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cairn.errors import SandboxError, ToolError
from cairn.harness.arguments import compile_schema
from cairn.harness.messages import ToolSpec
from cairn.harness.sandbox.protocol import Sandbox
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, TEXT_LINES_MAX, decode, size_of
from cairn.harness.sandbox.window import SNIFFED_BYTES, Window, numbered
from cairn.harness.skill import MANIFEST, Skill
from cairn.harness.tools import Tool, ToolResult

ACTIVATE = "activate_skill"
READ = "read_skill_resource"

#: Where the files of an agent's own skills are put in a sandbox, so that their scripts can be run.
INSTALLED = ".cairn/skills"

#: Files of a skill that are listed when it is activated.
LISTED_MAX = 100

_CATALOGUE = """\
# Skills

Before work that one of these describes, load its instructions with {tool} and follow them:

{lines}"""


def catalogue(skills: Sequence[Skill]) -> str:
    """What the prompt says of them."""
    return _CATALOGUE.format(tool=ACTIVATE, lines="\n".join(each.catalogue_line for each in skills))


@lru_cache(maxsize=256)
def skill_tools(skills: tuple[Skill, ...]) -> tuple[Tool, ...]:
    """`activate_skill`, and `read_skill_resource` when one of them has files here. Repeat class `safe`."""
    by_name = {each.name: each for each in skills}
    name = {"type": "string", "enum": list(by_name), "description": "The skill's name."}

    async def activate(context: Any, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(await _activated(by_name[arguments["name"]], context.sandbox))

    async def read(context: Any, arguments: dict[str, Any]) -> ToolResult:
        found = by_name[arguments["name"]]
        return ToolResult(_read(found, arguments["path"], arguments.get("offset") or 1, arguments.get("limit")))

    tools = [_tool(ACTIVATE, "Load the instructions of a skill.", {"name": name}, ("name",), activate)]
    if any(each.files for each in skills):
        properties = {
            "name": name,
            "path": {"type": "string", "minLength": 1, "description": "The file, relative to the skill's directory."},
            "offset": {"type": "integer", "minimum": 1, "description": "The first line to read; the first of the file is 1."},
            "limit": {"type": "integer", "minimum": 1, "description": "The most lines to read."},
        }
        text = f"Read a text file of a skill: at most {TEXT_LINES_MAX} lines or {TEXT_BYTES_MAX // 1024} KB at once."
        tools.append(_tool(READ, text, properties, ("name", "path"), read))
    return tuple(tools)


def _tool(name: str, description: str, properties: dict[str, Any], required: tuple[str, ...], run: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    spec = ToolSpec(name=name, description=description, parameters=parameters)
    return Tool(spec=spec, run=run, validate=compile_schema(parameters), repeat="safe")


async def _activated(skill: Skill, sandbox: Sandbox | None) -> str:
    directory = await _installed(skill, sandbox) if sandbox is not None else ""
    parts = [f'<skill name="{skill.name}">', skill.instructions.strip()]
    if skill.compatibility:
        parts.append(f"Needs: {skill.compatibility}")
    if directory:
        parts.append(f"Its directory is {directory}: paths above are relative to it, and its scripts can be run there.")
    if skill.files:
        paths = sorted(skill.files)
        listed = [f"- {path} ({size_of(len(skill.files[path]))})" for path in paths[:LISTED_MAX]]
        if len(paths) > LISTED_MAX:
            listed.append(f"- and {len(paths) - LISTED_MAX} more")
        how = f"read them with {READ}" + (", or as files of its directory" if directory else "")
        parts.append(f"Its files ({how}):\n" + "\n".join(listed))
    return "\n\n".join([*parts, "</skill>"])


async def _installed(skill: Skill, sandbox: Sandbox) -> str:
    """The directory of the skill's files in the sandbox; empty when it has none. Only what differs is written."""
    if not skill.files:
        return skill.place if skill.place.startswith(".agents/") else ""
    directory = f"{INSTALLED}/{skill.name}"
    stamp = f"{directory}/.digest"
    try:
        if await _content(sandbox, stamp) == skill.digest.encode():
            return directory
        manifest = f"# {skill.name}\n\n{skill.instructions}".encode()
        for path, data in {MANIFEST: manifest, **skill.files}.items():
            place = posixpath.join(directory, path)
            if await _content(sandbox, place) != data:
                await sandbox.write(place, data)
        await _make_executable(sandbox, directory, skill)
        await sandbox.write(stamp, skill.digest.encode())
    except (OSError, SandboxError) as error:
        raise ToolError(f"The files of skill {skill.name} could not be put into {directory}: {error}") from error
    return directory


async def _content(sandbox: Sandbox, path: str) -> bytes | None:
    info = await sandbox.stat(path)
    return await sandbox.read(path) if info is not None and info.kind == "file" else None


async def _make_executable(sandbox: Sandbox, directory: str, skill: Skill) -> None:
    if skill.executable:
        paths = " ".join(shlex.quote(posixpath.join(directory, path)) for path in sorted(skill.executable))
        await sandbox.exec(f"chmod +x {paths}", timeout_seconds=30)


def _read(skill: Skill, path: str, offset: int, limit: int | None) -> str:
    known = posixpath.normpath(path)
    data = skill.files.get(known)
    if data is None:
        if known == MANIFEST:
            return skill.instructions
        close = difflib.get_close_matches(known, skill.files, 3)
        there = ", ".join(close or sorted(skill.files)[:LISTED_MAX]) or "none"
        raise ToolError(f"Skill {skill.name} has no file {path}. {'Similar' if close else 'It has'}: {there}.")
    if b"\0" in data[:SNIFFED_BYTES]:
        raise ToolError(f"{path} is not text ({size_of(len(data))}); use it with a command, in the skill's directory.")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return decode(data[:TEXT_BYTES_MAX])
    window = Window(offset, min(limit or TEXT_LINES_MAX, TEXT_LINES_MAX))
    window.feed(data)
    return numbered(path, window, at_least=False)
