"""The sandbox that is open for one attempt, and how another takes its place.

Laws. At most one is open. The former is closed before the next is opened: two of one instance may share a directory. What runs
beside (a program) has its own, so a call that is under way ends in the sandbox it began in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from cairn.harness.environment import key_of
from cairn.harness.sandbox.protocol import Sandbox, SandboxFactory
from cairn.harness.tools import Tool


class AnotherSandbox(Exception):
    """A turn is about to begin, and has another sandbox than the one that is open."""

    def __init__(self, factory: SandboxFactory | None) -> None:
        super().__init__()
        self.factory = factory


class Attachment:
    """None is open at first."""

    def __init__(self, open: Callable[[SandboxFactory], Awaitable[Sandbox]]) -> None:
        self._open = open
        self.factory: SandboxFactory | None = None
        self.sandbox: Sandbox | None = None
        self.is_fresh = False
        """It was opened for the turn that is about to begin."""
        self._tools: tuple[Tool, ...] = ()

    def is_open(self, factory: SandboxFactory | None) -> bool:
        """It is the one that is open; of None, none is."""
        if factory is self.factory or factory == self.factory:
            return True
        # One that is made anew at each render, of a class that does not say when two are equal, is the one just opened.
        is_silent = type(factory) is type(self.factory) and type(factory).__eq__ is object.__eq__
        return self.is_fresh and is_silent and key_of(factory) == key_of(self.factory)

    def tools_of(self, factory: SandboxFactory) -> Sequence[Tool]:
        """The tools of a turn with it. Of one that is not open as far as they can be known: it is opened, and asked again,
        before anything is made of them."""
        if self.is_open(factory):
            return self._tools
        from cairn.harness.sandbox.files import file_tools

        return file_tools()

    async def use(self, factory: SandboxFactory | None) -> None:
        """This one is open, and what was is closed. *Idempotent*. *Cancelled*: none is open. *Raises* what opening raises."""
        if self.is_open(factory):
            self.is_fresh = True
            return
        await self.close()
        if factory is not None:
            from cairn.harness.sandbox.files import file_tools

            sandbox = await self._open(factory)
            self.factory, self.sandbox, self._tools = factory, sandbox, tuple(file_tools(sandbox))
            self.is_fresh = True

    async def close(self) -> None:
        """None is open. *Idempotent*."""
        sandbox, self.factory, self.sandbox, self._tools = self.sandbox, None, None, ()
        if sandbox is not None:
            await asyncio.shield(sandbox.close())
