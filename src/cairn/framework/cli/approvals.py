"""`cairn approvals`: every call, and every fiber, that waits for somebody's answer; and giving it.

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
    if (given.approve or given.reject) and given.address is None:
        raise UsageError("which conversation? write cairn approvals KIND/ID --approve CALL, as the listing shows them")

    async def work() -> int:
        async with opened(path) as store:
            if given.approve or given.reject:
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
    found = list(_of_fibers(row, state))
    if any(fiber.method == "submission" and fiber.waits for fiber in state.unsettled()):
        for each in await handle(store, row.address).questions():
            found.append(
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
            )
    return sorted(found, key=lambda each: each.asked_at)


def _of_fibers(row: InstanceRow, state: RuntimeState) -> Iterator[Asked]:
    """What fibers ask that are no submissions: a workflow's step, say."""
    import msgspec

    for fiber in state.unsettled():
        for wait in fiber.waits.values():
            if wait.on == "answer" and fiber.method != "submission":
                asked = msgspec.json.decode(wait.request)
                yield Asked(
                    row, f"{fiber.id}/{wait.name}", fiber.method, "question", asked, wait.digest, wait.since, wait.until,
                    by=wait.by,
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
    conversation, call = handle(store, address(given.address)), given.approve or given.reject or ""
    digest = await conversation.digest(call) or ""
    by = given.by if given.by is not None else _user()
    receipt: AnswerReceipt
    if given.approve:
        receipt = await conversation.approve(call, digest=digest, by=by)
    else:
        receipt = await conversation.reject(call, given.reason, digest=digest, by=by)
    verdict = "approved" if given.approve else "rejected"
    if given.json:
        json_line({"call": call, "answer": verdict, "by": by, "duplicate": receipt.duplicate, "offset": receipt.offset})
        return Exit.OK
    line(f"{call} was {verdict} before by the same word" if receipt.duplicate else f"{verdict} {call}, as {by}")
    if not receipt.duplicate and not await _is_served(store, conversation.address.kind):
        line(f"no worker serves '{conversation.address.kind}' now: it goes on as soon as one does")
    return Exit.OK


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
