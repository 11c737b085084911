"""`isolated()` does what every sandbox does, by either of its means."""

from __future__ import annotations

from pathlib import Path

import pytest

from cairn.harness.sandbox.isolated import isolated
from cairn.harness.sandbox.protocol import SandboxFactory
from cairn.testing.sandbox import SandboxContract

pytestmark = [pytest.mark.system]


class TestBubblewrap(SandboxContract):
    def factory(self, directory: Path) -> SandboxFactory:
        return isolated(directory / "files", backend="bubblewrap", grace_seconds=0.3)


class TestLandlock(SandboxContract):
    def factory(self, directory: Path) -> SandboxFactory:
        return isolated(directory / "files", backend="landlock", grace_seconds=0.3)
