"""What a sandbox is made with: a definition that cannot be meant is refused in its own line, before any agent runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cairn import virtual
from cairn.errors import UsageError
from cairn.harness.sandbox.isolated import Limits
from cairn.harness.sandbox.virtual_network import Network

#: What is written, and words of the error.
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "memory below nothing": (lambda: Limits(memory_bytes=-1), "Limits(memory_bytes=-1)): give a number above 0"),
    "no time": (lambda: Limits(seconds=0), "Limits(seconds=0))"),
    "processes in words": (lambda: Limits(processes="many"), "Limits(processes='many'))"),  # type: ignore[arg-type]
    "no limit of memory": (lambda: Limits(memory_bytes=None), "Limits(memory_bytes=None))"),  # type: ignore[arg-type]
    "not a number": (lambda: Limits(cpus=float("nan")), "Limits(cpus=nan))"),
    "a number to begin with": (lambda: virtual(seed={"a": 5}), "a seed maps paths to contents"),  # type: ignore[dict-item]
    "a list to begin with": (lambda: virtual(seed=["a"]), "give a directory, or a mapping"),  # type: ignore[arg-type]
    "a host with a blank": (lambda: virtual(network=["http://x y"]), "'http://x y' is no host"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_definition_names_the_option_and_what_would_do(mistake: str) -> None:
    """X6: above all, no number turns a limit off without a word: the kernel reads -1 as no limit at all."""
    make, text = MISTAKES[mistake]

    with pytest.raises(UsageError) as raised:
        make()

    assert text in str(raised.value)


def test_what_is_granted_is_told_with_its_scheme() -> None:
    """A host alone is granted by https: whoever is refused by http reads why."""
    network = Network.of(["api.example.com", "http://plain.example.com/x"])

    assert str(network) == "http://plain.example.com, https://api.example.com"
