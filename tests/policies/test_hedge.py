"""`Hedge`: when a second attempt starts, what it may cost, and the hedge used alone."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import inspect
import json
import random
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import ConfigurationError, RetrySettings, subscribe
from resilience.events import EventBus, HedgeLaunched, HedgeWon
from resilience.policies import _forks
from resilience.policies.hedge import Hedge
from resilience.settings import HedgeSettings
from resilience.testing import EventRecorder, run

EPOCH = 1_700_000_000.0
HALF = HedgeSettings(enabled=True, max_extra_load=0.5, warm_up=1)


class Answer(Exception):
    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"secret {status}")
        self.status_code = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


# -- the decision ------------------------------------------------------------------------------------------------------


def learnt(settings: HedgeSettings, *latencies: float) -> Hedge:
    hedge = Hedge(settings, clock=lambda: 0.0)
    for seconds in latencies:
        hedge.record(0.0, seconds)
    return hedge


def test_the_delay_is_the_quantile_that_the_extra_load_pays_for() -> None:
    """With 5 % extra load the second attempt starts at the 95th percentile, with 25 % at the 75th."""
    latencies = [float(n) for n in range(1, 101)]
    for share, delay in ((0.05, 95.0), (0.25, 75.0), (0.5, 50.0)):
        hedge = learnt(HedgeSettings(enabled=True, max_extra_load=share), *latencies)
        assert hedge.delay(0.0) == pytest.approx(delay, rel=0.021)


def test_no_delay_before_enough_is_known() -> None:
    """Nothing is hedged on the word of a few calls, nor on that of old ones."""
    hedge = learnt(HedgeSettings(enabled=True), *[1.0] * 49)
    assert hedge.delay(0.0) is None
    hedge.record(0.0, 1.0)
    assert hedge.delay(0.0) == pytest.approx(1.0, rel=0.021)
    assert hedge.delay(61.0) is None


@pytest.mark.parametrize(
    "bounds, delay", [({"max_delay": 0.5}, 0.5), ({"min_delay": 2.0}, 2.0), ({"min_delay": 2.0, "max_delay": 3.0}, 2.0)]
)
def test_the_delay_is_bounded(bounds: dict[str, float], delay: float) -> None:
    """The delay stays within what the settings allow."""
    assert learnt(HALF.model_copy(update=bounds), 1.0).delay(0.0) == delay


def test_switched_off() -> None:
    """A hedge that is switched off never starts a second attempt."""
    hedge = learnt(HedgeSettings(warm_up=1), *[1.0] * 60)
    for _ in range(60):
        hedge.begin(0.0)
    assert (hedge.delay(0.0), hedge.charge(0.0, 60.0)) == (None, None)


def test_the_budget_has_no_floor() -> None:
    """One second attempt for every twenty calls in the window, and none to begin with."""
    hedge = learnt(HedgeSettings(enabled=True))
    charges = []
    for call in range(100):
        hedge.begin(0.0)
        if hedge.charge(0.0, 60.0) is not None:
            charges.append(call + 1)
    assert charges == [20, 40, 60, 80, 100]
    assert hedge.snapshot().available == 0


def test_old_calls_pay_for_nothing() -> None:
    """A call pays for second attempts as long as its latency counts."""
    hedge = learnt(HALF)
    for _ in range(10):
        hedge.begin(0.0)
    assert hedge.charge(50.0, 60.0) is not None
    assert hedge.charge(60.0, 60.0) is None


def test_a_refund() -> None:
    """What was paid for a second attempt that did not leave can be spent again."""
    hedge = learnt(HALF)
    hedge.begin(0.0)
    hedge.begin(0.0)
    charge = hedge.charge(0.0, 60.0)
    assert charge is not None
    assert hedge.charge(0.0, 60.0) is None
    hedge.refund(charge, 0.0)
    assert hedge.charge(0.0, 60.0) is not None


def test_no_second_attempt_that_would_hardly_be_over_in_time() -> None:
    """With less than the median left, a second attempt is not started."""
    hedge = learnt(HALF, 1.0, 2.0, 3.0)
    for _ in range(10):
        hedge.begin(0.0)
    assert hedge.charge(0.0, 1.9) is None
    assert hedge.charge(0.0, 2.1) is not None


def test_a_slowdown_cannot_hedge_everything() -> None:
    """When all calls take three times as long, two in five pass the old delay; no more than one in twenty is hedged."""
    rng = random.Random(46)
    hedge = Hedge(HedgeSettings(enabled=True, latency_window=600), clock=lambda: 0.0)
    for call in range(4000):
        hedge.begin(call / 100)
        hedge.record(call / 100, rng.lognormvariate(0, 0.8))
    frozen, passed, launched = hedge.delay(40.0), 0, 0
    assert frozen is not None
    saved = hedge.snapshot().available
    for call in range(4000, 8000):
        hedge.begin(call / 100)
        if 3 * rng.lognormvariate(0, 0.8) > frozen:
            passed += 1
            launched += hedge.charge(call / 100, 60.0) is not None
    assert passed > 0.35 * 4000
    assert launched <= 0.05 * 4000 + saved


def test_a_forked_child_starts_anew() -> None:
    """Latencies and calls of the parent are not the child's."""
    hedge = learnt(HALF, 1.0)
    hedge.begin(0.0)
    _forks.start_anew()
    assert (hedge.calls, hedge.delay(0.0)) == (0, None)


def test_the_wrong_settings_are_refused() -> None:
    """A hedge says what it takes."""
    with pytest.raises(ConfigurationError, match="HedgeSettings"):
        Hedge(RetrySettings())  # type: ignore[arg-type]


def test_a_snapshot_is_json() -> None:
    """Figures can be written as they are, and a repr tells the most important."""
    hedge = learnt(HALF, 1.0)
    assert json.loads(json.dumps(dataclasses.asdict(hedge.snapshot())))["latencies"] == 1
    assert repr(hedge) == "<Hedge 'call' after 0.98 s, 0 of 0 calls hedged, 0 won>"
    assert "not now" in repr(Hedge())


# -- calls -------------------------------------------------------------------------------------------------------------


class Work:
    """
    An async function whose n-th call takes so many seconds and then returns or raises.

    A step is ``(seconds, result or error)``; *deaf* ones finish whatever happens.
    """

    def __init__(self, *steps: tuple[float, Any], deaf: bool = False) -> None:
        self.steps = steps
        self.deaf = deaf
        self.began: list[float] = []
        self.cancelled: list[int] = []
        self.returned: list[Any] = []
        self.running = 0

    async def __call__(self) -> Any:
        number = len(self.began)
        self.began.append(anyio.current_time())
        seconds, result = self.steps[number]
        self.running += 1
        try:
            with anyio.CancelScope(shield=self.deaf):
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


class Resource:
    """A result that has to be closed."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.closed = 0

    async def aclose(self) -> None:
        await anyio.sleep(0.125)
        self.closed += 1


def ready(settings: HedgeSettings = HALF, *, calls: int = 10, latency: float = 1.0, **more: Any) -> Hedge:
    """A hedge that starts a second attempt after one second."""
    hedge = Hedge(
        settings.model_copy(update={"min_delay": latency, "max_delay": latency}),
        clock=anyio.current_time,
        wall_clock=lambda: EPOCH,
        **more,
    )
    now = anyio.current_time()
    for _ in range(calls):
        hedge.begin(now)
        hedge.record(now, latency)
    return hedge


@pytest.mark.anyio
async def test_a_quick_call_is_made_once() -> None:
    """Nothing starts beside a call that takes no longer than usual."""
    work = Work((0.5, "first"))
    hedge = ready()
    assert await hedge.call(work) == "first"
    assert (len(work.began), hedge.launched) == (1, 0)


@pytest.mark.anyio
async def test_the_second_answers_for_a_slow_first() -> None:
    """The call takes the delay and what the second attempt takes; the first is cancelled and gone."""
    events, bus = EventRecorder(), EventBus()
    bus.subscribe(events)
    work, hedge = Work((60, "first"), (0.5, "second")), ready(name="s3", bus=bus)
    began = anyio.current_time()
    assert await hedge.call(work) == "second"
    assert anyio.current_time() - began == pytest.approx(1.5)
    assert (work.cancelled, work.running) == ([0], 0)
    (launched,), (won,) = events.of(HedgeLaunched), events.of(HedgeWon)
    assert (launched.provider, launched.time) == ("s3", EPOCH)
    assert launched.delay == pytest.approx(1.0)
    assert (won.provider, won.time) == ("s3", EPOCH)
    assert won.duration == pytest.approx(1.5)
    assert (hedge.snapshot().launched, hedge.snapshot().won) == (1, 1)


@pytest.mark.anyio
async def test_the_first_may_still_win() -> None:
    """A second attempt that is not needed after all is cancelled and gone."""
    work, hedge = Work((1.25, "first"), (60, "second")), ready()
    began = anyio.current_time()
    assert await hedge.call(work) == "first"
    assert anyio.current_time() - began == pytest.approx(1.25)
    assert (work.cancelled, work.running) == ([1], 0)
    assert (hedge.launched, hedge.won) == (1, 0)


@pytest.mark.anyio
async def test_no_hedge_before_enough_is_known_and_none_without_budget() -> None:
    """A slow call just takes its time then."""
    for hedge in (Hedge(clock=anyio.current_time), ready(HALF.model_copy(update={"max_extra_load": 0.01}), calls=50)):
        work = Work((60, "first"), (0.5, "second"))
        assert await hedge.call(work) == "first"
        assert len(work.began) == 1


@pytest.mark.anyio
async def test_no_hedge_that_the_caller_would_not_wait_for() -> None:
    """A caller who leaves within the usual time gets no second attempt."""
    work, hedge = Work((60, "first"), (0.5, "second")), ready()
    with anyio.move_on_after(1.5) as scope:
        await hedge.call(work)
    assert scope.cancelled_caught
    assert len(work.began) == 1


@pytest.mark.anyio
async def test_both_answer_in_one_tick() -> None:
    """One result comes out, the other one is closed."""
    for deaf in (False, True):
        first, second = Resource(), Resource()
        work = Work((1.5, first), (0.5, second), deaf=deaf)
        winner = await ready().call(work)
        assert winner.closed == 0
        assert first.closed + second.closed == (len(work.cancelled) == 0)


@pytest.mark.anyio
async def test_a_first_that_ends_with_the_delay(anyio_backend: Any) -> None:
    """Whichever of the two is heard first, a result ends the call and a failure leaves it to the second attempt."""
    work, hedge = Work((1.0, "first"), (60, "second")), ready()
    assert await hedge.call(work) == "first"
    if anyio_backend[0] == "asyncio":  # where the order within a tick is known
        assert (len(work.began), hedge.launched) == (1, 0)
    work = Work((1.0, ConnectionResetError()), (0.5, "second"))
    assert await hedge.call(work) == "second"
    assert work.began[1] - work.began[0] == pytest.approx(1.0)


@pytest.mark.anyio
@pytest.mark.parametrize("steps", [((2.0, "a"), (0.5, "b")), ((1.5, "a"), (5.0, "b"))])
async def test_what_a_loser_returns_all_the_same_is_closed(steps: tuple[tuple[float, str], ...]) -> None:
    """A loser that does not hear its cancellation is waited for, and its result closed; the winner's is not."""
    resources = {name: Resource(name) for _, name in steps}
    work = Work(*((seconds, resources[name]) for seconds, name in steps), deaf=True)
    winner = await ready().call(work)
    (loser,) = set(resources.values()) - {winner}
    assert (winner.closed, loser.closed, work.running) == (0, 1, 0)


@pytest.mark.anyio
async def test_a_result_that_both_share_stays_open() -> None:
    """The loser's result is not closed where it is the winner's, too."""
    shared = Resource()
    assert await ready().call(Work((2.0, shared), (0.5, shared), deaf=True)) is shared
    assert shared.closed == 0


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_first_that_fails_early_gets_its_second_at_once() -> None:
    """A failure that is worth it is answered by a second attempt without a wait."""
    work, hedge = Work((0.25, ConnectionResetError()), (0.5, "second")), ready()
    began = anyio.current_time()
    assert await hedge.call(work) == "second"
    assert anyio.current_time() - began == pytest.approx(0.75)
    assert (hedge.launched, hedge.won) == (1, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("make", [lambda: Answer(400), lambda: Answer(429, retry_after="3"), lambda: TypeError("mine")])
async def test_a_first_that_fails_for_good_is_the_end(make: Callable[[], Exception]) -> None:
    """No second attempt follows what would be the same again, or what came with a pause; the error is unchanged."""
    error = make()
    work, hedge = Work((0.25, error)), ready()
    with pytest.raises(type(error)) as raised:
        await hedge.call(work)
    assert raised.value is error
    assert (hedge.launched, getattr(error, "__notes__", [])) == (0, [])


@pytest.mark.anyio
async def test_a_first_that_fails_for_good_ends_the_second() -> None:
    """What the first was told would be the answer for the second, too: nobody waits for it."""
    work, hedge = Work((1.5, Answer(400)), (60, "second")), ready()
    began = anyio.current_time()
    with pytest.raises(Answer, match="400"):
        await hedge.call(work)
    assert anyio.current_time() - began == pytest.approx(1.5)
    assert (work.cancelled, work.running) == ([1], 0)


@pytest.mark.anyio
@pytest.mark.parametrize("steps", [(1.5, 60), (5.0, 2.0), (0.5, 0.5)])
async def test_when_both_fail_the_first_error_comes_out(steps: tuple[float, float]) -> None:
    """It is the first's own error, in no group, with a note that names the second's and none of its text."""
    first, second = ConnectionResetError("one"), Answer(503)
    with pytest.raises(ConnectionResetError) as raised:
        await ready(name="s3").call(Work((steps[0], first), (steps[1], second)))
    assert raised.value is first
    assert first.__notes__ == ["resilience: s3: the second attempt failed, too (overloaded: Answer)"]


@pytest.mark.anyio
async def test_one_error_for_both() -> None:
    """A stored error that both attempts raise comes out as it is."""
    error = ConnectionResetError()
    with pytest.raises(ConnectionResetError) as raised:
        await ready().call(Work((0.5, error), (0.5, error)))
    assert raised.value is error


@pytest.mark.anyio
@pytest.mark.parametrize("steps", [((2.0, "good"), (0.5, OSError())), ((1.5, OSError()), (2.0, "good"))])
async def test_one_failure_leaves_it_to_the_other(steps: tuple[tuple[float, Any], ...]) -> None:
    """Whichever fails, the other one's result is the call's."""
    work = Work(*steps)
    assert await ready().call(work) == "good"
    assert work.cancelled == []


@pytest.mark.anyio
@pytest.mark.parametrize("steps", [((1.5, SystemExit(3)), (60, "b")), ((60, "a"), (0.5, SystemExit(3)))])
async def test_an_exit_comes_out_as_itself(steps: tuple[tuple[float, Any], ...]) -> None:
    """An exit in either attempt ends the other one and leaves in no group."""
    work, began = Work(*steps), anyio.current_time()
    with pytest.raises(SystemExit) as raised:
        await ready().call(work)
    assert (raised.value.code, work.running) == (3, 0)
    assert anyio.current_time() - began == pytest.approx(1.5)


@pytest.mark.anyio
async def test_no_error_is_left_for_the_collector() -> None:
    """An error that has come out is freed with its last reference."""
    gc.collect()
    gc.disable()
    try:
        for statuses in ((503, 503), (503, 503, 1.5), (400,)):
            seconds = statuses[2:] or (0.5,)
            errors = [Answer(int(status)) for status in statuses[:2]]
            left = [weakref.ref(error) for error in errors]
            hedge, work = ready(), Work(*((seconds[0], error) for error in errors))
            del errors
            with suppress(Exception):
                await hedge.call(work)
            work.steps = ()
            assert [ref() for ref in left] == [None] * len(left)
    finally:
        gc.enable()


def test_an_attempt_that_leaves_a_scope_open_is_told_so() -> None:
    """What anyio has to say about it comes out in no group."""
    calls: list[anyio.CancelScope] = []

    async def leave_open() -> None:
        calls.append(anyio.CancelScope())
        await anyio.sleep(60 if len(calls) == 1 else 0.5)
        calls[-1].__enter__()

    async def call() -> None:
        with pytest.raises(RuntimeError, match="cancel scope"):
            await ready().call(leave_open)

    run(call)


# -- what is learnt ----------------------------------------------------------------------------------------------------


def latencies(hedge: Hedge) -> list[float]:
    """The latencies it knows, as far as its bins tell."""
    now, count = anyio.current_time(), hedge.snapshot().latencies
    found = [hedge._latencies.quantile(now, rank / (count - 1) if count > 1 else 0.0) for rank in range(count)]
    return [round(one, 1) for one in found if one is not None]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "steps, known",
    [
        pytest.param([(0.5, "first")], [0.5], id="a success"),
        pytest.param([(0.5, TimeoutError()), (0.2, OSError())], [0.5], id="a timeout"),
        pytest.param([(60, "first"), (4.0, "second")], [5.0], id="the time that a superseded first had taken"),
        pytest.param([(1.5, "first"), (4.0, "second")], [1.5], id="nothing of a superseded second"),
        pytest.param([(0.1, OSError()), (0.5, "second")], [0.5], id="no quick failure, and a second that was alone"),
        pytest.param([(0.1, OSError()), (0.1, OSError())], [], id="no quick failures"),
        pytest.param([(1.5, OSError()), (1.0, "second")], [], id="no second that was not alone"),
    ],
)
async def test_what_is_learnt(steps: list[tuple[float, Any]], known: list[float]) -> None:
    """What would drag the quantile down, or is only seen when it is quick, is left out."""
    hedge = ready()
    hedge._latencies = type(hedge._latencies)(60.0)
    hedge.record(anyio.current_time(), 99.0)
    with suppress(OSError):
        await hedge.call(Work(*steps))
    assert latencies(hedge)[:-1] == pytest.approx(known, rel=0.05)


@pytest.mark.anyio
async def test_nothing_is_learnt_of_a_caller_who_leaves() -> None:
    """How long somebody was ready to wait says nothing about how long it takes."""
    hedge = ready()
    for seconds in (0.5, 2.5):
        with anyio.move_on_after(seconds):
            await hedge.call(Work((60, "first"), (60, "second")))
    assert hedge.snapshot().latencies == 10


# -- cancellation ------------------------------------------------------------------------------------------------------


async def later(seconds: float, scope: anyio.CancelScope) -> None:
    await anyio.sleep(seconds)
    scope.cancel()


COURSES: dict[str, tuple[float, Any, float]] = {
    "slow": (60.0, None, 0.75),
    "close": (1.5, None, 0.5),
    "failed": (0.5, ConnectionResetError, 1.0),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", COURSES)
@pytest.mark.parametrize("native", [False, True], ids=["scope", "task"])
async def test_cancelled_at_any_moment(name: str, native: bool, anyio_backend: Any) -> None:
    """The caller's cancellation comes out, both attempts are over, and no result is left open."""
    if native and anyio_backend[0] != "asyncio":
        native = False
    for sixteenth in range(1, 32, 2):
        hedge = ready(calls=1000)
        first, error, second = COURSES[name]
        work = Work((first, error() if error is not None else Resource()), (second, Resource()))
        taken: list[Resource] = []

        async def call(hedge: Hedge = hedge, work: Work = work, taken: list[Resource] = taken) -> None:
            taken.append(await hedge.call(work))

        if native:
            task = asyncio.create_task(call())
            await asyncio.sleep(sixteenth / 16)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() is (not taken)
        else:
            async with anyio.create_task_group() as group:
                with anyio.CancelScope() as scope:
                    group.start_soon(later, sixteenth / 16, scope)
                    await call()
                group.cancel_scope.cancel()
            assert scope.cancelled_caught is (not taken)
        assert work.running == 0
        assert all(one.closed == (one not in taken) for one in work.returned)


@pytest.mark.anyio
async def test_a_result_that_the_caller_is_not_there_to_take_is_closed() -> None:
    """When the caller leaves while the loser is being waited for, the winner's result is closed, too."""
    first, second = Resource(), Resource()
    work = Work((1.5, first), (3.0, second), deaf=True)
    taken = []
    with anyio.move_on_after(2.0):  # trio leaves a caller with a result that has come before the cancellation
        taken.append(await ready().call(work))
    assert (first.closed, second.closed, work.running) == (not taken, 1, 0)


@pytest.mark.anyio
async def test_a_cancellation_from_inside() -> None:
    """A function that cancels itself ends the call as one that was cancelled, when nothing else is under way."""
    task = anyio.get_cancelled_exc_class()
    if task is not asyncio.CancelledError:
        return

    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await ready().call(give_up)


@pytest.mark.anyio
async def test_hedges_inside_hedges() -> None:
    """Each hedge sees to its own two attempts."""
    inner, outer = ready(), ready(latency=3.0)
    work = Work((60, "a"), (60, "b"), (60, "c"), (0.5, "d"))
    assert await outer.call(inner.call, work) == "d"
    assert (inner.launched, outer.launched, work.running) == (2, 1, 0)


@pytest.mark.anyio
async def test_as_a_decorator() -> None:
    """A decorated function keeps its face, and each call of it is hedged."""
    hedge, times = ready(), [60.0, 0.5]

    @hedge
    async def fetch(name: str, *, size: int = 1) -> str:
        """Fetch it."""
        await anyio.sleep(times.pop(0))
        return name * size

    assert await fetch("a", size=2) == "aa"
    assert (fetch.__name__, fetch.__doc__, hedge.won) == ("fetch", "Fetch it.", 1)
    assert inspect.iscoroutinefunction(fetch)
    with pytest.raises(TypeError, match="async function"):
        hedge("no function")  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_the_process_hears_of_it() -> None:
    """Without a bus of its own a hedge tells those who listen to the whole process."""
    heard = EventRecorder()
    unsubscribe = subscribe(heard, HedgeWon)
    try:
        await ready().call(Work((60, "first"), (0.5, "second")))
    finally:
        unsubscribe()
    assert [event.provider for event in heard] == ["call"]
