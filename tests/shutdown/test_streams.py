"""Streams, and what else is held open, when the registry goes down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilience import CallTimeout, ProviderSettings, StreamInterrupted, StreamSettings, failure_of
from resilience.failure import FailureKind
from resilience.hold import Hold

pytestmark = pytest.mark.anyio


async def generated(count: int, pause: float) -> AsyncIterator[int]:
    """Items of an async generator."""
    for number in range(count):
        await anyio.sleep(pause)
        yield number


class Iterated:
    """Items of any other kind of source."""

    def __init__(self, count: int, pause: float) -> None:
        self.left = count
        self.pause = pause

    def __aiter__(self) -> Iterated:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        await anyio.sleep(self.pause)
        self.left -= 1
        return self.left


async def read(scene: Any, source: Any, count: int, pause: float, *, body: float = 0) -> int:
    """Read a stream to its end; *body*: what happens with each item takes so long."""
    read = 0
    async with scene.provider.stream(source, count, pause) as items:
        async for _ in items:
            await anyio.sleep(body)
            read += 1
    return read


SOURCES = pytest.mark.parametrize("source", [generated, Iterated])
LIMITS = pytest.mark.parametrize("idle", [30, None])


@SOURCES
async def test_a_stream_may_finish(scene: Any, source: Any) -> None:
    """A stream that ends within the grace is whole, and the shutdown waits for its end."""
    async with scene.under_way(call=lambda: read(scene, source, 10, 0.5)) as began:
        report = await scene.shut_down()
        assert anyio.current_time() == pytest.approx(began + 4)
    assert scene.end() == 10
    assert (report.finished, report.interrupted) == (1, 0)


@LIMITS
@SOURCES
@pytest.mark.parametrize("pause, body", [(1.0, 0.0), (0.1, 4.0)], ids=["waiting", "in the body"])
async def test_a_stream_that_needs_longer(
    scene: Any, source: Any, idle: float | None, pause: float, body: float
) -> None:
    """It is interrupted, whoever is at work: its end says how much came and why there was no more."""
    scene.use(stream=StreamSettings(idle=idle))
    async with scene.under_way(call=lambda: read(scene, source, 1000, pause, body=body)):
        report = await scene.shut_down()
    error = scene.end()
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.__cause__, CallTimeout)
    assert (error.__cause__.scope, error.__cause__.limit) == ("shutdown", 20)
    failure = failure_of(error)
    assert failure is not None
    assert failure.kind is FailureKind.INTERRUPTED
    assert (report.finished, report.interrupted, report.abandoned) == (0, 1, 0)
    assert report.seconds < 25
    now = scene.provider.snapshot()
    assert (now.breaker.failed, now.in_flight) == (0, 0)


@SOURCES
async def test_a_body_that_is_slow_to_leave(scene: Any, source: Any) -> None:
    """What the body still does when it is interrupted does not make it the caller's own cancellation."""

    async def call() -> None:
        async with scene.provider.stream(source, 1000, 0.1) as items:
            async for _ in items:
                try:
                    await anyio.sleep(60)
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(3)

    async with scene.under_way(call=call):
        await scene.shut_down(cancel=60)
    error = scene.end()
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.__cause__, CallTimeout)


async def test_a_stream_that_is_being_closed(scene: Any) -> None:
    """Whoever has left it already, and only waits until its source is closed, is not interrupted any more."""
    closed = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(18)
        finally:
            await anyio.sleep(3)
            closed.append(True)

    async def call() -> str:
        async with scene.provider.stream(source) as items:
            await anext(items)
            await anext(items)
        return "left"

    async with scene.under_way(call=call):
        report = await scene.shut_down(grace=18)
    assert (scene.end(), closed) == ("left", [True])
    assert (report.interrupted, report.abandoned) == (1, 0)  # without a result: nobody read it to its end


@SOURCES
async def test_a_stream_without_resilience(scene: Any, source: Any) -> None:
    """Of a provider that is disabled nobody knows anything, and nothing is interrupted."""
    scene.use(enabled=False)
    async with scene.under_way(call=lambda: read(scene, source, 30, 1)):
        assert (await scene.shut_down()).seconds == 0
    assert scene.end() == 30


async def test_what_is_held_is_waited_for(scene: Any) -> None:
    """A held attempt counts as one in flight, on the fast path as well."""
    await scene.warm()
    hold: Hold[None] = await scene.provider.hold(anyio.sleep, 0)

    async def end() -> None:
        await anyio.sleep(8)
        hold.end()

    async with scene.under_way(call=end) as began:
        report = await scene.shut_down()
        assert anyio.current_time() == pytest.approx(began + 7)
    assert (report.finished, report.abandoned) == (1, 0)


async def test_what_is_held_for_too_long_is_abandoned(scene: Any) -> None:
    """Nobody can interrupt what is merely held: it is left, and counted, unless it says how."""
    hold: Hold[None] = await scene.provider.hold(anyio.sleep, 0)
    report = await scene.shut_down()
    assert (report.abandoned, report.seconds) == (1, pytest.approx(25))
    hold.end()


async def test_what_is_held_may_say_how_to_end_it(scene: Any) -> None:
    """`Hold.interruptible` is called once the grace is over, with its length."""
    hold: Hold[None] = await scene.provider.hold(anyio.sleep, 0)
    told: list[float] = []

    def interrupt(grace: float) -> None:
        told.append(grace)
        hold.end(TimeoutError())

    hold.interruptible(interrupt)
    report = await scene.shut_down(grace=2)
    assert (told, report.interrupted, report.seconds) == ([2], 1, pytest.approx(2))
    hold.interruptible(interrupt)  # it has ended: nothing happens


async def test_a_stream_that_was_dropped(scene: Any) -> None:
    """A stream that was opened by hand and forgotten is not kept alive in order to be interrupted."""
    stream = scene.provider.stream(Iterated, 10, 1)
    items = await stream.__aenter__()
    assert scene.provider.snapshot().in_flight == 1
    await anyio.sleep(1)  # trio may keep a task's frames from one pause to the next
    with pytest.warns(ResourceWarning, match="dropped"):
        del stream, items
    report = await scene.shut_down()
    assert (report.abandoned, report.seconds) == (0, 0)


async def test_hedged_streams(scene: Any) -> None:
    """What a hedged stream holds is interrupted, too."""
    scene.use(hedge={"enabled": True}, retry={"enabled": False})
    provider = scene.provider.with_options(idempotent=True)
    assert isinstance(provider.settings, ProviderSettings)

    async def call() -> None:
        async with provider.stream(generated, 1000, 1) as items:
            async for _ in items:
                pass

    async with scene.under_way(after=3, call=call):
        report = await scene.shut_down()
    assert isinstance(scene.end(), StreamInterrupted)
    assert report.interrupted == 1
