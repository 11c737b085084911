"""Every combination of bounded choices, by running the same code once for each.

    for choose in every_choice():
        amount = choose.below(3)
        if choose.flag():
            note = choose.one_of(["a", "b"])
        ...

The body is an ordinary program that asks; the loop ends when each answer to each question has been given. Questions may
depend on earlier answers. There is no sampling and nothing to shrink: if a small counterexample exists, it is visited.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Choose:
    """One run's answers, as an odometer: digit `i` answers question `i`, its base is how many answers there were."""

    def __init__(self) -> None:
        self._digits: list[tuple[int, int]] = []
        self._asked = 0

    def below(self, count: int) -> int:
        """A number from 0 to `count` - 1. Raises ValueError when the program does not repeat itself."""
        if count < 1:
            raise ValueError(f"nothing to choose: there are {count} answers")
        if self._asked == len(self._digits):
            self._digits.append((0, count))
        digit, base = self._digits[self._asked]
        if base != count:
            raise ValueError(
                f"question {self._asked} had {base} answers in an earlier run and has {count} now: "
                "the program depends on something besides its choices"
            )
        self._asked += 1
        return digit

    def flag(self) -> bool:
        """False, then True."""
        return self.below(2) == 1

    def one_of(self, options: Sequence[T]) -> T:
        """Each option."""
        return options[self.below(len(options))]

    def some_of(self, options: Sequence[T]) -> list[T]:
        """Each subset, in the order of `options`."""
        return [option for option in options if self.flag()]

    def order_of(self, options: Sequence[T]) -> list[T]:
        """Each permutation."""
        rest = list(options)
        return [rest.pop(self.below(len(rest))) for _ in options]

    def answers(self) -> tuple[int, ...]:
        """The answers given in this run: what to print when it fails."""
        return tuple(digit for digit, _ in self._digits[: self._asked])

    def _next_run(self) -> bool:
        del self._digits[self._asked :]
        while self._digits and self._digits[-1][0] + 1 == self._digits[-1][1]:
            self._digits.pop()
        if not self._digits:
            return False
        digit, base = self._digits.pop()
        self._digits.append((digit + 1, base))
        self._asked = 0
        return True


def every_choice() -> Iterator[Choose]:
    """Yields once per combination of answers. The body must be a function of its choices."""
    choose = Choose()
    yield choose
    while choose._next_run():
        yield choose
