"""The write turn: processes take turns at beginning a transaction.

SQLite's own waiting is a lottery: with four busy writers one got a fortieth of another's commits. An exclusive `flock` on a
file beside the database is a queue in the kernel, and is gone with its holder. Alone it is not fair either: who gives it
and wants it again at once is faster than who has to be woken. So who waits says so, by a shared lock on a second file, and
who gives the turn while somebody waits lets a moment pass. A process that is stopped while it waits costs the others that
moment and no more; one that is stopped while it has the turn stops them (there is no other meaning of a turn), and the
file says who took it last. The name is for people; it decides nothing.
"""

from __future__ import annotations

import fcntl
import os
import threading

from cairn.errors import StoreBusy

#: Pause between tries of a caller that may not block its thread (the inline store): short against one commit's sync.
RETRY_SECONDS = 0.001

#: Pause for whoever waits: some times what it takes to wake a process (0.05 ms).
YIELD_SECONDS = 0.0002

#: The name in the file, at most.
HOLDER_BYTES_MAX = 200


class Turn:
    """One process's way to the turn. `take` and `give` are called by one thread, `holder` by any."""

    def __init__(self, path: str) -> None:
        self._file = _opened(path + ".turn")
        self._waiting = _opened(path + ".wait")
        self._pause = threading.Event()
        self.name = "no worker"

    def take(self) -> None:
        """The turn is this process's. Waits for as long as that takes."""
        if self.take_now():
            return
        fcntl.flock(self._waiting, fcntl.LOCK_SH)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._waiting, fcntl.LOCK_UN)
        self._sign()

    def take_within(self, seconds: float) -> bool:
        """The turn is this process's, or False: somebody else kept it for all that time."""
        for _ in range(max(1, round(seconds / RETRY_SECONDS))):
            if self.take_now():
                return True
            self._pause.wait(RETRY_SECONDS)
        return False

    def take_now(self) -> bool:
        """The turn is this process's, or False at once."""
        if not _try(self._file):
            return False
        self._sign()
        return True

    def give(self) -> bool:
        """Others may have the turn; whether any waits for it, and should be stood back for."""
        others_wait = not _try(self._waiting)
        if not others_wait:
            fcntl.flock(self._waiting, fcntl.LOCK_UN)
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return others_wait

    def stand_back(self) -> None:
        """Whoever waits has had time to wake up and take the turn."""
        self._pause.wait(YIELD_SECONDS)

    def holder(self) -> str:
        """Who took the turn last."""
        text = os.pread(self._file, HOLDER_BYTES_MAX, 0).decode("utf-8", "replace").strip("\0\n ")
        return text or "an unknown process"

    def close(self) -> None:
        os.close(self._file)
        os.close(self._waiting)

    def _sign(self) -> None:
        # Read before writing: while one process writes alone, its turns dirty no page of this file.
        name = f"{self.name} (pid {os.getpid()})\n".encode()[:HOLDER_BYTES_MAX].ljust(HOLDER_BYTES_MAX, b"\0")
        if os.pread(self._file, HOLDER_BYTES_MAX, 0) != name:
            os.pwrite(self._file, name, 0)


def busy(where: str, holder: str) -> StoreBusy:
    """Somebody holds the write turn and does not let go."""
    return StoreBusy(
        f"{where}: {holder} holds the write turn and does not let go; it may be stopped or in a debugger. "
        "Nothing was written. Continue or end that process; writing goes on by itself then."
    )


def _opened(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
