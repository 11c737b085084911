"""A conversation from outside: send, follow, history, reply, abort, fork — from any process that can open the store.

Laws. Nothing here owns an instance: it appends requests and reads the log. What it returns is durable. A receipt is a few
words of text; whoever holds them, in any process, can ask for the reply.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.clock import Clock
from cairn.errors import FiberFailed, NotFound, StoreBusy, UsageError
from cairn.harness import records as h
from cairn.harness import rewinding
from cairn.harness.answers import AnswerReceipt as AnswerReceipt
from cairn.harness.answers import Answers, PendingCall, digest_asked, pending
from cairn.harness.application import AgentApplication
from cairn.harness.asking import Approve, Failure, Output, Reject
from cairn.harness.conversation import Conversation
from cairn.harness.entries import Entry
from cairn.harness.events import Event, EventStream, SubmissionAccepted, SubmissionSettled
from cairn.harness.fork import first_batch
from cairn.harness.images import Images
from cairn.harness.merging import unseen
from cairn.harness.messages import Image
from cairn.harness.naming import ID_CHARACTERS_MAX as ID_CHARACTERS_MAX
from cairn.harness.naming import KEY_CHARACTERS_MAX as KEY_CHARACTERS_MAX
from cairn.harness.naming import admission_of, check_delivery, digest_of_message, keyed_id
from cairn.harness.naming import check_id as check_id
from cairn.harness.naming import check_key as check_key
from cairn.harness.projection import message_id
from cairn.harness.rewinding import find
from cairn.harness.settling import Reply
from cairn.harness.usage import DELTAS, UsageReport
from cairn.ids import Ids
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.client import Client, settlement
from cairn.runtime.instance import Fold
from cairn.runtime.state import FiberState
from cairn.runtime.storage.store import Address, Batch, Creation, InstanceRow, Store, UidCondition

#: How often a fork is tried while deltas are merged under it. A place is merged once, so the second try succeeds.
FORK_TRIES = 3


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a message is durable (S1)."""

    conversation: ConversationHandle
    submission: str
    offset: int
    """The head before it was admitted: following from here shows it and everything after."""
    uid: str = ""
    """The life of the conversation it was admitted to."""
    deduplicated: bool = False
    """Its key was known: nothing was admitted, this is the first one's receipt."""

    async def reply(self) -> Reply:
        """What the agent answered, once the submission has settled; in any process, at any time.

        *Raises* FiberFailed when it failed or was aborted; its message says why.
        """
        return await self.conversation.reply(self.submission, after=self.offset)

    async def follow(self, *, caught_up: Callable[[], None] = lambda: None) -> AsyncGenerator[Event, None]:
        """Every event from this message on, until it has settled. `caught_up` is called as by `ConversationHandle.follow`."""
        # The first receipt of a key that was known says nothing of where its message stands.
        begun = not self.deduplicated
        async for event in self.conversation.follow(self.offset, caught_up=caught_up):
            begun = begun or (isinstance(event, SubmissionAccepted) and event.submission == self.submission)
            if begun:
                yield event
            if isinstance(event, SubmissionSettled) and event.submission == self.submission:
                return


class ConversationHandle:
    """One conversation of one agent."""

    def __init__(self, application: AgentApplication, store: Store, clock: Clock, ids: Ids, address: Address) -> None:
        self._application = application
        self._store = store
        self._clock = clock
        self._ids = ids
        self.address = address
        self._client = Client(store, application, clock=clock, ids=ids, tenant=address.tenant)
        self._decoder = r.decoder(application.records)
        self._answers = Answers(self._client, address.id, self._loaded)

    @property
    def id(self) -> str:
        return self.address.id

    async def send(
        self,
        message: str | h.Delivery,
        *,
        key: str | None = None,
        attachments: Sequence[Image] = (),
        data: Mapping[str, bytes] | None = None,
        uid: str | UidCondition = UidCondition.ANY,
        trace: Mapping[str, str] | None = None,
    ) -> Receipt:
        """The message is admitted: it will be answered, whatever crashes (S1).

        *Durable* when it returns. *Idempotent* by `key`: the same key with the same message is the first receipt again, with
        another message it raises Conflict (S6). `data` (a JSON text a field) is the state a *new* conversation begins with; an
        existing one ignores it. `uid` is a condition, as an ETag is: the life of the conversation that is meant, or ABSENT.
        *Raises* Conflict or NotFound when that does not hold, UsageError, StoreError.
        """
        if isinstance(message, str) and not message.strip() and not attachments:
            raise UsageError("an empty message was sent; it needs words, or an attachment")
        delivery = message if isinstance(message, h.Delivery) else h.Delivery(body=message)
        if attachments:
            delivery = msgspec.structs.replace(delivery, attachments=(*delivery.attachments, *attachments))
        check_delivery(delivery)
        check_key(key)
        first: Mapping[str, bytes] = {}
        if data and not await self.exists():
            first = self._application.agent.first_state(data)
        images = Images(self._store, self.address.tenant)
        stored = await images.store(delivery.attachments)
        delivery = msgspec.structs.replace(delivery, attachments=stored)
        body = msgspec.json.encode(delivery)
        accepted = r.FiberAccepted(
            fiber=self._ids.new("sub") if key is None else keyed_id(self.address, key, await self._forked_uid()),
            method=h.SUBMISSION,
            at=self._clock.wall(),
            arguments=msgspec.Raw(body),
            key=key,
            trace=dict(trace or {}),
        )
        changes = {name: msgspec.Raw(value) for name, value in first.items()}
        admitted = await self._client.admit(
            self.id,
            accepted,
            digest_of_message(body, data or {}),
            uid=uid,
            first=(r.StateChanged(changes=changes),) if changes else (),
            blobs=tuple(image.blob for image in delivery.attachments if image.blob is not None),
        )
        offset = log.BEGINNING if admitted.duplicate else admitted.offset
        return Receipt(self, admitted.fiber, offset, admitted.uid, admitted.duplicate)

    async def exists(self) -> bool:
        return await self._store.find(self.address) is not None

    async def knows(self, key: str) -> bool:
        """Whether a message was admitted under this key: sending it again admits nothing."""
        row = await self._store.find(self.address)
        if row is None:
            return False
        fold = await self._fold(row)
        return fold.runtime.fiber(keyed_id(self.address, key, await self._forked_uid())) is not None

    async def follow(
        self, after: int = log.BEGINNING, *, caught_up: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Event, None]:
        """Every event after the offset, for ever: past ones at once, new ones as they become durable, whoever runs the agent.

        `caught_up` is called once, when everything that was on the log at the call has been given.
        *Raises* NotFound when nothing was ever sent to this conversation.
        """
        row = await log.locate(self._store, self.address)
        stream = EventStream() if after == log.BEGINNING else EventStream((await self._fold(row, after)).state.control)
        is_behind = after < row.head
        if not is_behind:
            caught_up()
        async for entry in log.tail(self._store, row.n, after):
            records = log.decode(self._decoder, entry, str(self.address))
            if entry.merged_from is not None and entry.merged_from <= after:
                records = unseen(records, after - entry.merged_from + 1)
            after = entry.ordinal
            for event in stream.feed(records, entry.ordinal):
                yield event
            if is_behind and entry.ordinal >= row.head:
                is_behind = False
                caught_up()

    async def history(self) -> list[Entry]:
        """The conversation as people see it, at the head. Empty when nothing was ever sent to it."""
        row = await self._store.find(self.address)
        if row is None:
            return []
        fold = await self._fold(row)
        history: list[Entry] = fold.state.history()
        return history

    async def unsettled(self) -> list[FiberState]:
        """Submissions without an outcome, in admission order."""
        row = await self._store.find(self.address)
        if row is None:
            return []
        fold = await self._fold(row)
        return [fiber for fiber in fold.runtime.unsettled() if fiber.method == h.SUBMISSION]

    async def reply(self, submission: str, *, after: int = log.BEGINNING) -> Reply:
        """What a submission was answered, once it has settled. `after`, an offset before its admission, saves a look at what
        came earlier. *Raises* FiberFailed, NotFound."""
        row = await log.locate(self._store, self.address)
        if after == log.BEGINNING:
            fold = await self._fold(row)
            fiber = fold.runtime.fiber(submission)
            if fiber is None:
                raise NotFound(f"conversation {self.address} has no submission '{submission}'")
            if fiber.outcome is not None:
                return _reply(submission, fiber.outcome, fiber.result, fiber.error)
            after = fold.head
        settled = await settlement(self._store, row.n, submission, after=after)
        return _reply(submission, settled.outcome, settled.result, settled.error)

    async def abort(self, submission: str | None = None, *, reason: str = "") -> bool:
        """Everything unsettled (or one submission) is asked to stop; True when there was anything.

        *Durable* when it returns; the settlement follows on the log, within `limits.abort_seconds` when a worker runs it. A
        message that was not answered yet settles as aborted by itself: it is never consumed unseen.
        """
        pending = await self.unsettled()
        if not any(submission in (None, fiber.id) for fiber in pending):
            return False
        await self._client.abort(self.id, submission, reason=reason)
        return True

    # --- what it asks

    async def questions(self) -> list[PendingCall]:
        """The calls that wait for an answer, the oldest first. Empty when nothing was ever sent."""
        fold = await self._loaded(None)
        return [] if fold is None else pending(fold)

    async def digest(self, call: str) -> str | None:
        """What an answer to this call has to name, also after it was answered; for those who show a call and not its digest.
        None when it never asked."""
        fold = await self._loaded(None)
        return None if fold is None else digest_asked(fold, call)

    async def approve(self, call: str, *, digest: str, by: str = "") -> AnswerReceipt:
        """The call may run, with exactly the arguments whose digest this is; `by` is who says so.

        *Durable* when it returns; the call runs when a worker takes the conversation up. *Idempotent*. *Raises* NotFound: no
        such call; Conflict: other arguments, too late, or answered otherwise; Denied: not by `by`; UsageError: it is not an
        approval that it waits for. Then nothing has changed.
        """
        return await self._answers.give(call, Approve(), digest=digest, by=by)

    async def reject(self, call: str, reason: str = "", *, digest: str, by: str = "") -> AnswerReceipt:
        """The call is not to be made: the model is told so, with the reason, and goes on. Otherwise as `approve`."""
        return await self._answers.give(call, Reject(reason=reason), digest=digest, by=by)

    async def answer(
        self, call: str, output: Any = None, *, error: str | None = None, digest: str, by: str = ""
    ) -> AnswerReceipt:
        """The outcome of a call that a client carried out: its output (JSON), or in words why it failed. Otherwise as
        `approve`; an output that does not fit what the tool says is a UsageError."""
        if error is not None:
            return await self._answers.give(call, Failure(error=error), digest=digest, by=by)
        try:
            raw = msgspec.Raw(msgspec.json.encode(output))
        except (TypeError, ValueError, RecursionError) as wrong:
            raise UsageError(f"the output of call '{call}' is no JSON: {wrong}") from None
        return await self._answers.give(call, Output(output=raw), digest=digest, by=by)

    # --- its past

    async def rewind(self, to: str | None = None, *, key: str | None = None) -> int:
        """The conversation goes on as if nothing had been said after the message `to` (None: nothing at all). What runs or is
        queued is aborted first. The offset of the request.

        *Durable* when it returns; clients are told by a `conversation-reset` when a worker has done it. *Idempotent* by `key`.
        The log keeps everything; the agent's state and files are not turned back. *Raises* NotFound: no such message.
        """
        fold = await self._loaded(None)
        if fold is None:
            raise NotFound(f"conversation {self.address} does not exist, so there is nothing to rewind")
        fiber, where = self._ids.new(rewinding.PREFIX), rewinding.To(message=to)
        if to is not None and (key is None or key not in fold.runtime.keys):
            find(fold.state, to)
        back = rewinding.request(fiber, where, self._clock.wall(), key)
        return await self._client.request(self.id, *back, admission=admission_of(key, fiber, back[1].arguments))

    async def regenerate(self, message: str | None = None, *, key: str | None = None) -> Receipt:
        """The message (by default the last one sent) is answered again: the conversation is rewound to before it, and it is
        sent once more. `message` may be the answer's id too. *Durable*, in one request. *Idempotent* by `key`.
        *Raises* NotFound: no such message."""
        fold, row = await self._loaded(None), await self._store.find(self.address)
        if fold is None or row is None:
            raise NotFound(f"conversation {self.address} does not exist, so there is nothing to answer again")
        if key is not None and (known := fold.runtime.keys.get(key)) is not None:
            return Receipt(self, known, log.BEGINNING, row.uid, True)
        sent = _sent(fold.state, message)
        fiber = self._ids.new("sub") if key is None else keyed_id(self.address, key, await self._forked_uid())
        at, arguments = self._clock.wall(), msgspec.Raw(msgspec.json.encode(sent.delivery))
        back = rewinding.request(self._ids.new(rewinding.PREFIX), rewinding.To(message=sent.id, before=True), at)
        again = r.FiberAccepted(fiber=fiber, method=h.SUBMISSION, at=at, arguments=arguments, key=key)
        ordinal = await self._client.request(self.id, *back, again, admission=admission_of(key, fiber, arguments))
        return Receipt(self, fiber, ordinal - 1, row.uid)

    async def fork(self, at: int | None = None, id: str | None = None) -> ConversationHandle:
        """A new conversation `id` that has all of this one up to the offset `at` (by default the head), and goes its own way.

        *Durable* when it returns. Transcript, state and settlements are shared, not copied; keys, schedules and work are not
        taken over: what was unsettled at `at` is settled as aborted in the fork, and goes on here. Among deltas that were
        merged it parts behind them (`InstanceRow.fork_offset` says where it did). *Raises* NotFound: nothing was ever sent
        here, or `at` is beyond the head; Conflict: `id` exists; UsageError: an id that can be none.
        """
        row = await log.locate(self._store, self.address)
        at = row.head if at is None else at
        if not 0 <= at <= row.head:
            raise NotFound(f"conversation {self.address} has no offset {at}; a fork parts between 0 and its head, {row.head}")
        name = check_id(id) if id is not None else f"{self.id[: ID_CHARACTERS_MAX - 64]}-{self._ids.new('fork')}"
        target = Address(self.address.kind, name, self.address.tenant)
        for _ in range(FORK_TRIES):
            at = await self._store.boundary(row.n, at)
            forked = await self._store.fork(row.n, at, target, await self._fork_creation(row, at, target))
            if forked.offset == at:
                return ConversationHandle(self._application, self._store, self._clock, self._ids, target)
            # Deltas were merged since it was asked where to part: what was said of their end was not said of this place.
            await self._store.delete(forked.n)
        raise StoreBusy(f"conversation {self.address} changes below offset {at} while it is forked there; try again")

    async def _fork_creation(self, row: InstanceRow, at: int, target: Address) -> Creation:
        """The fork's own first batch, for the place it parts at."""
        fold = await self._fold(row, at)
        uid, now = self._ids.new("inst"), self._clock.wall()
        forked = r.InstanceForked(kind=target.kind, id=target.id, uid=uid, source=row.uid, offset=at, at=now)
        records = first_batch(forked, fold.state.control, fold.runtime)
        application = self._application
        batch = Batch(r.encode(records), application.project(fold.state, records), application.projection)
        return Creation(uid, self._ids.new("inc"), batch, now)

    async def delete(self) -> bool:
        """There is no such conversation any more: nothing of it can be read or sent to, its id is free. False: there was none.

        *Durable* when it returns. Whoever works on it, in any process, is fenced and stops; followers get NotFound. Forks
        keep what they share with it. *Idempotent*.
        """
        row = await self._store.find(self.address)
        if row is None or not await self._store.delete(row.n):
            return False
        await self._application.forget(row.uid)
        return True

    async def usage(self) -> UsageReport:
        """What was spent up to the head; in a fork, since it was forked. Empty when nothing was ever sent.

        Reads the whole log: some tens of milliseconds a thousand turns.
        """
        report = UsageReport()
        row = await self._store.find(self.address)
        if row is not None:
            after = row.fork_offset if row.fork_offset is not None else log.BEGINNING
            async for entry in log.read(self._store, row.n, after):
                is_delta = entry.batch.records.startswith(DELTAS)
                report.feed(() if is_delta else log.decode(self._decoder, entry, str(self.address)), entry.ordinal)
        return report

    async def _forked_uid(self) -> str:
        """What tells keys of a fork from those of its sources, whose submissions its log has too."""
        row = await self._store.find(self.address)
        return row.uid if row is not None and row.forked_from is not None else ""

    async def _loaded(self, at: int | None) -> Fold | None:
        row = await self._store.find(self.address)
        return None if row is None else await self._fold(row, at)

    async def _fold(self, row: InstanceRow, at: int | None = None) -> Fold:
        fold = Fold(self._application, row.n, self.address)
        await fold.load(self._store, at)
        return fold


def _sent(conversation: Conversation, message: str | None) -> Entry:
    """The message that was sent under that id, or that an answer of that id answers; the last one. Raises NotFound."""
    if message is None:
        found = next((entry for entry in reversed(conversation.entries) if entry.kind == "user"), None)
    else:
        entry = find(conversation, message)
        found = entry if entry.kind == "user" else find(conversation, message_id(entry.submission))
    if found is None:
        raise NotFound("nothing was sent in this conversation, so there is nothing to answer again")
    return found


def _reply(submission: str, outcome: r.Outcome, result: msgspec.Raw, error: r.ErrorInfo | None) -> Reply:
    if outcome == "completed":
        return msgspec.json.decode(result, type=Reply)
    why = error.message if error is not None else "no reason was recorded"
    raise FiberFailed(f"submission '{submission}' {outcome}: {why}", outcome=outcome)
