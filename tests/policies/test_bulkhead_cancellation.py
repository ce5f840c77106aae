"""
However a waiter ends, and wherever: no place and no waiter is left, and the next in line gets its turn.

Cancellation is swept over every suspension, in three ways; then come the ties, in which a waiter is given its place
and cancelled in the same tick; then loops and threads that share one bulkhead.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeAlias

import anyio
import anyio.lowlevel
import pytest

from resilience._core.words import Priority
from resilience.errors import BulkheadFull
from resilience.policies._waiter import Waiter
from resilience.policies.bulkhead import Bulkhead, Place
from resilience.settings import BulkheadSettings
from resilience.testing import VirtualTimeLoop, cancelled_everywhere

Backend = Literal["asyncio", "trio"]
Act: TypeAlias = Callable[[Bulkhead], Coroutine[Any, Any, object]]


def make(max_concurrent: int = 1, **settings: object) -> Bulkhead:
    chosen = BulkheadSettings.model_validate({"max_concurrent": max_concurrent, **settings})
    return Bulkhead(chosen, clock=anyio.current_time)


def placed(bulkhead: Bulkhead) -> Place:
    place = bulkhead.try_acquire()
    assert isinstance(place, Place)
    return place


async def settle() -> None:
    for _ in range(6):
        await anyio.lowlevel.checkpoint()


def is_empty(bulkhead: Bulkhead) -> bool:
    return (bulkhead.granted, bulkhead.waiting, bulkhead._entered) == (0, 0, {})


# -- the sweep ---------------------------------------------------------------------------------------------------------


async def work() -> None:
    await anyio.lowlevel.checkpoint()
    await anyio.sleep(1)


async def calls(bulkhead: Bulkhead) -> None:
    await bulkhead.call(work)


async def decorates(bulkhead: Bulkhead) -> None:
    await bulkhead(work)()


async def enters(bulkhead: Bulkhead) -> None:
    async with bulkhead:
        await work()


async def holds(bulkhead: Bulkhead) -> None:
    with await bulkhead.acquire(priority=Priority.CRITICAL):
        await work()


async def gives_up(bulkhead: Bulkhead) -> None:
    with suppress(BulkheadFull), await bulkhead.acquire(max_wait=0.5):
        await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@pytest.mark.parametrize("act", [calls, decorates, enters, holds, gives_up])
@pytest.mark.parametrize("busy", [False, True], ids=["free", "busy"])
async def test_nothing_is_left_wherever_a_call_is_cancelled(act: Act, busy: bool) -> None:
    """At every suspension of a call that gets a place at once, waits for it, or waits in vain."""
    for ending in cancelled_everywhere("scope", "task", "close"):
        bulkhead = make()
        async with anyio.create_task_group() as group:
            if busy:
                group.start_soon(bulkhead.call, work)
                await settle()
            await ending(partial(act, bulkhead))
        assert ending.came_out is ending.reached, ending
        assert is_empty(bulkhead), ending
        with placed(bulkhead):
            pass


# -- ties --------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("first", ["woken", "cancelled"])
async def test_who_is_given_a_place_and_cancelled_in_one_tick_hands_it_on(first: str) -> None:
    """Whichever of the two comes first: the next in line gets the place, and no turn is lost."""
    bulkhead = make(max_wait=1e6)
    place = placed(bulkhead)
    got: list[str] = []
    scopes = {name: anyio.CancelScope() for name in "abc"}

    async def live(name: str) -> None:
        with scopes[name], await bulkhead.acquire():
            got.append(name)
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(live, name)
            await settle()
        if first == "woken":
            place.leave()
            scopes["a"].cancel()
        else:
            scopes["a"].cancel()
            place.leave()
    # A scope does not reach a task that was woken before it waits again.
    assert got == (["a", "b", "c"] if first == "woken" else ["b", "c"])
    assert is_empty(bulkhead)


@pytest.mark.parametrize("first", ["woken", "cancelled"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.anyio
async def test_a_task_that_is_given_a_place_and_cancelled_in_one_tick_hands_it_on(first: str) -> None:
    """The same with `Task.cancel`, which takes another way than a scope."""
    bulkhead = make(max_wait=1e6)
    place = placed(bulkhead)
    tasks = [asyncio.create_task(bulkhead.acquire()) for _ in range(2)]
    await settle()
    if first == "woken":
        place.leave()
        tasks[0].cancel()
    else:
        tasks[0].cancel()
        place.leave()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    (await tasks[1]).leave()
    assert is_empty(bulkhead)


@pytest.mark.anyio
async def test_a_place_that_comes_with_the_end_of_the_wait_is_not_lost() -> None:
    """In one and the same moment: the waiter either has the place, or the next one does."""
    for _ in range(10):
        bulkhead = make(max_wait=2)
        outcomes: list[str] = []

        async def wait(bulkhead: Bulkhead = bulkhead, outcomes: list[str] = outcomes) -> None:
            try:
                with await bulkhead.acquire():
                    outcomes.append("placed")
            except BulkheadFull:
                outcomes.append("refused")

        async def hold(bulkhead: Bulkhead = bulkhead) -> None:
            with placed(bulkhead):
                await anyio.sleep(2)

        async with anyio.create_task_group() as group:
            for act in random.sample([hold, wait], 2) if outcomes else [hold, wait]:
                group.start_soon(act)
        assert len(outcomes) == 1
        assert is_empty(bulkhead)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.anyio
async def test_a_wait_leaves_no_timer() -> None:
    """Whoever got a place, or was cancelled, leaves nothing behind that would run at the end of its wait."""
    bulkhead = make(max_wait=1e6)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    before = loop.next_timer()  # the test's own
    place = placed(bulkhead)
    tasks = [asyncio.create_task(bulkhead.acquire()) for _ in range(2)]
    await settle()
    assert loop.next_timer() != before
    tasks[1].cancel()
    place.leave()
    await asyncio.wait(tasks)
    assert loop.next_timer() == before
    tasks[0].result().leave()


@pytest.mark.anyio
async def test_a_storm_of_cancellations_leaves_nothing() -> None:
    """Hundreds of waiters of all priorities, cancelled at random moments: the rest all get their turn."""
    rng = random.Random(7)
    bulkhead = make(3, max_queue=40, max_wait=5, order="adaptive_lifo")
    running = 0

    async def live(delay: float, hold: float, patience: float, priority: Priority) -> None:
        nonlocal running
        await anyio.sleep(delay)
        with anyio.move_on_after(patience), suppress(BulkheadFull), await bulkhead.acquire(priority=priority):
            running += 1
            try:
                assert running <= 3
                await anyio.sleep(hold)
            finally:
                running -= 1

    async with anyio.create_task_group() as group:
        for _ in range(300):
            quarter = rng.choice([0.25, 0.5, 1.0])  # so that many things happen in one and the same moment
            delay, patience = rng.randrange(40) * quarter, rng.randrange(1, 12) * quarter
            group.start_soon(live, delay, quarter, patience, rng.choice(list(Priority)))
    assert running == 0
    assert is_empty(bulkhead)


# -- loops and threads -------------------------------------------------------------------------------------------------


def in_threads(backends: list[Backend], main: Callable[[int], Awaitable[object]]) -> None:
    """Run ``main(number)`` in a thread with a loop of its own for each backend, all at once."""
    errors: list[BaseException] = []

    def run(number: int, backend: Backend) -> None:
        try:
            anyio.run(main, number, backend=backend)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=facts, daemon=True) for facts in enumerate(backends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


@pytest.mark.parametrize(
    "backends", [["asyncio"] * 4, ["asyncio", "trio", "asyncio", "trio"]], ids=["asyncio", "mixed"]
)
def test_loops_in_many_threads_share_the_places(backends: list[Backend]) -> None:
    """Four loops, two places: never three at once, everybody gets a turn, and nothing is left."""
    bulkhead = Bulkhead(BulkheadSettings(max_concurrent=2, max_queue=1000, max_wait=30))
    lock = threading.Lock()
    running, most, finished = 0, 0, 0

    async def one(rng: random.Random) -> None:
        nonlocal running, most, finished
        with anyio.CancelScope() as scope:
            if rng.random() < 0.2:
                scope.cancel()
            async with bulkhead:
                with lock:
                    running += 1
                    most = max(most, running)
                try:
                    await anyio.lowlevel.checkpoint()
                finally:
                    with lock:
                        running -= 1
        with lock:
            finished += 1

    async def main(number: int) -> None:
        rng = random.Random(number)
        for _ in range(5):
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(one, rng)

    in_threads(backends, main)
    assert (finished, running) == (200, 0)
    assert most <= 2
    assert is_empty(bulkhead)


@pytest.mark.parametrize("waits_on", ["asyncio", "trio"])
@pytest.mark.parametrize("leaves_on", ["asyncio", "trio", "nothing"])
def test_a_place_wakes_a_waiter_of_another_thread(waits_on: Backend, leaves_on: str) -> None:
    """A place left in one thread, in a loop or without one, wakes who waits for it on the loop of another."""
    bulkhead = Bulkhead(BulkheadSettings(max_concurrent=1, max_wait=30))
    place = placed(bulkhead)
    waits = threading.Event()

    def leave() -> None:
        assert waits.wait(30)
        while not bulkhead.waiting:
            pass
        if leaves_on == "nothing":
            place.leave()
        else:
            anyio.run(leave_in_loop, backend=leaves_on)

    async def leave_in_loop() -> None:
        place.leave()

    async def wait() -> None:
        waits.set()
        async with bulkhead:
            pass

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    anyio.run(wait, backend=waits_on)
    thread.join(30)
    assert is_empty(bulkhead)


def test_a_waiter_whose_loop_is_closed_does_not_keep_a_place() -> None:
    """A loop that ended with a waiter in the line: the place goes to the next one that lives."""
    bulkhead = Bulkhead(BulkheadSettings(max_concurrent=1, max_wait=30))
    place = placed(bulkhead)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending!"
    dead = loop.create_task(bulkhead.acquire())
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert bulkhead.waiting == 1
    loop.close()

    async def live() -> None:
        asyncio.get_running_loop().call_soon(place.leave)
        with await bulkhead.acquire():
            assert bulkhead.granted == 1

    asyncio.run(live())
    assert is_empty(bulkhead)
    del dead
    gc.collect()
    assert is_empty(bulkhead)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_waking_somebody_whose_loop_has_ended_says_so(backend: Backend) -> None:
    """A waiter knows its own loop, and that it is gone."""
    waiters: list[Waiter] = []

    async def main() -> None:
        waiter = Waiter()
        waiters.append(waiter)
        assert waiter.wake()
        assert waiter.wake()
        await waiter.wait(float("inf"))

    anyio.run(main, backend=backend)
    assert not waiters[0].wake()
