"""The supervisor of one command: starts it, says how it ended, and ends its whole tree when told to or when left alone.

It talks with the worker over one socket. In comes a request (length, then JSON), then single bytes: `g` go, `e` end the tree.
Out go JSON lines, in this order: `["ready", pid, group, started]`, then after `g` either `["failed", why]` or
`["exited", code, others, status]` (others: how many processes of the tree still live; status: what the command's program wrote
to descriptor 3, when the request asked for `status`), and always last `["gone", stuck]`.

Laws. End of file on the socket means the worker is dead: the tree is ended with a short grace. So does the death of the server,
learned from the kernel (PR_SET_PDEATHSIG) where it can tell, by looking four times a second where it cannot. The supervisor
is never in the group or session of its command, so `kill 0` in a script does not reach it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

# The script runs as top-level package `supervisor`, the worker imports it as part of Cairn: relative works for both.
from . import confine, processes

#: Between SIGTERM and SIGKILL when the worker is gone: the promise is that nothing outlives it by more than a second.
ORPHAN_GRACE_SECONDS = 0.3

#: How often a parent's death is looked for where the kernel does not announce it.
PARENT_WATCH_SECONDS = 0.25

#: The descriptor on which a launcher says how it went, where the request asks for it; and the most that is read of it.
STATUS_DESCRIPTOR = 3
STATUS_BYTES_MAX = 64

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PARENT_DIED = signal.SIGUSR1
_prctl: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


def on_parent_death(parent: int, callback: Callable[[], None]) -> bool:
    """Call `callback` when `parent` dies; False if this system cannot tell and the caller has to look.

    The kernel sends the signal when the *thread* that forked us ends, so the parent's pid decides, not the signal.
    """
    signal.signal(_PARENT_DIED, lambda *_: callback() if os.getppid() != parent else None)
    told = _prctl is not None and _prctl(_PR_SET_PDEATHSIG, _PARENT_DIED) == 0
    if os.getppid() != parent:
        callback()
    return told


class Supervisor:
    """One command and everything that descends from it."""

    def __init__(self, control: socket.socket, output: int, server: int) -> None:
        self._control = control
        self._output = output
        self._server = server
        self._child = 0
        self._mark = ""
        self._go = self._error = self._status = -1
        self._spares_child = False
        self._code: int | None = None
        self._failure = b""
        self._children = True
        self._told_exit = False
        self._ending = False
        self._orphaned = False

    def run(self) -> None:
        """Supervise to the end. When it returns, nothing of the tree lives (or `stuck` said what could not be killed)."""
        os.setsid()
        self._reaper = _prctl is not None and _prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0
        wake_in, wake_out = os.pipe()
        for end in (wake_in, wake_out):
            os.set_blocking(end, False)
        self._wake = wake_in
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        told = on_parent_death(self._server, self._leave)
        self._tick = None if told and self._reaper else PARENT_WATCH_SECONDS

        request = self._receive()
        if request is None:
            return
        me = processes.lookup(os.getpid())
        started = me.started if me else 0.0
        self._mark = processes.mark(os.getpid(), started)
        request["env"][processes.MARK] = self._mark
        self._start(request)
        self._say("ready", os.getpid(), self._child, started)
        self._supervise(float(request["grace"]))

    # ------------------------------------------------------------------ what may happen

    def _end(self) -> None:
        self._ending = True

    def _leave(self) -> None:
        self._orphaned = self._ending = True

    def _receive(self) -> dict[str, Any] | None:
        data = self._read_exactly(4)
        body = self._read_exactly(int.from_bytes(data, "big")) if data else b""
        return json.loads(body) if body else None

    def _read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._control.recv(size - len(data))
            if not part:
                return b""
            data += part
        return bytes(data)

    def _say(self, *message: object) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._leave()

    # ------------------------------------------------------------------ the command

    def _start(self, request: dict[str, Any]) -> None:
        """Fork the shell, held before its first instruction until `g` arrives: the worker first records who it will be."""
        self._spares_child = bool(request.get("status"))
        go_out, self._go = os.pipe()
        self._error, error_in = os.pipe()
        self._status, status_in = os.pipe()
        os.set_blocking(self._status, False)
        error_in, status_in = confine.aside(error_in), confine.aside(status_in)
        me = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            try:
                self._become(request, me, go_out, status_in)
            except OSError as error:
                os.write(error_in, f"{error.strerror}: {error.filename or request['argv'][0]}".encode(errors="replace"))
            finally:
                os._exit(127)
        for descriptor in (go_out, error_in, status_in, self._output):
            os.close(descriptor)

    def _become(self, request: dict[str, Any], supervisor: int, go: int, status: int) -> None:
        os.setsid()
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # An ignored signal stays ignored across exec: Python ignores SIGPIPE, and `yes | head` needs it. And before exec, the
        # handlers copied from the supervisor would swallow a TERM.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.close(self._go)  # or our own copy would keep the read below from ever seeing the end
        if os.getppid() != supervisor or os.read(go, 1) != b"g":
            os._exit(0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(self._output, 1)
        os.dup2(self._output, 2)
        if request.get("status"):
            os.dup2(status, STATUS_DESCRIPTOR)
        confine.apply(request.get("confine", {}))
        os.chdir(request["cwd"])
        os.execve(request["argv"][0], request["argv"], request["env"])

    def _supervise(self, grace_seconds: float) -> None:
        poller = select.poll()
        for descriptor in (self._control.fileno(), self._wake, self._error):
            poller.register(descriptor, select.POLLIN)
        while not self._is_over():
            if self._ending:
                stuck = self._end_tree(poller, grace_seconds)
                self._tell_exit()
                self._say("gone", stuck)
                return
            self._pump(poller, self._tick)
            self._tell_exit()
        self._say("gone", 0)

    def _is_over(self) -> bool:
        return self._told_exit and not self._children

    def _tell_exit(self) -> None:
        if self._code is None or self._told_exit:
            return
        self._told_exit = True
        if self._failure:
            self._say("failed", self._failure.decode(errors="replace"))
        else:
            self._say("exited", self._code, len(self._living()) if self._children else 0, self._read_status())

    def _read_status(self) -> str:
        try:
            return os.read(self._status, STATUS_BYTES_MAX).decode(errors="replace")
        except BlockingIOError:
            return ""

    def _pump(self, poller: select.poll, timeout_seconds: float | None) -> None:
        """Wait for something to happen, take note of it."""
        for descriptor, _ in poller.poll(None if timeout_seconds is None else timeout_seconds * 1000):
            if descriptor == self._control.fileno():
                orders = self._orders()
                self._obey(orders)
                if not orders:
                    poller.unregister(descriptor)
            elif descriptor == self._wake:
                os.read(self._wake, 4096)
            elif descriptor == self._error:
                poller.unregister(descriptor)
                self._failure = os.read(self._error, 4096)
        if os.getppid() != self._server:
            self._leave()
        self._collect()

    def _orders(self) -> bytes:
        try:
            return self._control.recv(64)
        except ConnectionError:
            return b""

    def _obey(self, orders: bytes) -> None:
        if not orders:
            self._leave()
        if b"g" in orders and self._go >= 0:
            os.write(self._go, b"g")
            self._withhold()
        if b"e" in orders:
            self._end()

    def _withhold(self) -> None:
        if self._go >= 0:
            os.close(self._go)
            self._go = -1

    def _collect(self) -> None:
        """Reap every child that has ended, adopted ones too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._children = not self._reaper and bool(self._living())
                return
            if pid == 0:
                self._children = True
                return
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code
                if self._error >= 0:
                    # The pipe closes at exec, so by now it holds the whole reason why there was none.
                    self._failure = self._failure or os.read(self._error, 4096)

    def _living(self) -> list[processes.Process]:
        found = processes.table()
        tree = processes.descendants(os.getpid(), found)
        if not self._reaper:  # orphans have left the tree; those that kept the group or the mark can still be found
            known = {process.pid for process in tree} | {os.getpid()}
            others = [process for process in found.values() if process.pid not in known]
            carriers = {process.pid for process in processes.marked(self._mark, others)}
            tree += [process for process in others if process.group == self._child or process.pid in carriers]
        return [process for process in tree if processes.is_running(process)]

    def _end_tree(self, poller: select.poll, grace_seconds: float) -> int:
        """TERM, a grace, KILL; returns how many could not be killed. The worker's death meanwhile shortens the grace."""
        self._withhold()  # what has not begun will not
        for process in self._living():
            if self._spares_child and process.pid == self._child:
                continue  # a launcher: with it everything below it would be killed at once, without a grace
            processes.signal_process(process, signal.SIGTERM)
            processes.signal_process(process, signal.SIGCONT)  # a stopped process would not see the TERM
        begun = time.monotonic()
        self._collect()
        while self._children:
            allowed = min(grace_seconds, ORPHAN_GRACE_SECONDS) if self._orphaned else grace_seconds
            left = begun + allowed - time.monotonic()
            if left <= 0:
                break
            self._pump(poller, min(left, PARENT_WATCH_SECONDS))
        stuck = processes.kill(self._living, self._collect)
        self._collect()
        return len(stuck)
