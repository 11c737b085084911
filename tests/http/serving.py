"""A real `cairn serve` of its own process, started as a user would, for tests that talk to it from outside.

with serving(project, target="agents.py") as server:
    httpx.get(f"{server.url}/agents/assistant/x")
    server.kill()      # SIGKILL; or stop(): SIGTERM, returns the exit code
    server.restart()   # the same port, the same store

Laws. The port is the system's choice the first time and stays afterwards, so that clients find the next life under the same
address. Who asks for a server gets one that answers /ready. What it wrote is in the message of every failure. None outlives
its block.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

CAIRN = str(Path(sys.executable).with_name("cairn"))

#: Seconds for anything that is waited for: a guard against hanging, not a measurement.
PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.02
_OUTPUT_BYTES_MAX = 1_000_000
_URL = re.compile(r"http://[\w.\[\]:-]+:\d+")
#: What a developer's shell may hold and a test must not depend on.
_NOT_INHERITED = ("CAIRN_STORE", "CAIRN_DEBUG", "PORT", "HOST")


class Server:
    """One server, through all of its lives. `url` has no slash at its end."""

    def __init__(
        self,
        project: Path,
        target: str | None,
        *,
        port: int,
        store: Path | None,
        env: Mapping[str, str],
        options: Sequence[str],
    ) -> None:
        self.project = project
        self.store = store or project / ".cairn" / "cairn.db"
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._target = [target] if target is not None else []
        self._port = port
        self._options = list(options)
        self._env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        self._env.update({"PYTHONDONTWRITEBYTECODE": "1", "CAIRN_STORE": str(self.store), **env})
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server

    @property
    def pid(self) -> int:
        return self._living.pid

    @property
    def output(self) -> str:
        """What its latest life has written so far."""
        return os.pread(self._log.fileno(), _OUTPUT_BYTES_MAX, 0).decode(errors="replace")

    def start(self) -> None:
        """Start it, and return when it is ready."""
        assert self.process is None, "it runs already"
        self.store.parent.mkdir(parents=True, exist_ok=True)
        self._log.close()
        self._log = log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        self.process = subprocess.Popen(
            self._command(), cwd=self.project, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self._until(self._has_url, "say its address")
        self._until(self._is_ready, "be ready")

    def kill(self) -> None:
        """SIGKILL: it is gone when this returns, and had no time for anything."""
        self._living.kill()
        self._living.wait(PATIENCE_SECONDS)
        self.process = None

    def stop(self) -> int:
        """SIGTERM: it ended in order; its exit code."""
        self._living.send_signal(signal.SIGTERM)
        try:
            code = self._living.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not stop after SIGTERM:\n{self.output}") from None
        self.process = None
        return code

    def restart(self) -> None:
        """Its next life, on the same port and store; a life that has not ended is stopped first."""
        if self.process is not None:
            self.stop()
        self.start()

    def close(self) -> None:
        """No process is left."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_SECONDS)
            self.process = None
        self._log.close()

    @property
    def _living(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "the server does not run"
        return self.process

    def _command(self) -> list[str]:
        return [CAIRN, "serve", *self._target, "--port", str(self._port), *self._options]

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self._living.poll() is None, f"the server ended with {self._living.returncode}:\n{self.output}"
            assert time.monotonic() < end, f"the server did not {what}:\n{self.output}"
            time.sleep(_POLL_SECONDS)

    def _has_url(self) -> bool:
        found = _URL.search(self.output)
        if found is None:
            return False
        self.url = found.group()
        self._port = int(self.url.rpartition(":")[2])
        return True

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def serving(
    project: Path,
    target: str | None = None,
    *,
    port: int = 0,
    store: Path | None = None,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[Server]:
    """A server of the project in the folder `project` that is ready, and gone after the block.

    `target` is what `cairn serve` is given (a file, relative to the project); without it the project is discovered. `store`
    is the store's file; by default the project's own. `options` are further ones of the command line.
    """
    server = Server(project, target, port=port, store=store, env=env or {}, options=options)
    try:
        server.start()
        yield server
    finally:
        server.close()
