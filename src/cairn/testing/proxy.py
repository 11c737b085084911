"""A store in front of a store: every call passes one place, `through`, which a subclass overrides.

It knows nothing of faults or histories; it exists so that each of them is one method and not one per call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from cairn.runtime.storage.store import (
    Address,
    Admitted,
    Append,
    Appended,
    Batch,
    Creation,
    Due,
    DueRow,
    Forked,
    InstanceRow,
    Problem,
    Row,
    Store,
    StoreInfo,
    TokenRow,
    UidCondition,
    WorkerRow,
)

T = TypeVar("T")

#: The calls that change a log: what a crash point is before or after.
WRITES = frozenset({"admit", "append", "claim", "release", "fork", "delete", "merge"})

#: The calls that wait for somebody else.
WAITS = frozenset({"changed", "wait_for_work"})


class StoreProxy:
    """A `Store` that hands every asynchronous call to `through` as its name, its arguments and the call itself."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    @property
    def path(self) -> str:
        """Where the store is: its owners' locks lie beside it."""
        return str(getattr(self.inner, "path", ":memory:"))

    async def through(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        """Override: do something before, after or instead of `await call()`."""
        return await call()

    async def open(self) -> None:
        return await self.through("open", (), self.inner.open)

    async def close(self) -> None:
        return await self.through("close", (), self.inner.close)

    async def admit(
        self, address: Address, creation: Creation, request: Append, uid: str | UidCondition = UidCondition.ANY
    ) -> Admitted:
        arguments = (address, creation, request, uid)
        return await self.through("admit", arguments, lambda: self.inner.admit(address, creation, request, uid))

    async def append(self, append: Append) -> Appended:
        return await self.through("append", (append,), lambda: self.inner.append(append))

    async def find(self, address: Address) -> InstanceRow | None:
        return await self.through("find", (address,), lambda: self.inner.find(address))

    async def instance(self, n: int) -> InstanceRow | None:
        return await self.through("instance", (n,), lambda: self.inner.instance(n))

    async def instances(
        self,
        *,
        kind: str | None = None,
        tenant: str | None = None,
        after: int = 0,
        limit: int = 100,
        newest_first: bool = False,
        before: int | None = None,
        alarm: str | None = None,
    ) -> list[InstanceRow]:
        arguments = (kind, tenant, after, limit, newest_first, before, alarm)
        return await self.through(
            "instances",
            arguments,
            lambda: self.inner.instances(
                kind=kind, tenant=tenant, after=after, limit=limit, newest_first=newest_first, before=before, alarm=alarm
            ),
        )

    async def read(self, n: int, after: int, *, limit: int = 1000, bytes_max: int = 4 << 20) -> list[Row]:
        arguments = (n, after, limit, bytes_max)
        return await self.through("read", arguments, lambda: self.inner.read(n, after, limit=limit, bytes_max=bytes_max))

    async def changed(self, n: int, after: int, timeout: float | None = None) -> int:
        return await self.through("changed", (n, after, timeout), lambda: self.inner.changed(n, after, timeout))

    async def boundary(self, n: int, at: int) -> int:
        return await self.through("boundary", (n, at), lambda: self.inner.boundary(n, at))

    async def fork(self, source: int, at: int, address: Address, creation: Creation) -> Forked:
        arguments = (source, at, address, creation)
        return await self.through("fork", arguments, lambda: self.inner.fork(source, at, address, creation))

    async def delete(self, n: int) -> bool:
        return await self.through("delete", (n,), lambda: self.inner.delete(n))

    async def merge(self, n: int, first: int, last: int, batch: Batch) -> bool:
        return await self.through("merge", (n, first, last, batch), lambda: self.inner.merge(n, first, last, batch))

    async def register(self, worker: WorkerRow, lease_seconds: float, alive: Callable[[], bool]) -> None:
        arguments = (worker, lease_seconds, alive)
        return await self.through("register", arguments, lambda: self.inner.register(worker, lease_seconds, alive))

    async def unregister(self, worker: str) -> None:
        return await self.through("unregister", (worker,), lambda: self.inner.unregister(worker))

    async def workers(self) -> list[WorkerRow]:
        return await self.through("workers", (), self.inner.workers)

    def lease_now(self) -> float:
        return self.inner.lease_now()

    async def claim(self, n: int, worker: str, *, expected_epoch: int, make: Callable[[int], Batch]) -> Appended | None:
        arguments = (n, worker, expected_epoch, make)
        return await self.through(
            "claim", arguments, lambda: self.inner.claim(n, worker, expected_epoch=expected_epoch, make=make)
        )

    async def release(
        self, n: int, epoch: int, batch: Batch | None, due: Sequence[Due] = (), *, expected_head: int | None = None
    ) -> bool:
        arguments = (n, epoch, batch, due, expected_head)
        return await self.through(
            "release", arguments, lambda: self.inner.release(n, epoch, batch, due, expected_head=expected_head)
        )

    async def due(
        self, kinds: Sequence[str], now: float, limit: int = 100, *, exclude_owners: Sequence[str] = ()
    ) -> list[DueRow]:
        arguments = (kinds, now, limit, exclude_owners)
        return await self.through("due", arguments, lambda: self.inner.due(kinds, now, limit, exclude_owners=exclude_owners))

    async def next_due(self, kinds: Sequence[str], *, after: float | None = None) -> float | None:
        return await self.through("next_due", (kinds, after), lambda: self.inner.next_due(kinds, after=after))

    async def wait_for_work(self, timeout: float | None) -> None:
        return await self.through("wait_for_work", (timeout,), lambda: self.inner.wait_for_work(timeout))

    async def save_checkpoint(self, n: int, epoch: int, ordinal: int, state: bytes) -> None:
        arguments = (n, epoch, ordinal, state)
        return await self.through("save_checkpoint", arguments, lambda: self.inner.save_checkpoint(n, epoch, ordinal, state))

    async def checkpoint(self, n: int, at_or_before: int | None = None) -> tuple[int, bytes] | None:
        return await self.through("checkpoint", (n, at_or_before), lambda: self.inner.checkpoint(n, at_or_before))

    async def save_snapshot(self, n: int, ordinal: int, projection: int, state: bytes) -> None:
        arguments = (n, ordinal, projection, state)
        return await self.through("save_snapshot", arguments, lambda: self.inner.save_snapshot(n, ordinal, projection, state))

    async def snapshot(self, n: int, projection: int) -> tuple[int, bytes] | None:
        return await self.through("snapshot", (n, projection), lambda: self.inner.snapshot(n, projection))

    async def save_dump(self, n: int, name: str, data: bytes | None) -> None:
        return await self.through("save_dump", (n, name, data), lambda: self.inner.save_dump(n, name, data))

    async def dump(self, n: int, name: str) -> bytes | None:
        return await self.through("dump", (n, name), lambda: self.inner.dump(n, name))

    async def put_blob(self, tenant: str, data: bytes) -> str:
        return await self.through("put_blob", (tenant, data), lambda: self.inner.put_blob(tenant, data))

    async def get_blob(self, tenant: str, hash: str) -> bytes:
        return await self.through("get_blob", (tenant, hash), lambda: self.inner.get_blob(tenant, hash))

    async def collect_blobs(self, grace_seconds: float) -> int:
        return await self.through("collect_blobs", (grace_seconds,), lambda: self.inner.collect_blobs(grace_seconds))

    async def put_token(self, token: TokenRow) -> None:
        return await self.through("put_token", (token,), lambda: self.inner.put_token(token))

    async def token(self, hash: str) -> TokenRow | None:
        return await self.through("token", (hash,), lambda: self.inner.token(hash))

    async def tokens(self, tenant: str | None = None) -> list[TokenRow]:
        return await self.through("tokens", (tenant,), lambda: self.inner.tokens(tenant))

    async def delete_token(self, name: str, tenant: str = "default") -> bool:
        return await self.through("delete_token", (name, tenant), lambda: self.inner.delete_token(name, tenant))

    async def backup(self, path: str) -> None:
        return await self.through("backup", (path,), lambda: self.inner.backup(path))

    async def check(self) -> list[Problem]:
        return await self.through("check", (), self.inner.check)

    async def info(self) -> StoreInfo:
        return await self.through("info", (), self.inner.info)
