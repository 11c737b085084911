"""A reserve of disk space beside the database, given back when the disk is full, so that work can still be settled.

Without it a full disk would also refuse the outcomes, releases and deletions that are the way out of it. While the
reserve is in use new work is refused; the store goes back to normal by itself once the reserve fits again.
"""

from __future__ import annotations

import os

#: Enough to settle some hundred submissions.
BALLAST_BYTES = 1 << 20


class Ballast:
    """The reserve at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.is_released = False

    def hold(self) -> bool:
        """The space is reserved, now or already; False when there is none."""
        try:
            self._reserve()
        except OSError:
            self._remove()
            self.is_released = True
            return False
        self.is_released = False
        return True

    def restore(self) -> bool:
        """The space is reserved again, with as much to spare; False while there is not that much.

        The spare is what keeps a store on a full disk from taking the reserve back just because nobody has used it yet.
        """
        try:
            free = os.statvfs(os.path.dirname(self._path) or ".")
        except OSError:
            return False
        return free.f_bavail * free.f_frsize >= 2 * BALLAST_BYTES and self.hold()

    def release(self) -> bool:
        """The space is free for the database; False when that had been done before."""
        if self.is_released:
            return False
        self._remove()
        self.is_released = True
        return True

    def _reserve(self) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(file).st_size == BALLAST_BYTES:
                return
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, BALLAST_BYTES)
            else:
                os.pwrite(file, b"\1" * BALLAST_BYTES, 0)
        finally:
            os.close(file)

    def _remove(self) -> None:
        try:
            os.unlink(self._path)
        except OSError:
            pass
