"""What a kill has cost: the log when the worker died, the log at the end, and what was really done in between.

Laws. Pure. Nothing is claimed that was not counted: a call that was not repeated is one with a recorded outcome and a single
line in the witness's file; an answer that was not asked for again is one without a second request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cairn.framework.demo.knowledge import Run
from cairn.framework.demo.moment import ordinal
from cairn.framework.demo.standing import CallStanding, Standing
from cairn.framework.demo.witness import Line, times_asked, times_run


@dataclass(frozen=True, slots=True)
class Death:
    """How the first worker ended. Seconds are on the wall clock where `at`, else durations."""

    pid: int
    at: float
    dead_seconds: float
    """From the signal until the process was gone."""
    landed: str
    """What the log says it was doing."""
    answers: int
    finished: tuple[str, ...]
    """Calls that had their outcome."""
    open: tuple[str, ...]
    said: int
    children: int = 0
    """Processes of a running command that were alive when it was killed."""
    children_seconds: float = 0.0
    """Until they were gone too."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the demo has found out, by itself."""

    tests: Run
    changed: tuple[str, ...]
    """Files that are not as they were."""
    problems: tuple[str, ...]
    """What checking the store has found."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What was kept and what was not."""

    calls_kept: int
    calls_repeated: tuple[str, ...]
    """Calls that were finished and ran again: must be empty."""
    answers_kept: int
    answers_repeated: tuple[int, ...]
    """Answers that were finished and asked for again: must be empty."""
    characters_kept: int
    characters_lost: int
    unknown: tuple[str, ...]
    """Calls whose outcome nobody knows; the model was told."""
    run_again: tuple[str, ...]
    """Calls without an outcome that were run once more, because their tools allow it."""
    taken_up_seconds: float | None
    """From the kill until another process owned the conversation."""
    requests: int | None
    """Requests that were made, by the witness; None when the model is not ours."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a demo says at its end."""

    seed: int
    aim: str
    death: Death | None
    cost: Cost | None
    verdict: Verdict
    standing: Standing
    seconds: float
    is_scripted: bool = True
    folder: str = ""
    failures: list[str] = field(default_factory=list)


def landed(standing: Standing) -> str:
    """What the log says was happening when it stops here."""
    if standing.is_settled:
        return "after the work was done"
    if standing.open:
        return f"while {' and '.join(named(call) for call in standing.open)} ran"
    answer = ordinal(standing.answers + 1)
    if standing.is_asked and standing.said:
        return f"in the middle of its {answer} answer, {standing.said} characters into it"
    if standing.is_asked:
        return f"while it waited for its {answer} answer"
    return "before its first step" if not standing.answers else "between two steps"


def named(call: CallStanding) -> str:
    """A call in a few words: `bash: python3 -m unittest`."""
    what = call.arguments.get("command") or call.arguments.get("path") or call.arguments.get("pattern") or ""
    return f"`{call.name} {what}`".replace(" `", "`")


def death(standing: Standing, pid: int, at: float, dead_seconds: float, children: int, children_seconds: float) -> Death:
    """The death of a worker whose log stopped here."""
    return Death(
        pid=pid,
        at=at,
        dead_seconds=dead_seconds,
        landed=landed(standing),
        answers=standing.answers,
        finished=tuple(call.id for call in standing.finished),
        open=tuple(call.id for call in standing.open),
        said=standing.said if standing.is_asked else 0,
        children=children,
        children_seconds=children_seconds,
    )


def cost(death: Death, standing: Standing, lines: Sequence[Line], *, is_scripted: bool) -> Cost:
    """What the death has cost, now that the log is at its end."""
    ran = times_run(lines)
    asked_later = times_asked([line for line in lines if line.pid != death.pid])
    later = [at for at in standing.claims if at >= death.at]
    return Cost(
        calls_kept=len(death.finished),
        calls_repeated=tuple(id for id in death.finished if ran[id] > 1),
        answers_kept=death.answers,
        answers_repeated=tuple(number + 1 for number in range(death.answers) if asked_later[number]),
        characters_kept=standing.kept,
        characters_lost=standing.dropped,
        unknown=tuple(named(standing.calls[id]) for id in standing.unknown),
        run_again=tuple(named(standing.calls[id]) for id in death.open if ran[id] > 1),
        taken_up_seconds=later[0] - death.at if later else None,
        requests=sum(times_asked(lines).values()) if is_scripted else None,
    )


def failures(report: Report) -> list[str]:
    """What must not be, as sentences; empty when the demo has shown what it promises."""
    found = []
    standing, verdict = report.standing, report.verdict
    if not verdict.tests.passed:
        found.append(f"the project's tests do not pass: {verdict.tests.failed} of {verdict.tests.count} fail")
    if touched := [name for name in verdict.changed if name.startswith("tests/")]:
        found.append(f"its tests were changed: {', '.join(touched)}")
    if standing.settlements != ["completed"]:
        found.append(f"the log holds {len(standing.settlements)} settlements ({', '.join(standing.settlements)}), not one")
    if report.cost is not None and report.cost.calls_repeated:
        found.append(f"finished calls ran again: {', '.join(report.cost.calls_repeated)}")
    if report.cost is not None and report.cost.answers_repeated:
        found.append(f"finished answers were asked for again: {', '.join(map(str, report.cost.answers_repeated))}")
    return [*found, *(f"the store: {problem}" for problem in verdict.problems)]
