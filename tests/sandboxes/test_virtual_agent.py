"""An agent in a virtual sandbox: what its calls do is in the log with their outcomes, and is found again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cairn import Agent, App, Context
from cairn.errors import SandboxError, ToolError
from cairn.harness.events import SubmissionSettled, ToolCompleted
from cairn.harness.records import HARNESS
from cairn.harness.sandbox.virtual import virtual
from cairn.harness.sandbox.virtual_pool import shared_pool
from cairn.runtime import records as r
from cairn.runtime.files import Quota
from cairn.runtime.log import decode
from cairn.runtime.storage.store import Address
from cairn.runtime.workspace_history import workspace_at
from cairn.testing.history import logs_of
from cairn.testing.scripted import Call, ScriptedModel

pytestmark = [pytest.mark.slow]


def bash(*commands: str) -> list[Any]:
    """A model that runs these, one after the other, and then says so."""
    return [*(Call("bash", {"command": command}) for command in commands), "Done."]


async def outcomes(app: App, agent: Agent[Any], message: str = "Go", id: str = "one") -> list[ToolCompleted]:
    """The outcomes of all calls until it is settled."""
    found: list[ToolCompleted] = []
    receipt = await app.conversation(agent, id).send(message)
    async for event in receipt.follow():
        if isinstance(event, ToolCompleted):
            found.append(event)
        if isinstance(event, SubmissionSettled):
            assert event.outcome == "completed"
            return found
    raise AssertionError("it never settled")


async def batches_of(app: App) -> list[Sequence[r.Record]]:
    """Each batch of the one instance."""
    (log,) = await logs_of(app.store)
    decoder = r.decoder(HARNESS)
    return [decode(decoder, row, "one") for row in log.rows]


def test_what_an_agent_does_is_there_in_the_next_call_the_next_message_and_the_next_process(tmp_path: Path) -> None:
    """S13, F3: files, directory, variables and functions last; `cd` and variables from one call hold in the next."""
    store = str(tmp_path / "store.db")
    first = bash(
        "mkdir src; cd src; echo one > a.txt; GREETING=hello; greet() { echo $GREETING $1; }", "pwd; cat a.txt; greet you"
    )
    second = bash("pwd; greet again; cat a.txt; ls /workspace")

    async def life(replies: list[Any]) -> list[str]:
        agent = Agent("worker", model=ScriptedModel(replies), sandbox=virtual())
        async with App(agents=[agent], store=store) as app:
            try:
                return [each.text for each in await outcomes(app, agent)]
            finally:
                shared_pool().close()

    assert asyncio.run(life(first)) == ["(no output)", "/workspace/src\none\nhello you"]
    assert asyncio.run(life(second)) == ["/workspace/src\nhello again\none\nsrc"]


def test_files_and_shell_are_in_the_batch_of_the_outcome() -> None:
    """T1: one batch holds the outcome, what became of the files, and where the shell is; a call that changed nothing
    adds nothing to it."""

    async def main() -> list[list[str]]:
        model = ScriptedModel(bash("mkdir d; cd d; echo 1 > a; echo 2 > b", "cat a b"))
        agent = Agent("worker", model=model, sandbox=virtual())
        async with App(agents=[agent], store=":memory:") as app:
            await outcomes(app, agent)
            shared_pool().close()
            found = [[type(record).__name__ for record in batch] for batch in await batches_of(app)]
            return [names for names in found if "ToolOutcome" in names]

    first, second = asyncio.run(main())

    assert first[:3] == ["ToolOutcome", "FilesChanged", "SandboxRemembered"]
    assert "FilesChanged" not in second
    assert "SandboxRemembered" not in second


def test_a_command_that_fails_keeps_its_files_and_one_that_is_stopped_leaves_none() -> None:
    """S1: a non-zero exit is a result; a timeout, a tool that raises and a worker that dies leave the files as they were."""

    async def main() -> tuple[list[str], list[str]]:
        model = ScriptedModel(
            [
                Call("bash", {"command": "echo kept > kept; exit 3"}),
                Call("bash", {"command": "echo lost > late; sleep 30", "timeout": 0.5}),
                Call("bash", {"command": 'echo lost > crashed; x=\'eval "$x"\'; eval "$x"'}),
                Call("careless", {}),
                "Done.",
            ]
        )
        agent = Agent("worker", model=model, sandbox=virtual())

        @agent.tool
        async def careless(ctx: Context) -> str:
            """Write, and fail."""
            await ctx.sandbox.write("careless", b"lost")
            raise ToolError("I failed")

        async with App(agents=[agent], store=":memory:") as app:
            found = await outcomes(app, agent)
            shared_pool().close()
            files = await workspace_at(app.store, Address("worker", "one"))
            return [each.outcome for each in found], [entry.path for entry in files.walk()]

    ended, files = asyncio.run(main())

    assert ended == ["error", "error", "error", "error"]
    assert files == ["/kept"]


def test_a_tool_that_goes_on_after_its_command_could_not_be_kept_keeps_nothing() -> None:
    """S1: a draft that has a part of a command is dropped, whatever the tool makes of the error."""

    async def main() -> tuple[list[ToolCompleted], list[str]]:
        model = ScriptedModel([Call("careless", {}), "Done."])
        agent = Agent("worker", model=model, sandbox=virtual(quota=Quota(bytes=100_000)))

        @agent.tool
        async def careless(ctx: Context) -> str:
            """Write too much, and do as if nothing had happened."""
            with contextlib.suppress(SandboxError):
                await ctx.sandbox.exec("echo 1 > part; for i in 1 2 3; do head -c 60000 /dev/zero > f$i; done")
            return "fine"

        async with App(agents=[agent], store=":memory:") as app:
            found = await outcomes(app, agent)
            shared_pool().close()
            files = await workspace_at(app.store, Address("worker", "one"))
            return found, [entry.path for entry in files.walk()]

    (outcome,), files = asyncio.run(main())

    assert outcome.outcome == "error"
    assert files == []
