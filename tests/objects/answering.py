"""What tests of answers share: a client that sends, waits for what is asked, answers, and can be called again in every life."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from cairn.errors import Conflict
from cairn.harness.answers import PendingCall
from cairn.harness.handle import ConversationHandle, Receipt
from cairn.testing.play import Client, settled
from cairn.testing.world import World

#: Gives an answer, or does something else about a call that waits.
Give = Callable[[ConversationHandle, PendingCall], Awaitable[object]]


async def ended(conversation: ConversationHandle, receipt: Receipt) -> bool:
    return receipt.submission not in {each.id for each in await conversation.unsettled()}


async def asked(conversation: ConversationHandle, receipt: Receipt, *, count: int = 1) -> list[PendingCall]:
    """The questions, once there are so many; none when the submission has settled."""
    while not await ended(conversation, receipt):
        found = await conversation.questions()
        if len(found) >= count:
            return found
        await asyncio.sleep(0.25)
    return []


async def approve(conversation: ConversationHandle, call: PendingCall) -> object:
    return await conversation.approve(call.call, digest=call.digest, by="ann")


async def reject(conversation: ConversationHandle, call: PendingCall) -> object:
    return await conversation.reject(call.call, "too dear", digest=call.digest, by="ann")


def output(value: object) -> Give:
    async def give(conversation: ConversationHandle, call: PendingCall) -> object:
        return await conversation.answer(call.call, value, digest=call.digest, by="browser")

    return give


async def nothing(conversation: ConversationHandle, call: PendingCall) -> None:
    """Nobody answers."""


def answering(give: Give | Mapping[str, Give], *, pause: float = 2.0, backwards: bool = False) -> Client:
    """Send one message; answer what is asked (each call in its own way), one at a time, `pause` seconds after it was."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("first", key="first")
        while questions := await asked(conversation, receipt):
            await asyncio.sleep(pause)
            for question in reversed(questions) if backwards else questions:
                try:
                    await (give[question.call] if isinstance(give, Mapping) else give)(conversation, question)
                except Conflict:
                    continue  # its time was over, or the submission has been stopped meanwhile
            await asyncio.sleep(pause)
        await settled(receipt)

    return client
