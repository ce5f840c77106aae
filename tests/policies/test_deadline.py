"""`Deadline` used alone: what it interrupts, when, and what it says."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import math
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import CallTimeout, ConfigurationError, Deadline
from resilience.testing import run

pytestmark = pytest.mark.anyio


def within(seconds: float, **more: Any) -> Deadline:
    return Deadline(seconds, clock=anyio.current_time, **more)


async def hang() -> None:
    await anyio.sleep_forever()


# -- interrupting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["block", "call", "decorated"])
async def test_work_is_interrupted_at_the_moment(way: str) -> None:
    """Work that is not done when the deadline passes ends there, with an error that says how long it was given."""
    with pytest.raises(CallTimeout) as caught:
        if way == "block":
            async with within(5, name="report"):
                await hang()
        elif way == "call":
            await within(5, name="report").call(hang)
        else:
            await Deadline.limit(5, name="report", clock=anyio.current_time)(hang)()
    assert anyio.current_time() == pytest.approx(5)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.provider, caught.value.scope, caught.value.limit) == ("report", "total", 5)
    assert caught.value.elapsed == pytest.approx(5)
    assert str(caught.value) == "report: call timed out after 5 s (limit 5 s)"


async def test_work_that_is_done_in_time_returns() -> None:
    """A result that comes in time comes out, and nothing is interrupted afterwards."""

    async def add(one: int, *, other: int) -> int:
        await anyio.sleep(4.999)
        return one + other

    assert await within(5).call(add, 1, other=2) == 3
    async with within(5) as entered:
        await anyio.sleep(4.999)
        assert isinstance(entered, Deadline)
    await anyio.sleep(100)


async def test_errors_of_the_work_come_out_unchanged() -> None:
    """An error that is not ours passes through, also when the deadline had something to do with it."""

    async def convert() -> None:
        try:
            await hang()
        except BaseException:
            raise KeyError("cleaned up") from None

    with pytest.raises(KeyError):
        await within(5).call(convert)
    boom = ValueError()
    with pytest.raises(ValueError) as caught:
        async with within(5):
            raise boom
    assert caught.value is boom
    await anyio.sleep(100)


async def test_it_counts_from_when_it_was_made() -> None:
    """A deadline is a moment: whoever enters it later has less time left."""
    deadline = within(10)
    await anyio.sleep(4)
    assert deadline.remaining() == pytest.approx(6)
    with pytest.raises(CallTimeout) as caught:
        await deadline.call(hang)
    assert anyio.current_time() == pytest.approx(10)
    assert caught.value.elapsed == pytest.approx(10)


async def test_one_that_has_passed_lets_nothing_wait() -> None:
    """Inside a deadline that has passed already, the first thing that waits is interrupted."""
    deadline = within(1)
    await anyio.sleep(2)
    assert deadline.expired
    with pytest.raises(CallTimeout):
        await deadline.call(anyio.sleep, 1)
    assert anyio.current_time() == pytest.approx(2)


@pytest.mark.parametrize("ahead", [-1e6, 1e6])
async def test_its_clock_may_be_any(ahead: float) -> None:
    """The moment is the same whatever its clock's origin is."""
    with pytest.raises(CallTimeout):
        await Deadline(5, clock=lambda: anyio.current_time() + ahead).call(hang)
    assert anyio.current_time() == pytest.approx(5)


# -- inside and beside others ------------------------------------------------------------------------------------------


async def test_the_earlier_of_two_holds() -> None:
    """Nested deadlines end at the earlier moment, and the error names the one that passed."""
    for outer, inner, name in ((3, 8, "outer"), (8, 3, "inner")):
        began = anyio.current_time()
        with pytest.raises(CallTimeout) as caught:
            async with within(outer, name="outer"), within(inner, name="inner"):
                await hang()
        assert anyio.current_time() - began == pytest.approx(3)
        assert caught.value.provider == name


async def test_work_may_go_on_after_an_inner_one() -> None:
    """An inner deadline that passes ends what is inside it and nothing else."""
    async with within(10):
        with pytest.raises(CallTimeout):
            async with within(3):
                await hang()
        await anyio.sleep(5)
    assert anyio.current_time() == pytest.approx(8)


async def test_scopes_around_it_win_without_an_error_of_ours() -> None:
    """When somebody else's scope ends the work first, it is his cancellation, not our timeout."""
    with anyio.move_on_after(3) as scope:
        await within(8).call(hang)
    assert scope.cancelled_caught
    async with anyio.create_task_group() as group:
        group.start_soon(within(8).call, hang)
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    assert anyio.current_time() == pytest.approx(4)


async def test_both_at_one_moment() -> None:
    """A scope around it that ends at the very same moment wins."""
    with anyio.move_on_after(5) as scope:
        await within(5).call(hang)
    assert scope.cancelled_caught


async def test_tasks_may_share_one() -> None:
    """Tasks that work under one deadline are all interrupted at its moment; those that are done are not."""
    deadline = within(5)
    ends: list[tuple[float, bool]] = []

    async def one(seconds: float) -> None:
        try:
            await deadline.call(anyio.sleep, seconds)
        except CallTimeout:
            ends.append((round(anyio.current_time(), 6), False))
        else:
            ends.append((round(anyio.current_time(), 6), True))

    async with anyio.create_task_group() as group:
        for seconds in (1, 2, 20, 30):
            group.start_soon(one, seconds)
    assert sorted(ends) == [(1, True), (2, True), (5, False), (5, False)]


async def test_a_task_may_enter_one_twice() -> None:
    """A deadline that is entered again inside itself ends both; the inner entry is no longer in the way afterwards."""
    deadline = within(5)
    async with deadline:
        async with deadline:
            await anyio.sleep(1)
        await anyio.sleep(1)
    with pytest.raises(CallTimeout):
        async with deadline, deadline:
            await hang()
    assert deadline._scopes == {}


async def test_it_can_be_seen_from_inside() -> None:
    """What waits inside can find out how much time it has, as with any other scope."""
    async with within(5):
        assert anyio.current_effective_deadline() == pytest.approx(anyio.current_time() + 5)


def test_a_native_cancellation_stays_one() -> None:
    """`Task.cancel`, from a server or `asyncio.timeout`, comes out as what it is, also at the very same moment."""

    async def main() -> None:
        for moment in (3, 5):
            task = asyncio.create_task(within(5).call(hang))
            asyncio.get_running_loop().call_later(moment, task.cancel)
            await asyncio.wait([task])
            assert task.cancelled()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(3):
                await within(5).call(hang)
        assert not isinstance(caught.value, CallTimeout)
        task = asyncio.current_task()  # type: ignore[assignment]
        assert task.cancelling() == 0

    run(main)


async def test_work_that_does_not_listen_is_waited_for() -> None:
    """A function that swallows its interruption runs on; what it returns is lost, and it is told so."""

    async def deaf() -> str:
        ends = anyio.current_time() + 20
        while (left := ends - anyio.current_time()) > 0:
            with suppress(asyncio.CancelledError), anyio.CancelScope(shield=True):
                await anyio.sleep(left)
        return "at last"

    deadline = within(5)
    assert await deadline.call(deaf) == "at last"
    assert anyio.current_time() == pytest.approx(20)
    assert deadline.expired


# -- the decorator -----------------------------------------------------------------------------------------------------


async def test_each_decorated_call_has_its_own() -> None:
    """The decorator starts a new deadline for each call, and the function keeps its name and signature."""

    @Deadline.limit(5, clock=anyio.current_time)
    async def fetch(url: str, *, seconds: float) -> str:
        """Fetch it."""
        await anyio.sleep(seconds)
        return url

    for _ in range(3):
        assert await fetch("a", seconds=4) == "a"
    with pytest.raises(CallTimeout):
        await fetch("a", seconds=6)
    assert fetch.__name__ == "fetch"
    assert fetch.__doc__ == "Fetch it."
    assert list(inspect.signature(fetch).parameters) == ["url", "seconds"]


# -- what it tells -----------------------------------------------------------------------------------------------------


def test_its_figures() -> None:
    """`remaining`, `expired`, `snapshot` and the repr tell where it stands."""
    now = 100.0
    deadline = Deadline(10, name="report", clock=lambda: now)
    assert (deadline.at, deadline.limit_seconds, deadline.remaining(), deadline.expired) == (110, 10, 10, False)
    now = 107.5
    assert repr(deadline) == "<Deadline 'report' 2.5 s left of 10 s>"
    snapshot = deadline.snapshot()
    assert dataclasses.asdict(snapshot) == {"name": "report", "limit": 10, "remaining": 2.5, "expired": False}
    assert json.loads(json.dumps(dataclasses.asdict(snapshot)))["limit"] == 10
    for now in (110.0, 120.0):  # noqa: B007 (the clock)
        assert (deadline.remaining(), deadline.expired) == (0, True)
        assert (deadline.snapshot().remaining, deadline.snapshot().expired) == (0, True)
        assert repr(deadline) == "<Deadline 'report' EXPIRED of 10 s>"
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.expired = True  # type: ignore[misc]


@pytest.mark.parametrize("seconds", [0, -1, math.inf, -math.inf, math.nan, True, None, "5"])
def test_nonsense_is_refused_where_it_is_written(seconds: Any) -> None:
    """What is no positive number of seconds is refused at once, with what was given and what to do instead."""
    for make in (Deadline, Deadline.limit):
        with pytest.raises(ConfigurationError) as caught:
            make(seconds)
        assert repr(seconds) in str(caught.value)
        assert "no deadline at all" in str(caught.value)
