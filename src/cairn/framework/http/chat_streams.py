"""What one client calls the streams it is told, and which submissions it asked for itself.

Laws. Pure. A client names what it asks for; that name is the stream's, once: an answer that goes on after a pause is another
stream, and so is one that nobody here asked for. Those are named after the submission. No two streams have one name.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

#: Names that one socket remembers, for a client that stops one of them.
NAMES_MAX = 1_000


@dataclass(slots=True)
class Asked:
    """A request of this client that has not ended."""

    id: str
    messages: list[str]
    """What it ends with: the ids of messages."""
    is_told: bool = False
    """Its answer has begun; what comes after a pause is another stream."""


class Streams:
    """The names."""

    def __init__(self) -> None:
        self.current = ""
        """The stream that runs, or ran last."""
        self._submissions: OrderedDict[str, str] = OrderedDict()
        self._asked: dict[str, Asked] = {}

    def begin(self, submission: str) -> None:
        """Another stream runs: the client's request, if it made one that was not told yet."""
        asked = self._asked.get(submission)
        if asked is not None and not asked.is_told:
            asked.is_told, self.current = True, asked.id
        else:
            count = sum(each == submission for each in self._submissions.values())
            self.current = f"{submission}.{count}" if count else submission
        self.remember(self.current, submission)

    def remember(self, name: str, submission: str) -> None:
        self._submissions[name] = submission
        if len(self._submissions) > NAMES_MAX:
            self._submissions.popitem(last=False)

    def submission_of(self, name: str) -> str | None:
        return self._submissions.get(name)

    def knows(self, submission: str) -> bool:
        """Whether the client was told anything of it."""
        return submission in self._submissions.values()

    # --- what the client asked for

    def expect(self, submission: str, asked: Asked) -> None:
        """The client asked for that submission's answer, and is going to be told it under its own name for it."""
        self._asked[submission] = asked
        self.remember(asked.id, submission)

    def is_asked(self, submission: str) -> bool:
        return submission in self._asked

    def take(self, submission: str) -> Asked | None:
        """The request, which has ended."""
        return self._asked.pop(submission, None)

    def take_all(self) -> list[Asked]:
        """All requests, which have ended."""
        asked = list(self._asked.values())
        self._asked.clear()
        return asked

    def messages(self, submission: str) -> list[str] | None:
        """The messages that the stream which runs answers, if it has the name of a request."""
        asked = self._asked.get(submission)
        return asked.messages if asked is not None and asked.id == self.current else None
