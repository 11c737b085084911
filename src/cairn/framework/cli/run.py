"""`cairn run`: one message to one agent, live, and the same command again after whatever happened.

Laws. The message is admitted before anything else is tried, so nothing typed is ever lost (S1). The same command continues
what is unsettled instead of asking twice. Beside a live owner it sends and follows; it never refuses and never takes over.
What is shown is read from the log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from cairn.errors import FiberFailed, UsageError
from cairn.framework.app import App
from cairn.framework.cli.output import Exit
from cairn.framework.cli.show import Show, make_show
from cairn.framework.cli.store import named
from cairn.framework.project import load
from cairn.harness.agent import Agent
from cairn.harness.events import Event, SubmissionSettled
from cairn.harness.handle import ConversationHandle, Receipt
from cairn.harness.records import Delivery
from cairn.ids import SystemIds
from cairn.runtime.state import FiberState

#: Bytes of a message read from standard input; a record holds at most 1 MB.
STDIN_BYTES_MAX = 500_000


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line said."""

    target: str
    message: str | None = None
    id: str | None = None
    key: str | None = None
    data: str | None = None
    model: str | None = None
    store: str | None = None
    json: bool = False


def run(request: Request) -> int:
    """Run one message to its settlement; the exit code says how that was."""
    agent = _agent(request)
    message = _message(request.message)
    if message is None and request.id is None:
        raise UsageError(
            f'nothing to do: give a message, as in `cairn run {request.target} "…"`, - to read it from standard input, '
            f"or --id to go on with a conversation"
        )
    data = _data(agent, request.data)
    return asyncio.run(_run(agent, message, data, request))


def _agent(request: Request) -> Agent[Any]:
    agent = load(request.target)
    if request.model is not None:
        agent = agent.replaced(model=request.model)
    if agent.model is None:
        raise UsageError(
            f"agent '{agent.name}' has no model: pass --model provider:name, or write Agent(…, model='anthropic:…')"
        )
    if isinstance(agent.model, str):
        # Offline and cheap: a missing key or an unknown provider is known before anything is stored.
        from cairn.harness.models.resolve import resolve

        resolve(agent.model)
    return agent


def _message(given: str | None) -> str | None:
    if given != "-":
        if given is not None and not given.strip():
            raise UsageError("the message is empty; write what the agent is to do")
        return given
    data = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
    if len(data) > STDIN_BYTES_MAX:
        raise UsageError(
            f"the message on standard input is longer than {STDIN_BYTES_MAX:,} bytes; put it into a file for the agent"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the message on standard input is not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise UsageError("standard input held no message")
    return text.rstrip("\n")


def _data(agent: Agent[Any], given: str | None) -> dict[str, bytes] | None:
    """`--data` as the first state of a new conversation."""
    if given is None:
        return None
    import msgspec

    try:
        fields = msgspec.json.decode(given, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError as error:
        raise UsageError(f'--data is not a JSON object ({error}); write it like --data \'{{"field": "value"}}\'') from None
    return agent.first_state({name: bytes(value) for name, value in fields.items()})


async def _run(agent: Agent[Any], message: str | None, data: dict[str, bytes] | None, request: Request) -> int:
    id = request.id or SystemIds().new("run")
    show = make_show(json=request.json)
    async with App(agents=[agent], store=named(request.store)) as app:
        warming = asyncio.ensure_future(app.warm())
        try:
            conversation = app.conversation(agent, id)
            receipt = await _receipt(conversation, message, data, request, show)
            if receipt is None:
                return Exit.OK
            return await _follow(receipt, show, f"cairn run {request.target} --id {id}")
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)


async def _receipt(
    conversation: ConversationHandle, message: str | None, data: dict[str, bytes] | None, request: Request, show: Show
) -> Receipt | None:
    """Admit the message, or find the submission that this command continues."""
    pending = await conversation.unsettled()
    if message is None:
        if not await conversation.exists():
            raise UsageError(f"there is no conversation {conversation.address} yet; give it a first message")
        if not pending:
            show.note(f"{conversation.address} has nothing unsettled; give it a message to go on")
            return None
        return _attach(conversation, pending[-1], show)
    if request.key is None:
        same = [fiber for fiber in pending if _body(fiber) == message]
        if same:
            return _attach(conversation, same[-1], show)
    receipt = await conversation.send(message, key=request.key, data=data)
    show.opened(str(conversation.address), receipt)
    return receipt


def _attach(conversation: ConversationHandle, fiber: FiberState, show: Show) -> Receipt:
    receipt = Receipt(conversation, fiber.id, fiber.ordinal - 1)
    show.opened(str(conversation.address), receipt, continuing=True)
    return receipt


def _body(fiber: FiberState) -> str | None:
    import msgspec

    return msgspec.json.decode(fiber.arguments, type=Delivery).body


async def _follow(receipt: Receipt, show: Show, again: str) -> int:
    """Show everything until the submission has settled. Ctrl-C aborts it; a second one leaves at once."""
    with _interrupts(receipt, show, again):
        settled = await _show_all(receipt, show)
    show.settled(settled, again)
    if settled.outcome == "completed":
        return Exit.OK
    return Exit.ABORTED if settled.outcome == "aborted" else Exit.FAILED


async def _show_all(receipt: Receipt, show: Show) -> SubmissionSettled:
    async for event in _events(receipt):
        show.event(event)
        if isinstance(event, SubmissionSettled) and event.submission == receipt.submission:
            return event
    raise FiberFailed("the log ended before the submission settled")  # unreachable: following never ends


def _events(receipt: Receipt) -> AsyncGenerator[Event, None]:
    return receipt.conversation.follow(receipt.offset)


class _interrupts:
    """While inside: the first SIGINT asks the log for an abort, the second ends the process on the spot."""

    def __init__(self, receipt: Receipt, show: Show, again: str) -> None:
        self._receipt = receipt
        self._show = show
        self._again = again
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def _interrupt(self) -> None:
        if self._task is not None:
            self._show.note(f"stopped at once; `{self._again}` goes on from the log")
            _leave(Exit.ABORTED)
        self._show.note("aborting; press Ctrl-C again to leave at once")
        abort: Callable[..., Any] = self._receipt.conversation.abort
        self._task = asyncio.ensure_future(abort(self._receipt.submission, reason="Ctrl-C"))


def _leave(code: int) -> None:
    """End the process as a kill would: nothing is cleaned up, because everything that matters is in the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
