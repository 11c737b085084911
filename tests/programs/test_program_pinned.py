"""A program that was asked for is the program that runs: its text is pinned by its digest from the call to its fiber."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cairn.errors import FiberFailed
from cairn.harness.program_fiber import Asked, accepted, run


def test_a_text_that_is_not_the_one_of_its_call_is_not_run() -> None:
    """X10: what a person approved, or a model wrote, is what runs; another text under the same call ends the fiber, and no
    interpreter is taken for it."""
    asked = msgspec.json.decode(accepted("sub_1", "call_1", "1 + 1", 0.0).arguments, type=Asked)
    forged = msgspec.structs.replace(asked, code="1 + 2")
    attempt = SimpleNamespace(fiber=SimpleNamespace(arguments=lambda _: forged))
    rendered = SimpleNamespace(functions=(), codemode=object())
    nobody = cast(Any, None)

    with pytest.raises(FiberFailed, match="program of call 'call_1' is not the one that was asked for; it is not run"):
        asyncio.run(run(cast(Any, attempt), cast(Any, rendered), nobody, b""))
