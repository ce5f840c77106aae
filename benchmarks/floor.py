"""
The floor: the least anybody could write by hand for one function, and still call it retry and breaker.

It has one rule, no limits, no classification, no statistics, no name and no probes; it is not shared and knows no
second function. Whatever a library costs is fairly told as a multiple of this.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from benchmarks.measure import Block, Case, Target, repeat
from benchmarks.targets import answer, answer_later, down, failing_once

FLOOR = "floor: retry + breaker by hand"
FLOOR_WITH_TIMEOUT = "floor + asyncio.timeout"
TASKS = 1000


class ByHandOpenError(Exception):
    """The hand-written breaker is open."""


def by_hand(target: Target, *, open_for: float = 60.0) -> Target:
    """Write retry (3 attempts) and a breaker (5 failures in a row) around *target*, as one coroutine."""
    failures = 0
    open_until = 0.0

    async def call(number: int) -> int:
        nonlocal failures, open_until
        attempt = 0
        while True:
            if monotonic() < open_until:
                raise ByHandOpenError
            attempt += 1
            try:
                result = await target(number)
            except Exception:
                failures += 1
                if failures >= 5:
                    open_until = monotonic() + open_for
                if attempt == 3:
                    raise
                await asyncio.sleep(0)
            else:
                failures = 0
                return result

    return call


def by_hand_with_timeout(target: Target) -> Target:
    """Write the same, and a limit of 30 s for each attempt."""

    async def limited(number: int) -> int:
        async with asyncio.timeout(30):
            return await target(number)

    return by_hand(limited)


async def _bare() -> Block:
    return repeat(answer)


async def _floor() -> Block:
    return repeat(by_hand(answer))


async def _floor_with_timeout() -> Block:
    return repeat(by_hand_with_timeout(answer))


async def _failing_once() -> Block:
    return repeat(by_hand(failing_once()))


async def _rejected() -> Block:
    call = by_hand(down, open_for=1e6)
    for _ in range(2):
        try:
            await call(1)
        except (ConnectionError, ByHandOpenError):
            continue

    async def block(calls: int) -> None:
        for _ in range(calls):
            try:
                await call(1)
            except ByHandOpenError:
                continue
            raise AssertionError("the hand-written breaker let a call through")

    return block


def in_tasks(call: Target) -> Block:
    """A block of a thousand tasks at a time, each making one call that suspends once."""

    async def block(calls: int) -> None:
        for _ in range(calls // TASKS):
            async with asyncio.TaskGroup() as group:
                for _ in range(TASKS):
                    group.create_task(call(1))

    return block


async def _bare_tasks() -> Block:
    return in_tasks(answer_later)


async def _floor_tasks() -> Block:
    return in_tasks(by_hand(answer_later))


def cases() -> list[Case]:
    """Everything that is measured of the floor."""
    return [
        Case("bare await", "floor", _bare),
        Case(FLOOR, "floor", _floor),
        Case(FLOOR_WITH_TIMEOUT, "floor", _floor_with_timeout),
        Case("floor, failing once", "floor", _failing_once),
        Case("floor, rejected", "floor", _rejected),
        Case("1,000 tasks: bare", "floor", _bare_tasks, TASKS),
        Case("1,000 tasks: floor", "floor", _floor_tasks, TASKS),
    ]
