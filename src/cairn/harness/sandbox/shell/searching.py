"""The command that searches for the grep tool: the same files in the same order as everywhere, taken from the host in large
pieces.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import search as searching  # type: ignore[import-not-found]  # beside this folder: the same text that other sandboxes run

from .tree import DIRECTORY, FILE, FileError, Files, Node

NAME = "cairn-search"

Rule = tuple[str, searching.Rules]
Found = tuple[str, Node]

#: Files looked at together: their contents come in one answer.
TOGETHER = 128


def searched(files: Files, folder: str, argv: list[str]) -> tuple[int, Iterator[bytes]]:
    """The exit code and the output, as it comes."""
    try:
        wanted = json.loads(argv[0])
        expression = searching.expression_of(wanted)
    except (IndexError, ValueError, KeyError) as error:
        return 2, iter([f"{NAME}: {error}\n".encode()])
    except re.error as error:
        return 1, iter([f"not a regular expression: {error}\n".encode()])
    return 0, _lines(files, folder, wanted, expression)


def _lines(files: Files, folder: str, wanted: dict[str, Any], expression: re.Pattern[str]) -> Iterator[bytes]:
    left, lines = wanted["limit"], list[str]()

    def emit(kind: str, label: str, number: int, text: str) -> None:
        lines.append(searching.found(kind, label, number, text) + "\n")

    for batch in _batches(_wanted(files, folder, wanted)):
        files.warm([node for _, node in batch])
        for label, node in batch:
            if not left:
                return
            with files.opened(node) as content:
                left = searching.search_in(io.BytesIO(content), label, expression, wanted["context"], left, emit)
        if lines:
            yield "".join(lines).encode()
            lines.clear()


def _batches(found: Iterator[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    for each in found:
        batch.append(each)
        if len(batch) == TOGETHER:
            yield batch
            batch = []
    yield batch


def _wanted(files: Files, folder: str, wanted: dict[str, Any]) -> Iterator[Found]:
    if wanted["file"] is not None:
        yield wanted["file"], files.stat(f"{folder}/{wanted['file']}")
        return
    top, prefix, rules = _above(files, folder)
    glob = searching.Glob(wanted["glob"]) if wanted["glob"] else None
    yield from _below(files, top, prefix, rules, glob.matches if glob else None, len(prefix))


def _above(files: Files, folder: str) -> tuple[str, str, list[Rule]]:
    top, names = folder.rstrip("/"), list[str]()
    while top and not files.exists(f"{top}/.git"):
        top, _, name = top.rpartition("/")
        names.append(name)
    prefix, rules = "", list[Rule]()
    for name in reversed(names):
        rules += _rules_in(files, f"{top}/{prefix}", prefix)
        prefix += name + "/"
    return top, prefix, rules


def _rules_in(files: Files, folder: str, prefix: str) -> list[Rule]:
    try:
        return [(prefix, searching.Rules(files.read(f"{folder.rstrip('/')}/.gitignore").decode("utf-8", "replace")))]
    except FileError:
        return []


def _below(
    files: Files, top: str, prefix: str, rules: list[Rule], matches: Callable[[str], bool] | None, base: int
) -> Iterator[Found]:
    here = [*rules, *_rules_in(files, f"{top}/{prefix}", prefix)]
    try:
        listed = sorted(files.list(f"{top}/{prefix}"), key=lambda entry: entry[0])
    except FileError:
        return
    for name, node in listed:
        path = prefix + name
        if name == ".git":
            continue
        if node.kind == DIRECTORY:
            if not searching.is_ignored(here, path, True):
                yield from _below(files, top, path + "/", here, matches, base)
        elif node.kind == FILE and (matches(path[base:]) if matches else not searching.is_ignored(here, path, False)):
            yield path[base:], node
