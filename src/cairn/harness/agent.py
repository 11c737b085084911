"""What a user writes: an agent as data.

Laws. An Agent holds what it was told and does nothing: no orchestration, no I/O, no global. `render` is pure and may be
called any number of times; equal inputs give equal output, in the same order, so that the request's prefix stays equal.
A mistake is refused where it is written, naming both places when two things collide.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from cairn.errors import UsageError
from cairn.harness.asking import Asks, Rule
from cairn.harness.codemode import CodeMode, codemode_of, split
from cairn.harness.definition import (
    Instructions,
    caller,
    check_name,
    checked_instructions,
    checked_model,
    checked_sandbox,
    checked_thinking,
    refuse_async,
)
from cairn.harness.function_tool import as_tool, compile_hook, decorate, unknown_option
from cairn.harness.hooks import Hook
from cairn.harness.limits import Limits
from cairn.harness.messages import ThinkingLevel
from cairn.harness.models.protocol import Model
from cairn.harness.sandbox.protocol import SandboxFactory
from cairn.harness.schedules import checked_schedules
from cairn.harness.skill import Skill
from cairn.harness.skill_files import Given as GivenSkill
from cairn.harness.skill_files import distinct, load_skills
from cairn.harness.state import Draft, StateType
from cairn.harness.tools import Repeat, Tool
from cairn.harness.turn_view import Rendered, ToolsOf, Turn
from cairn.runtime.schedule import Timing

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")
Prepare = TypeVar("Prepare", bound=Callable[[Turn[Any]], None])
HookFunction = TypeVar("HookFunction", bound=Callable[..., Any])

_OPTIONS = (
    "model", "instructions", "tools", "sandbox", "state", "thinking", "limits", "description", "aliases", "max_tokens",
    "temperature", "model_settings", "schedules", "skills", "codemode",
)  # fmt: skip


class Agent(Generic[S]):
    """An agent's definition. Only `name` is needed, and in a folder not even that; everything else has a default.

    `instructions` may be a function of the Turn: pure, sync, called at every render. `model` is a spec
    (`provider:model`) or a Model object. `schedules` (`cron`, `every`, `at`) tell it something by the clock, while an App
    with it runs anywhere. *Raises* UsageError for a mistake in any of it.
    """

    @overload
    def __init__(
        self: Agent[None],
        name: str = "",
        *,
        model: str | Model | None = None,
        instructions: Instructions = "",
        tools: Sequence[Tool | Callable[..., Any]] = (),
        sandbox: SandboxFactory | None = None,
        state: None = None,
        thinking: ThinkingLevel | None = None,
        limits: Limits = ...,
        description: str = "",
        aliases: Sequence[str] = (),
        max_tokens: int | None = None,
        temperature: float | None = None,
        model_settings: Mapping[str, Any] | None = None,
        schedules: Sequence[Timing] = (),
        skills: Sequence[GivenSkill] = (),
        codemode: bool | Sequence[str] | CodeMode = False,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str = "",
        *,
        model: str | Model | None = None,
        instructions: Instructions = "",
        tools: Sequence[Tool | Callable[..., Any]] = (),
        sandbox: SandboxFactory | None = None,
        state: type[S],
        thinking: ThinkingLevel | None = None,
        limits: Limits = ...,
        description: str = "",
        aliases: Sequence[str] = (),
        max_tokens: int | None = None,
        temperature: float | None = None,
        model_settings: Mapping[str, Any] | None = None,
        schedules: Sequence[Timing] = (),
        skills: Sequence[GivenSkill] = (),
        codemode: bool | Sequence[str] | CodeMode = False,
    ) -> None: ...

    def __init__(
        self,
        name: str = "",
        *,
        model: str | Model | None = None,
        instructions: Instructions = "",
        tools: Sequence[Tool | Callable[..., Any]] = (),
        sandbox: SandboxFactory | None = None,
        state: type[Any] | None = None,
        thinking: ThinkingLevel | None = None,
        limits: Limits = Limits(),
        description: str = "",
        aliases: Sequence[str] = (),
        max_tokens: int | None = None,
        temperature: float | None = None,
        model_settings: Mapping[str, Any] | None = None,
        schedules: Sequence[Timing] = (),
        skills: Sequence[GivenSkill] = (),
        codemode: bool | Sequence[str] | CodeMode = False,
        **unknown: Any,
    ) -> None:
        self.place = caller()
        for option in unknown:
            raise UsageError(f"{self}: {unknown_option('Agent', option, _OPTIONS)}")
        self._aliases = (aliases,) if isinstance(aliases, str) else tuple(aliases)
        for each in (name, *self._aliases):
            check_name(each, empty_is_fine=each is name)
        self._name = name
        self._model = checked_model(self, model)
        self._instructions = checked_instructions(self, instructions)
        self._tools: dict[str, Tool] = {}
        self.sandbox: SandboxFactory | None = checked_sandbox(self, sandbox)
        self.state_type: StateType[Any] | None = None if state is None else StateType(state)
        self.thinking = checked_thinking(self, thinking)
        self.limits, self.description = limits, description
        self.max_tokens, self.temperature = max_tokens, temperature
        self.model_settings: dict[str, Any] = dict(model_settings or {})
        self.schedules = checked_schedules(self, schedules)
        self._given_skills: tuple[GivenSkill, ...] = (skills,) if isinstance(skills, (str, Skill)) else tuple(skills)
        self._skills: tuple[Skill, ...] | None = None
        self.codemode = codemode_of(self, codemode)
        self.prepares: tuple[Callable[[Turn[Any]], None], ...] = ()
        self.message_hooks: tuple[Hook, ...] = ()
        self.stop_hooks: tuple[Hook, ...] = ()
        self.settled_hooks: tuple[Hook, ...] = ()
        for given in (tools,) if isinstance(tools, Tool) else tools:
            self._add(as_tool(given))

    def __repr__(self) -> str:
        called = f"agent {self._name!r}" if getattr(self, "_name", "") else "agent"
        return f"{called} ({self.place})" if self.place else called

    @property
    def name(self) -> str:
        """The agent's durable name, its instances' kind. Empty until a folder gives it one."""
        return self._name

    @property
    def aliases(self) -> tuple[str, ...]:
        """Former names: their instances are this agent's."""
        return self._aliases

    @property
    def model(self) -> str | Model | None:
        """The spec or object to ask unless a turn chooses another."""
        return self._model

    @property
    def instructions(self) -> Instructions:
        return self._instructions

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The agent's own tools in the order they were given and defined."""
        return tuple(self._tools.values())

    @property
    def skills(self) -> tuple[Skill, ...]:
        """What `skills=` named, read when it is first asked for and then kept. *Raises* UsageError with all that is wrong."""
        if self._skills is None:
            self._skills = load_skills(self._given_skills, beside=self.place.rpartition(":")[0]) if self._given_skills else ()
        return self._skills

    @property
    def skill_names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.skills)

    # --- definition -------------------------------------------------------------------------------------------------

    @overload
    def tool(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        repeat: Repeat = "never",
        sequential: bool | str = False,
        timeout: float | None = None,
        approval: bool | Rule | Asks = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

    def tool(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """The function itself, now a tool of this agent. Options as for `cairn.tool`.

        *Raises* UsageError for a function no model could call and for a name that is taken, with both places.
        """
        return decorate(function, options, sys._getframe(1).f_locals, self._add)

    def prepare(self, function: Prepare) -> Prepare:
        """The function itself, now called with the Turn before every model call, in order of definition. It must be pure
        and synchronous: it may be called any number of times, and only the Turn may change.

        *Raises* UsageError for an async function or a generator.
        """
        refuse_async(f"{self}: prepare", function)
        self.prepares = (*self.prepares, function)
        return function

    def on_message(self, function: HookFunction) -> HookFunction:
        """The function itself, now called (with `Received`) once a message is durable and before the model reads it. A text
        it returns is read after the message; an error fails the submission. At least once; its effects on the state commit
        with its outcome."""
        self.message_hooks = (*self.message_hooks, self._hook("on_message", function))
        return function

    def on_stop(self, function: HookFunction) -> HookFunction:
        """The function itself, now called (with `Stopping`) whenever the model has finished and nothing is queued. A text it
        returns sends the model back to work, at most `limits.stop_continues` times."""
        self.stop_hooks = (*self.stop_hooks, self._hook("on_stop", function))
        return function

    def on_settled(self, function: HookFunction) -> HookFunction:
        """The function itself, now called (with `Settled`) after a submission has its outcome: at least once, also after a
        crash in between. It cannot change the outcome."""
        self.settled_hooks = (*self.settled_hooks, self._hook("on_settled", function))
        return function

    def replaced(
        self,
        *,
        name: str | None = None,
        model: str | Model | None = None,
        instructions: Instructions | None = None,
        description: str | None = None,
        tools: Sequence[Tool | Callable[..., Any]] = (),
    ) -> Agent[S]:
        """A copy with these instead, and `tools` added; this agent is unchanged. *Raises* UsageError as the constructor."""
        other = copy.copy(self)
        other._tools = dict(self._tools)
        if name is not None:
            check_name(name)
            other._name = name
        if model is not None:
            other._model = checked_model(self, model)
        if instructions is not None:
            other._instructions = checked_instructions(self, instructions)
        if description is not None:
            other.description = description
        for given in tools:
            other._add(as_tool(given))
        return other

    def complete(
        self,
        *,
        name: str | None = None,
        model: str | None = None,
        instructions: str | None = None,
        description: str | None = None,
        tools: Sequence[Tool] = (),
        skills: Sequence[Skill] = (),
    ) -> None:
        """What its folder or project says is now said of this agent. *Idempotent*. *Raises* UsageError for anything that
        the agent itself says otherwise: one of the two places would have no effect."""
        if name is not None and not self._name:
            check_name(name)
            self._name = name
        text = None if instructions is None else inspect.cleandoc(instructions)
        said = (
            ("instructions", self._instructions, text),
            ("model", self._model, model),
            ("description", self.description, description),
        )
        for what, own, given in said:
            if own and given and own != given:
                raise UsageError(f"{self}: {what} is said twice, here and beside it; keep one of the two")
        self._instructions = self._instructions or text or ""
        self._model = self._model or checked_model(self, model)
        self.description = self.description or description or ""
        for tool in tools:
            self._add(tool)
        if skills:
            self._skills = distinct((*self.skills, *skills))

    def _add(self, tool: Tool) -> None:
        present = self._tools.setdefault(tool.name, tool)
        if present is not tool:
            raise UsageError(
                f"{self}: there are two tools named {tool.name!r}: {present.place or 'built in'} and "
                f"{tool.place or 'built in'}; rename one with name=…"
            )

    def _hook(self, kind: str, function: Callable[..., Any]) -> Hook:
        return compile_hook(f"{self}: {kind}", function, sys._getframe(2).f_locals)

    # --- use, by the loop -------------------------------------------------------------------------------------------

    def draft(self, stored: Mapping[str, bytes | msgspec.Raw], versions: Mapping[str, int] | None = None) -> Draft[S] | None:
        """A call's own copy of the state; None when the agent declares none."""
        return None if self.state_type is None else Draft(self.state_type, stored, versions or {})

    def first_state(self, fields: Mapping[str, bytes]) -> dict[str, bytes]:
        """The fields of a new conversation's first state, checked. *Raises* UsageError for what the state cannot hold."""
        if self.state_type is None:
            raise UsageError(f"{self} declares no state, so it cannot be given data; write Agent(…, state=YourDataclass)")
        self.state_type.check(fields)
        checked = self.state_type.dump(self.state_type.load(fields))
        return {name: checked[name] for name in fields}

    def render(
        self,
        stored: Mapping[str, bytes | msgspec.Raw] | None = None,
        *,
        conversation: str = "",
        sandbox_tools: ToolsOf = lambda factory: (),
        client_tools: Sequence[Tool] = (),
        extra: Mapping[str, Any] = {},
    ) -> Rendered:
        """What to ask the model with, given the stored state. Pure.

        A tool of the agent takes the place of a sandbox's tool of the same name, and both that of a client's. *Raises*
        UsageError when there is no model, when a function in it changed the state or returned nonsense, and whatever a
        `prepare` function raises.
        """
        state = None if self.state_type is None else self.state_type.load(stored or {})
        before = None if self.state_type is None or not self.is_dynamic else self.state_type.dump(state)
        turn: Turn[Any] = Turn(
            state=state,
            conversation=conversation,
            model=self._model,
            thinking=self.thinking,
            tools=self._tools,
            client_tools=client_tools,
            sandbox=self.sandbox,
            tools_of=sandbox_tools,
            extra=extra,
            skills=self.skills,
        )
        for prepare in self.prepares:
            if prepare(turn) is not None:
                raise UsageError(f"{self}: prepare function {prepare.__name__} returned a value; change the turn instead")
        written = self._written(turn)
        if before is not None and self.state_type is not None and self.state_type.dump(state) != before:
            raise UsageError(f"{self}: a prepare function changed the state; only tools and hooks may")
        tools, added = turn.taken()
        tools, functions, snippets = split(self.codemode, tools, stored or {}) if self.codemode is not None else (tools, (), ())
        model = checked_model(self, turn.model)
        if model is None:
            raise UsageError(f"{self} has no model; give it one: Agent(…, model='anthropic:…')")
        return Rendered(
            model=model,
            instructions="\n\n".join(part for part in (written, *map(inspect.cleandoc, added)) if part),
            tools=tools,
            skills=turn.skills,
            codemode=self.codemode,
            functions=functions,
            snippets=snippets,
            sandbox=turn.sandbox,
            thinking=checked_thinking(self, turn.thinking),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            settings=self.model_settings,
        )

    @property
    def is_dynamic(self) -> bool:
        """What it is at a turn may depend on the state."""
        return bool(self.prepares) or callable(self._instructions)

    def _written(self, turn: Turn[Any]) -> str:
        if isinstance(self._instructions, str):
            return self._instructions
        written = self._instructions(turn)
        if not isinstance(written, str):
            raise UsageError(f"{self}: its instructions function returned {type(written).__name__}; return a text")
        return inspect.cleandoc(written)
