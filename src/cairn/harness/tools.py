"""A tool: what the model sees of it, what a repeat of it means, and how it is called.

Laws. A `Tool` is data and a function; it holds no state between calls. A decorator returns the function it was given, so
a tool stays an ordinary function in a test; the compiled `Tool` hangs on it as an attribute, and there is no registry.
Arguments are JSON until the moment of the call: what is recorded, compared and shown is what the model meant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from cairn.harness.asking import Asks
from cairn.harness.messages import Image, ResultContent, Text, ToolSpec
from cairn.harness.sandbox.protocol import ProcessInfo, Sandbox
from cairn.harness.state import Draft

Repeat = Literal["never", "keyed", "safe", "resume"]

#: The attribute a decorated function carries its Tool in.
ATTRIBUTE = "__cairn_tool__"

#: What the model is told when a tool returned None or nothing: some providers refuse an empty result.
NO_OUTPUT = "(no output)"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool may return when a plain value is not enough."""

    content: tuple[ResultContent, ...] | str
    is_error: bool = False
    terminate: bool = False
    """Skip the next model call, if every result of the batch says so."""
    details: Any = None
    """For people and programs; the model does not see it. JSON."""
    is_value: bool = False
    """The content is one text, the JSON of a value: clients are given the value."""


class CallContext(Protocol):
    """What a running call or hook can reach, given by the loop; the user-facing `Context` wraps it."""

    @property
    def call(self) -> str:
        """The id of the call (of a hook: of its seam)."""
        ...

    @property
    def key(self) -> str:
        """The same at every repeat of this call: hand it to the outside as the idempotency key."""
        ...

    @property
    def conversation(self) -> str:
        """The id of the instance."""
        ...

    @property
    def draft(self) -> Draft[Any] | None:
        """This call's copy of the state; None when the agent declares none."""
        ...

    @property
    def sandbox(self) -> Sandbox | None: ...

    @property
    def extra(self) -> Mapping[str, Any]:
        """What the chat client said beside the messages that are answered."""
        ...

    def progress(self, text: str) -> None:
        """Show readers the last of what is happening; dropped once the call has settled."""
        ...

    def show(self, name: str, value: bytes) -> None:
        """People are shown `value`, a JSON text, beside the answer's words; the next of that name replaces it."""
        ...

    def describe(self, values: bytes) -> None:
        """The JSON object is merged into what clients are told about the answer."""
        ...

    async def process_started(self, process: ProcessInfo) -> None:
        """Record the process tree this call runs in, so that a successor can end what is left of it."""
        ...

    def keep(self, name: str, value: bytes) -> None:
        """The conversation has this value (JSON) under this name, once the call's outcome is in the log."""
        ...

    async def step(self, name: str, callback: Callable[[], Any], *, repeat: str = "safe") -> Any: ...

    async def run_sync(self, callback: Callable[[], Any]) -> Any:
        """Run a blocking function off the event loop, in a bounded pool; its context variables are the caller's."""
        ...


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the loop needs it. Made by `@agent.tool` / `@tool` from a function, or by a sandbox."""

    spec: ToolSpec
    run: Callable[[Any, dict[str, Any]], Awaitable[Any]]
    """Called with a CallContext (or what the face made of it) and validated, coerced arguments."""
    validate: Callable[[dict[str, Any]], dict[str, Any]] = field(default=lambda arguments: arguments)
    """Coerce and check; raises ValueError with a text the model can act on."""
    repeat: Repeat = "never"
    sequential: bool | str = False
    """True: a barrier, runs alone in its batch. A string: calls that share it run one at a time."""
    timeout_seconds: float | None = None
    place: str = ""
    """Where it is defined, `path:line`, for messages to people."""
    asks: Asks | None = None
    """Its calls wait for an answer: a leave to run, or the outcome itself."""

    @property
    def name(self) -> str:
        return self.spec.name


def together(sandbox: Iterable[Tool], own: Mapping[str, Tool], client: Iterable[Tool]) -> dict[str, Tool]:
    """All tools of an agent by name, in the order the model is told of them: a sandbox's gives way to one of its own of that
    name, and a client's to both."""
    tools = {tool.name: tool for tool in sandbox} | dict(own)
    return tools | {tool.name: tool for tool in client if tool.name not in tools}


def result_of(tool: str, value: Any) -> ToolResult:
    """What a tool returned as what the model reads: a text as it is, blocks as they are, None as a fixed phrase, anything
    else as JSON. Total: a value that is no JSON becomes an error result that says the call itself was made."""
    if isinstance(value, ToolResult):
        content = (value.content,) if isinstance(value.content, str) else value.content
        return ToolResult(_blocks(content), value.is_error, value.terminate, value.details, value.is_value)
    if isinstance(value, (str, Text, Image)):
        return ToolResult(_blocks((value,)))
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (Text, Image)) for item in value):
        return ToolResult(_blocks(value))
    if value is None:
        return ToolResult(_blocks(()))
    try:
        return ToolResult((Text(text=msgspec.json.encode(value).decode()),), is_value=True)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        text = (
            f"{tool} ran to its end, but what it returned ({type(value).__name__}) cannot be shown: {error}. Do not assume "
            f"that it failed to do its work."
        )
        return ToolResult((Text(text=text),), is_error=True)


def _blocks(content: Iterable[str | ResultContent]) -> tuple[ResultContent, ...]:
    """Content that can be recorded and that every provider takes: never empty, and always encodable."""
    blocks: list[ResultContent] = []
    for block in content:
        if isinstance(block, Image):
            blocks.append(block)
            continue
        text = encodable(block if isinstance(block, str) else block.text)
        if text:
            blocks.append(Text(text=text, signature=None if isinstance(block, str) else block.signature))
    return tuple(blocks) or (Text(text=NO_OUTPUT),)


def encodable(text: str) -> str:
    """The text with half surrogate pairs (bytes of a file name that are no UTF-8, as Python hands them out) escaped: a
    record is UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    # A str subclass would be encoded by its own rules.
    return str(text)
