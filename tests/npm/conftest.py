"""What every test here needs: Node with the published packages, and a project of its own to serve."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.npm.node import HERE, Node, installed, why_not


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Node, beside the packages; without Node the tests are skipped, saying so (and fail in CI)."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return Node(tmp_path_factory.mktemp("npm") / "scripts", installed())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, where its server stores and its tools leave their traces."""
    return shutil.copytree(HERE / "project", tmp_path_factory.mktemp("served") / "project")
