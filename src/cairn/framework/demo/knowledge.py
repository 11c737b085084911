"""What the scripted engineer knows: a fold of the calls it has made and of what came back.

Laws. Pure. Everything here was read out of a tool's result; nothing about the project is written down beforehand. A result
whose outcome is unknown teaches only that: what it concerns has to be found out again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: How the model is told that a call was cut off by the death of its process.
UNKNOWN = "The outcome of this call is unknown"

#: What a test run says about itself.
_RAN = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)
_FAILED_TEST = re.compile(r"^(?:ERROR|FAIL): (\w+)", re.MULTILINE)
_FRAME = re.compile(r'^  File "([^"]+)", line (\d+), in (\w+)', re.MULTILINE)
_RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?$", re.MULTILINE)
_NOT_FOUND = re.compile(r"command not found|Exit code 127|No module named unittest")

_MATCH = re.compile(r"^(.+?):(\d+): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """One finished call: what was asked, and what came back."""

    tool: str
    arguments: Mapping[str, Any]
    result: str
    is_error: bool = False

    @property
    def is_unknown(self) -> bool:
        return self.result.startswith(UNKNOWN)


@dataclass(frozen=True, slots=True)
class Failure:
    """The first failing test of a run: its name, where in the code it ended, and with what."""

    test: str
    path: str
    line: int
    function: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the tests."""

    command: str
    count: int
    failed: int
    failure: Failure | None
    output: str

    @property
    def passed(self) -> bool:
        return self.count > 0 and self.failed == 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """An edit that was made, or may have been."""

    path: str
    edits: tuple[tuple[str, str], ...]
    """(old, new), each."""


@dataclass(slots=True)
class Knowledge:
    """All of it. `apply` takes the next step in; the order of steps is the order of the conversation."""

    reports: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    """Files that were asked for and are not there."""
    listed: list[str] | None = None
    """What a search for reports found."""
    pythons: list[str] = field(default_factory=lambda: ["python3", "python"])
    runs: list[Run] = field(default_factory=list)
    run: Run | None = None
    """Of the code as it is now; None as soon as it may have changed."""
    sources: dict[str, str] = field(default_factory=dict)
    """Files of the project as they are now."""
    searched: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Pattern → the files with a match."""
    attempts: list[Attempt] = field(default_factory=list)
    """Edits that are in the files, oldest first."""
    undone: list[Attempt] = field(default_factory=list)
    doubt: Attempt | None = None
    """An edit that may or may not have been made."""
    lost: str | None = None
    """The tool whose last call had an unknown outcome."""
    refused: str | None = None
    """Why the last edit was not made."""

    def apply(self, step: Step) -> None:
        """Learn from one step."""
        self.lost = step.tool if step.is_unknown else None
        learn = {"read": self._read, "bash": self._bash, "grep": self._grep, "glob": self._glob, "edit": self._edit}
        if step.tool in learn:
            learn[step.tool](step)

    def tried(self, attempt: Attempt) -> bool:
        """Whether this edit was made before, and undone."""
        return attempt in self.undone

    def _read(self, step: Step) -> None:
        path = step.arguments["path"]
        if step.is_unknown:
            return
        if step.is_error:
            self.missing.add(path)
        elif path.endswith(".md"):
            self.reports[path] = step.result
        else:
            self.sources[path] = step.result
            if self.doubt is not None and self.doubt.path == path:
                self._resolve_doubt(step.result)

    def _bash(self, step: Step) -> None:
        if step.is_unknown:
            return
        if _NOT_FOUND.search(step.result) and len(self.pythons) > 1:
            self.pythons.pop(0)
            return
        self.run = read_run(step.arguments["command"], step.result)
        self.runs.append(self.run)

    def _grep(self, step: Step) -> None:
        if step.is_unknown:
            return
        found = () if step.is_error else tuple(dict.fromkeys(path for path, _ in _MATCH.findall(step.result)))
        self.searched[step.arguments["pattern"]] = found

    def _glob(self, step: Step) -> None:
        if not step.is_unknown:
            lines = [] if step.is_error else step.result.splitlines()
            self.listed = [line for line in lines if line.endswith(".md")]

    def _edit(self, step: Step) -> None:
        edits = tuple((each["oldText"], each["newText"]) for each in step.arguments["edits"])
        attempt = Attempt(step.arguments["path"], edits)
        if step.is_unknown:
            self.doubt = attempt
            self.sources.pop(attempt.path, None)
        elif step.is_error:
            self.refused = step.result.strip().splitlines()[-1]
            self.undone.append(attempt)
        else:
            self._made(attempt)

    def _made(self, attempt: Attempt) -> None:
        self.run = None
        self.refused = None
        self.sources.pop(attempt.path, None)
        back = inverse(attempt)
        if back in self.attempts:
            self.attempts.remove(back)
            self.undone.append(back)
        else:
            self.attempts.append(attempt)

    def _resolve_doubt(self, source: str) -> None:
        attempt, self.doubt = self.doubt, None
        assert attempt is not None
        if all(new in source and (old in new or old not in source) for old, new in attempt.edits):
            self._made(attempt)
            self.sources[attempt.path] = source


def inverse(attempt: Attempt) -> Attempt:
    """The edit that undoes it."""
    return Attempt(attempt.path, tuple((new, old) for old, new in attempt.edits))


def fold(steps: Sequence[Step]) -> Knowledge:
    """Everything that these steps have taught."""
    knowledge = Knowledge()
    for step in steps:
        knowledge.apply(step)
    return knowledge


def read_run(command: str, output: str) -> Run:
    """What a run of unittest says: how many tests, how many failed, and where the first failure comes from."""
    ran = _RAN.search(output)
    failed = len(_FAILED_TEST.findall(output))
    return Run(command, int(ran[1]) if ran else 0, failed, _first_failure(output), output)


def _first_failure(output: str) -> Failure | None:
    found = _FAILED_TEST.search(output)
    if found is None:
        return None
    block = output[found.start() :].partition("\n======")[0].partition("\n\n------")[0]
    frames = list(_FRAME.finditer(block))
    test = next((frame for frame in frames if "/tests/" in frame[1]), None)
    # The tests lie in the project's own folder: what is beside them is the project, everything else is a library.
    root = test[1].partition("/tests/")[0] + "/" if test else ""
    ours = [frame for frame in frames if root and frame[1].startswith(root) and "/tests/" not in frame[1]]
    raised = _RAISED.search(block, frames[-1].end()) if frames else None
    error, message = (raised[1].rpartition(".")[2], raised[2] or "") if raised else ("", block.strip().splitlines()[-1])
    last = ours[-1] if ours else test
    path, line, function = (last[1].removeprefix(root), int(last[2]), last[3]) if last else ("", 0, "")
    return Failure(found[1], path, line, function, error, message)
