"""Rewinding: the conversation goes on as if what came after one of its messages had not been said.

Laws. The log keeps everything; only what is folded from it changes. What runs is aborted first, in the batch of the request,
and the rewind is a fiber like any other: it has its turn after what was accepted before it, and its record is one commit with
its settlement, so it happens once. The agent's state and files are not turned back: what was done was done.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cairn.errors import NotFound
from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.entries import Entry
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.client import settlement
from cairn.runtime.fiber import Fiber
from cairn.runtime.state import RuntimeState
from cairn.runtime.storage.store import Store

#: Ids of the fibers that rewind begin so.
PREFIX = "rew"


class To(msgspec.Struct, frozen=True, omit_defaults=True):
    """The argument of the fiber. `message` is the last one that stays (None: none does), or the first that goes."""

    message: str | None = None
    before: bool = False


def request(fiber: str, to: To, at: float, key: str | None = None) -> tuple[r.AbortRequested, r.FiberAccepted]:
    """What is sent: everything accepted before is to be aborted, then this."""
    arguments = msgspec.Raw(msgspec.json.encode(to))
    return (
        r.AbortRequested(at=at, reason="the conversation was rewound"),
        r.FiberAccepted(fiber=fiber, method=h.REWIND, at=at, arguments=arguments, key=key),
    )


def find(conversation: Conversation, message: str) -> Entry:
    """The entry people know by that id. Raises NotFound."""
    for index in range(len(conversation.entries) - 1, -1, -1):
        entry: Entry = conversation.entries[index]
        if entry.id == message and entry.kind != "note":
            return entry
    raise NotFound(f"there is no message '{message}' in the conversation; it may have been rewound already")


async def run(fiber: Fiber) -> None:
    """The conversation is rewound and the fiber settled, in one commit; failed when the message is gone."""
    instance, now = fiber.instance, fiber.instance.clock.wall()
    if fiber.state.abort is not None:
        await fiber.settle("aborted", error=r.ErrorInfo(kind="aborted", message=fiber.state.abort))
        return
    try:
        ordinal = await _ordinal(instance.store, instance.n, instance.runtime, instance.state, fiber.arguments(To))
    except NotFound as error:
        await fiber.settle("failed", error=r.ErrorInfo(kind="not_found", message=str(error)))
        return
    rewound = h.ConversationRewound(to=ordinal, at=now, keep_read=True)
    result = msgspec.Raw(msgspec.json.encode(ordinal))
    await instance.append([rewound, r.FiberSettled(fiber=fiber.id, outcome="completed", at=now, result=result)])


async def _ordinal(store: Store, n: int, runtime: RuntimeState, state: Any, to: To) -> int:
    """The last ordinal whose records still count."""
    if to.message is None:
        return log.BEGINNING + 1  # the creation stays
    entry = find(state, to.message)
    if to.before:
        return entry.ordinal - 1
    if entry.kind == "user":
        return entry.ordinal
    if entry.submission not in runtime.settled:
        return entry.ended if entry.ended >= 0 else entry.ordinal
    # Up to its settlement: all steps of the answer, and the outcomes of its calls.
    return (await settlement(store, n, entry.submission, after=entry.ordinal - 1)).ordinal
