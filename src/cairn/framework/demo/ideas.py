"""The scripted engineer's repertoire: shapes of mistakes it has seen before, and how each is mended.

Laws. Pure. An idea looks at a source as it was read and proposes exact replacements, or nothing. It knows no project: names,
fields and files come out of the source. An idea may be wrong; the tests decide, not the idea.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Edits = tuple[tuple[str, str], ...]
"""(old, new), each; the old text occurs once in the file."""


@dataclass(frozen=True, slots=True)
class Idea:
    """A suspicion: `find` gives the edits that would mend it, and none when the source does not look like that."""

    name: str
    why: str
    """What is wrong, as a sentence about `{path}`."""
    find: Callable[[str], Edits]


_QUERY = re.compile(r'^(?P<indent> *)(?P<lead>return|\w+ =) f"(?P<head>[^"?]*)\?(?P<query>[^"]+)"$', re.MULTILINE)
_FIELD = re.compile(r"(\w+)=\{([^{}!:]+)\}")
_IMPORT = re.compile(r"^from urllib\.parse import (?P<names>[\w, ]+)$", re.MULTILINE)
_FIRST_CODE = re.compile(r"^(?:import|from|def|class|@).*$", re.MULTILINE)
_READ_FIELD = re.compile(r'\bfields\["\w+"\]\[0\]')


def _quote_the_query(source: str) -> Edits:
    built = _QUERY.search(source)
    if built is None:
        return ()
    fields = _FIELD.findall(built["query"])
    if "&".join(f"{name}={{{value}}}" for name, value in fields) != built["query"]:
        return ()
    pairs = ", ".join(f'"{name}": {value}' for name, value in fields)
    indent, lead, head = built["indent"], built["lead"], built["head"]
    new = f'{indent}query = urlencode({{{pairs}}})\n{indent}{lead} f"{head}?{{query}}"'
    return (*_imported("urlencode", source), (built[0], new))


def _imported(name: str, source: str) -> Edits:
    line = _IMPORT.search(source)
    if line is not None:
        names = sorted({*line["names"].split(", "), name})
        return ((line[0], f"from urllib.parse import {', '.join(names)}"),) if name not in line["names"] else ()
    first = _FIRST_CODE.search(source)
    return ((first[0], f"from urllib.parse import {name}\n\n\n{first[0]}"),) if first is not None else ()


def _blanks_to_pluses(source: str) -> Edits:
    lines = [line for line in source.splitlines() if _READ_FIELD.search(line)]
    return tuple((line, _READ_FIELD.sub(lambda field: f'{field[0]}.replace(" ", "+")', line)) for line in lines)


IDEAS: tuple[Idea, ...] = (
    Idea(
        "quote",
        "{path} puts values into a URL as they are. In a URL a plus means a blank, so what is read from it is not what was put "
        "in. The values have to be encoded.",
        _quote_the_query,
    ),
    Idea(
        "blanks",
        "{path} reads a form-encoded query, in which a plus is a blank. Perhaps it is enough to turn blanks back into pluses "
        "there.",
        _blanks_to_pluses,
    ),
)
