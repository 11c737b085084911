"""What goes into a request, and how a change of instructions or tools is told without touching what was sent before.

Laws. Pure. The head (system prompt and tools) is frozen when a conversation opens. Later changes are recorded once and told
to the model at the tail; new tools are declared after the old ones, a removed tool stays declared and its calls are refused,
a reordered list is no change. Only a tool whose schema changed forces the head to change.
"""

from __future__ import annotations

from collections.abc import Sequence

from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.environment import Environment, change, first, note
from cairn.harness.messages import ToolSpec
from cairn.harness.models.protocol import ModelRequest
from cairn.harness.render import CONTINUE, LENGTH
from cairn.harness.submission import Control, Stage
from cairn.harness.turn_view import Rendered
from cairn.runtime.records import Record


def declare(
    conversation: Conversation, rendered: Rendered, now: Environment = Environment()
) -> tuple[list[Record], list[h.Note]]:
    """The records and notes that bring what the model was told up to `rendered`; both empty when nothing changed. What the
    project says is told when the conversation opens or another sandbox is attached, and then never again."""
    specs = tuple(tool.spec for tool in rendered.tools)
    head = conversation.head
    if head is None:
        opened = h.ContextOpened(system=rendered.instructions, tools=specs, guidance=now.guidance, sandbox=first(now))
        return [opened], []
    declared = {spec.name: spec for spec in head.tools}
    gone = set(head.removed)
    offered = {spec.name for spec in specs}
    added = tuple(spec for spec in specs if declared.get(spec.name) != spec)
    back = tuple(spec.name for spec in specs if spec.name in gone and declared.get(spec.name) == spec)
    removed = tuple(name for name in declared if name not in offered and name not in gone)
    instructions = rendered.instructions if rendered.instructions != head.instructions else None
    attached = change(conversation.told, now)
    if instructions is None and attached is None and not (added or back or removed):
        return [], []
    record = h.ContextChanged(
        instructions=instructions, tools_added=added, tools_removed=removed, tools_back=back, sandbox=attached
    )
    notes = [] if attached is None else [note(conversation.told, now)]
    notes += _tool_notes(added, back, removed, declared)
    if instructions is not None:
        notes.append(h.Note(kind="instructions", text=_instructions_text(head.instructions, instructions)))
    return [record], notes


def _tool_notes(
    added: Sequence[ToolSpec], back: Sequence[str], removed: Sequence[str], declared: dict[str, ToolSpec]
) -> list[h.Note]:
    lines = [f"New tool available: {spec.name}." for spec in added if spec.name not in declared]
    lines += [f"The tool {spec.name} has changed; its present description applies." for spec in added if spec.name in declared]
    lines += [f"The tool {name} is available again." for name in back]
    lines += [f"The tool {name} is no longer available; do not call it." for name in removed]
    return [h.Note(kind="tools", text="\n".join(lines))] if lines else []


def _instructions_text(before: str, now: str) -> str:
    if before and now.startswith(before):
        return f"In addition to your instructions, from now on:\n\n{now[len(before) :].strip()}"
    return f"Your instructions have changed. From now on they are:\n\n{now}"


def turn_notes(control: Control, includes: Sequence[str]) -> list[h.Note]:
    """What the next turn, which includes these messages, must tell the model about where it stands."""
    heard = [text for id in includes if (text := control.heard.get(id)) is not None]
    notes = [*control.notes, *(h.Note(kind="hook", text=text) for text in heard)]
    if control.stage in (Stage.INTERRUPTED, Stage.BROKEN) and control.kept_text:
        notes.append(h.Note(kind="continue", text=CONTINUE))
    elif control.stage is Stage.CUT:
        notes.append(h.Note(kind="length", text=LENGTH))
    return notes


def request(conversation: Conversation, rendered: Rendered, affinity: str) -> ModelRequest:
    """The request for the open turn. Its head and its earlier messages are the very objects of the request before."""
    head = conversation.head
    assert head is not None, "a turn is started after its context was opened"
    return ModelRequest(
        model=rendered.model_spec,
        system=head.system,
        messages=conversation.context(),
        tools=head.tools,
        thinking=rendered.thinking,
        max_tokens=rendered.max_tokens,
        temperature=rendered.temperature,
        affinity=affinity,
        settings=dict(rendered.settings),
    )
