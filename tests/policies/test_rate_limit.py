"""The rate limit on its own: who passes, who waits in which order, and that nothing is ever lost."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf, nan
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from resilience._core.words import Priority
from resilience.errors import ConfigurationError, RateLimited, Reason
from resilience.events import CallWouldBeRejected, RateLimitTightened
from resilience.policies import _forks
from resilience.policies.rate_limit import RateLimit, RateRefusal, Reservation
from resilience.settings import BreakerSettings, RateLimitSettings
from resilience.testing import EventRecorder, no_waits

pytestmark = pytest.mark.anyio

TEN = RateLimitSettings(requests_per_second=10, burst=3)
TOKENS = RateLimitSettings(requests_per_minute=600, tokens_per_minute=60_000)


def limit_of(settings: RateLimitSettings = TEN, **changes: Any) -> RateLimit:
    if changes:
        settings = settings.model_copy(update=changes)
    return RateLimit(settings, name="openai", clock=anyio.current_time, wall_clock=lambda: 1e9)


def taken(answer: Reservation | RateRefusal) -> Reservation:
    assert isinstance(answer, Reservation)
    return answer


def refused(answer: Reservation | RateRefusal) -> RateRefusal:
    assert isinstance(answer, RateRefusal)
    return answer


def is_clean(limit: RateLimit) -> bool:
    """Nobody waits, nothing of anybody is left, and the quick way is open."""
    line = limit._line
    return (len(line), line._requests, line._tokens) == (0, 0, 0) and all(
        bucket.tolerance > 0 for bucket in limit._buckets.all
    )


async def turns(count: int = 3) -> None:
    """Let the others run; on trio, tasks of one turn run in any order."""
    for _ in range(count):
        await checkpoint()


async def crowd(limit: RateLimit, count: int, **options: Any) -> list[tuple[int, float]]:
    """Let *count* callers in, one after the other, and return who was admitted when, from now."""
    start, admitted = anyio.current_time(), list[tuple[int, float]]()

    async def one(number: int) -> None:
        await limit.acquire(**options)
        admitted.append((number, round(anyio.current_time() - start, 4)))

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
            await turns()
    return admitted


# -- three ways to use it ----------------------------------------------------------------------------------------------


async def ok(value: str = "fine") -> str:
    return value


async def by_call(limit: RateLimit, func: Callable[[], Awaitable[object]]) -> object:
    return await limit.call(func)


async def by_block(limit: RateLimit, func: Callable[[], Awaitable[object]]) -> object:
    async with limit as reservation:
        assert reservation.requests == 1
        return await func()


async def by_decorator(limit: RateLimit, func: Callable[[], Awaitable[object]]) -> object:
    return await limit(func)()


@pytest.mark.parametrize("use", [by_call, by_block, by_decorator])
async def test_every_way_waits_and_refuses(
    use: Callable[[RateLimit, Callable[[], Awaitable[object]]], Awaitable[object]],
) -> None:
    """Three pass at once, the fourth a tenth of a second later, and too long a wait is refused."""
    limit, start = limit_of(max_wait=0.15), anyio.current_time()
    for _ in range(4):
        assert await use(limit, ok) == "fine"
    assert anyio.current_time() - start == pytest.approx(0.1)
    limit._buckets.charge(anyio.current_time(), 5, 0)
    with pytest.raises(RateLimited):
        await use(limit, ok)
    assert is_clean(limit)


async def test_a_decorated_function_keeps_its_name_and_takes_arguments() -> None:
    """Tracebacks and documentation still speak of the function."""
    limited = limit_of()(ok)
    assert (limited.__name__, await limited(value="good")) == ("ok", "good")
    with pytest.raises(TypeError, match="decorates an async function, not int"):
        limit_of()(7)  # type: ignore[arg-type]


# -- the line ----------------------------------------------------------------------------------------------------------


async def test_callers_pass_in_order_each_at_its_turn() -> None:
    """The burst at once, then one each tenth of a second, first come, first served."""
    limit = limit_of()
    admitted = await crowd(limit, 8)
    assert admitted == [(0, 0), (1, 0), (2, 0), (3, 0.1), (4, 0.2), (5, 0.3), (6, 0.4), (7, 0.5)]
    assert is_clean(limit)


async def test_a_large_call_at_the_head_is_not_overtaken() -> None:
    """Small calls that would fit wait behind it, also those that only look."""
    limit, order = limit_of(TOKENS, max_wait=60), []

    async def one(tokens: int) -> None:
        await limit.acquire(tokens=tokens)
        order.append((tokens, round(anyio.current_time() - start, 3)))

    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for tokens in (50_000, 40_000, 5):
            group.start_soon(one, tokens)
            await turns()
        assert refused(limit.try_acquire(tokens=1)).waiting == 2
    assert order == [(50_000, 0), (40_000, 30), (5, 30.005)]
    assert is_clean(limit)


async def test_a_hopeless_wait_is_refused_at_once() -> None:
    """Also when it is hopeless only because of those who wait already; the error says when to come back, and why."""
    limit = limit_of(max_wait=0.25)
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(limit.acquire)
            await turns()
        with pytest.raises(RateLimited) as caught:
            await limit.acquire()
        assert anyio.current_time() == start
    assert str(caught.value) == "openai: rate limit, 10 requests per second, 2 waiting, retry in 0.3 s"
    assert (caught.value.reason, caught.value.retry_after) == (Reason.RATE_LIMITED, pytest.approx(0.3))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert limit.snapshot().rejected == 1


async def test_the_caller_may_be_less_patient_or_more() -> None:
    """*max_wait* of the call overrules that of the settings; 0 never waits."""
    limit = limit_of(max_wait=0)
    await crowd(limit, 3)
    with pytest.raises(RateLimited):
        await limit.acquire()
    await limit.acquire(max_wait=0.1)


async def test_no_place_in_the_line() -> None:
    """The line is bounded; one more is refused at once."""
    limit = limit_of(max_queue=2)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(limit.acquire)
            await turns()
        with pytest.raises(RateLimited, match=r"2 waiting, retry in 0\.3 s"):
            await limit.acquire()
    none = limit_of(max_queue=0, burst=1)
    await none.acquire()
    with pytest.raises(RateLimited):
        await none.acquire()
    assert is_clean(limit)
    assert is_clean(none)


async def test_when_the_line_is_full_the_less_important_go() -> None:
    """The youngest of the least important makes room; who matters as little is refused; the order stays."""
    limit, ends = limit_of(max_queue=3, burst=1), []

    async def one(name: str, priority: Priority) -> None:
        try:
            await limit.acquire(priority=priority)
            ends.append(name)
        except RateLimited as error:
            ends.append((name, error.reason, error.retry_after is not None))

    async with anyio.create_task_group() as group:
        for name, priority in (
            ("first", Priority.SHEDDABLE),
            ("sheddable head", Priority.SHEDDABLE),
            ("sheddable", Priority.SHEDDABLE),
            ("default", Priority.DEFAULT),
            ("critical", Priority.CRITICAL),
            ("default too", Priority.DEFAULT),
            ("late", Priority.DEFAULT),
            ("critical too", Priority.CRITICAL),
        ):
            group.start_soon(one, name, priority)
            await turns()
    assert ends == [
        "first",
        ("sheddable", Reason.SHED, True),
        ("sheddable head", Reason.SHED, True),
        ("late", Reason.RATE_LIMITED, True),
        ("default too", Reason.SHED, True),
        "default",
        "critical",
        "critical too",
    ]
    assert is_clean(limit)


async def test_a_head_that_is_sent_away_lets_the_next_one_be_head() -> None:
    """The newcomer takes over at the moment at which the one sent away would have passed."""
    limit, passed = limit_of(max_queue=1, burst=1), []

    async def sheddable() -> None:
        with pytest.raises(RateLimited):
            await limit.acquire(priority=Priority.SHEDDABLE)

    await limit.acquire()
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(sheddable)
        await anyio.sleep(0.05)
        await limit.acquire(priority=Priority.CRITICAL)
        passed.append(anyio.current_time() - start)
    assert passed == [pytest.approx(0.1)]
    assert is_clean(limit)


async def test_the_outlook_takes_nothing() -> None:
    """It says in advance what `acquire` would refuse, and nothing about what it would let wait."""
    limit = limit_of(max_wait=0.15)
    for _ in range(3):
        assert limit.outlook() is None
        await limit.acquire()
    assert limit.outlook() is None  # a tenth of a second is worth the wait
    async with anyio.create_task_group() as group:
        group.start_soon(limit.acquire)
        await turns()
        refusal = limit.outlook()
        assert refusal is not None
        assert (refusal.reason, refusal.retry_after) == (Reason.RATE_LIMITED, pytest.approx(0.2))
    never = limit.outlook(requests=4)
    assert never is not None
    assert never.reason is Reason.RATE_OVERSIZED
    assert limit_of(mode="shadow").outlook(requests=4) is None
    assert limit.snapshot().rejected == 0


async def test_waits_can_be_skipped() -> None:
    """In a user's test suite: what would be there after the wait is handed out at once; refusals stay refusals."""
    limit, start = limit_of(max_wait=0.35), anyio.current_time()
    with no_waits():
        assert [at for _, at in await crowd(limit, 6)] == [0] * 6
        with pytest.raises(RateLimited):
            await limit.acquire()
    assert anyio.current_time() == start
    await anyio.sleep(0.4)
    await limit.acquire(max_wait=0)
    assert is_clean(limit)


# -- cancellation ------------------------------------------------------------------------------------------------------

CALLERS = 6


async def give_up_one(limit: RateLimit, victim: int, moment: float, later: int) -> list[tuple[int, float]]:
    """Cancel one caller of several at a *moment*, some turns *later*, and return who passed when."""
    start, passed = anyio.current_time(), list[tuple[int, float]]()
    scopes = [anyio.CancelScope() for _ in range(CALLERS)]

    async def one(number: int) -> None:
        with scopes[number]:
            await limit.acquire()
            passed.append((number, round(anyio.current_time() - start, 4)))

    async with anyio.create_task_group() as group:
        for number in range(CALLERS):
            group.start_soon(one, number)
            await turns()
        await anyio.sleep(moment)
        await turns(later)
        scopes[victim].cancel()
    return passed


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
async def test_a_caller_that_gives_up_has_taken_nothing(moment: float) -> None:
    """Whoever is cancelled, and whenever: the others pass in order, without a gap, and nobody is stuck."""
    for victim in range(CALLERS):
        for later in (0, 1, 2, 3, 5):
            limit = limit_of()
            passed = await give_up_one(limit, victim, moment, later)
            numbers = [number for number, _ in passed]
            assert numbers in ([*range(CALLERS)], [number for number in range(CALLERS) if number != victim])
            assert [at for _, at in passed] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3][: len(passed)])
            assert is_clean(limit)


@pytest.mark.parametrize("later", range(8))
async def test_all_give_up_at_once(later: int) -> None:
    """A crowd that is cancelled together has taken only what those took who passed."""
    limit, passed = limit_of(max_wait=60), []

    async def one() -> None:
        await limit.acquire()
        passed.append(1)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
        await turns(later)
        group.cancel_scope.cancel()
    assert is_clean(limit)
    assert limit.snapshot().windows[0].remaining == 3 - len(passed)


async def play(rng: Random) -> None:
    """Let many callers do anything: wait, give up, be refused, refund, settle."""
    limit = RateLimit(
        RateLimitSettings(
            requests_per_second=rng.choice([1, 5, 20]),
            burst=rng.choice([1, 2, 5]),
            tokens_per_minute=rng.choice([None, 600, 6_000]),
            max_wait=rng.choice([1, 5, 100]),
            max_queue=rng.choice([1, 3, 100]),
        ),
        clock=anyio.current_time,
    )
    came, passed = list[int](), list[int]()

    async def one(number: int) -> None:
        await anyio.sleep(rng.choice([0, 0, 0.5, 1, 1.5, rng.random() * 4]))
        with anyio.move_on_after(rng.choice([inf, inf, 0, 0.5, 1, 2, rng.random() * 5])), suppress(RateLimited):
            came.append(number)
            reservation = await limit.acquire(tokens=rng.choice([0, 1, 50, 300]), priority=rng.choice([*Priority]))
            passed.append(number)
            await anyio.sleep(rng.choice([0, rng.random() * 3]))
            rng.choice(
                [reservation.refund, reservation.settle, lambda: reservation.settle(tokens=rng.randrange(600))]
            )()

    async with anyio.create_task_group() as group:
        for number in range(rng.randint(1, 25)):
            group.start_soon(one, number)
    places = [came.index(number) for number in passed]
    assert places == sorted(places)
    assert is_clean(limit)


async def test_whatever_callers_do_order_is_kept_and_nobody_is_stuck() -> None:
    """A hundred random programs; a caller that waits for ever would end the run as a deadlock."""
    for seed in range(100):
        await play(Random(seed))


async def test_a_task_that_was_cancelled_before_takes_nothing_more() -> None:
    """A caller who may not wait does not get into the line."""
    limit = limit_of()
    await crowd(limit, 3)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await limit.acquire()
    assert scope.cancelled_caught
    assert is_clean(limit)


# -- tokens and reservations -------------------------------------------------------------------------------------------


async def test_an_estimate_is_settled() -> None:
    """What a call did not use is there for the next; what it used beyond the estimate is missing."""
    limit = limit_of(TOKENS)
    reservation = taken(limit.try_acquire(tokens=50_000))
    assert refused(limit.try_acquire(tokens=20_000)).retry_after == pytest.approx(10)
    reservation.settle(tokens=8_000)
    other = taken(limit.try_acquire(tokens=20_000))
    other.settle(tokens=60_000)
    assert refused(limit.try_acquire(tokens=0)).retry_after == pytest.approx(8)


async def test_a_settlement_wakes_the_head_of_the_line() -> None:
    """A waiter does not sleep on when what it needs is back."""
    limit, start = limit_of(TOKENS, max_wait=60), anyio.current_time()
    reservation = await limit.acquire(tokens=60_000)

    async def settle(later: float) -> None:
        await anyio.sleep(later)
        reservation.settle(tokens=1_000)

    async with anyio.create_task_group() as group:
        group.start_soon(settle, 3)
        await limit.acquire(tokens=50_000)
    assert anyio.current_time() - start == pytest.approx(3)


async def test_a_refund_gives_everything_back_once() -> None:
    """Requests and tokens; a second refund, or a settlement after it, changes nothing."""
    limit = limit_of(TOKENS)
    before = limit.snapshot()
    reservation = taken(limit.try_acquire(tokens=50_000, requests=2))
    assert repr(reservation) == "<Reservation 2 requests, 50000 tokens, live>"
    taken(limit.try_acquire(tokens=5_000))
    reservation.refund()
    assert repr(reservation) == "<Reservation 2 requests, 50000 tokens, done>"
    reservation.refund()
    reservation.settle(tokens=60_000)
    after = limit.snapshot()
    assert [window.remaining for window in before.windows] == [600, 60_000]
    assert [window.remaining for window in after.windows] == [599, 55_000]


async def test_a_refund_wakes_the_head_of_the_line() -> None:
    """A call that never left hands its turn on."""
    limit, start = limit_of(burst=1), anyio.current_time()
    reservation = await limit.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(limit.acquire)
        await anyio.sleep(0.02)
        reservation.refund()
        await turns()
        await turns()
        assert limit.waiting == 0
    assert anyio.current_time() - start == pytest.approx(0.02)


async def test_settling_once_is_enough() -> None:
    """Without a number the estimate stands; what follows changes nothing."""
    limit = limit_of(TOKENS, token_estimate=1_000)
    reservation = taken(limit.try_acquire())
    assert reservation.tokens == 1_000
    reservation.settle()
    reservation.settle(tokens=0)
    reservation.refund()
    assert [window.remaining for window in limit.snapshot().windows] == [599, 59_000]


async def test_what_never_fits_is_refused_at_once() -> None:
    """With the figures, and without a time to come back."""
    limit = limit_of(TOKENS, max_wait=1e6)
    with pytest.raises(RateLimited) as caught:
        await limit.acquire(tokens=90_000)
    assert str(caught.value) == "openai: rate limit, 90000 tokens at once, but only 60000 ever fit"
    assert (caught.value.reason, caught.value.retry_after) == (Reason.RATE_OVERSIZED, None)
    assert refused(limit.try_acquire(requests=601)).reason is Reason.RATE_OVERSIZED


async def test_what_never_fits_may_be_clamped() -> None:
    """Then it takes all there is, and the settlement tells the rest."""
    limit = limit_of(TOKENS, oversized="clamp")
    reservation = taken(limit.try_acquire(tokens=90_000))
    assert reservation.tokens == 60_000
    reservation.settle(tokens=90_000)
    assert refused(limit.try_acquire()).retry_after == pytest.approx(30)


@pytest.mark.parametrize("number", [-1, nan, inf, True])
async def test_numbers_that_cannot_be_counted_with(number: float) -> None:
    """They are refused where they come in, and a reservation stays as it is."""
    limit = limit_of(TOKENS)
    with pytest.raises(ValueError, match=r"tokens=.*: expected a number, 0 or more"):
        limit.try_acquire(tokens=number)
    with pytest.raises(ValueError, match="requests="):
        await limit.acquire(requests=number)
    reservation = taken(limit.try_acquire(tokens=5))
    with pytest.raises(ValueError, match="tokens="):
        reservation.settle(tokens=number)
    reservation.refund()
    assert limit.snapshot().windows[1].remaining == 60_000


async def test_all_windows_hold() -> None:
    """The second, the minute and the day, each by itself; the slowest is named."""
    limit = limit_of(RateLimitSettings(requests_per_second=2, requests_per_minute=4, tokens_per_day=10), max_wait=0)
    for _ in range(2):
        await limit.acquire(tokens=1)
        await limit.acquire(tokens=1)
        await anyio.sleep(1)
    assert refused(limit.try_acquire()).figures == "4 requests per minute"
    await anyio.sleep(60)
    assert refused(limit.try_acquire(tokens=7)).figures == "10 tokens per day"


# -- modes -------------------------------------------------------------------------------------------------------------


async def test_shadow_admits_and_tells() -> None:
    """Nobody waits; who would have waited or been refused is told of; who would have been refused takes nothing."""
    limit, events = limit_of(mode="shadow", max_wait=0.2), EventRecorder()
    limit.bus.subscribe(events)
    start = anyio.current_time()
    assert [at for _, at in await crowd(limit, 9)] == [0] * 9
    assert anyio.current_time() == start
    assert [event.reason for event in events.of(CallWouldBeRejected)] == [Reason.RATE_LIMITED] * 6
    assert limit.snapshot().windows[0].full_in == pytest.approx(0.5)  # three at once, and two that would have waited
    assert limit.snapshot().rejected == 0
    assert limit.fast is None


async def test_shadow_tells_of_what_never_fits() -> None:
    """With its own reason; and such a reservation gives nothing back."""
    limit, events = limit_of(TOKENS, mode="shadow"), EventRecorder()
    limit.bus.subscribe(events)
    reservation = taken(limit.try_acquire(tokens=90_000))
    reservation.refund()
    assert [event.reason for event in events.of(CallWouldBeRejected)] == [Reason.RATE_OVERSIZED]
    assert limit.snapshot().windows[1].full_in == 0


async def test_disabled_and_unlimited() -> None:
    """Both let everything pass and look at nothing."""
    for limit in (limit_of(mode="disabled"), limit_of(RateLimitSettings())):
        assert [at for _, at in await crowd(limit, 20)] == [0] * 20
        limit.follow({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"}, sent=0)
        taken(limit.try_acquire()).refund()
        assert limit.fast is None


# -- the quick way -----------------------------------------------------------------------------------------------------


async def test_the_quick_way_exists_for_a_single_window_of_requests() -> None:
    """More windows, or tokens, need more than one number."""
    assert limit_of().fast is not None
    assert limit_of(TOKENS).fast is None
    assert limit_of(RateLimitSettings(tokens_per_minute=5)).fast is None


async def test_the_quick_way_is_closed_while_somebody_waits() -> None:
    """So nobody jumps the line by it."""
    limit = limit_of(burst=1)
    await limit.acquire()
    assert limit.fast is not None
    async with anyio.create_task_group() as group:
        group.start_soon(limit.acquire)
        await anyio.sleep(0.05)
        assert limit.fast.tolerance == -inf
    assert limit.fast.tolerance > 0


# -- what the provider says --------------------------------------------------------------------------------------------


def openai(remaining: int, limit: int, reset: str, what: str = "requests") -> dict[str, str]:
    pairs = (("remaining", str(remaining)), ("limit", str(limit)), ("reset", reset))
    return {f"X-RateLimit-{part}-{what}": value for part, value in pairs}


async def test_headers_tighten_the_window_that_they_mean() -> None:
    """A limit that fills up in a day is matched with our day, and it is told."""
    limit = limit_of(RateLimitSettings(requests_per_minute=60, requests_per_day=14_400))
    events = EventRecorder()
    limit.bus.subscribe(events)
    limit.follow(openai(14_380, 14_400, "120s"), sent=0)
    assert [window.remaining for window in limit.snapshot().windows] == [60, 14_380]
    limit.follow(openai(20, 60, "40s"), sent=0)
    assert [window.remaining for window in limit.snapshot().windows] == [20, 14_380]
    limit.follow(openai(20, 60, "40s"), sent=0)
    tightened = events.of(RateLimitTightened)
    assert [event.window for event in tightened] == ["requests per minute"]  # 20 of 14,400 are not worth telling
    assert (tightened[0].provider, tightened[0].remaining, tightened[0].reset) == ("openai", 20, 40)


async def test_nothing_left_means_nobody_leaves() -> None:
    """Until the provider has some again, not even by the quick way; a waiter whose time is too short is refused."""
    limit = limit_of(max_wait=5)
    limit.follow({"RateLimit": '"default";r=0;t=3', "RateLimit-Policy": '"default";q=10;w=60'}, sent=0)
    assert limit.fast is not None
    assert limit.fast.tolerance == -inf
    start = anyio.current_time()
    with pytest.raises(RateLimited):
        await limit.acquire(max_wait=2)
    await limit.acquire()
    assert anyio.current_time() - start == pytest.approx(3)


async def test_a_header_refuses_waiters_that_it_makes_hopeless() -> None:
    """Each finds out as soon as it is at the head of the line; there is nothing to wait for."""
    limit, refusals = limit_of(burst=1, max_wait=0.25), []

    async def one() -> None:
        try:
            await limit.acquire()
        except RateLimited:
            refusals.append(round(anyio.current_time() - start, 3))

    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
            await turns()
        limit.follow({"RateLimit": '"default";r=0;t=9'}, sent=start)
    assert refusals == [0, 0]
    assert is_clean(limit) is False  # the header still holds
    await anyio.sleep(9)
    await limit.acquire()
    assert is_clean(limit)


async def test_a_waiter_that_is_not_the_head_gives_up_in_time() -> None:
    """Even if the head, which is more patient, still waits."""
    limit, start = limit_of(TOKENS), anyio.current_time()
    await limit.acquire(tokens=60_000)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: limit.acquire(tokens=10_000, max_wait=60))
        await turns()
        # What comes back could be enough for both; it comes too late.
        limit._line._tokens = 0.0
        with pytest.raises(RateLimited):
            await limit.acquire(tokens=1_000, max_wait=2)
        assert anyio.current_time() - start == pytest.approx(2)
        limit._line._tokens = 10_000.0
    assert anyio.current_time() - start == pytest.approx(10)


async def test_tokens_are_followed_too() -> None:
    """Input and output alone only when they are spent."""
    limit = limit_of(TOKENS)
    base = "anthropic-ratelimit"
    until = "2001-09-09T01:47:10Z"  # half a minute from now
    limit.follow({f"{base}-tokens-remaining": "40000", f"{base}-input-tokens-remaining": "10"}, sent=0)
    assert limit.snapshot().windows[1].remaining == 40_000
    limit.follow({f"{base}-output-tokens-remaining": "0", f"{base}-output-tokens-reset": until}, sent=1)
    assert limit.snapshot().windows[1].remaining == 0
    assert refused(limit.try_acquire(tokens=1)).retry_after == pytest.approx(30)


async def test_headers_without_a_window_of_ours_say_nothing() -> None:
    """Tokens, where only requests are limited."""
    limit = limit_of()
    limit.follow(openai(0, 60_000, "60s", "tokens"), sent=0)
    assert taken(limit.try_acquire())


async def test_headers_need_not_be_followed() -> None:
    """Some users know better than their provider."""
    limit = limit_of(follow_headers=False)
    limit.follow(openai(0, 60, "60s"), sent=0)
    assert taken(limit.try_acquire())


async def test_answers_that_agree_let_the_line_go_on() -> None:
    """Three newer ones that see more left undo one that was wrong, and wake the head."""
    limit, start = limit_of(max_wait=100), anyio.current_time()
    limit.follow({"RateLimit": '"default";r=0;t=60'}, sent=0)
    async with anyio.create_task_group() as group:
        group.start_soon(limit.acquire)
        await anyio.sleep(1)
        for sent in (1, 2, 3):
            limit.follow({"RateLimit": '"default";r=9;t=60'}, sent=sent)
    assert anyio.current_time() - start == pytest.approx(1)


# -- looking at it -----------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_json() -> None:
    """Every figure is there, and plain."""
    limit = limit_of(TOKENS, burst=5)
    await limit.acquire(tokens=30_000)
    assert json.loads(json.dumps(dataclasses.asdict(limit.snapshot()))) == {
        "name": "openai",
        "mode": "enforce",
        "windows": [
            {
                "name": "requests per minute",
                "allowance": 600,
                "burst": 5,
                "remaining": 4,
                "full_in": pytest.approx(0.1),
            },
            {
                "name": "tokens per minute",
                "allowance": 60_000,
                "burst": 60_000,
                "remaining": 30_000,
                "full_in": pytest.approx(30),
            },
        ],
        "waiting": 0,
        "rejected": 0,
    }


async def test_a_limit_describes_itself() -> None:
    """In one line."""
    limit = limit_of()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(limit.acquire)
            await turns()
        await turns()
        assert repr(limit) == "<RateLimit 'openai' 0 of 3 requests per second left, 2 waiting>"
    assert repr(limit_of(mode="shadow")) == "<RateLimit 'openai' SHADOW 3 of 3 requests per second left>"
    assert repr(limit_of(RateLimitSettings())) == "<RateLimit 'openai' no limit>"


async def test_mistakes_are_explained() -> None:
    """Other settings, a name in their place, and a limit that cannot be counted."""
    with pytest.raises(ConfigurationError, match=r"takes RateLimitSettings.*, not 'openai': the name is"):
        RateLimit("openai")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="takes RateLimitSettings"):
        RateLimit(BreakerSettings())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="name is a string, not 7"):
        RateLimit(TEN, name=7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"requests_per_day = 5e-324: .*too extreme"):
        limit_of(RateLimitSettings(requests_per_day=5e-324))


# -- loops, threads, forks ---------------------------------------------------------------------------------------------


@pytest.mark.real_time
async def test_one_limit_serves_many_loops(anyio_backend: tuple[str, dict[str, object]]) -> None:
    """Threads with loops of both kinds share it: nobody is stuck, and never more pass than are allowed."""
    limit = RateLimit(RateLimitSettings(requests_per_second=2_000, burst=5, max_wait=60))
    passed: list[float] = []

    async def one() -> None:
        await limit.acquire()
        passed.append(time.monotonic())

    async def twenty() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)

    def run(backend: str) -> None:
        anyio.run(twenty, backend=backend)

    threads = [threading.Thread(target=run, args=(backend,)) for backend in ("asyncio", "trio", "asyncio")]
    for thread in threads:
        thread.start()
    await twenty()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    passed.sort()
    assert len(passed) == 80
    assert passed[-1] - passed[0] >= (80 - 5 - 1) / 2_000
    assert is_clean(limit)


async def test_a_waiter_whose_loop_is_gone_holds_nobody_up() -> None:
    """A loop may be closed without its tasks ever being told; the next caller notices."""
    limit = limit_of(max_wait=60)
    limit._buckets.charge(anyio.current_time(), 13, 0)
    strays: list[asyncio.Task[Reservation]] = []

    def leave_one_behind() -> None:
        loop = asyncio.new_event_loop()
        strays.extend(loop.create_task(limit.acquire()) for _ in range(3))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=leave_one_behind)
    now = anyio.current_time()
    limit._clock = lambda: now  # the clock of this loop does not run in that thread
    thread.start()
    thread.join()
    limit._clock = anyio.current_time
    assert limit.waiting == 3
    await anyio.sleep(10)
    await limit.acquire()
    assert is_clean(limit)
    for task in strays:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()  # type: ignore[union-attr]


async def test_a_forked_child_starts_anew() -> None:
    """Windows are full, nobody waits, and a lock that another thread held is another."""
    limit = limit_of()
    await crowd(limit, 3)
    reservation = limit.try_acquire(requests=0)
    old = limit.lock
    limit.rejected = 5
    _forks.start_anew()
    assert limit.lock is not old
    assert limit.snapshot().windows[0].remaining == 3
    assert limit.snapshot().rejected == 0
    limit._buckets.charge(anyio.current_time(), 3, 0)
    taken(reservation).refund()
    assert limit.snapshot().windows[0].remaining == 0
