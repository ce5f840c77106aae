"""Calls of other event loops and threads, and a fork in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    BulkheadSettings,
    CallTimeout,
    ProviderRegistry,
    ProviderSettings,
    RetrySettings,
    Settings,
    ShutdownReport,
    ShuttingDown,
)

pytestmark = [pytest.mark.real_time, pytest.mark.parametrize("elsewhere", ["asyncio", "trio"])]

FOREVER = 3600


def registry_of(**settings: Any) -> ProviderRegistry:
    return ProviderRegistry(Settings(defaults=ProviderSettings(retry=RetrySettings(base_delay=60), **settings)))


@contextmanager
def running(backend: str, *calls: Callable[[], Awaitable[object]]) -> Generator[list[object]]:
    """Have each of *calls* under way in a thread and a loop of its own; the list gets how they ended."""
    ends: list[object] = []

    async def note(call: Callable[[], Awaitable[object]]) -> None:
        try:
            ends.append(await call())
        except Exception as error:
            ends.append(error)

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(anyio.run, note, call, backend=backend) for call in calls]
        yield ends
        for future in futures:
            future.result(timeout=30)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until another thread has come so far."""
    over = threading.Event()
    for _ in range(6000):
        if condition():
            return
        over.wait(0.005)
    raise AssertionError


@pytest.mark.anyio
async def test_calls_of_other_threads_are_interrupted(elsewhere: str) -> None:
    """Whatever loop an attempt runs on, it ends there as it would here."""
    registry = registry_of()
    provider = registry.provider("s3")
    await provider.execute(anyio.sleep, 0)
    call = lambda: provider.execute(anyio.sleep, FOREVER)  # noqa: E731
    with running(elsewhere, call, call) as ends:
        await anyio.to_thread.run_sync(wait_for, lambda: provider.snapshot().in_flight == 2)
        report = await registry.shutdown(grace=0, cancel=20)
    assert [isinstance(end, CallTimeout) and end.scope for end in ends] == ["shutdown", "shutdown"]
    assert (report.interrupted, report.abandoned) == (2, 0)


@pytest.mark.anyio
async def test_calls_of_other_threads_may_finish(elsewhere: str) -> None:
    """The end of an attempt in another thread ends the wait for it."""
    registry = registry_of()
    provider = registry.provider("s3")
    free = threading.Event()

    async def work() -> str:
        while not free.is_set():  # noqa: ASYNC110
            await anyio.sleep(0.001)
        return "done"

    with running(elsewhere, lambda: provider.execute(work)) as ends:
        await anyio.to_thread.run_sync(wait_for, lambda: provider.snapshot().in_flight == 1)
        async with anyio.create_task_group() as group:
            reports: list[ShutdownReport] = []

            async def shut_down() -> None:
                reports.append(await registry.shutdown(grace=20))

            group.start_soon(shut_down)
            while not registry.stopping:
                await anyio.lowlevel.checkpoint()
            free.set()
    assert ends == ["done"]
    assert (reports[0].finished, reports[0].interrupted) == (1, 0)


@pytest.mark.anyio
async def test_those_who_wait_in_other_threads(elsewhere: str) -> None:
    """Asleep in back-off or in a line of another thread: they are sent away there."""

    async def fail() -> None:
        raise ConnectionResetError

    registry = registry_of(bulkhead=BulkheadSettings(max_concurrent=1, max_queue=9, max_wait=60))
    provider, other = registry.provider("s3"), registry.provider("other")
    hold = await provider.hold(anyio.sleep, 0)
    calls = (lambda: provider.execute(anyio.sleep, 0), lambda: other.execute(fail))
    with running(elsewhere, *calls) as ends:
        await anyio.to_thread.run_sync(
            wait_for, lambda: provider.snapshot().waiting == 1 and other.snapshot().waiting == 1
        )
        report = await registry.shutdown(grace=0, cancel=0)
        hold.end()
    assert {type(end) for end in ends} == {ShuttingDown, ConnectionResetError}
    assert (report.abandoned, report.interrupted) == (1, 0)


@pytest.mark.anyio
async def test_streams_of_other_threads(elsewhere: str) -> None:
    """A stream in another thread is interrupted there."""
    registry = registry_of()
    provider = registry.provider("s3")

    async def items() -> Any:
        yield 1
        await anyio.sleep(FOREVER)

    async def read() -> None:
        async with provider.stream(items) as stream:
            async for _ in stream:
                pass

    with running(elsewhere, read) as ends:
        await anyio.to_thread.run_sync(wait_for, lambda: len(provider._runtime.held) == 1)
        await anyio.sleep(0.01)
        report = await registry.shutdown(grace=0, cancel=20)
    assert "stream interrupted after 1 item" in str(ends[0])
    assert (report.interrupted, report.abandoned) == (1, 0)


def test_no_call_slips_through(elsewhere: str) -> None:
    """Once the shutdown has ended nothing runs any more, also of those who called in a hurry in other threads."""
    for _ in range(20):
        registry = registry_of()
        provider = registry.provider("s3")
        running_now: set[object] = set()

        async def work(running_now: set[object] = running_now) -> None:
            running_now.add(key := object())
            await anyio.lowlevel.checkpoint()
            running_now.discard(key)

        async def hurry(provider: Any = provider, work: Any = work) -> str:
            while True:
                try:
                    await provider.execute(work)
                except ShuttingDown:
                    return "refused"

        with running(elsewhere, hurry, hurry) as ends:
            wait_for(lambda provider=provider: provider.snapshot().calls > 20)
            report = anyio.run(registry.shutdown)
            assert not running_now
            assert provider.snapshot().in_flight == 0
        assert ends == ["refused", "refused"]
        assert report.clean


@pytest.mark.anyio
async def test_a_loop_that_is_busy(elsewhere: str) -> None:
    """A thread may be about to make a call that it was admitted for: it is heard before the shutdown ends."""
    registry = registry_of()
    provider = registry.provider("s3")
    blocked, free = threading.Event(), threading.Event()

    async def busy() -> None:
        await provider.execute(anyio.sleep, 0)
        blocked.set()
        free.wait(30)
        await anyio.lowlevel.checkpoint()

    with running(elsewhere, busy):
        await anyio.to_thread.run_sync(blocked.wait, 30)
        async with anyio.create_task_group() as group:
            reports: list[ShutdownReport] = []

            async def shut_down() -> None:
                reports.append(await registry.shutdown(grace=20))

            group.start_soon(shut_down)
            for _ in range(20):
                await anyio.sleep(0.001)
            assert registry.stopping
            assert reports == []
            free.set()
    assert reports[0].clean


def test_a_loop_that_was_closed(elsewhere: str) -> None:
    """Calls whose loop was closed over them are not waited for."""
    registry = registry_of()
    provider = registry.provider("s3")
    if elsewhere == "trio":  # trio ends its tasks before it ends
        assert anyio.run(registry.shutdown, backend="trio").seconds < 10
        return
    loop = asyncio.new_event_loop()
    task = loop.create_task(provider.execute(asyncio.sleep, FOREVER))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    report = anyio.run(registry.shutdown)
    assert (report.abandoned, report.clean) == (0, True)
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_forked_child_starts_open(elsewhere: str) -> None:
    """A worker that is forked from a process that is shutting down serves as if nothing had been; adapters stay."""
    registry = registry_of()
    closed: list[int] = []

    async def close() -> None:
        closed.append(os.getpid())

    async def child() -> tuple[bool, int]:
        assert not registry.stopping
        over.on_close(close)
        assert await over.shutdown() is not before
        closed.clear()
        await registry.provider("s3").execute(anyio.sleep, 0)
        report = await registry.shutdown()
        return report.clean, len(closed)

    registry.on_close(close)
    provider = registry.provider("s3")

    async def parent() -> int:
        with anyio.move_on_after(0.01):
            async with anyio.create_task_group() as group:
                group.start_soon(provider.try_execute, anyio.sleep, FOREVER)
                while not provider.snapshot().in_flight:
                    await anyio.lowlevel.checkpoint()
                await registry.shutdown()
        return len(closed)

    assert anyio.run(parent, backend=elsewhere) == 0
    assert registry.stopping
    over = registry_of()
    before = anyio.run(over.shutdown, backend=elsewhere)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, where any thread is left
        is_child = not os.fork()
    if is_child:
        try:
            answer: object = anyio.run(child, backend=elsewhere)
        except BaseException as error:
            answer = repr(error)
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert json.loads(pipe.read()) == [True, 1]
    os.wait()
    assert registry.stopping


def test_one_shutdown_for_all_threads(elsewhere: str) -> None:
    """Whoever asks for it from another thread at the same time waits for the same one."""
    for _ in range(20):
        registry = registry_of()
        closed: list[int] = []

        async def close(closed: list[int] = closed) -> None:
            closed.append(1)
            await anyio.sleep(0.002)

        registry.on_close(close)
        with running(elsewhere, *[registry.shutdown] * 4) as ends:
            pass
        assert ends == [ends[0]] * 4
        assert all(end is ends[0] for end in ends)
        assert closed == [1]
