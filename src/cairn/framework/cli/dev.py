"""`cairn dev`: the project in the browser, and every edit live for the next turn.

Laws. Only this machine is answered. There is one per project: a second one shows where the first is and ends with it. Nothing a
person edits ends it; what cannot be read is told, all of it, and the last good agents answer on. A kill costs nothing that is
on the log: the next `cairn dev` goes on with it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cairn.errors import AgentFileError, UsageError
from cairn.framework import config as configuration
from cairn.framework.cli import serve
from cairn.framework.cli.browser import browse
from cairn.framework.cli.output import Exit
from cairn.framework.cli.telling import JsonTeller, Teller
from cairn.framework.cli.workshop import Running, Workshop, beside
from cairn.framework.config import Config
from cairn.framework.modules import describe, shown

if TYPE_CHECKING:
    from cairn.framework.app import App
    from cairn.framework.reload import Change, Loaded
    from cairn.harness.agent import Agent

HOST = "127.0.0.1"
#: Where a project is found unless it says otherwise: a bookmark, and the page's own memory, outlive a restart.
DEFAULT_PORT = 4111
#: Ports tried after it when something else has it.
PORTS_TRIED = 50
#: Seconds the holder of a project has to say where it is, and between two looks.
ANNOUNCED_SECONDS = 10.0
LOOK_SECONDS = 0.05
#: Options of [tool.cairn] that are only read at the start.
AT_START = ("app", "store", "host", "port")


@dataclass(frozen=True, slots=True)
class Request:
    """One `cairn dev`."""

    targets: tuple[str, ...] = ()
    port: int | None = None
    store: str | None = None
    open: bool = True
    json: bool = False


def dev(request: Request) -> int:
    """Serve the project until a signal says otherwise; or show where it is served, until that ends."""
    config = configuration.find(serve.folder(request.targets))
    out = sys.stdout
    # What agents print is an aside: with --json stdout is the events.
    with redirect_stdout(sys.stderr):
        teller: Teller = JsonTeller(out) if request.json else Teller(out)
        return _dev(request, config, teller)


def _dev(request: Request, config: Config, teller: Teller) -> int:
    workshop = _workshop(beside(store_of(request.store, config), config.root))
    running = _holder(workshop)
    if running is not None:
        return _attach(workshop, running, request, teller)
    try:
        return _serve(request, config, workshop, teller)
    finally:
        workshop.leave()


def store_of(given: str | None, config: Config) -> Path:
    """Where the project's store is."""
    from cairn.framework.cli.store import named

    named_store = given or os.environ.get(configuration.STORE_VARIABLE)
    return named(named_store) if named_store else config.store or config.root / configuration.DEFAULT_STORE


# --- one per project ------------------------------------------------------------------------------------------------


def _workshop(file: Path) -> Workshop:
    try:
        return Workshop(file)
    except OSError as error:
        raise UsageError(f"{file.parent} cannot be written ({error.strerror}); name a store elsewhere with --store") from None


def _holder(workshop: Workshop) -> Running | None:
    """Who has the project; None when it is ours from now on."""
    for refused in range(int(ANNOUNCED_SECONDS / LOOK_SECONDS)):
        if workshop.take():
            return None
        running = workshop.running()
        # Somebody who only asks whether it is anybody's is done in a moment, and must not pass for a holder that is dead.
        if running is not None and refused:
            return running
        _pause(LOOK_SECONDS)
    raise UsageError("another `cairn dev` of this project is starting, and does not say where; end it, or try again")


def _attach(workshop: Workshop, running: Running, request: Request, teller: Teller) -> int:
    try:
        teller.attached(running)
        if request.targets or request.port is not None:
            teller.note("it serves what it was started with; for anything else, end it first")
        if request.open:
            browse(running.url)
        workshop.wait()
    except KeyboardInterrupt:
        return Exit.OK
    teller.note("the other `cairn dev` has ended")
    return Exit.OK


def _pause(seconds: float) -> None:
    """Outside of any event loop."""
    from cairn.clock import SystemClock

    asyncio.run(SystemClock().sleep(seconds))


# --- what is served -------------------------------------------------------------------------------------------------


class Project:
    """What was asked for, read again whenever it changes."""

    def __init__(self, request: Request, config: Config) -> None:
        self._request = serve.Request(targets=request.targets, store=request.store)
        self.config = config
        self.app: App | None = None
        """What the last good reading made."""
        self.is_discovered = serve.application_name(request.targets, config) is None

    @property
    def places(self) -> list[Path]:
        """Where its agents are written."""
        targets = [Path(target.partition(":")[0] if ":" in target else target) for target in self._request.targets]
        paths = [target.resolve() for target in targets if target.exists() and not serve.is_project(target)]
        return paths if paths and self.is_discovered else [self.config.agents_folder]

    def read(self) -> Loaded:
        """Its agents, or what keeps them from being served. Never raises for a file's sake."""
        from cairn.framework.reload import Loaded

        if not self.is_discovered and serve.application_name(self._request.targets, self.config) is None:
            # In the middle of an edit its file may not even say that it makes one.
            return Loaded((), (self._what_ails(self.config.root / "app.py"),))
        try:
            self.app = serve.make(self._request)
        except AgentFileError as error:
            return Loaded(self._good(), error.problems or (str(error),))
        except UsageError as error:
            return Loaded((), (str(error),))
        except Exception as error:
            at = self.config.file or self.config.root
            return Loaded((), (describe(error, at, self.config.root),))
        return Loaded(self.app.agents)

    def _what_ails(self, file: Path) -> str:
        try:
            compile(file.read_bytes(), str(file), "exec")
        except (OSError, SyntaxError, ValueError) as error:
            return describe(error, file, self.config.root)
        return f"{shown(file)}: it makes no `app = App(…)` any more"

    def _good(self) -> tuple[Agent[Any], ...]:
        """Those that can be used although others cannot."""
        from cairn.framework.project import discover

        if self._request.targets or not self.is_discovered:
            return ()
        return discover(self.config).agents


def _first(project: Project, loaded: Loaded, request: Request) -> App:
    """The App to begin with."""
    from cairn.framework.app import App

    if not loaded.problems:
        assert project.app is not None
        app = project.app
    elif project.is_discovered:
        app = App(loaded.agents, store=store_of(request.store, project.config))
    else:
        raise AgentFileError(f"there is no App to begin with: {loaded.problems[0]}", loaded.problems)
    app.develop()
    return app


# --- serving --------------------------------------------------------------------------------------------------------


def _serve(request: Request, config: Config, workshop: Workshop, teller: Teller) -> int:
    from cairn.clock import SystemClock
    from cairn.framework.cli.notes import told_by
    from cairn.framework.http.server import loop_factory, signals, url_of
    from cairn.framework.http.server import serve as answer
    from cairn.framework.reload import Reloader

    clock = SystemClock()
    listener = _listen(request, config, teller.note)
    url = f"{url_of(listener)}/"
    project = Project(request, config)
    reloader = Reloader(
        project.read, root=config.root, agents=project.places, clock=clock, files=[config.file] if config.file else []
    )
    with told_by(teller.note):
        loaded = reloader.first()
        app = _first(project, loaded, request)
        teller.problems(loaded.problems)
        known = Known(config, teller.note)

        def changed(change: Change) -> None:
            teller.changed(change)
            known.look(app)

        async def work() -> None:
            stop = asyncio.Event()
            reloading: list[asyncio.Task[None]] = []

            def ready() -> None:
                workshop.announce(url)
                teller.ready(url, app)
                known.look(app)
                if request.open:
                    browse(url)
                task = asyncio.create_task(reloader.run(app, changed), name="reloader")
                task.add_done_callback(lambda _: stop.set())
                reloading.append(task)

            with signals(stop, clock, may_force=True):
                try:
                    await answer(app, listener, stop=stop, on_ready=ready, access=None)
                finally:
                    await _ended(reloading)

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(work())
    return Exit.OK


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """They have ended; what ended one before it was asked to is raised."""
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Exception):
            raise found


def _listen(request: Request, config: Config, note: Callable[[str], None]) -> socket.socket:
    """A socket on this machine: on the port that was asked for, or, when nobody asked for one, on a free one near the usual."""
    from cairn.framework.http.limits import HttpLimits
    from cairn.framework.http.server import listen

    asked = serve.Request(targets=request.targets, port=request.port)
    is_chosen = request.port is not None
    is_usual = not is_chosen and not os.environ.get("PORT") and not config.port
    first = DEFAULT_PORT if is_usual else serve.address(asked)[1]
    for port in (first, *range(first + 1, min(first + PORTS_TRIED, 65_536))):
        try:
            listener = listen(HOST, port, HttpLimits())
        except UsageError as error:
            if is_chosen or "is in use" not in str(error):
                raise
            continue
        if port != first:
            note(f"port {first} is in use by something else; this is {listener.getsockname()[1]}")
        return listener
    raise UsageError(f"ports {first} to {first + PORTS_TRIED - 1} are all in use; choose one with --port")


class Known:
    """What is told once and not with every edit: models that cannot be asked, options that need a restart."""

    def __init__(self, config: Config, note: Callable[[str], None]) -> None:
        self._config = config
        self._note = note
        self._told: set[str] = set()
        self._models: set[str] = set()

    def look(self, app: App) -> None:
        for agent in app.agents:
            if agent.model is None:
                self._tell(f"agent '{agent.name}' has no model: write model='provider:name' in it, or in [tool.cairn]")
            elif isinstance(agent.model, str) and agent.model not in self._models:
                self._models.add(agent.model)
                self._begin_loading(agent.model)
        self._look_at_options()

    def _begin_loading(self, model: str) -> None:
        """A provider's library takes a second or two to import: the first answer need not wait for it."""
        from cairn.framework.cli import warming
        from cairn.harness.models.resolve import resolve

        try:
            warming.begin(resolve(model).provider)
        except UsageError as error:
            self._tell(str(error))

    def _look_at_options(self) -> None:
        with suppress(UsageError):
            now = configuration.find(self._config.root)
            for name in AT_START:
                if getattr(now, name) != getattr(self._config, name):
                    self._tell(f"{name} in [tool.cairn] has changed: it is read when `cairn dev` starts; start it again")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._note(text)
