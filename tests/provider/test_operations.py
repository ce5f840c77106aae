"""What is changed while calls are under way: settings, arms of experiments, and who is looked for at a shutdown."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from typing import Any

import anyio
import pytest

from resilience import ExperimentSettings, FailureKind, ProviderRegistry, ProviderSettings, Settings, Usage
from resilience.events import CallFailed, CallWasRejected, CallWouldBeRejected, CircuitChanged, Event
from resilience.eviction import when_forgotten
from resilience.experiment import pair
from resilience.limits import Limits
from resilience.process import meter_calls
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio

FAST: dict[str, Any] = {"retry": {"jitter": "none", "base_delay": 10}, "breaker": {"failure_threshold": None}}


def settings(share: float = 0.0, other: dict[str, Any] | None = None, **usual: Any) -> Settings:
    experiment = ExperimentSettings(share=share, settings=ProviderSettings(**(other or {})))
    return Settings(defaults=ProviderSettings(**usual), experiments={"s3": experiment})


def registry_of(settings: Settings) -> ProviderRegistry:
    return ProviderRegistry(settings, clock=anyio.current_time, wall_clock=lambda: 1e9, rng=random.Random(1))


def is_free(lock: Any) -> bool:
    """Whether another thread could take a lock."""
    took: list[bool] = []

    def take() -> None:
        took.append(lock.acquire(timeout=0))
        if took[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return took[0]


# -- settings read anew while calls wait or sleep --------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
async def test_an_attempt_after_a_pause_is_still_known(world, warm: bool) -> None:
    """Settings were read anew while its call slept: it is in flight all the same, and a shutdown waits for it."""
    registry = registry_of(settings(**FAST))
    provider = await world.warm(registry.provider("s3"), warm=warm)
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, world.script(ConnectionResetError, "fine", seconds=2))
        await anyio.sleep(3)  # the second attempt is from 7 to 9
        for seconds in (20, 30):
            registry.reload(settings(**FAST, timeout={"attempt": seconds}))
        await anyio.sleep(5)
        assert provider.snapshot().in_flight == 1
        report = await registry.shutdown(grace=10)
    assert (report.finished, report.clean, provider.snapshot().in_flight) == (1, True, 0)


async def test_a_call_that_goes_on_under_old_settings_leaves_the_fast_path_to_the_others(world) -> None:
    """Its retries run beside them, and afterwards there is one lane again, which the limits can be sure of."""
    limit = {"rate_limit": {"requests_per_second": 1000}}
    registry = registry_of(settings(**FAST, **limit))
    provider = registry.provider("s3")
    await provider.execute(world.script("fine"))
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, world.script(ConnectionResetError, "fine", seconds=2))
        await anyio.sleep(1)
        registry.reload(settings(**FAST, **limit, timeout={"attempt": 20}))
    for _ in range(2):
        await provider.execute(world.script("fine"))
    assert len(provider._runtime.lanes) == 1
    assert (provider._lane.passage is not None) is (asyncio._get_running_loop() is not None)


async def test_what_is_slow_now_is_slow_for_the_calls_of_now(world) -> None:
    """A retry under the old settings leaves no measure of theirs behind."""
    registry = registry_of(settings(**FAST))
    provider = registry.provider("s3")
    await provider.execute(world.script("fine"))
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, world.script(ConnectionResetError, "fine", seconds=2))
        await anyio.sleep(1)
        registry.reload(settings(**FAST | {"breaker": {"failure_threshold": None, "slow_after": 0.5}}))
    before = provider.snapshot().breaker.slow
    for _ in range(2):
        await provider.execute(world.script("fine", seconds=1))
    assert provider.snapshot().breaker.slow == before + 2


async def test_calls_of_an_arm_are_counted_there_to_their_end(world) -> None:
    """Although the experiment is over, and their handle makes its next calls elsewhere."""
    registry = registry_of(settings(0.5))
    provider = registry.provider("s3")
    arm = provider.alternative
    runtime = arm._runtime
    await arm.execute(world.script("fine"))
    async with anyio.create_task_group() as group:
        group.start_soon(arm.execute, world.script("fine", seconds=2))
        group.start_soon(arm.try_execute, world.script(KeyError, seconds=2))
        await anyio.sleep(1)
        registry.reload(settings())
        await arm.execute(world.script("fine"))
    runtime.absorb()
    assert (runtime.succeeded, runtime.tally.failures) == (2, {("bad_request", "invalid_input"): 1})
    assert (provider.snapshot().succeeded, provider.snapshot().failed) == (1, 0)


async def test_an_iteration_under_way_ends_as_it_began(world) -> None:
    """Resilience is switched off in its first attempt: the second still comes after its pause, and is the last."""
    registry = registry_of(settings(**FAST))
    provider = registry.provider("s3")
    times: list[float] = []
    async for attempt in provider.attempts():
        async with attempt:
            times.append(anyio.current_time())
            if len(times) == 1:
                registry.reload(settings(enabled=False))
                raise ConnectionResetError
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [5]
    assert provider.snapshot().succeeded == 1


# -- listeners that call back ----------------------------------------------------------------------------------------


async def test_settings_read_by_a_listener_hold_for_all(world) -> None:
    """It reads others while the first are still being adopted: no provider is left with the first."""
    registry = registry_of(settings())
    providers = [registry.provider(name) for name in ("one", "s3", "two")]
    last = settings(0.5, {"errors": "standard"}, retry={"max_attempts": 9})
    registry.subscribe(lambda _: registry.reload(last), CircuitChanged)
    registry.reload(settings(breaker={"mode": "forced_open"}))
    assert registry.settings is last
    assert [provider.settings for provider in providers] == [last.for_provider(one.name) for one in providers]
    assert providers[1].alternative.settings.errors == "standard"


async def test_a_provider_forgotten_by_a_listener_stays_forgotten(world) -> None:
    """A listener makes the full registry forget a provider whose settings are being read anew: no arm is left of it."""
    registry = registry_of(settings().model_copy(update={"max_providers": 1}))
    old = registry.provider("s3")

    def listener(_: Event) -> None:
        stop()
        registry.provider("another")

    stop = old.subscribe(listener, CircuitChanged)
    with_arm = settings(0.5, breaker={"mode": "disabled"}).model_copy(update={"max_providers": 1})
    registry.reload(with_arm)
    assert list(registry.runtimes) == ["another"]
    assert old.alternative._runtime is registry.runtimes["s3", "", "b"]
    assert old._runtime.common.gate is old.alternative._runtime.common.gate


@pytest.mark.parametrize("arm", ["usual", "other"])
async def test_listeners_are_told_under_no_lock(world, arm: str) -> None:
    """Another thread may ask for providers, and for their figures, while a listener hears of new settings."""
    registry = registry_of(settings(0.5))
    provider = registry.provider("s3")
    free: list[bool] = []

    def listener(_: Event) -> None:
        free.extend(is_free(lock) for lock in (registry._lock, provider._runtime.common.lock))

    registry.subscribe(listener, CircuitChanged)
    forced = {"breaker": {"mode": "forced_open"}}
    registry.reload(settings(0.5, **forced) if arm == "usual" else settings(0.5, forced))
    assert free
    assert all(free)


async def test_a_line_that_is_left_behind_is_told_of_under_no_lock(world) -> None:
    """Shadow calls that would have waited for too long are noticed when settings change, and told of afterwards."""
    shadow = {"mode": "shadow", "max_wait": 1}
    registry = registry_of(settings(bulkhead=shadow | {"max_concurrent": 1}))
    provider = registry.provider("s3")
    free: list[bool] = []
    registry.subscribe(lambda _: free.append(is_free(provider._runtime.common.lock)), CallWouldBeRejected)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(provider.execute, world.script("fine", seconds=5))
        await anyio.sleep(3)
        registry.reload(settings(bulkhead=shadow | {"max_concurrent": 2}))
    assert free == [True]


# -- two arms --------------------------------------------------------------------------------------------------------


async def test_an_arm_that_nobody_comes_to_probe_is_forgotten_with_the_other(world) -> None:
    """A full registry forgets neither arm alone, and neither while the other is at work."""
    registry = registry_of(settings(0.5, retry={"enabled": False}).model_copy(update={"max_providers": 2}))
    provider = registry.provider("s3")
    await world.trip(provider.alternative)
    await anyio.sleep(100)
    async with anyio.create_task_group() as group:
        rival, provider._runtime.rival = provider._runtime.rival, None  # or the lot decides who makes the call
        group.start_soon(provider.execute, world.script("fine", seconds=2))
        await anyio.sleep(1)
        provider._runtime.rival = rival
        registry.provider("another")
        assert "s3" in registry
    registry.provider("a-third")
    assert {"s3", ("s3", "", "b")}.isdisjoint(registry.runtimes)
    assert "s3 b" not in registry._commons
    for _ in range(10):
        await provider.execute(world.script("fine"))
    assert provider.alternative._runtime.common.gate is provider._runtime.common.gate


async def test_calls_of_either_arm_are_use(world) -> None:
    """A provider all of whose calls are the other arm's is not the one that was longest unused."""
    registry = registry_of(settings(1.0).model_copy(update={"max_providers": 4}))
    registry.provider("another")
    provider = registry.provider("s3")
    for number in range(4):
        await provider.execute(world.script("fine"))
        registry.provider(f"other{number}")
        assert "s3" in registry


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_a_provider_was_told_holds_for_both_arms(world, when: str) -> None:
    """Its rules and listeners, and what tests put around its attempts; whether or not there are two arms yet."""
    registry = registry_of(settings(1.0 if when == "after" else 0.0, retry={"enabled": False}))
    provider = registry.provider("s3")
    heard = EventRecorder()
    provider.subscribe(heard, CallFailed, CallWasRejected)
    provider.add_rule(lambda error: FailureKind.SERVER_ERROR if isinstance(error, KeyError) else None)
    provider._runtime.disturb((lambda _: world.script(KeyError),))
    for _ in range(2):
        registry.reload(settings(1.0, {"errors": "standard"}, retry={"enabled": False}))
    outcome = await provider.try_execute(world.script("fine"))
    assert outcome.failure.kind is FailureKind.SERVER_ERROR
    assert [(event.variant, type(event)) for event in heard.events] == [("b", CallFailed)]


async def test_calls_of_one_key_are_drawn_once(world) -> None:
    """The arm that is drawn makes the call, and coalesces it."""
    registry = registry_of(settings(0.5))
    provider = registry.provider("s3")
    for number in range(20):
        await provider.with_options(coalesce=str(number)).execute(world.script("fine"))
        if provider.snapshot().succeeded and provider.alternative.snapshot().succeeded:
            break
        for arm in (provider, provider.alternative):
            assert bool(arm.snapshot().succeeded) is (arm.snapshot().coalescing is not None)
    assert 0 < number < 19


async def test_what_one_arm_has_retried_the_other_does_not(world) -> None:
    """A call inside a call is drawn for itself; its retries are all there are."""
    once = {"retry": {"jitter": "none", "max_attempts": 2}, "breaker": {"mode": "disabled"}}
    registry = registry_of(settings(0.5, **once, budget={"enabled": False}))
    provider = registry.provider("s3")
    for _ in range(20):
        script = world.script(ConnectionResetError)
        await provider.try_execute(lambda script=script: provider.execute(script))
        assert script.calls == 2
    assert provider.snapshot().failed + provider.alternative.snapshot().failed == 40


async def test_a_hedged_call_that_is_cancelled_in_a_line_is_counted(world) -> None:
    """Before its first attempt has left."""
    line = {"rate_limit": {"requests_per_minute": 1, "max_wait": 60}, "hedge": {"enabled": True}}
    provider = registry_of(settings(**line)).provider("s3").with_options(idempotent=True)
    await provider.execute(world.script("fine"))
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, world.script("fine"))
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    assert (provider.snapshot().succeeded, provider.snapshot().cancelled) == (1, 1)


async def test_an_arm_that_is_being_made_is_not_forgotten_alone(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread makes a provider at that moment, in a full registry whose other provider is at work."""
    registry = registry_of(settings().model_copy(update={"max_providers": 2}))
    provider = registry.provider("s3")

    def interrupted(*args: Any) -> None:
        registry.provider("another")
        pair(*args)

    monkeypatch.setattr("resilience.registry.pair", interrupted)
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, world.script("fine", seconds=2))
        await anyio.sleep(1)
        registry.reload(settings(0.5).model_copy(update={"max_providers": 2}))
    assert provider.alternative._runtime is registry.runtimes["s3", "", "b"]
    assert sorted(registry._commons) == ["another", "s3", "s3 b"]


async def test_a_limit_that_another_thread_takes_away_fails_no_call(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in the moment before it would have been asked for a place."""
    registry = registry_of(settings(bulkhead={"max_concurrent": 1}))
    has_place = Limits._has_place

    def interrupted(self: Limits, task: object) -> bool:
        registry.reload(settings(rate_limit={"requests_per_second": 5}))
        return has_place(self, task)

    monkeypatch.setattr(Limits, "_has_place", interrupted)
    assert await registry.provider("s3").execute(world.script("fine")) == "fine"
    assert registry.provider("s3").snapshot().bulkhead is None


async def test_money_that_is_spent_stays_spent_under_another_limit(world) -> None:
    """And is forgotten with the limit."""
    registry = registry_of(settings(cost={"limit": 2, "window": 60}))
    provider = registry.provider("s3").with_options(reserve=Usage(cost=2))
    await provider.execute(world.script("fine"))
    registry.reload(settings(cost={"limit": 3, "window": 60}))
    assert (await provider.try_execute(world.script("fine"))).reason == "cost_budget_exhausted"
    registry.reload(settings())
    assert await provider.execute(world.script("fine")) == "fine"


async def test_providers_made_while_lanes_are_told_change_nothing(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set of all of them may grow, by another thread, while it is read."""
    provider = registry_of(settings()).provider("s3")
    await provider.execute(world.script("fine"))
    grown: list[bool] = []

    class Growing:
        def __iter__(self) -> Any:
            if not grown:
                grown.append(True)
                raise RuntimeError("Set changed size during iteration")
            return iter([provider._runtime])

    monkeypatch.setattr("resilience.process.runtimes", Growing())
    meter_calls(True)
    metered = provider._runtime.lanes.values()[0].metered
    meter_calls(False)
    assert (grown, metered) == ([True], True)


@pytest.mark.parametrize("warm", [False, True])
async def test_what_is_held_is_interrupted_at_the_end(world, warm: bool) -> None:
    """Where its holder has said how, and with the grace that was not enough."""
    registry = registry_of(settings())
    provider = await world.warm(registry.provider("s3"), warm=warm)
    held = await provider.hold(world.script("fine"))
    told: list[float] = []

    def interrupt(grace: float) -> None:
        told.append(grace)
        held.end(ConnectionResetError())

    held.interruptible(interrupt)
    report = await registry.shutdown(grace=3, cancel=5)
    assert (told, report.interrupted, report.abandoned) == ([3], 1, 0)


async def test_ending_to_hear_of_the_forgotten_twice_is_harmless() -> None:
    """The second time does nothing."""
    stop = when_forgotten(lambda _: None)
    stop()
    stop()
