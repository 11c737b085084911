"""`cairn serve`: agents over HTTP, for production: from what was asked for to an App, and from there to a clean end.

Laws. The socket is taken first, so that a port in use is said before anything else is done; nobody is answered before
everything is ready. stdout says once where it is, as soon as it is there; the log goes to stderr. What is discovered is served
with the options given here; an App of one's own says everything itself except where it listens.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cairn.errors import AgentFileError, UsageError
from cairn.framework import config as configuration
from cairn.framework.cli.output import Exit, guard, installed_version, json_line, line

if TYPE_CHECKING:
    from cairn.framework.app import App
    from cairn.framework.http.auth import Authenticate

#: What `--auth` offers; an App of one's own has `auth=`.
AUTHENTICATIONS = ("none", "tokens", "open")
#: Processes on one store: beyond a few per core they only wait for each other, and this is more than any machine's few.
WORKERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Request:
    """One `cairn serve`."""

    targets: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    workers: int = 1
    store: str | None = None
    auth: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    log: str = "text"
    console: bool = False
    json: bool = False


def serve(request: Request) -> int:
    """Serve until a signal says otherwise: 0 after a clean stop."""
    from cairn.clock import SystemClock
    from cairn.framework.cli import logs
    from cairn.framework.http.limits import HttpLimits
    from cairn.framework.http.server import listen, run

    if request.workers > WORKERS_MAX:
        raise UsageError(f"--workers {request.workers}: at most {WORKERS_MAX}; one or two for each core are enough")
    host, port = address(request)
    listener = listen(host, port, HttpLimits())
    logs.configure(request.log)
    clock = SystemClock()
    if request.workers > 1:
        return _supervise(request, listener)
    run(
        lambda: make(request),
        listener,
        clock=clock,
        on_ready=lambda app: _show(request, facts(app, listener, request)),
        access=None if request.log == "none" else request.log,
    )
    return Exit.OK


def _supervise(request: Request, listener: socket.socket) -> int:
    import json

    from cairn.clock import SystemClock
    from cairn.framework.http.server import run
    from cairn.framework.http.workers import Lifeline, Supervisor

    def child(life: Lifeline) -> int:
        def work() -> None:
            run(
                lambda: make(request),
                listener,
                clock=SystemClock(),
                on_ready=lambda app: life.say(json.dumps(facts(app, listener, request))),
                access=None if request.log == "none" else request.log,
                stop_on=life.watch,
                is_supervised=True,
            )

        code = guard(work)
        sys.stderr.flush()
        return code

    sys.stdout.flush()
    supervisor = Supervisor(
        child=child,
        count=request.workers,
        clock=SystemClock(),
        on_ready=lambda said: _show(request, json.loads(said)),
        note=lambda text: print(f"cairn: {text}", file=sys.stderr, flush=True),
    )
    return supervisor.run()


# --- what is served -------------------------------------------------------------------------------------------------


def address(request: Request) -> tuple[str, int]:
    """Where to listen: the options, HOST and PORT, the project, this machine only. Raises UsageError."""
    from cairn.framework.http.server import DEFAULT_HOST, DEFAULT_PORT

    config = configuration.find(folder(request.targets))
    host = request.host or os.environ.get("HOST") or config.host or DEFAULT_HOST
    given = "" if request.port is None else str(request.port)
    text = given or os.environ.get("PORT") or config.port or str(DEFAULT_PORT)
    if not text.isdecimal() or int(text) > 65_535:
        raise UsageError(f"{'--port' if given else 'PORT'} is {text!r}; it must be a number from 0 (any free port) to 65535")
    return host, int(text)


def folder(targets: Sequence[str]) -> Path:
    """Where the project is looked for."""
    if len(targets) == 1 and Path(targets[0]).is_dir():
        return Path(targets[0])
    return Path.cwd()


def make(request: Request) -> App:
    """The App that was asked for: `module:name`, agents named one by one, or all of the project. Raises UsageError."""
    config = configuration.find(folder(request.targets))
    named = application_name(request.targets, config)
    if named is not None:
        return _imported(named, config.root, request)
    return _assembled(_agents(request, config), config, request)


def application_name(targets: Sequence[str], config: configuration.Config) -> str | None:
    """`module:name`, where that is no file."""
    if len(targets) == 1:
        module, colon, name = targets[0].partition(":")
        is_dotted = all(part.isidentifier() for part in module.split("."))
        if colon and is_dotted and name.isidentifier() and not Path(module).exists():
            return targets[0]
    is_whole = not targets or (len(targets) == 1 and is_project(Path(targets[0])))
    if not is_whole:
        return None
    return config.app or ("app:app" if _makes_an_app(config.root / "app.py") else None)


def _makes_an_app(file: Path) -> bool:
    """Whether it says `app = …` and imports from Cairn: read, not run, for it may be anybody's app.py."""
    import ast

    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    imports = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    is_ours = any(module is not None and module.partition(".")[0] == "cairn" for module in imports)
    return is_ours and any(isinstance(target, ast.Name) and target.id == "app" for target in targets)


def is_project(path: Path) -> bool:
    """Whether it is a folder of a project, and not an agent's."""
    from cairn.framework.folder import is_agent_folder

    return path.is_dir() and not is_agent_folder(path)


def _imported(named: str, root: Path, request: Request) -> App:
    from cairn.framework.imported import app_named

    given = [name for name, value in (("--auth", request.auth), ("--store", request.store)) if value]
    given += [name for name, value in (("--allow-host", request.hosts), ("--allow-origin", request.origins)) if value]
    if given:
        raise UsageError(f"{named} is an App and says itself what {' and '.join(given)} would; change it there")
    return app_named(named, root, "`cairn serve`")


def _agents(request: Request, config: configuration.Config) -> list[Any]:
    from cairn.framework.project import discover, load

    targets = [target for target in request.targets if not is_project(Path(target))]
    if targets:
        return [load(target) for target in targets]
    project = discover(config)
    if project.problems:
        raise AgentFileError(f"{len(project.problems)} problems in the project", project.problems)
    if not project.agents:
        raise UsageError(
            f"there are no agents in {config.agents_folder}; write {config.agents_folder / 'NAME.py'} with "
            "`name = Agent('name', model=…)`, or name a file: cairn serve FILE"
        )
    return list(project.agents)


def _assembled(agents: list[Any], config: configuration.Config, request: Request) -> App:
    from cairn.framework.app import App
    from cairn.framework.cli.store import named

    store = request.store or os.environ.get(configuration.STORE_VARIABLE)
    where = named(store) if store else config.store or config.root / configuration.DEFAULT_STORE
    return App(
        agents,
        store=where,
        auth=authentication(request.auth or config.auth or "none"),
        hosts=(*request.hosts, *config.hosts, *_own_name(request)),
        cors=(*request.origins, *config.cors),
        proxies=request.proxies or None,
        console=request.console,
    )


def _own_name(request: Request) -> tuple[str, ...]:
    """What is listened on is a name of ours, if it is a name."""
    host = address(request)[0]
    return () if host.strip(".:0123456789") == "" or ":" in host else (host,)


def authentication(name: str) -> Authenticate | None:
    """What `--auth` means."""
    if name == "tokens":
        from cairn.framework.http.tokens import Tokens

        return Tokens()
    if name == "open":
        from cairn.framework.http.auth import open_to_everyone

        return open_to_everyone()
    if name == "none":
        return None
    raise UsageError(f"auth {name!r} is none of {', '.join(AUTHENTICATIONS)}; an App of your own takes a function")


# --- what is said ---------------------------------------------------------------------------------------------------


def facts(app: App, listener: socket.socket, request: Request) -> dict[str, Any]:
    """What a person or a program that starts a server wants to know."""
    from cairn.framework.http.auth import describe
    from cairn.framework.http.server import url_of

    models = sorted({model if isinstance(model, str) else model.spec for agent in app.agents if (model := agent.model)})
    return {
        "url": url_of(listener),
        "host": listener.getsockname()[0],
        "auth": describe(app.auth),
        "agents": [agent.name for agent in app.agents],
        "objects": list(app.classes),
        "not_isolated": [agent.name for agent in app.agents if getattr(agent.sandbox, "name", "") == "local"],
        "store": getattr(app.store, "path", ""),
        "models": models,
        "pid": os.getpid(),
        "workers": request.workers,
    }


def _show(request: Request, known: dict[str, Any]) -> None:
    if request.json:
        json_line({**known, "pid": os.getpid()})
    else:
        version = installed_version()
        line(f"cairn{f' {version}' if version else ''} is ready at {known['url']}")
        if known["host"] in ("0.0.0.0", "::"):
            line("  listens   on every address of this machine")
        line(f"  callers   {known['auth']}")
        line(f"  agents    {', '.join(known['agents']) or 'none'}")
        if known["objects"]:
            line(f"  objects   {', '.join(known['objects'])}")
        if known["not_isolated"]:
            line(f"  local()   {', '.join(known['not_isolated'])}: no isolation, commands run as this user on this machine")
        line(f"  store     {known['store']}")
        line(f"  models    {', '.join(known['models']) or 'none'}")
        if known["workers"] > 1:
            line(f"  processes {known['workers']}")
    sys.stdout.flush()
