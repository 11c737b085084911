"""What the tests of objects and chats share: Node with the published packages."""

from __future__ import annotations

from tests.npm.conftest import node as node
