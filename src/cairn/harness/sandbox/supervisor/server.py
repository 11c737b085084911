"""The program: waits for commands on a socket, forks a supervisor for each, ends when the worker does.

A server that forks is used, and not one new interpreter per command, because a fork of this small process costs a tenth of an
interpreter's start and never stops the worker's event loop.
"""

from __future__ import annotations

import os
import select
import signal
import socket

from .command import PARENT_WATCH_SECONDS, Supervisor, on_parent_death


def main(descriptor: int, worker: int) -> None:
    """Serve until the worker closes its end or dies. Each message is one byte that carries two descriptors."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects supervisors that end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    is_told = on_parent_death(worker, lambda: os._exit(0))
    requests = socket.socket(fileno=descriptor)
    poller = select.poll()
    poller.register(requests, select.POLLIN)
    while True:
        while not poller.poll(None if is_told else PARENT_WATCH_SECONDS * 1000):
            if os.getppid() != worker:
                return
        data, descriptors, _, _ = socket.recv_fds(requests, 1, 2)
        if not data:
            return
        server = os.getpid()
        if os.fork() == 0:
            try:
                requests.close()
                _supervise(descriptors[0], descriptors[1], server)
            finally:
                os._exit(0)
        for received in descriptors:
            os.close(received)


def _supervise(control: int, output: int, server: int) -> None:
    for descriptor in (control, output):
        os.set_inheritable(descriptor, False)  # received descriptors are inheritable; the command must not hold them
    Supervisor(socket.socket(fileno=control), output, server).run()
