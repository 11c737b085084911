"""`cairn approvals`: every call, and every fiber of an object, that waits for somebody's answer; and giving it.

Laws. What is listed is what the logs say: the mark by which instances are found only saves a look at the others. An answer is
durable when the verb returns, whether or not anything serves the agent; who opens the store is trusted to say who they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cairn.errors import NotFound, UsageError
from cairn.framework.cli.log import address
from cairn.framework.cli.output import Exit, columns, duration, json_line, json_text, line, redacted, shortened
from cairn.framework.cli.store import existing, opened

if TYPE_CHECKING:
    from cairn.harness.answers import AnswerReceipt
    from cairn.harness.handle import ConversationHandle
    from cairn.runtime.client import Client
    from cairn.runtime.state import RuntimeState
    from cairn.runtime.storage.store import Address, InstanceRow, Store

HEADING = ("INSTANCE", "CALL", "WHAT", "LEFT", "ARGUMENTS")


@dataclass(frozen=True, slots=True)
class Request:
    """The command line."""

    store: str | None
    address: str | None
    approve: str | None
    reject: str | None
    answer: str | None
    output: str | None
    reason: str
    by: str | None
    limit: int
    after: int
    json: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of the listing."""

    row: InstanceRow
    call: str
    what: str
    kind: str
    arguments: Any
    digest: str
    asked_at: float
    expires_at: float | None
    reason: str = ""
    by: Sequence[str] = ()


def run(given: Request) -> int:
    """`cairn approvals [KIND/ID] [--approve CALL | --reject CALL [--reason …]]`."""
    path = existing(given.store)
    gives = given.approve or given.reject or given.answer
    if gives and given.address is None:
        raise UsageError("whose? write cairn approvals KIND/ID --approve CALL, as the listing shows them")

    async def work() -> int:
        async with opened(path) as store:
            if gives:
                return await _answer(store, given)
            return await _list(store, given)

    return asyncio.run(work())


# --- listing --------------------------------------------------------------------------------------------------------------


async def _list(store: Store, given: Request) -> int:
    rows, more = await _rows(store, given)
    found = [asked for row in rows for asked in await questions(store, row)]
    if given.json:
        json_line({"questions": [_as_json(each) for each in found], "next": more})
        return Exit.OK
    if not found and more is None:
        line("nothing waits for an answer")
    from cairn.clock import SystemClock

    now = SystemClock().wall()
    lines = [(str(each.row.address), each.call, each.what, _left(each, now), _shown(each)) for each in found]
    for each in columns(lines, HEADING) if lines else ():
        line(each)
    if more is not None:
        line(f"there are more: cairn approvals --after {more}")
    return Exit.OK


async def _rows(store: Store, given: Request) -> tuple[list[InstanceRow], int | None]:
    """The instances that may ask something, and where the next page begins."""
    from cairn.runtime.instance import QUESTIONS

    if given.address is not None:
        row = await store.find(address(given.address))
        if row is None:
            raise NotFound(f"there is no instance '{given.address}' in this store; cairn ls shows what there is")
        return [row], None
    rows = await store.instances(after=given.after, limit=given.limit + 1, alarm=QUESTIONS)
    return rows[: given.limit], rows[given.limit - 1].n if len(rows) > given.limit else None


async def questions(store: Store, row: InstanceRow) -> list[Asked]:
    """What one instance asks, the oldest first; nothing when it was marked and asks nothing any more."""
    from cairn.framework.cli.overview import fold

    state = await fold(store, row.n)
    if _is_conversation(state):
        return [
            Asked(
                row,
                each.call,
                each.tool,
                each.kind,
                each.arguments,
                each.digest,
                each.asked_at,
                each.expires_at,
                each.reason,
                each.by,
            )
            for each in await handle(store, row.address).questions()
        ]
    return list(_of_object(row, state))


def _is_conversation(state: RuntimeState) -> bool:
    """Whether it is an agent's: objects have no submissions, and what was ever sent to an agent is one."""
    return any(fiber.method == "submission" for fiber in (*state.fibers.values(), *state.settled.values()))


def _of_object(row: InstanceRow, state: RuntimeState) -> Iterator[Asked]:
    """What the fibers of an object ask: a workflow's step, say. A name that several ask under has its fiber before it."""
    from cairn.runtime.answering import questions_of

    asked = questions_of(state)
    names = [each.name for each in asked]
    for each in asked:
        call = each.name if names.count(each.name) == 1 else f"{each.fiber}/{each.name}"
        kind = "approval" if each.is_approval else "question"
        yield Asked(
            row, call, each.method, kind, each.value(), each.digest, each.asked_at, each.expires_at, by=each.by
        )  # fmt: skip


def handle(store: Store, where: Address) -> ConversationHandle:
    """The conversation, without its agent's code: what it asks, and answering that, is in the log."""
    from cairn.clock import SystemClock
    from cairn.harness.agent import Agent
    from cairn.harness.application import AgentApplication
    from cairn.harness.handle import ConversationHandle
    from cairn.harness.loop import Services
    from cairn.ids import SystemIds

    def resolve(model: Any) -> Any:
        raise AssertionError("nothing is run here")

    application = AgentApplication(Agent(where.kind), Services(resolve=resolve), "")
    return ConversationHandle(application, store, SystemClock(), SystemIds(), where)


def _left(asked: Asked, now: float) -> str:
    if asked.expires_at is None:
        return "-"
    return duration(asked.expires_at - now) if asked.expires_at > now else "over"


def _shown(asked: Asked) -> str:
    said = shortened(json_text(redacted(asked.arguments)))
    return f"{said} ({shortened(asked.reason)})" if asked.reason else said


def _as_json(asked: Asked) -> dict[str, Any]:
    where = asked.row.address
    return {
        "kind": where.kind,
        "id": where.id,
        "tenant": where.tenant,
        "call": asked.call,
        "tool": asked.what,
        "asks": asked.kind,
        "arguments": asked.arguments,
        "digest": asked.digest,
        "asked_at": asked.asked_at,
        "expires_at": asked.expires_at,
        "reason": asked.reason,
        "by": list(asked.by),
    }


# --- answering ------------------------------------------------------------------------------------------------------------


async def _answer(store: Store, given: Request) -> int:
    assert given.address is not None
    where, call = address(given.address), given.approve or given.reject or given.answer or ""
    row = await store.find(where)
    if row is None:
        raise NotFound(f"there is no instance '{given.address}' in this store; cairn ls shows what there is")
    by = given.by if given.by is not None else _user()
    from cairn.framework.cli.overview import fold

    state = await fold(store, row.n)
    give = _answer_call if _is_conversation(state) else _answer_fiber
    duplicate, offset = await give(store, row, state, call, given, by)
    verdict = "approved" if given.approve else "rejected" if given.reject else "answered"
    if given.json:
        json_line({"call": call, "answer": verdict, "by": by, "duplicate": duplicate, "offset": offset})
        return Exit.OK
    line(f"{call} was {verdict} before by the same word" if duplicate else f"{verdict} {call}, as {by}")
    if not duplicate and not await _is_served(store, where.kind):
        line(f"no worker serves '{where.kind}' now: it goes on as soon as one does")
    return Exit.OK


async def _answer_call(
    store: Store, row: InstanceRow, state: RuntimeState, call: str, given: Request, by: str
) -> tuple[bool, int]:
    """Of a conversation: a call of the model's, or of its program's."""
    conversation = handle(store, row.address)
    digest = await conversation.digest(call) or await _digest_of_past(store, row, call)
    receipt: AnswerReceipt
    if given.approve:
        receipt = await conversation.approve(call, digest=digest, by=by)
    elif given.reject:
        receipt = await conversation.reject(call, given.reason, digest=digest, by=by)
    else:
        receipt = await conversation.answer(call, _output(given), digest=digest, by=by)
    return receipt.duplicate, receipt.offset


async def _answer_fiber(
    store: Store, row: InstanceRow, state: RuntimeState, call: str, given: Request, by: str
) -> tuple[bool, int]:
    """Of an object. A call is a question's name, or `<fiber>/<name>`; fibers' ids have no slash where they are made here."""
    from cairn.runtime import answering

    open = answering.questions_of(state)
    asked = next((each for each in open if call in (each.name, f"{each.fiber}/{each.name}")), None)
    fiber, name = (asked.fiber, asked.name) if asked is not None else (None, call)
    if asked is not None and call == name and sum(each.name == name for each in open) > 1:
        fiber = None  # several ask that: said by whoever would answer
    digest = asked.digest if asked is not None else await _digest_of_past(store, row, name)
    if given.answer:
        answer = _output(given)
    else:
        answer = answering.Approval("approve") if given.approve else answering.Approval("reject", given.reason)
    receipt = await answering.give(_client(store, row), row.address.id, fiber, name, digest, answer, by=by)
    return receipt.duplicate, receipt.ordinal


async def _digest_of_past(store: Store, row: InstanceRow, name: str) -> str:
    """Of what was asked under that name and is asked no more: the same word again is no mistake."""
    from cairn.runtime import answering

    found = await answering.past(_client(store, row), row.address.id, name)
    return found[-1].asked.digest if found else ""


def _client(store: Store, row: InstanceRow) -> Client:
    """For an object whose class is not here: nothing of it is run."""
    from cairn.clock import SystemClock
    from cairn.ids import SystemIds
    from cairn.runtime.client import Client
    from cairn.runtime.object import DurableObject, ObjectApplication

    @dataclass
    class Nothing:
        pass

    members = {"kind": row.address.kind, "__orig_bases__": (DurableObject[Nothing],)}
    application = ObjectApplication(type("Unknown", (DurableObject,), members))
    return Client(store, application, clock=SystemClock(), ids=SystemIds(), tenant=row.address.tenant)


def _output(given: Request) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(given.output or "null")
    except msgspec.DecodeError as error:
        raise UsageError(f"--output is no JSON ({error}); a text is written in quotes: --output '\"yes\"'") from None


async def _is_served(store: Store, kind: str) -> bool:
    from cairn.framework.cli.overview import Standing, workers
    from cairn.runtime.owners import beside

    return any(kind in worker.kinds and how is Standing.ALIVE for worker, how in await workers(store, beside(store)))


def _user() -> str:
    """Who is at this terminal."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"
