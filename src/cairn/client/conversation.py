"""One conversation of a server: send, follow, history, reply, abort, fork, delete.

Laws. The same names mean the same as in `App.conversation`. A receipt is a few words of text; whoever holds them, in any
process, can ask for the reply.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.client.chunks import BEGINNING, Chunk
from cairn.client.connection import Connection, unreachable
from cairn.client.following import Follower, settlement_in, until_settled
from cairn.client.history import Attachment, History, Reply, check, decode
from cairn.client.questions import AnswerReceipt, PendingCall, Questions
from cairn.errors import NotFound, RemoteError, UsageError
from cairn.harness.messages import Image


class _Accepted(msgspec.Struct, rename="camel"):
    offset: str
    submission_id: str
    uid: str
    deduplicated: bool = False


class _Forked(msgspec.Struct):
    id: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a message is durable (S1)."""

    conversation: Conversation
    submission: str
    offset: str = BEGINNING
    """The head before it was admitted: following from here shows it and everything after."""
    uid: str = ""
    """The life of the conversation it was admitted to."""
    deduplicated: bool = False
    """Its key was known: nothing was admitted, this is the first one's receipt."""

    async def reply(self) -> Reply:
        """What the agent answered, once the submission has settled; in any process, at any time, over restarts of the server.

        *Raises* FiberFailed when it failed or was aborted; its message says why.
        """
        return await self.conversation.reply(self.submission, after=self.offset, uid=self.uid or None)

    async def follow(self, *, caught_up: Callable[[], None] = lambda: None) -> AsyncGenerator[Chunk, None]:
        """Every chunk from this message on, until it has settled. `caught_up` is called as by `Conversation.follow`."""
        # The first receipt of a key that was known says nothing of where its message stands.
        begun = not self.deduplicated
        conversation = self.conversation
        async with aclosing(conversation.follow(self.offset, uid=self.uid or None, caught_up=caught_up)) as chunks:
            async for chunk in chunks:
                begun = begun or chunk.submission == self.submission
                if begun:
                    yield chunk
                if settlement_in(chunk, self.submission) is not None:
                    return


class Conversation:
    """One conversation of one agent."""

    def __init__(self, connection: Connection, agent: str, id: str) -> None:
        self._connection = connection
        self.agent = agent
        self.id = id
        self.url = connection.address("agents", agent, id)

    def receipt(self, submission: str, *, offset: str = BEGINNING) -> Receipt:
        """A receipt made again from its words, wherever they were kept."""
        return Receipt(self, submission, offset)

    # --- writing

    async def send(
        self,
        message: str,
        *,
        key: str | None = None,
        attachments: Sequence[Image] = (),
        data: Mapping[str, Any] | None = None,
        uid: str | None = None,
        new: bool = False,
        signal: str | None = None,
        attributes: Mapping[str, str] | None = None,
        tag: str | None = None,
    ) -> Receipt:
        """The message is admitted: it will be answered, whatever crashes (S1).

        *Durable* when it returns. *Idempotent* by `key`: the same key with the same message is the first receipt again, with
        another message it raises Conflict (S6); and a message with a key is sent again when the answer got lost. Without one
        it is sent once: Unreachable then says whether it may have arrived. `data` is the state a *new* conversation begins
        with. `uid` is a condition, as an ETag is: the life of the conversation that is meant; `new` that there is none.
        `signal` makes it an event of that type, with `attributes`, instead of a person's words. *Raises* Conflict or NotFound
        when a condition does not hold, UsageError, Denied, Unreachable.
        """
        body = _message(message, attachments, signal, attributes, tag)
        if uid is not None and new:
            raise UsageError("new=True and uid=… contradict each other: what must not exist yet has no life; give one of them")
        if uid is not None or new:
            body["uid"] = uid
        if data is not None:
            body["initialData"] = dict(data)
        if key is not None:
            body["idempotencyKey"] = key
        answer = await self._connection.request("POST", self.url, json=body, is_repeatable=key is not None)
        accepted: _Accepted = answer.json(_Accepted)
        return Receipt(self, accepted.submission_id, accepted.offset, accepted.uid, accepted.deduplicated)

    async def abort(self) -> bool:
        """Everything unsettled is asked to stop; True when there was anything. The settlement follows on the log."""
        answer = await self._connection.request("POST", self._under("abort"))
        return bool(answer.json(dict[str, Any]).get("aborted"))

    # --- what it asks

    async def questions(self) -> list[PendingCall]:
        """The calls that wait for an answer, the oldest first. *Raises* NotFound when nothing was ever sent."""
        answer = await self._connection.request("GET", self._under("questions"))
        found: Questions = answer.json(Questions)
        return found.questions

    async def approve(self, call: str, *, digest: str) -> AnswerReceipt:
        """The call may run, with exactly the arguments whose digest this is; the server knows who says so by the token.

        *Durable* when it returns. *Idempotent*. *Raises* NotFound: no such call; Conflict: other arguments, too late, or
        answered otherwise; Denied: somebody else has to; UsageError: it is not an approval that it waits for.
        """
        return await self._answer({"call": call, "digest": digest, "answer": "approve"})

    async def reject(self, call: str, reason: str = "", *, digest: str) -> AnswerReceipt:
        """The call is not to be made: the model is told so, with the reason, and goes on. Otherwise as `approve`."""
        return await self._answer({"call": call, "digest": digest, "answer": "reject", "reason": reason})

    async def answer(self, call: str, output: Any = None, *, error: str | None = None, digest: str) -> AnswerReceipt:
        """The outcome of a call that was carried out here: its output (JSON), or in words why it failed. Otherwise as
        `approve`."""
        if error is not None:
            return await self._answer({"call": call, "digest": digest, "answer": "error", "error": error})
        return await self._answer({"call": call, "digest": digest, "answer": "output", "output": output})

    async def _answer(self, body: dict[str, Any]) -> AnswerReceipt:
        answer = await self._connection.request("POST", self._under("answers"), json=body, is_repeatable=True)
        receipt: AnswerReceipt = answer.json(AnswerReceipt)
        return receipt

    # --- its past

    async def rewind(self, to: str | None = None, *, key: str | None = None) -> str:
        """The conversation goes on as if nothing had been said after the message `to` (None: nothing at all). What runs or is
        queued is aborted first. The offset of the request: a `conversation-reset` follows it. *Durable*. *Idempotent* by `key`.
        *Raises* NotFound."""
        body = {"to": to, **({} if key is None else {"idempotencyKey": key})}
        answer = await self._connection.request("POST", self._under("rewind"), json=body, is_repeatable=key is not None)
        return str(answer.json(dict[str, Any])["offset"])

    async def regenerate(self, message: str | None = None, *, key: str | None = None) -> Receipt:
        """The message (by default the last one; an answer's id will do) is sent once more, and what came of it before is taken
        back. *Durable*. *Idempotent* by `key`. *Raises* NotFound."""
        body = {name: value for name, value in (("message", message), ("idempotencyKey", key)) if value is not None}
        answer = await self._connection.request("POST", self._under("regenerate"), json=body, is_repeatable=key is not None)
        accepted: _Accepted = answer.json(_Accepted)
        return Receipt(self, accepted.submission_id, accepted.offset, accepted.uid, accepted.deduplicated)

    async def fork(self, at: str | None = None, id: str | None = None) -> Conversation:
        """A new conversation `id` (by default, a name of the server's choice) that has all of this one up to the offset `at`
        (by default, the head), and goes its own way. *Durable* when it returns. *Raises* Conflict when there is one of that
        id, NotFound."""
        body = {name: value for name, value in (("offset", at), ("id", id)) if value is not None}
        answer = await self._connection.request("POST", self._under("fork"), json=body, is_repeatable=False)
        forked: _Forked = answer.json(_Forked)
        return Conversation(self._connection, self.agent, forked.id)

    async def delete(self) -> bool:
        """There is no such conversation any more; whoever works on it or follows it stops. False: there was none (any more).
        *Idempotent*."""
        try:
            await self._connection.request("DELETE", self.url)
        except NotFound:
            return False
        return True

    # --- reading

    async def exists(self) -> bool:
        """Whether anything was ever sent to it."""
        try:
            await self._connection.request("HEAD", self.url)
        except NotFound:
            return False
        return True

    async def history(self) -> History:
        """The conversation as it is now. *Raises* NotFound when nothing was ever sent to it."""
        answer = await self._connection.request("GET", self.url, query={"view": "history"})
        return decode(answer.body)

    async def follow(
        self,
        after: str = BEGINNING,
        *,
        incarnation: str | None = None,
        uid: str | None = None,
        caught_up: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Chunk, None]:
        """Every chunk after the offset, for ever: past ones at once, new ones as they become durable, over restarts of the
        server and breaks of the network, each once.

        `caught_up` is called once, when everything that was there has been given. `incarnation`, from a history, and `uid`,
        from a receipt, say which life of the conversation is meant. *Raises* NotFound when nothing was ever sent to it or it
        was deleted, Replaced when another conversation has taken its place, Denied. *Cancelled*: the connection is closed.
        """
        follower = Follower(self._connection, self.url, after, incarnation, uid)
        async with aclosing(follower.chunks(caught_up)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def reply(self, submission: str, *, after: str | None = None, uid: str | None = None) -> Reply:
        """What a submission was answered, once it has settled. `after`, an offset before its admission, saves a look at what
        came earlier; `uid` is the life of the conversation that is meant. *Raises* FiberFailed, NotFound."""
        if after is None or after == BEGINNING:
            history = await self.history()
            if history.settlement(submission) is not None:
                return history.reply(submission)
            if all(message.submission_id != submission for message in history.messages):
                raise NotFound(f"conversation {self.agent}/{self.id} has no submission '{submission}'")
            after = history.offset
        settled = await until_settled(self._connection, self.url, submission, after, uid)
        check(submission, settled["outcome"], settled.get("error"))
        return (await self.history()).reply(submission)

    async def usage(self) -> dict[str, Any]:
        """Tokens and cost, in all and by submission, as the server counts them."""
        found: dict[str, Any] = (await self._connection.request("GET", self._under("usage"))).json(dict[str, Any])
        return found

    async def export(self) -> AsyncGenerator[dict[str, Any], None]:
        """All of it, as it is stored: what it is, then every batch of the log in order, then `{"end": offset}`.

        *Raises* RemoteError when it is not whole: the conversation was deleted meanwhile, or the server stopped."""
        rest, last = b"", dict[str, Any]()
        async with self._connection.stream(self._under("export"), {}) as response:
            parts = response.aiter_bytes()
            while True:
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    break
                except Exception as error:
                    raise unreachable(error, self.url) from error
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    last = _line(line)
                    yield last
        if rest or "end" not in last:
            raise RemoteError(f"the export of {self.agent}/{self.id} is not whole; ask for it again", type="cut_off")

    async def attachment(self, id: str) -> Attachment:
        """An attachment's bytes. *Raises* NotFound."""
        answer = await self._connection.request("GET", self._under("attachments", id))
        return Attachment(answer.body, answer.headers.get("content-type", "application/octet-stream"))

    def _under(self, *segments: str) -> str:
        return self._connection.address("agents", self.agent, self.id, *segments)


def _message(
    text: str,
    attachments: Sequence[Image],
    signal: str | None,
    attributes: Mapping[str, str] | None,
    tag: str | None,
) -> dict[str, Any]:
    if signal is None:
        if attributes or tag:
            raise UsageError("attributes and tag belong to a signal; give its type as signal='…'")
        body: dict[str, Any] = {"kind": "user", "body": text}
        if attachments:
            body["attachments"] = [_attachment(image) for image in attachments]
        return body
    if attachments:
        raise UsageError("a signal has no attachments; send them with a message")
    body = {"kind": "signal", "type": signal, "body": text}
    if attributes:
        body["attributes"] = dict(attributes)
    if tag is not None:
        body["tagName"] = tag
    return body


def _attachment(image: Image) -> dict[str, str]:
    if image.data is None:
        raise UsageError("an attachment needs its bytes: Image(mime_type='image/png', data=…)")
    sent = {"type": "image", "data": base64.b64encode(image.data).decode(), "mimeType": image.mime_type}
    return sent | ({"filename": image.filename} if image.filename else {})


def _line(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise RemoteError(f"the server sent a line that cannot be read: {error}", type="invalid_export") from None
