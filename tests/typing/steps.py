"""What a type checker says of `fiber.step`: read by `test_step_types.py`, never run."""

from __future__ import annotations

from typing import assert_type

from cairn.runtime import Fiber, Retry, Try


async def charge(price: int) -> str:
    return f"charged {price}"


async def tried(this: Try) -> bytes:
    return this.key.encode()


def plain() -> int:
    return 1


async def steps(fiber: Fiber) -> None:
    assert_type(await fiber.step("a", lambda: charge(1)), str)
    assert_type(await fiber.step("b", plain, timeout=3), int)
    assert_type(await fiber.step("c", tried, repeat="keyed"), bytes)
    assert_type(await fiber.step("d", lambda: 3.5, retry=Retry(attempts=2)), float)
    await fiber.step("g", plain, repeat="sometimes")  # type: ignore[call-overload]
    await fiber.step("h", plain, retries=3)  # type: ignore[call-overload]
