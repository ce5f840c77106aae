"""A provider's call that is hedged: each attempt has its own permit and limit, and together they are one call."""

from __future__ import annotations

import gc
import logging
import math
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience import (
    BreakerSettings,
    BudgetSettings,
    CircuitOpen,
    CircuitState,
    ProviderError,
    ResilientProvider,
    TimeoutSettings,
    failure_of,
    guard,
)
from resilience.classify import classify
from resilience.context import idempotency_key
from resilience.errors import CallTimeout, UnacceptableResult
from resilience.events import (
    AttemptFailed,
    CallFailed,
    CallRecovered,
    CallWasRejected,
    HedgeLaunched,
    HedgeWon,
    RetryScheduled,
)
from resilience.hedging import hedge_for
from resilience.settings import BulkheadSettings, HedgeSettings, RateLimitSettings
from resilience.testing import cancelled_everywhere, run
from resilience.testing.endings import watched

pytestmark = pytest.mark.anyio

# After a second the next attempt starts, and every other call may have one.
HEDGE = HedgeSettings(enabled=True, max_extra_load=0.5, min_delay=1.0, max_delay=1.0, warm_up=1)
# One float of refill in a thousand years: what is missing at the end was charged and not refunded.
BUDGET = BudgetSettings(ratio=0, floor_per_second=1e-9, floor_burst=50)
BREAKER = BreakerSettings(jitter=0, minimum_calls=1000)


class Work:
    """
    An async function whose n-th call takes so many seconds and then returns or raises; *deaf*: whatever happens.

    *suspended* is told of each of its suspensions.
    """

    def __init__(self, *steps: tuple[float, Any], deaf: bool = False) -> None:
        self.steps = steps
        self.deaf = deaf
        self.suspended: Callable[[], None] = lambda: None
        self.began: list[float] = []
        self.keys: list[str | None] = []
        self.returned: list[Any] = []
        self.cancelled: list[int] = []
        self.running = 0

    async def __call__(self) -> Any:
        return await watched(self.work(), self.suspended)

    async def work(self) -> Any:
        number = len(self.began)
        self.began.append(anyio.current_time())
        self.keys.append(idempotency_key())
        seconds, result = self.steps[number]
        self.running += 1
        try:
            with anyio.CancelScope(shield=self.deaf):
                await anyio.lowlevel.checkpoint()
                await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(number)
            raise
        finally:
            self.running -= 1
        if isinstance(result, BaseException):
            try:
                raise result
            finally:
                del result  # it holds this frame
        self.returned.append(result)
        return result

    @property
    def calls(self) -> int:
        return len(self.began)


class Resource:
    """A result that has to be closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1
        await anyio.lowlevel.checkpoint()


class Scene:
    """A provider whose calls are hedged after one second."""

    def __init__(self, world: Any, *, options: dict[str, Any] | None = None, **settings: Any) -> None:
        given = {"budget": BUDGET, "breaker": BREAKER, "hedge": HEDGE, **settings}
        self.world = world
        self.registry = world.registry(**given)
        self.provider: ResilientProvider = self.registry.provider("s3")
        self.view = self.provider.with_options(idempotent=True, **(options or {}))
        self.runtime = self.registry.runtime("s3")
        self.hedge = hedge_for(self.runtime, self.view._plan())
        for _ in range(20):
            self.hedge.begin(anyio.current_time())
            self.hedge.record(anyio.current_time(), 1.0)

    async def execute(self, func: Callable[[], Awaitable[Any]]) -> Any:
        return await self.view.execute(func)

    async def half_open(self) -> Scene:
        await self.world.trip(self.provider)
        await anyio.sleep(61)
        return self

    @property
    def available(self) -> tuple[float, float]:
        now = anyio.current_time()
        return self.hedge.snapshot().available, self.runtime.common.retries_available(now)

    @property
    def held(self) -> list[object]:
        """Everything that a call still holds."""
        found: list[object] = [f"deadline of {task}" for task in guard._outer]
        found += [f"entry {key}" for lane in self.runtime.lanes.values() for key in (*lane.live, *lane._late)]
        found += [f"probe's task {task}" for task in self.runtime.probing]
        found += [f"waiting {one}" for one in self.runtime.waiting]
        found += [f"{count} probes" for count in [self.provider.breaker.snapshot().probes] if count]
        found += [f"{count} in flight" for count in [self.runtime.in_flight] if count]
        if self.runtime.limits is not None and (places := self.runtime.limits.bulkhead) is not None:
            found += [f"{count} places" for count in [places.snapshot().in_use] if count]
        return found


# -- two attempts, one call --------------------------------------------------------------------------------------------


async def test_the_second_answers_for_a_slow_first(world: Any) -> None:
    """It is one call with one success; the loser is no evidence, and everything is given back."""
    scene, work = Scene(world), Work((60, "first"), (0.5, "second"))
    began = anyio.current_time()
    assert await scene.execute(work) == "second"
    assert anyio.current_time() - began == pytest.approx(1.5)
    figures = scene.provider.snapshot()
    assert (figures.calls, figures.recovered, figures.breaker.failed, scene.runtime.successes) == (1, 0, 0, 1)
    assert (work.cancelled, work.running, scene.held) == ([0], 0, [])
    assert [event.delay for event in world.heard(HedgeLaunched)] == pytest.approx([1.0])
    assert [event.duration for event in world.heard(HedgeWon)] == pytest.approx([1.5])
    assert (world.heard(CallRecovered), world.heard(CallFailed), world.heard(RetryScheduled)) == ([], [], [])


async def test_the_first_may_still_win(world: Any) -> None:
    """The second is cancelled, and nobody counts it."""
    scene, work = Scene(world), Work((1.25, "first"), (60, "second"))
    assert await scene.execute(work) == "first"
    assert (work.cancelled, scene.runtime.successes, scene.held) == ([1], 1, [])
    assert (scene.hedge.launched, scene.hedge.won) == (1, 0)


async def test_one_charge_for_each_second_attempt(world: Any) -> None:
    """It is paid for in the hedge's budget and in the provider's retry budget, once in each."""
    scene = Scene(world)
    hedges, retries = scene.available
    assert await scene.execute(Work((60, "first"), (0.5, "second"))) == "second"
    assert await scene.execute(Work((0.5, "first"))) == "first"  # two calls more pay for one
    assert scene.available == (hedges, retries - 1)


async def test_each_attempt_has_its_own_limit(world: Any) -> None:
    """Both run into the attempt timeout, each counted from its own start; the first one's error comes out."""
    scene = Scene(world, timeout=TimeoutSettings(attempt=5, total=20))
    work = Work((60, "first"), (60, "second"))
    began = anyio.current_time()
    with pytest.raises(CallTimeout, match="attempt timed out after 5 s") as raised:
        await scene.execute(work)
    assert anyio.current_time() - began == pytest.approx(6)
    (note,) = raised.value.__notes__
    assert note.startswith("resilience: s3: gave up after 2 attempts (timeout; hedged); ")
    assert note.endswith("the second attempt failed, too (timeout: CallTimeout)")
    assert (scene.provider.snapshot().timeouts, scene.provider.breaker.snapshot().failures_in_a_row) == (2, 2)
    assert [(event.attempt, event.failure.kind) for event in world.heard(AttemptFailed)] == [
        (1, "timeout"),
        (2, "timeout"),
    ]
    assert scene.held == []


async def test_the_total_limit_holds_for_both(world: Any) -> None:
    """The second attempt ends with the call, not a full attempt later."""
    scene = Scene(world, timeout=TimeoutSettings(attempt=5, total=5.5))
    began = anyio.current_time()
    with pytest.raises(CallTimeout):
        await scene.execute(Work((60, "first"), (60, "second")))
    assert anyio.current_time() - began == pytest.approx(5.5)


async def test_one_key_for_both(world: Any) -> None:
    """Both attempts carry the same idempotency key, so that the other side can tell."""
    scene, work = Scene(world, options={"idempotency_key": True}), Work((60, "first"), (0.5, "second"))
    await scene.execute(work)
    assert work.keys[0] is not None
    assert work.keys[0] == work.keys[1]


async def test_both_answer_in_one_tick(world: Any) -> None:
    """One result comes out and stays open, the other one is closed, and both permits are back."""
    for deaf in (False, True):
        scene, work = Scene(world), Work((1.5, Resource()), (0.5, Resource()), deaf=deaf)
        winner = await scene.execute(work)
        assert all(one.closed == (one is not winner) for one in work.returned)
        assert scene.held == []


async def test_an_answer_in_the_tick_of_the_second_start(world: Any, anyio_backend: Any) -> None:
    """A first attempt that ends just when the second would start needs none."""
    scene = Scene(world)
    await scene.view.execute(anyio.sleep, 1.0)
    if anyio_backend[0] == "asyncio":  # where the order within a tick is known
        assert scene.hedge.launched == 0
    assert scene.held == []


async def test_a_loser_that_answers_all_the_same_is_closed(world: Any) -> None:
    """Its result is closed, and it is a success of the provider like any other."""
    scene, work = Scene(world), Work((3.0, Resource()), (0.5, Resource()), deaf=True)
    winner = await scene.execute(work)
    assert [one is winner for one in work.returned] == [True, False]
    assert [one.closed for one in work.returned] == [0, 1]
    assert (scene.runtime.successes, scene.held) == (2, [])


async def test_calls_of_the_provider_inside_its_hedged_call(world: Any) -> None:
    """Inner calls are calls like any other, beside both attempts."""
    scene, work = Scene(world), Work((60, "first"), (0.5, "second"))
    assert await scene.execute(lambda: scene.provider.execute(work)) == "second"
    assert await scene.execute(lambda: scene.execute(Work((0.5, "inner")))) == "inner"
    assert scene.held == []


async def test_what_is_learnt_and_paid_for_stays_together(world: Any) -> None:
    """Views of one operation share its latencies and its budget; an operation with settings of its own has its own."""
    registry = world.registry(hedge=HEDGE, operations={"list": {"idempotent": True}})
    runtime, provider = registry.runtime("s3"), registry.provider("s3").with_options(idempotent=True)

    def found(**options: Any) -> object:
        return hedge_for(runtime, provider.with_options(**options)._plan())

    assert found() is found(attempt_timeout=3) is found(operation="made up")
    assert found(operation="list") is found(operation="list", timeout=9)
    assert found(operation="list") is not found()
    assert found() is not hedge_for(registry.runtime("s3", "eu"), provider._plan())


@pytest.mark.parametrize(
    "steps, known",
    [
        pytest.param([(0.5, "first")], 0.5, id="a success"),
        pytest.param([(60, "first"), (4.0, "second")], 5.0, id="the time that a superseded first had taken"),
        pytest.param([(20, "first"), (60, "second")], 10.0, id="a timeout, and nothing of a second beside it"),
        pytest.param([(1.5, "first"), (4.0, "second")], 1.5, id="nothing of a superseded second"),
        pytest.param([(0.1, OSError()), (0.5, "second")], 0.5, id="no quick failure, and a second that was alone"),
        pytest.param([(1.5, OSError()), (1.0, "second")], None, id="no second that was not alone"),
    ],
)
async def test_what_is_learnt(world: Any, steps: list[tuple[float, Any]], known: float | None) -> None:
    """What would drag the quantile down, or is only seen when it is quick, is left out."""
    scene = Scene(world, timeout=TimeoutSettings(attempt=10))
    scene.hedge._latencies = type(scene.hedge._latencies)(60.0)
    scene.hedge.record(anyio.current_time(), 50.0)
    with suppress(CallTimeout):
        await scene.execute(Work(*steps))
    now, more = anyio.current_time(), known is not None
    assert scene.hedge.snapshot().latencies == 1 + more
    assert scene.hedge._latencies.quantile(now, 0.0) == pytest.approx(known or 50.0, rel=0.021)


# -- when there is no second -------------------------------------------------------------------------------------------


async def test_not_while_the_circuit_is_half_open(world: Any) -> None:
    """A probe is alone."""
    scene = await Scene(world).half_open()
    work = Work((60, "first"), (0.5, "second"))
    with suppress(CallTimeout):
        await scene.execute(work)
    assert (work.calls, scene.hedge.launched, scene.held) == (1, 0, [])


async def test_not_while_an_open_circuit_only_watches(world: Any) -> None:
    """In shadow mode the circuit lets calls through, but a sick provider gets nothing twice."""
    scene = Scene(world, breaker=BreakerSettings(mode="shadow", minimum_calls=1000))
    await world.trip(scene.provider)
    work = Work((20, "first"), (0.5, "second"))
    assert await scene.execute(work) == "first"
    assert work.calls == 1


async def test_not_while_the_gate_is_closed(world: Any) -> None:
    """A provider that has asked for a pause meanwhile gets no second request, and nothing is paid."""
    scene, work = Scene(world), Work((3, "first"), (0.5, "second"))
    before = scene.available

    async def ask_for_a_pause() -> None:
        await anyio.sleep(0.5)
        scene.runtime.obey(classify(world.HttpError(429, {"retry-after": "2"})), anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(ask_for_a_pause)
        assert await scene.execute(work) == "first"
    assert work.calls == 1
    assert scene.available == before


@pytest.mark.parametrize(
    "limit",
    [
        {"bulkhead": BulkheadSettings(max_concurrent=1)},
        {"bulkhead": BulkheadSettings(max_concurrent=1, max_queue=0)},
        {"rate_limit": RateLimitSettings(requests_per_minute=1)},
        {"rate_limit": RateLimitSettings(requests_per_minute=1), "budget": BudgetSettings(enabled=False)},
    ],
)
async def test_not_where_it_would_have_to_wait_or_be_refused(world: Any, limit: dict[str, Any]) -> None:
    """A limit that has no room leaves the call its first attempt; nobody is told of a refusal, and nothing is paid."""
    scene = Scene(world, refusals=True, **limit)
    before, work = scene.available, Work((3, "first"), (0.5, "second"))
    assert await scene.execute(work) == "first"
    assert work.calls == 1
    assert (scene.available, scene.held) == (before, [])
    assert (scene.provider.snapshot().rejected, world.heard(CallWasRejected)) == (0, [])


async def test_not_when_the_retry_budget_is_spent(world: Any) -> None:
    """To the provider a second attempt is one more request, so the budget of these holds, too."""
    scene = Scene(world, budget=BudgetSettings(ratio=0, floor_per_second=0))
    before, work = scene.available, Work((3, "first"), (0.5, "second"))
    assert await scene.execute(work) == "first"
    assert (work.calls, scene.available) == (1, before)
    without = Scene(world, budget=BudgetSettings(enabled=False))
    assert await without.execute(Work((3, "first"), (0.5, "second"))) == "second"


async def test_not_when_it_could_hardly_be_over_in_time(world: Any) -> None:
    """With less than the usual time left until anybody's deadline there is no second attempt."""
    for limits, cancels in (({"timeout": 1.9}, None), ({}, 1.9)):
        scene = Scene(world, options=limits)
        work = Work((60, "first"), (0.5, "second"))
        with anyio.move_on_after(cancels), suppress(CallTimeout):
            await scene.execute(work)
        assert (work.calls, scene.held) == (1, [])


async def test_a_refused_call_is_refused(world: Any) -> None:
    """An open circuit refuses a hedged call as any other, and it does not count as one for the budget."""
    scene = Scene(world)
    await world.trip(scene.provider)
    calls = scene.hedge.calls
    with pytest.raises(CircuitOpen):
        await scene.execute(Work((0.5, "first")))
    assert scene.hedge.calls == calls


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_first_that_fails_early_gets_its_second_at_once(world: Any) -> None:
    """A failure that may be tried again is, without a pause; the call has recovered and was not retried."""
    scene, work = Scene(world), Work((0.25, ConnectionResetError()), (0.5, "second"))
    began = anyio.current_time()
    assert await scene.execute(work) == "second"
    assert anyio.current_time() - began == pytest.approx(0.75)
    figures = scene.provider.snapshot()
    assert (figures.calls, figures.retries, figures.recovered, figures.exhausted) == (1, 0, 1, 0)
    assert [event.attempts for event in world.heard(CallRecovered)] == [2]
    assert (world.heard(CallFailed), len(world.heard(HedgeWon)), scene.held) == ([], 1, [])


async def test_also_before_anything_is_known(world: Any) -> None:
    """During warm-up a failed first attempt gets its second all the same, as far as the budget goes."""
    scene = Scene(world)
    scene.hedge._latencies = type(scene.hedge._latencies)(60.0)
    assert await scene.execute(Work((0.25, ConnectionResetError()), (0.5, "second"))) == "second"


async def test_a_first_that_fails_for_good_is_the_end(world: Any) -> None:
    """What would be the same again comes out at once, and ends a second that runs already."""
    for steps, cancelled in ((((0.25, ValueError("mine")),), []), (((1.5, ValueError("mine")), (60, "b")), [1])):
        scene, work = Scene(world), Work(*steps)
        with pytest.raises(ValueError, match="mine"):
            await scene.execute(work)
        assert (work.cancelled, work.running, scene.held) == (cancelled, 0, [])
    assert {event.reason for event in world.heard(CallFailed)} == {"not_retryable"}


async def test_a_refusal_with_a_hint_is_obeyed(world: Any) -> None:
    """A provider that asked for a pause is not asked again at once, with the gate or without it."""
    for gate in ({}, {"enabled": False}):
        scene, work = Scene(world, gate=gate), Work((0.25, world.HttpError(429, {"retry-after": "3"})))
        before = scene.available
        with pytest.raises(world.HttpError) as raised:
            await scene.execute(work)
        assert raised.value.__notes__ == ["resilience: s3: gave up after 1 attempt (rate_limit; hedged)"]
        assert (work.calls, scene.available) == (1, before)


@pytest.mark.parametrize("seconds", [(1.5, 60), (5.0, 2.0), (0.5, 0.5)])
async def test_when_both_fail_the_first_error_comes_out(world: Any, seconds: tuple[float, float]) -> None:
    """It is the provider's own error, in no group, and it tells of two attempts; one call has failed."""
    scene, first = Scene(world, timeout=TimeoutSettings(attempt=10)), ConnectionResetError("one")
    second = world.HttpError(503, {})
    with pytest.raises(ConnectionResetError) as raised:
        await scene.execute(Work((seconds[0], first), (seconds[1], second)))
    assert raised.value is first
    failure = failure_of(first)
    assert failure is not None
    assert failure.attempts == 2
    assert first.__notes__[0].startswith("resilience: s3: gave up after 2 attempts (connection_error; hedged); ")
    (failed,) = world.heard(CallFailed)
    assert (failed.attempts, failed.reason, failed.error) == (2, "hedged", first)
    assert (scene.provider.snapshot().exhausted, world.heard(CallRecovered), scene.held) == (1, [], [])


async def test_one_error_for_both(world: Any) -> None:
    """A stored error that both attempts raise comes out as it is, with one note."""
    error = ConnectionResetError()
    with pytest.raises(ConnectionResetError) as raised:
        await Scene(world).execute(Work((0.5, error), (0.5, error)))
    assert raised.value is error
    assert error.__notes__ == ["resilience: s3: gave up after 2 attempts (connection_error; hedged)"]


@pytest.mark.parametrize("steps", [((2.0, "good"), (0.5, OSError())), ((1.5, OSError()), (2.0, "good"))])
async def test_one_failure_leaves_it_to_the_other(world: Any, steps: tuple[tuple[float, Any], ...]) -> None:
    """Whichever fails, the other one's result is the call's."""
    scene, work = Scene(world), Work(*steps)
    assert await scene.execute(work) == "good"
    assert (work.cancelled, world.heard(CallFailed), scene.held) == ([], [], [])


async def test_standard_errors(world: Any) -> None:
    """Where every provider's errors are of one type, so are those of hedged calls."""
    for steps, attempts in ((((0.5, OSError()), (0.5, OSError())), 2), (((0.5, world.HttpError(404, {})),), 1)):
        scene = Scene(world, errors="standard")
        with pytest.raises(ProviderError) as raised:
            await scene.execute(Work(*steps))
        assert raised.value.__cause__ is steps[0][1]
        assert raised.value.failure.attempts == attempts


async def test_an_error_that_was_hedged_inside_is_not_hedged_again(world: Any) -> None:
    """An inner hedged call has spent what there was: two attempts, not four."""
    scene = Scene(world)
    work = Work(*((0.25, ConnectionResetError()) for _ in range(4)))
    with pytest.raises(ConnectionResetError):
        await scene.execute(lambda: scene.execute(work))
    assert (work.calls, scene.held) == (2, [])


async def test_misuse_is_explained(world: Any) -> None:
    """What cannot be awaited is told as by any call."""
    with pytest.raises(TypeError, match="synchronous function"):
        await Scene(world).execute(lambda: 42)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("steps", [((1.5, SystemExit(3)), (60, "b")), ((60, "a"), (0.5, SystemExit(3)))])
async def test_an_exit_comes_out_as_itself(world: Any, steps: tuple[tuple[float, Any], ...]) -> None:
    """An exit in either attempt ends the other one and leaves in no group."""
    scene, work = Scene(world), Work(*steps)
    with pytest.raises(SystemExit):
        await scene.execute(work)
    assert (work.running, scene.held) == (0, [])


# -- results that are judged, and results that are held ----------------------------------------------------------------


def good(result: Resource) -> bool:
    return getattr(result, "good", False)


async def test_the_first_acceptable_result_wins(world: Any) -> None:
    """A result that is not good enough is a failure: the other attempt decides, and it is closed."""
    for seconds in ((0.5, 0.5), (1.5, 1.0), (3.0, 0.5)):
        scene = Scene(world, options={"accept": good})
        bad, better = Resource(), Resource()
        better.good = True  # type: ignore[attr-defined]
        slow_is_bad = seconds[0] < 3
        results = (bad, better) if slow_is_bad else (better, bad)
        work = Work(*zip(seconds, results, strict=True))
        assert await scene.execute(work) is better
        assert (bad.closed, better.closed, scene.held) == (1, 0, [])


async def test_when_no_result_is_acceptable(world: Any) -> None:
    """The first one comes out with the error, still open; the second is closed."""
    scene, work = Scene(world, options={"accept": good}), Work((0.5, Resource()), (0.5, Resource()))
    with pytest.raises(UnacceptableResult) as raised:
        await scene.execute(work)
    assert raised.value.result is work.returned[0]
    assert [one.closed for one in work.returned] in ([0, 0], [0, 1])
    assert scene.held == []


async def test_the_winner_can_be_held(world: Any) -> None:
    """The winner's permit stays until the hold ends; the loser's is back."""
    for steps in (((60, "a"), (0.5, "b")), ((1.5, "a"), (60, "b")), ((0.5, OSError()), (0.5, "b"))):
        scene = Scene(world)
        hold = await scene.view.hold(Work(*steps))
        assert (scene.runtime.in_flight, scene.runtime.successes) == (1, 0)
        hold.end()
        assert (scene.held, scene.runtime.successes) == ([], 1)


# -- cancellation ------------------------------------------------------------------------------------------------------


SITUATIONS: dict[str, tuple[tuple[float, Any], ...]] = {
    "alone": ((0.5, Resource),),
    "second wins": ((60, Resource), (0.5, Resource)),
    "first wins": ((1.5, Resource), (60, Resource)),
    "first fails early": ((0.5, ConnectionResetError), (0.5, Resource)),
    "first fails late": ((1.5, ConnectionResetError), (1.0, Resource)),
    "both answer at once": ((1.5, Resource), (0.5, Resource)),
    "both fail": ((1.5, ConnectionResetError), (1.5, ConnectionResetError)),
    "no room": ((2, Resource), (0.5, Resource)),
    "both time out": ((60, Resource), (60, Resource)),
}


@pytest.mark.parametrize("hold", [False, True], ids=["", "hold"])
@pytest.mark.parametrize("name", SITUATIONS)
async def test_a_call_ended_anywhere_gives_everything_back(name: str, hold: bool, world: Any) -> None:
    """No permit, task, entry, charge or open result is left, and the breaker took it for no evidence."""
    for ending in cancelled_everywhere():
        room = BulkheadSettings(max_concurrent=1 if name == "no room" else 2)
        scene = Scene(world, timeout=TimeoutSettings(attempt=5, total=20), bulkhead=room)
        work = Work(*((seconds, make()) for seconds, make in SITUATIONS[name]))
        _, retries = scene.available
        taken: list[Any] = []

        async def act(scene: Scene = scene, work: Work = work, taken: list[Any] = taken) -> None:
            with suppress(ConnectionResetError, CallTimeout):
                if hold:
                    held = await scene.view.hold(work)
                    taken.append(held.value)
                    held.end()
                else:
                    taken.append(await scene.execute(work))

        work.suspended = ending.suspended
        await ending(act)
        assert (scene.held, work.running) == ([], 0), ending
        second = max(0, work.calls - 1)
        paid = (math.floor(scene.hedge.calls / 2) - second, retries - second)
        assert (scene.available, scene.hedge.launched) == (paid, second), ending
        assert [one.closed for one in work.returned] == [one not in taken for one in work.returned], ending
        assert (scene.provider.breaker.state, scene.runtime.held) == (CircuitState.CLOSED, {}), ending
        assert scene.provider.breaker.snapshot().failures_in_a_row <= 2, ending
    assert ending.suspension > 2


# -- any course --------------------------------------------------------------------------------------------------------


class Fatal(Exception):
    status_code = 404


ENDS = {"good": Resource, "again": ConnectionResetError, "fatal": Fatal}
LONGEST = 4 + 1 / 8  # quarters of a second, and when the second attempt begins at the latest
attempts = st.tuples(st.integers(0, 12), st.sampled_from(sorted(ENDS)))
both = st.tuples(attempts, attempts)


def expected(first: tuple[float, str], second: tuple[float, str]) -> tuple[str, int, float]:
    """What comes out of attempts that take so long and end so: whose end it is, how many were made, and when."""
    at, end = first
    if at < 1 and end != "again":
        return "first", 1, at
    begins = min(at, 1.0)
    both = [(at, "first", end)] if at > begins else []
    for when, who, how in sorted([*both, (begins + second[0], "second", second[1])]):
        if how == "good" or (who == "first" and how == "fatal"):
            return who, 2, when
    return "first", 2, max(at, begins + second[0])


async def course(world: Any, first: tuple[float, str], second: tuple[float, str], *, deaf: bool, ends: float) -> None:
    scene = Scene(world)
    steps = [(seconds, ENDS[end]()) for seconds, end in (first, second)]
    work, out = Work(*steps, deaf=deaf), None
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_at, began + ends, scope)
            try:
                out = await scene.execute(work)
            except (ConnectionResetError, Fatal) as error:
                out = error
        group.cancel_scope.cancel()
    whose, made, when = expected(first, second)
    right = steps[0][1] if whose == "first" else steps[1][1]
    if deaf:  # who does not hear a cancellation keeps the call open to the caller's, and may end all the same
        assert out is right or (ends < LONGEST and out in (None, steps[0][1], steps[1][1]))
    else:
        assert (out, work.calls) == (right, made) if when < ends else out is None
        assert anyio.current_time() - began == pytest.approx(min(when, ends))
    assert (scene.held, work.running, scene.hedge.launched) == ([], 0, work.calls - 1)
    assert [one.closed for one in work.returned] == [one is not out for one in work.returned]
    assert scene.runtime.common.retries_available(anyio.current_time()) == 50 - (work.calls - 1)


async def cancel_at(when: float, scope: anyio.CancelScope) -> None:
    await anyio.sleep_until(when)
    scope.cancel()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(both, st.booleans(), st.integers(0, 20))
def test_any_course(
    backend: Any, world: Any, steps: tuple[tuple[int, str], tuple[int, str]], deaf: bool, ends: int
) -> None:
    """The result, its time and what is given back are those of a model, for any two attempts and any cancellation."""
    # No two things happen at once: quarters of a second, each kind with an offset of its own.
    first, second = steps
    one, other = (first[0] / 4 + 1 / 16, first[1]), (second[0] / 4 + 1 / 8, second[1])
    run(lambda: course(type(world)(), one, other, deaf=deaf, ends=ends / 4 + 1 / 32), backend=backend)


async def test_the_callers_cancellation_comes_out(world: Any) -> None:
    """Whatever runs, a cancelled call is over at once and returns nothing."""
    for seconds in (0.5, 1.25, 2.0):
        scene, work = Scene(world), Work((60, "first"), (60, "second"))
        began = anyio.current_time()
        with anyio.move_on_after(seconds) as scope:
            await scene.execute(work)
        assert scope.cancelled_caught
        assert anyio.current_time() - began == pytest.approx(seconds)
        assert (work.running, scene.held, world.heard(CallFailed)) == (0, [], [])


async def test_no_error_is_left_for_the_collector(world: Any) -> None:
    """An error that has come out is freed with its last reference."""
    logging.disable(logging.CRITICAL)  # a log that is captured keeps each error's traceback
    gc.collect()
    gc.disable()
    try:
        for statuses, seconds in (((503, 503), 0.5), ((503, 503), 1.5), ((404,), 0.5)):
            scene = Scene(world)
            errors = [world.HttpError(status, {}) for status in statuses]
            left = [weakref.ref(error) for error in errors]
            work = Work(*((seconds, error) for error in errors))
            del errors
            with suppress(world.HttpError):
                await scene.execute(work)
            work.steps = ()
            world.events.clear()
            assert [ref() for ref in left] == [None] * len(left)
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
