"""Rollout by percentage: a share of the refusals is in earnest, and the rest is told of, as in shadow mode."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience._core.states import CircuitState, Permit, Refusal
from resilience._core.words import Priority, Verdict
from resilience.errors import BulkheadFull, RateLimited, Reason
from resilience.events import CallWouldBeRejected, EventBus
from resilience.policies.bulkhead import Bulkhead, BulkheadRefusal, Place
from resilience.policies.circuit_breaker import CircuitBreaker
from resilience.policies.cost import CostLimit, CostRefusal
from resilience.policies.rate_limit import RateLimit, RateRefusal
from resilience.policies.throttle import Throttle, ThrottleRefusal
from resilience.settings import (
    BreakerSettings,
    BulkheadSettings,
    CostSettings,
    RateLimitSettings,
    ThrottleSettings,
)
from resilience.testing import EventRecorder

REFUSALS = (Refusal, BulkheadRefusal, RateRefusal, CostRefusal, ThrottleRefusal)
CALLS = 4000


def now() -> float:
    return 1000.0


class Lots(random.Random):
    """Draws that were fixed beforehand; there must be neither more nor fewer."""

    def __init__(self, *draws: float) -> None:
        self.draws = list(draws)
        super().__init__()

    def random(self) -> float:
        return self.draws.pop(0)


def heard(bus: EventBus) -> EventRecorder:
    recorder = EventRecorder()
    bus.subscribe(recorder)
    return recorder


Ask = Callable[[], object]


def open_breaker(rng: random.Random, share: float) -> tuple[Ask, EventBus]:
    breaker = CircuitBreaker("s3", BreakerSettings(enforced=share, failure_threshold=1, jitter=0.0), clock=now, rng=rng)
    permit = breaker.acquire(now())
    assert isinstance(permit, Permit)
    breaker.release(permit, Verdict.FAILURE, now())
    return lambda: breaker.acquire(now()), breaker.bus


def saturated_breaker(rng: random.Random, share: float) -> tuple[Ask, EventBus]:
    clock = [1000.0]
    settings = BreakerSettings(enforced=share, failure_threshold=1, jitter=0.0)
    breaker = CircuitBreaker("s3", settings, clock=lambda: clock[0], rng=rng)
    permit = breaker.acquire(clock[0])
    assert isinstance(permit, Permit)
    breaker.release(permit, Verdict.FAILURE, clock[0])
    clock[0] += 60
    probe = breaker.acquire(clock[0])
    assert isinstance(probe, Permit)
    assert probe.probe
    return lambda: breaker.acquire(clock[0]), breaker.bus


def full_bulkhead(rng: random.Random, share: float) -> tuple[Ask, EventBus]:
    bulkhead = Bulkhead(BulkheadSettings(enforced=share, max_concurrent=1), clock=now, rng=rng)
    assert isinstance(bulkhead.try_acquire(), Place)
    return bulkhead.try_acquire, bulkhead.bus


def spent_rate(rng: random.Random, share: float) -> tuple[Ask, EventBus]:
    limit = RateLimit(RateLimitSettings(enforced=share, requests_per_minute=1), clock=now, rng=rng)
    limit.try_acquire()
    return limit.try_acquire, limit.bus


def spent_money(rng: random.Random, share: float) -> tuple[Ask, EventBus]:
    limit = CostLimit(CostSettings(enforced=share, limit=1), clock=now, rng=rng)
    limit.reserve(1)
    return lambda: limit.try_reserve(1), limit.bus


def busy_throttle(rng: random.Random, share: float) -> tuple[Ask, EventBus]:
    throttle = Throttle(ThrottleSettings(enabled=True, enforced=share, max_reject=1.0), clock=now, rng=rng)
    throttle.record(False, n=10**6)
    return throttle.try_admit, throttle.bus


POLICIES = [open_breaker, saturated_breaker, full_bulkhead, spent_rate, spent_money, busy_throttle]
REASONS = [
    Reason.CIRCUIT_OPEN,
    Reason.HALF_OPEN_SATURATED,
    Reason.BULKHEAD_FULL,
    Reason.RATE_LIMITED,
    Reason.COST_EXHAUSTED,
    Reason.THROTTLED,
]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("make, reason", list(zip(POLICIES, REASONS, strict=True)))
def test_that_share_of_the_refusals_is_in_earnest(
    make: Callable[[random.Random, float], tuple[Ask, EventBus]], reason: Reason, share: float
) -> None:
    """Of 4,000 calls that would be refused the share is refused, within four standard deviations; the rest is told."""
    ask, bus = make(random.Random(7), share)
    recorder = heard(bus)
    refused = sum(isinstance(ask(), REFUSALS) for _ in range(CALLS))
    deviation = (CALLS * share * (1 - share)) ** 0.5
    assert abs(refused - CALLS * share) < 4 * deviation
    told = recorder.of(CallWouldBeRejected)
    assert len(told) == CALLS - refused
    assert {event.reason for event in told} == {reason}


@pytest.mark.parametrize("make", [make for make in POLICIES if make is not busy_throttle])
@pytest.mark.parametrize(
    "draw, share, refused", [(0.3, 0.3, False), (0.2999, 0.3, True), (0.0, 0.01, True), (0.9999, 0.99, False)]
)
def test_one_refusal_is_one_draw(
    make: Callable[[random.Random, float], tuple[Ask, EventBus]], draw: float, share: float, refused: bool
) -> None:
    """It holds if the draw lies below the share; nothing is drawn where nothing is refused."""
    spare = [0.5] if make in (open_breaker, saturated_breaker) else []  # the jitter of the open time
    lots = Lots(*spare, draw)
    ask, _ = make(lots, share)
    assert isinstance(ask(), REFUSALS) is refused
    assert lots.draws == []


@pytest.mark.parametrize("make", [make for make in POLICIES if make is not busy_throttle])
def test_nothing_is_drawn_where_all_are_in_earnest(
    make: Callable[[random.Random, float], tuple[Ask, EventBus]],
) -> None:
    """A share of 1, the default, refuses without a draw."""
    lots = Lots(*[0.5] if make in (open_breaker, saturated_breaker) else [])
    ask, bus = make(lots, 1.0)
    recorder = heard(bus)
    assert isinstance(ask(), REFUSALS)
    assert (lots.draws, len(recorder)) == ([], 0)


# -- what a spared call does and does not do ---------------------------------------------------------------------------


def test_who_is_let_through_an_open_circuit_has_no_vote() -> None:
    """The circuit stays open for as long as it was going to, whatever becomes of those who were let through."""
    settings = BreakerSettings(enforced=0.5, failure_threshold=1, jitter=0.0)
    breaker = CircuitBreaker("s3", settings, clock=now, rng=random.Random(1))
    first = breaker.acquire(now())
    assert isinstance(first, Permit)
    breaker.release(first, Verdict.FAILURE, now())
    spared = [permit for _ in range(20) if isinstance(permit := breaker.acquire(now()), Permit)]
    assert spared
    for permit in spared:
        breaker.release(permit, Verdict.SUCCESS, now())
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.retry_after, snapshot.stale_results) == (CircuitState.OPEN, 60.0, 0)


def test_what_is_opened_by_hand_is_shut_for_all() -> None:
    """An operator who opens the circuit means everybody, and nothing is drawn."""
    breaker = CircuitBreaker("s3", BreakerSettings(enforced=0.01), rng=Lots())
    breaker.open()
    assert isinstance(breaker.acquire(0.0), Refusal)


def test_who_is_let_in_beyond_a_limit_takes_nobodys_place() -> None:
    """It counts as running, but not against the limit; leaving twice is harmless as ever."""
    bulkhead = Bulkhead(BulkheadSettings(enforced=0.5, max_concurrent=1), rng=Lots(0.9, 0.9, 0.1))
    first, second, third = (bulkhead.try_acquire() for _ in range(3))
    assert isinstance(first, Place)
    assert isinstance(second, Place)
    assert isinstance(third, Place)
    assert (bulkhead.granted, bulkhead.in_use) == (1, 3)
    first.leave()
    fourth = bulkhead.try_acquire()
    assert isinstance(fourth, Place)
    assert isinstance(bulkhead.try_acquire(), BulkheadRefusal)
    for place in (first, second, third, fourth, second):
        place.leave()
    assert (bulkhead.granted, bulkhead.in_use) == (0, 0)


def test_who_is_let_past_a_rate_takes_nothing() -> None:
    """The window fills as if it had not been there, and what it settles or refunds changes nothing."""
    limit = RateLimit(RateLimitSettings(enforced=0.5, requests_per_minute=60), clock=now, rng=Lots(0.9))
    limit.try_acquire(requests=60)
    spared = limit.try_acquire(requests=30)
    assert not isinstance(spared, RateRefusal)
    spared.refund()
    window = limit.snapshot().windows[0]
    assert window.remaining == 0
    assert window.full_in == pytest.approx(60)


def test_who_is_let_past_a_cost_limit_spends_nothing() -> None:
    """Its price is not booked, neither reserved nor settled, and nobody counts it as rejected."""
    limit = CostLimit(CostSettings(enforced=0.5, limit=10), clock=now, rng=Lots(0.9, 0.1))
    limit.reserve(10)
    limit.reserve(5).settle(7)
    assert isinstance(limit.try_reserve(5), CostRefusal)
    assert (limit.snapshot().used, limit.rejected) == (10, 1)


def test_nobody_foresees_a_draw() -> None:
    """Where a call might be let through, `outlook` does not call it refused."""
    bulkhead = Bulkhead(BulkheadSettings(enforced=0.99, max_concurrent=1, max_queue=0))
    bulkhead.try_acquire()
    rate = RateLimit(RateLimitSettings(enforced=0.99, requests_per_day=1))
    rate.try_acquire()
    cost = CostLimit(CostSettings(enforced=0.99, limit=1))
    cost.reserve(1)
    assert (bulkhead.outlook(), rate.outlook(), cost.outlook(1)) == (None, None, None)
    for policy, settings in (
        (bulkhead, BulkheadSettings(max_concurrent=1, max_queue=0)),
        (rate, RateLimitSettings(requests_per_day=1)),
        (cost, CostSettings(limit=1)),
    ):
        adopts: Any = policy
        adopts.adopt(settings)
    assert None not in (bulkhead.outlook(), rate.outlook(), cost.outlook(1))


# -- those who wait ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("draw, let_in", [(0.9, True), (0.1, False)])
async def test_who_has_waited_in_vain_is_let_in_by_lot(draw: float, let_in: bool) -> None:
    """A wait is a wait: only at its end the lot decides, and only once."""
    lots = Lots(draw)
    bulkhead = Bulkhead(
        BulkheadSettings(enforced=0.5, max_concurrent=1, max_wait=3), clock=anyio.current_time, rng=lots
    )
    recorder = heard(bulkhead.bus)
    first = await bulkhead.acquire()
    began, second = anyio.current_time(), None
    with suppress(BulkheadFull):
        second = await bulkhead.acquire()
    assert anyio.current_time() - began == pytest.approx(3)
    assert (second is not None, lots.draws) == (let_in, [])
    assert [event.reason for event in recorder.of(CallWouldBeRejected)] == [Reason.BULKHEAD_TIMEOUT] * let_in
    for place in (first, second):
        if place is not None:
            place.leave()
    assert (bulkhead.in_use, bulkhead.granted, bulkhead.waiting) == (0, 0, 0)


@pytest.mark.anyio
async def test_who_is_put_out_of_the_line_is_let_in_by_lot() -> None:
    """Somebody more important takes the last place in the line: who had it is let in, if the lot says so."""
    bulkhead = Bulkhead(
        BulkheadSettings(enforced=0.5, max_concurrent=1, max_queue=1, max_wait=3),
        clock=anyio.current_time,
        rng=Lots(0.9, 0.9),
    )
    recorder = heard(bulkhead.bus)
    places = [await bulkhead.acquire()]

    async def want(priority: Priority) -> None:
        places.append(await bulkhead.acquire(priority=priority))

    async with anyio.create_task_group() as group:
        for priority in (Priority.DEFAULT, Priority.CRITICAL):
            group.start_soon(want, priority)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
    assert [event.reason for event in recorder.of(CallWouldBeRejected)] == [Reason.SHED, Reason.BULKHEAD_TIMEOUT]
    for place in places:
        place.leave()
    assert (bulkhead.in_use, len(places)) == (0, 3)


@pytest.mark.anyio
@pytest.mark.parametrize("draw, let_in", [(0.9, True), (0.1, False)])
@pytest.mark.parametrize("patience", [0.0, 30.0])
async def test_who_would_wait_too_long_for_a_rate_is_let_in_by_lot(draw: float, let_in: bool, patience: float) -> None:
    """Known at once or found out at the end of a wait, one refusal is one draw."""
    lots = Lots(draw)
    limit = RateLimit(
        RateLimitSettings(enforced=0.5, requests_per_minute=1, max_wait=30), clock=anyio.current_time, rng=lots
    )
    await limit.acquire()
    recorder = heard(limit.bus)
    got: list[object] = []

    async def want() -> None:
        with suppress(RateLimited):
            got.append(await limit.acquire(max_wait=61 if patience else 10))

    async with anyio.create_task_group() as group:
        group.start_soon(want)
        await anyio.sleep(patience)
        limit.adopt(RateLimitSettings(enforced=0.5, requests_per_minute=0.5, burst=1, max_wait=30))
    assert (len(got), lots.draws) == (let_in, [])
    assert len(recorder.of(CallWouldBeRejected)) == let_in
    assert limit.rejected == (not let_in)
    assert limit.waiting == 0


def test_who_goes_on_to_wait_is_not_refused_yet() -> None:
    """`at_once` says no without a draw, for those who wait after it."""
    bulkhead = Bulkhead(BulkheadSettings(enforced=0.5, max_concurrent=1), rng=Lots())
    limit = RateLimit(RateLimitSettings(enforced=0.5, requests_per_minute=1), clock=now, rng=Lots())
    assert isinstance(bulkhead.at_once(), Place)
    assert isinstance(bulkhead.at_once(), BulkheadRefusal)
    assert not isinstance(limit.at_once(), RateRefusal)
    assert isinstance(limit.at_once(), RateRefusal)
