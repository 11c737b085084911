"""An object to call, wherever it is: `await stub.increment(2)`, `async for line in stub.tail()`.

Laws. What a stub's method is given and returns travels as JSON, also when the object is in this process: who calls cannot tell
where it ran, and shares no memory with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import UsageError
from cairn.runtime import records as r
from cairn.runtime.chain import chain
from cairn.runtime.encoding import as_json
from cairn.runtime.handling import Invocation
from cairn.runtime.request import Request, Response

if TYPE_CHECKING:
    from cairn.runtime.objects import Objects


class Stub:
    """One object, addressed by kind and id. Names that begin with an underscore, and its own methods, are not the object's: for
    those there is `call`."""

    def __init__(
        self,
        objects: Objects,
        kind: str,
        id: str,
        *,
        tenant: str | None = None,
        born: Callable[[], Awaitable[None]] | None = None,
        end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`born` is awaited before the object is made, `end` is how it is destroyed; both are a parent's."""
        self._objects = objects
        self._address = objects.address(kind, id, tenant)
        self._born = born
        self._end = end

    def __getattr__(self, name: str) -> Callable[..., Pending]:
        if name.startswith("_"):
            raise AttributeError(name)

        def pending(*arguments: Any, **named: Any) -> Pending:
            if named:
                given = ", ".join(f"{each}=" for each in named)
                raise UsageError(
                    f"'{name}' of {self._address} was given {given}: arguments of a call travel in order; leave names out"
                )
            return Pending(self, name, arguments)

        return pending

    async def call(self, method: str, *arguments: Any, timeout: float | None = None, key: str | None = None) -> Any:
        """What the method returned. *Raises* as `Objects.call`."""
        invocation = self._invocation("call", method, arguments)
        raw = await self._objects.perform(self._address, invocation, timeout=timeout, key=key, born=self._born)
        return msgspec.json.decode(raw)

    async def stream(self, method: str, *arguments: Any, timeout: float | None = None) -> AsyncGenerator[Any]:
        """What the streaming method yields. *Raises* as `Objects.stream`."""
        if self._born is not None:
            await self._objects.made(self._address, self._born)
        address = self._address
        chunks = self._objects.stream(address.kind, address.id, method, arguments, timeout=timeout, tenant=address.tenant)
        async for chunk in chunks:
            yield msgspec.json.decode(chunk)

    async def request(self, request: Request) -> Response:
        """What its `on_request` answers."""
        if self._born is not None:
            await self._objects.made(self._address, self._born)
        return await self._objects.request(self._address.kind, self._address.id, request, tenant=self._address.tenant)

    async def exist(self) -> None:
        """It is there, if it was not before. Raises NotFound: a sub-object, and this is not its parent's stub."""

        async def born() -> None:
            return None

        await self._objects.made(self._address, self._born if self._born is not None else born)

    async def destroy(self) -> None:
        """It is gone, with its sub-objects. See `Objects.destroy`."""
        if self._end is not None:
            await self._end()
            return
        await self._objects.destroy(self._address.kind, self._address.id, tenant=self._address.tenant)

    def _invocation(self, what: r.CallWhat, method: str, arguments: tuple[Any, ...]) -> Invocation:
        return Invocation(r.Call(what=what, chain=chain()), method, as_json(f"an argument of '{method}'", arguments))

    def __repr__(self) -> str:
        return f"Stub({str(self._address)!r})"


class Pending:
    """A call that has not been made: await it for its result, or iterate over what it yields."""

    def __init__(self, stub: Stub, method: str, arguments: tuple[Any, ...]) -> None:
        self._stub = stub
        self._method = method
        self._arguments = arguments

    def __await__(self) -> Generator[Any, None, Any]:
        return self._stub.call(self._method, *self._arguments).__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._stub.stream(self._method, *self._arguments)
