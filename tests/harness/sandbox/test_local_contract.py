"""`local()` does what every sandbox does."""

from __future__ import annotations

from pathlib import Path

from cairn.harness.sandbox.local import local
from cairn.harness.sandbox.protocol import SandboxFactory
from cairn.testing.sandbox import SandboxContract


class TestLocal(SandboxContract):
    def factory(self, directory: Path) -> SandboxFactory:
        return local(directory / "files", grace_seconds=0.3)
