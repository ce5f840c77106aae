"""Virtual time: what a test may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import threading
import time

import anyio
import pytest

from resilience.testing import DeadlockError, VirtualTimeLoop, run, virtual_backend
from resilience.testing.run import Backend

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.mark.anyio
async def test_a_year_takes_no_time() -> None:
    """Sleeping moves the clock by the time slept: exactly, as far as floats go."""
    await anyio.sleep(86_400)
    assert anyio.current_time() == 86_400
    await anyio.sleep(364 * 86_400)
    assert anyio.current_time() == pytest.approx(365 * 86_400, abs=1e-6)


@pytest.mark.anyio
async def test_timers_fire_in_order_and_on_time() -> None:
    """Every sleeper wakes at its own time, in order of time."""
    woken: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append((seconds, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for seconds in (30.0, 0.001, 7.5, 3600.0):
            group.start_soon(sleeper, seconds)
    assert [seconds for seconds, _ in woken] == [0.001, 7.5, 30.0, 3600.0]
    assert [now for _, now in woken] == pytest.approx([0.001, 7.5, 30.0, 3600.0])


@pytest.mark.anyio
async def test_deadlines_interrupt_on_time() -> None:
    """A timeout ends a longer sleep at its deadline."""
    with anyio.move_on_after(5) as scope:
        await anyio.sleep(60)
    assert scope.cancelled_caught
    assert anyio.current_time() == 5


@pytest.mark.anyio
async def test_a_very_busy_program_stays_at_its_instant() -> None:
    """Ten thousand turns without a wait do not let a timeout pass."""
    with anyio.fail_after(0.000_001):
        for _ in range(10_000):
            await anyio.lowlevel.checkpoint()
    assert anyio.current_time() == 0


@BACKENDS
def test_each_run_has_its_own_clock(backend: Backend) -> None:
    """A run starts at time zero whatever ran before it."""

    async def nap() -> float:
        began = anyio.current_time()
        await anyio.sleep(10)
        return began

    assert [run(nap, backend=backend) for _ in range(2)] == [0, 0]


@BACKENDS
def test_a_deadlock_is_an_error_that_names_the_task(backend: Backend) -> None:
    """Waiting for what nobody will ever do raises, and tells where."""

    async def wait_for_godot() -> None:
        await anyio.sleep(3)
        await anyio.Event().wait()

    with pytest.raises(DeadlockError, match=r"virtual time 3 s.*(.|\n)*wait_for_godot(.|\n)*test_clock"):
        run(wait_for_godot, backend=backend)


@BACKENDS
def test_sleeping_for_ever_is_a_deadlock(backend: Backend) -> None:
    """A sleep without an end does not keep the clock running for ever."""
    with pytest.raises(DeadlockError):
        run(anyio.sleep_forever, backend=backend)


@BACKENDS
def test_a_deadlock_runs_the_clean_up(backend: Backend) -> None:
    """The tasks that a deadlock ends still get their ``finally``."""
    cleaned: list[str] = []

    async def stuck() -> None:
        try:
            await anyio.Event().wait()
        finally:
            cleaned.append("up")

    with pytest.raises(DeadlockError):
        run(stuck, backend=backend)
    assert cleaned == ["up"]


@pytest.mark.anyio
async def test_never_can_be_cancelled() -> None:
    """A sleep without an end, under a timeout, ends with the timeout."""
    with anyio.move_on_after(2):
        await anyio.sleep(math.inf)
    assert anyio.current_time() == 2


@pytest.mark.anyio
async def test_worker_threads_may_wake_the_loop() -> None:
    """A loop that waits for a thread alone is not deadlocked."""
    done = threading.Event()
    threading.Timer(0.05, done.set).start()
    assert await anyio.to_thread.run_sync(done.wait, 5)


def test_an_unheeded_cancellation_does_not_stop_the_clock() -> None:
    """A task that swallows every cancellation of an anyio scope still sees time pass, if a tenth too much."""
    ends: list[float] = []

    async def stubborn() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            while anyio.current_time() < 3600:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
            ends.append(anyio.current_time())

    began = time.process_time()
    run(stubborn)
    assert 3600 <= ends[0] <= 3600 * 1.1
    assert time.process_time() - began < 5


def test_an_unheeded_cancellation_lets_others_wake_on_time() -> None:
    """While one task waits, cancelled, for another to clean up, the other's sleeps end exactly when they should."""
    woken: list[float] = []

    async def tidy_up() -> None:
        for _ in range(5):
            await asyncio.sleep(7)
            woken.append(anyio.current_time())

    async def impatient() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            task = asyncio.ensure_future(tidy_up())
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(task)

    run(impatient)
    assert woken == [7, 14, 21, 28, 35]


def test_tasks_that_keep_each_other_busy_are_reported() -> None:
    """A cancellation that is refused for ever, with no timer to wait for, is a deadlock and not a hang."""

    async def stubborn() -> None:
        patience = 150_000
        with anyio.CancelScope() as scope:
            scope.cancel()
            while patience := patience - 1:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="busy for ever"):
        run(stubborn)


def test_a_busy_loop_that_waits_for_a_timer_ends() -> None:
    """Polling for something that a timer will do is slow, but it ends, and on time."""

    async def poll() -> float:
        due = asyncio.ensure_future(asyncio.sleep(60))
        while not due.done():  # noqa: ASYNC110 (polling is the point)
            await asyncio.sleep(0)
        return anyio.current_time()

    assert run(poll) == 60


def test_real_sockets_are_refused() -> None:
    """A socket on virtual time is an error that says so, not a wait that the clock jumps over."""

    async def read(sock: socket.socket) -> None:
        await asyncio.get_running_loop().sock_recv(sock, 1)

    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        with pytest.raises(RuntimeError, match="real sockets"):
            run(read, left)


def test_unknown_backends_are_refused() -> None:
    """A slip in the backend's name is named."""
    with pytest.raises(ValueError, match="'curio'"):
        virtual_backend("curio")


@BACKENDS
def test_a_run_repeats_itself(backend: Backend) -> None:
    """The same seed gives the same draws and the same order of tasks."""

    async def race() -> list[tuple[int, float]]:
        order: list[tuple[int, float]] = []

        async def runner(number: int) -> None:
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            order.append((number, random.random()))

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(runner, number)
        return order

    state = random.getstate()
    assert run(race, backend=backend, seed=7) == run(race, backend=backend, seed=7)
    assert run(race, backend=backend, seed=7) != run(race, backend=backend, seed=8)
    assert random.getstate() == state


def test_the_loop_serves_asyncio_alone() -> None:
    """The loop works with asyncio's own runner."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(asyncio.wait_for(asyncio.sleep(9, "rested"), 10)) == "rested"


@pytest.mark.anyio
@pytest.mark.real_time
async def test_real_time_reaches_real_sockets() -> None:
    """A test marked ``real_time`` runs on both backends with sockets that work."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def serve() -> None:
            await listener.serve(lambda stream: stream.aclose())

        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
            group.cancel_scope.cancel()
