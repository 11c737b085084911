"""An agent in `isolated()`: what its commands do to real files is in its workspace, with the outcomes of its calls."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from cairn import Agent, App
from cairn.harness import records as h
from cairn.harness.events import SubmissionSettled, ToolCompleted
from cairn.harness.records import HARNESS
from cairn.harness.sandbox.isolated import isolated
from cairn.runtime import records as r
from cairn.runtime.log import decode
from cairn.runtime.storage.store import Address
from cairn.runtime.workspace_history import workspace_at
from cairn.testing.history import logs_of
from cairn.testing.scripted import Call, ScriptedModel

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap"),
]


def bash(*commands: str) -> list[Any]:
    """A model that runs these, one after the other, and then says so."""
    return [*(Call("bash", {"command": command}) for command in commands), "Done."]


async def outcomes(app: App, agent: Agent[Any]) -> list[str]:
    found: list[str] = []
    receipt = await app.conversation(agent, "one").send("Go")
    async for event in receipt.follow():
        if isinstance(event, ToolCompleted):
            found.append(event.text)
        if isinstance(event, SubmissionSettled):
            assert event.outcome == "completed"
            return found
    raise AssertionError("it never settled")


def test_files_of_isolated_commands_are_in_the_batch_of_the_outcome_and_found_again(tmp_path: Path) -> None:
    """S1, S13: one batch holds the outcome and the files; the next process lays them out again, and tools see the same."""
    store = str(tmp_path / "store.db")

    async def life(replies: list[Any]) -> list[str]:
        agent = Agent("worker", model=ScriptedModel(replies), sandbox=isolated(grace_seconds=0.2))
        async with App(agents=[agent], store=store) as app:
            told = await outcomes(app, agent)
            (log,) = await logs_of(app.store)
            batches = [decode(r.decoder(HARNESS), row, "one") for row in log.rows]
            for batch in batches:
                if any(isinstance(record, r.FilesChanged) for record in batch):
                    assert any(isinstance(record, h.ToolOutcome) for record in batch)
            files = await workspace_at(app.store, Address("worker", "one"))
            assert await files.read("/src/a.txt") == b"one\n"
            return told

    first = [Call("write", {"path": "src/b.txt", "content": "two\n"}), *bash("echo one > src/a.txt; cat src/b.txt")]
    assert asyncio.run(life(first))[-1] == "two"
    second = [*bash("cat src/a.txt; pwd", "sleep 30 & echo left")]
    told = asyncio.run(life(second))
    assert told[0] == "one\n/workspace"
    assert told[1].startswith("left\n\n[A background process")
