"""`cairn run` that kills itself: with SIGKILL, before or after exactly the durable write it is told to.

    CAIRN_TEST_CRASH=after:7 python tests/system/victim.py run triage.py "…" --id x --store PATH

The command is the real one; only the store it opens is wrapped, at the one place where it is opened. Without a crash point it
runs to its end and writes the number of its durable writes to the file `CAIRN_TEST_WRITES`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from cairn.framework import app
from cairn.framework.cli import main
from cairn.runtime.storage import SqliteStore
from cairn.testing.faults import Crash, FaultyStore, crash_from_environment

opened: list[FaultyStore] = []


def dying_store(path: str, **options: Any) -> FaultyStore:
    asked = crash_from_environment()
    crash = Crash(asked.at, asked.when) if asked is not None else None
    # Not an exit but the signal itself: nothing of this process runs after it, on any thread.
    store = FaultyStore(
        SqliteStore(path, **options), crash=crash, faults=frozenset(), on_crash=lambda: os.kill(os.getpid(), signal.SIGKILL)
    )
    opened.append(store)
    return store


if __name__ == "__main__":
    app.SqliteStore = dying_store  # type: ignore[assignment,misc]
    code = main(sys.argv[1:])
    if counted := os.environ.get("CAIRN_TEST_WRITES"):
        Path(counted).write_text(str(sum(store.writes for store in opened)))
    sys.exit(code)
