"""What durable objects ask, workflows among them, and answering it: the same routes and shapes as for conversations.

Laws. Whoever answers is whoever the credential says: no body names a person. A 200 is sent after the answer is durable; a
refused one leaves nothing behind. The object is not called and need not run: what its fibers ask is in its log. Nobody makes an
object by asking for its questions.
"""

from __future__ import annotations

from typing import Any

from cairn.framework.http import offsets, problems
from cairn.framework.http.objects import Target, target_of
from cairn.framework.http.request import Request
from cairn.framework.http.service import Service
from cairn.harness.times import iso
from cairn.runtime import answering
from cairn.runtime.answering import Question
from cairn.runtime.client import Client
from cairn.runtime.storage.store import Address

#: The fields of an answer beside `call`, `digest` and `answer`: whose question it is, where several fibers ask the same.
FIBER = "fiber"


async def asked(service: Service, request: Request) -> list[dict[str, Any]]:
    """What the object asks. Raises Problem 404."""
    address = await _address(service, request)
    return [as_json(each) for each in await client_of(service, address).questions(address.id)]


def as_json(asked: Question) -> dict[str, Any]:
    """A question for programs: as one of a conversation, with the fiber in the place of the submission. A call of a program
    has a function and arguments; any other question is shown as it is."""
    tool, input, reason = shown(asked)
    found: dict[str, Any] = {
        "call": asked.name,
        "tool": tool,
        "kind": "approval" if asked.is_approval else "question",
        "input": input,
        "digest": asked.digest,
        "fiber": asked.fiber,
        "askedAt": iso(asked.asked_at),
        "expiresAt": None if asked.expires_at is None else iso(asked.expires_at),
    }
    if reason:
        found["reason"] = reason
    if asked.by:
        found["by"] = list(asked.by)
    return found


def shown(asked: Question) -> tuple[str, Any, str]:
    """The function that would be called, its arguments, and why it asks; of another question its name."""
    value = asked.value()
    if asked.is_approval and isinstance(value, dict) and value.keys() == {"function", "arguments", "reason"}:
        return str(value["function"]), value["arguments"], str(value["reason"])
    return asked.name, value, ""


async def answer(service: Service, request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """The answer is durable and was the one. *Raises* as `answering.give`, and Problem 404."""
    address = await _address(service, request)
    call, fiber = given["call"], given.get(FIBER)
    said = _said(given)
    client = client_of(service, address)
    receipt = await answering.give(client, address.id, fiber, call, given["digest"], said, by=request.identity.name)
    told: dict[str, Any] = {"call": call, "offset": offsets.text(receipt.ordinal)}
    if receipt.duplicate:
        told["deduplicated"] = True
    return told


def _said(given: dict[str, Any]) -> Any:
    """What the fiber gets."""
    match given["answer"]:
        case "approve":
            return answering.Approval("approve")
        case "reject":
            return answering.Approval("reject", given.get("reason", ""))
        case "output":
            return given["output"]
    raise problems.invalid_request(
        "An object's question takes 'approve', 'reject' or 'output': nothing of it is done elsewhere."
    )


async def _address(service: Service, request: Request) -> Address:
    target: Target = await target_of(service, request)
    if await service.store.find(target.address) is None:
        raise problems.stream_not_found(target.kind, target.name)
    return target.address


def client_of(service: Service, address: Address) -> Client:
    app = service.app
    return Client(service.store, app.classes[address.kind], clock=app.clock, ids=app.ids, tenant=address.tenant)
