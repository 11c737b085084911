"""Code mode: instead of calling tools one by one, the model writes a program that calls them as functions.

    support = Agent("support", model="…", tools=[…], codemode=True)

It sees three tools: `run_program`, and `search_functions` and `describe_functions` to find out what there is. Declarations are
not poured into the prompt: two hundred tools cost as much of it as two.

Laws. What a tool demands holds in programs as outside: its repeat class, its approval, its time. The tools belong to one
render: equal functions, equal tools, so that the request's prefix stays equal. Searching and describing are pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import msgspec

from cairn.errors import ToolError, UsageError
from cairn.harness.arguments import compile_schema
from cairn.harness.asking import Asks
from cairn.harness.code_stubs import declaration, function_names
from cairn.harness.messages import ToolSpec
from cairn.harness.snippets import SAVE, SAVE_DESCRIPTION, SAVE_PARAMETERS, Snippet, save, stored
from cairn.harness.tools import CallContext, Tool, ToolResult
from cairn.runtime.program import ProgramLimits
from cairn.runtime.program_files import Grant

RUN = "run_program"
SEARCH = "search_functions"
DESCRIBE = "describe_functions"

#: Functions that one search shows.
FOUND_MAX = 20
#: Functions whose names are in the description of `search_functions`; a model that sees all names need not search.
NAMES_SHOWN_MAX = 30
#: Functions that one `describe_functions` declares.
DESCRIBED_MAX = 30

_RULES = """\
Run a Python program that calls functions instead of calling tools one by one. Use it for anything that takes several calls:
loops, filters, combining results. Functions are async: `orders = await list_orders(customer="c1")`; run independent calls
together with `await asyncio.gather(…)`. The value of the last line is the result; print() is shown too. Types are checked
before anything runs. {files} There is no network and there are no packages; of the standard library: asyncio, json, re, math,
datetime, collections, itertools. No classes with inheritance, no generators (yield), no `with` on your own classes. A function
that fails raises: catch it if you can go on without it. At most {calls:,} calls, {calls_at_once} at a time; {run_seconds:g}
seconds of computing; {output_bytes:,} bytes of output. Find functions with {search} and {describe} first."""

_FILES = {
    None: "There are no files.",
    "read": "open() and pathlib read the workspace's files; they cannot change them.",
    "write": "open() and pathlib read and write the workspace's files.",
}


@dataclass(frozen=True, slots=True)
class CodeMode:
    """How an agent uses programs: which tools are functions (all, or those named), and what a program may use.

    `snippets`: the model may save programs (True), or these are functions as well; `("save", …)` is both. `files`: whether
    `open()` and `pathlib` reach the workspace, to read or to write too.
    """

    tools: frozenset[str] | None = None
    limits: ProgramLimits = field(default_factory=ProgramLimits)
    snippets: bool | Sequence[Snippet | Literal["save"]] = ()
    files: Grant | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    """What one call of a tool costs, by the tool's name, in the unit of `limits.cost`."""

    def __post_init__(self) -> None:
        for name, known in (("files", (None, "read", "write")), ("snippets", (True, False))):
            given = getattr(self, name)
            fits = given in known if name == "files" or isinstance(given, bool) else _are_snippets(given)
            if not fits:
                raise UsageError(f"CodeMode({name}={given!r}); use {' or '.join(map(repr, known))}, or programs: [Snippet(…)]")

    @property
    def saves(self) -> bool:
        """Whether the model may save programs."""
        return self.snippets is True or (not isinstance(self.snippets, bool) and "save" in self.snippets)

    @property
    def given(self) -> tuple[Snippet, ...]:
        """The programs that the definition gives."""
        return () if isinstance(self.snippets, bool) else tuple(each for each in self.snippets if isinstance(each, Snippet))

    def programs(self, values: Mapping[str, bytes | msgspec.Raw]) -> tuple[Snippet, ...]:
        """All saved programs: those that are given, and those of the conversation that has these values."""
        names = {each.name for each in self.given}
        return (*self.given, *(each for each in stored(values) if self.saves and each.name not in names))

    def takes(self, tool: Tool) -> bool:
        """Whether the tool is a function of programs, and no tool of the model's own."""
        return self.tools is None or tool.name in self.tools


def codemode_of(label: object, given: Any) -> CodeMode | None:
    """What `codemode=` of an agent stands for. *Raises* UsageError."""
    if given is None or given is False:
        return None
    if given is True:
        return CodeMode()
    if isinstance(given, CodeMode):
        return given
    if isinstance(given, Collection) and not isinstance(given, str) and all(isinstance(each, str) for each in given):
        return CodeMode(frozenset(given))
    raise UsageError(f"{label}: codemode={given!r}; use True, the names of tools, or CodeMode(…)")


def _are_snippets(given: Any) -> bool:
    return not isinstance(given, str) and all(isinstance(each, Snippet) or each == "save" for each in given)


def split(
    mode: CodeMode, tools: Sequence[Tool], values: Mapping[str, bytes | msgspec.Raw] = {}
) -> tuple[tuple[Tool, ...], tuple[Tool, ...], tuple[Snippet, ...]]:
    """What the model sees, the tools that programs call, and the saved programs that they call, in a conversation with these
    values. *Raises* UsageError for a name that is no tool, or is in the way."""
    names = {tool.name for tool in tools}
    if (missing := sorted((mode.tools or frozenset()) - names)) != []:
        raise UsageError(f"codemode names {missing[0]!r}, which is no tool; there are: {', '.join(sorted(names)) or 'none'}")
    functions = tuple(tool for tool in tools if mode.takes(tool))
    taken = set(function_names(tool.spec for tool in functions).values())
    for each in mode.given:
        if each.name in taken:
            raise UsageError(f"a tool and a saved program are both called {each.name!r}; rename one")
    snippets = tuple(each for each in mode.programs(values) if each.name not in taken)
    if not functions and mode.files is None and not snippets:
        return tuple(tools), (), ()
    own = tuple(tool for tool in tools if not mode.takes(tool))
    made = code_tools(functions, snippets, mode)
    for tool in made:
        if any(each.name == tool.name for each in own):
            raise UsageError(f"a tool named {tool.name!r} is in the way of code mode; rename it")
    return (*own, *made), functions, snippets


class _Same:
    """Some tools, equal to the very same ones: a tool's schema has no hash."""

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self.tools = tools

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.tools)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or len(other.tools) != len(self.tools):
            return False
        return all(one is another for one, another in zip(self.tools, other.tools, strict=True))


def code_tools(
    functions: tuple[Tool, ...], snippets: tuple[Snippet, ...] = (), mode: CodeMode = CodeMode()
) -> tuple[Tool, ...]:
    """The tools over these functions. What is saved changes what they find, and nothing of how they are described: the
    request's prefix stays as it is."""
    return _made(_Same(functions), snippets, mode.limits, mode.files, mode.saves)


@lru_cache(maxsize=64)
def _made(
    same: _Same, snippets: tuple[Snippet, ...], limits: ProgramLimits, files: Grant | None, saves: bool
) -> tuple[Tool, ...]:
    names = function_names(tool.spec for tool in same.tools)
    own = {names[tool.name]: tool.spec for tool in same.tools}
    specs = {**own, **{each.name: each.spec for each in snippets}}

    async def search(context: CallContext, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(found(specs, arguments["query"]))

    async def describe(context: CallContext, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(described(specs, arguments["names"]))

    async def keep(context: CallContext, arguments: dict[str, Any]) -> str:
        return await save(context, arguments, own, [each.name for each in snippets])

    told = {name: getattr(limits, name) for name in ("calls", "calls_at_once", "run_seconds", "output_bytes")}
    rules = _RULES.format(search=SEARCH, describe=DESCRIBE, files=_FILES[files], **told)
    saving = Tool(
        spec=ToolSpec(name=SAVE, description=SAVE_DESCRIPTION, parameters=SAVE_PARAMETERS),
        run=keep,
        validate=compile_schema(SAVE_PARAMETERS),
        repeat="safe",
    )
    return (*_asking(own, rules, search, describe), *((saving,) if saves else ()))


def _asking(specs: dict[str, ToolSpec], rules: str, search: Any, describe: Any) -> tuple[Tool, ...]:
    """The tools that run a program, and that find out what there is."""
    there = ", ".join(list(specs)[:NAMES_SHOWN_MAX])
    more = len(specs) - NAMES_SHOWN_MAX
    names_text = f"There are {len(specs)}: {there}" + (f", and {more} more." if more > 0 else ".")
    return (
        _tool(
            RUN,
            rules,
            {"code": {"type": "string", "minLength": 1, "description": "The program."}},
            _never_run_here,
            asks=Asks("program", None, None),
        ),
        _tool(
            SEARCH,
            f"Find functions for programs by words. {names_text}",
            {"query": {"type": "string", "minLength": 1, "description": "Words of names and descriptions."}},
            search,
        ),
        _tool(
            DESCRIBE,
            "The declarations of functions for programs: parameters, types, what they do.",
            {
                "names": {
                    "type": "array",
                    "items": {"type": "string"},
                    "minItems": 1,
                    "maxItems": DESCRIBED_MAX,
                    "description": "Names of functions.",
                }
            },
            describe,
        ),
    )


def _tool(name: str, description: str, properties: dict[str, Any], run: Any, asks: Asks | None = None) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    spec = ToolSpec(name=name, description=description, parameters=parameters)
    return Tool(spec=spec, run=run, validate=compile_schema(parameters), repeat="safe", asks=asks)


async def _never_run_here(context: CallContext, arguments: dict[str, Any]) -> Any:
    raise AssertionError("a program is a fiber of its own: its outcome is what came of that")


# --- finding functions -----------------------------------------------------------------------------------------------


def found(specs: dict[str, ToolSpec], query: str) -> str:
    """The functions that fit the words best, a line each."""
    words = set(_words(query))
    scored = [(score, name) for name, spec in specs.items() if (score := _score(words, name, spec)) > 0]
    best = [name for _, name in sorted(scored, key=lambda each: (-each[0], each[1]))]
    if not best:
        return f"No function fits {query!r}. There are {len(specs)}: {', '.join(list(specs)[:NAMES_SHOWN_MAX])}."
    lines = [f"- {name}: {_summary(specs[name])}" for name in best[:FOUND_MAX]]
    if len(best) > FOUND_MAX:
        lines.append(f"({len(best) - FOUND_MAX} more fit; use other words)")
    return "\n".join(lines)


def described(specs: dict[str, ToolSpec], names: Sequence[str]) -> str:
    """Their declarations. *Raises* ToolError for a name there is not."""
    for name in names:
        if name not in specs:
            close = ", ".join(difflib.get_close_matches(name, specs, 3)) or "use search_functions"
            raise ToolError(f"There is no function {name}. Similar: {close}.")
    return "\n".join(declaration(specs[name], name) for name in dict.fromkeys(names))


def _score(words: set[str], name: str, spec: ToolSpec) -> int:
    """A word of the name counts most, then one that a name's word begins with, then one of the description."""
    own, told = set(_words(name)), set(_words(spec.description))
    near = sum(1 for word in words for each in own if each != word and (each.startswith(word) or word.startswith(each)))
    return 10 * len(words & own) + 4 * near + 3 * len(words & told)


def _words(text: str) -> list[str]:
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return [word for word in re.split(r"[^a-z0-9]+", split.lower()) if len(word) > 1]


def _summary(spec: ToolSpec) -> str:
    return " ".join(spec.description.split("\n\n")[0].split())[:200]
