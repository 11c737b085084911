"""The head of every request: what the model was told its instructions and its tools are, and since when.

Laws. Pure. A head is frozen; a change makes the next one, so that a rewind can go back to the one the model knew then.
"""

from __future__ import annotations

import msgspec

from cairn.harness import records as h
from cairn.harness.messages import ToolSpec


class Head(msgspec.Struct, frozen=True, array_like=True):
    ordinal: int
    """Of the record that made it."""
    system: str
    """The system prompt as it was frozen when the conversation opened."""
    instructions: str
    """What the model was last told its instructions are."""
    tools: tuple[ToolSpec, ...] = ()
    """Declared, in the order of their declaration."""
    removed: tuple[str, ...] = ()
    """Declared, and not offered any more."""


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What the model knows of its sandbox."""

    ordinal: int
    """Of the record that says so."""
    sandbox: h.Attached
    read: tuple[str, ...]
    """Places whose project has said what it has to say."""


def opened(record: h.ContextOpened, ordinal: int) -> Head:
    system = "\n\n".join(part for part in (record.system, record.guidance) if part)
    return Head(ordinal, system, record.system, record.tools)


def changed(head: Head, record: h.ContextChanged, ordinal: int) -> Head:
    """The next head: a changed tool keeps its place, a new one comes last, a removed one stays declared."""
    again = {spec.name: spec for spec in record.tools_added}
    tools = tuple(again.pop(spec.name, spec) for spec in head.tools) + tuple(again.values())
    back = {*record.tools_back, *(spec.name for spec in record.tools_added)}
    removed = tuple(name for name in (*head.removed, *record.tools_removed) if name not in back)
    instructions = head.instructions if record.instructions is None else record.instructions
    return Head(ordinal, head.system, instructions, tools, removed)


def told(before: Told | None, sandbox: h.Attached, ordinal: int) -> Told:
    """What the model knows of its sandbox once it was told of this one."""
    read = before.read if before is not None else ()
    return Told(ordinal, sandbox, tuple(dict.fromkeys((*read, place(sandbox)))))


def place(sandbox: h.Attached) -> str:
    """What is the same for sandboxes with the same files."""
    return "workspace" if sandbox.is_workspace else sandbox.key
