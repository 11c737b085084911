"""Who waits for which instance to move, and for work; and how they learn that it did.

Laws. Lives on the event loop, no thread touches it. No wake-up is lost: whoever waits is registered before it looks.
Commits of this process are told here as they happen; those of others are found by asking SQLite's data version, only
while somebody waits. A wake-up is a hint: who is woken looks for itself, so a spurious one is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from weakref import WeakKeyDictionary

from cairn.errors import CairnError, NotFound, StoreError

#: How often other processes' commits are looked for: below what a reader notices (L5), at 5 us a look 0.03 % of a core.
POLL_SECONDS = 0.02
#: Instances whose head is remembered between two waits; an owner that waits again after each commit then asks no database.
KNOWN_MAX = 10_000


class Watch:
    """The waiters of one store."""

    def __init__(
        self, version: Callable[[], int | None] | None, heads: Callable[[Iterable[int]], Awaitable[Mapping[int, int]]]
    ) -> None:
        """`version` changes when another connection has committed, and says None when it cannot tell just now; it is absent
        when there can be no other process."""
        self._version = version
        self._heads = heads
        self._waiting: dict[int, dict[asyncio.Future[int], int]] = {}
        self._known: dict[int, int] = {}
        self._idle: set[asyncio.Future[None]] = set()
        self._stirred = 1
        self._looked: WeakKeyDictionary[asyncio.Task[object], int] = WeakKeyDictionary()
        self._seen = version() if version is not None else None
        self._stale = False
        self._timer: asyncio.Handle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._closed = False

    # --- waiting

    async def changed(self, n: int, after: int, timeout: float | None, look: Callable[[], Awaitable[int]]) -> int:
        """The head of `n` once it is beyond `after`, or at the timeout. `look` reads it from the store."""
        self._check_open()
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(n, {})[waiter] = after
        try:
            self._poll_soon()
            is_last_look = timeout is not None and timeout <= 0
            head = -1 if is_last_look else self._known.get(n, -1)
            if head < 0:  # not known, or somebody else is just learning it: who waits must have looked
                head = await self._learn(n, look)
            if head > after or is_last_look:
                return head
            try:
                async with asyncio.timeout(timeout):
                    return await waiter
            except TimeoutError:
                return await self._learn(n, look)
        finally:
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()  # told while this one was still looking: nobody else will ask for it
            waiters = self._waiting.get(n, {})
            waiters.pop(waiter, None)
            if not waiters:
                self._waiting.pop(n, None)

    async def _learn(self, n: int, look: Callable[[], Awaitable[int]]) -> int:
        """Ask the store once, and be told from then on: commits here by `committed`, those of others by the poll, which sees
        on its first look whatever was committed while it rested."""
        if len(self._known) >= KNOWN_MAX:
            self._known.pop(next(iter(self._known)))
        self._known.setdefault(n, -1)
        try:
            head = await look()
        except BaseException:
            self._known.pop(n, None)
            raise
        self._known[n] = max(head, self._known.get(n, -1))
        return self._known[n]

    def head(self, n: int) -> int | None:
        """The head somebody who waits was told of; it may have moved since. None: nobody was."""
        head = self._known.get(n, -1)
        return head if head >= 0 else None

    def looked(self) -> None:
        """The running task is about to look for work: what stirs from now on wakes it."""
        task = asyncio.current_task()
        if task is not None:
            self._looked[task] = self._stirred

    async def stirred(self, timeout: float | None) -> None:
        """Something stirred since the running task last looked for work or was woken; or the timeout is over."""
        self._check_open()
        task = asyncio.current_task()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.add(waiter)
        try:
            self._poll_soon()
            if task is not None and self._looked.get(task, 0) < self._stirred:
                return
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._idle.discard(waiter)
            if task is not None:
                self._looked[task] = self._stirred

    # --- being told

    def committed(self, heads: Mapping[int, int], stirs: bool) -> None:
        """This process committed."""
        self._tell(heads)
        if stirs:
            self._stir()

    def deleted(self, n: int) -> None:
        """There is no instance `n` any more: whoever waits for it gets NotFound."""
        self._known.pop(n, None)
        for waiter in self._waiting.get(n, {}):
            _fail(waiter, missing(n))

    def close(self) -> None:
        """Nobody waits any more: waiters get StoreError."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
        error = StoreError("the store was closed while waiting for a change")
        for waiters in self._waiting.values():
            for waiter in waiters:
                _fail(waiter, error)
        for idle in self._idle:
            _fail(idle, error)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed; open it first")

    def _tell(self, heads: Mapping[int, int]) -> None:
        for n, head in heads.items():
            if n in self._known:
                self._known[n] = max(head, self._known[n])
            for waiter, after in self._waiting.get(n, {}).items():
                if head > after and not waiter.done():
                    waiter.set_result(head)

    def _stir(self) -> None:
        self._stirred += 1
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)

    # --- other processes

    def _poll_soon(self) -> None:
        if self._version is not None and self._timer is None:
            # At once, not in 20 ms: what was committed while nobody waited is seen by who begins to wait.
            self._timer = asyncio.get_running_loop().call_soon(self._poll)

    def _poll(self) -> None:
        self._timer = None
        if self._closed or self._version is None or not (self._waiting or self._idle):
            return
        self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)
        version = self._version()
        if version is not None and version != self._seen:
            self._seen = version
            self._stale = True
            self._stir()
        if self._stale and self._waiting and (self._asking is None or self._asking.done()):
            self._stale = False
            self._known = {n: self._known[n] for n in self._waiting if n in self._known}
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        asked = list(self._waiting)
        try:
            heads = await self._heads(asked)
        except StoreError:
            self._stale = True  # the next poll asks again; whoever waits has its own timeout
            return
        self._tell(heads)
        for n in asked:
            if n not in heads:
                self.deleted(n)


def missing(n: int) -> NotFound:
    """The error of whoever asks for an instance that is not there."""
    return NotFound(f"there is no instance {n}; it may have been deleted")


def _fail(waiter: asyncio.Future[int] | asyncio.Future[None], error: CairnError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
