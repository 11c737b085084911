"""What a stopped command had written is not lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cairn import Agent, App, local
from cairn.harness.events import SubmissionSettled, ToolCompleted, ToolProgress
from cairn.testing.scripted import Call, ScriptedModel


def test_an_aborted_command_keeps_its_output_in_its_outcome(tmp_path: Path) -> None:
    """P27, F3: the outcome of a bash call that was aborted says so and holds what the command had written."""
    model = ScriptedModel([Call("bash", {"command": "echo begun; sleep 60"}), "never asked"])
    agent = Agent("stopped", model=model, sandbox=local(tmp_path))

    async def main() -> tuple[ToolCompleted, SubmissionSettled]:
        async with App(agents=[agent], store=":memory:") as app:
            receipt = await app.conversation(agent, "one").send("Go")
            completed: ToolCompleted | None = None
            async for event in receipt.follow():
                if isinstance(event, ToolProgress) and "begun" in event.text:
                    await receipt.conversation.abort()
                elif isinstance(event, ToolCompleted):
                    completed = event
                elif isinstance(event, SubmissionSettled):
                    assert completed is not None
                    return completed, event
        raise AssertionError("it never settled")

    completed, settled = asyncio.run(main())

    assert completed.outcome == "aborted"
    assert "begun" in completed.text
    assert settled.outcome == "aborted"
    assert model.asked == 1
