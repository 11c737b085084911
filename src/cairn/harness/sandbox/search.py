"""Searching files: which to look at, and what in them matches. Also a program for sandboxes that have Python but no ripgrep.

Laws. Standard library only, and no import of Cairn: the text of this file is run inside the sandbox (`python -c`), so that a
pattern that takes for ever to match is killed with its command and never holds up a worker. What it prints is ripgrep's
`--json` where the two meet: one parser reads both. Files are visited in the order of their names; what `.gitignore` files
exclude, `.git` itself and binary files are left out; links are not followed. Matching a glob never backtracks exponentially.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

#: A longer line is data; its end is not searched.
LINE_BYTES_MAX = 1024 * 1024

#: A NUL this early makes a file binary.
SNIFFED_BYTES = 8000

#: `{a,b}{c,d}…` may name at most so many patterns.
ALTERNATIVES_MAX = 256


class Rules:
    """The patterns of one `.gitignore`, for paths below its directory."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, bool, list[list[str]]]] = []
        for line in text.splitlines():
            line = line if line.endswith("\\ ") else line.rstrip()
            if not line or line.startswith("#"):
                continue
            is_exception = line.startswith("!")
            pattern = line[1:] if is_exception else line
            only_directories = pattern.endswith("/")
            self._rules.append((is_exception, only_directories, [anchored(pattern.rstrip("/"))]))

    def verdict(self, path: str, is_directory: bool) -> "bool | None":
        """Ignored, excepted, or not mentioned. The last rule that matches decides."""
        parts = path.split("/")
        for is_exception, only_directories, patterns in reversed(self._rules):
            if (is_directory or not only_directories) and any(parts_match(pattern, parts) for pattern in patterns):
                return not is_exception
        return None


def is_ignored(rules: "list[tuple[str, Rules]]", path: str, is_directory: bool) -> bool:
    """Whether the rules exclude a path; `rules` are (directory prefix ending in /, its rules), outermost first."""
    for prefix, each in reversed(rules):
        verdict = each.verdict(path[len(prefix) :], is_directory)
        if verdict is not None:
            return verdict
    return False


def anchored(pattern: str) -> "list[str]":
    """The parts of a pattern. One without an inner slash matches at any depth."""
    if "/" not in pattern:
        return ["**", pattern]
    return pattern.lstrip("/").split("/")


def alternatives(pattern: str) -> "list[str]":
    """`*.{c,h}` as `*.c` and `*.h`. Unbalanced braces are themselves."""
    opened = pattern.find("{")
    depth = 0
    commas = []
    for place in range(opened, len(pattern)) if opened >= 0 else ():
        character = pattern[place]
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 1:
            commas.append(place)
        if depth == 0:
            bounds = [opened, *commas, place]
            middles = [pattern[one + 1 : other] for one, other in zip(bounds, bounds[1:])]  # noqa: B905, RUF007 (Python 3.9)
            found = []
            for middle in middles:
                found += alternatives(pattern[:opened] + middle + pattern[place + 1 :])
                if len(found) > ALTERNATIVES_MAX:
                    raise ValueError("the glob has too many alternatives in braces")
            return found
    return [pattern]


class Glob:
    """`*.py` at any depth, `src/**/*.py` from the top; `*` and `?` stay within a name, `**` crosses directories."""

    def __init__(self, pattern: str) -> None:
        self._patterns = [anchored(each) for each in alternatives(pattern)]

    def matches(self, path: str) -> bool:
        parts = path.split("/")
        return any(parts_match(pattern, parts) for pattern in self._patterns)


def parts_match(patterns: "list[str]", parts: "list[str]") -> bool:
    """Whether the names of a path match the parts of a pattern, `**` standing for any number of names.

    Positions reachable after each part of the pattern: at most parts × names steps, whatever the pattern.
    """
    reachable = {0}
    for index, pattern in enumerate(patterns):
        if pattern == "**":
            first = min(reachable)
            # A closing `**` means what is inside: not the directory itself.
            reachable = set(range(first + (index == len(patterns) - 1), len(parts) + 1))
        else:
            reachable = {at + 1 for at in reachable if at < len(parts) and name_matches(pattern, parts[at])}
        if not reachable:
            return False
    return len(parts) in reachable


def name_matches(pattern: str, name: str) -> bool:
    """One name against `*`, `?`, `[a-z]`, `[!a]` and `\\` escapes. Only the last `*` is ever tried again."""
    tokens = _tokens(pattern)
    at = token = 0
    star = -1
    resumed = 0
    while at < len(name):
        if token < len(tokens) and tokens[token] == "*":
            star, resumed = token, at
            token += 1
        elif token < len(tokens) and _one(tokens[token], name[at]):
            token += 1
            at += 1
        elif star >= 0:
            resumed += 1
            token, at = star + 1, resumed
        else:
            return False
    return all(each == "*" for each in tokens[token:])


def _tokens(pattern: str) -> "list[str]":
    tokens = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        closed = pattern.find("]", at + 3 if pattern[at + 1 : at + 2] in ("!", "^") else at + 2) if character == "[" else -1
        if character == "\\" and at + 1 < len(pattern):
            tokens.append("\\" + pattern[at + 1])
            at += 2
        elif closed > 0:
            tokens.append(pattern[at : closed + 1])
            at = closed + 1
        else:
            tokens.append(character)
            at += 1
    return tokens


def _one(token: str, character: str) -> bool:
    if token == "?":
        return True
    if token[0] == "\\" and len(token) == 2:
        return token[1] == character
    if len(token) < 3 or token[0] != "[":
        return token == character
    inner = token[1:-1]
    negated = inner[0] in "!^"
    inner = inner[1:] if negated else inner
    found = False
    at = 0
    while at < len(inner):
        if inner[at + 1 : at + 2] == "-" and at + 2 < len(inner):
            found = found or inner[at] <= character <= inner[at + 2]
            at += 3
        else:
            found = found or inner[at] == character
            at += 1
    return found != negated


# ---------------------------------------------------------------------- the program


def above(folder: str) -> "tuple[str, str, list[tuple[str, Rules]]]":
    """The top of the repository a directory is in (or of the disk), the directory's path in it, and the rules on the way."""
    top, names = folder, []
    while not os.path.exists(os.path.join(top, ".git")) and os.path.dirname(top) != top:
        names.append(os.path.basename(top))
        top = os.path.dirname(top)
    prefix = ""
    rules = []
    for name in reversed(names):
        rules += rules_in(os.path.join(top, prefix), prefix)
        prefix += name + "/"
    return top, prefix, rules


def rules_in(folder: str, prefix: str) -> "list[tuple[str, Rules]]":
    """The rules of a directory, if it has any."""
    try:
        with open(os.path.join(folder, ".gitignore"), encoding="utf-8", errors="replace") as file:
            return [(prefix, Rules(file.read()))]
    except OSError:
        return []


def files_below(top: str, prefix: str, rules: "list[tuple[str, Rules]]", glob: "Glob | None", base: int) -> "Iterator[str]":
    """Every file below `prefix` that is to be searched, relative to `top`. The glob is about paths without `base` characters,
    and finds what rules exclude: who names a file means it."""
    here = [*rules, *rules_in(os.path.join(top, prefix), prefix)]
    try:
        with os.scandir(os.path.join(top, prefix)) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in listed:
        path = prefix + entry.name
        if entry.name == ".git":
            continue
        if entry.is_dir(follow_symlinks=False):
            if not is_ignored(here, path, True):
                yield from files_below(top, path + "/", here, glob, base)
            continue
        wanted = glob.matches(path[base:]) if glob else not is_ignored(here, path, False)
        if wanted and entry.is_file(follow_symlinks=False):
            yield path


def search(path: str, label: str, expression: "re.Pattern[str]", context: int, left: int) -> int:
    """Print a file's matching lines, with those around them; returns how many matches are left to find."""
    try:
        with open(path, "rb") as file:
            return search_in(file, label, expression, context, left, emit)
    except OSError:
        return left


def search_in(
    file: "BinaryIO",
    label: str,
    expression: "re.Pattern[str]",
    context: int,
    left: int,
    emit: "Callable[[str, str, int, str], None]",
) -> int:
    """The same for an open file, saying it to `emit`."""
    if b"\0" in file.read(SNIFFED_BYTES):
        return left
    file.seek(0)
    before: list[tuple[int, str]] = []
    after = number = 0
    while line := file.readline(LINE_BYTES_MAX):
        number += 1
        if not line.endswith(b"\n") and len(line) == LINE_BYTES_MAX:
            while (rest := file.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        if left and expression.search(text):
            for earlier, words in before:
                emit("context", label, earlier, words)
            emit("match", label, number, text)
            before, after = [], context
            left -= 1
        elif after:
            emit("context", label, number, text)
            after -= 1
        elif not left:
            break
        elif context:
            before = [*before[-(context - 1) :], (number, text)] if context > 1 else [(number, text)]
    return left


def emit(kind: str, label: str, number: int, text: str) -> None:
    print(found(kind, label, number, text), flush=True)


def found(kind: str, label: str, number: int, text: str) -> str:
    """One line of what was found, as ripgrep's `--json` has it."""
    data = {"path": {"text": label}, "lines": {"text": text}, "line_number": number}
    return json.dumps({"type": kind, "data": data})


def expression_of(wanted: "dict[str, Any]") -> "re.Pattern[str]":
    """What is searched for. Raises re.error."""
    pattern = re.escape(wanted["pattern"]) if wanted["literal"] else wanted["pattern"]
    return re.compile(pattern, re.IGNORECASE if wanted["ignore_case"] else 0)


def main(request: str) -> None:
    """Search `path` below the working directory for the request's pattern, up to its limit of matches."""
    wanted = json.loads(request)
    try:
        expression = expression_of(wanted)
    except re.error as error:
        sys.exit(f"not a regular expression: {error}")
    glob = Glob(wanted["glob"]) if wanted["glob"] else None
    left = wanted["limit"]
    if wanted["file"] is not None:
        search(wanted["file"], wanted["file"], expression, wanted["context"], left)
        return
    top, prefix, rules = above(os.getcwd())
    for path in files_below(top, prefix, rules, glob, len(prefix)):
        if left:
            left = search(os.path.join(top, path), path[len(prefix) :], expression, wanted["context"], left)
