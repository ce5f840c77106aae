"""Policies together: what each of them takes is given back, and decided the same, whatever the others do."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilience import Reason

pytestmark = pytest.mark.anyio


async def start(group: Any, provider: Any, func: Any, into: list[Any]) -> None:
    """Start a call whose outcome goes *into* a list, and let it come as far as it does by itself."""

    async def run() -> None:
        into.append(await provider.try_execute(func))

    group.start_soon(run)
    await anyio.wait_all_tasks_blocked()


# -- admission ---------------------------------------------------------------------------------------------------------


async def test_a_gate_that_closes_on_the_line_lets_nobody_keep_a_place(world) -> None:
    """Whoever was given a place and then meets a gate that is closed for too long gives it back."""
    provider = world.provider(bulkhead={"max_concurrent": 1, "max_wait": 50}, retry={"enabled": False})
    outcomes: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script(world.status(429, retry_after="60"), seconds=1), outcomes)
        await start(group, provider, world.script("never"), outcomes)
    assert [outcome.reason for outcome in outcomes] == [None, Reason.PROVIDER_GATED]
    assert provider.snapshot().bulkhead.in_use == 0


async def test_two_waits_in_a_row_fit_into_one_timeout(world) -> None:
    """What a call has waited for the rate limit it cannot wait for a place once more."""
    rate = {"requests_per_second": 0.25, "burst": 1, "max_wait": 50}
    provider = world.provider(bulkhead={"max_concurrent": 1, "max_wait": 50}, rate_limit=rate)
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script("first", seconds=25), [])
        began = anyio.current_time()
        outcome = await provider.with_options(timeout=5).try_execute(world.script("never"))
        assert (outcome.reason, anyio.current_time() - began) == (Reason.BULKHEAD_TIMEOUT, 5)
    assert provider.snapshot().bulkhead.in_use == 0


# -- fast and slow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [False, True])
async def test_what_surely_was_not_sent_costs_no_quota(world, fast: bool) -> None:
    """On the fast path as off it."""
    rate = {"requests_per_second": 0.1, "burst": 3, "max_wait": 0}
    provider = world.provider(rate_limit=rate, retry={"enabled": False})
    await provider.execute(world.script("warm"))
    asked = provider if fast else provider.with_options(timeout=30)
    for _ in range(4):
        await asked.try_execute(world.script(ConnectionRefusedError))
    assert provider.snapshot().rate_limit.windows[0].remaining == 2
    await asked.try_execute(world.script(ConnectionResetError))
    assert provider.snapshot().rate_limit.windows[0].remaining == 1
