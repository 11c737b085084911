"""`virtual()` does what every sandbox with a shell does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.sandboxes.virtual_desk import VirtualDesk

from cairn.harness.sandbox.protocol import Sandbox
from cairn.testing.sandbox import ShellContract

pytestmark = [pytest.mark.slow]


class TestVirtual(ShellContract):
    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Sandbox]:
        async with VirtualDesk() as desk:
            yield desk.sandbox
