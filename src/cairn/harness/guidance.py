"""What a project says to whoever works in it: `AGENTS.md` and `CLAUDE.md` of the sandbox's working directory, and the skills
that lie in its `.agents/skills`.

Laws. They are read when a conversation opens, and what was read is recorded: from then on the log is where they are, and an
edit of the file changes nothing that was said. They are told as the project's words, after the agent's own instructions.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
from collections.abc import Sequence

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import Sandbox
from cairn.harness.skill import MANIFEST
from cairn.harness.skill_files import DISCOVERED, discover

logger = logging.getLogger("cairn.harness")

NAMES = ("AGENTS.md", "CLAUDE.md")

#: Of each file: about 8,000 tokens that are sent with every request.
BYTES_MAX = 32 * 1024

#: A sandbox that does not answer must not keep a conversation from opening.
SECONDS_MAX = 10.0


async def read_guidance(sandbox: Sandbox, own_skills: Sequence[str] = ()) -> str:
    """The text for the system prompt; empty when the directory has none. What cannot be read is left out, with a warning, and
    so is a skill that has the name of one of the agent's own."""
    parts: list[str] = []
    seen: set[bytes] = set()
    for name in NAMES:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                data = await _read(sandbox, name)
        except (OSError, SandboxError) as error:
            logger.warning("%s of the working directory was not read: %s", name, error)
            continue
        if data.strip() and data not in seen:
            seen.add(data)
            parts.append(_told(name, data))
    if skills := await _skills(sandbox, own_skills):
        parts.append(skills)
    return "\n\n".join(parts)


async def _skills(sandbox: Sandbox, own: Sequence[str]) -> str:
    """A line for each skill of the directory: the model reads the rest with its file tools when it needs it."""
    try:
        async with asyncio.timeout(SECONDS_MAX):
            found = await discover(sandbox, own)
    except (OSError, SandboxError) as error:
        logger.warning("%s was not read: %s", DISCOVERED, error)
        return ""
    for note in found.notes:
        logger.warning("skills of the working directory: %s", note)
    if not found.skills:
        return ""
    lines = "\n".join(f"{each.catalogue_line} ({each.place}/{MANIFEST})" for each in found.skills)
    return f"The working directory has skills. Before work that one of these describes, read its file and follow it:\n\n{lines}"


async def _read(sandbox: Sandbox, name: str) -> bytes:
    path = posixpath.join(sandbox.cwd, name)
    found = await sandbox.stat(path)
    return await sandbox.read(path, size=BYTES_MAX + 1) if found is not None and found.kind == "file" else b""


def _told(name: str, data: bytes) -> str:
    text = data[:BYTES_MAX].decode("utf-8", "replace").strip()
    more = f"\n\n[The first {BYTES_MAX // 1024} KB; read the file for the rest.]" if len(data) > BYTES_MAX else ""
    return f"{name} of the working directory says:\n\n{text}{more}"
