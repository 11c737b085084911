"""Workflows and agents for each other: an agent that writes, starts and watches workflows; a workflow that asks an agent.

    Onboarding = workflows([call_agent(lambda: app, "support")], kind="onboarding", interpreters=interpreters)
    clerk = Agent("clerk", model="…", tools=workflow_tools(Onboarding, lambda: app))
    app = App([clerk, support], objects=[Onboarding])

Laws. Both are grants: an agent without these tools starts nothing, a workflow asks the agents it was given and no others. What
is started twice, after a crash, is the same.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cairn.errors import FiberFailed
from cairn.harness.context_face import Context
from cairn.harness.function_tool import as_tool, tool
from cairn.harness.tools import Tool
from cairn.runtime.program import Function, FunctionCall
from cairn.runtime.program import stubs as declarations
from cairn.runtime.workflow import WAITS, Workflow

if TYPE_CHECKING:
    from cairn.framework.app import App

#: Seconds a workflow waits for an agent's answer in memory; a longer one is looked for from time to time.
QUICK_SECONDS = 20.0
#: The longest pause between two looks, in seconds.
LOOK_SECONDS_MAX = 300.0


def call_agent(app: Callable[[], App], *agents: str, name: str = "call_agent") -> Function:
    """`await call_agent("support", "…")` for workflows: what the agent answers, as a text. `agents` are those that may be
    asked.

    Each call is a conversation of its own, or the one of `conversation=`. *Idempotent*: a repeated call is the same message. An
    answer that takes days holds no memory.
    """

    async def ask(call: FunctionCall) -> str:
        agent, message = str(call.arguments["agent"]), str(call.arguments["message"])
        if agent not in agents:
            raise PermissionError(f"this workflow may ask {', '.join(agents)}, not '{agent}'")
        address = call.fiber.instance.address
        id = call.arguments.get("conversation") or f"{address.kind}.{address.id}.{call.number}"
        conversation = app().conversation(agent, str(id), tenant=address.tenant)
        looks = 0
        while True:
            with call.fiber.parking.working():
                receipt = await conversation.send(message, key=call.key)
                known = f"{call.name} look {looks + 1}" in call.fiber.state.waited
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05 if known else QUICK_SECONDS):
                        try:
                            return (await receipt.reply()).text
                        except FiberFailed as error:
                            raise RuntimeError(str(error)) from None
            looks += 1
            await call.fiber.sleep(f"{call.name} look {looks}", min(5.0 * 2 ** min(looks, 10), LOOK_SECONDS_MAX))

    choice = f"Literal[{', '.join(map(repr, agents))}]" if agents else "str"
    stub = (
        f"async def {name}(agent: {choice}, message: str, conversation: str | None = None) -> str:\n"
        '    """What the agent answers."""\n'
    )
    return Function(name, ask, ("agent", "message", "conversation"), waits=True, stub=f"from typing import Literal\n{stub}")


def workflow_tools(cls: type[Workflow], app: Callable[[], App]) -> list[Tool]:
    """Tools with which an agent authors, starts, watches and ends workflows of this kind, and nothing else.

    A workflow that an agent starts belongs to the agent's tenant; its id begins with the conversation's, so that conversations
    do not meet (S12).
    """

    def stub(ctx: Context[Any], id: str) -> Any:
        return app().object(cls, f"{ctx.conversation}.{id}")

    async def workflow_functions() -> str:
        """What workflows may call, as Python declarations. Read it before you write one."""
        granted = {each.name for each in cls.functions}
        return declarations([*cls.functions, *(each for each in WAITS if each.name not in granted)]).partition("def open(")[2]

    async def start_workflow(ctx: Context[Any], id: str, source: str, inputs: dict[str, Any] | None = None) -> Any:
        """Start a workflow: a Python program that may take days. Functions are async; `step("what it is", function, …)`
        names a call; `sleep`, `wait_for` and `wait_for_approval` wait. The value of the last line is the result.

        Args:
            id: A new name for it, unique in this conversation.
            source: The program.
            inputs: Its global variables.
        """
        return await stub(ctx, id).call("start", source, inputs or {})

    async def inspect_workflow(ctx: Context[Any], id: str) -> Any:
        """How a workflow stands: its status, what it waits for, its result."""
        return await stub(ctx, id).call("inspect")

    async def signal_workflow(ctx: Context[Any], id: str, event: str, payload: Any = None) -> str:
        """Tell a workflow that something has happened: what `wait_for(event)` in it waits for."""
        await stub(ctx, id).call("signal", event, payload, ctx.key)
        return "It was told."

    async def cancel_workflow(ctx: Context[Any], id: str, reason: str = "") -> Any:
        """End a workflow where it is. What its calls did stands."""
        return await stub(ctx, id).call("cancel_run", reason)

    safe: Sequence[Callable[..., Any]] = (workflow_functions, inspect_workflow, cancel_workflow)
    keyed: Sequence[Callable[..., Any]] = (start_workflow, signal_workflow)
    made = [functools.partial(tool, repeat="safe")(each) for each in safe]
    made += [functools.partial(tool, repeat="keyed")(each) for each in keyed]
    return [as_tool(each) for each in made]
