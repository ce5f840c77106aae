"""How a stream's source is closed, and what stays behind of a stream: nothing."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    BreakerSettings,
    BudgetSettings,
    CallTimeout,
    CircuitState,
    ProviderRegistry,
    ProviderSettings,
    RetrySettings,
    Settings,
    StreamInterrupted,
    StreamSettings,
)
from resilience.streaming.source import Source
from resilience.testing import cancelled_everywhere
from resilience.testing.endings import watched

pytestmark = pytest.mark.anyio

RETRIES = RetrySettings(jitter="none", base_delay=2)
# What is missing of the budget in the end was charged and not refunded.
BUDGET = BudgetSettings(ratio=0, floor_per_second=1e-9, floor_burst=5)
IDLE = StreamSettings(idle=2)


class Place:
    """Where sources come from: it counts those that are open, and those whose closing was not disturbed."""

    def __init__(self) -> None:
        self.open = self.opened = self.tidied = 0

    async def items(self, *steps: object) -> AsyncIterator[object]:
        self.open += 1
        self.opened += 1
        try:
            for step in steps:
                if isinstance(step, float):
                    await anyio.sleep(step)
                elif isinstance(step, type) and issubclass(step, BaseException):
                    raise step
                else:
                    yield step
        finally:
            self.open -= 1
            await anyio.sleep(0.5)
            self.tidied += 1

    @asynccontextmanager
    async def manager(self, *steps: object) -> AsyncIterator[AsyncIterator[object]]:
        await anyio.sleep(0.1)
        self.open += 1
        self.opened += 1
        try:
            yield Cursor(steps)
        finally:
            self.open -= 1
            await anyio.sleep(0.5)
            self.tidied += 1


class Cursor:
    def __init__(self, steps: tuple[object, ...]) -> None:
        self.steps = list(steps)

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> object:
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, float):
                await anyio.sleep(step)
            elif isinstance(step, type) and issubclass(step, BaseException):
                raise step
            else:
                return step
        raise StopAsyncIteration


def stream(provider: Any, func: Callable[..., Any], *args: Any) -> Any:
    return provider.stream(func, *args)


async def read(provider: Any, func: Callable[..., Any], *args: Any, pause: float = 0.0) -> list[object]:
    got = []
    async with stream(provider, func, *args) as items:
        async for item in items:
            got.append(item)
            await anyio.sleep(pause)
    return got


def on_asyncio() -> bool:
    return asyncio._get_running_loop() is not None


KINDS = ("items", "manager")


# -- closing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_is_shielded(world, kind: str) -> None:
    """A consumer that is cancelled between two items leaves a source that could close itself in peace."""
    place = Place()
    with anyio.move_on_after(1):
        await read(world.provider(), getattr(place, kind), "a", "b", pause=5)
    assert (place.opened, place.open, place.tidied) == (1, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_is_bounded(world, kind: str) -> None:
    """A source that does not come to an end is left after five seconds; what the block ended with stands."""

    class Hanging(Place):
        async def hang(self) -> AsyncIterator[object]:
            try:
                yield "a"
            finally:
                await anyio.sleep(1000)

        @asynccontextmanager
        async def hang_around(self) -> AsyncIterator[AsyncIterator[object]]:
            try:
                yield Cursor(("a", "b"))
            finally:
                await anyio.sleep(1000)

    provider, place, began = world.provider(), Hanging(), anyio.current_time()
    async with stream(provider, place.hang if kind == "items" else place.hang_around) as items:
        assert await anext(items) == "a"
    assert anyio.current_time() - began == pytest.approx(5)
    assert provider.snapshot().in_flight == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_while_closing(world, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """What closing raises is logged, and takes nothing away from what has come."""

    async def items() -> AsyncIterator[object]:
        try:
            yield "a"
        finally:
            raise OSError("closing")

    @asynccontextmanager
    async def manager() -> AsyncIterator[AsyncIterator[object]]:
        yield Cursor(("a",))
        raise OSError("closing")

    provider = world.provider()
    async with stream(provider, items if kind == "items" else manager) as stream_items:
        assert await anext(stream_items) == "a"
    assert [record.getMessage() for record in caplog.records if record.name == "resilience.stream"] == [
        "a source could not be closed"
    ]
    assert provider.snapshot().in_flight == 0


async def test_a_context_manager_cannot_swallow_an_error(world) -> None:
    """What a context manager makes of an error is its own affair: the caller learns of the error."""

    @asynccontextmanager
    async def lenient() -> AsyncIterator[AsyncIterator[object]]:
        with suppress(ConnectionResetError):
            yield Cursor(("a", ConnectionResetError))

    with pytest.raises(StreamInterrupted):
        await read(world.provider(), lenient)


async def test_a_context_manager_with_tasks_of_its_own(world) -> None:
    """On asyncio it may keep a task group open while it is entered."""

    @asynccontextmanager
    async def connection(*steps: object) -> AsyncIterator[AsyncIterator[object]]:
        send, receive = anyio.create_memory_object_stream[object](10)
        async with anyio.create_task_group() as tasks:

            async def produce() -> None:
                async with send:
                    for step in steps:
                        await anyio.sleep(1)
                        await send.send(step)

            tasks.start_soon(produce)
            async with receive:
                yield receive
            tasks.cancel_scope.cancel()

    if on_asyncio():
        provider = world.provider()
        with anyio.fail_after(50):
            assert await read(provider, connection, "a", "b") == ["a", "b"]
            async with stream(provider, connection, "a", "b") as items:
                assert await anext(items) == "a"
            with anyio.move_on_after(1.5) as scope:
                await read(provider, connection, "a", "b")
            assert scope.cancelled_caught
            with pytest.raises(RuntimeError, match="mine"):
                async with stream(provider, connection, "a", "b"):
                    raise RuntimeError("mine")
        await anyio.sleep(1)
        assert provider.snapshot().in_flight == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_block_within_a_generator(world, kind: str) -> None:
    """A generator that hands the items on may be closed early: the stream ends with it."""
    provider, place = world.provider(), Place()

    async def serve() -> AsyncIterator[object]:
        async with stream(provider, getattr(place, kind), "a", "b") as items:
            async for item in items:
                yield item

    answer = serve()
    assert await anext(answer) == "a"
    await answer.aclose()  # type: ignore[attr-defined]
    assert (place.open, place.tidied, provider.snapshot().in_flight) == (0, 1, 0)
    assert provider.snapshot().breaker.calls == 0


async def test_a_generator_that_is_closed_elsewhere(world) -> None:
    """It may also be closed by another task, as a server does when its client has gone."""
    provider, place = world.provider(), Place()

    async def serve() -> AsyncIterator[object]:
        async with stream(provider, place.items, "a", "b") as items:
            async for item in items:
                yield item

    answer = serve()
    assert await anext(answer) == "a"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer.aclose)  # type: ignore[attr-defined]
    assert (place.open, provider.snapshot().in_flight) == (0, 0)
    async with anyio.create_task_group():
        await anyio.sleep(1)


# -- whose cancellation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_our_interruption_is_taken_back(world, kind: str) -> None:
    """After an idle timeout the task is as it was: what encloses the block goes on."""
    provider = world.provider(stream=IDLE)
    with anyio.fail_after(100):
        async with anyio.create_task_group() as tasks:
            with pytest.raises(StreamInterrupted) as caught:
                await read(provider, getattr(Place(), kind), "a", 1000.0)
            assert isinstance(caught.value.__cause__, CallTimeout)
            if on_asyncio():
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() == 0
            await anyio.sleep(1)
            assert not tasks.cancel_scope.cancel_called


@pytest.mark.parametrize("kind", KINDS)
async def test_a_timeout_of_the_consumer(world, kind: str) -> None:
    """The body may have timeouts of its own round a request: they are its own affair."""
    provider = world.provider()
    async with stream(provider, getattr(Place(), kind), "a", 10.0, "b") as items:
        assert await anext(items) == "a"
        with pytest.raises(TimeoutError), anyio.fail_after(5):
            await anext(items)
    now = provider.snapshot()
    assert (now.breaker.failed, now.in_flight, now.timeouts) == (0, 0, 0)


async def test_a_request_that_is_made_again(world) -> None:
    """Where the source can bear it, a request that the consumer has given up can be made again: nothing is lost."""
    send, receive = anyio.create_memory_object_stream[str](10)
    provider = world.provider()
    with send:
        send.send_nowait("a")
        async with stream(provider, lambda: receive) as items:
            assert await anext(items) == "a"
            for _ in range(2):
                with anyio.move_on_after(5):
                    await anext(items)
            send.send_nowait("b")
            assert await anext(items) == "b"
            send.close()
            with pytest.raises(StopAsyncIteration):
                await anext(items)
    assert (provider.snapshot().breaker.calls, provider.snapshot().breaker.failed) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_interruption_that_the_body_catches(world, kind: str) -> None:
    """A body that catches our interruption ends well, and the provider has still been silent."""
    provider = world.provider(stream=IDLE)
    async with stream(provider, getattr(Place(), kind), "a", 1000.0) as items:
        with suppress(CallTimeout, asyncio.CancelledError):
            async for _ in items:
                pass
    now = provider.snapshot()
    assert (now.breaker.failed, now.timeouts, now.in_flight) == (1, 1, 0)
    if on_asyncio():
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_both_at_once(world, kind: str) -> None:
    """A caller that gives up in the moment in which our limit passes has given up."""
    provider = world.provider(stream=IDLE)
    with anyio.move_on_after(2) as scope:
        await read(provider, getattr(Place(), kind), "a", 1000.0)
    assert scope.cancelled_caught
    assert provider.snapshot().breaker.failed == 0


@pytest.mark.parametrize("kind", ["generator", "iterator"])
async def test_a_source_that_goes_on_all_the_same(world, kind: str) -> None:
    """A source that swallows our interruption and delivers is heard; nothing of the interruption is left."""
    provider = world.provider(stream=IDLE)

    async def stubborn() -> AsyncIterator[str]:
        yield "a"
        yield "and"
        with suppress(asyncio.CancelledError):
            await anyio.sleep(1000)
        yield "b"
        await anyio.sleep(1.5)
        yield "c"
        await anyio.sleep(1000)

    class Wrapped:
        def __init__(self) -> None:
            self.inner = stubborn()

        def __aiter__(self) -> Wrapped:
            return self

        async def __anext__(self) -> str:
            return await anext(self.inner)

    if not on_asyncio():
        return
    got = []
    with pytest.raises(StreamInterrupted) as caught:
        async with stream(provider, stubborn if kind == "generator" else Wrapped) as items:
            async for item in items:
                got.append(item)
                await asyncio.sleep(0.5)
    task = asyncio.current_task()
    assert task is not None
    assert (got, caught.value.count, task.cancelling()) == (["a", "and", "b", "c"], 4, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_items_that_are_read_by_another_task(world, kind: str) -> None:
    """The block's own task is the one that is interrupted, wherever the items go."""
    provider, place = world.provider(stream=IDLE), Place()

    async def consume(items: Any) -> None:
        async for _ in items:
            pass

    with pytest.raises(StreamInterrupted if on_asyncio() else ExceptionGroup):
        async with stream(provider, getattr(place, kind), "a", 1000.0) as items, anyio.create_task_group() as tasks:
            tasks.start_soon(consume, items)
    assert (place.open, provider.snapshot().in_flight) == (0, 0)
    assert provider.snapshot().breaker.failed == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_in_another_task(world, kind: str) -> None:
    """An error that arrives in a group of the body's own comes out in it; it is the provider's all the same."""
    provider = world.provider()

    async def consume(items: Any) -> None:
        async for _ in items:
            pass

    with pytest.raises(ExceptionGroup) as caught:
        async with (
            stream(provider, getattr(Place(), kind), "a", ConnectionResetError) as items,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(consume, items)
    assert isinstance(caught.value.exceptions[0], ConnectionResetError)
    assert provider.snapshot().breaker.failed == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wait", [2.0, 2.5])
async def test_cancelled_while_being_interrupted(world, kind: str, wait: float) -> None:
    """A cancellation of the task that meets ours wins: it comes out as what it is."""

    class Tidying(Cursor):
        async def __anext__(self) -> object:
            try:
                return await super().__anext__()
            except asyncio.CancelledError:
                await anyio.sleep(1)
                raise

    async def tidying(*steps: object) -> AsyncIterator[object]:
        async for item in Tidying(steps):
            yield item

    if not on_asyncio():
        return
    provider = world.provider(stream=IDLE)
    func = tidying if kind == "items" else Tidying
    steps = ("a", 1000.0) if kind == "items" else (("a", 1000.0),)
    task = asyncio.create_task(read(provider, func, *steps))
    await anyio.sleep(wait)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert task.cancelling() == 1
    assert provider.snapshot().breaker.failed == 0


async def test_a_timeout_of_the_source(world) -> None:
    """A timeout of the source's own is its own error, not ours."""
    with pytest.raises(TimeoutError) as caught:
        await read(world.provider().with_options(retry=False), Place().items, TimeoutError)
    assert not isinstance(caught.value, CallTimeout)


async def test_an_unwanted_source() -> None:
    """Whoever opens a source and does not want it can close it."""
    place = Place()
    source: Source[object] = Source()
    await source.aclose()
    await source.open(place.items, ("a",), {})
    await source.read(None)
    assert place.open == 1
    await source.aclose()
    await source.aclose()
    assert (place.open, place.tidied, source.buffer) == (0, 1, ["a"])


async def test_a_source_that_cannot_be_closed(world) -> None:
    """One without any way to close it is left as it is; a synchronous one is used."""
    closed = []

    class Closable(Cursor):
        def close(self) -> None:
            closed.append(True)

    assert await read(world.provider(), lambda: Cursor(("a", "b"))) == ["a", "b"]
    assert await read(world.provider(), lambda: Closable(("a", "b"))) == ["a", "b"]
    assert closed == [True]


# -- what stays behind -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["end", "cut", "idle", "break", "error", "total"])
async def test_nothing_stays_behind(kind: str, ending: str, request: pytest.FixtureRequest) -> None:
    """However a stream ends, its parts are free without the collector's help."""
    logging.disable()  # what is logged is kept by the test
    request.addfinalizer(lambda: logging.disable(logging.NOTSET))
    provider = ProviderRegistry(
        Settings(defaults=ProviderSettings(stream=StreamSettings(idle=2, total=50))), clock=anyio.current_time
    ).provider("openai")
    steps = {"cut": ("a", ConnectionResetError), "idle": ("a", 1000.0), "total": ("a", "b")}.get(ending, ("a", "b"))
    left: list[weakref.ref[Any]] = []

    class Item:
        """Something that a reference can be held to."""

    async def follow() -> None:
        item = Item()
        left.append(weakref.ref(item))
        async with stream(provider, getattr(Place(), kind), item, *steps) as items:
            left.append(weakref.ref(items._hold))
            async for _ in items:
                if ending == "break":
                    break
                if ending == "error":
                    raise LookupError
                if ending == "total":
                    await anyio.sleep(60)

    await anyio.lowlevel.checkpoint()
    gc.collect()
    gc.disable()
    try:
        with suppress(LookupError, StreamInterrupted):
            await follow()
        await anyio.lowlevel.checkpoint()
        assert [ref() for ref in left] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_coroutine_that_is_closed(world, kind: str) -> None:
    """A coroutine that is closed cannot wait for its source to close; what the stream held is back all the same."""

    class Sudden(Place):
        async def quick(self, *steps: object) -> AsyncIterator[object]:
            for step in steps:
                yield step

    provider, place = world.provider(), Sudden()
    func = place.manager if kind == "manager" else place.quick
    body = read(provider, func, "a", "b", pause=1.0)

    class Enough(BaseException):
        """Far enough."""

    def suspended() -> None:
        if provider.snapshot().in_flight and anyio.current_time() - began >= (0.1 if kind == "manager" else 0):
            raise Enough

    began = anyio.current_time()
    with pytest.raises(Enough):
        await watched(body, suspended)
    if kind == "manager":
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            body.close()
    else:
        body.close()
    assert (provider.snapshot().in_flight, provider.snapshot().breaker.calls) == (0, 0)
    with suppress(BaseException):
        body.throw(RuntimeError)


SCENES = {
    "whole": ("a", 0.9, "b"),
    "first item": (0.9, "a"),
    "retried": (1.0, ConnectionResetError),
    "cut": ("a", 1.0, ConnectionResetError),
    "idle": ("a", 1000.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("probe", [False, True], ids=["closed", "half-open"])
async def test_cancelled_anywhere(world, kind: str, scene: str, probe: bool) -> None:
    """Wherever a stream is cancelled, its source is closed and permit, probe, place and budget are back."""
    for ending in cancelled_everywhere():
        breaker = BreakerSettings(jitter=0, success_threshold=1)
        provider = world.provider(retry=RETRIES, budget=BUDGET, breaker=breaker, stream=IDLE)
        if probe:
            await world.trip(provider)
            await anyio.sleep(61)
        place, calls = Place(), itertools.count()

        def opening(*steps: object, place: Place = place, calls: Any = calls) -> Any:
            next(calls)
            return getattr(place, kind)(*steps)

        async def act(provider: Any = provider, opening: Any = opening) -> None:
            with suppress(StreamInterrupted, ConnectionResetError):
                await read(provider, opening, *SCENES[scene], pause=0.5)

        reached = await ending(act)
        now = provider.snapshot()
        assert (place.open, now.in_flight, now.breaker.probes) == (0, 0, 0), ending
        assert not provider._runtime.probing
        assert not provider._runtime.waiting
        assert 5 - now.retries_available == pytest.approx(max(0, next(calls) - 1), abs=1e-3)
        if probe and not reached:
            expected = CircuitState.CLOSED if scene in ("whole", "first item") else CircuitState.OPEN
            assert now.breaker.state is expected
    assert ending.suspension > 2
