"""A real process with a store in a file, killed with SIGKILL while its calls wait; others answer; another process goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cairn.clock import SystemClock
from cairn.framework.cli.approvals import handle
from cairn.harness.handle import ConversationHandle
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address

ROOT = Path(__file__).parents[2]

#: Seconds for anything that is waited for: a guard against hanging.
PATIENCE_SECONDS = 30

#: Serves the shop until it is killed; says so when it does. Each payment is a line in a file that no crash undoes.
VICTIM = """
import asyncio, sys, os
from cairn import Agent, App, Context
from cairn.testing.scripted import Call, ScriptedModel, by_turn

calls = [Call("pay", {"amount": 1}), Call("pay", {"amount": 2}), Call("look")]
shop = Agent("shop", model=ScriptedModel(by_turn([calls, "Done."])))

@shop.tool(approval=True)
async def pay(ctx: Context, amount: int) -> str:
    "Pay."
    paid = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(paid, f"{ctx.call} {amount}\\n".encode())
    return f"paid {amount}"

@shop.tool(repeat="safe")
def look() -> str:
    "Look."
    return "seen"

async def main():
    async with App([shop], store=sys.argv[1]):
        print("serving", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""

pytestmark = pytest.mark.system


def serving(store: Path, paid: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(store), str(paid)], env=environment, stdout=subprocess.PIPE, cwd=store.parent
    )
    assert process.stdout is not None and process.stdout.readline() == b"serving\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.wait(10) == -signal.SIGKILL


def test_what_was_answered_while_nobody_lived_is_done_once_by_the_next_process(tmp_path: Path) -> None:
    """T3, S8, S9, L2: killed while parked, answered while down, killed again at once, finished by a third."""
    store, paid = tmp_path / "it.db", tmp_path / "paid"

    async def main() -> None:
        it = SqliteStore(str(store), clock=SystemClock(), ids=SystemIds())
        await it.open()
        shop: ConversationHandle = handle(it, Address("shop", "1"))
        first = serving(store, paid)
        receipt = await shop.send("Buy it.")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                questions = await shop.questions()
                results = [result for entry in await shop.history() for result in entry.results.values()]
                if len(questions) == 2 and results:  # both wait, and what need not has its outcome
                    break
                await asyncio.sleep(0.02)
        kill(first)

        one, two = questions
        await shop.approve(two.call, digest=two.digest, by="ann")
        assert [each.call for each in await shop.questions()] == [one.call]
        second = serving(store, paid)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if paid.exists():
                    break
                await asyncio.sleep(0.005)
        kill(second)
        await shop.reject(one.call, "once is enough", digest=one.digest, by="ann")

        third = serving(store, paid)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await receipt.reply()).text == "Done."
        kill(third)
        (entry,) = [each for each in await shop.history() if each.calls]
        outcomes = [entry.results[call.id].outcome for call in entry.calls]
        # Killed beside the payment: its outcome is known if it reached the log first, and it is never paid twice.
        assert outcomes[0] == "rejected" and outcomes[1] in ("ok", "unknown") and outcomes[2] == "ok"
        assert await it.check() == []
        await it.close()

    asyncio.run(main())

    assert paid.read_text().splitlines() == ["call_0_1 2"]
