"""A stream goes on elsewhere until its first item is out, and never after."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from resilience import (
    BreakerSettings,
    CircuitState,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
)
from resilience.errors import AllProvidersFailed, StreamInterrupted
from resilience.events import FellBack
from resilience.routing.fallback import FallbackChain

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.anyio

ONCE = RetrySettings(enabled=False)


class Source:
    """Opens streams of what it was given; an error is raised in its place. It knows what was closed."""

    def __init__(self, *items: Any, seconds: float = 0.0) -> None:
        self.items = items
        self.seconds = seconds
        self.given: list[tuple[Any, ...]] = []
        self.open = 0

    @asynccontextmanager
    async def __call__(self, *args: Any) -> AsyncIterator[AsyncIterator[Any]]:
        self.given.append(args)
        self.open += 1
        try:
            yield self.each()
        finally:
            self.open -= 1

    async def each(self) -> AsyncIterator[Any]:
        for item in self.items:
            await anyio.sleep(self.seconds)
            if isinstance(item, type):
                raise item
            yield item


def chain_of(world: World, **settings: Any) -> tuple[FallbackChain[Any], ResilientProvider, ResilientProvider]:
    registry = world.registry(**{"retry": ONCE, **settings})
    a, b = registry.provider("openai"), registry.provider("anthropic")
    return FallbackChain(a), a, b


async def every(stream: Any) -> list[Any]:
    async with stream as items:
        return [item async for item in items]


async def test_the_first_provider_streams_while_it_can(world: World) -> None:
    """Its items come through, with the arguments given; nobody else is asked."""
    chain, _, b = chain_of(world)
    first, second = Source(1, 2), Source(3)
    assert await every(chain.fallback_to(b, second).stream(first, "x")) == [1, 2]
    assert (first.given, second.given, first.open) == ([("x",)], [], 0)


@pytest.mark.parametrize(
    "broken",
    [Source(ConnectionError), Source(ConnectionError, 1), Source(1, seconds=60)],
    ids=["empty", "at once", "no first item in time"],
)
async def test_before_the_first_item_it_goes_on_elsewhere(world: World, broken: Source) -> None:
    """What breaks before anything is out is begun anew at the next provider, and closed here."""
    chain, a, b = chain_of(world)
    second = Source(3, 4)
    assert await every(chain.fallback_to(b, second).stream(broken, "x")) == [3, 4]
    assert second.given == [("x",)]
    assert (broken.open, a.snapshot().in_flight, b.snapshot().in_flight) == (0, 0, 0)
    assert [event.to for event in world.heard(FellBack)] == ["anthropic"]


async def test_an_open_circuit_is_passed_over_at_once(world: World) -> None:
    """A provider that refuses is not opened, and no time passes."""
    chain, a, b = chain_of(world)
    await world.trip(a)
    first, before = Source(1), anyio.current_time()
    assert await every(chain.fallback_to(b, Source(3)).stream(first)) == [3]
    assert (first.given, anyio.current_time()) == ([], before)


async def test_after_the_first_item_nothing_is_repeated(world: World) -> None:
    """What breaks with items out is `StreamInterrupted`, and no other provider hears of it."""
    chain, a, b = chain_of(world)
    second, came = Source(3), list[int]()
    with pytest.raises(StreamInterrupted):
        async with chain.fallback_to(b, second).fallback_value([9]).stream(Source(1, ConnectionError)) as items:
            async for item in items:
                came = [*came, item]
    assert (came, second.given) == ([1], [])
    assert a.breaker.snapshot().failures_in_a_row == 1


async def test_when_nobody_streams_the_error_tells_of_all(world: World) -> None:
    """As with calls."""
    chain, _, b = chain_of(world)
    with pytest.raises(AllProvidersFailed) as caught:
        await every(chain.fallback_to(b).stream(Source(ConnectionError)))
    assert [name for name, _ in caught.value.outcomes] == ["openai", "anthropic"]


closed: list[str] = []


async def told(error: Exception) -> AsyncIterator[str]:
    try:
        yield "sorry"
        yield type(error).__name__
    finally:
        closed.append("told")


@pytest.mark.parametrize(
    "end, expected",
    [
        (lambda chain: chain.fallback_value(["sorry", "later"]), ["sorry", "later"]),
        (lambda chain: chain.fallback_with(lambda error: ("sorry",)), ["sorry"]),
        (lambda chain: chain.fallback_with(told), ["sorry", "AllProvidersFailed"]),
    ],
    ids=["list", "function", "async generator"],
)
async def test_a_last_resort_stands_for_the_items(world: World, end: Callable[[Any], Any], expected: list[str]) -> None:
    """What can be iterated over, in either way, is the stream; leaving it early is fine."""
    chain, _, b = chain_of(world)
    ends = end(chain.fallback_to(b))
    assert await every(ends.stream(Source(ConnectionError))) == expected
    async with ends.stream(Source(ConnectionError)) as items:
        async for item in items:
            assert item == "sorry"
            break
    assert closed in ([], ["told", "told"])
    closed.clear()


@pytest.mark.parametrize("value", ["sorry", 5, None])
async def test_a_last_resort_that_is_no_stream_is_refused(world: World, value: object) -> None:
    """A text is not taken for a stream of letters."""
    chain, _, _ = chain_of(world)
    with pytest.raises(TypeError, match="something to iterate over"):
        await every(chain.fallback_value(value).stream(Source(ConnectionError)))
    with pytest.raises(TypeError, match="stream"):
        chain.stream(value)  # type: ignore[arg-type]


async def test_leaving_early_or_by_cancellation_leaves_nothing(world: World) -> None:
    """By break, by an exception, by a cancellation at any moment: the source is closed and nothing is held."""
    for patience in (0.5, 1.5, 2.5, 3.5, 4.5, 9):
        chain, a, b = chain_of(world)
        first, second = Source(1, seconds=60), Source(1, 2, 3, seconds=1)
        with anyio.move_on_after(patience):
            await every(
                chain.fallback_to(b, second).stream(first if patience > 4 else Source(ConnectionError, seconds=1))
            )
        assert (first.open, second.open) == (0, 0)
        assert a.snapshot().in_flight == b.snapshot().in_flight == 0
        assert a.breaker.state is b.breaker.state is CircuitState.CLOSED
    with suppress(KeyError):
        async with chain.fallback_to(b, second).stream(Source(ConnectionError)):
            raise KeyError
    assert (second.open, b.snapshot().in_flight) == (0, 0)


async def test_nothing_is_left_for_the_collector() -> None:
    """However a stream ends, no reference cycle keeps its errors."""
    breaker = BreakerSettings(failure_threshold=None, failure_rate=None, slow_rate=None)
    settings = Settings(defaults=ProviderSettings(retry=ONCE, breaker=breaker))
    registry = ProviderRegistry(settings, clock=anyio.current_time)  # one that nobody records
    chain = FallbackChain(registry.provider("openai")).fallback_to("anthropic")
    left: list[weakref.ref[BaseException]] = []

    class Refused(ConnectionError):
        def __init__(self) -> None:
            left.append(weakref.ref(self))

    async def ends() -> None:
        with suppress(AllProvidersFailed):
            await every(chain.stream(Source(Refused)))
        await every(chain.fallback_value(()).stream(Source(Refused)))

    logging.disable(logging.CRITICAL)  # a log that is captured keeps each error's traceback
    gc.disable()
    try:
        await ends()
        assert len(left) == 4
        assert [ref() for ref in left] == [None] * 4
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
