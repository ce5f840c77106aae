"""Nothing is left for the garbage collector, and nothing grows, however calls end."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import (
    BreakerSettings,
    CircuitBreaker,
    Deadline,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetryHandler,
    RetrySettings,
    Settings,
    TimeoutSettings,
)
from resilience.errors import CircuitOpen, ResilienceError
from resilience.testing import VirtualTimeLoop


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """A log that is captured keeps each error's traceback."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


TWICE = RetrySettings(max_attempts=2, base_delay=0.01)


def provider(*, errors: str = "native", **breaker: Any) -> ResilientProvider:
    defaults = ProviderSettings.model_validate(
        {
            "retry": TWICE,
            "errors": errors,
            "timeout": TimeoutSettings(attempt=5, total=20),
            "breaker": BreakerSettings(
                **({"failure_threshold": None, "failure_rate": None, "slow_rate": None} | breaker)
            ),
            "budget": {"enabled": False},
        }
    )
    return ProviderRegistry(Settings(defaults=defaults), clock=asyncio.get_running_loop().time).provider("s3")


async def ok() -> str:
    return "fine"


async def fail() -> None:
    raise ConnectionError("reset")


async def mistake() -> None:
    raise KeyError("mine")


async def hang() -> None:
    await anyio.sleep(3600)


async def fails(one: ResilientProvider) -> None:
    with suppress(ConnectionError):
        await one.execute(fail)


async def fails_finally(one: ResilientProvider) -> None:
    with suppress(ConnectionError):
        await one.with_options(retry=False).execute(fail)


async def fails_by_the_callers_mistake(one: ResilientProvider) -> None:
    with suppress(KeyError):
        await one.execute(mistake)


async def fails_under_options(one: ResilientProvider) -> None:
    with suppress(ConnectionError):
        await one.with_options(timeout=5, operation="put", deadline=Deadline(9)).execute(fail)


async def fails_as_a_value(one: ResilientProvider) -> None:
    assert not (await one.try_execute(fail)).ok


async def recovers(one: ResilientProvider) -> None:
    left = [ConnectionError("reset")]

    async def once() -> None:
        if left:
            raise left.pop()

    await one.execute(once)


async def times_out(one: ResilientProvider) -> None:
    with suppress(TimeoutError):
        await one.execute(hang)


async def times_out_under_options(one: ResilientProvider) -> None:
    with suppress(TimeoutError):
        await one.with_options(attempt_timeout=1).execute(hang)


async def is_cancelled(one: ResilientProvider) -> None:
    for patience in (1, 5.005):
        with anyio.move_on_after(patience):
            await one.execute(hang)


async def is_refused(one: ResilientProvider) -> None:
    one.breaker.open()
    with suppress(CircuitOpen):
        await one.execute(ok)
    assert (await one.try_execute(ok)).rejected
    one.breaker.close()


async def is_refused_before_its_retry(one: ResilientProvider) -> None:
    async def fail_and_open() -> None:
        one.breaker.open()
        raise ConnectionError

    with suppress(ConnectionError):
        await one.execute(fail_and_open)
    one.breaker.close()


async def iterates(one: ResilientProvider) -> None:
    with suppress(ConnectionError):
        async for attempt in one.attempts():
            async with attempt:
                await fail()


async def iterates_until_break(one: ResilientProvider) -> None:
    async for attempt in one.attempts():
        async with attempt:
            await fail()
        break


async def iterates_into_a_refusal(one: ResilientProvider) -> None:
    one.breaker.open()
    with suppress(CircuitOpen):
        async for attempt in one.attempts():
            async with attempt:
                await ok()
    one.breaker.close()


async def iterates_into_a_timeout(one: ResilientProvider) -> None:
    with suppress(TimeoutError):
        async for attempt in one.with_options(retry=False, attempt_timeout=1).attempts():
            async with attempt:
                await hang()


async def is_nested(one: ResilientProvider) -> None:
    with suppress(ConnectionError):
        await one.execute(one.execute, fail)


async def is_misused(one: ResilientProvider) -> None:
    for wrong in (print, 5, ok()):
        with suppress(TypeError):
            await one.execute(wrong)  # type: ignore[arg-type]


async def succeeds(one: ResilientProvider) -> None:
    assert await one.execute(ok) == "fine"
    assert await one.wrap(ok)() == "fine"


WAYS = [
    succeeds,
    fails,
    fails_finally,
    fails_by_the_callers_mistake,
    fails_under_options,
    fails_as_a_value,
    recovers,
    times_out,
    times_out_under_options,
    is_cancelled,
    is_refused,
    is_refused_before_its_retry,
    iterates,
    iterates_until_break,
    iterates_into_a_refusal,
    iterates_into_a_timeout,
    is_nested,
    is_misused,
]


def on_asyncio(main: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:

        async def begin() -> Any:
            return await main()

        return runner.run(begin())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("errors", ["native", "standard"])
def test_a_call_leaves_no_garbage(
    way: Callable[[ResilientProvider], Awaitable[None]], errors: str, garbage_of: Any
) -> None:
    """However a call ends, its frames, errors and permits are freed at once: no cycle keeps them."""

    async def main() -> list[object]:
        one = provider(errors=errors)

        async def once() -> None:
            with suppress(ResilienceError):
                await way(one)

        return await garbage_of(once)

    assert on_asyncio(main) == []


async def by_the_breaker() -> None:
    breaker = CircuitBreaker("s3", BreakerSettings(failure_threshold=2), clock=asyncio.get_running_loop().time)
    for _ in range(3):
        with suppress(ConnectionError, CircuitOpen):
            await breaker.call(fail)
        with suppress(ConnectionError, CircuitOpen):
            async with breaker:
                await fail()


async def by_the_retry_handler() -> None:
    with suppress(ConnectionError):
        await RetryHandler(TWICE).call(fail)


@pytest.mark.parametrize("way", [by_the_breaker, by_the_retry_handler])
def test_policies_of_their_own_leave_no_garbage(way: Callable[[], Awaitable[None]], garbage_of: Any) -> None:
    """Without a provider around them."""
    assert on_asyncio(lambda: garbage_of(way)) == []


# -- one instance, raised again and again ------------------------------------------------------------------------------


class Load:
    """Something big in a frame of the caller's function."""


STORED: list[weakref.ref[Load]] = []


def raises_one_instance() -> tuple[Exception, Callable[[], Awaitable[None]]]:
    stored = ConnectionError("the connection was lost")

    async def again() -> None:
        load = Load()
        STORED.append(weakref.ref(load))
        raise stored

    return stored, again


def frames(error: BaseException) -> int:
    length, traceback = 0, error.__traceback__
    while traceback is not None:
        length, traceback = length + 1, traceback.tb_next
    return length


async def by_execute(one: ResilientProvider, func: Callable[[], Awaitable[None]]) -> None:
    await one.execute(func)


async def by_execute_without_retry(one: ResilientProvider, func: Callable[[], Awaitable[None]]) -> None:
    await one.with_options(retry=False).execute(func)


async def by_try_execute(one: ResilientProvider, func: Callable[[], Awaitable[None]]) -> None:
    await one.try_execute(func)


async def by_attempts(one: ResilientProvider, func: Callable[[], Awaitable[None]]) -> None:
    async for attempt in one.attempts():
        async with attempt:
            await func()


async def by_a_nested_call(one: ResilientProvider, func: Callable[[], Awaitable[None]]) -> None:
    await one.execute(one.execute, func)


@pytest.mark.parametrize(
    "way, tries",
    [(by_execute, 2), (by_execute_without_retry, 1), (by_try_execute, 2), (by_attempts, 2), (by_a_nested_call, 2)],
)
def test_an_instance_that_is_raised_a_thousand_times_collects_nothing_of_ours(
    way: Callable[[ResilientProvider, Callable[[], Awaitable[None]]], Awaitable[None]], tries: int
) -> None:
    """One note, no chain of contexts, and no more frames than Python itself adds for each raise and each level."""
    stored, again = raises_one_instance()
    STORED.clear()

    async def main() -> None:
        one = provider()
        for _ in range(1000):
            with suppress(ConnectionError):
                await way(one, again)

    on_asyncio(main)
    assert len(STORED) == tries * 1000
    assert len(stored.__notes__) == 1
    assert (stored.__context__, stored.__cause__) == (None, None)
    assert frames(stored) <= 1000 * (tries * 3 + 4)
    stored.__traceback__ = None
    assert not any(load() for load in STORED), "a frame is kept by something else than the traceback"
    STORED.clear()


def test_every_refusal_is_an_instance_of_its_own() -> None:
    """Whoever keeps one refusal does not see another one's traceback in it."""

    async def main() -> list[CircuitOpen]:
        one, refusals = provider(), []
        one.breaker.open()
        for _ in range(3):
            with pytest.raises(CircuitOpen) as caught:
                await one.execute(ok)
            refusals.append(caught.value)
        return refusals

    refusals = on_asyncio(main)
    assert len({id(refusal) for refusal in refusals}) == 3
    assert len({frames(refusal) for refusal in refusals}) == 1
