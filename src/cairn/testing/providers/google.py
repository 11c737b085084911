"""The Gemini streamGenerateContent protocol, from the server's side: reading a request, writing a stream."""

from __future__ import annotations

import json
from typing import Any

from cairn.testing.providers.script import Call, Entry, Refuse, Reply, Think
from cairn.testing.providers.vendor import errors, sequence
from cairn.testing.providers.wire import Facts, arguments_of


def facts(body: dict[str, Any]) -> Facts:
    """What a request says, in the vocabulary all protocols share. Calls have no ids here: the name stands in."""
    entries: list[Entry] = []
    for content in body.get("contents", []):
        parts = content.get("parts", [])
        text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
        for answer in answers:
            said = json.dumps(answer.get("response", {}))
            entries.append(Entry("tool", said, call=answer.get("id") or answer["name"]))
        if content.get("role") == "model":
            made = tuple((call.get("id") or call["name"], call["name"], call.get("args") or {}) for call in calls)
            entries.append(Entry("assistant", text, made))
        elif text:
            entries.append(Entry("user", text))
    declared = [name["name"] for tool in body.get("tools", []) for name in tool.get("functionDeclarations", [])]
    instruction = body.get("systemInstruction") or {}
    system = "\n".join(part.get("text", "") for part in instruction.get("parts", []))
    return Facts(body.get("model", ""), system, tuple(declared), tuple(entries))


def stream(reply: Reply, facts: Facts, number: int) -> list[bytes]:
    """The events of one reply."""
    events = sequence("google_generate")
    usage = reply.usage
    total = usage.input + usage.cache_read
    common = {"id": f"resp-{number:04}", "model": facts.model, "input_all": total}
    made: list[bytes] = []
    for part in reply.parts:
        if isinstance(part, Call):
            arguments = json.loads(arguments_of(part))
            made += events.events("call", name=part.name, args=arguments, signature="c2ln", **common)
        elif isinstance(part, Refuse):
            continue
        else:
            section = "thinking.delta" if isinstance(part, Think) else "text.delta"
            for text in part.chunks:
                made += events.events(section, text=text, **common)
    refused = reply.stop == "refusal" or any(isinstance(part, Refuse) for part in reply.parts)
    stop = "MAX_TOKENS" if reply.stop == "length" else "SAFETY" if refused else "STOP"
    return made + events.events(
        "end",
        stop=stop,
        visible=usage.output - usage.reasoning,
        cache_read=usage.cache_read,
        reasoning=usage.reasoning,
        total=total + usage.output,
        **common,
    )


def error(kind: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and body of a documented error."""
    known = errors()["google"][kind]
    return known["status"], {"error": {"code": known["status"], "message": known["message"], "status": known["type"]}}


def stream_error(kind: str) -> list[bytes]:
    """The same error inside a stream that had begun."""
    known = errors()["google"][kind]
    return sequence("google_generate").events("error", status=known["status"], type=known["type"], message=known["message"])
