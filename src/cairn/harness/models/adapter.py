"""A provider's model as our `Model`: lazy, cancellable, without a will of its own.

Laws. Importing this file loads no provider library; `warm` or the first request does, once per process and off the
event loop. One attempt per `stream`: no retry, no fallback, no deadline here, those are the loop's and on the log. Every
failure leaves the iterator as a `ModelError`; what had been yielded stays valid. Leaving the iterator, by `aclose` or by
cancellation, drops the connection before it returns.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from cairn.clock import Clock
from cairn.errors import MissingExtra, ModelError, UsageError
from cairn.harness.messages import AssistantMessage, ToolCall
from cairn.harness.models import prices
from cairn.harness.models.classify import classify
from cairn.harness.models.failure import failure_of
from cairn.harness.models.protocol import Activity, Completed, ModelEvent, ModelRequest
from cairn.harness.models.provider import Provider
from cairn.runtime.threads import Threads

if TYPE_CHECKING:
    from cairn.harness.models.engine import Engine
    from cairn.harness.models.fold import Fold

KeySource = Callable[[], str | Awaitable[str]]


class ProviderModel:
    """One model of one provider. Cheap to make; serves many conversations, and several event loops, at once."""

    def __init__(self, provider: Provider, name: str, *, key: KeySource, base_url: str | None, clock: Clock) -> None:
        self.provider = provider
        self.name = name
        self.base_url = base_url
        self._key = key
        self._clock = clock
        self._engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Engine] = weakref.WeakKeyDictionary()

    @property
    def spec(self) -> str:
        """Its durable name, `provider:model`."""
        return f"{self.provider.name}:{self.name}"

    @property
    def context_window(self) -> int | None:
        """Tokens, from the bundled price table; None when the model is not in it."""
        return prices.context_window(self.provider.prices, self.name)

    def __repr__(self) -> str:
        return f"<model {self.spec}{f' at {self.base_url}' if self.base_url else ''}>"

    async def warm(self) -> None:
        """The provider's library is imported and its client built: the next request waits only for the network.

        Idempotent. Raises UsageError (a missing key) or MissingExtra (a missing package).
        """
        await self._engine(await self._current_key())

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Ask once. The key is asked for once per call. Raises ModelError from the iterator."""
        # The generator is closed here, not by whoever collects it: leaving it must drop the socket at once.
        try:
            key = await self._current_key()
            engine = await self._engine(key)
            from cairn.harness.models.fold import Fold

            fold = Fold()
            async with engine.open(request, key) as response:
                yield Activity()
                async for event in response:
                    ours = fold.apply(event)
                    if ours is not None:
                        yield ours
                snapshot = response.get()
            refused = (snapshot.provider_details or {}).get("refusal")
            if snapshot.finish_reason == "content_filter" and isinstance(refused, str) and refused:
                yield fold.refusal(refused)
            yield self._completed(fold, snapshot, request)
        except (ModelError, UsageError):
            raise
        except Exception as error:
            raise classify(failure_of(error), now=self._clock.wall(), who=self.spec) from error

    def _completed(self, fold: Fold, snapshot: object, request: ModelRequest) -> Completed:
        completed = fold.completed(snapshot, taken=_call_ids(request))  # type: ignore[arg-type]
        names = [name for name in (completed.response_model, self.name) if name]
        cost = prices.cost(completed.usage, provider=self.provider.prices, models=names)
        return Completed(
            content=completed.content,
            stop=completed.stop,
            usage=msgspec.structs.replace(completed.usage, cost=cost),
            response_model=completed.response_model,
            response_id=completed.response_id,
        )

    async def aclose(self) -> None:
        """No connection of this model is open on the running event loop. Idempotent; a later request opens new ones."""
        engine = self._engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.aclose()

    async def _current_key(self) -> str:
        key = self._key()
        return await key if inspect.isawaitable(key) else key

    async def _engine(self, key: str) -> Engine:
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None:
            await _loaded(self.provider)
            # Another request may have built it while the import ran.
            engine = self._engines.get(loop) or self._build(key)
            self._engines[loop] = engine
        return engine

    def _build(self, key: str) -> Engine:
        from cairn.harness.models.engine import build

        return build(self.spec, self.provider, self.name, self.base_url, key)


def load(provider: Provider) -> None:
    """The libraries `provider` needs are imported. Idempotent; seconds of CPU the first time, so call it off the loop.

    Raises MissingExtra naming what to install.
    """
    try:
        importlib.import_module("cairn.harness.models.engine")
        importlib.import_module(provider.library)
    except ImportError as error:
        raise MissingExtra(
            f"{provider.name} models need a package that is not installed ({error.name or error}): "
            f"pip install 'cairn-agents[{provider.extra}]'"
        ) from error


async def _loaded(provider: Provider) -> None:
    """`load`, beside the event loop. Not in the loop's own pool: that is joined at the end, and whoever stops must not have
    to wait for an import."""
    thread = Threads(1)
    try:
        await thread.call(load, provider)
    finally:
        thread.close()


def _call_ids(request: ModelRequest) -> set[str]:
    return {
        block.id
        for message in request.messages
        if isinstance(message, AssistantMessage)
        for block in message.content
        if isinstance(block, ToolCall)
    }
