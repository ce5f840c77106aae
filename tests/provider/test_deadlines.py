"""Deadlines of calls: what interrupts whom, when, and what the breaker makes of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from typing import Any

import anyio
import pytest

from resilience import (
    BreakerSettings,
    CallTimeout,
    CircuitState,
    Deadline,
    DeadlineExceeded,
    FailureKind,
    OperationSettings,
    ProviderRegistry,
    ProviderSettings,
    Reason,
    ResilientProvider,
    RetrySettings,
    Settings,
    TimeoutSettings,
    failure_of,
    guard,
)
from resilience.events import AttemptOverdue, AttemptTimedOut, CircuitChanged
from resilience.lane import Lane
from resilience.testing import VirtualTimeLoop, run

pytestmark = pytest.mark.anyio

STEADY = RetrySettings(jitter="none", base_delay=1, exponential_base=1)
ONCE = RetrySettings(enabled=False)
PATIENT = BreakerSettings(failure_threshold=None, minimum_calls=1_000_000)


def limits(attempt: float | None, total: float | None = 120) -> TimeoutSettings:
    return TimeoutSettings(attempt=attempt, total=total)


async def hang() -> None:
    await anyio.sleep(50_000)


@asynccontextmanager
async def lasting(seconds: float) -> AsyncIterator[None]:
    """Assert that the block takes so many virtual seconds."""
    began = anyio.current_time()
    yield
    assert anyio.current_time() - began == pytest.approx(seconds, abs=1e-6)


async def in_background(count: int, func: Callable[[], Awaitable[object]], group: Any) -> None:
    async def quietly() -> None:
        with suppress(Exception):
            await func()

    for _ in range(count):
        group.start_soon(quietly)
    await anyio.sleep(0.001)


def nothing_left(provider: ResilientProvider) -> bool:
    lanes = provider._runtime.lanes.values()
    return not guard._outer and not any(lane.live or lane._late for lane in lanes) and not provider._runtime.in_flight


# -- what interrupts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
async def test_an_attempt_is_interrupted_at_its_limit(world, warm: bool) -> None:
    """A call that hangs ends when the attempt's limit has passed, and the function hears of it as a cancellation."""
    provider = world.provider(timeout=limits(30), retry=ONCE)
    cancelled: list[float] = []

    async def stuck() -> None:
        try:
            await hang()
        except anyio.get_cancelled_exc_class():
            cancelled.append(anyio.current_time())
            raise

    if warm:
        await provider.execute(anyio.sleep, 0)
    async with lasting(30):
        with pytest.raises(CallTimeout) as caught:
            await provider.execute(stuck)
    assert cancelled == [pytest.approx(30)]
    assert (caught.value.scope, caught.value.limit, caught.value.elapsed) == ("attempt", 30, pytest.approx(30))
    assert isinstance(caught.value, TimeoutError)
    assert failure_of(caught.value).kind is FailureKind.TIMEOUT
    assert str(caught.value) == "openai: attempt timed out after 30 s (limit 30 s)"
    assert nothing_left(provider)


async def test_calls_that_begin_at_different_times_are_interrupted_at_different_times(world) -> None:
    """Each call of many gets its whole limit and no more, whenever it began and however the others end."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
    ends: dict[float, float] = {}

    async def one(start: float, seconds: float) -> None:
        await anyio.sleep(start)
        await provider.try_execute(anyio.sleep, seconds)
        ends[start] = anyio.current_time() - start

    async with anyio.create_task_group() as group:
        for start in (0.0, 1.0, 2.0, 14.9, 15.1, 29.9, 30.0, 31.0, 44.0, 59.5):
            group.start_soon(one, start, 1000 if start != 2 else 20)
    assert ends == {start: pytest.approx(20 if start == 2 else 30) for start in ends}
    assert len(ends) == 10


async def test_the_whole_call_is_interrupted_at_its_limit(world) -> None:
    """A total limit below the attempt's ends the first attempt already, and says that it was the total."""
    provider = world.provider(timeout=TimeoutSettings(attempt=None, total=5), retry=STEADY)
    async with lasting(5):
        with pytest.raises(CallTimeout) as caught:
            await provider.execute(hang)
    assert (caught.value.scope, caught.value.limit) == ("total", 5)
    assert str(caught.value).startswith("openai: call timed out after 5 s")


async def test_a_retry_gets_only_what_is_left(world) -> None:
    """With 12 s for the whole call and 5 s for an attempt, the third attempt has nothing left to run for."""
    provider = world.provider(timeout=limits(5, 13), retry=STEADY)
    async with lasting(13):
        with pytest.raises(CallTimeout) as caught:
            await provider.execute(hang)
    assert (caught.value.scope, caught.value.limit) == ("total", pytest.approx(1))
    timeouts = [(event.scope, round(event.duration, 6)) for event in world.heard(AttemptTimedOut)]
    assert timeouts == [("attempt", 5), ("attempt", 5), ("total", 1)]
    breaker = provider.snapshot().breaker
    assert (breaker.failures_in_a_row, breaker.failed) == (2, 2)  # the third was not given its time
    assert nothing_left(provider)


async def test_operations_have_limits_of_their_own(world) -> None:
    """Operations of one provider time out each after its own limit, at the same time and in one task group."""
    operations = {
        "upload": OperationSettings(timeout=TimeoutSettings(attempt=100)),
        "ping": OperationSettings(timeout=TimeoutSettings(attempt=1)),
    }
    provider = world.provider(timeout=limits(30), operations=operations, retry=ONCE, breaker=PATIENT)
    ends: dict[str, float] = {}

    async def one(operation: str) -> None:
        for _ in range(2):
            began = anyio.current_time()
            outcome = await provider.with_options(operation=operation).try_execute(hang)
            assert isinstance(outcome.error, CallTimeout)
            assert outcome.error.operation == operation
            ends[operation] = anyio.current_time() - began

    async with anyio.create_task_group() as group:
        for operation in ("upload", "ping", "other"):
            group.start_soon(one, operation)
    assert ends == {"upload": pytest.approx(100), "ping": pytest.approx(1), "other": pytest.approx(30)}
    assert nothing_left(provider)


@pytest.mark.parametrize(
    "options, seconds, scope",
    [
        ({"attempt_timeout": 2}, 2, "attempt"),
        ({"attempt_timeout": 100}, 100, "attempt"),
        ({"timeout": 3}, 3, "total"),
        ({"timeout": 3, "attempt_timeout": 2}, 2, "attempt"),
        ({"timeout": 2, "attempt_timeout": 3}, 2, "total"),
        ({"timeout": None}, 30, "attempt"),
    ],
)
async def test_a_view_has_limits_of_its_own(world, options: dict[str, Any], seconds: float, scope: str) -> None:
    """What `with_options` asks for holds for its calls, longer or shorter than the settings, and for no others."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
    async with lasting(seconds):
        outcome = await provider.with_options(**options).try_execute(hang)
    assert isinstance(outcome.error, CallTimeout)
    assert (outcome.error.scope, outcome.error.limit) == (scope, pytest.approx(seconds))
    async with lasting(30):
        await provider.try_execute(hang)
    assert nothing_left(provider)


async def test_no_limit_at_all(world) -> None:
    """Without limits a call may take a day."""
    day = 24 * 3600 - 1
    for provider in (
        world.provider(timeout=limits(None, None)),
        world.provider().with_options(attempt_timeout=None, timeout=None),
    ):
        async with lasting(day):
            await provider.execute(anyio.sleep, day)


async def test_a_block_is_interrupted_like_a_function(world) -> None:
    """The body of an attempt's block ends at the limit, and the next attempt gets the whole limit again."""
    provider = world.provider(timeout=limits(5), retry=STEADY)
    begun: list[float] = []
    async with lasting(11):
        with pytest.raises(CallTimeout):
            async for attempt in provider.with_options(retry=STEADY.model_copy(update={"max_attempts": 2})).attempts():
                async with attempt:
                    begun.append(anyio.current_time())
                    await hang()
    assert begun == [pytest.approx(0), pytest.approx(6)]
    assert nothing_left(provider)


def test_blocks_left_in_another_order(world) -> None:
    """A task on asyncio may leave blocks in the order in which it entered them; each deadline goes with its block."""

    async def main() -> None:
        provider = world.provider(timeout=limits(30), retry=STEADY)
        short = await anext(provider.with_options(attempt_timeout=5).attempts())
        long = await anext(provider.attempts())
        await short.__aenter__()
        await long.__aenter__()
        await short.__aexit__(None, None, None)
        await anyio.sleep(20)
        [deadlines] = guard._outer.values()
        assert deadlines == [pytest.approx(30)]
        await long.__aexit__(None, None, None)
        assert nothing_left(provider)

    run(main)


def test_a_block_of_a_generator_that_another_task_closes(world) -> None:
    """A generator that is closed by somebody else takes its block's deadline along."""

    async def main() -> None:
        provider = world.provider(timeout=limits(30))

        async def lines() -> AsyncIterator[int]:
            async for attempt in provider.attempts():
                async with attempt:
                    yield 1

        generator = lines()
        assert await anext(generator) == 1
        await asyncio.create_task(generator.aclose())
        assert nothing_left(provider)
        await anyio.sleep(100)

    run(main)


async def test_a_deadline_that_has_passed_before(world) -> None:
    """A call whose deadline has passed is refused, not started, and says nothing about the provider."""
    provider, call = world.provider(), world.script("reply")
    deadline = Deadline(5, clock=anyio.current_time)
    late = provider.with_options(deadline=deadline)
    await anyio.sleep(7)
    with pytest.raises(DeadlineExceeded) as caught:
        await late.execute(call)
    assert not call.calls
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.reason is Reason.DEADLINE_WOULD_PASS
    assert provider.snapshot().breaker.failed == 0


@pytest.mark.parametrize("elsewhere", [0.0, 1e6])
async def test_a_deadline_is_for_several_calls_together(world, elsewhere: float) -> None:
    """A `Deadline` given to calls one after another ends them all at the same moment, whatever clock it reads."""
    provider = world.provider(retry=ONCE)
    deadline = Deadline(10, clock=lambda: anyio.current_time() + elsewhere)
    view = provider.with_options(deadline=deadline)
    async with lasting(10):
        await view.execute(anyio.sleep, 4)
        await view.execute(anyio.sleep, 4)
        with pytest.raises(CallTimeout) as caught:
            await view.execute(anyio.sleep, 4)
    assert (caught.value.scope, caught.value.limit) == ("total", pytest.approx(2))


# -- nested deadlines --------------------------------------------------------------------------------------------------


async def test_an_outer_call_interrupts_an_inner_one(world) -> None:
    """The shorter limit of an outer call ends the inner call; only the outer provider hears of a failure."""
    registry = world.registry(retry=ONCE)
    inner = registry.provider("inner")
    outer = registry.provider("outer").with_options(attempt_timeout=5)
    async with lasting(5):
        with pytest.raises(CallTimeout) as caught:
            await outer.execute(inner.execute, hang)
    assert caught.value.provider == "outer"
    assert registry.provider("outer").snapshot().breaker.failed == 1
    snapshot = inner.snapshot().breaker
    assert (snapshot.failed, snapshot.slow) == (0, 0)
    assert nothing_left(inner)
    assert nothing_left(outer)


async def test_an_inner_timeout_leaves_the_outer_call_alone(world) -> None:
    """An inner call's own timeout is an error like any other to the outer one, which may go on."""
    registry = world.registry(retry=ONCE)
    inner = registry.provider("inner").with_options(attempt_timeout=5)

    async def work() -> str:
        with pytest.raises(CallTimeout) as caught:
            await inner.execute(hang)
        assert caught.value.provider == "inner"
        await anyio.sleep(5)
        return "done"

    async with lasting(10):
        assert await registry.provider("outer").execute(work) == "done"
    assert registry.provider("outer").snapshot().breaker.failed == 0


async def test_calls_of_one_provider_inside_each_other(world) -> None:
    """Nested calls of one provider have each their own limit, counted from their own beginning."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
    ends: list[tuple[str, float]] = []

    async def inner(name: str) -> None:
        try:
            await provider.execute(hang)
        finally:
            ends.append((name, anyio.current_time()))

    async def outer() -> None:
        await anyio.sleep(10)
        async with anyio.create_task_group() as group:
            group.start_soon(inner, "child")  # another task: it has its own 30 s, but this scope ends first
            await inner("same task")

    await provider.execute(anyio.sleep, 0)
    async with lasting(30):
        with pytest.raises(CallTimeout):
            await provider.execute(outer)
    assert ends == [("same task", pytest.approx(30)), ("child", pytest.approx(30))] or ends == [
        ("child", pytest.approx(30)),
        ("same task", pytest.approx(30)),
    ]
    assert nothing_left(provider)


async def test_clean_up_may_call_the_same_provider(world) -> None:
    """A call that was interrupted may call its provider again while it cleans up, with a whole limit for that."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
    errors: list[object] = []

    async def stubborn() -> None:
        try:
            await hang()
        finally:
            with anyio.CancelScope(shield=True):
                errors.append((await provider.try_execute(anyio.sleep, 20)).error)
                errors.append((await provider.try_execute(hang)).error)

    await provider.execute(anyio.sleep, 0)
    async with lasting(30 + 20 + 30):
        with pytest.raises(CallTimeout) as caught:
            await provider.execute(stubborn)
    assert caught.value.elapsed == pytest.approx(80)
    assert errors == [None, errors[1]]
    assert isinstance(errors[1], CallTimeout)
    assert nothing_left(provider)


# -- nobody sleeps past a deadline -------------------------------------------------------------------------------------


async def our_total(provider: ResilientProvider, call: Any) -> None:
    await provider.with_options(timeout=5).execute(call)


async def our_deadline(provider: ResilientProvider, call: Any) -> None:
    await provider.with_options(deadline=Deadline(5, clock=anyio.current_time)).execute(call)


async def outer_call(provider: ResilientProvider, call: Any) -> None:
    await ResilientProvider("outer", registry=_registry(5)).execute(provider.execute, call)


async def outer_call_on_the_fast_way(provider: ResilientProvider, call: Any) -> None:
    outer = ResilientProvider("outer", registry=_registry(5))
    await outer.execute(anyio.sleep, 0)
    await outer.execute(provider.execute, call)


async def outer_call_of_the_same_provider(provider: ResilientProvider, call: Any) -> None:
    await provider.with_options(timeout=5).execute(provider.execute, call)


async def outer_block(provider: ResilientProvider, call: Any) -> None:
    async for attempt in ResilientProvider("outer", registry=_registry(5)).attempts():
        async with attempt:
            await provider.execute(call)


async def cancel_scope(provider: ResilientProvider, call: Any) -> None:
    with anyio.fail_after(5):
        await provider.execute(call)


async def deadline_block(provider: ResilientProvider, call: Any) -> None:
    async with Deadline(5, clock=anyio.current_time):
        await provider.execute(call)


def _registry(seconds: float) -> ProviderRegistry:
    settings = ProviderSettings(timeout=limits(seconds), retry=ONCE)
    return ProviderRegistry(Settings(defaults=settings), clock=anyio.current_time)


AROUND = [
    our_total,
    our_deadline,
    outer_call,
    outer_call_on_the_fast_way,
    outer_call_of_the_same_provider,
    outer_block,
    cancel_scope,
    deadline_block,
]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("around", AROUND, ids=lambda around: around.__name__)
async def test_no_back_off_that_passes_a_deadline(world, around: Any, warm: bool) -> None:
    """A back-off that would end behind any deadline is not slept: the provider's error comes out at once, with why."""
    provider = world.provider(retry=RetrySettings(jitter="none", base_delay=6))
    if warm:
        await provider.execute(anyio.sleep, 0)
    call = world.script(world.status(500), seconds=0.5)
    async with lasting(0.5):
        with pytest.raises(world.HttpError) as caught:
            await around(provider, call)
    assert call.calls == 1
    assert any("deadline_would_pass" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("around", AROUND, ids=lambda around: around.__name__)
async def test_a_back_off_that_fits_is_slept(world, around: Any) -> None:
    """A back-off that ends in time is slept, and the next attempt is made."""
    provider = world.provider(retry=RetrySettings(jitter="none", base_delay=4))
    call = world.script(world.status(500), "reply", seconds=0.25)
    async with lasting(4.5):
        await around(provider, call)
    assert call.calls == 2


# -- evidence ----------------------------------------------------------------------------------------------------------


async def test_timeouts_of_full_length_open_the_circuit(world) -> None:
    """A provider that lets attempts run into their limit fails."""
    breaker = BreakerSettings(failure_threshold=3, slow_rate=None)
    provider = world.provider(timeout=limits(5), retry=ONCE, breaker=breaker)
    for _ in range(3):
        with pytest.raises(CallTimeout):
            await provider.execute(hang)
    assert provider.breaker.state is CircuitState.OPEN


@pytest.mark.parametrize("seconds, slow", [(5, 0), (14.9, 0), (15, 1), (20, 1)])
@pytest.mark.parametrize("who", ["deadline", "outer call", "scope", "cancellation"])
async def test_attempts_that_the_caller_ends_are_no_failures(world, who: str, seconds: float, slow: int) -> None:
    """Whoever ends an attempt before its limit says only that it was slow, and only if it was."""
    provider = world.provider(timeout=limits(30), retry=ONCE)
    await provider.execute(anyio.sleep, 0)
    async with lasting(seconds):
        if who == "deadline":
            deadline = Deadline(seconds, clock=anyio.current_time)
            assert not (await provider.with_options(deadline=deadline).try_execute(hang)).ok
        elif who == "outer call":
            assert not (await _registry(seconds).provider("outer").try_execute(provider.execute, hang)).ok
        elif who == "scope":
            with anyio.move_on_after(seconds):
                await provider.execute(hang)
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(provider.execute, hang)
                await anyio.sleep(seconds)
                group.cancel_scope.cancel()
    breaker = provider.snapshot().breaker
    assert (breaker.failed, breaker.failures_in_a_row, breaker.slow) == (0, 0, slow)
    assert nothing_left(provider)


@pytest.mark.parametrize("way", ["scope", "task"])
def test_both_in_one_tick(world, way: str) -> None:
    """Where our timer and the caller's cancellation meet in one tick, the caller wins and the outcome is nobody's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        provider = world.provider(timeout=limits(10), retry=ONCE)
        await provider.execute(anyio.sleep, 0)
        began = loop.time()
        task = loop.create_task(provider.execute(hang))
        await asyncio.sleep(0)
        if way == "task":
            loop.call_at(began + 10, task.cancel)
        else:
            loop.call_at(began + 10, lambda: (task.cancel(), task.cancel()))
        await asyncio.wait([task])
        assert task.cancelled()
        breaker = provider.snapshot().breaker
        assert (breaker.failed, breaker.slow) == (0, 1)
        assert nothing_left(provider)

    run(main)


# -- a hang is seen while it lasts -------------------------------------------------------------------------------------


HANG = BreakerSettings(minimum_calls=10, failure_threshold=None, failure_rate=None)


@pytest.mark.parametrize("warm", [False, True])
async def test_a_hang_opens_the_circuit_while_it_lasts(world, warm: bool, anyio_backend_name: str) -> None:
    """Attempts that are slow already count while they run: the circuit opens long before the first of them ends."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=HANG)
    if warm:
        await provider.execute(anyio.sleep, 0)
    async with anyio.create_task_group() as group:
        await in_background(10, lambda: provider.execute(hang), group)
        await anyio.sleep(14.9)
        assert provider.breaker.state is CircuitState.CLOSED
        await anyio.sleep(1)
        if anyio_backend_name == "asyncio":  # there a timer looks; on trio the next caller does
            assert provider.breaker.state is CircuitState.OPEN
        assert (await provider.try_execute(hang)).rejected
        assert provider.snapshot().in_flight == 10
        group.cancel_scope.cancel()
    [change] = world.heard(CircuitChanged)
    assert "were slow" in change.figures


async def test_a_trickle_that_hangs_opens_the_circuit(world) -> None:
    """Calls that begin one after another and all hang open it within a small share of the line to slow."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=HANG)
    async with anyio.create_task_group() as group:
        for _ in range(40):
            await in_background(1, lambda: provider.execute(hang), group)
            await anyio.sleep(1)
            if provider.breaker.state is CircuitState.OPEN:
                break
        assert anyio.current_time() == pytest.approx(15 + 10, abs=1.5)
        group.cancel_scope.cancel()


async def test_callers_that_give_up_first_open_it_too(world) -> None:
    """A hang is seen although no caller ever waits for the attempt's limit."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=HANG)

    async def impatient() -> None:
        with anyio.move_on_after(16):
            await provider.execute(hang)

    async with anyio.create_task_group() as group:
        await in_background(10, impatient, group)
    assert anyio.current_time() < 20
    assert provider.breaker.state is CircuitState.OPEN
    assert nothing_left(provider)


async def test_long_attempts_that_were_asked_for_are_no_hang(world) -> None:
    """A view that gives its attempts more time does not open the circuit before they are slow by its own measure."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=HANG)
    view = provider.with_options(attempt_timeout=300)
    async with anyio.create_task_group() as group:
        await in_background(10, lambda: view.execute(hang), group)
        await anyio.sleep(140)
        assert (await provider.try_execute(anyio.sleep, 1)).ok
        await anyio.sleep(30)
        assert (await provider.try_execute(hang)).rejected
        group.cancel_scope.cancel()


async def test_a_hang_beside_a_long_attempt(world, anyio_backend_name: str) -> None:
    """A long attempt in flight does not keep anybody from seeing that those that began after it hang."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=HANG)
    view = provider.with_options(attempt_timeout=3000)
    async with anyio.create_task_group() as group:
        await in_background(1, lambda: view.execute(hang), group)
        await anyio.sleep(100)
        await in_background(10, lambda: provider.execute(hang), group)
        await anyio.sleep(20)
        if anyio_backend_name == "asyncio":
            assert provider.breaker.state is CircuitState.OPEN
        assert (await provider.try_execute(hang)).rejected
        group.cancel_scope.cancel()


async def test_a_hang_of_several_operations(world) -> None:
    """Attempts that hang add up over operations with limits of their own."""
    operations = {"embed": OperationSettings(timeout=TimeoutSettings(attempt=20))}
    provider = world.provider(timeout=limits(30), operations=operations, retry=ONCE, breaker=HANG)
    view = provider.with_options(operation="embed")
    async with anyio.create_task_group() as group:
        await in_background(5, lambda: provider.execute(hang), group)
        await in_background(5, lambda: view.execute(hang), group)
        await anyio.sleep(16)
        assert (await provider.try_execute(hang)).rejected
        group.cancel_scope.cancel()


async def test_attempts_that_end_well_are_no_hang(world) -> None:
    """Many calls in flight that all end in time open nothing, and neither does one that is slow among them."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=HANG)
    async with anyio.create_task_group() as group:
        await in_background(1, lambda: provider.execute(anyio.sleep, 29), group)
        for _ in range(10):
            await in_background(10, lambda: provider.execute(anyio.sleep, 10), group)
            await anyio.sleep(3)
    assert not world.heard(CircuitChanged)


# -- functions that do not listen --------------------------------------------------------------------------------------


async def deaf(seconds: float = 100) -> str:
    ends = anyio.current_time() + seconds
    while (left := ends - anyio.current_time()) > 0:
        with suppress(asyncio.CancelledError), anyio.CancelScope(shield=True):
            await anyio.sleep(left)
    return "at last"


@pytest.mark.parametrize("options", [{"timeout": 40}, {"attempt_timeout": 20}, {"timeout": 25}], ids=str)
async def test_who_does_not_listen_is_reported(world, options: dict[str, Any], anyio_backend_name: str) -> None:
    """A function that cannot be interrupted is reported once, a second after its limit (on trio: at the next call)."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
    view = provider.with_options(**options)
    limit = min(30, *options.values())
    reported: list[float] = []
    provider.subscribe(lambda event: reported.append(anyio.current_time()), AttemptOverdue)
    async with anyio.create_task_group() as group:
        await in_background(1, lambda: view.execute(deaf), group)
        for _ in range(80):
            await anyio.sleep(1)
            await provider.execute(anyio.sleep, 0)
    assert reported == [pytest.approx(limit + 1, abs=0.01 if anyio_backend_name == "asyncio" else 3)]


def test_who_does_not_listen_is_reported_where_nothing_else_has_a_limit(world) -> None:
    """The same where only this one view has a limit, and no timer runs for the others."""

    async def main() -> None:
        breaker = BreakerSettings(slow_rate=None)
        provider = world.provider(timeout=limits(None, None), retry=ONCE, breaker=breaker)
        await provider.with_options(attempt_timeout=5).try_execute(deaf, 10)
        [event] = world.heard(AttemptOverdue)
        assert event.overdue == pytest.approx(1)
        assert await provider.execute(deaf, 1000) == "at last"
        assert nothing_left(provider)

    run(main)


async def test_who_does_not_listen_holds_up_nobody(world) -> None:
    """Other calls begin, end and are interrupted as if the deaf ones were not there."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
    await provider.execute(anyio.sleep, 0)
    async with anyio.create_task_group() as group:
        await in_background(3, lambda: provider.execute(deaf, 500), group)
        for _ in range(3):
            async with lasting(30):
                with pytest.raises(CallTimeout):
                    await provider.execute(hang)
            async with lasting(7):
                await provider.execute(anyio.sleep, 7)
    assert nothing_left(provider)


def test_a_result_that_comes_late_is_kept(world) -> None:
    """A function that swallows its cancellation and returns has returned, and its task is not left cancelled."""

    async def main() -> None:
        provider = world.provider(timeout=limits(30), retry=ONCE)
        await provider.execute(anyio.sleep, 0)

        async def swallow() -> str:
            try:
                await hang()
            except asyncio.CancelledError:
                return "late"
            return "never"

        for view in (provider, provider.with_options(attempt_timeout=5)):
            assert await view.execute(swallow) == "late"
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)
        assert provider.snapshot().breaker.failed == 0
        assert nothing_left(provider)

    run(main)


async def test_a_timer_never_meets_a_call_that_has_ended(world) -> None:
    """What a task does after its calls is not interrupted by their limits, however close they came to them."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
    view = provider.with_options(attempt_timeout=30.5)
    for handle in (provider, view, provider, view):
        await handle.execute(anyio.sleep, 29.999)
        await anyio.sleep(0.5)
        await anyio.sleep(300)
        with pytest.raises(CallTimeout):
            await handle.execute(hang)
        await anyio.sleep(300)
    assert nothing_left(provider)


# -- loops -------------------------------------------------------------------------------------------------------------


def test_one_loop_after_another(world) -> None:
    """One provider serves any number of loops, one after another; closed ones are forgotten."""
    now = 0.0
    loop: asyncio.AbstractEventLoop | None = None
    settings = Settings(defaults=ProviderSettings(timeout=limits(30), retry=ONCE, breaker=PATIENT))
    provider = ProviderRegistry(settings, clock=lambda: now + (loop.time() if loop else 0.0)).provider("s3")

    async def main() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        left = loop.create_task(provider.execute(hang))
        for handle in (provider, provider.with_options(attempt_timeout=5), provider):
            began = loop.time()
            assert await handle.execute(asyncio.sleep, 1, "slept") == "slept"
            with pytest.raises(CallTimeout) as caught:
                await handle.execute(hang)
            assert loop.time() - began == pytest.approx(caught.value.limit + 1)
        left.cancel()

    for _ in range(5):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())
            now += runner.get_loop().time()
            loop = None
    assert provider.snapshot().in_flight == 0
    assert len(provider._runtime.lanes) == 1


def test_loops_that_take_turns() -> None:
    """Two loops in one thread have their own timers, also while calls are in flight in both."""
    loops = [VirtualTimeLoop(), VirtualTimeLoop()]
    registries = [
        ProviderRegistry(Settings(defaults=ProviderSettings(timeout=limits(30), retry=ONCE)), clock=loop.time)
        for loop in loops
    ]
    shared = ProviderRegistry(
        Settings(defaults=ProviderSettings(timeout=limits(30), retry=ONCE, breaker=PATIENT)),
        clock=lambda: max(loop.time() for loop in loops),
    ).provider("shared")
    tasks = []
    for loop, registry in zip(loops, registries, strict=True):
        own = registry.provider("own")
        tasks.append((loop.create_task(own.execute(hang)), loop.create_task(shared.execute(hang))))
    for second in range(1, 31):
        for loop in loops:
            loop.run_until_complete(asyncio.sleep(second - loop.time(), None))
    for loop, (own_task, shared_task) in zip(loops, tasks, strict=True):
        loop.run_until_complete(asyncio.wait([own_task, shared_task]))
        assert isinstance(own_task.exception(), CallTimeout)
        assert isinstance(shared_task.exception(), CallTimeout)
        assert loop.time() == pytest.approx(30, abs=1)
        loop.close()
    assert shared.snapshot().in_flight == 0


if find_spec("uvloop"):

    @pytest.mark.real_time
    @pytest.mark.parametrize("rates", [True, False])
    def test_on_uvloop(rates: bool) -> None:
        """On uvloop, whose clock is coarser than ours, calls are interrupted by the lane's timer and by their own."""
        import uvloop

        breaker = BreakerSettings(
            failure_threshold=None, slow_rate=0.8 if rates else None, failure_rate=None, minimum_calls=1_000_000
        )
        settings = ProviderSettings(timeout=limits(0.05), retry=ONCE, breaker=breaker)
        provider = ProviderRegistry(Settings(defaults=settings)).provider("s3")

        async def main() -> None:
            forever = asyncio.get_running_loop().create_future()

            async def wait() -> None:
                await asyncio.shield(forever)

            assert await provider.execute(asyncio.sleep, 0, "done") == "done"
            for handle in (provider, provider.with_options(attempt_timeout=0.03), provider.with_options(timeout=0.04)):
                for outcome in await asyncio.gather(*[handle.try_execute(wait) for _ in range(20)]):
                    assert isinstance(outcome.error, CallTimeout)
                    assert outcome.error.elapsed >= outcome.error.limit - 1e-6

        uvloop.run(main())
        assert nothing_left(provider)


# -- many --------------------------------------------------------------------------------------------------------------


def test_ten_thousand_calls_share_one_timer(world) -> None:
    """Ten thousand calls in flight are each interrupted at their own moment, by one timer."""
    ends: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
        await provider.execute(anyio.sleep, 0)

        async def one(number: int) -> None:
            await asyncio.sleep(number / 1000)
            began = loop.time()
            seconds = math.inf if number % 3 else 10
            outcome = await provider.try_execute(asyncio.sleep, seconds)
            assert outcome.ok is (number % 3 == 0)
            ends.append(loop.time() - began - min(seconds, 30))

        async with asyncio.TaskGroup() as group:
            for number in range(10_000):
                group.create_task(one(number))
            await asyncio.sleep(10.5)
            assert provider.snapshot().in_flight > 9_000
            ours = [handle for handle in loop._scheduled if isinstance(_self(handle), Lane)]  # type: ignore[attr-defined]
            assert len(ours) == 1
        assert nothing_left(provider)

    run(main)
    assert len(ends) == 10_000
    assert max(map(abs, ends)) < 1e-6


def _self(handle: asyncio.TimerHandle) -> object:
    return getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]


async def test_a_thousand_hanging_calls_are_interrupted(world) -> None:
    """The same on trio, where each call has a scope of its own."""
    provider = world.provider(timeout=limits(30), retry=ONCE, breaker=PATIENT)
    async with lasting(30), anyio.create_task_group() as group:
        await in_background(1_000, lambda: provider.execute(hang), group)
        assert provider.snapshot().in_flight == 1_000
    assert provider.snapshot().timeouts == 1_000
    assert nothing_left(provider)
