"""Processes that serve a harness and are killed: `python -m tests.harnesses.victim LIBRARY`, one JSON order a line on stdin.

The server imports the library once and forks a process for each order; a victim is a process all the same.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from pathlib import Path

import msgspec
from tests.harnesses.shops import Shop, talk

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, OwnerLocks, Worker, WorkerSettings
from cairn.runtime.storage import SqliteStore, threaded  # noqa: F401 - imported once, before the server forks
from cairn.testing.world import World

#: Seconds before a victim that hangs is killed by its alarm clock, and the test fails.
PATIENCE_SECONDS = 40


class Order(msgspec.Struct):
    """Serve the conversation in this directory until it is answered, or until the tool is reached in which to die."""

    directory: str
    url: str
    tool: str = ""
    when: str = ""


async def serve(shop: Shop, order: Order) -> list[str]:
    """One life. Its pid is in the directory, for those who kill."""
    directory, clock, ids = Path(order.directory), SystemClock(), SystemIds()
    (directory / "pid").write_text(str(os.getpid()))
    store = SqliteStore(str(directory / "cairn.db"), clock=clock, ids=ids)
    await store.open()

    def around(tool: str, when: str) -> None:
        if (tool, when) == (order.tool, order.when):
            os.kill(os.getpid(), signal.SIGKILL)

    application = shop.application(World(directory / "world.jsonl"), order.url, around)
    owners, settings = OwnerLocks(directory / "owners"), WorkerSettings(sweep_seconds=0.05)
    async with Worker(store, [application], clock=clock, ids=ids, owners=owners, settings=settings):
        answers = await talk(Client(store, application, clock=clock, ids=ids))
    await store.close()
    return answers


def victim(shop: Shop, order: Order) -> None:
    """The forked process; it never returns."""
    status = 1
    try:
        signal.alarm(PATIENCE_SECONDS)
        answers = asyncio.run(serve(shop, order))
        (Path(order.directory) / "answers.json").write_bytes(msgspec.json.encode(answers))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(library: str) -> None:
    shop = Shop(library)
    shop.application(World(), "http://127.0.0.1:9")  # what it imports, it imports once
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the example prints is no answer to an order
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        pid = os.fork()
        if pid == 0:
            victim(shop, order)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
