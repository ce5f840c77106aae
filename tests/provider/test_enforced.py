"""Refusals of which only a share is in earnest, as a provider's calls meet them."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

from resilience import ProviderRegistry, ProviderSettings, ResilientProvider, Settings
from resilience.errors import CallRejected
from resilience.events import CallWouldBeRejected
from resilience.settings import BreakerSettings, BulkheadSettings, RateLimitSettings, RetrySettings
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio

CALLS = 1500


def made(*, seed: int = 3, **settings: Any) -> tuple[ResilientProvider, EventRecorder]:
    chosen = Settings(defaults=ProviderSettings(retry=RetrySettings(enabled=False), **settings))
    registry = ProviderRegistry(chosen, clock=anyio.current_time, rng=random.Random(seed))
    provider = ResilientProvider("s3", registry=registry)
    recorder = EventRecorder()
    provider.subscribe(recorder)
    return provider, recorder


async def ok() -> str:
    return "fine"


async def fail() -> None:
    raise ConnectionError


async def refused_of(provider: ResilientProvider, calls: int) -> int:
    refused = 0
    for _ in range(calls):
        try:
            await provider.execute(ok)
        except CallRejected:
            refused += 1
    return refused


@pytest.mark.parametrize(
    "settings",
    [
        {"breaker": BreakerSettings(failure_threshold=1, enforced=0.3)},
        {"rate_limit": RateLimitSettings(requests_per_day=1, enforced=0.3)},
        {"rate_limit": RateLimitSettings(tokens_per_day=1, token_estimate=1, enforced=0.3)},
    ],
)
async def test_that_share_of_a_providers_calls_is_refused(settings: dict[str, Any]) -> None:
    """Three of ten calls are refused, whichever way they take, and each of the others is told of once."""
    provider, recorder = made(**settings)
    await provider.try_execute(fail)
    refused = await refused_of(provider, CALLS)
    assert abs(refused - 0.3 * CALLS) < 4 * (CALLS * 0.3 * 0.7) ** 0.5
    assert len(recorder.of(CallWouldBeRejected)) == CALLS - refused
    assert provider.snapshot().in_flight == 0


async def test_a_full_bulkhead_refuses_a_share() -> None:
    """Behind a call that takes for ever, half of the calls are refused and half run, beyond the limit."""
    provider, recorder = made(bulkhead=BulkheadSettings(max_concurrent=1, max_queue=0, enforced=0.5))
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, anyio.sleep, 20)
        await anyio.sleep(1)
        refused = await refused_of(provider, 400)
        assert abs(refused - 200) < 40
        assert provider.snapshot().in_flight == 1
    assert len(recorder.of(CallWouldBeRejected)) == 400 - refused
    bulkhead = provider.snapshot().bulkhead
    assert bulkhead is not None
    assert bulkhead.in_use == 0
    assert await refused_of(provider, 10) == 0


async def test_it_explains_itself() -> None:
    """A call may be let through an open circuit, and the words say how likely; what is open by hand refuses all."""
    provider, _ = made(breaker=BreakerSettings(failure_threshold=1, enforced=0.3))
    await provider.try_execute(fail)
    explanation = provider.explain()
    assert explanation.admitted
    assert explanation.text.startswith("admits: all but 30 % by lot, else circuit_open, 1 failure in a row")
    provider.breaker.open()
    assert not provider.explain().admitted
    assert await refused_of(provider, 50) == 50
