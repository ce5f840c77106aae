"""Cancellation at every suspension of a call: it happens everywhere, and what goes wrong there shows."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience.testing import Ending, cancelled_everywhere

pytestmark = pytest.mark.anyio


class Call:
    """It suspends three times, and counts what it has come past."""

    def __init__(self) -> None:
        self.came_past: list[int] = []
        self.left = False

    async def __call__(self) -> None:
        try:
            for number in range(3):
                await anyio.sleep(1)
                self.came_past.append(number)
        finally:
            self.left = True


async def test_a_call_is_ended_at_each_suspension_in_each_way(anyio_backend_name: str) -> None:
    """At the first, the second, the third, and then not at all; on trio there is no way by the task."""
    seen: list[tuple[str, int, int, bool]] = []
    for ending in cancelled_everywhere("scope", "task", "close"):
        call = Call()
        reached = await ending(call)
        assert reached is ending.reached is ending.came_out
        assert call.left
        seen.append((ending.way, ending.suspension, len(call.came_past), reached))
    ways = ["scope", "task", "close"] if anyio_backend_name == "asyncio" else ["scope", "close"]
    runs = [(1, 0, True), (2, 1, True), (3, 2, True), (4, 3, False)]
    assert seen == [(way, *run) for way in ways for run in runs]
    assert str(ending) == "by close at suspension 4"


async def test_cancellations_are_what_is_tried_unless_told_otherwise(anyio_backend_name: str) -> None:
    """A coroutine is closed only for who asks for it: one that has tasks of its own cannot be."""
    ways = []
    for ending in cancelled_everywhere():
        await ending(Call())
        ways.append(ending.way)
    assert set(ways) == ({"scope", "task"} if anyio_backend_name == "asyncio" else {"scope"})


async def test_a_leak_at_one_suspension_is_found() -> None:
    """What is given back everywhere but between two lines is missing exactly there."""
    leaks = []
    for ending in cancelled_everywhere("scope"):
        free = 1

        async def leaky() -> None:
            nonlocal free
            await anyio.lowlevel.checkpoint()
            free -= 1
            await anyio.lowlevel.checkpoint()
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                free += 1

        await ending(leaky)
        leaks += [ending.suspension] if free != 1 else []
    assert leaks == [2]


async def test_who_swallows_a_cancellation_is_found() -> None:
    """The call was reached, and the cancellation did not come out of it."""
    for ending in cancelled_everywhere():

        async def deaf() -> None:
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                pass

        reached = await ending(deaf)
        assert not ending.came_out
        assert reached is (ending.suspension == 1)


async def test_suspensions_of_other_tasks_count_too() -> None:
    """Tell of those that belong to the call, and it is ended there."""
    for ending in cancelled_everywhere():
        done: list[str] = []

        async def helper(ending: Ending = ending, done: list[str] = done) -> None:
            ending.suspended()
            await anyio.sleep(1)
            done.append("helped")

        async def act(helper: Any = helper) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(helper)

        reached = await ending(act)
        assert done == ([] if reached else ["helped"])
    assert ending.suspension > 2


@pytest.mark.parametrize("way", ["scope", "task", "close"])
async def test_what_the_call_raises_comes_out(way: Any) -> None:
    """Its own error is nobody else's business, and never lost."""

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise LookupError

    with pytest.raises(LookupError):
        for ending in cancelled_everywhere(way, "scope"):
            await ending(fail)


async def test_a_call_that_never_suspends_is_no_test() -> None:
    """Nothing was tried, so nothing may pass."""

    async def quick() -> None: ...

    with pytest.raises(AssertionError, match="never suspended"):
        for ending in cancelled_everywhere():
            await ending(quick)


async def test_a_turn_that_runs_nothing_is_refused() -> None:
    """It would go on for ever, or stop at once."""
    with pytest.raises(RuntimeError, match="await ending"):
        for _ in cancelled_everywhere():
            pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_another_cancellation_of_the_task_is_told() -> None:
    """A call that cancels its own task would be taken for one that was ended by us."""

    async def act() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep(1)

    with pytest.raises(AssertionError, match="somebody else"):
        for ending in cancelled_everywhere("task"):
            await ending(act)
