"""When the worker is killed: chosen from a seed, recognised in the log.

Laws. Pure. The seed decides what is aimed at; where the kill lands is decided by the machine, and read from the log afterwards.
The same seed aims at the same moment on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from cairn.framework.demo.standing import Standing

#: Seeds are short enough to be typed again.
SEEDS = 100_000

#: The scripted job has eight answers, two runs of the tests and about twenty synced appends. Every moment aimed at comes before
#: the last of them, so that there is always something to kill.
ANSWERS = range(2, 9)
SHELL_CALLS = range(1, 3)
FACTS = range(3, 19)
CHARACTERS_MAX = 60
#: A run of the tests takes 0.1 to 0.3 s; what is aimed beyond its end lands in what comes next.
SHELL_SECONDS_MAX = 0.1

#: With a real model nobody knows how long the job is; whatever it does, it says and calls something at its beginning.
REAL_ANSWERS = range(1, 4)
REAL_SHELL_CALLS = range(1, 2)
REAL_FACTS = range(3, 9)


@dataclass(frozen=True, slots=True)
class Moment:
    """What is aimed at: `after` characters of the `number`-th answer, `after` seconds of the `number`-th shell command, or the
    `number`-th synced append."""

    what: Literal["answer", "shell", "fact"]
    number: int
    after: float = 0.0

    def __str__(self) -> str:
        if self.what == "answer":
            return f"after {self.after:.0f} characters of its {ordinal(self.number)} answer"
        if self.what == "shell":
            return f"{self.after * 1000:.0f} ms into its {ordinal(self.number)} shell command"
        return f"right after its {ordinal(self.number)} synced append"


def choose(seed: int, *, is_real: bool = False) -> Moment:
    """The moment of a seed."""
    kind = _fraction(seed, "kind")
    if kind < 0.4:
        number = _pick(seed, REAL_ANSWERS if is_real else ANSWERS)
        return Moment("answer", number, 1 + int(_fraction(seed, "characters") * CHARACTERS_MAX))
    if kind < 0.75:
        number = _pick(seed, REAL_SHELL_CALLS if is_real else SHELL_CALLS)
        return Moment("shell", number, _fraction(seed, "seconds") * SHELL_SECONDS_MAX)
    return Moment("fact", _pick(seed, REAL_FACTS if is_real else FACTS))


def reached(moment: Moment, standing: Standing) -> float | None:
    """Seconds until the moment, as far as the log has come; None while it is not near."""
    if moment.what == "fact":
        return 0.0 if standing.facts >= moment.number else None
    if moment.what == "answer":
        is_there = standing.answers == moment.number - 1 and standing.said >= moment.after
        return 0.0 if is_there or standing.answers >= moment.number else None
    shells = [call for call in standing.calls.values() if call.name == "bash"]
    if len(shells) < moment.number:
        return None
    return moment.after if len(shells) == moment.number and shells[-1].outcome is None else 0.0


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _fraction(seed: int, what: str) -> float:
    digest = hashlib.sha256(f"{seed}:{what}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def _pick(seed: int, numbers: range) -> int:
    return numbers[int(_fraction(seed, "number") * len(numbers))]
