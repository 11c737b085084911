"""What has to hold of whatever a client observed, however it was interrupted."""

from __future__ import annotations

from typing import Any

#: What the long scenes of the agents say.
LONG = " ".join(f"w{number}" for number in range(80))

#: The chunks there are; clients refuse others. (`stream-checkpoint` they keep to themselves.)
CHUNKS = frozenset(
    (
        "conversation-reset",
        "message-appended",
        "message-started",
        "message-delta",
        "tool-input",
        "message-completed",
        "tool-output",
        "tool-output-error",
        "data-part",
        "message-metadata",
        "submission-settled",
    )
)


def of(results: dict[str, Any], name: str) -> Any:
    """What a scenario returned; what it threw fails the test."""
    result = results[name]
    assert "threw" not in result, f"{name}: {result['threw']}"
    return result


def sound(seen: dict[str, Any]) -> None:
    """The client's own fold is the server's history, no message was there twice, and no text was ever taken back."""
    history = seen["history"]
    assert seen["observed"]["messages"] == history["messages"]
    assert seen["observed"]["settlements"] == history["settlements"]
    assert seen["doubled"] == []
    assert seen["jumps"] == []
    assert len({each["submissionId"] for each in history["settlements"]}) == len(history["settlements"])


def once(events: list[dict[str, Any]]) -> None:
    """Each chunk was given once, in the order of the log, and is of a kind that clients know."""
    places = [(event["position"]["batch"], event["position"]["index"]) for event in events]
    assert places == sorted(set(places))
    assert {event["type"] for event in events} <= CHUNKS


def said(events: list[dict[str, Any]]) -> str:
    """All text of the deltas."""
    deltas = [event["delta"] for event in events if event["type"] == "message-delta" and event["kind"] == "text"]
    return "".join(deltas)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The types of the chunks, neighbours of one type as one: how text is cut into deltas is nobody's business."""
    found: list[str] = []
    for event in events:
        if not found or found[-1] != event["type"]:
            found.append(event["type"])
    return found


def answers(history: dict[str, Any]) -> list[dict[str, Any]]:
    return [message for message in history["messages"] if message["role"] == "assistant"]


def parts(history: dict[str, Any], type: str) -> list[dict[str, Any]]:
    """The parts of that type in all answers."""
    return [part for message in answers(history) for part in message["parts"] if part["type"] == type]


def settlement(history: dict[str, Any], submission: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [each for each in history["settlements"] if each["submissionId"] == submission]
    assert len(found) == 1
    return found[0]
