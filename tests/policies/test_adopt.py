"""Settings that change while calls run: what is known, taken and promised stays, and nothing is given twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience._core.states import CircuitState, Permit, Refusal
from resilience._core.words import Priority, Verdict
from resilience.errors import BulkheadFull, ConfigurationError, RateLimited, Reason
from resilience.events import CallWouldBeRejected, CircuitChanged
from resilience.policies.bulkhead import Bulkhead, BulkheadRefusal, Place
from resilience.policies.circuit_breaker import CircuitBreaker
from resilience.policies.cost import CostLimit, CostRefusal, Spending
from resilience.policies.hedge import Hedge
from resilience.policies.rate_limit import RateLimit, RateRefusal, Reservation
from resilience.policies.throttle import Throttle
from resilience.settings import (
    BreakerSettings,
    BulkheadSettings,
    CostSettings,
    HedgeSettings,
    RateLimitSettings,
    ThrottleSettings,
)
from resilience.testing import EventRecorder

SUCCESS, FAILURE = Verdict.SUCCESS, Verdict.FAILURE
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
FORCED_OPEN, DISABLED = CircuitState.FORCED_OPEN, CircuitState.DISABLED


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    for _ in range(6):
        await anyio.lowlevel.checkpoint()


def wall_clock() -> float:
    return 1e9


# -- the same settings again -------------------------------------------------------------------------------------------


def breaker_run(policy: CircuitBreaker, rng: random.Random, clock: Clock, held: list[Any]) -> object:
    if held and rng.random() < 0.6:
        permit = held.pop(rng.randrange(len(held)))
        verdict = rng.choice([SUCCESS, FAILURE, FAILURE])
        policy.release(permit, verdict, clock.now, slow=rng.random() < 0.2)
        return verdict
    answer = policy.acquire(clock.now)
    if isinstance(answer, Refusal):
        return answer
    held.append(answer)
    return answer.probe


def bulkhead_run(policy: Bulkhead, rng: random.Random, clock: Clock, held: list[Any]) -> object:
    if held and rng.random() < 0.5:
        held.pop(rng.randrange(len(held))).leave()
        policy.saw(clock.now, successes=rng.choice([0, 5, 20]), drops=rng.choice([0, 0, 1]), latency=rng.random())
        return policy.limit
    answer = policy.try_acquire(priority=rng.choice(list(Priority)))
    if isinstance(answer, BulkheadRefusal):
        return answer
    held.append(answer)
    return answer.state


def rate_run(policy: RateLimit, rng: random.Random, _: Clock, held: list[Any]) -> object:
    chance = rng.random()
    if held and chance < 0.3:
        held.pop(rng.randrange(len(held))).settle(tokens=rng.randrange(100))
        return None
    if held and chance < 0.4:
        held.pop(rng.randrange(len(held))).refund()
        return None
    if chance < 0.5:
        headers = {"x-ratelimit-remaining-requests": str(rng.randrange(20)), "x-ratelimit-reset-requests": "5s"}
        return policy.follow(headers, sent=policy._clock())
    answer = policy.try_acquire(tokens=rng.randrange(60), requests=rng.randrange(3))
    if isinstance(answer, RateRefusal):
        return answer
    held.append(answer)
    return (answer.requests, answer.tokens)


def throttle_run(policy: Throttle, rng: random.Random, _: Clock, __: list[Any]) -> object:
    policy.record(rng.random() < 0.3, n=rng.randrange(5))
    return policy.try_admit(rng.choice(list(Priority)))


def cost_run(policy: CostLimit, rng: random.Random, _: Clock, held: list[Any]) -> object:
    if held and rng.random() < 0.4:
        held.pop(rng.randrange(len(held))).settle(rng.random() * 3)
        return None
    answer = policy.try_reserve(rng.choice([None, rng.random() * 2]))
    if isinstance(answer, CostRefusal):
        return answer
    held.append(answer)
    return answer.amount


def hedge_run(policy: Hedge, rng: random.Random, clock: Clock, held: list[Any]) -> object:
    policy.begin(clock.now)
    policy.record(clock.now, rng.random())
    if held and rng.random() < 0.3:
        policy.refund(held.pop(), clock.now)
    charge = policy.charge(clock.now, 60.0)
    if charge is not None:
        held.append(charge)
    return charge is None, policy.delay(clock.now)


RUNS: list[tuple[Callable[..., Any], Any, Callable[..., object]]] = [
    (CircuitBreaker, BreakerSettings(failure_threshold=4, minimum_calls=6, growth=2.0, timeout=5), breaker_run),
    (CircuitBreaker, BreakerSettings(window_calls=20, half_open_max_calls=2, timeout=5), breaker_run),
    (CircuitBreaker, BreakerSettings(mode="shadow", timeout=5), breaker_run),
    (CircuitBreaker, BreakerSettings(enforced=0.5, failure_threshold=2, timeout=5), breaker_run),
    (Bulkhead, BulkheadSettings(max_concurrent=3), bulkhead_run),
    (Bulkhead, BulkheadSettings(max_concurrent=3, enforced=0.5), bulkhead_run),
    (Bulkhead, BulkheadSettings(max_concurrent=3, mode="shadow", max_queue=2, max_wait=3), bulkhead_run),
    (Bulkhead, BulkheadSettings(adaptive="aimd", initial_limit=4, max_limit=9), bulkhead_run),
    (Bulkhead, BulkheadSettings(adaptive="vegas", initial_limit=4, max_limit=9), bulkhead_run),
    (RateLimit, RateLimitSettings(requests_per_minute=17, tokens_per_minute=700, burst=5), rate_run),
    (RateLimit, RateLimitSettings(requests_per_second=0.7, requests_per_day=90, mode="shadow"), rate_run),
    (RateLimit, RateLimitSettings(requests_per_minute=7, enforced=0.3), rate_run),
    (Throttle, ThrottleSettings(enabled=True, window=20), throttle_run),
    (Throttle, ThrottleSettings(enabled=True, window=20, enforced=0.4), throttle_run),
    (CostLimit, CostSettings(limit=7.1, window=33), cost_run),
    (CostLimit, CostSettings(limit=7.1, window=33, mode="shadow"), cost_run),
    (Hedge, HedgeSettings(enabled=True, warm_up=5, max_extra_load=0.2, latency_window=30), hedge_run),
]


def told_by(
    make: Callable[..., Any], settings: Any, step: Callable[..., object], seed: int, *, adopts: bool
) -> list[object]:
    """What a policy answers and tells in 200 random steps, with the same settings adopted now and then."""
    clock, rng, moments = Clock(), random.Random(seed), random.Random(seed + 1)
    more = {"rng": random.Random(seed)} if make is not Hedge else {}
    policy = make(settings=settings, name="s3", clock=clock, wall_clock=wall_clock, **more)
    recorder = EventRecorder()
    policy.bus.subscribe(recorder)
    held: list[Any] = []
    told: list[object] = []
    for _ in range(200):
        clock.now += rng.choice([0.0, 0.01, 0.3, 0.7, 2.0])
        if adopts and moments.random() < 0.3:
            policy.adopt(type(settings).model_validate(settings.model_dump()))
        told += [step(policy, rng, clock, held), repr(policy)]
    return [*told, *recorder.events]


@pytest.mark.parametrize("make, settings, step", RUNS)
@pytest.mark.parametrize("seed", range(4))
def test_the_same_settings_change_nothing(
    make: Callable[..., Any], settings: Any, step: Callable[..., object], seed: int
) -> None:
    """A run in which the same settings are adopted at random moments equals a run without, event for event."""
    expected = told_by(make, settings, step, seed, adopts=False)
    assert told_by(make, settings, step, seed, adopts=True) == expected


@pytest.mark.parametrize(
    "policy",
    [
        CircuitBreaker(),
        Bulkhead(),
        RateLimit(RateLimitSettings()),
        Throttle(),
        CostLimit(CostSettings()),
        Hedge(),
    ],
)
def test_only_settings_of_its_kind_are_adopted(policy: Any) -> None:
    """What is no settings of the policy's is refused with a word about what is expected, and changes nothing."""
    before = policy.settings
    with pytest.raises(ConfigurationError, match=r"takes .*Settings"):
        policy.adopt({"mode": "shadow"})
    assert policy.settings is before


# -- the circuit breaker -----------------------------------------------------------------------------------------------


def breaker(clock: Clock, **settings: Any) -> tuple[CircuitBreaker, EventRecorder]:
    made = CircuitBreaker("s3", BreakerSettings(**settings), clock=clock, wall_clock=wall_clock, rng=random.Random(1))
    recorder = EventRecorder()
    made.bus.subscribe(recorder)
    return made, recorder


def call(made: CircuitBreaker, clock: Clock, *verdicts: Verdict) -> None:
    for verdict in verdicts:
        permit = made.acquire(clock.now)
        assert isinstance(permit, Permit)
        made.release(permit, verdict, clock.now)


def test_a_new_threshold_judges_what_has_happened() -> None:
    """Four failures in a row are no trouble under a threshold of nine; under one of five, the next one opens."""
    clock = Clock()
    made, _ = breaker(clock, failure_threshold=9)
    call(made, clock, *[FAILURE] * 4)
    made.adopt(BreakerSettings(failure_threshold=5))
    assert made.state is CLOSED
    call(made, clock, FAILURE)
    assert made.state is OPEN
    assert made.snapshot().evidence == "5 failures in a row"


def test_an_open_circuit_stays_open_for_as_long_as_it_said() -> None:
    """A refused caller was told when to come back; settings that change meanwhile do not make that a lie."""
    clock = Clock()
    made, _ = breaker(clock, failure_threshold=1, jitter=0.0)
    call(made, clock, FAILURE)
    made.adopt(BreakerSettings(timeout=5, failure_threshold=3))
    snapshot = made.snapshot()
    assert (snapshot.state, snapshot.retry_after, snapshot.trips) == (OPEN, 60.0, 1)
    clock.now += 60
    call(made, clock, SUCCESS, SUCCESS)
    assert made.state is CLOSED


def test_a_permit_from_before_still_has_its_vote_and_its_place() -> None:
    """A probe that left under the former settings counts under the new ones, and gives its place back once."""
    clock = Clock()
    made, _ = breaker(clock, failure_threshold=1, jitter=0.0, half_open_max_calls=2, success_threshold=3)
    call(made, clock, FAILURE)
    clock.now += 60
    first, second = made.acquire(clock.now), made.acquire(clock.now)
    assert isinstance(first, Permit)
    assert isinstance(second, Permit)
    made.adopt(BreakerSettings(half_open_max_calls=1, success_threshold=1))
    assert made.snapshot().probes == 2
    assert isinstance(made.acquire(clock.now), Refusal)
    for _ in range(2):
        made.release(first, SUCCESS, clock.now)
    assert made.state is CLOSED
    made.release(second, FAILURE, clock.now)
    snapshot = made.snapshot()
    assert (snapshot.state, snapshot.probes, snapshot.stale_results) == (CLOSED, 0, 1)


def test_more_probes_than_are_wanted_now_are_told_as_they_are() -> None:
    """Two probes have succeeded when one is enough: the next one closes, and the figures say three of three."""
    clock = Clock()
    made, recorder = breaker(clock, failure_threshold=1, jitter=0.0, success_threshold=4)
    call(made, clock, FAILURE)
    clock.now += 60
    call(made, clock, SUCCESS, SUCCESS)
    made.adopt(BreakerSettings(success_threshold=1))
    assert made.state is HALF_OPEN
    call(made, clock, SUCCESS)
    assert recorder.of(CircuitChanged)[-1].figures == "3 of 3 probes succeeded"


def test_the_window_survives_another_length() -> None:
    """Ten failures of twenty calls still count when the window becomes longer; a shorter one lets the old ones go."""
    clock = Clock()
    made, _ = breaker(clock, failure_threshold=None, minimum_calls=100)
    call(made, clock, *[SUCCESS, FAILURE] * 10)
    clock.now += 20
    call(made, clock, SUCCESS)
    made.adopt(BreakerSettings(failure_threshold=None, minimum_calls=100, window=300))
    assert (made.snapshot().calls, made.snapshot().failed) == (21, 10)
    clock.now += 100
    assert made.snapshot().calls == 21
    made.adopt(BreakerSettings(failure_threshold=None, minimum_calls=100, window=60))
    assert made.snapshot().calls == 0
    made.adopt(BreakerSettings(failure_threshold=None, minimum_calls=100, window=300))
    assert made.snapshot().calls == 0


@pytest.mark.parametrize(
    "before, after, tells",
    [
        ("enforce", "forced_open", [(CLOSED, FORCED_OPEN)]),
        ("forced_open", "enforce", [(FORCED_OPEN, CLOSED)]),
        ("disabled", "enforce", [(DISABLED, CLOSED)]),
        ("shadow", "disabled", [(CLOSED, DISABLED)]),
        ("disabled", "forced_open", [(DISABLED, FORCED_OPEN)]),
        ("enforce", "shadow", []),
    ],
)
def test_the_mode_takes_effect_at_once(before: Any, after: Any, tells: list[tuple[CircuitState, CircuitState]]) -> None:
    """Settings that ask for a state get it, and listeners hear of it."""
    clock = Clock()
    made, recorder = breaker(clock, mode=before)
    made.adopt(BreakerSettings(mode=after))
    changes = recorder.of(CircuitChanged)
    assert [(change.before, change.after) for change in changes] == tells
    assert {change.reason for change in changes} <= {"by_settings"}


def test_what_was_seen_while_disabled_counts_once_it_is_enabled() -> None:
    """Nine failures in a row did not open a disabled breaker; the tenth opens it when it is one no more."""
    clock = Clock()
    made, _ = breaker(clock, enabled=False)
    call(made, clock, *[FAILURE] * 9)
    made.adopt(BreakerSettings())
    assert made.state is CLOSED
    call(made, clock, FAILURE)
    assert made.state is OPEN


def test_what_was_opened_by_hand_stays_open_under_other_settings() -> None:
    """Settings that ask for the same as before do not overrule an operator."""
    clock = Clock()
    made, _ = breaker(clock)
    made.open()
    made.adopt(BreakerSettings(failure_threshold=9))
    assert made.state is FORCED_OPEN


def test_what_has_opened_itself_is_not_closed_by_settings_that_no_longer_force_it_open() -> None:
    """Closed by hand under settings that force it open, opened by failures: those are still true."""
    clock = Clock()
    made, _ = breaker(clock, mode="forced_open", failure_threshold=1)
    made.close()
    call(made, clock, FAILURE)
    made.adopt(BreakerSettings(failure_threshold=1))
    assert made.state is OPEN


# -- the bulkhead ------------------------------------------------------------------------------------------------------


def bulkhead(**settings: Any) -> tuple[Bulkhead, EventRecorder]:
    chosen = BulkheadSettings(**settings)
    made = Bulkhead(chosen, name="s3", clock=anyio.current_time, wall_clock=wall_clock, rng=random.Random(1))
    recorder = EventRecorder()
    made.bus.subscribe(recorder)
    return made, recorder


def placed(made: Bulkhead) -> Place:
    place = made.try_acquire()
    assert isinstance(place, Place)
    return place


class Crowd:
    """Tasks that want a place and keep it."""

    def __init__(self, made: Bulkhead, group: anyio.abc.TaskGroup) -> None:
        self.made = made
        self.group = group
        self.got: list[Place] = []
        self.refused: list[Reason] = []

    async def join(self, times: int, priority: Priority = Priority.DEFAULT) -> None:
        for _ in range(times):
            self.group.start_soon(self._live, priority)
            await settle()

    async def _live(self, priority: Priority) -> None:
        try:
            self.got.append(await self.made.acquire(priority=priority))
        except BulkheadFull as error:
            self.refused.append(error.reason)


@pytest.mark.anyio
async def test_nobody_is_thrown_out_under_a_lower_limit() -> None:
    """Four run when only two may: they run on, and the next enters when one is left, not before."""
    made, _ = bulkhead(max_concurrent=4)
    places = [placed(made) for _ in range(4)]
    made.adopt(BulkheadSettings(max_concurrent=2))
    assert (made.in_use, made.limit) == (4, 2)
    for place in places[:2]:
        place.leave()
        assert isinstance(made.try_acquire(), BulkheadRefusal)
    places[2].leave()
    placed(made)
    places[2].leave()
    assert made.in_use == 2


@pytest.mark.anyio
async def test_a_higher_limit_lets_in_those_who_wait() -> None:
    """Who waits gets the new places at once, in order, and no more than there are."""
    made, _ = bulkhead(max_concurrent=1, max_wait=1000)
    async with anyio.create_task_group() as group:
        crowd = Crowd(made, group)
        await crowd.join(5)
        assert len(crowd.got) == 1
        made.adopt(BulkheadSettings(max_concurrent=3, max_wait=1000))
        await settle()
        assert (len(crowd.got), made.waiting) == (3, 2)
        made.adopt(BulkheadSettings(mode="disabled"))
        await settle()
        assert (len(crowd.got), made.waiting) == (5, 0)
    for place in crowd.got:
        place.leave()
    assert made.in_use == 0


@pytest.mark.anyio
async def test_a_shorter_line_keeps_those_who_stand_in_it() -> None:
    """Three wait when only one may: they keep their places and their patience, and nobody joins them."""
    made, _ = bulkhead(max_concurrent=1, max_wait=10)
    async with anyio.create_task_group() as group:
        crowd = Crowd(made, group)
        await crowd.join(4)
        made.adopt(BulkheadSettings(max_concurrent=1, max_queue=1, max_wait=1))
        await crowd.join(1)
        assert (made.waiting, crowd.refused) == (3, [Reason.BULKHEAD_FULL])
        await anyio.sleep(9)
        assert made.waiting == 3
        await anyio.sleep(2)
    assert crowd.refused[1:] == [Reason.BULKHEAD_TIMEOUT] * 3


@pytest.mark.anyio
async def test_who_waits_runs_once_shadow_mode_begins() -> None:
    """In shadow mode nobody waits; those who did stand in the line as if, and are told of when their time is over."""
    made, recorder = bulkhead(max_concurrent=1, max_wait=10)
    async with anyio.create_task_group() as group:
        crowd = Crowd(made, group)
        await crowd.join(3)
        made.adopt(BulkheadSettings(max_concurrent=1, max_wait=10, mode="shadow"))
        await settle()
        assert (len(crowd.got), made.in_use, made.waiting, made.granted) == (3, 3, 2, 1)
        crowd.got[0].leave()
        assert (made.in_use, made.waiting, made.granted) == (2, 1, 1)
        await anyio.sleep(11)
        crowd.got[1].leave()
    assert [event.reason for event in recorder.of(CallWouldBeRejected)] == [Reason.BULKHEAD_TIMEOUT]
    crowd.got[2].leave()
    assert (made.in_use, made.granted, made.waiting) == (0, 0, 0)


@pytest.mark.anyio
async def test_who_is_sent_away_while_shadow_mode_begins_runs() -> None:
    """A critical caller takes the last place in the line just before shadow mode begins: both run."""
    made, recorder = bulkhead(max_concurrent=1, max_queue=1, max_wait=10)
    async with anyio.create_task_group() as group:
        crowd = Crowd(made, group)
        await crowd.join(2)
        made.adopt(BulkheadSettings(max_concurrent=1, max_queue=1, max_wait=10, mode="shadow"))
        crowd.got.append(await made.acquire(priority=Priority.CRITICAL))
        await settle()
        assert (len(crowd.got), made.in_use, made.waiting) == (3, 3, 1)
    assert [event.reason for event in recorder.of(CallWouldBeRejected)] == [Reason.SHED]
    for place in crowd.got:
        place.leave()
    assert made.in_use == 0


@pytest.mark.anyio
async def test_what_ran_in_shadow_mode_runs_on_and_keeps_nobody_waiting() -> None:
    """When the limit comes into force, those beyond it run on outside of it; each place is given back once."""
    made, recorder = bulkhead(max_concurrent=1, mode="shadow", max_queue=1)
    places = [placed(made) for _ in range(4)]
    made.adopt(BulkheadSettings(max_concurrent=1, max_queue=1))
    assert (made.in_use, made.granted, made.waiting) == (4, 1, 0)
    assert isinstance(made.try_acquire(), BulkheadRefusal)
    places[0].leave()
    newcomer = placed(made)
    for place in (*places, newcomer, *places):
        place.leave()
    assert (made.in_use, made.granted) == (0, 0)
    assert len(recorder.of(CallWouldBeRejected)) == 2  # those whom there was no line for


@pytest.mark.anyio
async def test_a_limit_that_adapts_goes_on_from_where_it_is() -> None:
    """New bounds and even another way of adapting keep what was found out; the bounds hold at once."""
    made, _ = bulkhead(adaptive="aimd", initial_limit=40)
    assert made.limit == 40
    made.adopt(BulkheadSettings(adaptive="aimd", initial_limit=20, max_limit=30))
    assert made.limit == 30
    made.adopt(BulkheadSettings(adaptive="vegas", initial_limit=10, max_limit=100))
    assert made.limit == 30
    made.adopt(BulkheadSettings(adaptive="vegas", min_limit=50, initial_limit=60, max_limit=100))
    assert made.limit == 50
    made.adopt(BulkheadSettings(max_concurrent=7))
    assert (made.limit, made.snapshot().adaptive) == (7, None)
    made.adopt(BulkheadSettings(adaptive="aimd", initial_limit=20))
    assert made.limit == 20


def test_whoever_waited_on_a_loop_that_is_gone_is_forgotten_when_shadow_mode_begins() -> None:
    """A loop that was closed with tasks in the line leaves nothing behind."""
    import asyncio

    made = Bulkhead(BulkheadSettings(max_concurrent=1, max_wait=1000), name="s3")
    first = placed(made)
    loop = asyncio.new_event_loop()
    task = loop.create_task(made.acquire())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert made.waiting == 1
    loop._ready.clear()  # type: ignore[attr-defined]
    loop.close()
    made.adopt(BulkheadSettings(max_concurrent=1, mode="shadow"))
    assert (made.waiting, made.in_use) == (0, 1)
    first.leave()
    assert made.in_use == 0
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def any_bulkhead(rng: random.Random) -> BulkheadSettings:
    return BulkheadSettings(
        max_concurrent=rng.choice([1, 2, 3, 6, None]),
        max_queue=rng.choice([0, 1, 4, 64]),
        max_wait=rng.choice([0.0, 0.5, 3.0, 50.0]),
        order=rng.choice(["fifo", "adaptive_lifo"]),
        adaptive=rng.choice(["off", "off", "aimd", "vegas"]),
        max_limit=4,
        initial_limit=2,
        mode=rng.choice(["enforce", "enforce", "enforce", "shadow", "disabled"]),
        enforced=rng.choice([1.0, 1.0, 0.5]),
    )


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(12))
async def test_each_place_is_given_and_taken_back_once(seed: int) -> None:
    """Whatever changes while a crowd comes, waits, gives up and leaves: nobody enters a full house, and all get out."""
    rng = random.Random(seed)
    made, _ = bulkhead(max_concurrent=2)
    running = 0

    async def visit() -> None:
        nonlocal running
        with anyio.move_on_after(rng.choice([0.2, 2.0, 100.0])):
            try:
                with await made.acquire(priority=rng.choice(list(Priority))):
                    running += 1
                    try:
                        await anyio.sleep(rng.random() * 4)
                    finally:
                        running -= 1
            except BulkheadFull:
                pass

    async with anyio.create_task_group() as group:
        for _ in range(120):
            full = made.granted >= made.limit
            before = made.granted
            group.start_soon(visit)
            await settle()
            assert made.in_use == running
            assert not full or made.granted <= before
            if rng.random() < 0.4:
                limit = made.limit
                made.adopt(any_bulkhead(rng))
                await settle()
                assert made.granted <= max(before, made.limit, limit)
                assert made.settings.mode == "shadow" or not made.waiting or made.granted >= made.limit
            await anyio.sleep(rng.random())
    assert (made.in_use, made.granted, made.waiting, running) == (0, 0, 0, 0)


# -- the rate limit ----------------------------------------------------------------------------------------------------


def rate(clock: Callable[[], float], **settings: Any) -> RateLimit:
    return RateLimit(RateLimitSettings(**settings), name="openai", clock=clock, wall_clock=wall_clock)


def taken(made: RateLimit, **needed: float) -> Reservation:
    reservation = made.try_acquire(**needed)
    assert isinstance(reservation, Reservation)
    return reservation


def left(made: RateLimit) -> dict[str, int]:
    return {window.name: window.remaining for window in made.snapshot().windows}


def test_what_is_used_stays_used_under_another_rate() -> None:
    """Forty of sixty requests are used: twenty are left, a hundred under 140, and none under thirty."""
    made = rate(Clock(), requests_per_minute=60)
    taken(made, requests=40)
    made.adopt(RateLimitSettings(requests_per_minute=140))
    assert left(made) == {"requests per minute": 100}
    made.adopt(RateLimitSettings(requests_per_minute=30))
    assert left(made) == {"requests per minute": 0}
    made.adopt(RateLimitSettings(requests_per_minute=60))
    assert left(made) == {"requests per minute": 20}


def test_reservations_from_before_settle_and_refund_exactly_once() -> None:
    """A reservation under the former rate gives back what it took, and what it used beyond that is charged."""
    made = rate(Clock(), requests_per_minute=60, tokens_per_minute=1000)
    first, second, third = (taken(made, requests=5, tokens=100) for _ in range(3))
    made.adopt(RateLimitSettings(requests_per_minute=120, tokens_per_minute=10_000))
    assert left(made) == {"requests per minute": 105, "tokens per minute": 9_700}
    for _ in range(2):
        first.refund()
        second.settle(tokens=40)
        third.settle(tokens=400)
    assert left(made) == {"requests per minute": 110, "tokens per minute": 9_560}


def test_a_window_that_is_gone_takes_its_reservations_along() -> None:
    """Windows come and go; each reservation gives back to the windows it took from, as far as they are there."""
    made = rate(Clock(), requests_per_minute=60, tokens_per_minute=1000)
    early = taken(made, requests=1, tokens=100)
    made.adopt(RateLimitSettings(requests_per_minute=60, tokens_per_day=10_000))
    assert left(made) == {"requests per minute": 59, "tokens per day": 9_900}
    early.settle(tokens=150)
    assert left(made) == {"requests per minute": 59, "tokens per day": 9_850}
    late = taken(made, requests=1, tokens=10)
    made.adopt(RateLimitSettings(tokens_per_day=10_000))
    late.refund()
    assert left(made) == {"tokens per day": 9_850}


def test_a_longer_window_begins_with_what_the_shorter_ones_know() -> None:
    """Thirty requests of this second are also requests of this minute; those of a day say nothing about a minute."""
    made = rate(Clock(), requests_per_second=30, tokens_per_day=1000)
    taken(made, requests=30, tokens=400)
    made.adopt(RateLimitSettings(requests_per_second=30, requests_per_minute=100, tokens_per_minute=500))
    assert left(made) == {"requests per second": 0, "requests per minute": 70, "tokens per minute": 500}


def test_settings_that_cannot_be_counted_with_change_nothing() -> None:
    """A refused change leaves every window as it was."""
    made = rate(Clock(), requests_per_minute=60, requests_per_day=1000)
    taken(made, requests=10)
    with pytest.raises(ConfigurationError, match="requests_per_day"):
        made.adopt(RateLimitSettings(requests_per_minute=600, requests_per_day=1e-320))
    assert left(made) == {"requests per minute": 50, "requests per day": 990}


@pytest.mark.parametrize(
    "settings, fast",
    [
        ({"requests_per_minute": 60}, True),
        ({"requests_per_minute": 60, "enforced": 0.5}, True),
        ({"requests_per_minute": 60, "mode": "shadow"}, False),
        ({"requests_per_minute": 60, "tokens_per_minute": 60}, False),
    ],
)
def test_the_quick_way_is_there_where_it_holds(settings: dict[str, Any], fast: bool) -> None:
    """The quick way is offered and withdrawn as for a new limit, and it is the very window that was there before."""
    made = rate(Clock(), requests_per_minute=100)
    before = made.fast
    made.adopt(RateLimitSettings(**settings))
    assert (made.fast is before) is fast


def test_what_headers_took_away_stays_taken_and_is_given_back_as_before() -> None:
    """The provider saw ten of sixty left. Under a rate of 600 fifty are still gone, until answers agree otherwise."""
    clock = Clock()
    made = rate(clock, requests_per_minute=60)

    def said(remaining: int) -> None:
        clock.now += 0.001
        headers = {"x-ratelimit-remaining-requests": str(remaining), "x-ratelimit-reset-requests": "60s"}
        made.follow(headers, sent=clock.now)

    said(10)
    said(40)
    said(40)
    made.adopt(RateLimitSettings(requests_per_minute=600))
    assert left(made) == {"requests per minute": 550}
    said(600)
    assert left(made) == {"requests per minute": 580}


@pytest.mark.anyio
async def test_who_waits_is_planned_anew() -> None:
    """Two wait a minute each for their turn: under ten times the rate it takes six seconds each, in the same order."""
    made = rate(anyio.current_time, requests_per_minute=1, max_wait=1000)
    began, got = anyio.current_time(), list[tuple[str, float]]()

    async def want(name: str) -> None:
        await made.acquire()
        got.append((name, round(anyio.current_time() - began, 3)))

    async with anyio.create_task_group() as group:
        for name in ("first", "second", "third"):
            group.start_soon(want, name)
            await settle()
        made.adopt(RateLimitSettings(requests_per_minute=10, burst=1, max_wait=1000))
    assert got == [("first", 0.0), ("second", 6.0), ("third", 12.0)]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["shadow", "disabled"])
async def test_who_waits_goes_on_when_nobody_has_to_wait_any_more(mode: Any) -> None:
    """In shadow mode, and where the limit is switched off, the whole line goes on at once."""
    made = rate(anyio.current_time, requests_per_minute=1, max_wait=100)
    recorder = EventRecorder()
    made.bus.subscribe(recorder)
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(made.acquire)
            await settle()
        assert made.waiting == 1
        made.adopt(RateLimitSettings(requests_per_minute=1, max_wait=10, mode=mode))
    assert anyio.current_time() == began
    assert made.waiting == 0
    assert len(recorder.of(CallWouldBeRejected)) == (mode == "shadow")


@pytest.mark.anyio
@pytest.mark.parametrize("oversized", ["refuse", "clamp"])
async def test_who_waits_for_more_than_now_ever_fits(oversized: Any) -> None:
    """It is refused as a newcomer would be, or gets what fits, as a newcomer would."""
    made = rate(anyio.current_time, tokens_per_minute=1000, max_wait=1000, oversized=oversized)
    taken(made, tokens=1000)
    refused: list[Reason] = []

    async def want() -> None:
        try:
            reservation = await made.acquire(tokens=900)
            assert reservation.tokens == 100
        except RateLimited as error:
            refused.append(error.reason)

    async with anyio.create_task_group() as group:
        group.start_soon(want)
        await settle()
        made.adopt(RateLimitSettings(tokens_per_minute=100, max_wait=1000, oversized=oversized))
    assert refused == ([Reason.RATE_OVERSIZED] if oversized == "refuse" else [])
    assert made.waiting == 0


@pytest.mark.anyio
async def test_newcomers_are_told_of_what_those_before_them_wait_for_now() -> None:
    """Who waited for 900 tokens waits for 100 when no more fit, and the next one is told so."""
    made = rate(anyio.current_time, tokens_per_minute=1000, max_wait=1e4, oversized="clamp")
    taken(made, tokens=1000)

    async def want() -> None:
        await made.acquire(tokens=900)

    async with anyio.create_task_group() as group:
        group.start_soon(want)
        await settle()
        made.adopt(RateLimitSettings(tokens_per_minute=100, max_wait=1e4, oversized="clamp"))
        refusal = made.at_once(tokens=100)
        group.cancel_scope.cancel()
    assert isinstance(refusal, RateRefusal)
    assert refusal.retry_after == pytest.approx(600 + 2 * 60 - 60)


@pytest.mark.anyio
async def test_who_waited_alone_takes_its_turn_when_shadow_mode_begins() -> None:
    """It would have waited for a minute, which is allowed: so what it takes is counted, and nothing twice."""
    made = rate(anyio.current_time, requests_per_minute=1, max_wait=100)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(made.acquire)
            await settle()
        made.adopt(RateLimitSettings(requests_per_minute=1, max_wait=100, mode="shadow"))
    assert made.snapshot().windows[0].full_in == pytest.approx(120)


@pytest.mark.anyio
async def test_requests_that_are_cut_to_what_fits_are_counted_so() -> None:
    """Five requests are two where only two fit at once: the next one waits for those two and its own."""
    made = rate(anyio.current_time, requests_per_minute=60, max_wait=1e4, oversized="clamp")
    taken(made, requests=60)
    async with anyio.create_task_group() as group:

        async def want() -> None:
            await made.acquire(requests=5)

        group.start_soon(want)
        await settle()
        made.adopt(RateLimitSettings(requests_per_minute=60, burst=2, max_wait=1e4, oversized="clamp"))
        refusal = made.at_once(requests=1)
        group.cancel_scope.cancel()
    assert isinstance(refusal, RateRefusal)
    assert refusal.retry_after == pytest.approx(60 + 3 - 2)


@pytest.mark.anyio
async def test_nobody_jumps_the_line_through_a_window_that_is_new() -> None:
    """While somebody waits, a window that was added is closed for those in a hurry, too."""
    made = rate(anyio.current_time, requests_per_minute=1, max_wait=1000)
    taken(made)
    async with anyio.create_task_group() as group:
        group.start_soon(made.acquire)
        await settle()
        made.adopt(RateLimitSettings(requests_per_second=0.02, max_wait=1000))
        assert made.fast is not None
        assert made.fast.tolerance < 0
        assert isinstance(made.try_acquire(), RateRefusal)
        await settle()


def any_rate(rng: random.Random) -> RateLimitSettings:
    return RateLimitSettings(
        requests_per_second=rng.choice([None, None, 0.5, 4]),
        requests_per_minute=rng.choice([None, 3, 60]),
        tokens_per_minute=rng.choice([None, 100, 1000]),
        burst=rng.choice([None, 1, 5]),
        oversized=rng.choice(["refuse", "clamp"]),
        max_wait=rng.choice([0.0, 20.0, 200.0]),
        max_queue=rng.choice([1, 5, 1000]),
        mode=rng.choice(["enforce", "enforce", "enforce", "shadow", "disabled"]),
        enforced=rng.choice([1.0, 1.0, 0.5]),
    )


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(12))
async def test_nobody_is_lost_in_a_line_whose_limit_changes(seed: int) -> None:
    """Whatever changes while callers come, wait and give up: each is served or refused within its patience."""
    rng = random.Random(seed)
    made = RateLimit(any_rate(rng), clock=anyio.current_time, wall_clock=wall_clock, rng=random.Random(seed))
    over = 0

    async def want() -> None:
        nonlocal over
        began, patience = anyio.current_time(), rng.choice([0.0, 5.0, 100.0])
        with anyio.move_on_after(rng.choice([3.0, 300.0])):
            try:
                reservation = await made.acquire(tokens=rng.choice([1, 30, 200]), max_wait=patience)
                await anyio.sleep(rng.random())
                reservation.settle(tokens=rng.choice([0, 10, 300]))
                assert anyio.current_time() - began <= patience + 1.001
            except RateLimited:
                assert anyio.current_time() - began <= patience + 0.001
        over += 1

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(want)
            if rng.random() < 0.4:
                made.adopt(any_rate(rng))
            await anyio.sleep(rng.random() * 2)
    assert (over, made.waiting) == (100, 0)
    made.adopt(RateLimitSettings(requests_per_second=1, burst=1))
    await anyio.sleep(100)
    assert made.fast is not None
    assert made.fast.tolerance > 0


# -- throttle, cost, hedge ---------------------------------------------------------------------------------------------


def test_a_throttle_decides_by_new_figures_about_the_same_calls() -> None:
    """Known calls are judged by a new ratio at once; switched off it lets everybody through, and on again it knows."""
    clock = Clock()
    made = Throttle(ThrottleSettings(enabled=True, ratio=10), clock=clock, rng=random.Random(1))
    made.record(True, 20)
    made.record(False, 79)
    assert not made.active
    made.adopt(ThrottleSettings(enabled=True, ratio=2))
    assert made.active
    assert made.snapshot().share["default"] == pytest.approx(0.59)
    made.adopt(ThrottleSettings(enabled=False))
    assert not made.active
    made.adopt(ThrottleSettings(enabled=True, max_reject=0.5, window=600, minimum_calls=90))
    assert made.snapshot().share["default"] == 0.5
    made.adopt(ThrottleSettings(enabled=True, minimum_calls=100))
    assert not made.active
    clock.now += 119
    assert made.snapshot().calls == 0
    made.adopt(ThrottleSettings(enabled=True, window=600))
    made.record(False, 10)
    assert made.snapshot().calls == 10


def spending(made: CostLimit, amount: float) -> Spending:
    answer = made.try_reserve(amount)
    assert isinstance(answer, Spending)
    return answer


def test_what_is_spent_stays_spent() -> None:
    """Eight of ten are spent: two are left, none of five, and what is refunded under a new limit is there again."""
    clock = Clock()
    made = CostLimit(CostSettings(limit=10, window=60), clock=clock)
    spending(made, 6)
    open_ = spending(made, 2)
    made.adopt(CostSettings(limit=5, window=60))
    refusal = made.try_reserve(0.5)
    assert isinstance(refusal, CostRefusal)
    assert (refusal.used, refusal.limit) == (8, 5)
    made.adopt(CostSettings(limit=10, window=3600))
    for _ in range(2):
        open_.refund()
    assert made.snapshot().used == 6
    clock.now += 120  # longer than the former window
    assert made.snapshot().used == 6
    made.adopt(CostSettings(limit=10, window=60))
    assert made.snapshot().used == 0


def test_a_reservation_outlives_any_number_of_windows() -> None:
    """What turns out dearer is charged, what turns out cheaper is given back, through several changes."""
    made = CostLimit(CostSettings(limit=10, window=60), clock=Clock())
    cheap, dear = spending(made, 4), spending(made, 1)
    for window in (120, 30, 86_400):
        made.adopt(CostSettings(limit=10, window=window))
    cheap.settle(1)
    dear.settle(3)
    assert made.snapshot().used == 4


def test_without_a_limit_nothing_is_known() -> None:
    """A limit that is taken away forgets; what was reserved under it settles without harm."""
    made = CostLimit(CostSettings(limit=10), clock=Clock())
    early = spending(made, 10)
    made.adopt(CostSettings())
    spending(made, 100)
    made.adopt(CostSettings(limit=10))
    early.settle(20)
    assert made.snapshot().used == 0
    spending(made, 10)


def test_a_hedge_keeps_its_latencies_and_its_bill() -> None:
    """Latencies and what was paid are known under new settings; another share asks for another quantile of them."""
    clock = Clock()
    made = Hedge(HedgeSettings(enabled=True, max_extra_load=0.1, warm_up=10), clock=clock)
    for tenth in range(1, 101):
        made.begin(clock.now)
        made.record(clock.now, tenth / 10)
    charges = [made.charge(clock.now, 60.0) for _ in range(10)]
    assert None not in charges
    assert made.charge(clock.now, 60.0) is None
    made.adopt(HedgeSettings(enabled=True, max_extra_load=0.2, warm_up=10, latency_window=600))
    assert made.delay(clock.now) == pytest.approx(8.0, rel=0.03)
    assert made.snapshot().available == 10
    charge = charges[0]
    assert charge is not None
    made.refund(charge, clock.now)
    assert made.snapshot().available == 11
    clock.now += 200
    assert made.snapshot().latencies == 100
    made.adopt(HedgeSettings(enabled=False))
    assert made.delay(clock.now) is None
    assert (made.snapshot().latencies, made.calls) == (0, 100)
