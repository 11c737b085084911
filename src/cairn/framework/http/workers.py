"""Several processes on one socket and one store: started, kept alive and stopped together by one that does nothing else.

Laws. The socket is the parent's and outlives every child: a client that connects while a child is being replaced waits instead
of being refused. Children are forked before any thread or loop exists. One that dies is started again, slower each time it
dies young. The first must have come up before the others start, so that what is wrong with the application is said once. A
child whose parent is gone stops by itself.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from cairn.clock import Clock
from cairn.framework.http.server import EXIT_FORCED, SAME_SIGNAL_SECONDS

#: A child that dies within so many seconds of its start died young: the next start waits.
YOUNG_SECONDS = 10.0
#: The first and the longest of these waits; they double.
BACKOFF_BASE_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
#: Seconds the children have to stop by themselves, beyond their own limits, before they are killed (drain 10 s, work 30 s).
STOP_SECONDS = 45.0


@dataclass(slots=True)
class Lifeline:
    """What a child is given: a pipe that ends when its parent does, and one to say that it is ready."""

    alive: int
    ready: int

    def watch(self, stop: asyncio.Event) -> None:
        """Set `stop` when the parent is gone. Inside of a running loop."""
        asyncio.get_running_loop().add_reader(self.alive, stop.set)

    def say(self, text: str) -> None:
        """The child is ready; `text` reaches the parent."""
        with suppress(OSError):
            os.write(self.ready, text.encode())
            os.close(self.ready)


@dataclass(slots=True)
class _Child:
    pid: int
    ready: int
    """The end of its pipe to read from; -1 once it has spoken."""
    started_at: float


@dataclass(slots=True)
class Supervisor:
    """`run` returns when every child has ended."""

    child: Callable[[Lifeline], int]
    """Runs in the child, from start to end; returns its exit code."""
    count: int
    clock: Clock
    on_ready: Callable[[str], None]
    """The first child is ready, and has said this."""
    note: Callable[[str], None]
    """Where what happens to children is written."""
    _children: dict[int, _Child] = field(default_factory=dict)
    _young_deaths: int = 0
    _next_start: float = 0.0
    _is_up: bool = False
    _stopping_since: float | None = None
    _exit: int = 0
    _alive: int = -1
    _alive_end: int = -1

    def run(self) -> int:
        """The exit code: 0 after a clean stop, the first child's when it never came up, 130 when forced."""
        self._alive, self._alive_end = os.pipe()
        bell, ring = os.pipe()
        for each in (bell, ring):
            os.set_blocking(each, False)
        before_bell = signal.set_wakeup_fd(ring)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        before = {number: signal.signal(number, self._caught) for number in numbers}
        try:
            while self._round(bell):
                pass
            return self._exit
        finally:
            for child in self._children.values():
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_bell)
            for each in (self._alive, self._alive_end, bell, ring):
                os.close(each)

    def _round(self, bell: int) -> bool:
        """Bury, start, listen, wait; False when it is over."""
        self._bury()
        now = self.clock.monotonic()
        if self._stopping_since is not None:
            if not self._children:
                return False
            if now - self._stopping_since > STOP_SECONDS:
                self._kill("did not stop in time")
            timeout = 1.0
        else:
            wanted = self.count if self._is_up else 1
            if len(self._children) < wanted and now >= self._next_start:
                self._start(now)
                return True
            timeout = max(0.01, self._next_start - now) if len(self._children) < wanted else 60.0
        speaking = {child.ready: child for child in self._children.values() if child.ready >= 0}
        readable, _, _ = select.select([bell, *speaking], [], [], timeout)
        if bell in readable:
            with suppress(BlockingIOError):
                os.read(bell, 4096)
        for ready in readable:
            if ready in speaking:
                self._hear(speaking[ready])
        return True

    def _start(self, now: float) -> None:
        ready, say = os.pipe()
        # No signal in between: the child would answer it as the parent, or the parent without knowing of the child.
        numbers = (signal.SIGTERM, signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        pid = os.fork()
        if pid == 0:
            os.close(ready)
            os.close(self._alive_end)
            self._become_child(Lifeline(self._alive, say), numbers)
        self._children[pid] = _Child(pid, ready, now)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        os.close(say)

    def _become_child(self, line: Lifeline, blocked: tuple[signal.Signals, ...]) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Ctrl-C reaches all processes of a terminal: only the parent answers it, once for all.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
            code = self.child(line)
        finally:
            # Nothing of the parent's may run in a child, whatever was raised: not its cleanup, not its exit handlers.
            os._exit(code)

    def _hear(self, child: _Child) -> None:
        said = os.read(child.ready, 65_536)
        os.close(child.ready)
        child.ready = -1
        if said and not self._is_up:
            self._is_up = True
            self.on_ready(said.decode())

    def _bury(self) -> None:
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            if child.ready >= 0:
                self._hear(child)  # it may have spoken before it died
            del self._children[child.pid]
            if self._stopping_since is None:
                self._mourn(child, os.waitstatus_to_exitcode(status))

    def _mourn(self, child: _Child, code: int) -> None:
        now = self.clock.monotonic()
        if not self._is_up:
            self._exit = code if code > 0 else 1
            self._stopping_since = now
            return
        self._young_deaths = self._young_deaths + 1 if now - child.started_at < YOUNG_SECONDS else 0
        wait = min(BACKOFF_MAX_SECONDS, BACKOFF_BASE_SECONDS * 2 ** (self._young_deaths - 1)) if self._young_deaths else 0.0
        self._next_start = now + wait
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self.note(f"server process {child.pid} ended {how}; another one starts" + (f" in {wait:g} s" if wait else ""))

    def _caught(self, number: int, _: object) -> None:
        if number == signal.SIGCHLD:
            return  # the bell has rung, which is all it is for
        now = self.clock.monotonic()
        if self._stopping_since is None:
            self._stopping_since = now
            for child in self._children.values():
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        elif now - self._stopping_since > SAME_SIGNAL_SECONDS:
            self._exit = EXIT_FORCED
            self._kill("was stopped at once")

    def _kill(self, why: str) -> None:
        for child in self._children.values():
            self.note(f"server process {child.pid} {why}")
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
