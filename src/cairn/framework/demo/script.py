"""The scripted engineer: given what it knows, what does it do next? It reproduces, looks, changes one thing, checks, reports.

Laws. Pure, and without memory: equal conversations give equal moves, so another process that takes over says the same
sentence to its end. It reacts to results: which file it reads, what it searches for and what it edits come out of them. When
its idea does not help it takes the edit back, and when it has no idea left it says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cairn.framework.demo.ideas import IDEAS, Idea
from cairn.framework.demo.knowledge import Attempt, Failure, Knowledge, Run, Step, fold, inverse

REPORT = "REPORT.md"

#: Files it reads at once after a search; more would be no search.
READ_AT_ONCE_MAX = 4


@dataclass(frozen=True, slots=True)
class Move:
    """What it says, and what it calls then: (tool, arguments), each. Without calls it has finished."""

    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


def next_move(steps: Sequence[Step]) -> Move:
    """The move after these finished calls."""
    known = fold(steps)
    for rule in RULES:
        move = rule(known)
        if move is not None:
            return move
    raise AssertionError("the last rule always has a move")


# --- the rules, in the order in which they are asked ----------------------------------------------------------------


def _read_the_report(known: Knowledge) -> Move | None:
    if known.reports or known.listed == []:
        return None
    if REPORT not in known.missing:
        return Move("I start with the report.", (("read", {"path": REPORT}),))
    if known.listed is None:
        return Move(f"There is no {REPORT}. I look for another one.", (("glob", {"pattern": "*.md"}),))
    unread = [path for path in known.listed if path not in known.missing]
    return Move(f"{unread[0]} may be the report.", (("read", {"path": unread[0]}),)) if unread else None


def _settle_a_doubt(known: Knowledge) -> Move | None:
    if known.doubt is None:
        return None
    path = known.doubt.path
    return Move(
        f"I was interrupted while I edited {path}, and cannot know whether the change was made. I look.",
        (("read", {"path": path}),),
    )


def _run_the_tests(known: Knowledge) -> Move | None:
    if known.run is not None:
        return None
    call = (("bash", {"command": f"{known.pythons[0]} -m unittest"}),)
    if known.lost == "bash":
        return Move("I was interrupted while the tests ran, and their outcome is lost. A test run can be repeated.", call)
    if known.attempts:
        return Move("The change is in. Now all the tests, not only the one that failed.", call)
    if known.undone:
        return Move("It is as it was. I make sure of that before I try something else.", call)
    told = f'"{_title(known)}": before' if known.reports else "There is no report that I can find. Before"
    return Move(f"{told} I change anything I want to see it fail.", call)


def _conclude(known: Knowledge) -> Move | None:
    run = known.run
    if run is None or not run.passed:
        return None
    if not known.attempts:
        return Move(f"I cannot reproduce this: all {run.count} tests pass as it is. I have changed nothing.")
    return Move(_fixed(known, run))


def _cannot_test(known: Knowledge) -> Move | None:
    run = known.run
    if run is None or run.failure is not None:
        return None
    last = run.output.strip().splitlines()[-1] if run.output.strip() else "nothing"
    return Move(
        f"I cannot tell whether anything is wrong: `{run.command}` ran no test and said: {last}. I have changed nothing."
    )


def _take_it_back(known: Knowledge) -> Move | None:
    run = known.run
    if run is None or not known.attempts:
        return None
    attempt = known.attempts[-1]
    assert run.failure is not None
    return Move(
        f"That was not it: {run.failed} of {run.count} tests fail, {run.failure.test} among them. {_ended(run.failure)} I take "
        f"the change in {attempt.path} back.",
        (_edit(inverse(attempt)),),
    )


def _look_where_it_ended(known: Knowledge) -> Move | None:
    failure = _failure(known)
    if failure is None or not failure.path or failure.path in known.sources or failure.path in known.missing:
        return None
    return Move(
        f"It is real: {failure.test} fails. {_ended(failure)}{_evidence(known, failure)} That is where it shows, not "
        f"necessarily where it begins.",
        (("read", {"path": failure.path}),),
    )


def _search_what_it_uses(known: Knowledge) -> Move | None:
    failure = _failure(known)
    if failure is None or failure.path not in known.sources:
        return None
    used = used_names(known.sources[failure.path], failure.function)
    pattern = f"def ({'|'.join(used)})\\("
    if not used or pattern in known.searched:
        return None
    return Move(
        f"{failure.function} relies on {_listed(used)}. Where {'is that' if len(used) == 1 else 'are they'}?",
        (("grep", {"pattern": pattern, "glob": "*.py"}),),
    )


def _read_what_was_found(known: Knowledge) -> Move | None:
    found = [path for paths in known.searched.values() for path in paths]
    unread = [path for path in found if path not in known.sources and path not in known.missing][:READ_AT_ONCE_MAX]
    if not unread:
        return None
    return Move(
        f"In {_listed(unread)}. Let me read {'it' if len(unread) == 1 else 'both' if len(unread) == 2 else 'them'}.",
        tuple(map(_read, unread)),
    )


def _try_an_idea(known: Knowledge) -> Move | None:
    refused = f"The edit was refused ({known.refused}). " if known.refused else ""
    for idea, attempt in _ideas(known):
        return Move(refused + idea.why.format(path=attempt.path), (_edit(attempt),))
    return None


def _give_up(known: Knowledge) -> Move | None:
    failure = _failure(known)
    where = f"{failure.test} still fails. {_ended(failure)}" if failure is not None else "A test still fails."
    tried = f" I tried {_many(len(known.undone), 'change')} and took everything back." if known.undone else ""
    read = f" I have read {_listed(sorted(known.sources))}." if known.sources else ""
    return Move(f"I did not find the cause. {where}{read}{tried} A person should look at this.")


RULES: tuple[Callable[[Knowledge], Move | None], ...] = (
    _read_the_report,
    _settle_a_doubt,
    _run_the_tests,
    _conclude,
    _cannot_test,
    _take_it_back,
    _look_where_it_ended,
    _search_what_it_uses,
    _read_what_was_found,
    _try_an_idea,
    _give_up,
)


# --- reading sources and results ------------------------------------------------------------------------------------

_IMPORTED = re.compile(r"^from [\w.]+ import ([\w, ]+)$", re.MULTILINE)


def used_names(source: str, function: str) -> list[str]:
    """The imported functions that a function calls, in the order in which it does."""
    imported = {name.strip() for names in _IMPORTED.findall(source) for name in names.split(",")}
    start = re.search(rf"^( *)(?:async )?def {re.escape(function)}\b.*$", source, re.MULTILINE)
    if start is None:
        return []
    body: list[str] = []
    for line in source[start.end() :].splitlines()[1:]:
        if line.strip() and len(line) - len(line.lstrip()) <= len(start[1]):
            break
        body.append(line)
    called = re.findall(r"(?<![\w.])([a-z_]\w*)\(", "\n".join(body))
    return [name for name in dict.fromkeys(called) if name in imported]


def _ideas(known: Knowledge) -> list[tuple[Idea, Attempt]]:
    found = [
        (idea, Attempt(path, edits)) for idea in IDEAS for path, source in known.sources.items() if (edits := idea.find(source))
    ]
    return [(idea, attempt) for idea, attempt in found if not known.tried(attempt)]


def _failure(known: Knowledge) -> Failure | None:
    return known.run.failure if known.run is not None else None


def _evidence(known: Knowledge, failure: Failure) -> str:
    """What became of a value of the report on its way to the failure, if that can be seen."""
    for quoted in re.findall(r"`([^`]+)`", "\n".join(known.reports.values())):
        if "+" in quoted and quoted not in failure.message and quoted.replace("+", " ") in failure.message:
            return f" But {quoted} was put in: on its way the plus has become a blank."
    return ""


# --- words ----------------------------------------------------------------------------------------------------------


def _fixed(known: Knowledge, run: Run) -> str:
    first = next((before for before in known.runs if before.failure is not None), None)
    lines = [f"Fixed: {_title(known)}." if known.reports else "Fixed."]
    if first is not None and first.failure is not None:
        evidence = _evidence(known, first.failure)
        lines.append(f"Seen: {first.failure.test} failed. {_ended(first.failure)}{evidence}")
    for attempt in known.attempts:
        idea = next((idea for idea in IDEAS if idea.find(_replaced(attempt))[-1:] == attempt.edits[-1:]), None)
        lines.append(f"Cause: {idea.why.format(path=attempt.path)}" if idea else f"Changed: {attempt.path}.")
    lines.append(f"Checked: all {run.count} tests pass.")
    return "\n".join(lines)


def _replaced(attempt: Attempt) -> str:
    """What the edit replaced, as if it were a file."""
    return "\n".join(old for old, _ in attempt.edits)


def _title(known: Knowledge) -> str:
    text = next(iter(known.reports.values()))
    return text.strip().splitlines()[0].lstrip("# ").strip() if text.strip() else "the report"


def _ended(failure: Failure) -> str:
    where = f" in {failure.function} ({failure.path}, line {failure.line})" if failure.path else ""
    message = f': "{failure.message}"' if failure.message else ""
    return f"It ends{where} with {failure.error or 'a failure'}{message}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _read(path: str) -> tuple[str, dict[str, Any]]:
    return "read", {"path": path}


def _edit(attempt: Attempt) -> tuple[str, dict[str, Any]]:
    return "edit", {"path": attempt.path, "edits": [{"oldText": old, "newText": new} for old, new in attempt.edits]}
