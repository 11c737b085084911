"""`cairn run`: one message to one agent, live, and the same command again after whatever happened.

Laws. The message is admitted before anything else is tried, so nothing typed is ever lost (S1). The same command continues
what is unsettled instead of asking twice. Beside a live owner it sends and follows; it never refuses and never takes over.
Only the conversation of this command is run here. What is shown is read from the log.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Coroutine
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

from cairn.errors import CairnError, UsageError
from cairn.framework.app import App
from cairn.framework.cli import continuing
from cairn.framework.cli.interrupts import Interrupts
from cairn.framework.cli.notes import told_by
from cairn.framework.cli.output import Exit, abandon_broken_pipes
from cairn.framework.cli.show import Show, make_show
from cairn.framework.cli.store import named
from cairn.framework.project import load
from cairn.harness.agent import Agent
from cairn.harness.events import SubmissionSettled
from cairn.harness.handle import ConversationHandle, Receipt, check_id, check_key
from cairn.runtime.storage.store import Address

#: Bytes of a message, typed or read from standard input; a record holds at most 1 MB.
MESSAGE_BYTES_MAX = 500_000


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

    def again(self, id: str) -> str:
        """The command that goes on with the conversation."""
        store = ["--store", self.store] if self.store else []
        return shlex.join(["cairn", "run", self.target, "--id", id, *store])


def run(request: Request) -> int:
    """Run one message to its settlement; the exit code says how that was."""
    show = make_show(json=request.json)
    # stdout is the answer, or the events: what an agent's own code prints is an aside.
    with redirect_stdout(sys.stderr), told_by(show.note):
        agent = _agent(request)
        message = _message(request)
        data = _data(agent, request.data)
        return asyncio.run(_run(agent, message, data, request, show))


# --- what was typed -------------------------------------------------------------------------------------------------


def _agent(request: Request) -> Agent[Any]:
    """The agent, with a model that can be asked; its provider's library is being imported from here on."""
    agent = load(request.target)
    if request.model is not None:
        from cairn.harness.models.resolve import parse

        parse(request.model)
        agent = agent.replaced(model=request.model)
    if agent.model is None:
        raise UsageError(
            f"agent '{agent.name}' has no model: pass --model provider:name, or write Agent(…, model='anthropic:…')"
        )
    if isinstance(agent.model, str):
        # Offline and cheap: a missing key or an unknown provider is known before anything is stored.
        from cairn.framework.cli import warming
        from cairn.harness.models.resolve import resolve

        warming.begin(resolve(agent.model).provider)
    return agent


def _message(request: Request) -> str | None:
    """What is to be said, as far as it can be checked without a store; None to go on with what there is."""
    if request.id is not None:
        check_id(request.id)
    check_key(request.key)
    if request.message is None:
        if request.id is None:
            raise UsageError(
                f'nothing to do: give a message, as in `cairn run {request.target} "…"`, - to read it from standard input, '
                f"or --id to go on with a conversation"
            )
        return None
    text = _from_stdin() if request.message == "-" else request.message
    if not text.strip():
        raise UsageError("the message is empty; write what the agent is to do")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"the message is not UTF-8 text (character {error.start})") from None
    if size > MESSAGE_BYTES_MAX:
        raise UsageError(f"the message is longer than {MESSAGE_BYTES_MAX:,} bytes; put it into a file the agent can read")
    return text


def _from_stdin() -> str:
    if sys.stdin is None:  # closed by whoever started us
        raise UsageError("there is no standard input to read the message from; give it as an argument")
    data = sys.stdin.buffer.read(MESSAGE_BYTES_MAX + 1)
    if len(data) > MESSAGE_BYTES_MAX:
        raise UsageError(
            f"the message on standard input is longer than {MESSAGE_BYTES_MAX:,} bytes; put it into a file the agent can read"
        )
    try:
        return data.decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"the message on standard input is not UTF-8 text (byte {error.start})") from None


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


# --- the run --------------------------------------------------------------------------------------------------------


async def _run(agent: Agent[Any], message: str | None, data: dict[str, bytes] | None, request: Request, show: Show) -> int:
    chosen: list[Address] = []
    with Interrupts(show) as interrupts:
        async with App(agents=[agent], store=named(request.store), only=lambda address: address in chosen) as app:
            id = request.id or await continuing.id_for(app, agent, message or "", request.key)
            conversation = app.conversation(agent, id)
            chosen.append(conversation.address)
            warming = asyncio.ensure_future(app.warm())
            try:
                interrupts.sending()
                receipt = await _receipt(app, conversation, message, data, request.key, show)
                if receipt is None:
                    return Exit.OK
                interrupts.following(receipt, request.again(id))
                settled = await _follow(app, receipt, show)
                if settled is None:
                    with suppress(OSError):
                        show.note(f"nobody reads the output any more; stopped here. `{request.again(id)}` goes on")
                    abandon_broken_pipes()
                    return Exit.FAILED
                await _afterwards(app, agent)
            finally:
                warming.cancel()
                (warmed,) = await asyncio.gather(warming, return_exceptions=True)
    if settled.outcome == "failed" and isinstance(warmed, UsageError):
        # The model could not even be loaded: that is for the caller to change, not a failure of the work.
        raise warmed
    try:
        show.settled(settled, f'{request.again(id)} "…"' if request.id is None else "")
    except BrokenPipeError:
        abandon_broken_pipes()
    return {"completed": Exit.OK, "aborted": Exit.ABORTED}.get(settled.outcome, Exit.FAILED)


async def _receipt(
    app: App, conversation: ConversationHandle, message: str | None, data: dict[str, bytes] | None, key: str | None, show: Show
) -> Receipt | None:
    """Admit the message, or find the submission that this command continues."""
    pending = await conversation.unsettled()
    if message is None:
        if not await conversation.exists():
            raise UsageError(f"there is no conversation {conversation.address} yet; give it a first message")
        if not pending:
            show.note(f"{conversation.address} has nothing unsettled; give it a message to go on")
            return None
        found = pending[-1]
    else:
        same = [fiber for fiber in pending if key is None and continuing.body(fiber) == message]
        if not same:
            if data and await conversation.exists():
                show.note(f"{conversation.address} exists already; --data, the state of a new conversation, is ignored")
            receipt = await conversation.send(message, key=key, data=data)
            show.opened(receipt, "known" if receipt.deduplicated else "started")
            return receipt
        found = same[-1]
    receipt = Receipt(conversation, found.id, found.ordinal - 1)
    owner = await continuing.live_owner(app, conversation.address)
    show.opened(receipt, "continuing", attempts=found.attempt, owner=owner)
    return receipt


async def _follow(app: App, receipt: Receipt, show: Show) -> SubmissionSettled | None:
    """Show everything until the submission has settled; None when nobody reads it any more. *Raises* what ended the worker."""
    assert app.worker is not None
    shown = asyncio.ensure_future(_show_all(receipt, show))
    ended = asyncio.ensure_future(_settling_down(app.worker.join()))
    await asyncio.wait({shown, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not shown.done():
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
        error = ended.result()
        raise error if error is not None else CairnError("the worker ended before the work did; run the same command again")
    try:
        return shown.result()
    except BrokenPipeError:
        return None


async def _settling_down(work: Coroutine[Any, Any, None]) -> Exception | None:
    """How it ended, as a value: nobody may be left to look at it."""
    try:
        await work
    except Exception as error:
        return error
    return None


async def _show_all(receipt: Receipt, show: Show) -> SubmissionSettled:
    async for event in receipt.follow(caught_up=show.caught_up):
        show.event(event)
        if isinstance(event, SubmissionSettled) and event.submission == receipt.submission:
            return event
    raise AssertionError("following ends with the settlement")


async def _afterwards(app: App, agent: Agent[Any]) -> None:
    """Give what runs after a settlement its time; what does not end stays on the log, for the next run."""
    if agent.settled_hooks and app.worker is not None:
        with suppress(TimeoutError):
            await asyncio.wait_for(app.worker.idle(), agent.limits.hook_seconds)
