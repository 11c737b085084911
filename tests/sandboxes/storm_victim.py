"""A process that serves an agent in a virtual sandbox and is killed: `python -m tests.sandboxes.storm_victim STORE COMMANDS`.

It writes a line for each call that has ended. Each command appends a line to a file, counts in a variable, and says both; the
model asks for as many as it was told to.
"""

from __future__ import annotations

import asyncio
import sys

from cairn import Agent, App
from cairn.harness.events import SubmissionSettled, ToolCompleted
from cairn.harness.sandbox.virtual import virtual
from cairn.testing.scripted import Call, ScriptedModel, by_turn

#: One line, one count, a file of its own, a larger one, and a directory that moves to and fro.
COMMAND = (
    "n=$((n+1)); echo $n >> log; mkdir -p here; if [ -d there ]; then mv there/d here/d; rmdir there; "
    "else mkdir -p there; [ -d here/d ] && mv here/d there/d || mkdir there/d; fi; "
    "echo $n > f$((n % 7)); head -c 40000 /dev/zero | tr '\\0' $((n % 10)) > big; echo $(wc -l < log) $n"
)


def agent(commands: int) -> Agent[None]:
    model = ScriptedModel(by_turn([*(Call("bash", {"command": f"{COMMAND} # {n}"}) for n in range(commands)), "Done."]))
    return Agent("storm", model=model, sandbox=virtual())


async def main(store: str, commands: int) -> None:
    made = agent(commands)
    async with App(agents=[made], store=store) as app:
        receipt = await app.conversation(made, "one").send("Go", key="go")
        async for event in receipt.follow():
            if isinstance(event, ToolCompleted):
                print("called", flush=True)
            elif isinstance(event, SubmissionSettled):
                assert event.outcome == "completed"
                return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
