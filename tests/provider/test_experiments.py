"""A share of a provider's calls runs under other settings, side by side with the rest."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

from resilience import CircuitState, ExperimentSettings, ProviderRegistry, ProviderSettings, Settings
from resilience.events import CallFailed, CircuitChanged, Event
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio


def with_experiment(share: float, *, other: dict[str, Any], **usual: Any) -> Settings:
    experiment = ExperimentSettings(share=share, settings=ProviderSettings(**other))
    return Settings(defaults=ProviderSettings(**usual), experiments={"s3": experiment})


def registry_of(settings: Settings) -> ProviderRegistry:
    return ProviderRegistry(settings, clock=anyio.current_time, wall_clock=lambda: 1e9, rng=random.Random(1))


async def test_a_share_of_the_calls_runs_under_the_other_settings(world) -> None:
    """Drawn call by call; each arm has figures of its own, and tells which one it is."""
    registry = registry_of(with_experiment(0.25, retry={"max_attempts": 1}, other={"retry": {"max_attempts": 2}}))
    provider = registry.provider("s3")
    script = world.script("fine")
    for _ in range(1000):
        await provider.execute(script)
    arms = provider.snapshot(), provider.alternative.snapshot()
    assert [arm.variant for arm in arms] == ["a", "b"]
    assert sum(arm.succeeded for arm in arms) == 1000
    assert 200 < arms[1].succeeded < 300
    assert list(registry) == ["s3"]
    assert len(registry) == 1
    attempts = []
    for handle in (provider, provider.alternative):
        script = world.script(ConnectionResetError)
        handle.breaker.reset()
        while handle.snapshot().failed == 0:
            await provider.try_execute(script)
        attempts.append(handle.settings.retry.max_attempts)
    assert attempts == [1, 2]


@pytest.mark.parametrize("how", ["execute", "hold", "stream", "attempts", "view"])
async def test_every_way_to_call_takes_part(world, how: str) -> None:
    """With a share of 1 all calls are the other arm's."""
    registry = registry_of(with_experiment(1.0, other={}))
    provider = registry.provider("s3")
    if how == "execute":
        await provider.execute(world.script("fine"))
    elif how == "hold":
        (await provider.hold(world.script("fine"))).end()
    elif how == "stream":

        async def items() -> Any:
            yield 1

        async with provider.stream(items) as stream:
            assert [item async for item in stream] == [1]
    elif how == "attempts":
        async for attempt in provider.attempts():
            async with attempt:
                pass
            break
    else:
        await provider.with_options(operation="chat", timeout=10).execute(world.script("fine"))
    assert (provider.snapshot().succeeded, provider.alternative.snapshot().succeeded) == (0, 1)


async def test_one_arm_may_break_while_the_other_goes_on(world) -> None:
    """Breaker, window and budget are each arm's own; events say which one speaks."""
    registry = registry_of(with_experiment(0.5, retry={"enabled": False}, other={"breaker": {"failure_threshold": 1}}))
    provider = registry.provider("s3")
    heard = EventRecorder()
    registry.subscribe(heard, CircuitChanged, CallFailed)
    await provider.alternative.try_execute(world.script(ConnectionResetError))
    assert provider.alternative.breaker.state is CircuitState.OPEN
    assert provider.breaker.state is CircuitState.CLOSED
    assert {event.variant for event in heard.events} == {"b"}
    outcomes = [await provider.try_execute(world.script("fine")) for _ in range(100)]
    assert {outcome.reason for outcome in outcomes} == {None, "circuit_open"}
    snapshot = provider.alternative.snapshot()
    assert snapshot.rejections == {"circuit_open": sum(outcome.rejected for outcome in outcomes)}


async def test_an_open_circuit_of_the_usual_arm_does_not_stop_the_other(world) -> None:
    """Not even on the quick way out that refusals take."""
    registry = registry_of(with_experiment(0.5, retry={"enabled": False}, other={}))
    provider = registry.provider("s3")
    provider.breaker.open()
    outcomes = [await provider.try_execute(world.script("fine")) for _ in range(100)]
    assert {outcome.ok for outcome in outcomes} == {True, False}


async def test_the_gate_is_shut_for_both(world) -> None:
    """A provider that asks for a pause does not know of arms."""
    registry = registry_of(with_experiment(0.5, retry={"enabled": False}, other={"retry": {"enabled": False}}))
    provider = registry.provider("s3")
    await provider.alternative.try_execute(world.script(world.status(429, retry_after="60")))
    assert provider.snapshot().gate_closed_for == 60
    outcomes = [await provider.try_execute(world.script("fine")) for _ in range(20)]
    assert {outcome.reason for outcome in outcomes} == {"provider_gated"}


async def test_the_rate_limit_is_one_for_both(world) -> None:
    """Ten a minute are ten a minute, however the calls are drawn."""
    limit = {"requests_per_minute": 10, "max_wait": 0}
    registry = registry_of(with_experiment(0.5, rate_limit=limit, other={"retry": {"enabled": False}}))
    provider = registry.provider("s3")
    outcomes = [await provider.try_execute(world.script("fine")) for _ in range(30)]
    assert sum(outcome.ok for outcome in outcomes) == 10
    registry.reload(with_experiment(0.5, rate_limit=limit | {"requests_per_minute": 12}, other={}))
    outcomes = [await provider.try_execute(world.script("fine")) for _ in range(30)]
    assert sum(outcome.ok for outcome in outcomes) == 2


async def test_an_experiment_begins_and_ends_by_reload(world) -> None:
    """Calls under way in the arm that is gone end there; a handle of that arm goes on with the usual one."""
    registry = registry_of(Settings())
    provider = registry.provider("s3")
    assert provider.alternative is None
    await provider.execute(world.script("fine"))
    registry.reload(with_experiment(1.0, other={"timeout": {"attempt": 3}}))
    arm = provider.alternative
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, world.script("late", seconds=2))
        await anyio.sleep(1)
        assert arm.snapshot().in_flight == 1
        registry.reload(Settings())
        assert provider.alternative is None
        assert provider.snapshot().variant == ""
    await provider.execute(world.script("fine"))
    await arm.execute(world.script("fine"))
    assert provider.snapshot().succeeded == 3


async def test_experiments_that_come_and_go_leave_nothing_behind(world) -> None:
    """Also not in what the arms share."""
    registry = registry_of(Settings())
    provider = registry.provider("s3")
    for _ in range(5):
        registry.reload(with_experiment(0.5, other={}))
        for _ in range(4):
            await provider.execute(world.script("fine"))
        registry.reload(Settings())
    assert len(registry.runtimes) == len(registry._commons) == len(provider._runtime.common._circle) == 1
    registry.reload(with_experiment(1.0, other={}))
    await provider.execute(world.script("fine"))
    assert provider.alternative.snapshot().succeeded == 1


async def test_both_arms_are_forgotten_together(world) -> None:
    """A full registry keeps no arm whose other half is gone, and begins both anew."""
    settings = with_experiment(1.0, other={}).model_copy(update={"max_providers": 3})
    registry = registry_of(settings)
    provider = registry.provider("s3")
    await provider.execute(world.script("fine"))
    for number in range(5):
        await registry.provider(f"other{number}").execute(world.script("fine"))
    assert "s3" not in registry
    assert all(runtime.variant == "" for runtime in registry.runtimes.values())
    await provider.execute(world.script("fine"))
    assert provider.alternative.snapshot().succeeded == 1


async def test_one_that_is_in_use_keeps_both(world) -> None:
    """The usual arm may look idle while the other one has a call under way."""
    settings = with_experiment(1.0, other={}).model_copy(update={"max_providers": 2})
    registry = registry_of(settings)
    heard = EventRecorder()
    registry.subscribe(heard, Event)
    provider = registry.provider("s3")
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, world.script("late", seconds=2))
        await anyio.sleep(1)
        await registry.provider("another").execute(world.script("fine"))
        assert "s3" in registry
    assert provider.alternative.snapshot().succeeded == 1
