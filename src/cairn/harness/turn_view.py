"""What `@agent.prepare` sees and may change before a model call, and what comes of it: `Turn` and `Rendered`.

Laws. Pure. A Turn lives for one render and nothing of it outlives that; `Rendered` is what the loop asks the model with.
Tools keep a stable order (the sandbox's, the agent's, then those used by this turn) so that the request's prefix stays
byte-equal until something really changes. Which sandbox a turn has is only said here; the loop opens it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cairn.errors import UsageError
from cairn.harness.codemode import CodeMode
from cairn.harness.function_tool import as_tool
from cairn.harness.messages import ThinkingLevel
from cairn.harness.models.protocol import Model
from cairn.harness.sandbox.protocol import SandboxFactory
from cairn.harness.skill import Skill
from cairn.harness.skill_tools import catalogue, skill_tools
from cairn.harness.snippets import Snippet
from cairn.harness.tools import Tool, together

S = TypeVar("S")

ToolsOf = Callable[[SandboxFactory], Sequence[Tool]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """An agent at one turn: everything a model request needs but the messages."""

    model: str | Model
    instructions: str
    tools: tuple[Tool, ...]
    thinking: ThinkingLevel | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    skills: tuple[Skill, ...] = ()
    """Those whose catalogue is in the instructions and whose tools are among the tools."""

    codemode: CodeMode | None = None
    functions: tuple[Tool, ...] = ()
    """What programs call; the model does not see them among its tools."""
    snippets: tuple[Snippet, ...] = ()
    """Saved programs, which programs call as well."""
    sandbox: SandboxFactory | None = None
    """What opens the sandbox that its calls work in."""

    @property
    def model_spec(self) -> str:
        """The model's durable name, `provider:model`."""
        return self.model if isinstance(self.model, str) else self.model.spec

    def tool(self, name: str) -> Tool | None:
        """The tool of that name, if this turn offers it."""
        return next((tool for tool in self.tools if tool.name == name), None)


class Turn(Generic[S]):
    """The turn that is about to be asked. Change it with `use`, `without`, `instruct`, and by assigning `model`, `thinking`
    and `sandbox`."""

    __slots__ = (
        "_client", "_instructions", "_own", "_sandbox", "_skills", "_state", "_tools_of", "_used", "_withheld",
        "conversation", "extra", "model", "thinking",
    )  # fmt: skip

    def __init__(
        self,
        *,
        state: S,
        conversation: str,
        model: str | Model | None,
        thinking: ThinkingLevel | None,
        tools: Mapping[str, Tool],
        client_tools: Sequence[Tool] = (),
        sandbox: SandboxFactory | None = None,
        tools_of: ToolsOf = lambda factory: (),
        skills: Sequence[Skill] = (),
        extra: Mapping[str, Any] = {},
    ) -> None:
        self._state = state
        self.conversation = conversation
        """The id of the conversation."""
        self.model = model
        """The spec or object to ask; assign another to change it for this turn."""
        self.thinking = thinking
        self.extra = extra
        """What the chat client said beside the messages that are answered (JSON), and the model is not told. Read it only."""
        self._own, self._client, self._sandbox, self._tools_of = tools, client_tools, sandbox, tools_of
        self._used: dict[str, Tool] = {}
        self._withheld: set[str] = set()
        self._instructions: list[str] = []
        self._skills = {skill.name: skill for skill in skills}

    @property
    def state(self) -> S:
        """The state as committed. Read it only: changing it here is an error, tools and hooks change state."""
        if self._state is None:
            raise UsageError("this agent has no state: give it one with Agent(…, state=YourDataclass)")
        return self._state

    @property
    def tools(self) -> tuple[str, ...]:
        """The names the model would see now, in order."""
        return tuple(self._tools)

    @property
    def sandbox(self) -> SandboxFactory | None:
        """What opens the sandbox of this turn. Assign another, such as `virtual()`, to attach that one from this turn on, or
        None to detach it; its tools come and go with it. *Raises* UsageError for what opens none."""
        return self._sandbox

    @sandbox.setter
    def sandbox(self, sandbox: SandboxFactory | None) -> None:
        self._sandbox = checked_sandbox("turn.sandbox", sandbox)

    @property
    def _tools(self) -> dict[str, Tool]:
        of_sandbox = () if self._sandbox is None else self._tools_of(self._sandbox)
        offered = together(of_sandbox, self._own, self._client)
        return {name: tool for name, tool in offered.items() if name not in self._withheld} | self._used

    @property
    def skills(self) -> tuple[Skill, ...]:
        """Those whose line the model would see now, in order."""
        return tuple(self._skills.values())

    def use(self, *tools: Tool | Skill | Callable[..., Any]) -> None:
        """The model sees these tools and skills at this turn too. *Raises* UsageError when another has the name."""
        for given in tools:
            if isinstance(given, Skill):
                known = self._skills.setdefault(given.name, given)
                if known != given:
                    raise UsageError(f"turn.use: there are two skills named {given.name!r} ({known.place} and {given.place})")
                continue
            tool = as_tool(given)
            present = self._tools.get(tool.name)
            if present is None:
                self._used[tool.name] = tool
            elif present is not tool:
                raise UsageError(
                    f"turn.use: there are two tools named {tool.name!r} ({present.place or 'built in'} and "
                    f"{tool.place or 'built in'}); call turn.without({tool.name!r}) first to replace it"
                )

    def without(self, *names: str) -> None:
        """The model does not see these tools at this turn. *Raises* UsageError for a name there is not."""
        for name in names:
            if name not in (tools := self._tools):
                close = difflib.get_close_matches(name, tools, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(tools) or 'none'}"
                raise UsageError(f"turn.without: there is no tool {name!r}{hint}")
            self._used.pop(name, None)
            self._withheld.add(name)

    def instruct(self, text: str) -> None:
        """The instructions of this turn end with `text`. *Raises* UsageError when it is empty or not a string."""
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"turn.instruct: a text is needed, not {text!r}")
        self._instructions.append(text)

    def taken(self) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
        """The tools and added instructions, for the render that made this turn; what skills need of both comes last."""
        tools = self._tools
        if not self._skills:
            return tuple(tools.values()), tuple(self._instructions)
        for tool in skill_tools(self.skills):
            if tool.name in tools:
                raise UsageError(f"a tool named {tool.name!r} ({tools[tool.name].place}) is in the way of skills; rename it")
            tools[tool.name] = tool
        return tuple(tools.values()), (*self._instructions, catalogue(self.skills))


def checked_sandbox(label: object, sandbox: Any) -> Any:
    """What opens a sandbox, or None."""
    if sandbox is not None and not callable(getattr(sandbox, "open", None)):
        raise UsageError(f"{label}: sandbox={sandbox!r} opens none; give virtual(), isolated(), local() or another that does")
    return sandbox
