"""Other settings while calls are under way: what is known stays, and each call ends under those it began with."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

from resilience import (
    CallTimeout,
    CircuitState,
    ConfigurationError,
    ProviderRegistry,
    ProviderSettings,
    RateLimited,
    Settings,
)
from resilience.events import Event, SettingsReloaded
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio

NO_RETRY: dict[str, Any] = {"enabled": False}


def settings(**usual: Any) -> Settings:
    return Settings(defaults=ProviderSettings(**usual))


def registry_with(**usual: Any) -> ProviderRegistry:
    return ProviderRegistry(settings(**usual), clock=anyio.current_time, wall_clock=lambda: 1e9, rng=random.Random(1))


async def test_the_next_call_goes_by_the_new_settings(world) -> None:
    """A handle in use, a view of it and a new handle alike."""
    registry = registry_with(retry={"max_attempts": 2, "jitter": "none"})
    handle = registry.provider("s3")
    view = handle.with_options(idempotent=True)
    for provider in (handle, view, handle.with_options(timeout=1000)):
        await provider.execute(world.script("fine"))
    registry.reload(settings(retry={"max_attempts": 4, "jitter": "none"}, breaker={"failure_threshold": 100}))
    for provider in (handle, view, registry.provider("s3")):
        script = world.script(ConnectionResetError)
        with pytest.raises(ConnectionResetError):
            await provider.execute(script)
        assert script.calls == 4
    assert handle.settings.retry.max_attempts == 4


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_call_under_way_ends_under_the_settings_it_began_with(world, warm: bool, attempts: int) -> None:
    """On the fast path and off it: its retries, and the limit of the attempt that is running."""
    before = {"retry": {"max_attempts": attempts, "jitter": "none"}, "timeout": {"attempt": 5, "total": 100}}
    registry = registry_with(**before)
    provider = await world.warm(registry.provider("s3"), warm=warm)
    ends: list[tuple[float, int]] = []

    async def call() -> None:
        script = world.script("late", seconds=50)
        started = anyio.current_time()
        with pytest.raises(CallTimeout):
            await provider.execute(script)
        ends.append((anyio.current_time() - started, script.calls))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(1)
        registry.reload(settings(retry={"enabled": False}, timeout={"attempt": 500, "total": 1000}))
        assert provider.snapshot().in_flight == 1
    assert ends == [(pytest.approx(5 * attempts + (attempts - 1)), attempts)]
    assert provider.snapshot().in_flight == 0


async def test_what_is_known_stays(world) -> None:
    """Failures in a row, the window, an open circuit and its time, the gate, the budget."""
    registry = registry_with(retry=NO_RETRY)
    provider = registry.provider("s3")
    for _ in range(4):
        await provider.try_execute(world.script(ConnectionResetError))
    registry.reload(settings(retry=NO_RETRY, breaker={"timeout": 7, "jitter": 0}))
    assert provider.snapshot().breaker.failures_in_a_row == 4
    await provider.try_execute(world.script(ConnectionResetError))
    assert provider.breaker.state is CircuitState.OPEN
    registry.reload(settings(retry=NO_RETRY, breaker={"timeout": 700, "jitter": 0}))
    assert provider.breaker.state is CircuitState.OPEN
    await anyio.sleep(7)
    await provider.execute(world.script("fine"))
    assert provider.breaker.state is CircuitState.HALF_OPEN


async def test_a_threshold_that_was_passed_already_needs_the_next_bad_news(world) -> None:
    """Reading settings anew opens nothing by itself."""
    registry = registry_with(retry=NO_RETRY)
    provider = registry.provider("s3")
    for _ in range(3):
        await provider.try_execute(world.script(ConnectionResetError))
    registry.reload(settings(retry=NO_RETRY, breaker={"failure_threshold": 2}))
    assert provider.breaker.state is CircuitState.CLOSED
    await provider.try_execute(world.script(ConnectionResetError))
    assert provider.breaker.state is CircuitState.OPEN


async def test_limits_come_and_go_and_keep_what_is_spent(world) -> None:
    """A minute's requests stay used under another limit; one that is gone refuses nobody."""
    registry = registry_with(rate_limit={"requests_per_minute": 3, "max_wait": 0})
    provider = registry.provider("s3")
    for _ in range(3):
        await provider.execute(world.script("fine"))
    registry.reload(settings(rate_limit={"requests_per_minute": 4, "max_wait": 0}))
    await provider.execute(world.script("fine"))
    with pytest.raises(RateLimited):
        await provider.execute(world.script("fine"))
    registry.reload(settings())
    await provider.execute(world.script("fine"))
    registry.reload(settings(rate_limit={"requests_per_minute": 1, "max_wait": 0}))
    await provider.execute(world.script("fine"))
    with pytest.raises(RateLimited):
        await provider.execute(world.script("fine"))


@pytest.mark.parametrize("warm", [False, True])
async def test_places_taken_before_count_and_come_back(world, warm: bool) -> None:
    """A bulkhead that shrinks throws nobody out, and lets nobody in until there is room."""
    registry = registry_with(bulkhead={"max_concurrent": 3, "max_wait": 0}, retry=NO_RETRY)
    provider = registry.provider("s3")
    if warm:
        await provider.execute(world.script("fine"))
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(provider.execute, world.script("late", seconds=10))
        await anyio.sleep(1)
        registry.reload(settings(bulkhead={"max_concurrent": 1, "max_wait": 0}, retry=NO_RETRY))
        assert (await provider.try_execute(world.script("fine"))).reason == "bulkhead_full"
    for _ in range(2):
        await provider.execute(world.script("fine"))
    assert provider.snapshot().bulkhead.in_use == 0


async def test_switching_a_provider_off_and_on(world) -> None:
    """`enabled` is a setting like any other."""
    registry = registry_with(breaker={"mode": "forced_open"})
    provider = registry.provider("s3")
    assert (await provider.try_execute(world.script("fine"))).reason == "forced_open"
    registry.reload(settings(breaker={"mode": "forced_open"}, enabled=False))
    assert await provider.execute(world.script("fine")) == "fine"
    registry.reload(settings())
    assert await provider.execute(world.script("fine")) == "fine"
    assert provider.breaker.state is CircuitState.CLOSED


async def test_the_event_tells_what_holds_in_place_of_what() -> None:
    """Once for all; and nothing when nothing is different."""
    registry = registry_with()
    registry.provider("s3")
    heard = EventRecorder()
    registry.subscribe(heard, Event)
    (change,) = registry.reload(settings(retry={"max_attempts": 5}), source="file settings.toml")
    assert registry.reload(settings(retry={"max_attempts": 5})) == ()
    assert (change.key, change.before, change.after) == ("defaults.retry.max_attempts", 3, 5)
    assert heard.events == [SettingsReloaded(provider="", time=1e9, source="file settings.toml", changes=(change,))]


async def test_only_settings_are_taken() -> None:
    """A dict, or the settings of one provider, is the likely slip."""
    registry = registry_with()
    with pytest.raises(ConfigurationError, match="reload takes Settings"):
        registry.reload(ProviderSettings())  # type: ignore[arg-type]


async def test_no_call_fails_because_of_it(world) -> None:
    """Calls all the time, every kind of change in between: each answers, and nothing is left behind."""
    registry = registry_with(bulkhead={"max_concurrent": 50}, rate_limit={"requests_per_second": 1000})
    provider, rng = registry.provider("s3"), random.Random(7)
    answers: list[str] = []

    async def caller() -> None:
        for _ in range(20):
            answer = await provider.execute(world.script("fine", seconds=rng.uniform(0, 0.5)))
            answers.append(answer)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(caller)
        for number in range(30):
            await anyio.sleep(0.1)
            limits: dict[str, Any] = {} if number % 3 else {"bulkhead": {"max_concurrent": rng.randint(20, 50)}}
            limits |= {} if number % 2 else {"rate_limit": {"requests_per_second": rng.randint(500, 1000)}}
            registry.reload(settings(timeout={"attempt": rng.randint(5, 50)}, **limits))
    snapshot = provider.snapshot()
    assert (len(answers), snapshot.succeeded, snapshot.in_flight, snapshot.waiting, snapshot.rejected) == (
        400,
        400,
        0,
        0,
        0,
    )
    registry.reload(settings())
    await provider.execute(world.script("fine"))
    assert len(provider._runtime.lanes) == 1
