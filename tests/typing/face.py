"""What a type checker must see of the face: read by mypy in `test_face_types.py`, never run.

Each `reveal_type` is followed by the type it must show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import reveal_type

from cairn import Agent, Context, Limits, Received, Settled, Stopping, Turn, tool


@dataclass
class Case:
    escalated: bool = False


plain = Agent("plain", model="anthropic:some", limits=Limits(turns=3))
reveal_type(plain)  # Agent[None]

support = Agent("support", model="anthropic:some", state=Case)
reveal_type(support)  # Agent[Case]


@tool
def bare(text: str, limit: int = 3) -> list[str]:
    return [text] * limit


reveal_type(bare)  # def (text: str, limit: int =) -> list[str]


@tool(repeat="safe", timeout=3)
async def configured(text: str) -> int:
    return len(text)


reveal_type(configured)  # def (text: str) -> Coroutine[Any, Any, int]


@support.tool
async def escalate(ctx: Context[Case], reason: str) -> str:
    reveal_type(ctx.state)  # Case
    label = await ctx.step("label", lambda: 3)
    reveal_type(label)  # int
    length = await ctx.step("length", lambda: configured(reason))
    reveal_type(length)  # int
    return reason


reveal_type(escalate)  # def (ctx: Context[Case], reason: str) -> Coroutine[Any, Any, str]


@support.tool(sequential="money")
def refund(cents: int) -> None: ...


reveal_type(refund)  # def (cents: int)


@support.prepare
def unlock(turn: Turn[Case]) -> None:
    reveal_type(turn.state)  # Case
    turn.use(bare)


reveal_type(unlock)  # def (turn: Turn[Case])


@support.on_message
def heard(event: Received) -> str | None:
    return event.text


@support.on_stop
async def stop(ctx: Context[Case], event: Stopping) -> None: ...


@support.on_settled
def settled(event: Settled) -> None: ...


reveal_type(heard)  # def (event: Received) -> str | None

# What must not pass:
Agent("a", instruction="x")  # error: No overload variant
tool(repeat="always")  # error: No overload variant
escalate("now")  # error: Missing positional argument
support.tool(timeout="3s")  # error: No overload variant


@support.prepare  # error: Value of type variable
async def waiting(turn: Turn[Case]) -> None: ...


unused: Callable[[str], int] = bare  # error: Incompatible types in assignment
