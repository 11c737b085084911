"""`cairn chat`: talk to an agent in the terminal, on this machine or far away.

Laws. Ctrl-C stops the answer, not the chat; a second one leaves, and what runs goes on without us. Whatever is typed is one
message, once. The main thread waits for the person, another one for the agent, so that neither holds up the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cairn.errors import AgentFileError, CairnError, UsageError
from cairn.framework import config as configuration
from cairn.framework.cli.dialogue import Dialogue, make_dialogue
from cairn.framework.cli.output import Exit, one_line
from cairn.framework.cli.prompt import Typed, at_terminal, piped
from cairn.framework.cli.session import Session, Where, chosen_agent, connected

T = TypeVar("T")

TOKEN_VARIABLE = "CAIRN_TOKEN"

HELP = """\
/new [ID]   begin another conversation        /abort    stop what is being answered
/id         show which one this is            /history  show all of it
/quit       leave (or Ctrl-D)                 /help     this
Ctrl-C stops an answer; once more leaves. A paste of several lines is one message. // begins a message with /."""


@dataclass(frozen=True, slots=True)
class Request:
    """One `cairn chat`."""

    target: str | None = None
    id: str | None = None
    token: str | None = None
    store: str | None = None
    json: bool = False


def chat(request: Request) -> int:
    """Talk until the person, or the input, has had enough: 0, or 1 when the last answer of a program's input failed."""
    from cairn.framework.cli.notes import told_by

    dialogue = make_dialogue(json=request.json)
    where, agent, id = _where(request)
    with told_by(dialogue.note), Background() as background:
        talk = Talk(background, dialogue)
        return talk.run(where, agent, request.id or id)


# --- where ----------------------------------------------------------------------------------------------------------


def _where(request: Request) -> tuple[Where, str, str | None]:
    """The server, the agent and the conversation that are meant; an empty agent is the only one there is."""
    target, token = request.target or "", request.token or os.environ.get(TOKEN_VARIABLE) or None
    if "://" in target:
        from cairn.client.client import located

        url, agent, id = located(target)
        return Where(url, url, token), agent, id or None
    return _here(request, target)


def _here(request: Request, target: str) -> tuple[Where, str, str | None]:
    """The project's own: at the `cairn dev` that runs it, or in this process."""
    from cairn.framework.cli.dev import store_of
    from cairn.framework.cli.workshop import beside, running_at

    config = configuration.find()
    store = store_of(request.store, config)
    running = running_at(beside(store, config.root))
    is_file = bool(target) and Path(target).exists()
    if running is not None and not is_file:
        return Where(running.url.rstrip("/"), f"at {running.url}"), target, None
    agents = _agents(config, target)
    _begin_loading(agents)
    return Where(agents=agents, store=store), agents[0].name if target else "", None


def _agents(config: configuration.Config, target: str) -> tuple[Any, ...]:
    from cairn.framework.project import discover, load

    if target:
        return (load(target),)
    project = discover(config)
    if not project.agents and project.problems:
        raise AgentFileError(project.problems[0], project.problems)
    if not project.agents:
        raise UsageError(
            f"there are no agents in {config.agents_folder} to talk to; name a file, as in `cairn chat agent.py`, or a URL"
        )
    return project.agents


def _begin_loading(agents: tuple[Any, ...]) -> None:
    """Providers' libraries are imported while the person types. *Raises* UsageError when the only agent cannot be asked."""
    from cairn.framework.cli import warming
    from cairn.harness.models.resolve import resolve

    for agent in agents:
        try:
            if isinstance(agent.model, str):
                warming.begin(resolve(agent.model).provider)
        except UsageError:
            if len(agents) == 1:
                raise


# --- talking --------------------------------------------------------------------------------------------------------


class Background:
    """An event loop in a thread of its own, for as long as the block."""

    def __enter__(self) -> Background:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="cairn chat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def tell(self, say: Callable[[], None]) -> None:
        """Said between two of the things that the loop says, not in the middle of one."""
        self.loop.call_soon_threadsafe(say)


class Talk:
    """The person's side."""

    def __init__(self, background: Background, dialogue: Dialogue) -> None:
        self._background = background
        self._dialogue = dialogue
        self._session: Session | None = None

    def run(self, where: Where, agent: str, id: str | None) -> int:
        opened, over = self._background.start(_opened(where, agent, id, self._dialogue)), None
        session, over = opened.result()
        self._session = session
        try:
            self._watched(session.open(where.name))
            return self._typed(session) if at_terminal() else self._piped(session)
        finally:
            self._background.start(over()).result()

    # --- a person

    def _typed(self, session: Session) -> int:
        typed = Typed()
        while True:
            try:
                text = typed.next()
            except EOFError:
                print()
                return Exit.OK
            except KeyboardInterrupt:
                print()
                return Exit.ABORTED
            if text.strip() == "/quit":
                return Exit.OK
            self._guarded(session, text)

    def _guarded(self, session: Session, text: str) -> None:
        """A message that cannot be sent does not end the chat."""
        try:
            self._heed(session, text)
        except CairnError as error:
            self._dialogue.note(one_line(str(error)))

    def _heed(self, session: Session, text: str) -> None:
        """A message, or a command."""
        command, _, argument = text.strip().partition(" ")
        if not command:
            return
        if not command.startswith("/") or command.startswith("//"):
            self._watched(session.say(text.removeprefix("/") if text.startswith("//") else text))
        elif command == "/new":
            self._watched(session.begin(argument.strip() or None))
        elif command == "/id":
            self._dialogue.note(session.id)
        elif command == "/history":
            self._watched(session.show_history())
        elif command == "/abort":
            if not self._watched(session.abort()):
                self._dialogue.note("nothing is being answered")
        elif command == "/help":
            for each in HELP.splitlines():
                self._dialogue.note(each)
        else:
            self._dialogue.note(f"there is no {command}; /help shows what there is, and // begins a message with /")

    # --- a program

    def _piped(self, session: Session) -> int:
        outcome = "completed"
        for text in piped():
            outcome = self._watched(session.say(text))
        return {"completed": Exit.OK, "aborted": Exit.ABORTED}.get(outcome, Exit.FAILED)

    # --- waiting

    def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives. Ctrl-C meanwhile stops the answer; once more, and we leave."""
        interrupts: list[int] = []

        def interrupted(number: int, _: object) -> None:
            # Between two instructions of a thread that only waits: it goes on waiting afterwards.
            interrupts.append(number)
            if len(interrupts) > 1 or self._session is None or not self._session.is_talking:
                _leave()
            self._background.tell(partial(self._dialogue.note, "stopping the answer; Ctrl-C again leaves"))
            self._background.start(_aborted(self._session, self._dialogue))

        is_main = threading.current_thread() is threading.main_thread()  # only there signals can be had
        before = signal.signal(signal.SIGINT, interrupted) if is_main else None
        try:
            return self._background.start(work).result()
        finally:
            if is_main:
                signal.signal(signal.SIGINT, before)


async def _aborted(session: Session, dialogue: Dialogue) -> None:
    try:
        await session.abort()
    except CairnError as error:
        dialogue.note(f"it could not be stopped ({one_line(str(error))}); Ctrl-C again leaves")


async def _opened(
    where: Where, agent: str, id: str | None, dialogue: Dialogue
) -> tuple[Session, Callable[[], Coroutine[Any, Any, None]]]:
    """The session, and what closes all that it needs."""
    from cairn.clock import SystemClock
    from cairn.ids import SystemIds

    connection = connected(where)
    client = await connection.__aenter__()
    try:
        name = await chosen_agent(client, agent)
    except BaseException:
        await connection.__aexit__(None, None, None)
        raise

    async def close() -> None:
        await connection.__aexit__(None, None, None)

    return Session(client, name, id, dialogue, SystemClock(), SystemIds()), close


def _leave() -> NoReturn:
    """As a kill would: what is said is on the log, and an answer that another process gives goes on."""
    with suppress(OSError):
        os.write(2, b"\ncairn: left; what was sent is answered all the same\n")
    os._exit(Exit.ABORTED)
