"""Saved programs: what a model wrote once, under a name, as a function of programs to come.

    CodeMode(snippets=True)                              the model may save programs, for its conversation
    CodeMode(snippets=[Snippet("weekly", "…", source, {"shop": "str"})])      programs that are given

Laws. Pure but for the tool that keeps one. A saved program is a value of the conversation, like the agent's state: forked and
rewound with it. What a program calls is pinned when the program begins, by text and digest: one that is saved anew meanwhile
changes nothing of it. A saved program calls tools and no other saved program.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cairn.errors import ToolError, UsageError
from cairn.harness.code_stubs import identifier
from cairn.harness.messages import ToolSpec
from cairn.harness.tools import CallContext
from cairn.runtime.program import Program

SAVE = "save_program"

#: Where a conversation's values hold a saved program: no field of a state can be called so.
PREFIX = "program:"
#: Programs that one conversation keeps.
SNIPPETS_MAX = 100
#: Bytes of one: a program's text is larger only when it holds data, which belongs into files.
SNIPPET_BYTES_MAX = 64 << 10
#: Parameters of one.
INPUTS_MAX = 20

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A program with a name. `inputs` are its parameters and their types: str, int, float, bool, list, dict, Any."""

    name: str
    description: str
    source: str
    inputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (wrong := fault(self.name, self.description, self.source, self.inputs)) is not None:
            raise UsageError(f"Snippet({self.name!r}): {wrong}")

    @property
    def digest(self) -> str:
        return Program(self.source).digest

    @property
    def spec(self) -> ToolSpec:
        """It as a function is described: for the search, the declaration and the checker of arguments."""
        properties = {name: {"type": _TYPES[kind]} if kind in _TYPES else {} for name, kind in self.inputs.items()}
        parameters = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        return ToolSpec(name=self.name, description=f"{self.description}\n\n(A saved program.)", parameters=parameters)

    def __hash__(self) -> int:
        return hash((self.name, self.description, self.source, tuple(self.inputs.items())))


class Saved(msgspec.Struct, frozen=True):
    """As it stands in the log."""

    name: str
    description: str
    source: str
    inputs: dict[str, str]
    digest: str


def fault(name: Any, description: Any, source: Any, inputs: Mapping[str, str]) -> str | None:
    """What is wrong with it, in words; None: nothing."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or identifier(name) != name:
        return "its name has to be a Python name in lower case, such as 'weekly_report'"
    if not isinstance(description, str) or not description.strip():
        return "it needs a description: that is what it is found by"
    if not isinstance(source, str) or not source.strip() or len(source.encode("utf-8", "replace")) > SNIPPET_BYTES_MAX:
        return f"its text has to have 1 to {SNIPPET_BYTES_MAX:,} bytes"
    if len(inputs) > INPUTS_MAX:
        return f"at most {INPUTS_MAX} inputs"
    for each, kind in inputs.items():
        if not each.isidentifier() or identifier(each) != each or each == name:
            return f"the input {each!r} is no Python name"
        if kind not in (*_TYPES, "Any"):
            return f"the input {each!r} has the type {kind!r}; use one of {', '.join((*_TYPES, 'Any'))}"
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"it does not parse: {error}"
    return None


def stored(values: Mapping[str, bytes | msgspec.Raw]) -> tuple[Snippet, ...]:
    """Those that the conversation keeps. One whose text is not the one of its digest is left out: nobody saved that."""
    found: list[Snippet] = []
    for name in sorted(each for each in values if each.startswith(PREFIX)):
        try:
            saved = msgspec.json.decode(values[name], type=Saved)
            snippet = Snippet(saved.name, saved.description, saved.source, saved.inputs)
        except (msgspec.MsgspecError, UsageError):
            continue
        if saved.digest == snippet.digest:
            found.append(snippet)
    return tuple(found)


def used(snippets: Iterable[Snippet], source: str) -> tuple[Saved, ...]:
    """Those that a program names, to be pinned with it."""
    words = set(re.findall(r"\w+", source))
    return tuple(
        Saved(each.name, each.description, each.source, dict(each.inputs), each.digest)
        for each in snippets
        if each.name in words
    )


async def save(context: CallContext, arguments: dict[str, Any], taken: Iterable[str], known: Iterable[str]) -> str:
    """Keep one, with the outcome of this call. *Raises* ToolError for one that cannot be kept."""
    name, inputs = arguments["name"], dict(arguments.get("inputs") or {})
    wrong = fault(name, arguments["description"], arguments["code"], inputs)
    if wrong is None and name in taken:
        wrong = f"there is a function called {name!r} already; choose another name"
    if wrong is None and name not in known and len(set(known)) >= SNIPPETS_MAX:
        wrong = f"this conversation keeps {SNIPPETS_MAX} programs already; save it under the name of one that is not needed"
    if wrong is not None:
        raise ToolError(f"It was not saved: {wrong}.")
    saved = Saved(name, arguments["description"], arguments["code"], inputs, Program(arguments["code"]).digest)
    context.keep(f"{PREFIX}{name}", msgspec.json.encode(saved))
    given = ", ".join(f"{each}=…" for each in inputs)
    return f"Saved. From the next turn on programs call it: await {name}({given})"


SAVE_DESCRIPTION = """\
Save a program that worked, to call it by name from programs of this conversation: `await name(input=…)`. Its inputs are global
variables of its text, the value of its last line is what the call returns. Saving a name again replaces it."""

SAVE_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "A Python name in lower case."},
        "description": {"type": "string", "minLength": 1, "description": "What it does: it is found by these words."},
        "code": {"type": "string", "minLength": 1, "description": "The program."},
        "inputs": {
            "type": "object",
            "additionalProperties": {"type": "string", "enum": [*_TYPES, "Any"]},
            "description": "The inputs' names and types.",
        },
    },
    "required": ["name", "description", "code"],
    "additionalProperties": False,
}
