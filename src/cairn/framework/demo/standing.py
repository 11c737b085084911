"""How far the log of one conversation has come: what is finished, what is open, and what was never found out.

Laws. Pure: a fold of records, independent of the harness's own, so that the demo's claims rest on the log alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cairn.harness import records as h
from cairn.harness.messages import Usage
from cairn.harness.sandbox.protocol import ProcessInfo
from cairn.runtime import records as r


@dataclass(slots=True)
class CallStanding:
    """One call that was made."""

    id: str
    name: str
    arguments: dict[str, Any]
    repeat: str
    outcome: str | None = None
    process: ProcessInfo | None = None


@dataclass(slots=True)
class Standing:
    """The fold. `apply` takes the next batch in."""

    appends: int = 0
    facts: int = 0
    """Appends that held more than deltas: the synced ones."""
    answers: int = 0
    """Finished responses of the model."""
    is_asked: bool = False
    """A request was begun and its response is not finished."""
    said: int = 0
    """Characters of that unfinished response."""
    calls: dict[str, CallStanding] = field(default_factory=dict)
    kept: int = 0
    """Characters of interrupted responses that stayed."""
    dropped: int = 0
    unknown: list[str] = field(default_factory=list)
    settlements: list[str] = field(default_factory=list)
    """Outcomes, one per settlement."""
    claims: list[float] = field(default_factory=list)
    """When each worker took the conversation, wall clock."""
    usage: Usage = field(default_factory=Usage)
    text: str = ""
    """The words of the last finished response, with what it continued."""
    _begun: str = ""

    def apply(self, records: Sequence[r.Record]) -> None:
        """Take one batch in."""
        self.appends += 1
        self.facts += not all(isinstance(record, h.MessageDelta | h.ToolProgress | h.ToolProcess) for record in records)
        for record in records:
            handler = _HANDLERS.get(type(record))
            if handler is not None:
                handler(self, record)

    @property
    def finished(self) -> list[CallStanding]:
        """Calls whose outcome is recorded."""
        return [call for call in self.calls.values() if call.outcome is not None]

    @property
    def open(self) -> list[CallStanding]:
        """Calls that were made and whose outcome is not recorded."""
        return [call for call in self.calls.values() if call.outcome is None]

    @property
    def is_settled(self) -> bool:
        return bool(self.settlements)

    def _turn_started(self, record: h.TurnStarted) -> None:
        self.is_asked, self.said = True, 0

    def _delta(self, record: h.MessageDelta) -> None:
        self.said += len(record.text)
        self._begun += record.text

    def _completed(self, record: h.MessageCompleted) -> None:
        self.is_asked, self.said = False, 0
        self.answers += 1
        self.text, self._begun = self._begun, ""
        mine, its = self.usage, record.usage
        costs = [each.cost for each in (mine, its) if each.cost is not None]
        self.usage = Usage(
            input=mine.input + its.input,
            output=mine.output + its.output,
            cache_read=mine.cache_read + its.cache_read,
            cache_write=mine.cache_write + its.cache_write,
            cost=sum(costs) if costs else None,
        )

    def _interrupted(self, record: h.MessageInterrupted) -> None:
        if record.keep:
            self.kept += self.said
        else:
            self.dropped += self.said
            self._begun = ""
        self.is_asked, self.said = False, 0

    def _failed(self, record: h.TurnFailed) -> None:
        self.is_asked, self.said = False, 0

    def _called(self, record: h.ToolCalled) -> None:
        arguments = msgspec.json.decode(record.arguments)
        self.calls[record.call] = CallStanding(record.call, record.name, arguments, record.repeat)

    def _process(self, record: h.ToolProcess) -> None:
        if record.call in self.calls:
            self.calls[record.call].process = record.process

    def _outcome(self, record: h.ToolOutcome) -> None:
        call = self.calls.setdefault(record.call, CallStanding(record.call, record.name, {}, "never"))
        call.outcome = record.outcome
        if record.outcome == "unknown":
            self.unknown.append(record.call)

    def _claimed(self, record: r.InstanceClaimed) -> None:
        self.claims.append(record.at)

    def _settled(self, record: r.FiberSettled) -> None:
        self.settlements.append(record.outcome)


_HANDLERS: dict[type[r.Record], Any] = {
    h.TurnStarted: Standing._turn_started,
    h.MessageDelta: Standing._delta,
    h.MessageCompleted: Standing._completed,
    h.MessageInterrupted: Standing._interrupted,
    h.TurnFailed: Standing._failed,
    h.ToolCalled: Standing._called,
    h.ToolProcess: Standing._process,
    h.ToolOutcome: Standing._outcome,
    r.InstanceClaimed: Standing._claimed,
    r.FiberSettled: Standing._settled,
}
