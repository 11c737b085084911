"""One process that serves an App over HTTP: its socket, its loop, its signals, from the first connection to a clean end.

Laws. An address that others can reach is not listened on unless the App says who may come in. The App is ready (models warmed,
store open, worker claiming) before the first connection is answered. The first signal stops gracefully: nobody new gets in,
long-polls are answered and streams end at once, running work is handed back, so that the next process goes on with it within
a second; the second signal leaves at once, which costs nothing that is on the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from cairn.clock import Clock
from cairn.errors import UsageError
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.origin import is_loopback

if TYPE_CHECKING:
    from cairn.framework.app import App
    from cairn.framework.http.auth import Authenticate

logger = logging.getLogger("cairn.http")

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

#: Seconds within which signals are one: Ctrl-C reaches a process from the terminal and once more from what started it.
SAME_SIGNAL_SECONDS = 0.5
#: What a shell reports for a process that SIGINT ended.
EXIT_FORCED = 130


# --- the address ----------------------------------------------------------------------------------------------------


def listen(host: str, port: int, limits: HttpLimits) -> socket.socket:
    """A socket bound to that address, not yet answering; port 0 is any free one. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise UsageError(f"there is no address {host!r} to listen on ({error}); 127.0.0.1 is this machine only") from None
    # `localhost` is two addresses on many machines: one that everybody understands is enough.
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The kernel doubles it for its own books; connections inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.kernel_bytes // 2)
        listener.bind(address)
        listener.listen(limits.backlog)
    except OSError as error:
        listener.close()
        raise UsageError(_why_not(host, port, error)) from None
    listener.setblocking(False)
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    import errno

    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what runs there, or choose another with --port (0 for any)"
    if error.errno == errno.EACCES:
        return f"{where} may not be used by this user: ports below 1024 belong to root; choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; 127.0.0.1 is this machine only, 0.0.0.0 all of its addresses"
    return f"{where} cannot be listened on: {error.strerror}"


def url_of(listener: socket.socket) -> str:
    """Where a person on this machine finds what listens there."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_exposure(listener: socket.socket, auth: Authenticate | None) -> None:
    """Only this machine can reach the socket, or the App knows whom to let in. Raises UsageError."""
    host = listener.getsockname()[0]
    if auth is None and not is_loopback(host):
        raise UsageError(
            f"refusing to listen on {host} without authentication: whoever reaches it could talk to the agents. "
            "Say who may: --auth tokens (make one with `cairn token create`) or App(auth=…); or listen on 127.0.0.1"
        )


def raise_open_files(limits: HttpLimits) -> int:
    """This process may open as many files as the machine lets it; returns how many connections fit into that."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says unlimited and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return limits.connections_max
    fitting = max(soft - limits.connection_files_reserve, soft // 2)
    if fitting < limits.connections_max:
        logger.warning("only %d files may be open: %d connections at most (ulimit -n)", soft, fitting)
    return min(limits.connections_max, fitting)


# --- serving --------------------------------------------------------------------------------------------------------


async def serve(
    app: App,
    listener: socket.socket,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[], None] = lambda: None,
    access: str | None = "text",
) -> None:
    """Open the App, answer on the socket until `stop` is set, and close both: returns when running work is handed back.

    `access` is the form of the access log: text, json or None. *Raises* UsageError when the App lets everybody's machine in
    without asking who, whatever opening the App raises, and what ended its worker. *Cancelled*: everything is closed, in
    less order.
    """
    from cairn.framework.http.access import AccessLog
    from cairn.framework.http.serving import Serving

    check_exposure(listener, app.auth)
    connections_max = raise_open_files(app.http.limits)
    await app.warm()
    async with app:
        inner = app if access is None else AccessLog(app, app.clock, json=access == "json")
        serving = Serving(inner, app.http.limits, connections_max)
        running = asyncio.create_task(serving.serve(sockets=[listener]), name="http server")
        starting = asyncio.create_task(serving.listening.wait(), name="waiting for the beginning")
        # A worker that gave up would leave a server that takes messages and answers none: it ends with it, and says why.
        ends = [stop.wait(), *([app.worker.ended()] if app.worker is not None else [])]
        ending = [asyncio.create_task(each, name="waiting for the end") for each in ends]
        try:
            await _first(running, starting, *ending)
            if serving.listening.is_set():
                on_ready()
            await _first(running, *ending)
        finally:
            for each in (starting, *ending):
                each.cancel()
            await _let_go(app)
            serving.stop()
            await running


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """One of them is done; what it raised is raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _let_go(app: App) -> None:
    """Nothing new begins: readers are sent away, and work is handed back while they go; clients of objects before."""
    app.http.stop()
    await app.http.left()
    if app.worker is not None:
        app.worker.stop()


def run(
    make: Callable[[], App],
    listener: socket.socket,
    *,
    clock: Clock,
    on_ready: Callable[[App], None],
    access: str | None = "text",
    stop_on: Callable[[asyncio.Event], None] = lambda stop: None,
    is_supervised: bool = False,
) -> None:
    """Make the App and serve it in a loop of this thread until SIGTERM or SIGINT. *Raises* what `make` and `serve` raise.

    A supervised process leaves forcing to the process that started it. `stop_on` is told the event that stops it.
    """

    async def work() -> None:
        stop = asyncio.Event()
        with signals(stop, clock, may_force=not is_supervised):
            stop_on(stop)
            app = make()
            await serve(app, listener, stop=stop, on_ready=lambda: on_ready(app), access=access)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: half the CPU per request."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


# --- signals --------------------------------------------------------------------------------------------------------


@contextmanager
def signals(stop: asyncio.Event, clock: Clock, *, may_force: bool) -> Iterator[None]:
    """Inside the block the first SIGTERM or SIGINT sets `stop`, and another one later ends the process at once. Only the
    main thread can; in others nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    first: list[float] = []

    def caught(number: int, _: object) -> None:
        # Between two instructions of whatever runs: only what a blocked loop cannot hold up may happen here.
        now = clock.monotonic()
        if not first:
            first.append(now)
            loop.call_soon_threadsafe(stop.set)
        elif may_force and now - first[0] > SAME_SIGNAL_SECONDS:
            _leave()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, caught) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave() -> NoReturn:
    """End as a kill would: what matters is on the log, and the next process goes on from there."""
    with suppress(OSError):
        os.write(2, b"\ncairn: stopped at once; what was running goes on with the next start\n")
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(EXIT_FORCED)
