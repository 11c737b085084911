"""Tools that have no function here: the model calls them, a client somewhere carries them out and answers with what came of it.

Laws. Nothing of such a call runs in this process. Its arguments are checked like any other's before anybody is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cairn.errors import UsageError
from cairn.harness.arguments import compile_schema
from cairn.harness.asking import Asks, OnMessage, approval, client_spec
from cairn.harness.function_tool import NAME
from cairn.harness.messages import ToolSpec
from cairn.harness.tools import CallContext, Tool
from cairn.runtime.settings import ANSWER_SECONDS


def client_tool(
    name: str,
    description: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    output: Mapping[str, Any] | None = None,
    expires: float | None = ANSWER_SECONDS,
    by: str | Sequence[str] = (),
    on_message: OnMessage = "queue",
) -> Tool:
    """A tool that clients carry out: hand it to `Agent(tools=[…])` or `turn.use(…)`.

    `parameters` and `output` are JSON Schemas (of an object; of anything): a call whose arguments do not fit is refused, and
    so is an answer whose output does not. The other options as for `approval`. *Raises* UsageError.
    """
    label = f"client tool {name!r}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"{label}: this cannot be a tool's name; use up to 64 letters, digits, _ and -")
    for what, schema in (("parameters", parameters), ("output", output)):
        if schema is not None and not isinstance(schema, Mapping):
            raise UsageError(f"{label}: {what} is {type(schema).__name__}; a JSON Schema is needed, as a dict")
    rules = approval(expires=expires, by=by, on_message=on_message)
    asks = Asks("client_tool", None, rules.expires_seconds, rules.by, rules.on_message, output)
    frame = sys._getframe(1)
    return _tool(client_spec(name, description, parameters), asks, f"{frame.f_code.co_filename}:{frame.f_lineno}")


def declared_tools(specs: Sequence[ToolSpec]) -> tuple[Tool, ...]:
    """The tools that a client declared with its message."""
    return tuple(_tool(spec, Asks("client_tool"), "declared by the client") for spec in specs)


def _tool(spec: ToolSpec, asks: Asks, place: str) -> Tool:
    return Tool(spec=spec, run=_nothing, validate=compile_schema(spec.parameters), asks=asks, place=place)


async def _nothing(call: CallContext, arguments: dict[str, Any]) -> Any:
    raise AssertionError("a client's tool is never run here: its outcome is an answer")
