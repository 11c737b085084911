"""The vendors' event sequences, read from data files: sections of server-sent events with `{{places}}` for values.

Laws. The `.sse` files are written from the vendors' documentation, never from what our adapter expects; this file only
fills in values, as JSON. A place without a value is an error.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Any

_PLACE = re.compile(r"\{\{(\w+)\}\}")


class Sequence:
    """One vendor's file: `events(section, …)` as bytes for the wire, `data(section, …)` as a value to put inside."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._sections: dict[str, list[list[str]]] = {}
        current: list[list[str]] = []
        for line in text.splitlines():
            if line.startswith(": section "):
                current = self._sections.setdefault(line.removeprefix(": section ").strip(), [[]])
            elif line.startswith(":"):
                continue
            elif line:
                current[-1].append(line)
            elif current and current[-1]:
                current.append([])

    def __contains__(self, section: str) -> bool:
        return section in self._sections

    def events(self, section: str, **values: Any) -> list[bytes]:
        """The events of a section, each with its empty line. A value that is callable is asked once per event."""
        made: list[bytes] = []
        for lines in self._sections[section]:
            if lines:
                now = {name: value() if callable(value) else value for name, value in values.items()}
                made.append(("\n".join(self._fill(line, now) for line in lines) + "\n\n").encode())
        return made

    def data(self, section: str, **values: Any) -> Any:
        """The JSON of a section that is a piece of other events."""
        line = next(line for line in self._sections[section][0] if line.startswith("data: "))
        return json.loads(self._fill(line, values).removeprefix("data: "))

    def _fill(self, line: str, values: dict[str, Any]) -> str:
        return _PLACE.sub(lambda match: json.dumps(values[match.group(1)], ensure_ascii=False), line)


@functools.cache
def sequence(name: str) -> Sequence:
    """The file `sequences/<name>.sse`."""
    return Sequence(name, _read(f"{name}.sse"))


@functools.lru_cache(maxsize=1)
def errors() -> dict[str, dict[str, dict[str, Any]]]:
    """The documented error bodies, by vendor and kind."""
    loaded: dict[str, dict[str, dict[str, Any]]] = json.loads(_read("errors.json"))
    return loaded


def _read(name: str) -> str:
    return resources.files("cairn.testing.providers").joinpath("sequences", name).read_text("utf-8")
