"""The secret of an installation: what the state of programs is signed with, so that nobody's bytes are taken for our own.

Laws. It is made when it is first needed, is readable by the owner alone, and never leaves the process. All replicas of one
store have to have the same: say it in the environment there. With another one nothing is lost: states are made again from the
log.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cairn.ids import secret

#: Names the secret for installations of several machines.
ENVIRONMENT = "CAIRN_SECRET"
FILE = "secret"


def secret_of(directory: str, *, lasts: bool) -> bytes:
    """The secret of the data directory; of this process alone when nothing there lasts."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return given.encode()
    if not lasts:
        return secret().encode()
    path = Path(directory) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        temporary = path.with_name(f".{FILE}.{os.getpid()}")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(file, secret().encode())
            os.fsync(file)
        finally:
            os.close(file)
        try:
            os.link(temporary, path)  # whoever is second finds the first one's
        finally:
            os.unlink(temporary)
    return path.read_bytes()
