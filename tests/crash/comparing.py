"""When is a conversation that survived crashes the conversation that had none? What may differ, exactly; all else may not.

Both logs are brought into one form, and the forms must be equal. The form leaves out what a crash is allowed to change:

1. claims and releases, epochs, attempts, times, usage and durations; ids are named by their first appearance;
2. how deltas were batched, how much of an aborted message was said, and where requests and the end of a submission that
   was aborted before it had a turn stand between the other records, and whether that one was started at all; a request that
   a client repeats is one;
3. the order of the records of different calls of one message (they are grouped by call), conflicts between their drafts,
   and the intent of a keyed step that is repeated;
4. a message that was closed by the crash and the turn that goes on after it are one turn: its text is what both said. The
   note that asks the model to continue is left out, after it was checked to be there exactly when text was kept, and so is
   what the model thinks about continuing;
5. how often a submission was parked for answers, and taken up again: what came while the process was down is one park less;
6. the outcome of a `never` call (or of one with a `never` step) that was running is unknown, and its state changes are not
   there. Where a scenario says so (`open_end`), everything after such an outcome may be different.

The order of what happened outside is judged by `check_world`, on the world's own list.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.crash.scenarios import Scenario
from tests.crash.wire import check_wire

from cairn.testing.play import Run
from cairn.testing.world import Event

Json = dict[str, Any]

#: Fields that say when, how long, by whom and how often; never what.
_CIRCUMSTANCES = frozenset(
    {
        "at",
        "epoch",
        "attempt",
        "usage",
        "duration_ms",
        "response_id",
        "until",
        "retry_at",
        "worker",
        "uid",
        "host",
        "signature",
        "conflicts",
    }
)

_ID = re.compile(r"\b(?:sub_ik|sub|rew|turn|msg|inst|inc|wrk)_[0-9A-Za-z]+")

_REQUESTS = frozenset({"abort.requested", "signal.sent", "cancel.requested", "answer.given", "destroy.requested"})

_ATTEMPTS = frozenset({"instance.claimed", "instance.released"})

_WAITS = frozenset({"fiber.waiting", "fiber.waited"})


@dataclass
class Turn:
    """A turn of the model as the form sees it: what it was told, what it said, how it ended, and its calls."""

    submission: str
    includes: list[str]
    notes: list[Json]
    said: list[list[str]] = field(default_factory=list)
    """(kind, text) of what is in the log of the open message."""
    content: list[Json] = field(default_factory=list)
    end: str = "open"
    is_kept: bool = False
    """The last record of this turn left text to be continued."""
    error: Json | None = None
    calls: dict[str, list[Json]] = field(default_factory=dict)

    def form(self) -> Json:
        """What is compared."""
        return {
            "type": "turn", "submission": self.submission, "includes": self.includes, "notes": self.notes,
            "content": merged(self.content), "end": self.end, "error": self.error,
            "calls": [self.calls[call] for call in self.calls],
        }  # fmt: skip


@dataclass
class Form:
    """A log, reduced to what must be equal."""

    requests: list[Json] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    """Turns, and the records between them, in order."""
    aside: dict[str, list[Json]] = field(default_factory=dict)
    """What became of fibers that have no part in any turn: they run beside the others."""


def form_of(records: list[Json]) -> Form:
    """The log's form. Asserts on the way what holds of every log by itself."""
    form, turn = Form(), Turn("", [], [])
    asked: set[str] = set()
    in_turns = {id for r in records if r["type"] == "turn.started" for id in (r["submission"], *r.get("includes", ()))}
    for record in records:
        tag = record["type"]
        if tag in _ATTEMPTS or tag.startswith("tool.pro") or tag in _WAITS:
            continue
        if tag == "fiber.parked" and "waits" in record:
            asked.add(record["fiber"])
            continue
        if tag == "fiber.started" and record["fiber"] in asked:
            asked.remove(record["fiber"])
            continue
        if tag in _REQUESTS or (tag == "fiber.accepted" and record["method"] == "submission"):
            form.requests += [] if _bare(record) in form.requests else [_bare(record)]
        elif tag == "turn.started":
            turn = _begin(form, turn, record)
        elif tag in _OF_TURN:
            _OF_TURN[tag](turn, record)
        elif (call := record.get("call") or record.get("scope")) in turn.calls:
            is_repeated = tag == "fiber.step.started" and record["repeat"] == "keyed" and _bare(record) in turn.calls[call]
            turn.calls[call] += [] if is_repeated else [_bare(record)]
        elif record.get("fiber", "").startswith("sub_") and record["fiber"] not in in_turns:
            form.aside.setdefault(record["fiber"], []).extend([] if tag == "fiber.started" else [_bare(record)])
        else:
            form.items.append(_bare(record))
    form.requests.sort(key=lambda request: json.dumps(request, sort_keys=True))
    return form


def _begin(form: Form, before: Turn, record: Json) -> Turn:
    notes = [_bare(note) for note in record.get("notes", ()) if note["kind"] != "continue"]
    is_asked_to_continue = len(notes) < len(record.get("notes", ()))
    goes_on = before.submission == record["submission"]
    assert is_asked_to_continue == (before.is_kept and goes_on), f"continued, or not, after '{before.end}': {record}"
    if before.end == "crash" and goes_on:
        before.end, before.said, before.is_kept = "open", [], False
        before.includes += record.get("includes", ())
        before.notes += notes
        return before
    turn = Turn(record["submission"], list(record.get("includes", ())), notes)
    form.items.append(turn)
    return turn


def _delta(turn: Turn, record: Json) -> None:
    if turn.said and turn.said[-1][0] == record["kind"]:
        turn.said[-1][1] += record["text"]
    else:
        turn.said.append([record["kind"], record["text"]])


def _completed(turn: Turn, record: Json) -> None:
    shown = [[block["type"], block["text"]] for block in merged(record["content"]) if block["type"] != "tool_call"]
    assert shown == turn.said, f"what was shown in deltas is not what the message says: {turn.said} and {shown} (S10)"
    is_continued = bool(turn.content)
    turn.content += [_bare(block) for block in record["content"] if not (is_continued and block["type"] == "thinking")]
    turn.end = record["stop"]
    turn.calls = {block["id"]: [] for block in record["content"] if block["type"] == "tool_call"}


def _interrupted(turn: Turn, record: Json) -> None:
    keep = record["keep"]
    has_text = any(kind == "text" and text.strip() for kind, text in turn.said)
    assert keep == has_text if record["reason"] == "crash" else has_text or not keep, f"of {turn.said}: {record}"
    turn.end, turn.is_kept = record["reason"], keep
    if keep or record["reason"] in ("abort", "timeout"):
        turn.content += [{"type": kind, "text": text} for kind, text in turn.said]


def _failed(turn: Turn, record: Json) -> None:
    turn.end = "failed"
    turn.error = {**record["error"], "is_final": "retry_at" not in record}


_OF_TURN = {
    "message.delta": _delta,
    "message.completed": _completed,
    "message.interrupted": _interrupted,
    "turn.failed": _failed,
}


def merged(content: list[Json]) -> list[Json]:
    """Neighbouring blocks of one kind as one, without empty ones."""
    made: list[Json] = []
    for block in content:
        if made and block["type"] in ("text", "thinking") and made[-1]["type"] == block["type"]:
            made[-1] = {**made[-1], "text": made[-1]["text"] + block["text"]}
        elif block.get("text") != "":
            made.append(dict(block))
    return made


def _bare(record: Json) -> Json:
    return {name: value for name, value in record.items() if name not in _CIRCUMSTANCES}


def named(value: Any) -> Any:
    """The same JSON with ids named by their first appearance."""
    names: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        prefix = match[0].rpartition("_")[0]
        return names.setdefault(match[0], f"{prefix}#{len(names)}")

    return json.loads(_ID.sub(name, json.dumps(value)))


# --- comparing --------------------------------------------------------------------------------------------------


def assert_equal(scenario: Scenario, expected: Run, run: Run) -> None:
    """The run is the expected one, but for what the head of this file allows."""
    want, got = _shown(form_of(expected.records)), _shown(form_of(run.records))
    _allow_unknown(want, got, unknown_by_right(run.records), scenario.open_end)
    _allow_shorter(want, got)
    want, got = named(want), named(got)
    assert (got["requests"], got["aside"]) == (want["requests"], want["aside"])
    for position, (one, other) in enumerate(zip(want["items"], got["items"], strict=False)):
        assert other == one, f"item {position} is\n  {other}\nand not\n  {one}"
    assert len(got["items"]) == len(want["items"]), got["items"][len(want["items"]) :] or want["items"][len(got["items"]) :]


def _allow_shorter(want: Json, got: Json) -> None:
    """An aborted message is what was said of it when the abort came: of two, one begins with the other."""
    for one, other in zip(want["items"], got["items"], strict=False):
        if one.get("end") == other.get("end") == "abort":
            texts = sorted("".join(block["text"] for block in turn.pop("content")) for turn in (one, other))
            assert texts[1].startswith(texts[0])


def _shown(form: Form) -> Json:
    items = [item.form() if isinstance(item, Turn) else item for item in form.items]
    return {"requests": form.requests, "items": items, "aside": form.aside}


def unknown_by_right(records: list[Json]) -> set[str]:
    """Calls that may be unknown: recorded as called, by a process that is gone, and not to be repeated."""
    called: dict[str, Json] = {}
    steps: set[str] = set()
    found: set[str] = set()
    epoch = 0
    for record in records:
        if record["type"] == "instance.claimed":
            epoch = record["epoch"]
        elif record["type"] == "tool.called":
            called[record["call"]] = record
        elif record["type"] == "fiber.step.started" and record["repeat"] == "never":
            steps.add(record["scope"])
        elif record["type"] == "tool.outcome" and record["outcome"] == "unknown":
            intent = called[record["call"]]
            is_never = intent["repeat"] == "never" or record["call"] in steps
            assert is_never and intent["epoch"] < epoch, f"unknown without a reason (S9): {record}"
            found.add(record["call"])
    return found


def _allow_unknown(want: Json, got: Json, unknown: set[str], open_end: bool) -> None:
    """Take calls with an unknown outcome, and with an open end what follows them, out of the comparison."""
    for position, (one, other) in enumerate(zip(want["items"], got["items"], strict=False)):
        lost = {r["call"] for call in other.get("calls", ()) for r in call if r.get("outcome") == "unknown"}
        assert lost <= unknown
        for turn in (one, other) if lost else ():
            turn["calls"] = [call for call in turn["calls"] if not any(r.get("call") in lost for r in call)]
        if lost and open_end:
            del want["items"][position + 1 :], got["items"][position + 1 :]
            want["requests"] = got["requests"] = []
            return


# --- what must hold of every run, crashes or not ------------------------------------------------------------------


def check_run(scenario: Scenario, run: Run) -> None:
    """Everything that must hold of one run by itself: the checker, what readers see, the world, the settlements."""
    assert run.violations() == [], "\n".join(map(str, run.violations()))
    for log in run.logs:
        check_wire(log)
    unknown = unknown_by_right(run.records)
    check_world(scenario, run, unknown)
    check_settlements(scenario, run, bool(unknown))


def check_settlements(scenario: Scenario, run: Run, has_unknown: bool) -> None:
    """Every submission has one outcome, in admission order (S1, S7, S11), and it is the scenario's; so is the state."""
    accepted = [r["fiber"] for r in run.records if r["type"] == "fiber.accepted"]
    outcomes = {r["fiber"]: r for r in run.records if r["type"] == "fiber.settled"}
    assert sum(r["type"] == "fiber.settled" for r in run.records) == len(accepted) == len(outcomes)
    replies = tuple(_reply(outcomes[id]) for id in accepted if id.startswith("sub_"))
    assert replies == scenario.replies or (scenario.open_end and has_unknown), replies
    state = {name: value for r in run.records if r["type"] == "state.changed" for name, value in r["changes"].items()}
    assert state == scenario.state or has_unknown, state


def _reply(outcome: Json) -> str:
    return str(outcome["result"]["text"] if outcome["outcome"] == "completed" else outcome["error"]["message"])


def check_world(scenario: Scenario, run: Run, unknown: set[str]) -> None:
    """S8, S9: effects follow their intent, are not repeated unless declared, and finished work is finished once."""
    called: set[str] = set()
    done: set[str] = set()
    finished = 0
    for event in run.world.events:
        if event.kind == "commit":
            called |= {r["call"] for r in event.records if r["type"] == "tool.called"}
            done |= {r["call"] for r in event.records if r["type"] == "tool.outcome"}
            finished += event.tags.count("message.completed")
            if "conversation.rewound" in event.tags:
                # Scenarios rewind to the beginning: what was before is nothing the model is shown, and its ids come again.
                called, done, finished = set(), set(), 0
        elif event.kind == "request":
            assert int(event.name) == finished, f"asked for response {event.name} when {finished} were durable"
        elif event.kind == "effect" and event.call.startswith("call_"):
            assert event.call in called, f"{event} before its intent was durable (S8)"
            assert event.call not in done, f"{event} after its outcome was durable (S9)"
    _check_counts(scenario, run, unknown)


def _check_counts(scenario: Scenario, run: Run, unknown: set[str]) -> None:
    effects: dict[tuple[str, str], list[Event]] = {}
    for event in run.world.effects():
        effects.setdefault((event.name, event.call), []).append(event)
    for (name, call), events in effects.items():
        assert len(events) == 1 or name in scenario.repeats, f"{name} of {call} happened {len(events)} times (S9)"
        assert len({event.key for event in events}) == 1, f"{name} was repeated under another key: {events} (S9)"
    # At most one for a call whose outcome is unknown; exactly one, or one of its repeats, for each that has an outcome.
    distinct = Counter(name for name, _ in effects)
    for name, count in scenario.effects.items():
        if name not in scenario.repeats and not unknown:
            assert distinct[name] == count, f"{name} happened {distinct[name]} times, not {count}"
        assert sum(len(events) for (other, _), events in effects.items() if other == name) >= count - len(unknown)
