"""Where a conversation stands for somebody who watches it: what is unsettled, and the answer that is being given, if any.

Laws. Pure: chunks in, happenings out, in the order in which they have to be told. It holds one answer and never the
conversation. An answer *streams* from its first step to its end; while nothing of it goes on until somebody outside answers a
call, it does not, and it streams again when somebody has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cairn.framework.http.chat_parts import waits
from cairn.framework.http.snapshot import Snapshot

Json = dict[str, Any]


# --- happenings -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admitted:
    """A message came that will be answered."""

    submission: str
    message: Json


@dataclass(frozen=True, slots=True)
class Began:
    """An answer streams, from its beginning or again."""

    submission: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The answer waits for somebody outside; it does not stream any more."""

    submission: str
    message: Json


@dataclass(frozen=True, slots=True)
class Changed:
    """An answer that does not stream is another than it was: one of its calls got its answer."""

    message: Json


@dataclass(frozen=True, slots=True)
class Recovering:
    """The answer was interrupted by a crash and is being taken up again; or goes on."""

    submission: str
    is_recovering: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """A submission has its outcome. `message`: all of its answer, when it had one of its own that streamed."""

    submission: str
    outcome: str
    error: str
    message: Json | None


@dataclass(frozen=True, slots=True)
class Replaced:
    """The transcript is another one now: a rewind, or words that were missed. Nothing streams until `Began` says so."""

    is_empty: bool


Happening = Admitted | Began | Paused | Changed | Recovering | Settled | Replaced


# --- the scene ------------------------------------------------------------------------------------------------------

_OF_THE_ANSWER = frozenset(
    {
        "message-started",
        "message-delta",
        "message-completed",
        "message-metadata",
        "tool-input",
        "tool-output",
        "tool-output-error",
        "data-part",
    }
)


class Scene:
    """The fold."""

    def __init__(self) -> None:
        self.unsettled: dict[str, None] = {}
        """Submissions without an outcome, in order of admission."""
        self.host = ""
        """The submission whose answer is being given; empty when none is."""
        self.is_streaming = False
        self.failed: tuple[str, str] | None = None
        """The last submission and why it failed, when it did and nothing came after it."""
        self._fold = Snapshot()
        self._answer = ""
        self._is_recovering = False

    @classmethod
    def of(cls, messages: Sequence[Json], settlements: Sequence[Json]) -> Scene:
        """As it stands in a snapshot."""
        made, settled = cls(), {each["submissionId"]: each for each in settlements}
        sent = [each["submissionId"] for each in messages if each["purpose"] in ("user", "dispatch")]
        made.unsettled = dict.fromkeys(id for id in sent if id not in settled)
        answers = [each for each in messages if each["role"] == "assistant"]
        if answers and answers[-1].get("submissionId") in made.unsettled:
            made._take(answers[-1])
            made.is_streaming = not waits(answers[-1])
        if sent and not made.unsettled and settled.get(sent[-1], {}).get("outcome") == "failed":
            made.failed = (sent[-1], _why(settled[sent[-1]]))
        return made

    @property
    def message(self) -> Json | None:
        """The answer that is being given, not to be changed."""
        return self._fold.message(self._answer) if self.host else None

    @property
    def is_pending(self) -> bool:
        """Whether something will stream that does not yet, whoever acts."""
        return bool(self.unsettled) and not self.is_streaming and not (self.message is not None and waits(self.message))

    def feed(self, chunk: Json, ordinal: int = 0) -> Iterator[Happening]:
        """What this chunk makes happen. What streams grows without a happening."""
        if chunk["type"] in _OF_THE_ANSWER:
            yield from self._grow(chunk, ordinal)
        elif chunk["type"] == "message-appended":
            yield from self._append(chunk["message"])
        elif chunk["type"] == "submission-settled":
            yield from self._settle(chunk)

    def reset(self, messages: Sequence[Json], settlements: Sequence[Json]) -> Iterator[Happening]:
        """The whole is another one: what was streaming has its end, whatever that was."""
        found, streamed = Scene.of(messages, settlements), self.host if self.is_streaming else ""
        last = next((each for each in messages if each["id"] == self._answer), None)
        outcome: Mapping[str, Any] = next((each for each in settlements if each["submissionId"] == streamed), {})
        goes_on = found.host == streamed and found.is_streaming
        self._become(found)
        if streamed and not goes_on:
            yield Settled(streamed, outcome.get("outcome", "aborted"), _why(outcome), last)
        yield Replaced(is_empty=not messages)
        if found.is_streaming and not (streamed and goes_on):
            yield Began(found.host)

    # --- inside

    def _become(self, other: Scene) -> None:
        self.unsettled, self.host, self.is_streaming, self.failed = (
            other.unsettled,
            other.host,
            other.is_streaming,
            other.failed,
        )
        self._fold, self._answer, self._is_recovering = other._fold, other._answer, False

    def _take(self, message: Json) -> None:
        self.host, self._answer = message["submissionId"], message["id"]
        self._fold = Snapshot.of(message)

    def _grow(self, chunk: Json, ordinal: int) -> Iterator[Happening]:
        if chunk["type"] == "message-started" and chunk["messageId"] != self._answer:
            self._fold = Snapshot()
            self.host, self._answer, self.is_streaming = chunk["submissionId"], chunk["messageId"], False
        if chunk["type"] == "message-delta" and self.is_streaming and not self._is_recovering:
            self._fold.apply(chunk, ordinal)  # words never make anything happen, and are most of what comes
            return
        before = self._fold.message(self._answer)
        waited = before is not None and waits(before)
        self._fold.apply(chunk, ordinal)
        message = self._fold.message(self._answer)
        if message is None:
            return
        if not self.host:  # shown by a hook that runs when the answer has settled
            yield Changed(message)
            return
        if self._is_recovering and chunk["type"] != "message-started":
            yield from self._recovering(False)
        if self.is_streaming:
            if waits(message):
                self.is_streaming = False
                yield Paused(self.host, message)
        elif not waits(message):
            self.is_streaming = True
            yield Began(self.host)
        elif waited:
            yield Changed(message)

    def _append(self, message: Json) -> Iterator[Happening]:
        submission = message.get("submissionId", "")
        if message["purpose"] in ("user", "dispatch") and "turnId" not in message:
            self.failed = None
            self.unsettled[submission] = None
            yield Admitted(submission, message)
        elif message["id"].endswith("_interrupted") and submission == self.host:
            yield from self._recovering(True)

    def _recovering(self, is_recovering: bool) -> Iterator[Happening]:
        self._is_recovering = is_recovering
        yield Recovering(self.host, is_recovering)

    def _settle(self, chunk: Json) -> Iterator[Happening]:
        submission, outcome = chunk["submissionId"], chunk["outcome"]
        is_host = submission == self.host
        message = self.message if is_host else None
        if is_host and self._is_recovering:
            yield from self._recovering(False)
        self.unsettled.pop(submission, None)
        self.failed = (submission, _why(chunk)) if outcome == "failed" and not self.unsettled else None
        if is_host:
            self.host, self.is_streaming = "", False
        yield Settled(submission, outcome, _why(chunk), message)


def _why(settlement: Mapping[str, Any]) -> str:
    error = settlement.get("error") or {}
    why: str = error.get("message", "")
    return why
