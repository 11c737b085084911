"""What the fibers of an instance ask, and the one answer each question gets, from any process that can open the store.

Laws. Nothing here owns an instance: an answer is a request, and whether it was the one is read from the log. It is refused
with nothing written unless it fits: the name, the digest of what was asked, who answers, the form, the time. What is said to an
answer that comes too late is read from the log too, so it is the same long after the fiber has ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cairn.errors import Conflict, Denied, NotFound, UsageError
from cairn.runtime import log, waits
from cairn.runtime import records as r
from cairn.runtime.encoding import as_json
from cairn.runtime.fiber_state import FiberState, WaitState

if TYPE_CHECKING:
    from cairn.runtime.client import Client
    from cairn.runtime.state import RuntimeState

#: What a wait says (`event`) whose answer is to be `Approval`.
APPROVAL = "approval"

#: Characters of a rejection's reason: a page.
REASON_CHARACTERS_MAX = 4_000


class Approval(msgspec.Struct, frozen=True):
    """A person's answer to what asks for leave, as JSON: `{"answer": "approve"}`, or `reject` and a reason."""

    answer: Literal["approve", "reject"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What a fiber asks. Whoever answers names its digest, which says that they read this and nothing else."""

    fiber: str
    name: str
    digest: str
    raw: msgspec.Raw
    asked_at: float
    expires_at: float | None
    by: tuple[str, ...] = ()
    """Who may answer. Empty: whoever may send."""
    is_approval: bool = False
    """It asks for leave: its answer is `Approval`. Otherwise any JSON."""
    method: str = ""
    """What the fiber runs."""

    def value(self, type: Any = Any) -> Any:
        return msgspec.json.decode(self.raw, type=type)


@dataclass(frozen=True, slots=True)
class Given:
    """Proof that an answer is durable and was the one."""

    fiber: str
    name: str
    ordinal: int
    duplicate: bool = False
    """The same answer had been given before: this one changed nothing."""


def questions_of(runtime: RuntimeState) -> list[Question]:
    """What is asked and not answered, the oldest first."""
    found = [question(fiber, wait) for fiber in runtime.unsettled() for wait in fiber.waits.values() if wait.on == "answer"]
    return sorted(found, key=lambda each: each.asked_at)


def question(fiber: FiberState, wait: WaitState) -> Question:
    return Question(
        fiber.id,
        wait.name,
        wait.digest,
        wait.request,
        wait.since,
        wait.until,
        wait.by,
        wait.event == APPROVAL,
        fiber.method,
    )


async def give(client: Client, id: str, fiber: str | None, name: str, digest: str, answer: Any, *, by: str = "") -> Given:
    """The question has this answer. `fiber` may be left out where only one asks that.

    *Durable*. *Idempotent*: the same answer again is the first one's. *Raises* NotFound: nothing of that name was ever asked;
    Conflict: it asks something else, waits no more, or was answered otherwise; Denied: `by` may not answer it; UsageError:
    that is no answer to it. Then nothing has changed.
    """
    raw = as_json(f"the answer to '{name}'", answer)
    where = f"{client.address(id)}: "
    fold = await client.fold(id)
    open = [each for each in questions_of(fold.runtime) if each.name == name and fiber in (None, each.fiber)]
    asked = _meant(where, open, name, digest)
    if asked is None:
        return await _too_late(client, id, fiber, name, digest, raw, by)
    now = client.clock.wall()
    wait = fold.runtime.fibers[asked.fiber].waits[name]
    check(where, asked, wait, digest, raw, now, by)
    record = r.AnswerGiven(call=name, digest=digest, at=now, answer=raw, by=by, fiber=asked.fiber)
    ordinal = await client.request(id, record)
    state = (await client.fold(id, ordinal)).runtime.fibers.get(asked.fiber)
    came = state.came.get(name) if state is not None else None
    if came is not None and came.ordinal == ordinal:
        return Given(asked.fiber, name, ordinal)
    return await _too_late(client, id, asked.fiber, name, digest, raw, by)


def _meant(where: str, open: list[Question], name: str, digest: str) -> Question | None:
    """The one of several fibers' that the digest says. Raises Conflict when it says more than one."""
    if len(open) <= 1:
        return open[0] if open else None
    same = [each for each in open if each.digest == digest]
    if len(same) == 1:
        return same[0]
    fibers = ", ".join(each.fiber for each in open)
    raise Conflict(f"{where}'{name}' is asked by several fibers ({fibers}); say which one is answered")


def check(where: str, asked: Question, wait: WaitState, digest: str, raw: msgspec.Raw, now: float, by: str) -> None:
    """Raises what is wrong with this answer to what still waits."""
    if asked.by and by not in asked.by:
        raise Denied(f"{where}'{asked.name}': {by or 'nobody in particular'} may not answer it; {', '.join(asked.by)} may")
    if (unfit := waits.unfit(wait, digest, now, by)) is not None:
        raise Conflict(f"{where}fiber '{asked.fiber}': {unfit}")
    try:
        given = msgspec.json.decode(raw, type=Approval)
    except msgspec.MsgspecError:
        if asked.is_approval:
            raise UsageError(f"{where}'{asked.name}' waits for approve or reject, not for {bytes(raw)[:60]!r}") from None
    else:
        if not asked.is_approval:
            text = "its answer is a value: who asked did not ask for leave, and may take any word for a yes"
            raise UsageError(f"{where}'{asked.name}' can be neither approved nor rejected; {text}")
        if len(given.reason) > REASON_CHARACTERS_MAX:
            raise UsageError(f"a reason has at most {REASON_CHARACTERS_MAX:,} characters, not {len(given.reason):,}")


# --- what the log says of questions that wait no more --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Past:
    """A question that was asked, and the answer that counted; None: it was never answered."""

    asked: r.FiberWaiting
    answer: r.AnswerGiven | None
    ordinal: int


_Told = r.FiberWaiting | r.FiberWaited | r.AnswerGiven | r.FiberSettled

_decoder: msgspec.json.Decoder[list[_Told]] = msgspec.json.Decoder(list[_Told])
_parts = msgspec.json.Decoder(list[msgspec.Raw])
_SETTLED = b'"fiber.settled"'
_TAGS = (b'"fiber.waiting"', b'"fiber.waited"', b'"answer.given"', _SETTLED)
#: Bytes at the beginning of a record that its tag is in.
_TAG_BYTES = 40


async def past(client: Client, id: str, name: str, fiber: str | None = None) -> list[Past]:
    """Every question of that name, as the log has it; the oldest first. Empty when there is no such instance."""
    row = await client.store.find(client.address(id))
    found: dict[str, Past] = {}
    over: set[str] = set()
    if row is None:
        return []
    async for ordinal, record in _told(client, row.n, name):
        of = record.fiber or ""
        known = found.get(of)
        is_open = known is not None and known.answer is None and of not in over
        if isinstance(record, r.FiberSettled | r.FiberWaited):
            over.add(of)
        elif fiber not in (None, of):
            continue
        elif isinstance(record, r.FiberWaiting):
            if record.on == "answer" and (known is None or known.answer is None):
                found[of] = Past(record, None, -1)
        elif is_open and known is not None and _counts(known, record):
            found[of] = Past(known.asked, record, ordinal)
    return list(found.values())


async def _told(client: Client, n: int, name: str) -> AsyncIterator[tuple[int, _Told]]:
    """What the log says of waits of that name, and of the end of fibers. Most batches are not even decoded."""
    quoted = msgspec.json.encode(name)
    async for row in log.read(client.store, n):
        records = row.batch.records
        if quoted not in records and _SETTLED not in records:
            continue
        parts = [bytes(part) for part in _parts.decode(records)]
        told = [part for part in parts if any(tag in part[:_TAG_BYTES] for tag in _TAGS)]
        for record in _decoder.decode(b"[" + b",".join(told) + b"]"):
            said = record.call if isinstance(record, r.AnswerGiven) else getattr(record, "name", name)
            if said == name:
                yield row.ordinal, record


def _counts(known: Past, given: r.AnswerGiven) -> bool:
    asked = known.asked
    wait = WaitState(asked.name, asked.on, asked.until, asked.event, asked.digest, by=asked.by)
    return waits.unfit(wait, given.digest, given.at, given.by) is None


async def _too_late(client: Client, id: str, fiber: str | None, name: str, digest: str, raw: msgspec.Raw, by: str) -> Given:
    """What is said to an answer to something that waits for none."""
    found = await past(client, id, name, fiber)
    return judged(f"{client.address(id)}: ", found, name, digest, raw, by)


def judged(where: str, found: Iterable[Past], name: str, digest: str, raw: msgspec.Raw, by: str) -> Given:
    """The first answer's receipt, if this is the same one. Raises what is wrong with it otherwise."""
    every = list(found)
    if not every:
        raise NotFound(f"{where}nothing called '{name}' is asked; its questions say what is")
    one = next((each for each in reversed(every) if each.asked.digest == digest), every[-1])
    if one.asked.by and by not in one.asked.by:
        raise Denied(f"{where}'{name}': {by or 'nobody in particular'} may not answer it; {', '.join(one.asked.by)} may")
    if one.asked.digest != digest:
        raise Conflict(f"{where}'{name}': the answer is to another question than was asked")
    if one.answer is None:
        raise Conflict(f"{where}'{name}' waits no more: its time is over, or its fiber has ended")
    if not _same(one.answer.answer, raw):
        raise Conflict(f"{where}'{name}' was answered otherwise by {one.answer.by or 'somebody'}, first; that stands")
    return Given(one.asked.fiber, name, one.ordinal, duplicate=True)


def _same(first: msgspec.Raw, second: msgspec.Raw) -> bool:
    """Whether they say the same; a reason that is empty is none."""
    return _plain(first) == _plain(second)


def _plain(raw: msgspec.Raw) -> bytes:
    value = msgspec.json.decode(raw)
    if isinstance(value, dict) and value.get("reason") == "":
        del value["reason"]
    return msgspec.json.encode(value, order="sorted")
