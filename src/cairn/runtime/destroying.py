"""The end of an instance: asked for in its log, brought about by whoever owns it, its sub-objects first.

Laws. That it is to be destroyed is durable before anything of it goes, and whoever owns it from then on does nothing else: a
process that dies in between leaves the marker and an alarm. A sub-object is in its parent's log before it exists and until it
is gone, so none is left behind. A deletion is one transaction of the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from cairn.errors import NotFound, StoreError, UsageError
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.instance import Instance, wake_now
from cairn.runtime.settings import APPEND_RETRY_WAIT_SECONDS, DESTROY_WAIT_SECONDS
from cairn.runtime.storage.store import Address, Append, Batch, Store
from cairn.runtime.sub_objects import SubObject, sub_id, sub_key

logger = logging.getLogger("cairn.runtime")


async def ask(store: Store, n: int, wall: float) -> None:
    """The instance is to be destroyed. *Durable*; *idempotent*: nothing when it is gone."""
    request = Append(n, Batch(r.encode([r.DestroyRequested(at=wall)])), due=(wake_now(wall),))
    try:
        await store.append(request)
    except NotFound:
        return


async def until_gone(store: Store, n: int) -> None:
    """Return when the instance is deleted, by any process. *Cancelled*: it goes on."""
    after = log.BEGINNING
    try:
        while True:
            after = await store.changed(n, after)
    except NotFound:
        return


async def finish(instance: Instance) -> bool:
    """Everything of the instance has stopped: its sub-objects are destroyed, then it is deleted, and this is fenced.

    False when some of them are not gone yet: they may need the place this one has in memory. Ask again later.
    """
    await instance.sync()
    if not await _end_all(instance, instance.runtime.subs.values()):
        return False
    await instance.store.delete(instance.n)
    instance.fence()
    forget = getattr(instance.application, "forget", None)
    if forget is not None:
        await forget(instance.uid)
    return True


async def _end_all(instance: Instance, subs: Iterable[SubObject]) -> bool:
    """They are asked to go, and waited for a while; whether all are gone."""
    waits = []
    for sub in subs:
        row = await instance.store.find(_address(instance, sub))
        if row is not None:
            await ask(instance.store, row.n, instance.clock.wall())
            waits.append(asyncio.ensure_future(until_gone(instance.store, row.n)))
    if not waits:
        return True
    try:
        _, late = await asyncio.wait(waits, timeout=DESTROY_WAIT_SECONDS)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    if late:
        logger.info("%s waits for %d sub-objects to be destroyed first", instance.address, len(late))
    return not late


# --- sub-objects of one that stays


async def birth(instance: Instance, kind: str, name: str) -> None:
    """The parent has the sub-object in its log: it may be made. *Durable*. *Raises* UsageError while one of that name goes."""
    known = instance.runtime.subs.get(sub_key(kind, name))
    if known is not None and known.leaving:
        raise UsageError(f"sub-object {kind} '{name}' of {instance.address} is being destroyed; call it again when it is gone")
    if known is None:
        await instance.append([r.SubObjectAdded(kind=kind, name=name, at=instance.clock.wall())])


async def remove_sub(instance: Instance, kind: str, name: str) -> None:
    """The sub-object is gone. *Durable* from the first line on: it comes to its end without the caller. *Idempotent*."""
    known = instance.runtime.subs.get(sub_key(kind, name))
    if known is None:
        return
    if not known.leaving:
        now = instance.clock.wall()
        await instance.append([r.SubObjectRemoved(kind=kind, name=name, at=now)], due=(wake_now(now),))
    await _remove(instance, SubObject(kind, name, leaving=True))


async def finish_subs(instance: Instance) -> None:
    """Sub-objects that were to go when a process died are gone."""
    for sub in [sub for sub in instance.runtime.subs.values() if sub.leaving]:
        await _remove(instance, sub)


async def _remove(instance: Instance, sub: SubObject) -> None:
    while not await _is_ended(instance, sub):
        continue
    known = instance.runtime.subs.get(sub_key(sub.kind, sub.name))
    if known is not None and known.leaving:  # else somebody was faster, and it may be there anew
        gone = r.SubObjectRemoved(kind=sub.kind, name=sub.name, at=instance.clock.wall(), gone=True)
        await instance.append([gone])


async def _is_ended(instance: Instance, sub: SubObject) -> bool:
    try:
        return await _end_all(instance, [sub])
    except StoreError as error:
        if not error.retryable:
            raise
        await instance.clock.sleep(APPEND_RETRY_WAIT_SECONDS)
        return False


def _address(instance: Instance, sub: SubObject) -> Address:
    address = instance.address
    return Address(sub.kind, sub_id(address.kind, address.id, sub.name), address.tenant)
