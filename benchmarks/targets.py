"""The user's functions that everything is wrapped around."""

from __future__ import annotations

import asyncio

from benchmarks.measure import Target


async def answer(number: int) -> int:
    """Answer at once: what is measured is what is wrapped around it."""
    return number


async def answer_later(number: int) -> int:
    """Suspend once, as every real call does at least."""
    await asyncio.sleep(0)
    return number


async def down(number: int) -> int:
    """Fail always."""
    raise ConnectionError(f"request {number} was refused")


async def hang(number: int) -> int:
    """Answer after an hour."""
    await asyncio.sleep(3600)
    return number


def failing_once() -> Target:
    """Make a function whose every first attempt fails and whose every second one answers."""
    odd = False

    async def fail_then_answer(number: int) -> int:
        nonlocal odd
        odd = not odd
        if odd:
            raise ConnectionError("reset by peer")
        return number

    return fail_then_answer
