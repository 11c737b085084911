"""What a project's AGENTS.md says is told once, and stays as it was told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from cairn import Agent, App, local
from cairn.harness.guidance import BYTES_MAX
from cairn.harness.models.protocol import ModelRequest
from cairn.harness.sandbox.virtual import virtual
from cairn.testing.scripted import ScriptedModel


def systems(sandbox: Any, *steps: Any, messages: int = 2, store: str = ":memory:") -> list[str]:
    """The system prompts of the requests of a conversation; a step is done between two messages."""
    asked: list[str] = []

    def reply(request: ModelRequest) -> str:
        asked.append(request.system)
        return "Fine."

    async def main() -> None:
        agent = Agent("worker", model=ScriptedModel(reply), sandbox=sandbox, instructions="Be brief.")
        async with App(agents=[agent], store=store) as app:
            for number in range(messages):
                await (await app.conversation(agent, "one").send(f"message {number}")).reply()
                for step in steps:
                    step()

    asyncio.run(main())
    return asked


def test_agents_md_follows_the_instructions_and_is_frozen(tmp_path: Path) -> None:
    """P1: read when the conversation opens; an edit of the file changes no request, so the prefix stays the same."""
    (tmp_path / "AGENTS.md").write_text("Use tabs.\n")

    first, second = systems(local(tmp_path), lambda: (tmp_path / "AGENTS.md").write_text("Use spaces.\n"))

    assert first == "Be brief.\n\nAGENTS.md of the working directory says:\n\nUse tabs."
    assert second == first


def test_both_files_are_told_and_twins_once(tmp_path: Path) -> None:
    """CLAUDE.md too; one that is the same as the other is not said twice."""
    (tmp_path / "AGENTS.md").write_text("Use tabs.")
    (tmp_path / "CLAUDE.md").write_text("Use tabs.")
    assert systems(local(tmp_path), messages=1)[0].count("Use tabs.") == 1

    (tmp_path / "CLAUDE.md").write_text("Sing.")
    assert "CLAUDE.md of the working directory says:\n\nSing." in systems(local(tmp_path), messages=1)[0]


def test_a_workspace_has_its_own(tmp_path: Path) -> None:
    """The file of a seed is read in the virtual sandbox; a long one is cut, saying so."""
    (system,) = systems(virtual(seed={"AGENTS.md": "x" * (BYTES_MAX + 5)}), messages=1)

    assert system.endswith("[The first 32 KB; read the file for the rest.]")
    assert len(system) < BYTES_MAX + 300


def test_without_such_files_nothing_is_added(tmp_path: Path) -> None:
    """A directory named like one is not one."""
    (tmp_path / "AGENTS.md").mkdir()

    assert systems(local(tmp_path), messages=1) == ["Be brief."]
