"""How the program of a call is called: its fiber, and what it asks. Pure.

Two programs of a conversation never ask under one name: an answer to one of them is none to the other (X10).
"""

from __future__ import annotations

from cairn.harness import records as h


def fiber_of(submission: str, call: str) -> str:
    """The id of the fiber that runs the program of a call."""
    return f"{h.PROGRAM}:{submission}:{call}"


def name_of(submission: str, call: str) -> str:
    """What its calls are named after."""
    return f"{submission}:{call}"


def is_of(fiber: str, asked: str) -> bool:
    """Whether a question of that name is this program's."""
    name = fiber.removeprefix(f"{h.PROGRAM}:")
    return f" {name} " in f" {asked} "
