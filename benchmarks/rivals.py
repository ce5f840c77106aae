"""
Other libraries, each set up as its documentation shows: 3 attempts, 5 failures, and where it can, 30 s per attempt.

Before any time is taken each must prove that it answers, retries, opens and, with a timeout, interrupts: a rival that
does not run fails the benchmark instead of winning it. A timeout that interrupts but leaves its task marked as
cancelled, so that an enclosing `asyncio.timeout` or `TaskGroup` goes wrong afterwards, is measured and shown, but is
not the one to be compared with: it leaves out the part of the work that costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias, cast, final

import aiobreaker  # type: ignore[import-untyped]
import hyx.circuitbreaker
import hyx.retry
import hyx.timeout
import interlock
import purgatory
import pyresilience
import redress
import stamina
import tenacity

from benchmarks.measure import Block, Case, Target, repeat
from benchmarks.targets import answer, down, failing_once, hang

Builder: TypeAlias = Callable[[Target, float | None], Awaitable[Target]]
"""Wraps a function into a rival; the second argument limits each attempt, in seconds (None: no limit)."""

ATTEMPTS = 3
FAILURES = 5
PAUSE = 0.001


def _limited(target: Target, seconds: float | None) -> Target:
    """Limit *target* with the standard library: for rivals that have no timeout of their own."""
    if seconds is None:
        return target

    async def limited(number: int) -> int:
        async with asyncio.timeout(seconds):
            return await target(number)

    return limited


def _tenacity(call: Target) -> Target:
    return tenacity.retry(
        stop=tenacity.stop_after_attempt(ATTEMPTS), wait=tenacity.wait_random(0, PAUSE), reraise=True
    )(call)


def _stamina(call: Target) -> Target:
    return stamina.retry(
        on=Exception, attempts=ATTEMPTS, timeout=None, wait_initial=PAUSE, wait_max=PAUSE, wait_jitter=PAUSE
    )(call)


def _aiobreaker(call: Target) -> Target:
    breaker = aiobreaker.CircuitBreaker(fail_max=FAILURES, timeout_duration=timedelta(seconds=60))
    return cast("Target", breaker(call))


def _hyx(call: Target) -> Target:
    return cast("Target", hyx.retry.retry(attempts=ATTEMPTS, backoff=PAUSE)(call))  # pyright: ignore[reportUnknownMemberType]


async def tenacity_aiobreaker(target: Target, seconds: float | None) -> Target:
    """The usual pick."""
    return _tenacity(_aiobreaker(_limited(target, seconds)))


async def stamina_aiobreaker(target: Target, seconds: float | None) -> Target:
    """The usual pick's better-mannered cousin."""
    return _stamina(_aiobreaker(_limited(target, seconds)))


async def purgatory_tenacity(target: Target, seconds: float | None) -> Target:
    """A breaker with exchangeable storage; it leaves retrying to others."""
    circuit = purgatory.AsyncCircuitBreakerFactory(default_threshold=FAILURES, default_ttl=60)("target")
    return _tenacity(cast("Target", circuit(_limited(target, seconds))))


async def hyx_decorators(target: Target, seconds: float | None) -> Target:
    """Its three decorators, stacked; its timeout runs each call in a task of its own."""
    limited = target if seconds is None else hyx.timeout.timeout(seconds)(target)
    breaker = hyx.circuitbreaker.consecutive_breaker(failure_threshold=FAILURES, recovery_time_secs=60)
    return _hyx(breaker(limited))


async def hyx_contexts(target: Target, seconds: float | None) -> Target:
    """The same with its context managers, which need no task."""
    breaker = hyx.circuitbreaker.consecutive_breaker(failure_threshold=FAILURES, recovery_time_secs=60)

    async def attempt(number: int) -> int:
        async with breaker:
            if seconds is None:
                return await target(number)
            async with hyx.timeout.timeout(seconds):
                return await target(number)
        raise AssertionError("the breaker of hyx has swallowed an error")

    return _hyx(attempt)


async def redress_policy(target: Target, seconds: float | None) -> Target:
    """Its async policy; the breaker counts whole calls there, not attempts."""
    kinds = set(redress.ErrorClass)
    policy = redress.AsyncPolicy(
        retry=redress.AsyncRetry(
            classifier=redress.default_classifier,
            strategy=redress.decorrelated_jitter(base_s=PAUSE, max_s=PAUSE),
            max_attempts=ATTEMPTS,
            max_unknown_attempts=None,
            attempt_timeout_s=seconds,
        ),
        circuit_breaker=redress.CircuitBreaker(failure_threshold=FAILURES, recovery_timeout_s=60.0, trip_on=kinds),
    )

    async def call(number: int) -> int:
        return await policy.call(lambda: target(number))

    return call


async def pyresilience_decorator(target: Target, seconds: float | None) -> Target:
    """Everything in one decorator."""
    return pyresilience.resilient(
        retry=pyresilience.RetryConfig(max_attempts=ATTEMPTS, delay=PAUSE),
        timeout=None if seconds is None else pyresilience.TimeoutConfig(seconds=seconds),
        circuit_breaker=pyresilience.CircuitBreakerConfig(failure_threshold=FAILURES, recovery_timeout=60),
    )(target)


async def interlock_pipeline(target: Target, seconds: float | None) -> Target:
    """Its pipeline in the order its documentation recommends; it knows rates only, so the rate is set to trip early."""
    config = interlock.Config(failure_rate_threshold=1.0, minimum_number_of_calls=FAILURES)
    builder = (
        interlock.Pipeline.builder()
        .retry(attempts=ATTEMPTS, wait=tenacity.wait_random(0, PAUSE))
        .circuit_breaker(interlock.CircuitBreaker(name="target", config=config))
    )
    pipeline = (builder if seconds is None else builder.timeout(seconds)).build()
    return cast("Target", pipeline(target))


@final
@dataclass(frozen=True, slots=True)
class Rival:
    """
    A library, or several combined, as one builder.

    Args:
        name: How the table calls it.
        build: Wraps a function into it.
        tidy: Whether its timeout leaves the task as it found it. Proved like everything else. Default: True.
    """

    name: str
    build: Builder
    tidy: bool = True


RIVALS = (
    Rival("tenacity + aiobreaker", tenacity_aiobreaker),
    Rival("stamina + aiobreaker", stamina_aiobreaker),
    Rival("purgatory + tenacity", purgatory_tenacity),
    Rival("hyx, decorators", hyx_decorators),
    Rival("hyx, context managers", hyx_contexts, tidy=False),
    Rival("redress", redress_policy),
    Rival("pyresilience", pyresilience_decorator),
    Rival("interlock-cb", interlock_pipeline),
)


async def prove(rival: Rival, seconds: float | None) -> None:
    """Show that *rival* does what it is compared for; raise AssertionError if it does not."""
    if await (await rival.build(answer, seconds))(7) != 7:
        raise AssertionError(f"{rival.name} loses the answer")
    if await (await rival.build(failing_once(), seconds))(7) != 7:
        raise AssertionError(f"{rival.name} does not retry")
    await _prove_that_it_opens(rival, seconds)
    if seconds is not None:
        await _prove_that_it_interrupts(rival)


async def _prove_that_it_opens(rival: Rival, seconds: float | None) -> None:
    """After enough failures the function must not be reached any more."""
    reached = 0

    async def counted(number: int) -> int:
        nonlocal reached
        reached += 1
        return await down(number)

    call = await rival.build(counted, seconds)
    for _ in range(FAILURES + 1):
        await _refuse_quietly(call)
    before = reached
    await _refuse_quietly(call)
    if reached != before:
        raise AssertionError(f"{rival.name} does not open: {reached} failing attempts were let through")


async def _prove_that_it_interrupts(rival: Rival) -> None:
    """A function that hangs must not hold up its caller; the caller is not cancelled afterwards, or it is untidy."""
    call = await rival.build(hang, 0.005)

    async def interrupted() -> int:
        await _refuse_quietly(call)
        task = asyncio.current_task()
        return task.cancelling() if task else 0

    left_behind = await asyncio.wait_for(asyncio.create_task(interrupted()), 30)
    if (left_behind == 0) is not rival.tidy:
        raise AssertionError(f"{rival.name} left {left_behind} cancellations behind, against what is said of it")


async def _refuse_quietly(call: Target) -> None:
    """Make a call that is bound to fail, one way or another."""
    try:
        await call(1)
    except Exception:
        return
    raise AssertionError("a failing function answered")


def label(rival: Rival, *, timeout: bool) -> str:
    """How the table calls it."""
    return f"{rival.name} + timeout{'' if rival.tidy else ' (untidy)'}" if timeout else rival.name


EVERYTHING = "pyresilience + timeout + bulkhead + rate limit"
_NEVER_REACHED = 1_000_000


async def _pyresilience_with_everything() -> Block:
    """The only rival that has all of it in one."""
    call = pyresilience.resilient(
        retry=pyresilience.RetryConfig(max_attempts=ATTEMPTS, delay=PAUSE),
        timeout=pyresilience.TimeoutConfig(seconds=30.0),
        circuit_breaker=pyresilience.CircuitBreakerConfig(failure_threshold=FAILURES, recovery_timeout=60),
        bulkhead=pyresilience.BulkheadConfig(max_concurrent=100),
        rate_limiter=pyresilience.RateLimiterConfig(max_calls=_NEVER_REACHED, period=1.0),
    )(answer)
    if await call(7) != 7:
        raise AssertionError("pyresilience loses the answer")
    return repeat(call)


def _case(rival: Rival, seconds: float | None) -> Case:
    async def prepare() -> Block:
        await prove(rival, seconds)
        return repeat(await rival.build(answer, seconds))

    return Case(label(rival, timeout=seconds is not None), "rivals", prepare)


def cases() -> list[Case]:
    """Every rival, without a timeout and with one of 30 s for each attempt."""
    every = [_case(rival, seconds) for seconds in (None, 30.0) for rival in RIVALS]
    return [*every, Case(EVERYTHING, "rivals", _pyresilience_with_everything)]


def comparable() -> list[str]:
    """The names of the cases that do everything a rival of the default settings has to do."""
    return [label(rival, timeout=True) for rival in RIVALS if rival.tidy]
