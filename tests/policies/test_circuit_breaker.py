"""The circuit breaker on its own, as somebody uses it who wants nothing else of this package."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Awaitable, Callable
from random import Random

import anyio
import pytest

from resilience._core.states import CircuitState
from resilience.errors import CircuitOpen, ConfigurationError, Reason
from resilience.events import CallWouldBeRejected, CircuitChanged, Event, ProbeLost
from resilience.failure import FailureKind
from resilience.policies.circuit_breaker import CircuitBreaker, CircuitBreakerSnapshot
from resilience.settings import BreakerSettings, ProviderSettings
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio

QUICK = BreakerSettings(failure_threshold=2, success_threshold=1, timeout=10, jitter=0)


@pytest.fixture
def clock() -> Callable[[], float]:
    return anyio.current_time


@pytest.fixture
async def breaker(clock: Callable[[], float]) -> CircuitBreaker:
    """A breaker that opens after two failures and closes after one success."""
    return CircuitBreaker("s3", QUICK, clock=clock, wall_clock=lambda: 1e9 + clock(), rng=Random(1))


async def ok(value: str = "fine") -> str:
    return value


async def fail() -> None:
    raise ConnectionError("reset by peer")


async def hang() -> None:
    await anyio.sleep_forever()


async def failing(breaker: CircuitBreaker, times: int = 2) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            await breaker.call(fail)


# -- three ways to use it ----------------------------------------------------------------------------------------------


async def test_a_call_returns_what_the_function_returns(breaker: CircuitBreaker) -> None:
    """Arguments go in, the value comes out."""
    assert await breaker.call(ok) == "fine"
    assert await breaker.call(ok, value="good") == "good"


async def test_a_call_is_refused_without_calling(breaker: CircuitBreaker) -> None:
    """Once the circuit is open the function is not called, and the error says everything."""
    await failing(breaker)
    called = False

    async def never() -> None:
        nonlocal called
        called = True

    await anyio.sleep(3)
    with pytest.raises(CircuitOpen) as caught:
        await breaker.call(never)
    assert not called
    assert str(caught.value) == "s3: circuit open, 2 failures in a row, next probe in 7.0 s"
    assert (caught.value.reason, caught.value.retry_after) == (Reason.CIRCUIT_OPEN, pytest.approx(7.0))


async def test_the_circuit_closes_again(breaker: CircuitBreaker) -> None:
    """After the open time one call goes through as a probe, and its success closes the circuit."""
    await failing(breaker)
    await anyio.sleep(10)
    assert await breaker.call(ok) == "fine"
    assert breaker.state is CircuitState.CLOSED


async def by_call(breaker: CircuitBreaker, func: Callable[[], Awaitable[object]]) -> None:
    await breaker.call(func)


async def by_block(breaker: CircuitBreaker, func: Callable[[], Awaitable[object]]) -> None:
    async with breaker:
        await func()


async def by_decorator(breaker: CircuitBreaker, func: Callable[[], Awaitable[object]]) -> None:
    await breaker(func)()


@pytest.mark.parametrize("use", [by_call, by_block, by_decorator])
async def test_all_three_ways_count_and_refuse(
    breaker: CircuitBreaker, use: Callable[[CircuitBreaker, Callable[[], Awaitable[object]]], Awaitable[None]]
) -> None:
    """Two failures open the circuit, the next use is refused, and after the open time a success closes it."""
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await use(breaker, fail)
    with pytest.raises(CircuitOpen):
        await use(breaker, ok)
    await anyio.sleep(10)
    await use(breaker, ok)
    assert (breaker.state, breaker.circuit.successes) == (CircuitState.CLOSED, 1)


@pytest.mark.parametrize("use", [by_call, by_block, by_decorator])
async def test_only_one_of_fifty_probes_passes(
    breaker: CircuitBreaker, use: Callable[[CircuitBreaker, Callable[[], Awaitable[object]]], Awaitable[None]]
) -> None:
    """The others are told when the probe's slot is free at the latest."""
    await failing(breaker)
    await anyio.sleep(10)
    passed, refused = 0, []

    async def slowly() -> None:
        nonlocal passed
        passed += 1
        await anyio.sleep(1)

    async def one() -> None:
        try:
            await use(breaker, slowly)
        except CircuitOpen as error:
            refused.append((error.reason, error.retry_after))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(one)
    assert (passed, len(refused)) == (1, 49)
    assert set(refused) == {(Reason.HALF_OPEN_SATURATED, 60.0)}
    assert breaker.state is CircuitState.CLOSED


async def test_a_decorated_function_keeps_its_name(breaker: CircuitBreaker) -> None:
    """Tracebacks and documentation still speak of the function."""
    guarded = breaker(ok)
    assert (guarded.__name__, await guarded("good")) == ("ok", "good")


async def test_blocks_can_be_nested_and_shared_by_tasks(breaker: CircuitBreaker) -> None:
    """Each block returns its own permit, in whatever order the tasks leave."""

    async def enter_twice(seconds: float) -> None:
        async with breaker:
            await anyio.sleep(seconds)
            async with breaker:
                await anyio.sleep(seconds)

    async with anyio.create_task_group() as group:
        for seconds in (3, 1, 2):
            group.start_soon(enter_twice, seconds)
    assert breaker.circuit.successes == 6
    assert breaker._live == {}
    assert breaker._entered == {}


async def test_a_block_that_ends_elsewhere_is_explained(breaker: CircuitBreaker) -> None:
    """Leaving in another task than the one that entered is a mistake with a name."""
    with pytest.raises(RuntimeError, match=r"^s3: `async with` was left in another task than the one that entered it$"):
        await breaker.__aexit__(None, None, None)


# -- what is evidence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TypeError("mine"), AssertionError(), ValueError("mine")])
async def test_the_callers_own_mistakes_are_no_evidence(breaker: CircuitBreaker, error: Exception) -> None:
    """A bug in the calling code opens no circuit."""

    async def mistake() -> None:
        raise error

    for _ in range(5):
        with pytest.raises(type(error)):
            await breaker.call(mistake)
    assert (breaker.state, breaker.circuit.ignored) == (CircuitState.CLOSED, 5)


async def test_a_cancelled_call_is_no_evidence(breaker: CircuitBreaker) -> None:
    """The cancellation passes through, the permit comes back, and nothing is counted."""
    with anyio.move_on_after(1) as scope:
        await breaker.call(hang)
    assert scope.cancelled_caught
    assert (breaker.circuit.ignored, breaker.circuit.failures, breaker._live) == (1, 0, {})


async def test_a_cancelled_probe_neither_closes_nor_opens_nor_blocks(breaker: CircuitBreaker) -> None:
    """The next caller is a probe, at once."""
    await failing(breaker)
    await anyio.sleep(10)
    with anyio.move_on_after(1):
        await breaker.call(hang)
    assert breaker.state is CircuitState.HALF_OPEN
    assert await breaker.call(ok) == "fine"
    assert breaker.state is CircuitState.CLOSED


async def test_a_hung_probe_gives_up_its_slot(breaker: CircuitBreaker) -> None:
    """After its lease, twice the attempt timeout, another call is let through."""
    events = EventRecorder()
    breaker.bus.subscribe(events)
    await failing(breaker)
    await anyio.sleep(10)
    async with anyio.create_task_group() as group:
        group.start_soon(breaker.call, hang)
        await anyio.sleep(59)
        with pytest.raises(CircuitOpen):
            await breaker.call(ok)
        await anyio.sleep(1)
        assert await breaker.call(ok) == "fine"
        group.cancel_scope.cancel()
    assert len(events.of(ProbeLost)) == 1
    assert breaker.state is CircuitState.CLOSED


async def test_a_hang_opens_the_circuit_while_it_lasts(clock: Callable[[], float]) -> None:
    """Calls that are slow already and have not ended count as slow for whoever comes next."""
    breaker = CircuitBreaker("s3", BreakerSettings(minimum_calls=5), clock=clock, attempt_timeout=20)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(breaker.call, hang)
        await anyio.sleep(9)
        await breaker.call(ok)
        await anyio.sleep(1)
        with pytest.raises(CircuitOpen, match=r"5 of 6 calls were slow in 30 s \(threshold 80 %\)"):
            await breaker.call(ok)
        group.cancel_scope.cancel()


class Benign(ConnectionError):
    """An error that says nothing about the provider."""


def has_code_7(error: BaseException) -> bool:
    return error.args == (7,)


@pytest.mark.parametrize(
    "rule, ignored, counted",
    [
        (FailureKind.TIMEOUT, TimeoutError(), ConnectionError()),
        ("timeout", TimeoutError(), ConnectionError()),
        (Benign, Benign(), ConnectionError()),
        (has_code_7, ConnectionError(7), ConnectionError(8)),
    ],
)
async def test_exclusions_are_no_evidence(
    clock: Callable[[], float], rule: object, ignored: Exception, counted: Exception
) -> None:
    """By kind, by its name, by type and by predicate."""
    settings = BreakerSettings.model_validate({"ignore": (rule,)})
    breaker = CircuitBreaker("s3", settings, clock=clock)

    async def bad(error: Exception) -> None:
        raise error

    for error in (ignored, counted):
        with pytest.raises(type(error)):
            await breaker.call(bad, error)
    assert (breaker.circuit.ignored, breaker.circuit.failures) == (1, 1)


async def test_a_predicate_that_fails_harms_nobody(
    clock: Callable[[], float], caplog: pytest.LogCaptureFixture
) -> None:
    """The error counts, the caller gets it unchanged, the permit comes back, and the mistake is logged."""

    def broken(error: BaseException) -> bool:
        raise LookupError("oops")

    breaker = CircuitBreaker("s3", QUICK.model_copy(update={"ignore": (broken,)}), clock=clock)
    with caplog.at_level(logging.ERROR):
        await failing(breaker)
        await anyio.sleep(10)
        await failing(breaker, 1)
    assert breaker.circuit.probes == 0
    assert "an ignore rule failed" in caplog.text


async def test_kinds_have_thresholds_of_their_own(clock: Callable[[], float]) -> None:
    """One failure of a kind that the settings single out is enough."""
    settings = BreakerSettings(per_kind={FailureKind.TIMEOUT: 1})
    breaker = CircuitBreaker("s3", settings, clock=clock)

    async def time_out() -> None:
        raise TimeoutError

    await failing(breaker, 1)
    assert breaker.state is CircuitState.CLOSED
    with pytest.raises(TimeoutError):
        await breaker.call(time_out)
    assert breaker.snapshot().evidence == "1 timeout failure in a row"


# -- by hand -----------------------------------------------------------------------------------------------------------


async def test_open_by_hand_holds_until_closed(breaker: CircuitBreaker) -> None:
    """No time ends it; the refusal says so and names no time."""
    breaker.open()
    await anyio.sleep(80_000)
    with pytest.raises(CircuitOpen) as caught:
        await breaker.call(ok)
    assert (str(caught.value), caught.value.retry_after) == ("s3: circuit open, by hand", None)
    breaker.close()
    assert await breaker.call(ok) == "fine"


async def test_close_by_hand_admits_at_once(breaker: CircuitBreaker) -> None:
    """An operator who knows that the provider is back need not wait; failures from before do not count any more."""
    await failing(breaker)
    breaker.close()
    await failing(breaker, 1)
    assert await breaker.call(ok) == "fine"


@pytest.mark.parametrize(
    "settings, state",
    [
        ({}, CircuitState.CLOSED),
        ({"mode": "forced_open"}, CircuitState.FORCED_OPEN),
        ({"mode": "disabled"}, CircuitState.DISABLED),
        ({"enabled": False}, CircuitState.DISABLED),
    ],
)
async def test_reset_returns_to_what_the_settings_say(settings: dict[str, object], state: CircuitState) -> None:
    """Whatever was done by hand."""
    breaker = CircuitBreaker("s3", BreakerSettings.model_validate(settings))
    assert breaker.state is state
    breaker.open()
    breaker.reset()
    assert breaker.state is state
    breaker.close()
    assert breaker.state is CircuitState.CLOSED


async def test_reset_forgets_all_evidence(breaker: CircuitBreaker) -> None:
    """The snapshot after it is that of a new breaker."""
    new = breaker.snapshot()
    await failing(breaker)
    breaker.reset()
    assert breaker.snapshot() == new


async def test_a_disabled_breaker_admits_everything(clock: Callable[[], float]) -> None:
    """It counts, and never refuses."""
    breaker = CircuitBreaker("s3", BreakerSettings(enabled=False), clock=clock)
    await failing(breaker, 20)
    assert await breaker.call(ok) == "fine"
    assert breaker.circuit.failures == 20


async def test_shadow_mode_tells_what_it_would_refuse(clock: Callable[[], float]) -> None:
    """Every call goes through; what would have been refused is an event, and its result no evidence."""
    breaker = CircuitBreaker("s3", QUICK.model_copy(update={"mode": "shadow"}), clock=clock)
    events = EventRecorder()
    breaker.bus.subscribe(events)
    await failing(breaker, 5)
    assert await breaker.call(ok) == "fine"
    assert [event.reason for event in events.of(CallWouldBeRejected)] == [Reason.CIRCUIT_OPEN] * 4
    assert [change.after for change in events.transitions] == [CircuitState.OPEN]
    assert (breaker.circuit.failures, breaker.circuit.successes) == (2, 0)


# -- snapshots ---------------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_frozen_and_json_ready(breaker: CircuitBreaker) -> None:
    """It can be stored, compared and sent; nobody can change it."""
    await failing(breaker)
    await anyio.sleep(4)
    snapshot = breaker.snapshot()
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.calls = 3  # type: ignore[misc]
    assert json.loads(json.dumps(dataclasses.asdict(snapshot))) == {
        "name": "s3",
        "state": "open",
        "retry_after": pytest.approx(6.0),
        "until": pytest.approx(1e9 + 10.0 + anyio.current_time() - 4),
        "evidence": "2 failures in a row",
        "failures_in_a_row": 2,
        "calls": 2,
        "failed": 2,
        "slow": 0,
        "probes": 0,
        "trips": 1,
        "stale_results": 0,
        "since": pytest.approx(1e9 + anyio.current_time() - 4),
    }


def reborn(settings: BreakerSettings = QUICK, *, later: float = 0.0) -> CircuitBreaker:
    """A breaker of a process that started *later* seconds on; its monotonic clock starts anew, as after a reboot."""
    wall = 1e9 + anyio.current_time() + later
    began = anyio.current_time()
    return CircuitBreaker(
        "s3",
        settings,
        clock=lambda: anyio.current_time() - began,
        wall_clock=lambda: wall + anyio.current_time() - began,
    )


def through_json(snapshot: CircuitBreakerSnapshot) -> CircuitBreakerSnapshot:
    return CircuitBreakerSnapshot(**json.loads(json.dumps(dataclasses.asdict(snapshot))))


async def test_an_open_circuit_survives_a_restart(breaker: CircuitBreaker) -> None:
    """The rest of the open time is served by the next process, also after a detour through JSON."""
    await failing(breaker)
    await anyio.sleep(2)
    stored = through_json(breaker.snapshot())
    events = EventRecorder()
    other = reborn(later=3)
    other.bus.subscribe(events)
    other.restore(stored)
    assert other.state is CircuitState.OPEN
    assert other.snapshot().since == stored.since
    assert (events.transitions[0].figures, events.transitions[0].retry_after) == (
        "restored from a snapshot",
        pytest.approx(5.0),
    )
    await anyio.sleep(4.9)
    with pytest.raises(CircuitOpen, match=r"s3: circuit open, restored from a snapshot, next probe in 0\.1 s"):
        await other.call(ok)
    await anyio.sleep(0.2)
    assert await other.call(ok) == "fine"


@pytest.mark.parametrize("later, waits", [(1e6, 0.0), (-1e6, 600.0)])
async def test_a_wall_clock_that_jumped_does_not_shut_out_for_ever(
    breaker: CircuitBreaker, later: float, waits: float
) -> None:
    """A snapshot from the future is believed for as long as a breaker can be open at all."""
    await failing(breaker)
    other = reborn(later=later)
    other.restore(breaker.snapshot())
    assert other.snapshot().retry_after == waits


async def test_a_half_open_circuit_comes_back_ready_to_probe(breaker: CircuitBreaker) -> None:
    """Its probes are gone, so the next call is one."""
    await failing(breaker)
    await anyio.sleep(10)
    async with breaker:
        stored = through_json(breaker.snapshot())
    assert (stored.state, stored.probes) == ("half_open", 1)
    other = reborn()
    other.restore(stored)
    await failing(other, 1)
    assert other.snapshot().evidence == "a probe failed (connection_error)"


async def test_what_was_opened_by_hand_stays_open(breaker: CircuitBreaker) -> None:
    """A restart does not overrule an operator."""
    breaker.open()
    other = reborn()
    other.restore(through_json(breaker.snapshot()))
    assert other.state is CircuitState.FORCED_OPEN


@pytest.mark.parametrize(
    "before, after, state",
    [
        ({"enabled": False}, {}, CircuitState.CLOSED),
        ({}, {"enabled": False}, CircuitState.DISABLED),
        ({}, {"mode": "forced_open"}, CircuitState.FORCED_OPEN),
    ],
)
async def test_todays_settings_overrule_a_snapshot(
    before: dict[str, object], after: dict[str, object], state: CircuitState
) -> None:
    """A breaker that was switched off or on meanwhile does not fall back."""
    snapshot = reborn(BreakerSettings.model_validate(before)).snapshot()
    other = reborn(BreakerSettings.model_validate(after))
    other.restore(snapshot)
    assert other.state is state


async def test_what_is_restored_is_checked() -> None:
    """Something else than a snapshot, or a snapshot with nonsense in it, is refused and changes nothing."""
    other = reborn()
    with pytest.raises(TypeError, match=r"^restore\(\) takes what snapshot\(\) returned, not \{'state': 'open'\}$"):
        other.restore({"state": "open"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'ajar' is not a valid CircuitState"):
        other.restore(dataclasses.replace(other.snapshot(), state="ajar"))  # type: ignore[arg-type]
    assert other.state is CircuitState.CLOSED


async def test_the_repr_says_what_is_going_on(breaker: CircuitBreaker) -> None:
    """Paste it into an incident channel."""
    assert repr(breaker) == "<CircuitBreaker 's3' CLOSED, 0 failures in a row>"
    await breaker.call(ok)
    await failing(breaker)
    await anyio.sleep(1.5)
    assert repr(breaker) == "<CircuitBreaker 's3' OPEN, next probe in 8.5 s, 2/3 failed>"
    breaker.open()
    assert repr(breaker) == "<CircuitBreaker 's3' FORCED_OPEN, 2/3 failed>"


# -- events ------------------------------------------------------------------------------------------------------------


async def test_each_transition_is_told_once(breaker: CircuitBreaker) -> None:
    """With the reason, the figures and the open time; refusals and repeated orders are no transitions."""
    events = EventRecorder()
    breaker.bus.subscribe(events)
    await failing(breaker)
    for _ in range(3):
        with pytest.raises(CircuitOpen):
            await breaker.call(ok)
    await anyio.sleep(10)
    await breaker.call(ok)
    breaker.open()
    breaker.open()
    told = [
        (change.provider, change.before.value, change.after.value, change.reason, change.figures, change.retry_after)
        for change in events.transitions
    ]
    assert told == [
        ("s3", "closed", "open", "in_a_row", "2 failures in a row", 10.0),
        ("s3", "open", "half_open", "open_time_over", "open time is over", None),
        ("s3", "half_open", "closed", "probes_succeeded", "1 of 1 probes succeeded", None),
        ("s3", "closed", "forced_open", "by_hand", "by hand", None),
    ]


async def test_a_listener_that_fails_harms_nobody(breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture) -> None:
    """The call ends as it would have, other listeners hear of it, and the mistake is logged."""
    events = EventRecorder()

    def broken(event: Event) -> None:
        raise LookupError("oops")

    breaker.bus.subscribe(broken)
    breaker.bus.subscribe(events)
    await failing(breaker)
    assert breaker.state is CircuitState.OPEN
    assert len(events.transitions) == 1
    assert "a listener failed" in caplog.text


async def test_a_listener_may_call_back(breaker: CircuitBreaker) -> None:
    """It can read the new state and give orders, without a deadlock."""
    seen: list[object] = []

    def reopen(event: Event) -> None:
        if isinstance(event, CircuitChanged) and event.after is CircuitState.OPEN:
            seen.append((breaker.snapshot().state, repr(breaker)))
            breaker.close()

    breaker.bus.subscribe(reopen)
    await failing(breaker)
    assert seen == [(CircuitState.OPEN, "<CircuitBreaker 's3' OPEN, next probe in 10.0 s, 2/2 failed>")]
    assert breaker.state is CircuitState.CLOSED


# -- bad input ---------------------------------------------------------------------------------------------------------


async def test_bad_input_is_refused_when_the_breaker_is_made() -> None:
    """With what was passed and the likely slip."""
    with pytest.raises(ConfigurationError, match=r"name is a string, not .*: did the settings come first\?"):
        CircuitBreaker(BreakerSettings())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"takes BreakerSettings\(.*\), not ProviderSettings: .* \.breaker"):
        CircuitBreaker("s3", ProviderSettings())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^a circuit breaker decorates an async function, not str$"):
        CircuitBreaker("s3")("upload")  # type: ignore[arg-type]


async def test_a_synchronous_function_is_no_evidence(breaker: CircuitBreaker) -> None:
    """The mistake comes out as the TypeError it is, and its permit comes back."""
    for _ in range(5):
        with pytest.raises(TypeError):
            await breaker.call(lambda: 5)  # type: ignore[arg-type,return-value]
    assert (breaker.state, breaker._live) == (CircuitState.CLOSED, {})
