"""The OpenAI Responses protocol, from the server's side: reading a request, writing a stream."""

from __future__ import annotations

import itertools
import json
from typing import Any

from cairn.testing.providers.script import Call, Entry, Refuse, Reply, Say, Think, Tokens
from cairn.testing.providers.vendor import errors, sequence
from cairn.testing.providers.wire import Facts, arguments_of, flat, fragments


def facts(body: dict[str, Any]) -> Facts:
    """What a request says, in the vocabulary all protocols share."""
    entries: list[Entry] = []
    system = [body["instructions"]] if body.get("instructions") else []
    given = body.get("input", [])
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        kind = item.get("type", "message")
        if kind == "function_call":
            entries.append(Entry("assistant", calls=((item["call_id"], item["name"], _object(item["arguments"])),)))
        elif kind == "function_call_output":
            entries.append(Entry("tool", flat(item["output"]), call=item["call_id"]))
        elif kind == "message" and item["role"] in ("system", "developer"):
            system.append(flat(item["content"]))
        elif kind == "message":
            entries.append(Entry("assistant" if item["role"] == "assistant" else "user", flat(item["content"])))
    tools = tuple(tool["name"] for tool in body.get("tools", []) if tool.get("type") == "function")
    return Facts(body.get("model", ""), "\n".join(system), tools, tuple(entries))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def stream(reply: Reply, facts: Facts, number: int) -> list[bytes]:
    """The events of one reply."""
    events = sequence("openai_responses")
    counter = itertools.count()
    output: list[Any] = []
    made = events.events("start", seq=lambda: next(counter), response=_response(facts, number, "in_progress", []))
    for index, part in enumerate(reply.parts):
        made += _item(part, index, number, counter, output)
    length = reply.stop == "length"
    status = "incomplete" if length else "completed"
    response = _response(facts, number, status, output, usage=reply.usage)
    if length:
        response["incomplete_details"] = {"reason": "max_output_tokens"}
    elif reply.stop == "refusal":
        response["status"], response["incomplete_details"] = "incomplete", {"reason": "content_filter"}
    section = "end" if response["status"] == "completed" else "incomplete"
    return made + events.events(section, seq=lambda: next(counter), response=response)


def _item(
    part: Say | Think | Call | Refuse, index: int, number: int, counter: itertools.count[int], output: list[Any]
) -> list[bytes]:
    events = sequence("openai_responses")
    kind, prefix, chunks, more = _shape(part, index, number)
    item = f"{prefix}_{number:04}_{index}"
    common = {"seq": lambda: next(counter), "index": index, "item": item, **more}
    made = events.events(f"{kind}.open", **common)
    for text in chunks:
        made += events.events(f"{kind}.delta", text=text, **common)
    whole = "".join(chunks)
    done = events.data(f"{kind}.item", item=item, whole=whole, **more)
    output.append(done)
    return made + events.events(f"{kind}.close", whole=whole, done=done, **common)


def _shape(part: Say | Think | Call | Refuse, index: int, number: int) -> tuple[str, str, list[str], dict[str, Any]]:
    """The kind of item, the prefix of its id, its pieces, and the values only it has."""
    if isinstance(part, Call):
        call = part.id or f"call_{number:04}_{index}"
        return "call", "fc", fragments(arguments_of(part), part.fragments), {"call": call, "name": part.name}
    if isinstance(part, Think):
        return "thinking", "rs", list(part.chunks), {"signature": part.signature}
    if isinstance(part, Refuse):
        return "refusal", "msg", [part.text], {}
    return "text", "msg", list(part.chunks), {}


def _response(
    facts: Facts, number: int, status: str, output: list[Any], *, usage: Tokens | None = None, error: Any = None
) -> dict[str, Any]:
    events = sequence("openai_responses")
    counted = None
    if usage is not None:
        total = usage.input + usage.cache_read + usage.cache_write
        counted = events.data(
            "usage",
            input_all=total,
            cache_read=usage.cache_read,
            cache_write=usage.cache_write,
            output=usage.output,
            reasoning=usage.reasoning,
            total=total + usage.output,
        )
    response: dict[str, Any] = events.data(
        "response",
        id=f"resp_{number:04}",
        status=status,
        error=error,
        incomplete=None,
        model=facts.model,
        output=output,
        usage=counted,
    )
    return response


def error(kind: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and body of a documented error."""
    known = errors()["openai"][kind]
    body = {"message": known["message"], "type": known["type"], "param": None, "code": known["code"]}
    return known["status"], {"error": body}


def stream_error(kind: str) -> list[bytes]:
    """The same error inside a stream that had begun: the response fails."""
    known = errors()["openai"][kind]
    failure = {"code": known["code"] or known["type"], "message": known["message"]}
    response = _response(Facts("", "", (), ()), 0, "failed", [], error=failure)
    return sequence("openai_responses").events("failed", seq=99, response=response)
