"""A durable counter: run it, kill it (Ctrl-C, or `kill -9`), run it again, and it goes on from the exact step.

    python examples/counter.py              counts to 10, one slow step at a time
    python examples/counter.py --to 20      another piece of work for the same counter
    cairn log counter/demo                  everything it knows, as it happened

Each step is shown as `new` when it was done just now, and as `from the log` when an earlier process had done it: that one
is not done again. Whatever is between the steps runs again, so effects belong in steps.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore, Worker

#: Seconds one step takes: time enough to press Ctrl-C in the middle.
STEP_SECONDS = 0.2


@dataclass
class Count:
    value: int = 0


class Counter(DurableObject[Count]):
    async def count(self, fiber: Fiber, to: int) -> int:
        print(f"counting to {to}, attempt {fiber.attempt}; the counter is at {self.state.value}", flush=True)
        for number in range(1, to + 1):
            done: list[int] = []

            async def work(number: int = number, done: list[int] = done) -> int:
                await asyncio.sleep(STEP_SECONDS)
                done.append(number)
                return number * number

            square = await fiber.step(f"square {number}", work)
            await self.change(fiber, f"add {number}", increment)
            print(f"  step {number}: {square:4}  {'new' if done else 'from the log'}", flush=True)
        return self.state.value


def increment(count: Count) -> None:
    count.value += 1


async def main(id: str, to: int, data: Path) -> None:
    clock, ids = SystemClock(), SystemIds()
    store = SqliteStore(str(data / "cairn.db"), clock=clock, ids=ids)
    await store.open()
    counter = ObjectApplication(Counter)
    handle = counter.handle(Client(store, counter, clock=clock, ids=ids), id)
    try:
        async with Worker(store, [counter], clock=clock, ids=ids):
            # The same key is the same piece of work: a second run of this program joins the first one's.
            receipt = await handle.start(Counter.count, to, key=f"to {to}")
            print(f"the counter is at {await handle.result(receipt)}")
    finally:
        await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A durable counter: kill it and run it again.")
    parser.add_argument("--id", default="demo", help="which counter (default: demo)")
    parser.add_argument("--to", type=int, default=10, help="how many steps (default: 10)")
    parser.add_argument("--data", type=Path, default=Path(".cairn"), help="where its log is (default: .cairn)")
    options = parser.parse_args()
    try:
        asyncio.run(main(options.id, options.to, options.data))
    except KeyboardInterrupt:
        print("interrupted; run it again and it goes on", flush=True)
        raise SystemExit(130) from None
