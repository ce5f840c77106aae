"""What is changed while calls are under way: settings, arms of experiments, and who is looked for at a shutdown."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import anyio
import pytest

from resilience import ExperimentSettings, ProviderRegistry, ProviderSettings, Settings

pytestmark = pytest.mark.anyio

FAST: dict[str, Any] = {"retry": {"jitter": "none", "base_delay": 10}, "breaker": {"failure_threshold": None}}


def settings(share: float = 0.0, other: dict[str, Any] | None = None, **usual: Any) -> Settings:
    experiment = ExperimentSettings(share=share, settings=ProviderSettings(**(other or {})))
    return Settings(defaults=ProviderSettings(**usual), experiments={"s3": experiment})


def registry_of(settings: Settings) -> ProviderRegistry:
    return ProviderRegistry(settings, clock=anyio.current_time, wall_clock=lambda: 1e9, rng=random.Random(1))


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
