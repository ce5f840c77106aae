"""One provider in several threads, with an event loop each: exact permits, exact transitions, exact counts."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    BreakerSettings,
    CircuitBreaker,
    CircuitState,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
)
from resilience.errors import CircuitOpen, Reason
from resilience.policies.circuit_breaker import CircuitBreakerSnapshot
from resilience.testing import EventRecorder

Backend = Literal["asyncio", "trio"]

FOUR: list[Backend] = ["asyncio"] * 4
MIXED: list[Backend] = ["asyncio", "trio", "asyncio", "trio"]
NEVER_OPENS = BreakerSettings(failure_threshold=None, failure_rate=None, slow_rate=None)
both_mixes = pytest.mark.parametrize("backends", [FOUR, MIXED], ids=["asyncio", "mixed"])


SHARED_STATE = ("circuit.py", "window.py", "circuit_breaker.py", "runtime.py", "common.py", "registry.py")


def stumble(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
    """Trace functions that touch shared state, and let other threads go first at any of their lines."""
    if event == "line":
        if random.random() < 0.1:
            os.sched_yield()  # another thread gets the interpreter
        return stumble
    return stumble if frame.f_code.co_filename.endswith(SHARED_STATE) else None


def in_threads(backends: list[Backend], main: Callable[[int], Awaitable[object]]) -> None:
    """Run ``main(number)`` in a thread with a loop of its own for each backend, all at once."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(backends))

    def run(number: int, backend: Backend) -> None:
        async def begin() -> None:
            barrier.wait(30)
            await main(number)

        sys.settrace(stumble)
        try:
            anyio.run(begin, backend=backend)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=facts, daemon=True) for facts in enumerate(backends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))  # those only follow from another
    if errors:
        raise errors[0]


def registry_with(breaker: BreakerSettings) -> ProviderRegistry:
    defaults = ProviderSettings(breaker=breaker, retry=RetrySettings(enabled=False))
    return ProviderRegistry(Settings(defaults=defaults))


def about_to_probe(provider: ResilientProvider) -> None:
    """Open the circuit with no time left, as after a restart."""
    closed = provider.breaker.snapshot()
    names = CircuitBreakerSnapshot.__dataclass_fields__
    facts: dict[str, Any] = {name: getattr(closed, name) for name in names} | {"state": CircuitState.HALF_OPEN}
    provider.breaker.restore(CircuitBreakerSnapshot(**facts))


async def ok() -> None:
    pass


async def pause() -> None:
    await anyio.lowlevel.checkpoint()


async def fail() -> None:
    raise ConnectionError


# -- counts ------------------------------------------------------------------------------------------------------------


@both_mixes
@pytest.mark.parametrize(
    "breaker",
    [
        NEVER_OPENS,
        BreakerSettings(failure_threshold=None, minimum_calls=10**6, window=0.01, slow_after=0.01),
        BreakerSettings(failure_threshold=None, failure_rate=1, slow_rate=None, minimum_calls=7, window_calls=7),
    ],
    ids=["no window", "tiny window", "ring"],
)
@pytest.mark.parametrize("shared", [True, False], ids=["one handle", "own handles"])
def test_every_call_is_counted_once(backends: list[Backend], breaker: BreakerSettings, shared: bool) -> None:
    """Successes and failures add up to the calls that were made, whichever threads made them."""
    registry, rounds = registry_with(breaker), 120
    provider = registry.provider("s3")

    async def main(number: int) -> None:
        handle = provider if shared else registry.provider("s3")
        for turn in range(rounds):
            await handle.execute(ok)
            if turn % 3 == number % 3:
                with suppress(ConnectionError):
                    await handle.execute(fail)
            await handle.execute(pause)

    in_threads(backends, main)
    after, circuit = provider.snapshot(), provider.breaker.circuit
    failures = 4 * rounds // 3
    assert (circuit.successes, circuit.failures) == (8 * rounds, failures)
    assert after.calls == 8 * rounds + failures
    assert (after.in_flight, after.rejected, circuit.ignored, circuit.stale) == (0, 0, 0, 0)


@both_mixes
def test_every_refusal_is_counted_once(backends: list[Backend]) -> None:
    """Refusals of an open circuit take no lock and are exact all the same."""
    provider = registry_with(BreakerSettings()).provider("s3")
    provider.breaker.open()
    about_to_probe(provider)

    async def trip() -> None:
        with suppress(ConnectionError):
            await provider.execute(fail)

    anyio.run(trip)
    assert provider.breaker.state is CircuitState.OPEN

    async def main(number: int) -> None:
        for _ in range(500):
            outcome = await provider.try_execute(ok)
            assert outcome.reason is Reason.CIRCUIT_OPEN
            with pytest.raises(CircuitOpen):
                await provider.execute(ok)

    in_threads(backends, main)
    after = provider.snapshot()
    assert (after.rejected, after.calls) == (4000, 1)


def test_a_breaker_of_its_own_counts_exactly_too() -> None:
    """Without a provider around it: blocks and calls from four threads, and calls that hang are looked at meanwhile."""
    settings = BreakerSettings(failure_threshold=None, failure_rate=None, slow_rate=1, minimum_calls=10**6)
    breaker = CircuitBreaker("s3", settings, attempt_timeout=1e-9)

    async def main(number: int) -> None:
        for _ in range(200):
            async with breaker:
                await breaker.call(pause)
            with suppress(ConnectionError):
                await breaker.call(fail)

    in_threads(FOUR, main)
    circuit = breaker.circuit
    assert (circuit.successes, circuit.failures, circuit.ignored) == (1600, 800, 0)


def test_names_may_come_and_go_in_all_threads() -> None:
    """Four threads make and forget the same providers: the bound holds, and handles find each other's state."""
    defaults = ProviderSettings(breaker=BreakerSettings(failure_threshold=1), retry=RetrySettings(enabled=False))
    registry = ProviderRegistry(Settings(defaults=defaults, max_providers=8))
    old = [registry.provider("old") for _ in range(4)]

    async def main(number: int) -> None:
        for turn in range(60):
            name, endpoint = f"name{turn % 13}", (None, "eu")[turn % 2]
            await registry.provider(name, endpoint=endpoint).execute(ok)
            await old[number].execute(ok)

    in_threads(FOUR, main)
    assert len(registry) == 8
    assert {runtime.common for runtime in registry.runtimes.values()} == set(registry._commons.values())
    old[0].breaker.open()
    assert {handle.breaker.state for handle in old} == {CircuitState.FORCED_OPEN}


# -- transitions -------------------------------------------------------------------------------------------------------


@both_mixes
@pytest.mark.parametrize("probes", [1, 2])
def test_half_open_admits_exactly_its_probes(backends: list[Backend], probes: int) -> None:
    """Of four threads that come at the same moment, one probes (or two, if the settings say so); no slot is lost."""
    provider = registry_with(
        BreakerSettings(half_open_max_calls=probes, success_threshold=probes, probe_lease=1000)
    ).provider("s3")
    gate = threading.Barrier(4)
    rounds, passed, refused = 25, [0], [0]
    news = threading.Condition()

    async def probe() -> None:
        # A probe blocks its thread until all others were refused: so they came while it was under way.
        with news:
            passed[0] += 1
            assert news.wait_for(lambda: refused[0] == 4 - probes, timeout=30)

    async def main(number: int) -> None:
        for _ in range(rounds):
            if gate.wait(30) == 0:
                passed[0] = refused[0] = 0
                about_to_probe(provider)
            gate.wait(30)
            outcome = await provider.try_execute(probe)
            if outcome.rejected:
                assert outcome.reason is Reason.HALF_OPEN_SATURATED
                with news:
                    refused[0] += 1
                    news.notify_all()
            gate.wait(30)
            assert (passed[0], refused[0]) == (probes, 4 - probes)
            assert provider.breaker.state is CircuitState.CLOSED

    in_threads(backends, main)
    assert provider.breaker.circuit.successes == rounds * probes


def provided(settings: BreakerSettings) -> tuple[CircuitBreaker, Callable[[], Awaitable[object]]]:
    provider = registry_with(settings).provider("s3")
    return provider.breaker, partial(provider.execute, fail)


def alone(settings: BreakerSettings) -> tuple[CircuitBreaker, Callable[[], Awaitable[object]]]:
    breaker = CircuitBreaker("s3", settings)
    return breaker, breaker(fail)


@pytest.mark.parametrize("make", [provided, alone])
def test_one_trip_is_one_transition(
    make: Callable[[BreakerSettings], tuple[CircuitBreaker, Callable[[], Awaitable[object]]]],
) -> None:
    """Many failures at once from four threads open the circuit at the fifth, and each round tells it once."""
    breaker, call = make(BreakerSettings(failure_threshold=5, failure_rate=None))
    events = EventRecorder()
    breaker.bus.subscribe(events)
    gate = threading.Barrier(4)
    rounds = 40

    async def main(number: int) -> None:
        for _ in range(rounds):
            if gate.wait(30) == 0:
                breaker.reset()
            gate.wait(30)
            for _ in range(5):
                with suppress(ConnectionError, CircuitOpen):
                    await call()
            gate.wait(30)
            assert (breaker.state, breaker.circuit.failures) == (CircuitState.OPEN, 5)

    in_threads(FOUR, main)
    trips = [change for change in events.transitions if change.after is CircuitState.OPEN]
    assert [change.figures for change in trips] == ["5 failures in a row"] * rounds


def test_a_trip_in_one_thread_shuts_the_door_in_all() -> None:
    """The next call of every thread is refused, also through handles that were on the fast path before."""
    provider = registry_with(BreakerSettings()).provider("s3")
    gate = threading.Barrier(4)

    async def main(number: int) -> None:
        handle = ResilientProvider.with_options(provider, operation="")  # a handle of its own
        for _ in range(3):
            await handle.execute(ok)
            await provider.execute(ok)
        gate.wait(30)
        if number == 0:
            for _ in range(5):
                await handle.try_execute(fail)
        gate.wait(30)
        for mine in (handle, provider):
            with pytest.raises(CircuitOpen, match="5 failures in a row"):
                await mine.execute(ok)

    in_threads(FOUR, main)


def test_a_call_is_watched_by_the_loop_it_runs_on() -> None:
    """One handle in four threads: no call is ever entered with the task or the timer of another thread's loop."""
    provider = registry_with(NEVER_OPENS).provider("s3")
    lanes = provider._runtime.lanes

    async def look() -> None:
        task = asyncio.current_task()
        mine = [lane for lane in list(lanes.values()) if lane.loop is asyncio.get_running_loop()]
        assert task in {getattr(key, "task", key) for lane in mine for key in list(lane.live)}
        others = [lane for lane in list(lanes.values()) if lane not in mine]
        assert task not in {getattr(key, "task", key) for lane in others for key in list(lane.live)}

    async def main(number: int) -> None:
        for _ in range(150):
            await provider.execute(look)

    in_threads(FOUR, main)


# -- loops -------------------------------------------------------------------------------------------------------------


def test_loops_that_take_turns_leave_nothing_behind() -> None:
    """One loop after the other: their calls add up, and a closed loop is forgotten when the next one calls."""
    provider = registry_with(NEVER_OPENS).provider("s3")

    async def main() -> None:
        await provider.execute(ok)
        await provider.execute(pause)

    for _ in range(20):
        asyncio.run(main())
    assert provider.snapshot().calls == provider.breaker.circuit.successes == 40
    assert len(provider._runtime.lanes) == 1


def test_loops_that_alternate_in_one_thread_do_not_mix() -> None:
    """A call that waits in one loop does not hold up another loop, and each result is counted."""
    provider = registry_with(BreakerSettings(failure_threshold=3)).provider("s3")
    loops = [asyncio.new_event_loop() for _ in range(2)]

    async def wait_for(event: asyncio.Event) -> None:
        await event.wait()

    async def begin(event: asyncio.Event) -> asyncio.Task[None]:
        task = asyncio.ensure_future(provider.execute(wait_for, event))
        await asyncio.sleep(0)
        return task

    events = [asyncio.Event() for _ in loops]
    tasks = [loop.run_until_complete(begin(event)) for loop, event in zip(loops, events, strict=True)]
    assert provider.snapshot().in_flight == 2
    for loop, event, task in zip(loops, events, tasks, strict=True):
        loop.run_until_complete(provider.execute(ok))
        event.set()
        loop.run_until_complete(task)
    for loop in loops:
        loop.close()
    assert (provider.snapshot().in_flight, provider.breaker.circuit.successes) == (0, 4)


def test_a_loop_may_move_from_thread_to_thread() -> None:
    """What belongs to a loop follows it."""
    provider = registry_with(BreakerSettings()).provider("s3")
    loop = asyncio.new_event_loop()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(3):
                loop.run_until_complete(provider.execute(ok))
        except BaseException as error:
            errors.append(error)

    for _ in range(3):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
        run()
    loop.close()
    assert errors == []
    assert provider.snapshot().calls == provider.breaker.circuit.successes == 18
    assert len(provider._runtime.lanes) == 1


def test_a_hang_in_one_thread_is_seen_in_all() -> None:
    """Calls that hang on one loop open the circuit for callers on another."""
    settings = BreakerSettings(minimum_calls=4, slow_after=0.02, slow_rate=1)
    provider = registry_with(settings).provider("s3")
    opened = threading.Event()
    provider.subscribe(lambda event: opened.set())

    async def hang() -> None:
        with anyio.fail_after(30):
            while not opened.is_set():
                await pause()

    async def main(number: int) -> None:
        await provider.execute(hang)

    in_threads(FOUR, main)
    assert opened.is_set()
    assert provider.breaker.snapshot().evidence == "4 of 4 calls were slow in 30 s (threshold 100 %)"


# -- the collector -----------------------------------------------------------------------------------------------------


class _Forever:
    def __await__(self) -> Iterator[None]:
        while True:
            yield


def test_a_call_closed_in_the_middle_of_a_decision_does_not_deadlock() -> None:
    """The collector may run anywhere, also while its own thread holds the provider's lock."""
    provider = registry_with(BreakerSettings()).provider("s3")

    async def forever() -> None:
        await _Forever()

    async def main() -> list[Any]:
        calls = [provider.execute(forever), provider.with_options(timeout=5).execute(forever)]
        for call in calls:
            call.send(None)
        return calls

    calls = asyncio.run(main())
    with provider.breaker.lock:
        for call in calls:
            call.close()
    assert (provider.snapshot().in_flight, provider.breaker.circuit.ignored) == (0, 2)
