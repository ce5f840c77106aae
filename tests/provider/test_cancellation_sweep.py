"""
Cancellation at every point where a call can be cancelled: everything comes back, each time.

In three ways: through a cancel scope, by `Task.cancel` (on asyncio), and by closing the coroutine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    BreakerSettings,
    BudgetSettings,
    CircuitBreaker,
    CircuitState,
    Deadline,
    ResilientProvider,
    RetryHandler,
    RetrySettings,
    classify,
    guard,
)
from resilience._core.states import Permit
from resilience._core.words import Verdict
from resilience.testing import cancelled_everywhere

pytestmark = pytest.mark.anyio

RETRIES = RetrySettings(jitter="none", base_delay=2)
# One float of refill in a thousand years: what is missing at the end was charged and not refunded.
BUDGET = BudgetSettings(ratio=0, floor_per_second=1e-9, floor_burst=5)
BREAKER = BreakerSettings(jitter=0, minimum_calls=1000)


# -- situations --------------------------------------------------------------------------------------------------------


class Work:
    """What is called: it suspends a few times, and its first calls may fail."""

    finished = 0  # of all calls of all works: those that nobody ended

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = self.failures = self.returned = 0

    async def __call__(self) -> str:
        self.calls += 1
        await anyio.lowlevel.checkpoint()
        await anyio.sleep(1)
        if self.errors:
            self.failures += 1
            Work.finished += 1
            raise self.errors.pop(0)
        await anyio.sleep(0.5)
        self.returned += 1
        Work.finished += 1
        return "done"


class RateLimitedError(Exception):
    status_code = 429
    headers = {"retry-after": "3"}  # noqa: RUF012


class UnauthorizedError(Exception):
    status_code = 401


class Scene:
    """A provider in some state, and a call of it."""

    def __init__(self, world: Any, *errors: BaseException) -> None:
        self.work = Work(*errors)
        self.registry = world.registry(retry=RETRIES, budget=BUDGET, breaker=BREAKER)
        self.provider: ResilientProvider = self.registry.provider("s3")
        self.act: Callable[[], Coroutine[Any, Any, Any]] = lambda: self.provider.execute(self.work)

    async def warm(self) -> Scene:
        """Make a first call, so that the next one goes the fast way."""
        await self.provider.execute(Work())
        return self

    async def half_open(self) -> Scene:
        """Open the circuit, and let its time pass."""
        for _ in range(5):
            await self.provider.with_options(retry=False).try_execute(Work(ConnectionResetError()))
        assert self.provider.breaker.state is CircuitState.OPEN
        await anyio.sleep(61)
        return self

    async def gated(self) -> Scene:
        """Let the provider ask for a pause."""
        await self.provider.with_options(retry=False).try_execute(Work(RateLimitedError()))
        return self


Make: TypeAlias = Callable[[Any], Awaitable[Scene]]


async def slow_way(world: Any) -> Scene:
    return Scene(world)


async def fast_way(world: Any) -> Scene:
    return await Scene(world).warm()


async def own_limit(world: Any) -> Scene:
    scene = await Scene(world).warm()
    scene.act = lambda: scene.provider.with_options(attempt_timeout=20).execute(scene.work)
    return scene


async def own_deadline(world: Any) -> Scene:
    scene = await Scene(world).warm()
    deadline = Deadline(20, clock=anyio.current_time)
    scene.act = lambda: scene.provider.with_options(deadline=deadline).execute(scene.work)
    return scene


async def back_off(world: Any) -> Scene:
    return await Scene(world, ConnectionResetError(), ConnectionResetError()).warm()


async def back_off_on_the_slow_way(world: Any) -> Scene:
    return Scene(world, ConnectionResetError(), ConnectionResetError())


async def gate_wait(world: Any) -> Scene:
    return await (await Scene(world).warm()).gated()


async def gate_wait_before_a_retry(world: Any) -> Scene:
    return await Scene(world, RateLimitedError()).warm()


async def gate_wait_with_a_retry_paid(world: Any) -> Scene:
    """The gate closes while a retry that is paid for already waits for its turn."""
    scene = await Scene(world).warm()

    async def act() -> None:
        async def fail_once() -> object:
            if not scene.work.calls:
                runtime = scene.registry.runtime("s3")
                runtime.obey(classify(RateLimitedError()), anyio.current_time())
                scene.work.errors.append(ConnectionResetError())
            return await scene.work()

        await scene.provider.execute(fail_once)

    scene.act = act
    return scene


async def probe(world: Any) -> Scene:
    return await Scene(world).half_open()


async def probe_through_a_gate(world: Any) -> Scene:
    scene = await Scene(world).half_open()
    scene.registry.runtime("s3").obey(classify(RateLimitedError()), anyio.current_time())
    return scene


async def nested_in_itself(world: Any) -> Scene:
    scene = await Scene(world).warm()

    async def outer() -> None:
        await anyio.sleep(0.5)
        await scene.provider.execute(scene.work)
        await anyio.sleep(0.5)

    scene.act = lambda: scene.provider.execute(outer)
    return scene


async def nested_in_another(world: Any) -> Scene:
    scene = await nested_in_itself(world)
    act, other = scene.act, scene.registry.provider("other")
    await other.execute(Work())
    scene.act = lambda: other.execute(act)
    return scene


async def nested_in_a_probe(world: Any) -> Scene:
    return await (await nested_in_itself(world)).half_open()


async def refresh(world: Any) -> Scene:
    scene = await Scene(world, UnauthorizedError()).warm()

    async def renew() -> None:
        await anyio.sleep(1)
        await anyio.lowlevel.checkpoint()

    scene.act = lambda: scene.provider.with_options(refresh=renew).execute(scene.work)
    return scene


async def refresh_through_the_provider(world: Any) -> Scene:
    scene = await Scene(world, UnauthorizedError()).warm()
    scene.act = lambda: scene.provider.with_options(refresh=lambda: scene.provider.execute(Work())).execute(scene.work)
    return scene


async def blocks(world: Any) -> Scene:
    scene = await Scene(world, ConnectionResetError()).warm()

    async def act() -> None:
        async for attempt in scene.provider.attempts():
            async with attempt:
                await scene.work()

    scene.act = act
    return scene


async def blocks_with_work_between(world: Any) -> Scene:
    scene = await Scene(world, ConnectionResetError()).warm()

    async def act() -> None:
        async for attempt in scene.provider.attempts():
            async with attempt:
                await scene.work()
            await anyio.sleep(0.5)

    scene.act = act
    return scene


async def blocks_as_a_probe(world: Any) -> Scene:
    scene = await blocks(world)
    scene.work.errors.clear()
    return await scene.half_open()


async def outcome(world: Any) -> Scene:
    scene = await back_off(world)
    scene.act = lambda: scene.provider.try_execute(scene.work)
    return scene


async def wrapped(world: Any) -> Scene:
    scene = await back_off(world)
    scene.act = scene.provider.wrap(scene.work)
    return scene


async def inside_a_deadline(world: Any) -> Scene:
    scene = await back_off(world)

    async def act() -> None:
        async with Deadline(50, clock=anyio.current_time):
            await scene.provider.execute(scene.work)

    scene.act = act
    return scene


async def around_a_deadline(world: Any) -> Scene:
    scene = await Scene(world).warm()
    deadline = Deadline(20, clock=anyio.current_time)
    scene.act = lambda: scene.provider.execute(deadline.call, scene.work)
    return scene


SITUATIONS: list[Make] = [
    slow_way,
    fast_way,
    own_limit,
    own_deadline,
    back_off,
    back_off_on_the_slow_way,
    gate_wait,
    gate_wait_before_a_retry,
    gate_wait_with_a_retry_paid,
    probe,
    probe_through_a_gate,
    nested_in_itself,
    nested_in_another,
    nested_in_a_probe,
    refresh,
    refresh_through_the_provider,
    blocks,
    blocks_with_work_between,
    blocks_as_a_probe,
    outcome,
    wrapped,
    inside_a_deadline,
    around_a_deadline,
]


# -- what has to be back -----------------------------------------------------------------------------------------------


def held(scene: Scene) -> list[object]:
    """Name everything that a call of the scene still holds."""
    found: list[object] = [f"deadline of {task}" for task in guard._outer]
    for runtime in scene.registry.runtimes.values():
        found += [f"entry {key}" for lane in runtime.lanes.values() for key in (*lane.live, *lane._late)]
        found += [f"probe's task {task}" for task in runtime.probing]
        found += [f"{count} probes" for count in [runtime.breaker.snapshot().probes] if count]
        found += [f"{count} in flight" for count in [runtime.in_flight] if count]
    return found


def retries_left(scene: Scene) -> float:
    return scene.registry.runtime("s3").common.retries_available(anyio.current_time())


@pytest.mark.parametrize("make", SITUATIONS, ids=lambda make: make.__name__)
async def test_a_call_ended_anywhere_gives_everything_back(make: Make, world: Any) -> None:
    """Permit, probe slot, entry, gate place and budget are back, and the breaker took it for no evidence."""
    for ending in cancelled_everywhere("scope", "task", "close"):
        scene = await make(world)
        breaker = scene.provider.breaker
        before, retries, successes = breaker.snapshot(), retries_left(scene), breaker.circuit.successes
        Work.finished = 0
        ended = await ending(scene.act)
        assert ending.came_out is ended, ending
        after = breaker.snapshot()
        assert held(scene) == [], ending
        assert retries_left(scene) == retries - max(0, scene.work.calls - 1), ending
        assert after.failures_in_a_row <= before.failures_in_a_row + scene.work.failures, ending
        assert after.trips == before.trips, ending
        if not ended:
            continue
        assert breaker.circuit.successes - successes <= Work.finished, ending
        closed = CircuitState.CLOSED
        assert (after.state is closed) is (before.state is closed), ending
        await works_again(scene)
    assert ending.suspension > 2


async def works_again(scene: Scene) -> None:
    """The provider is as usable as before: what was half-open closes by two successes, what was closed admits."""
    await anyio.sleep(6)  # a gate opens
    for _ in range(2):
        assert await scene.provider.execute(Work()) == "done"
    assert scene.provider.breaker.state is CircuitState.CLOSED
    assert held(scene) == []


# -- policies used alone -----------------------------------------------------------------------------------------------


def alone(*, open_circuit: bool) -> CircuitBreaker:
    settings = BreakerSettings(failure_threshold=1, jitter=0, timeout=1)
    breaker = CircuitBreaker("s3", settings, clock=anyio.current_time)
    if open_circuit:
        now = anyio.current_time()
        permit = breaker.acquire(now)
        assert isinstance(permit, Permit)
        breaker.release(permit, Verdict.FAILURE, now)
        assert breaker.state is CircuitState.OPEN
    return breaker


async def in_a_block(breaker: CircuitBreaker) -> None:
    async with breaker:
        await Work()()


@pytest.mark.parametrize("open_circuit", [False, True], ids=["closed", "half-open"])
@pytest.mark.parametrize(
    "use",
    [lambda breaker: breaker.call(Work()), in_a_block, lambda breaker: breaker(Work())()],
    ids=["call", "block", "decorated"],
)
async def test_a_breaker_alone_gets_its_permits_back(
    use: Callable[[CircuitBreaker], Coroutine[Any, Any, Any]], open_circuit: bool, anyio_backend: Any
) -> None:
    """Wherever a call through a breaker ends, its permit is back, and the end decides nothing."""
    for ending in cancelled_everywhere("scope", "task", "close"):
        breaker = alone(open_circuit=open_circuit)
        await anyio.sleep(1)
        before = breaker.snapshot()
        ended = await ending(partial(use, breaker))
        assert (breaker._live, breaker._entered) == ({}, {})
        now = breaker.snapshot()
        assert (now.probes, now.failed, now.trips) == (0, before.failed, before.trips)
        assert now.state is (CircuitState.HALF_OPEN if open_circuit else CircuitState.CLOSED)
        if not ended:
            continue
        assert await breaker.call(Work()) == "done"
    assert ending.suspension > 2


async def test_a_retry_handler_alone_stops_when_cancelled() -> None:
    """A cancelled call is not tried again, and the handler serves the next one."""
    for ending in cancelled_everywhere("scope", "task", "close"):
        handler = RetryHandler(RETRIES, clock=anyio.current_time)
        work = Work(ConnectionResetError(), ConnectionResetError())
        ended = await ending(partial(handler.call, work))
        assert handler.retries <= work.calls
        if not ended:
            continue
        assert not work.returned
        assert await handler.call(Work()) == "done"
    assert ending.suspension > 6


async def test_a_deadline_alone_is_left_whole() -> None:
    """Wherever work under a deadline ends, its scope is closed, and the deadline can be entered again."""
    for ending in cancelled_everywhere("scope", "task", "close"):
        deadline = Deadline(50, clock=anyio.current_time)
        await ending(partial(deadline.call, Work()))
        assert deadline._scopes == {}
        assert await deadline.call(Work()) == "done"
    assert ending.suspension > 2
