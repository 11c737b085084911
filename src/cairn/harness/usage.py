"""What a conversation has cost: requests, tokens, calls and dollars; as a whole, by model and by submission.

Laws. Pure: a fold of the log, which alone has everything that was paid for, also what a rewind has taken out of the
conversation. A response whose price is not known is counted as such and never as free. A fork's log counts from the fork on:
what came before was paid for by the conversation it is a copy of, and sums over conversations stay right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from cairn.harness import records as h
from cairn.runtime import records as r

#: How a batch of deltas begins; there is nothing to count in it, and most batches are deltas.
DELTAS = b'[{"type":"message.delta"'


class Spent(msgspec.Struct):
    """Sums."""

    turns: int = 0
    """Requests to a model. Those without a response, failed or cut off, say nothing of their tokens."""
    responses: int = 0
    tool_calls: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    """Of the output."""
    cost_usd: float = 0.0
    """Of the responses whose price is known."""
    unpriced: int = 0
    """Responses whose price is not known."""

    def add(self, record: h.MessageCompleted) -> None:
        usage = record.usage
        self.responses += 1
        self.input += usage.input
        self.output += usage.output
        self.cache_read += usage.cache_read
        self.cache_write += usage.cache_write
        self.reasoning += usage.reasoning
        if usage.cost is None:
            self.unpriced += 1
        else:
            self.cost_usd += usage.cost


class Submission(msgspec.Struct):
    """One submission's share. What joined it has no turns of its own: `answered_by` has them."""

    spent: Spent
    outcome: r.Outcome | None = None
    answered_by: str | None = None


class UsageReport:
    """The fold, at `ordinal`."""

    def __init__(self) -> None:
        self.ordinal = -1
        self.total = Spent()
        self.by_model: dict[str, Spent] = {}
        self.submissions: dict[str, Submission] = {}
        """In order of admission."""
        self._asked = ("", "")
        """The last turn, and the model it was asked of: a response may name a version of it."""

    def feed(self, records: Iterable[r.Record], ordinal: int) -> None:
        """Fold one batch."""
        self.ordinal = ordinal
        for record in records:
            handler = _HANDLERS.get(type(record))
            if handler is not None:
                handler(self, record)

    def of(self, submission: str) -> Submission:
        """A submission's share. A fork may name one that was admitted before it: then its share begins here."""
        return self.submissions.setdefault(submission, Submission(Spent()))


def _accepted(report: UsageReport, record: r.FiberAccepted) -> None:
    if record.method == h.SUBMISSION:
        report.of(record.fiber)


def _turn(report: UsageReport, record: h.TurnStarted) -> None:
    report.total.turns += 1
    report.of(record.submission).spent.turns += 1
    report.by_model.setdefault(record.model, Spent()).turns += 1
    report._asked = (record.turn, record.model)


def _completed(report: UsageReport, record: h.MessageCompleted) -> None:
    report.total.add(record)
    report.of(record.submission).spent.add(record)
    turn, model = report._asked
    report.by_model.setdefault(model if turn == record.turn else record.model, Spent()).add(record)


def _called(report: UsageReport, record: h.ToolCalled) -> None:
    report.total.tool_calls += 1
    report.of(record.submission).spent.tool_calls += 1


def _settled(report: UsageReport, record: r.FiberSettled) -> None:
    known = report.submissions.get(record.fiber)
    if known is not None:
        known.outcome, known.answered_by = record.outcome, record.answered_by


_HANDLERS: dict[type[r.Record], Callable[[UsageReport, Any], None]] = {
    r.FiberAccepted: _accepted,
    r.FiberSettled: _settled,
    h.TurnStarted: _turn,
    h.MessageCompleted: _completed,
    h.ToolCalled: _called,
}
