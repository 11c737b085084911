"""What the protocols' servers have in common: the facts of a request, and cutting a call's arguments into pieces."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cairn.testing.providers.script import Call, Entry


@dataclass(frozen=True, slots=True)
class Facts:
    """What a request says, without its protocol."""

    model: str
    system: str
    tools: tuple[str, ...]
    entries: tuple[Entry, ...]


def flat(content: Any) -> str:
    """The text of a message's content, whatever list of blocks it is."""
    if isinstance(content, str):
        return content
    texts = [block if isinstance(block, str) else block.get("text", "") for block in content or ()]
    return "\n".join(text for text in texts if text)


def arguments_of(call: Call) -> str:
    """A call's arguments as the model would have written them."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def fragments(text: str, count: int) -> list[str]:
    """`text` in `count` pieces (fewer when it is too short)."""
    size = max(1, -(-len(text) // max(1, count)))
    return [text[start : start + size] for start in range(0, len(text), size)]
