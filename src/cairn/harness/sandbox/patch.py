"""Replacing pieces of a text: finding each exactly once, by its characters or by what the eye sees, and the diff. Pure.

Laws. Every piece is looked for in the original text, so the order of edits means nothing and no edit sees another's work.
A piece matches if its characters occur exactly once; if they do not occur, if it occurs exactly once after normalisation:
compatibility characters (NFKC), quotes, dashes, spaces and spaces at line ends. Whatever lies outside of the matched pieces
keeps its bytes, its line ends and its byte order mark.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

#: Lines of context around a change in the diff.
DIFF_CONTEXT_LINES = 3

#: Places that an ambiguous piece is said to be found at.
PLACES_MAX = 5

_BOM = "\ufeff"
_ALIKE = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
    | dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " ")
)


@dataclass(frozen=True, slots=True)
class Edit:
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Patch:
    """What the edits make of a text. `lines` are the first and last changed line of each edit, in the text before."""

    text: str
    diff: str
    lines: tuple[tuple[int, int], ...]
    is_loose: bool
    """Some piece was found only after normalisation."""


@dataclass(frozen=True, slots=True)
class _Span:
    """A piece found, in positions of the view."""

    start: int
    end: int
    number: int
    new: str
    is_loose: bool


class EditProblem(ValueError):
    """The edits do not apply, and nothing was changed; `problems` has a sentence for each that does not."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def apply(text: str, edits: list[Edit]) -> Patch:
    """The text with every edit made. *Raises* EditProblem with everything that is wrong, not only the first."""
    view = _View(text)
    problems: list[str] = []
    spans: list[_Span] = []
    for number, edit in enumerate(edits, 1):
        label = f"edit {number} of {len(edits)}: " if len(edits) > 1 else ""
        found = _find(view, edit, number)
        if isinstance(found, _Span):
            spans.append(found)
        else:
            problems.append(label + found)
    spans.sort(key=lambda span: (span.start, span.end))
    for one, other in pairwise(spans):
        if other.start < one.end:
            problems.append(f"edits {one.number} and {other.number} overlap; make them one edit.")
    if problems:
        raise EditProblem(problems)
    changed = view.replaced(spans)
    if changed == text:
        raise EditProblem(["the new text is the same as the old; there is nothing to change."])
    return Patch(
        text=changed,
        diff="\n".join(_diff(view.text, spans)),
        lines=tuple((view.line_of(span.start), view.line_of(max(span.start, span.end - 1))) for span in spans),
        is_loose=any(span.is_loose for span in spans),
    )


def _find(view: _View, edit: Edit, number: int) -> _Span | str:
    old = edit.old.removeprefix(_BOM).replace("\r\n", "\n")
    new = edit.new.removeprefix(_BOM).replace("\r\n", "\n")
    if not old:
        return "the old text is empty; to fill an empty file use write, to insert repeat a line that is there."
    places = [(start, start + len(old)) for start in _occurrences(view.text, old)]
    is_loose = not places
    if is_loose:
        places = view.loose.find(old)
    if not places:
        return "the old text was not found. It has to be what the file has, spaces and line breaks included; read it again."
    if len(places) > 1:
        lines = ", ".join(str(view.line_of(start)) for start, _ in places[:PLACES_MAX])
        more = ", …" if len(places) > PLACES_MAX else ""
        return f"the old text occurs {len(places)} times (at lines {lines}{more}); add what is around it until it occurs once."
    return _Span(*places[0], number, new, is_loose)


def _occurrences(text: str, piece: str) -> list[int]:
    """Every position, overlapping ones too: `aa` occurs twice in `aaa`, and which one is meant cannot be known."""
    found = []
    position = text.find(piece)
    while position >= 0:
        found.append(position)
        position = text.find(piece, position + 1)
    return found


class _View:
    """A text as models see it: without byte order mark, every line end a newline. Knows the way back."""

    def __init__(self, original: str) -> None:
        self._mark = _BOM if original.startswith(_BOM) else ""
        self._original = original.removeprefix(_BOM)
        self.text = self._original.replace("\r\n", "\n")
        self._crlf = [place - n for n, place in enumerate(_occurrences(self._original, "\r\n"))]
        self._is_crlf = 2 * len(self._crlf) > self.text.count("\n")

    @cached_property
    def line_starts(self) -> list[int]:
        return _line_starts(self.text)

    @cached_property
    def loose(self) -> _Loose:
        return _Loose(self.text, self.line_starts)

    def line_of(self, position: int) -> int:
        return bisect_right(self.line_starts, position)

    def replaced(self, spans: list[_Span]) -> str:
        parts = [self._mark]
        position = 0
        for span in spans:
            start, end = self._back(span.start), self._back(span.end)
            parts += [self._original[position:start], self._with_line_ends(span)]
            position = end
        return "".join([*parts, self._original[position:]])

    def _back(self, position: int) -> int:
        return position + bisect_left(self._crlf, position)

    def _with_line_ends(self, span: _Span) -> str:
        """New lines end like those they replace, or like most of the file."""
        newline = self.text.find("\n", span.start, span.end)
        if newline < 0:
            is_crlf = self._is_crlf
        else:
            index = bisect_left(self._crlf, newline)
            is_crlf = index < len(self._crlf) and self._crlf[index] == newline
        return span.new.replace("\n", "\r\n") if is_crlf else span.new


class _Loose:
    """A view's text after normalisation, line by line, and the way back from a position in it."""

    def __init__(self, text: str, line_starts: list[int]) -> None:
        self._lines = text.split("\n")
        self._line_starts = line_starts
        normal = [_normal(line).rstrip() for line in self._lines]
        self._text = "\n".join(normal)
        self._starts = [0]
        for line in normal:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def find(self, piece: str) -> list[tuple[int, int]]:
        *whole, last = piece.split("\n")
        # The last line may stop anywhere in a line of the file, so a space at its end is part of what is meant.
        wanted = "\n".join([*(_normal(line).rstrip() for line in whole), _normal(last)])
        if not wanted.strip():
            return []
        found = []
        for start in _occurrences(self._text, wanted):
            begin, end = self._back(start), self._back(start + len(wanted))
            if begin is not None and end is not None:
                found.append((begin, end))
        return found

    def _back(self, position: int) -> int | None:
        """The position in the view; None inside of what was one character there (the `i` of `ﬁ`)."""
        number = bisect_right(self._starts, position) - 1
        column = position - self._starts[number]
        line = self._lines[number]
        if not line.isascii():
            columns = {0: 0}
            here = there = 0
            for cluster in _clusters(line):
                here += len(cluster)
                there += len(_normal(cluster))
                columns[there] = here
            mapped = columns.get(column)
            # Clusters that become one only together (Hangul letters) have no place for a cut between them.
            if mapped is None or there != len(_normal(line)):
                return None
            column = mapped
        return self._line_starts[number] + column


def _normal(line: str) -> str:
    if line.isascii():
        return line
    return unicodedata.normalize("NFKC", line.translate(_ALIKE)).translate(_ALIKE)


def _clusters(line: str) -> Iterator[str]:
    """Characters with the marks that combine with them: what normalisation may change the length of, as one."""
    cluster = ""
    for character in line:
        if cluster and not unicodedata.combining(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _diff(text: str, spans: list[_Span]) -> Iterator[str]:
    """A unified diff, from what is known: the lines that each span touches, with their context."""
    before = text.split("\n")
    shift = 0
    for group in _groups(text, spans):
        first, last = group[0][0], group[-1][1]
        start, stop = max(0, first - DIFF_CONTEXT_LINES), min(len(before), last + 1 + DIFF_CONTEXT_LINES)
        lines: list[str] = []
        position = start
        for from_line, to_line, new in group:
            lines += [" " + line for line in before[position:from_line]]
            lines += ["-" + line for line in before[from_line : to_line + 1]]
            lines += ["+" + line for line in new]
            position = to_line + 1
        lines += [" " + line for line in before[position:stop]]
        added = sum(len(new) for *_, new in group)
        gone = sum(to_line - from_line + 1 for from_line, to_line, _ in group)
        yield f"@@ -{start + 1},{stop - start} +{start + 1 + shift},{stop - start + added - gone} @@"
        yield from lines
        shift += added - gone


def _groups(text: str, spans: list[_Span]) -> list[list[tuple[int, int, list[str]]]]:
    """Changed line ranges with their new lines, in groups whose contexts touch."""
    changes: list[tuple[int, int, list[str]]] = []
    starts = _line_starts(text)
    pending: list[_Span] = []
    for span in [*spans, None]:
        if span is not None and (not pending or _line(starts, span.start) <= _line(starts, pending[-1].end)):
            pending.append(span)
            continue
        first, last = _line(starts, pending[0].start), _line(starts, pending[-1].end)
        begin = starts[first]
        end = starts[last + 1] - 1 if last + 1 < len(starts) else len(text)
        parts, position = [], begin
        for each in pending:
            parts += [text[position : each.start], each.new]
            position = each.end
        changes.append((first, last, "".join([*parts, text[position:end]]).split("\n")))
        pending = [span] if span is not None else []
    groups = [[changes[0]]]
    for change in changes[1:]:
        if change[0] - groups[-1][-1][1] <= 2 * DIFF_CONTEXT_LINES + 1:
            groups[-1].append(change)
        else:
            groups.append([change])
    return groups


def _line_starts(text: str) -> list[int]:
    return [0, *accumulate(len(line) + 1 for line in text.split("\n")[:-1])]


def _line(starts: list[int], position: int) -> int:
    return bisect_right(starts, position) - 1
