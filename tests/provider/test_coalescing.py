"""Identical calls of a provider, made once."""

from __future__ import annotations

import anyio
import pytest

from resilience import CallTimeout

pytestmark = pytest.mark.anyio


async def test_calls_of_one_key_are_one(world) -> None:
    """Ten callers, one request; the next one after it is a request of its own."""
    provider = world.provider(bulkhead={"max_concurrent": 1, "max_queue": 0})
    func = world.script("first", "second", seconds=1)
    view = provider.with_options(coalesce="user-1")
    results: list[str] = []

    async def ask() -> None:
        results.append(await view.execute(func))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(ask)
    assert (results, func.calls) == (["first"] * 10, 1)
    assert await view.execute(func) == "second"
    assert provider.snapshot().coalescing.coalesced == 9
    assert provider.snapshot().calls == 2


async def test_one_key_of_two_operations_is_two(world) -> None:
    """The same text may mean something else in another operation."""
    provider = world.provider()
    results: dict[str, str] = {}

    async def ask(operation: str) -> None:
        view = provider.with_options(coalesce="user-1", operation=operation)
        results[operation] = await view.execute(world.script(operation, seconds=1))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "embed")
        group.start_soon(ask, "chat")
    assert results == {"embed": "embed", "chat": "chat"}


async def test_who_takes_over_has_no_more_time_than_before(world) -> None:
    """A follower's total timeout counts from its own beginning, also when it leads in the end."""
    view = world.provider().with_options(coalesce="user-1", timeout=10)
    hang = world.script("never", seconds=100)
    lasted: list[float] = []

    async def follow() -> None:
        began = anyio.current_time()
        with pytest.raises(CallTimeout):
            await view.execute(hang)
        lasted.append(anyio.current_time() - began)

    async with anyio.create_task_group() as group:
        leader = anyio.CancelScope()

        async def lead() -> None:
            with leader:
                await view.execute(hang)

        group.start_soon(lead)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(follow)
        await anyio.sleep(8)
        leader.cancel()
    assert lasted == [pytest.approx(10)]
    assert hang.calls == 2
