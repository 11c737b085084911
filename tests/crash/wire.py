"""What people's clients were shown of a log, held against the log itself, whatever died while it was written.

    check_wire(log)      after each of its batches: the client's fold, the server's, and the records say the same

Method: the chunks of each row are folded twice, by the client's rules (`tests/http/reducer.py`) and by the server's snapshot,
and compared after every row. What the words and the calls have to be is read off the records, by yet another way: text is what
the finished responses hold, and what was said of those that have no end. Nothing that was shown is ever taken back (S10).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.http.reducer import Client

from cairn.framework.http.snapshot import Snapshot
from cairn.testing.history import Log

Json = dict[str, Any]


def check_wire(log: Log) -> Client:
    """Raises AssertionError for the first row after which somebody would see something else. Returns the client in the end."""
    client, snapshot = Client(), Snapshot()
    conversation = f"conv_{log.instance.uid.removeprefix('inst_')}"
    records: list[Json] = []
    for number, row in enumerate(log.rows):
        chunks = placed(row.batch.chunks, conversation, row.ordinal)
        client.feed(chunks)
        snapshot.feed(row.batch.chunks, row.ordinal)
        records += json.loads(row.batch.records)
        where = f"after batch {row.ordinal}"
        assert client.dropped == [], f"{where}: clients lost {client.dropped}"
        if number % 2:  # a snapshot that was looked at folds on like one that was not
            assert as_seen(snapshot) == client.state, where
        if number % 5 == 4:
            snapshot = Snapshot.load(snapshot.dump())
            assert snapshot.ordinal == row.ordinal
            assert as_seen(snapshot) == client.state, f"{where}, saved and loaded"
    assert as_seen(snapshot) == client.state
    check_words(client, records)
    check_calls(client, records)
    check_settlements(client, records)
    check_once(log, records)
    return client


def placed(chunks: bytes, conversation: str, ordinal: int) -> list[Json]:
    """A row's chunks as a reader gets them; a birth with the empty snapshot."""
    made: list[Json] = []
    for index, line in enumerate(chunks.split(b"\n") if chunks else ()):
        chunk = json.loads(line)
        if chunk["type"] == "conversation-reset":
            assert ordinal == 0, "of a rewind a reader gets the snapshot, which this check has not got"
            chunk["snapshot"] = {"v": 1, "conversationId": conversation, "offset": "", "messages": [], "settlements": []}
        made.append({**chunk, "conversationId": conversation, "position": {"batch": ordinal, "index": index}})
    return made


def as_seen(snapshot: Snapshot) -> Json:
    """The server's fold, as a client would read it."""
    return {"messages": json.loads(snapshot.messages()), "settlements": json.loads(snapshot.settlements())}


def check_words(client: Client, records: list[Json]) -> None:
    """What each answer says is what the log says of it: nothing lost, nothing doubled (S3, S10)."""
    for answer, said in words_of(records).items():
        (message,) = [message for message in client.messages if message["id"] == answer]
        shown: defaultdict[str, str] = defaultdict(str)
        for part in message["parts"]:
            if part["type"] in ("text", "reasoning"):
                shown[part["type"]] += part["text"]
        for kind in ("text", "reasoning"):
            assert shown[kind] == said[kind], f"{answer} says {shown[kind]!r}, and the log {said[kind]!r}"


def words_of(records: list[Json]) -> dict[str, dict[str, str]]:
    """The words of each answer, by the id its messages are shown under, from the records alone."""
    answers: dict[str, str] = {}
    said: dict[str, dict[str, str]] = {}
    open_words: dict[str, str] = {}
    for record in records:
        if record["type"] == "turn.started":
            answer = answers.setdefault(record["submission"], record["message"])
            total = said.setdefault(answer, {"text": "", "reasoning": ""})
            open_words = {"text": "", "reasoning": ""}
        elif record["type"] == "message.delta":
            open_words[_kind(record["kind"])] += record["text"]
            total[_kind(record["kind"])] += record["text"]
        elif record["type"] == "message.completed":
            for kind in ("text", "reasoning"):
                whole = "".join(block["text"] for block in record["content"] if _kind(block["type"]) == kind)
                assert whole.startswith(open_words[kind]), f"said {open_words[kind]!r} and then recorded {whole!r} (S10)"
                total[kind] += whole[len(open_words[kind]) :]
    return said


def _kind(kind: str) -> str:
    return {"thinking": "reasoning"}.get(kind, kind)


def check_calls(client: Client, records: list[Json]) -> None:
    """Every call of every finished response is shown, once, with its outcome."""
    parts = [part for message in client.messages for part in message["parts"] if part["type"] == "dynamic-tool"]
    shown = {part["toolCallId"]: part["state"] for part in parts}
    assert len(shown) == len(parts)
    asked = [
        block["id"]
        for record in records
        if record["type"] == "message.completed"
        for block in record["content"]
        if block["type"] == "tool_call"
    ]
    assert sorted(shown) == sorted(asked)
    outcomes = {record["call"]: record["outcome"] for record in records if record["type"] == "tool.outcome"}
    for call, state in shown.items():
        expected = {None: "input-available", "ok": "output-available"}.get(outcomes.get(call), "output-error")
        assert state == expected, f"{call} is {state}, and its outcome is {outcomes.get(call)}"


def check_settlements(client: Client, records: list[Json]) -> None:
    """Each submission is shown as a message, and each outcome as one settlement; what is settled says no more."""
    accepted = [record["fiber"] for record in records if record["type"] == "fiber.accepted" and _is_submission(record)]
    outcomes = {r["fiber"]: r["outcome"] for r in records if r["type"] == "fiber.settled" and _is_submission(r)}
    assert {s["submissionId"]: s["outcome"] for s in client.settlements} == outcomes
    sent = [m["submissionId"] for m in client.messages if m["purpose"] in ("user", "dispatch")]
    assert sorted(sent) == sorted(accepted)
    ids = [message["id"] for message in client.messages]
    assert len(ids) == len(set(ids))
    if set(accepted) == set(outcomes):
        open_parts = [
            part for m in client.messages for part in m["parts"] if part.get("state") in ("streaming", "input-available")
        ]
        assert open_parts == [], "everything is settled, and something still moves"
    for settlement in client.settlements:
        marks = [m for m in client.messages if _is_mark_of(m, settlement["submissionId"])]
        expected = [] if settlement["outcome"] == "completed" else [{"outcome": settlement["outcome"]}]
        assert [mark["settlement"] for mark in marks] == expected
        answered_by = settlement.get("answeredBySubmissionId")
        if answered_by is not None:
            assert any(m["role"] == "assistant" and m["submissionId"] == answered_by for m in client.messages)


def _is_mark_of(message: Json, submission: str) -> bool:
    return "settlement" in message and message["signal"]["attributes"]["submissionId"] == submission


def _is_submission(record: Json) -> bool:
    return bool(record["fiber"].startswith("sub_"))


def check_once(log: Log, records: list[Json]) -> None:
    """One settlement a submission on the stream, not only in the end; positions rise (the fold would hide a second one)."""
    settled = [chunk["submissionId"] for chunk in stored(log) if chunk["type"] == "submission-settled"]
    assert len(settled) == len(set(settled))
    expected = [r["fiber"] for r in records if r["type"] == "fiber.settled" and _is_submission(r)]
    assert sorted(settled) == sorted(expected)


def stored(log: Log) -> Iterator[Json]:
    """Every chunk of the log."""
    for row in log.rows:
        yield from map(json.loads, row.batch.chunks.split(b"\n") if row.batch.chunks else ())
