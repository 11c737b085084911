"""Which conversation a command means when it names none, and what of it goes on.

Laws. Looking changes nothing. A run that a live process carries on is its own affair: the same words typed a second time
beside it begin a second one; typed again after it died, they continue the first.
"""

from __future__ import annotations

import hashlib
import math
import socket
from typing import Any

import msgspec

from cairn.framework.app import App
from cairn.harness.agent import Agent
from cairn.harness.records import Delivery
from cairn.ids import SystemIds
from cairn.runtime.owners import beside
from cairn.runtime.state import FiberState
from cairn.runtime.storage.store import Address, WorkerRow

#: How the ids begin that a command without `--id` gives. Only such conversations are continued without being named.
PREFIX = "run"
#: Unsettled conversations that are looked at for the message that was typed, newest first; each costs a fold.
LOOKED_AT_MAX = 20
#: Alarms that are listed to find them.
ALARMS_MAX = 2_000


async def id_for(app: App, agent: Agent[Any], message: str, key: str | None) -> str:
    """The conversation of a command without `--id`: the one that was left with this very message, or a new one. A key names
    its conversation too: the same key is the same message, so it cannot be in two."""
    if key is not None:
        return f"key_{hashlib.sha256(key.encode()).hexdigest()[:26]}"
    return await _left_behind(app, agent, message) or SystemIds().new(PREFIX)


async def _left_behind(app: App, agent: Agent[Any], message: str) -> str | None:
    """The newest conversation nobody carries on whose unsettled message is this one."""
    alive = [worker.id for worker in await _live_workers(app)]
    due = await app.store.due((agent.name,), math.inf, ALARMS_MAX, exclude_owners=alive)
    ours = {row.n: row.address for row in due if row.address.id.startswith(f"{PREFIX}_") and row.address.tenant == "default"}
    for n in sorted(ours, reverse=True)[:LOOKED_AT_MAX]:
        pending = await app.conversation(agent, ours[n].id).unsettled()
        if any(body(fiber) == message for fiber in pending):
            return ours[n].id
    return None


def body(fiber: FiberState) -> str:
    """The text of a submission's message."""
    return msgspec.json.decode(fiber.arguments, type=Delivery).body


async def live_owner(app: App, address: Address) -> str:
    """Which other process carries the conversation on, as a person would say it; empty when none does."""
    row = await app.store.find(address)
    for worker in await _live_workers(app):
        if row is not None and worker.id == row.owner:
            here = worker.host == socket.gethostname()
            return f"process {worker.pid}" + ("" if here else f" on {worker.host}")
    return ""


async def _live_workers(app: App) -> list[WorkerRow]:
    """The workers of this store that are not proved dead, without our own."""
    owners = beside(app.store)
    own = app.worker.id if app.worker is not None else ""
    return [worker for worker in await app.store.workers() if worker.id != own and not owners.is_dead(worker)]
