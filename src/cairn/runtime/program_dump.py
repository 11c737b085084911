"""The state of a program that waits, kept beside the log: what makes going on cheap, and nothing else depends on.

Laws. A cache. It is believed only when it is signed with the installation's secret, of this text, this fiber and this version
of the interpreter; whatever else lies there is passed over, and the program is made again from its text and its journal.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from cairn.runtime.fiber import Fiber


class Kept(msgspec.Struct, frozen=True):
    """A dump, with what has to be known beside it."""

    version: str
    program: str
    owner: str
    printed: str
    waiting: list[tuple[int, str, bytes]]
    """The calls that were under way: number, function, arguments as JSON."""
    calls: int
    spent: float
    dump: bytes


class Dumps:
    """Where the dump of one program of one fiber is kept."""

    def __init__(self, fiber: Fiber, name: str, program: str, version: str, secret: bytes) -> None:
        self._fiber = fiber
        self._place = f"program:{fiber.id}:{name}"
        self._program, self._version = program, version
        self._secret = hashlib.sha256(b"cairn program" + secret).digest()
        self._is_there = fiber.state.attempt > 1

    @property
    def owner(self) -> str:
        """What no other program anywhere is called."""
        return f"{self._fiber.instance.uid}:{self._place}"

    async def keep(self, dump: bytes, printed: str, waiting: list[tuple[int, str, bytes]], calls: int, spent: float) -> None:
        """In place of what was kept before."""
        kept = Kept(self._version, self._program, self.owner, printed, waiting, calls, spent, dump)
        body = msgspec.msgpack.encode(kept)
        self._is_there = True
        signed = hmac.digest(self._secret, body, "sha256") + body
        await self._fiber.instance.store.save_dump(self._fiber.instance.n, self._place, signed)

    async def newest(self) -> Kept | None:
        """What was kept last, if it can be believed."""
        state = self._fiber.state
        if state.attempt <= 1 and not (state.steps or state.waited or state.waits):
            return None  # it has not begun
        data = await self._fiber.instance.store.dump(self._fiber.instance.n, self._place)
        if data is None:
            return None
        self._is_there = True
        signature, body = data[:32], data[32:]
        if not hmac.compare_digest(hmac.digest(self._secret, body, "sha256"), signature):
            return None
        try:
            kept = msgspec.msgpack.decode(body, type=Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return kept if (kept.version, kept.program, kept.owner) == (self._version, self._program, self.owner) else None

    async def forget(self) -> None:
        """Nothing is kept any more."""
        if self._is_there:
            await self._fiber.instance.store.save_dump(self._fiber.instance.n, self._place, None)
