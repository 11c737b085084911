"""The OpenAI Chat Completions protocol, from the server's side: reading a request, writing a stream."""

from __future__ import annotations

import json
from typing import Any

from cairn.testing.providers.script import Call, Entry, Refuse, Reply, Think
from cairn.testing.providers.vendor import errors, sequence
from cairn.testing.providers.wire import Facts, arguments_of, flat, fragments


def facts(body: dict[str, Any]) -> Facts:
    """What a request says, in the vocabulary all protocols share."""
    entries: list[Entry] = []
    system: list[str] = []
    for message in body.get("messages", []):
        role, text = message["role"], flat(message.get("content") or "")
        if role in ("system", "developer"):
            system.append(text)
        elif role == "tool":
            entries.append(Entry("tool", text, call=message["tool_call_id"]))
        elif role == "assistant":
            calls = tuple(_call(call) for call in message.get("tool_calls") or ())
            entries.append(Entry("assistant", text, calls))
        else:
            entries.append(Entry("user", text))
    tools = tuple(tool["function"]["name"] for tool in body.get("tools", []))
    return Facts(body.get("model", ""), "\n".join(system), tools, tuple(entries))


def _call(call: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    try:
        arguments = json.loads(call["function"]["arguments"] or "{}")
    except ValueError:
        arguments = {}
    return call["id"], call["function"]["name"], arguments if isinstance(arguments, dict) else {}


def stream(reply: Reply, facts: Facts, number: int) -> list[bytes]:
    """The events of one reply."""
    events = sequence("openai_chat")
    common = {"id": f"chatcmpl-{number:04}", "model": facts.model}
    made = events.events("start", **common)
    tool = 0
    for part in reply.parts:
        if isinstance(part, Call):
            call = part.id or f"call_{number:04}_{tool}"
            made += events.events("call.open", tool=tool, call=call, name=part.name, **common)
            for text in fragments(arguments_of(part), part.fragments):
                made += events.events("call.delta", tool=tool, text=text, **common)
            tool += 1
        else:
            section = "thinking" if isinstance(part, Think) else "refusal" if isinstance(part, Refuse) else "text"
            for text in (part.text,) if isinstance(part, Refuse) else part.chunks:
                made += events.events(f"{section}.delta", text=text, **common)
    made += events.events("end", stop=_stop(reply), **common)
    usage = reply.usage
    total = usage.input + usage.cache_read + usage.cache_write
    made += events.events(
        "usage",
        input_all=total,
        cache_read=usage.cache_read,
        output=usage.output,
        reasoning=usage.reasoning,
        total=total + usage.output,
        **common,
    )
    return made + events.events("done")


def _stop(reply: Reply) -> str:
    if reply.stop == "length":
        return "length"
    if reply.stop == "refusal":
        return "content_filter"
    return "tool_calls" if any(isinstance(part, Call) for part in reply.parts) else "stop"


def error(kind: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and body of a documented error."""
    known = errors()["openai"][kind]
    body = {"message": known["message"], "type": known["type"], "param": None, "code": known["code"]}
    return known["status"], {"error": body}


def stream_error(kind: str) -> list[bytes]:
    """The same error inside a stream that had begun."""
    known = errors()["openai"][kind]
    return sequence("openai_chat").events(
        "error", type=known["type"], code=known["code"] or known["type"], message=known["message"]
    )
