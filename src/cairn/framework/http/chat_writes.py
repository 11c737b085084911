"""What a chat client changes: it sends, sends again, has something answered anew, answers a call, stops, clears.

Laws. The id a client gave a message is its idempotency key: sent again after a cut it is the same submission (S6). What is
stored is never overwritten by what a client says of it: a message that was changed begins the conversation anew from there, in
the log as in its view. Whatever is refused is said, in words.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import CairnError, Conflict, Denied, NotFound
from cairn.framework.http import chat_frames as frames
from cairn.framework.http import chat_request as reading
from cairn.framework.http import problems
from cairn.framework.http.auth import Grant
from cairn.framework.http.chat_parts import ui_id
from cairn.framework.http.chat_request import ChatRequest, Said, ToolAnswer
from cairn.framework.http.chat_scene import Settled
from cairn.framework.http.chat_streams import Asked
from cairn.framework.http.chat_view import View
from cairn.framework.http.conversation import check_room
from cairn.framework.http.problems import Problem

if TYPE_CHECKING:
    from cairn.framework.http.service import Service
    from cairn.framework.http.sockets import Socket
    from cairn.harness.handle import ConversationHandle, Receipt

logger = logging.getLogger("cairn.http")

Json = dict[str, Any]

#: What keys of messages that came by chat begin with: others' keys are other messages.
_KEY = "chat:"


class Writes:
    """What one client does."""

    def __init__(self, service: Service, socket: Socket, conversation: ConversationHandle, view: View) -> None:
        self._service = service
        self._socket = socket
        self._conversation = conversation
        self._view = view

    async def do(self, frame: Mapping[str, Any]) -> None:
        """Do what the frame says, or say why not. Whatever is wrong with it, the socket goes on."""
        try:
            await self._act(frame)
        except (Problem, CairnError) as error:
            await self._refuse(frame, _words(error))
        except Exception:
            logger.exception("a frame of a chat client could not be handled: %s", frame.get("type"))
            await self._refuse(frame, "Something went wrong here; try again.")

    async def _act(self, frame: Mapping[str, Any]) -> None:
        self._need(Grant.ABORT if frame["type"] == frames.CANCEL else Grant.SEND)
        match frame["type"]:
            case frames.REQUEST:
                await self._request(reading.chat_request(frame, self._service.limits))
            case frames.CANCEL:
                await self._cancel(frame.get("id"))
            case frames.CLEAR:
                await self._clear()
            case frames.TOOL_RESULT:
                await self._answer(reading.tool_result(frame))
            case frames.TOOL_APPROVAL:
                await self._answer(reading.tool_approval(frame))

    def _need(self, grant: Grant) -> None:
        if not self._socket.may(grant):
            raise problems.forbidden(f"This needs the grant '{grant.value}'.")

    async def _refuse(self, frame: Mapping[str, Any], why: str) -> None:
        """The client is told why; or, where the wire has no word for it, shown what there really is."""
        id = frame.get("id")
        if frame["type"] == frames.REQUEST and isinstance(id, str):
            await self._socket.send(frames.failed(id, why))
        elif frame["type"] == frames.CANCEL:
            await self._view.offer()
        else:
            await self._view.refresh()

    # --- a request

    async def _request(self, request: ChatRequest) -> None:
        stored = await self._stored()
        known = {ui_id(each): each for each in stored if each["role"] == "user"}
        # Also under the id that it has here: a client that never heard of another one.
        known.update({each["id"]: each for each in stored if each["role"] == "user"})
        person = request.person
        if person is None:
            raise problems.invalid_request("There is no message to answer.")
        asked = Asked(request.id, [said.id for said in request.last])
        if person.id in known:
            await self._again(request, person, known[person.id], stored, asked)
            return
        fresh = [said for said in request.last if said.id not in known]
        if not fresh:
            raise problems.invalid_request("The message to be answered is not in the conversation any more.")
        for said in fresh[:-1]:
            await self._send(said, request, None)
        await self._send(fresh[-1], request, asked)

    async def _again(self, request: ChatRequest, said: Said, message: Json, stored: list[Json], asked: Asked) -> None:
        """A message that is stored: answered anew, changed, or only asked for again."""
        if request.is_regenerate:
            await self._regenerate(person_id=said.id, message=message, asked=asked)
        elif request.last and not reading.is_same(said, message["parts"]):
            await self._change(said, request, message, stored, asked)
        else:
            await self._attach(message["submissionId"], asked, is_resent=bool(request.last))

    async def _send(self, said: Said, request: ChatRequest, asked: Asked | None, *, anew: bool = False) -> None:
        delivery = reading.delivery(said, request, self._service.limits)
        key = f"{_KEY}{said.id}" if not anew else f"{_KEY}{said.id}:{request.id}"
        await check_room(self._service, self._conversation, key)
        async with self._view.turn:
            try:
                receipt = await self._conversation.send(delivery, key=key)
            except Conflict:
                # That id was used for other words, which have been rewound since: these are another message.
                receipt = await self._conversation.send(delivery, key=f"{_KEY}{said.id}:{request.id}")
            if asked is not None and not receipt.deduplicated:
                self._view.expect(receipt.submission, asked)
        self._view.created()
        if receipt.deduplicated:
            await self._known(said, request, asked, receipt, anew)

    async def _known(self, said: Said, request: ChatRequest, asked: Asked | None, receipt: Receipt, anew: bool) -> None:
        """The key was used. Either somebody was faster with the same message, or it has been rewound since."""
        is_there = any(each.get("submissionId") == receipt.submission for each in await self._stored())
        if not is_there and not anew:
            await self._send(said, request, asked, anew=True)
        elif asked is not None:
            await self._attach(receipt.submission, asked, is_resent=True)

    async def _attach(self, submission: str, asked: Asked, *, is_resent: bool) -> None:
        settled = await self._settled(submission)
        if settled is not None and not is_resent:
            # A client that wants to go on from a complete answer would otherwise ask for ever.
            raise problems.invalid_request("There is nothing to go on with: the last message is answered.")
        await self._view.attach(submission, asked, settled)

    async def _regenerate(self, person_id: str, message: Json, asked: Asked) -> None:
        key = f"{_KEY}{person_id}:{asked.id}"
        async with self._view.turn:
            self._view.expect_reset()
            try:
                receipt = await self._conversation.regenerate(message["id"], key=key)
            except BaseException:
                self._view.expect_reset(False)
                raise
            if not receipt.deduplicated:
                self._view.expect(receipt.submission, asked)
        if receipt.deduplicated:
            self._view.expect_reset(False)
            await self._attach(receipt.submission, asked, is_resent=True)

    async def _change(self, said: Said, request: ChatRequest, message: Json, stored: list[Json], asked: Asked) -> None:
        """The conversation goes on from before the message, with the message as it is now."""
        reading.delivery(said, request, self._service.limits)  # nothing is rewound for what is refused
        place = next(index for index, each in enumerate(stored) if each["id"] == message["id"])
        before = [each["id"] for each in stored[:place] if each["purpose"] in ("user", "dispatch", "assistant")]
        await self._rewind(before[-1] if before else None)
        await self._send(said, request, asked, anew=True)

    async def _stored(self) -> list[Json]:
        row = await self._service.store.find(self._conversation.address)
        if row is None:
            return []
        snapshot = await self._service.snapshots.at_head(row)
        found: list[Json] = msgspec.json.decode(snapshot.messages())
        return found

    async def _settled(self, submission: str) -> Settled | None:
        row = await self._service.store.find(self._conversation.address)
        if row is None:
            return None
        snapshot = await self._service.snapshots.at_head(row)
        for each in msgspec.json.decode(snapshot.settlements()):
            if each["submissionId"] == submission:
                why = (each.get("error") or {}).get("message", "")
                return Settled(submission, each["outcome"], why, None)
        return None

    # --- the rest

    async def _cancel(self, stream: Any) -> None:
        submission = self._view.submission_of(stream) if isinstance(stream, str) else None
        if submission is not None:
            await self._conversation.abort(submission, reason="a client asked for it")

    async def _clear(self) -> None:
        if await self._conversation.exists():
            await self._rewind(None)

    async def _rewind(self, to: str | None) -> None:
        self._view.expect_reset()
        try:
            await self._conversation.rewind(to)
        except BaseException:
            self._view.expect_reset(False)
            raise
        await self._view.reset()

    async def _answer(self, answer: ToolAnswer | None) -> None:
        if answer is None:
            raise problems.invalid_request("A tool's result names its call in 'toolCallId'.")
        question = next((each for each in await self._conversation.questions() if each.call == answer.call), None)
        if question is None:
            raise NotFound(f"call '{answer.call}' waits for no answer")
        by, digest = self._socket.identity.name, question.digest
        try:
            match answer.kind:
                case "approve":
                    await self._conversation.approve(answer.call, digest=digest, by=by)
                case "reject":
                    await self._conversation.reject(answer.call, answer.text, digest=digest, by=by)
                case "error":
                    await self._conversation.answer(answer.call, error=answer.text, digest=digest, by=by)
                case _:
                    await self._conversation.answer(answer.call, answer.output, digest=digest, by=by)
        except Conflict:
            await self._view.refresh()  # another tab was faster
            return
        self._view.answered(answer.call)


def _words(error: Exception) -> str:
    """What the person is shown."""
    if isinstance(error, Problem):
        return error.details or error.message
    if isinstance(error, Denied):
        return "This caller may not do that."
    return str(error)
