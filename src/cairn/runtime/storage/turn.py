"""The write turn: processes queue for the right to begin a transaction, in order of arrival.

SQLite's own waiting is a lottery: with four busy writers one got a fortieth of another's commits. An exclusive `flock` on a
file beside the database is a queue in the kernel, and is gone with its holder. The file says who took it last, so that
others can name a process that was stopped while holding it. The name is for people; it decides nothing.
"""

from __future__ import annotations

import fcntl
import os
import threading

#: Pause between tries of a caller that may not block its thread (the inline store): short against one commit's sync.
RETRY_SECONDS = 0.001

#: The name in the file, at most.
HOLDER_BYTES_MAX = 200


class Turn:
    """One process's place in the queue. `take` and `give` are called by one thread, `holder` by any."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.name = "no worker"

    def take(self) -> None:
        """The turn is this process's. Waits for as long as that takes."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._sign()

    def take_within(self, seconds: float) -> bool:
        """The turn is this process's, or False: somebody else kept it for all that time."""
        pause = threading.Event()
        for _ in range(max(1, round(seconds / RETRY_SECONDS))):
            if self.take_now():
                return True
            pause.wait(RETRY_SECONDS)
        return False

    def take_now(self) -> bool:
        """The turn is this process's, or False at once."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self._sign()
        return True

    def give(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def holder(self) -> str:
        """Who took the turn last."""
        text = os.pread(self._file, HOLDER_BYTES_MAX, 0).decode("utf-8", "replace").strip("\0\n ")
        return text or "an unknown process"

    def close(self) -> None:
        os.close(self._file)

    def _sign(self) -> None:
        # Read before writing: while one process writes alone, its turns dirty no page of this file.
        name = f"{self.name} (pid {os.getpid()})\n".encode()[:HOLDER_BYTES_MAX].ljust(HOLDER_BYTES_MAX, b"\0")
        if os.pread(self._file, HOLDER_BYTES_MAX, 0) != name:
            os.pwrite(self._file, name, 0)
