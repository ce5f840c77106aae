"""Limits as part of a provider: what is taken on the way, what is given back, and who is told."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import anyio
import pytest

from resilience import (
    BulkheadFull,
    CircuitOpen,
    CostLimitReached,
    FailureKind,
    Priority,
    ProviderRegistry,
    ProviderSettings,
    RateLimited,
    Reason,
    Settings,
    Throttled,
    UnacceptableResult,
    Usage,
    failure_of,
)
from resilience.events import CallWouldBeRejected, ConcurrencyLimitChanged, RateLimitTightened

pytestmark = pytest.mark.anyio

ONE = {"max_concurrent": 1}
STEADY = {"base_delay": 1.0, "jitter": "none"}


def places(provider: Any) -> tuple[int, int]:
    """How many places of the bulkhead are taken, and how many callers wait for one."""
    figures = provider.snapshot().bulkhead
    return figures.in_use, figures.waiting


async def start(group: Any, provider: Any, func: Any, into: list[Any]) -> None:
    """Start a call whose outcome goes *into* a list, and let it come as far as it does by itself."""

    async def run() -> None:
        into.append(await provider.try_execute(func))

    group.start_soon(run)
    await anyio.wait_all_tasks_blocked()


# -- the bulkhead ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
async def test_never_more_at_once(world, warm: bool) -> None:
    """A hundred calls at once run three at a time, and all of them succeed."""
    provider = world.provider(bulkhead={"max_concurrent": 3, "max_queue": 100, "max_wait": 1000})
    if warm:
        await provider.execute(world.script("warm"))
    running, most = 0, 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(1)
        running -= 1
        return number

    outcomes = await provider.map(work, range(100), concurrency=100)
    assert [outcome.value for outcome in outcomes] == list(range(100))
    assert most == 3
    assert places(provider) == (0, 0)


@pytest.mark.parametrize("warm", [False, True])
async def test_a_full_bulkhead_is_no_evidence(world, warm: bool) -> None:
    """Refusals say so, with figures, and leave the circuit alone."""
    provider = world.provider(bulkhead={**ONE, "max_queue": 0})
    if warm:
        await provider.execute(world.script("warm"))
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script("first", seconds=5), results)
        for _ in range(10):
            with pytest.raises(
                BulkheadFull, match=r"openai: bulkhead full, 1 of 1 places taken, nobody may wait"
            ) as caught:
                await provider.execute(world.script("never"))
            assert caught.value.reason is Reason.BULKHEAD_FULL
        explanation = provider.explain()
        assert (explanation.admitted, explanation.reason) == (False, Reason.BULKHEAD_FULL)
    snapshot = provider.snapshot()
    assert [outcome.value for outcome in results] == ["first"]
    assert (snapshot.rejected, snapshot.breaker.failures_in_a_row, snapshot.bulkhead.in_use) == (10, 0, 0)
    assert provider.explain().admitted


async def test_a_wait_for_a_place_is_bounded(world) -> None:
    """By its own limit, and by the call's end if that is sooner."""
    provider = world.provider(bulkhead={**ONE, "max_wait": 3})
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script("first", seconds=100), results)
        for view, seconds in ((provider, 3), (provider.with_options(timeout=2), 2)):
            began = anyio.current_time()
            outcome = await view.try_execute(world.script("never"))
            assert (outcome.reason, anyio.current_time() - began) == (Reason.BULKHEAD_TIMEOUT, seconds)
        with anyio.move_on_after(1) as scope:
            await provider.execute(world.script("never"))
        assert scope.cancelled_caught  # the caller's own limit is told as the caller's own
        group.cancel_scope.cancel()
    assert places(provider) == (0, 0)


async def test_a_call_inside_a_call_borrows_its_place(world) -> None:
    """It could otherwise wait for itself; with and without the fast path."""
    provider = world.provider(bulkhead={**ONE, "max_queue": 0})

    async def outer() -> str:
        return await provider.execute(world.script("inner"))

    for _ in range(3):
        assert await provider.execute(outer) == "inner"
        assert await provider.with_options(timeout=9).execute(outer) == "inner"
    assert places(provider) == (0, 0)


async def test_a_place_is_free_between_attempts(world) -> None:
    """Who sleeps in back-off holds nobody up."""
    provider = world.provider(bulkhead={**ONE, "max_queue": 0}, retry=STEADY)
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script(ConnectionResetError, "again"), results)
        assert await provider.execute(world.script("meanwhile")) == "meanwhile"
    assert results[0].value == "again"
    assert places(provider) == (0, 0)


async def test_the_sheddable_go_first(world) -> None:
    """A critical call takes the place in the line of the least important one."""
    provider = world.provider(bulkhead={**ONE, "max_queue": 2, "max_wait": 100})
    done: list[str] = []
    refused: list[Reason | None] = []

    async def call(name: str, priority: Priority) -> None:
        async def work() -> None:
            await anyio.sleep(1)
            done.append(name)

        outcome = await provider.with_options(priority=priority).try_execute(work)
        if not outcome.ok:
            refused.append(outcome.reason)

    async with anyio.create_task_group() as group:
        for name, priority in (
            ("running", "default"),
            ("shed", "sheddable"),
            ("plain", "default"),
            ("urgent", "critical"),
        ):
            group.start_soon(call, name, Priority(priority))
            await anyio.wait_all_tasks_blocked()
    assert (done, refused) == (["running", "urgent", "plain"], [Reason.SHED])


async def test_waiting_callers_are_counted_wherever_they_wait(world) -> None:
    """Those asleep in back-off too: beyond *max_pending* nobody else may wait, but who need not wait may run."""
    provider = world.provider(bulkhead={"max_concurrent": 5, "max_pending": 2}, retry=STEADY, gate={"enabled": False})
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        for _ in range(3):
            await start(group, provider, world.script(world.status(500), "again"), results)
        assert (provider.snapshot().waiting, len(results)) == (2, 1)
        assert await provider.execute(world.script("at once")) == "at once"
    (given_up,) = [outcome for outcome in results if not outcome.ok]
    assert "pending_full" in given_up.error.__notes__[0]
    assert provider.snapshot().waiting == 0


async def test_a_probe_does_not_stand_in_line(world) -> None:
    """The permit of a half-open circuit is taken after the place, and the place goes back when there is none."""
    provider = world.provider(bulkhead={"max_concurrent": 2}, breaker={"timeout": 10, "jitter": 0})
    await world.trip(provider)
    await anyio.sleep(10)
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script("probe", seconds=5), results)
        assert places(provider) == (1, 0)
        with pytest.raises(CircuitOpen) as caught:
            await provider.execute(world.script("never"))
        assert caught.value.reason is Reason.HALF_OPEN_SATURATED
        assert places(provider) == (1, 0)
    assert places(provider) == (0, 0)


async def test_a_circuit_that_opens_meanwhile(world) -> None:
    """Who waited for a place is told at its end, and the place goes to the next."""
    provider = world.provider(
        bulkhead={**ONE, "max_wait": 100}, breaker={"failure_threshold": 1}, retry={"enabled": False}
    )
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        for func in (world.script(ConnectionResetError, seconds=1), world.script("never"), world.script("never")):
            await start(group, provider, func, results)
    assert [outcome.reason for outcome in results[1:]] == [Reason.CIRCUIT_OPEN] * 2
    assert places(provider) == (0, 0)


async def test_a_limit_that_adapts_itself(world) -> None:
    """It falls when the provider is overwhelmed, rises again with successes on the fast path, and tells of it."""
    adaptive = {"adaptive": "aimd", "initial_limit": 10, "max_limit": 12, "max_wait": 100}
    provider = world.provider(bulkhead=adaptive, retry={"enabled": False}, breaker={"enabled": False})
    for _ in range(30):
        await provider.map(world.script(world.status(529), seconds=0.2), range(10))
    low = provider.snapshot().bulkhead.limit
    assert low < 5
    await provider.map(world.script("fine", seconds=0.2), range(3000), concurrency=50)
    assert provider.snapshot().bulkhead.limit == 12
    changes = world.heard(ConcurrencyLimitChanged)
    assert changes[0].before == 10
    assert (changes[-1].before, changes[-1].after) == (11, 12)


async def test_vegas_looks_at_the_first_item(world) -> None:
    """A stream that is long says nothing; one whose first item is late does."""
    settings = {"adaptive": "vegas", "latency": "first_item", "initial_limit": 20, "max_wait": 1000, "max_queue": 1000}
    provider = world.provider(bulkhead=settings, stream={"idle": None}, breaker={"enabled": False})

    async def stream(first: float, later: float) -> None:
        async def source() -> Any:
            await anyio.sleep(first)
            yield 1
            await anyio.sleep(later)
            yield 2

        async with provider.stream(source) as items:
            assert [item async for item in items] == [1, 2]

    async def round_of(first: float, later: float) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(stream, first, later)

    for _ in range(10):
        await round_of(0.1, 30.0)
    unmoved = provider.snapshot().bulkhead.limit
    assert unmoved >= 20
    for _ in range(20):
        await round_of(2.0, 1.0)
    assert provider.snapshot().bulkhead.limit < unmoved
    assert places(provider) == (0, 0)


# -- the rate limit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
async def test_calls_wait_for_their_turn(world, warm: bool) -> None:
    """Two at once, then ten a second, in order."""
    provider = world.provider(rate_limit={"requests_per_second": 10, "burst": 2})
    if warm:
        await provider.execute(world.script("warm"))
        await anyio.sleep(1)
    began, func = anyio.current_time(), world.script("fine")
    await provider.map(func, range(6))
    assert [time - began for time in func.times] == pytest.approx([0, 0, 0.1, 0.2, 0.3, 0.4], abs=1e-5)


@pytest.mark.parametrize("warm", [False, True])
async def test_too_long_a_wait_is_refused_at_once(world, warm: bool) -> None:
    """With the time to come back, and without evidence against the provider."""
    provider = world.provider(rate_limit={"requests_per_minute": 2, "max_wait": 10})
    await provider.map(world.script("fine"), range(1 if warm else 2))
    if warm:
        await provider.execute(world.script("fine"))
    began = anyio.current_time()
    with pytest.raises(RateLimited, match="openai: rate limit") as caught:
        await provider.execute(world.script("never"))
    assert anyio.current_time() == began
    assert caught.value.retry_after == pytest.approx(30)
    assert provider.explain().reason is Reason.RATE_LIMITED
    assert provider.explain().retry_after == pytest.approx(30)
    assert provider.snapshot().breaker.failures_in_a_row == 0


async def test_each_attempt_spends_quota(world) -> None:
    """A retry is a request like any other."""
    provider = world.provider(rate_limit={"requests_per_minute": 60}, retry=STEADY)
    await provider.execute(world.script(ConnectionResetError, ConnectionResetError, "fine"))
    assert provider.snapshot().rate_limit.windows[0].remaining == 60 - 3 + 1  # a second and a half has passed


async def test_tokens_are_reserved_and_settled(world) -> None:
    """An estimate is reserved; what was really used is read from the result."""
    provider = world.provider(rate_limit={"tokens_per_minute": 60_000})
    view = provider.with_options(reserve=Usage(tokens=50_000), usage=lambda used: Usage(tokens=used))

    def left() -> int:
        return provider.snapshot().rate_limit.windows[0].remaining

    async def ask() -> int:
        assert left() == 10_000
        return 8_000

    assert await view.execute(ask) == 8_000
    assert left() == 52_000


@pytest.mark.parametrize(
    "usage", [lambda reply: reply.usage, lambda _: None, lambda _: {"tokens": 3}, lambda _: Usage(tokens=-1)]
)
async def test_a_usage_that_fails_costs_no_result(world, caplog: pytest.LogCaptureFixture, usage: Any) -> None:
    """The estimate stands, and the log says why."""
    provider = world.provider(rate_limit={"tokens_per_minute": 1000})
    view = provider.with_options(reserve=Usage(tokens=300), usage=usage)
    assert await view.execute(world.script("fine")) == "fine"
    assert provider.snapshot().rate_limit.windows[0].remaining == 700
    assert "usage= failed" in caplog.text


@pytest.mark.parametrize("error, left", [(ConnectionRefusedError, 1000), (ConnectionResetError, 700)])
async def test_what_never_left_costs_nothing(world, error: type[Exception], left: int) -> None:
    """An attempt that surely was not sent gives its reservation back; one that may have been keeps it."""
    provider = world.provider(rate_limit={"tokens_per_minute": 1000}, cost={"limit": 10}, retry={"enabled": False})
    await provider.with_options(reserve=Usage(tokens=300, cost=3)).try_execute(world.script(error))
    snapshot = provider.snapshot()
    assert snapshot.rate_limit.windows[0].remaining == left
    assert snapshot.cost.used == pytest.approx(0 if left == 1000 else 3)


async def test_a_later_refusal_gives_back_what_was_taken(world) -> None:
    """Quota and money of a call that found the bulkhead full are there for the next one."""
    provider = world.provider(
        rate_limit={"requests_per_minute": 10}, cost={"limit": 10}, bulkhead={**ONE, "max_queue": 0}
    )
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script("first", seconds=1), results)
        for _ in range(5):
            view = provider.with_options(reserve=Usage(cost=4))
            assert (await view.try_execute(world.script("never"))).reason is Reason.BULKHEAD_FULL
        assert provider.snapshot().rate_limit.windows[0].remaining == 9
        assert provider.snapshot().cost.used == 0


async def test_both_at_once(world) -> None:
    """A place and a turn, on the fast path too: whichever is missing, the call looks closer."""
    provider = world.provider(
        bulkhead={"max_concurrent": 2, "max_wait": 50}, rate_limit={"requests_per_second": 10, "burst": 3}
    )
    func = world.script("fine", seconds=0.05)
    began = anyio.current_time()
    for _ in range(3):
        await provider.execute(func)
    await provider.execute(func)
    await anyio.sleep(10)
    await provider.map(func, range(3))
    times = [round(time - began, 2) for time in func.times]
    assert times[:4] == [0, 0.05, 0.1, 0.15]
    assert [round(time - times[4], 2) for time in times[4:]] == [0, 0, 0.05]
    for _ in range(4):
        await provider.execute(world.script("at once"))
    assert places(provider) == (0, 0)


async def test_waiting_callers_are_counted_at_the_gate_and_in_line(world) -> None:
    """Beyond *max_pending* nobody else may stand anywhere."""
    provider = world.provider(bulkhead={"max_concurrent": 1, "max_wait": 100, "max_pending": 1}, gate={"max_wait": 50})
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        for _ in range(3):
            await start(group, provider, world.script("in line", seconds=1), results)
        assert [outcome.reason for outcome in results] == [Reason.PENDING_FULL]
        assert "1 caller waiting already" in str(results[0].error)
    results.clear()
    once = provider.with_options(retry=False)
    await once.try_execute(world.script(world.status(429, retry_after="10")))
    async with anyio.create_task_group() as group:
        for _ in range(2):
            await start(group, provider, world.script("at the gate"), results)
        assert [outcome.reason for outcome in results] == [Reason.PENDING_FULL]
    assert provider.snapshot().waiting == 0


async def test_a_gate_that_closes_on_those_in_line(world) -> None:
    """Who got a place meanwhile gives it back, waits for the gate, and only then stands in line again."""
    provider = world.provider(bulkhead={**ONE, "max_wait": 100}, retry={"enabled": False}, gate={"max_wait": 50})
    results: list[Any] = []
    later = world.script("later")
    async with anyio.create_task_group() as group:
        limited = world.script(world.status(429, retry_after="10"), seconds=1)
        for func in (limited, later):
            await start(group, provider, func, results)
        await anyio.sleep(2)
        assert places(provider) == (0, 0)
    assert [outcome.value for outcome in results] == [None, "later"]
    assert 11 <= later.times[0] <= 12.1
    assert places(provider) == (0, 0)


class Response:
    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


async def test_the_providers_own_headers_are_followed(world) -> None:
    """What it says is left, in a response or with an error, holds if it is less than we had counted."""
    provider = world.provider(rate_limit={"requests_per_minute": 60, "max_wait": 0}, retry={"enabled": False})

    def left() -> int:
        return provider.snapshot().rate_limit.windows[0].remaining

    said = {"x_ratelimit_limit_requests": "60", "x_ratelimit_reset_requests": "30s"}
    await provider.with_options(timeout=9).execute(world.script(Response(**said, x_ratelimit_remaining_requests="30")))
    assert left() == 30
    await provider.try_execute(world.script(world.status(500, **said, x_ratelimit_remaining_requests="2")))
    assert left() == 2
    assert [event.remaining for event in world.heard(RateLimitTightened)] == [30, 2]


# -- money and restraint -----------------------------------------------------------------------------------------------


async def test_money(world) -> None:
    """So much in a window; refused with the time to come back; never looks like the provider's own 429."""
    provider = world.provider(cost={"limit": 1.0, "window": 3600}).with_options(
        reserve=Usage(cost=0.6), usage=lambda used: Usage(cost=used)
    )
    assert await provider.execute(world.script(0.3)) == 0.3
    assert await provider.execute(world.script(0.3)) == 0.3
    with pytest.raises(CostLimitReached, match="openai: cost limit reached") as caught:
        await provider.execute(world.script("never"))
    assert caught.value.reason is Reason.COST_EXHAUSTED
    assert 0 < caught.value.retry_after <= 3600 * 1.1
    assert not isinstance(caught.value, RateLimited)
    await anyio.sleep(caught.value.retry_after)
    assert await provider.execute(world.script(0.3)) == 0.3


async def test_restraint(world) -> None:
    """While the provider refuses nearly everything only a share of the calls is sent; it recovers by itself."""
    provider = world.provider(
        throttle={"enabled": True}, retry={"enabled": False}, breaker={"enabled": False}, gate={"enabled": False}
    )
    await provider.map(world.script("fine"), range(20))
    busy = world.script(world.status(429))
    outcomes = await provider.map(busy, range(300), concurrency=1)
    assert 20 < busy.calls < 200
    reasons = {outcome.reason for outcome in outcomes if outcome.rejected}
    assert reasons == {Reason.THROTTLED}
    with pytest.raises(Throttled):
        while True:
            await provider.execute(world.script("fine"))
    fine = world.script("fine")
    await provider.map(fine, range(2000), concurrency=1)
    assert provider.snapshot().throttle.share["default"] == 0
    assert fine.calls > 1000


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"bulkhead": {**ONE, "max_queue": 0, "mode": "shadow"}},
        {"rate_limit": {"requests_per_minute": 1, "mode": "shadow"}},
        {"cost": {"limit": 1, "mode": "shadow"}},
    ],
    ids=["bulkhead", "rate_limit", "cost"],
)
async def test_shadow_mode(world, settings: dict[str, Any]) -> None:
    """Everything is let through at once, and who would have been refused is told."""
    provider = world.provider(**settings).with_options(reserve=Usage(cost=0.7))
    began = anyio.current_time()
    outcomes = await provider.map(world.script("fine", seconds=1), range(3))
    assert all(outcome.ok for outcome in outcomes)
    assert anyio.current_time() - began == 1
    assert len(world.heard(CallWouldBeRejected)) == 2


EVERYTHING = {
    "bulkhead": {**ONE, "max_wait": 50},
    "rate_limit": {"requests_per_second": 1, "burst": 1, "tokens_per_minute": 600, "max_wait": 50},
    "cost": {"limit": 100.0},
    "throttle": {"enabled": True},
}


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
async def test_cancelled_anywhere(world, seconds: float) -> None:
    """Ten callers, one second each, one place, one a second: whenever they are cancelled, nothing is left behind."""
    provider = world.provider(**EVERYTHING)
    view = provider.with_options(reserve=Usage(tokens=10, cost=1.0))
    with anyio.move_on_after(seconds):
        await view.map(world.script("fine", seconds=1), range(10))
    snapshot = provider.snapshot()
    assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
    assert (snapshot.bulkhead.in_use, snapshot.bulkhead.waiting, snapshot.rate_limit.waiting) == (0, 0, 0)
    await anyio.sleep(60)
    assert await view.execute(world.script("fine")) == "fine"
    assert [window.remaining for window in provider.snapshot().rate_limit.windows] == [0, 590]


async def test_a_held_attempt_keeps_its_place(world) -> None:
    """Until it ends, and what it used is settled by then."""
    provider = world.provider(bulkhead={**ONE, "max_queue": 0}, rate_limit={"tokens_per_minute": 1000})
    hold = await provider.with_options(reserve=Usage(tokens=500)).hold(world.script("open"))
    assert (await asyncio_free(provider, world)).reason is Reason.BULKHEAD_FULL
    hold.settle(Usage(tokens=100))
    hold.end()
    assert places(provider) == (0, 0)
    assert provider.snapshot().rate_limit.windows[0].remaining == 900
    assert await provider.execute(world.script("next")) == "next"


async def asyncio_free(provider: Any, world: Any) -> Any:
    """Make a call in another task: one in the same would borrow the place."""
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script("other"), results)
    return results[0]


async def test_unacceptable_results_are_retried_and_closed(world) -> None:
    """What a predicate says no to is a failure of its kind; only the last one comes out, with its error."""

    class Reply:
        closed = False

        def __init__(self, good: bool) -> None:
            self.good = good

        async def aclose(self) -> None:
            self.closed = True

    replies = [Reply(False), Reply(False), Reply(True)]
    provider = world.provider(retry=STEADY).with_options(
        accept=lambda reply: True if reply.good else FailureKind.SERVER_ERROR
    )
    assert await provider.execute(world.script(*replies)) is replies[2]
    assert [reply.closed for reply in replies] == [True, True, False]
    assert provider.snapshot().breaker.failed == 2


@pytest.mark.parametrize("verdict", [None, "fine", 1])
async def test_a_predicate_that_says_something_else(world, verdict: Any) -> None:
    """Is a mistake of the caller's: said so at once, no retry, no evidence, and nothing is left."""
    provider = world.provider(bulkhead=ONE).with_options(accept=lambda _: verdict)
    with pytest.raises(TypeError, match=r"accept= returns True, False, a FailureKind or a Failure"):
        await provider.execute(world.script("reply"))
    assert provider.snapshot().retries == 0
    assert provider.snapshot().breaker.failures_in_a_row == 0
    assert places(provider) == (0, 0)


async def test_false_is_a_failure_of_unknown_kind(world) -> None:
    """The last result is with the error, for whoever wants it all the same; one that fails to close costs nothing."""

    class Broken:
        def close(self) -> None:
            raise ValueError

    last = object()
    provider = world.provider(retry={**STEADY, "max_attempts": 3}).with_options(accept=lambda _: False)
    with pytest.raises(UnacceptableResult) as caught:
        await provider.execute(world.script(Broken(), object(), last))
    assert caught.value.result is last
    assert caught.value.failure.kind is FailureKind.UNKNOWN_ERROR
    assert failure_of(caught.value).attempts == 3


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["threads"])
@pytest.mark.real_time
async def test_one_limit_for_all_threads() -> None:
    """Four event loops in four threads share the places of one provider, and never hold one more than there are."""
    registry = ProviderRegistry(
        Settings(defaults=ProviderSettings(bulkhead={"max_concurrent": 3, "max_queue": 1000, "max_wait": 60}))
    )
    lock, running, most, done = threading.Lock(), 0, 0, 0

    async def work() -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        with lock:
            running -= 1
            done += 1

    async def calls() -> None:
        provider = registry.provider("openai")
        await asyncio.gather(*[provider.execute(work) for _ in range(50)])

    threads = [threading.Thread(target=asyncio.run, args=(calls(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert (most, done) == (3, 200)
    assert places(registry.provider("openai")) == (0, 0)


async def test_nothing_is_left_for_the_collector(world) -> None:
    """Refusals of limits hold no frames in cycles."""
    provider = world.provider(bulkhead={**ONE, "max_queue": 0})
    results: list[Any] = []
    async with anyio.create_task_group() as group:
        await start(group, provider, world.script("first", seconds=5), results)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(BulkheadFull):
                    await provider.execute(world.script("never"))
                await provider.try_execute(world.script("never"))
            assert not [thing for thing in gc.get_objects() if isinstance(thing, BulkheadFull)]
        finally:
            gc.enable()
