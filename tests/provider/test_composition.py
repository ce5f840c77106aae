"""Policies together: what each of them takes is given back, and decided the same, whatever the others do."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    AllProvidersFailed,
    ProviderRegistry,
    ProviderSettings,
    Reason,
    Settings,
    StreamInterrupted,
    UnacceptableResult,
    Usage,
    deadline,
    guard,
    idempotency_key,
)

pytestmark = pytest.mark.anyio


class Answer:
    """A result with headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers


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


@pytest.mark.parametrize("fast", [False, True])
async def test_what_time_has_made_good_is_not_given_back_once_more(world, fast: bool) -> None:
    """However long attempts take to fail without being sent, no more than the rate goes out."""
    rate = {"requests_per_second": 10, "burst": 10, "max_wait": 0}
    provider = world.provider(rate_limit=rate, retry={"enabled": False})
    await provider.execute(world.script("warm"))
    await anyio.sleep(10)
    asked = provider if fast else provider.with_options(timeout=30)
    async with anyio.create_task_group() as group:
        for _ in range(9):
            await start(group, asked, world.script(ConnectionRefusedError, seconds=3), [])
        await anyio.sleep(2.99)
        for _ in range(10):
            await start(group, asked, world.script("sent", seconds=5), [])
        await anyio.sleep(0.02)
        assert provider.snapshot().rate_limit.windows[0].remaining == 0


@pytest.mark.parametrize("fast", [False, True])
async def test_headers_of_results_are_heeded(world, fast: bool) -> None:
    """On the fast path as off it: what the provider says tightens the limit."""
    provider = world.provider(rate_limit={"requests_per_minute": 60, "max_wait": 0})
    said = {"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "60s"}
    for left in (20, 3):
        answer = Answer({**said, "x-ratelimit-remaining-requests": str(left)})
        asked = provider if fast else provider.with_options(timeout=30)
        await asked.execute(world.script(answer))
        assert provider.snapshot().rate_limit.windows[0].remaining == left


# -- blocks ------------------------------------------------------------------------------------------------------------


async def test_a_block_can_read_its_call(world) -> None:
    """The same key in each attempt's block, the time that is left, and nothing outside of them."""
    provider = world.provider(retry={"base_delay": 1.0, "jitter": "none"})
    keys, left = [], []
    async for attempt in provider.with_options(idempotency_key=True, propagate=True, timeout=10).attempts():
        async with attempt:
            keys.append(idempotency_key())
            left.append(deadline().remaining())  # type: ignore[union-attr]
            if attempt.number < 3:
                raise ConnectionRefusedError
        assert (idempotency_key(), deadline()) == (None, None)
    assert (len(keys), len(set(keys)), None in keys) == (3, 1, False)
    assert left[0] == 10
    assert left[2] < 9


async def test_the_usage_of_a_block_is_what_was_reserved(world, caplog) -> None:
    """There is no result to read it from, so nobody is asked."""
    provider = world.provider(rate_limit={"tokens_per_minute": 100})
    async for attempt in provider.with_options(usage=lambda _: Usage(tokens=1), reserve=Usage(tokens=60)).attempts():
        async with attempt:
            pass
    assert provider.snapshot().rate_limit.windows[0].remaining == 40
    assert not caplog.records


# -- places ------------------------------------------------------------------------------------------------------------


async def test_a_task_keeps_its_place_until_its_last_attempt_ends(world) -> None:
    """Attempts held open by one task share its place, in whatever order they end."""
    provider = world.provider(bulkhead={"max_concurrent": 1, "max_queue": 0})
    first, second = await provider.hold(world.script("first")), await provider.hold(world.script("second"))
    outcomes: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script("other"), outcomes)
        first.end()
        await start(group, provider, world.script("other"), outcomes)
        second.end()
        await start(group, provider, world.script("other"), outcomes)
    assert [outcome.reason for outcome in outcomes] == [Reason.BULKHEAD_FULL, Reason.BULKHEAD_FULL, None]
    assert provider.snapshot().bulkhead.in_use == 0


@pytest.mark.filterwarnings("ignore")
def test_a_closed_loop_keeps_no_place() -> None:
    """A loop that was closed under its calls takes none of their places with it."""
    settings = ProviderSettings(bulkhead={"max_concurrent": 1, "max_wait": 0.5})
    provider = ProviderRegistry(Settings(defaults=settings)).provider("openai")

    async def leave_behind() -> None:
        tasks.append(asyncio.ensure_future(provider.execute(anyio.sleep, 3600)))
        await anyio.lowlevel.checkpoint()

    tasks: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_behind())
    assert provider.snapshot().bulkhead.in_use == 1
    loop.close()
    asyncio.run(provider.execute(anyio.sleep, 0))
    assert provider.snapshot().bulkhead.in_use == 0
    assert not guard._outer  # nor its deadline, which would keep the task alive
    task = weakref.ref(tasks.pop())
    gc.collect()
    assert task() is None


# -- holds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_a_hold_can_end_where_no_task_runs(error: Exception | None) -> None:
    """In a callback of the loop, or in a thread without one."""
    registry = ProviderRegistry()
    provider = registry.provider("openai")

    async def main() -> None:
        await provider.execute(anyio.sleep, 0)
        for end_by in (asyncio.get_running_loop().call_soon, _in_a_thread):
            hold = await provider.hold(anyio.sleep, 0)
            assert provider.snapshot().in_flight == 1
            end_by(hold.end, error)
            await anyio.lowlevel.checkpoint()
            assert provider.snapshot().in_flight == 0
        await provider.execute(anyio.sleep, 0)

    asyncio.run(main())
    assert provider.snapshot().breaker.failures_in_a_row == 0
    assert provider.snapshot().breaker.failed == (2 if error is not None else 0)


def _in_a_thread(func: Any, *args: Any) -> None:
    thread = threading.Thread(target=func, args=args)
    thread.start()
    thread.join()


@pytest.mark.parametrize("settings", [{}, {"bulkhead": {"max_concurrent": 2}}])
async def test_what_a_parent_held_is_none_of_its_childs(world, settings: Any) -> None:
    """A child that drops it counts no fewer than none."""
    provider = world.provider(**settings)
    await provider.execute(world.script("warm"))
    hold = await provider.hold(world.script("held"))
    provider._runtime.start_anew()
    hold.end()
    assert provider.snapshot().in_flight == 0
    hold = await provider.hold(world.script("held"))
    assert provider.snapshot().in_flight == 1
    hold.end()
    assert provider.snapshot().in_flight == 0


# -- secrets -----------------------------------------------------------------------------------------------------------


async def test_no_repr_shows_a_payload(world) -> None:
    """Errors are logged: what a result, an item or somebody's error holds stays out."""
    provider = world.provider(retry={"enabled": False})
    outcome = await provider.with_options(accept=lambda _: False).try_execute(world.script("secret"))

    async def broken() -> Any:
        yield "secret"
        raise ConnectionResetError("secret")

    with pytest.raises(StreamInterrupted) as interrupted:
        async with world.provider("s3", stream={"keep": 1}).stream(broken) as items:
            async for _ in items:
                pass
    failing = provider.fallback_to(world.provider("anthropic", retry={"enabled": False}))
    everywhere = await failing.try_execute(world.script(world.status(500)))
    for error in (outcome.error, interrupted.value, everywhere.error):
        assert isinstance(error, UnacceptableResult | StreamInterrupted | AllProvidersFailed)
        assert type(error).__name__ in repr(error)
        assert "secret" not in f"{error!r} {error} {error.__notes__ if hasattr(error, '__notes__') else ''}"
    assert (outcome.error.result, interrupted.value.items) == ("secret", ("secret",))


# -- explaining --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_money_that_is_spent_is_explained(world, mode: str) -> None:
    """As long as the call would be refused, and without spending or counting anything."""
    provider = world.provider(cost={"limit": 10, "window": 60, "mode": mode}).with_options(reserve=Usage(cost=10))
    for _ in range(3):
        assert provider.explain().admitted
    await provider.execute(world.script("paid"))
    explained, before = provider.explain(), provider.snapshot().cost
    outcome = await provider.try_execute(world.script("more"))
    assert (explained.admitted, explained.reason) == (outcome.ok, outcome.reason)
    assert (before.used, before.rejected) == (10, 0)
    assert explained.retry_after == pytest.approx(outcome.retry_after, abs=1)
