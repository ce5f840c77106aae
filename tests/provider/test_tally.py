"""What a provider's calls came to: every call is counted once, whichever way it was made and ended."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

from resilience import ResilientProvider, Usage
from resilience._core.words import Verdict
from resilience.process import meter_calls
from resilience.tally import OTHER_OPERATIONS, Tally
from resilience.watching import End

pytestmark = pytest.mark.anyio


@pytest.fixture
def metered() -> Any:
    """Durations are counted for the length of a test."""
    meter_calls(True)
    yield
    meter_calls(False)


def counted(provider: ResilientProvider) -> dict[str, int]:
    """How calls ended, without what is zero."""
    now = provider.snapshot()
    ends = {"ok": now.succeeded, "failed": now.failed, "cancelled": now.cancelled, "rejected": now.rejected}
    return {end: count for end, count in ends.items() if count}


def timed(provider: ResilientProvider) -> dict[str, dict[str, int]]:
    """How many calls and attempts were timed, by how they ended."""
    tally = provider._runtime.tally
    return {
        what: {end.value: taken.count for (_, end), taken in durations.items()}
        for what, durations in (("calls", tally.calls()), ("attempts", tally.attempts()))
    }


async def cancelled_after(seconds: float, provider: ResilientProvider, func: Any) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(provider.execute, func)
        await anyio.sleep(seconds)
        group.cancel_scope.cancel()  # not a deadline, which would be foreseen


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.usefixtures("metered")
async def test_each_end_of_a_call_is_counted_and_timed_once(world, warm: bool) -> None:
    """Success, success after a retry, failure, cancellation in an attempt and in a pause; a refusal takes no time."""
    provider = world.provider(retry={"max_attempts": 2, "jitter": "none"}, breaker={"failure_threshold": 4})
    await world.warm(provider, warm=warm)
    already = int(warm)
    await provider.execute(world.script("fine"))
    await provider.execute(world.script(ConnectionResetError, "fine"))
    await provider.try_execute(world.script(ConnectionResetError))
    await cancelled_after(1, provider, world.script("late", seconds=9))
    await cancelled_after(0.25, provider, world.script(ConnectionResetError))
    await provider.try_execute(world.script(ConnectionResetError))  # the first attempt opens the circuit
    await provider.try_execute(world.script("fine"))
    assert counted(provider) == {"ok": 2 + already, "failed": 2, "cancelled": 2, "rejected": 1}
    assert timed(provider) == {
        "calls": {"success": 1 + already, "success_after_retry": 1, "failure": 2, "cancelled": 2},
        "attempts": {"success": 2 + already, "failure": 5, "cancelled": 1},
    }
    now = provider.snapshot()
    assert now.failures == {"connection_error": 2}
    assert now.rejections == {"circuit_open": 1}
    assert (now.recovered, now.last_reason, now.last_at) == (1, "connection_error", world.EPOCH)
    assert provider._runtime.tally.retries == {
        ("connection_error", "retried"): 3,
        ("connection_error", "attempts_spent"): 1,
        ("connection_error", "circuit_open"): 1,
    }


@pytest.mark.usefixtures("metered")
async def test_durations_are_what_the_caller_waited(world) -> None:
    """A call is as long as its attempts and the pauses between them."""
    provider = world.provider(retry={"max_attempts": 2, "jitter": "none", "base_delay": 30}, timeout={"total": 1000})
    await provider.execute(world.script("fine", seconds=0.02))
    await provider.execute(world.script(TimeoutError, "fine", seconds=2))
    tally = provider._runtime.tally
    (swift,) = [taken.total for (_, end), taken in tally.calls().items() if end is End.SUCCESS]
    (slow,) = [taken.total for (_, end), taken in tally.calls().items() if end is End.SUCCESS_AFTER_RETRY]
    assert (swift, slow, tally.delays.total) == (pytest.approx(0.02), pytest.approx(34), pytest.approx(30))
    latency = provider.snapshot().latency
    assert latency is not None
    assert (latency.count, latency.p50 <= 0.025, 30 < latency.p99 <= 60) == (2, True, True)


async def test_nothing_is_timed_unless_somebody_wants_to_know(world) -> None:
    """Counts are always there, durations are not."""
    provider = world.provider()
    for _ in range(3):
        await provider.execute(world.script("fine"))
    assert provider.snapshot().latency is None
    meter_calls(True)
    await provider.execute(world.script("fine"))
    meter_calls(False)
    await provider.execute(world.script("fine"))
    assert provider.snapshot().latency.count == 1
    assert provider.snapshot().succeeded == 5


@pytest.mark.usefixtures("metered")
async def test_other_ways_to_call_are_counted_as_well(world) -> None:
    """Held open and ended in each way, in a block, left in the middle, hedged, coalesced, nested."""
    provider = world.provider(retry={"enabled": False})
    for warm in range(2):
        for error in (None, ConnectionResetError()):
            (await provider.hold(world.script("fine"))).end(error)
        (await provider.hold(world.script("fine"))).end(verdict=Verdict.IGNORED)
        assert counted(provider) == {"ok": 1 + warm, "failed": 1 + warm, "cancelled": 1 + warm}
    async for attempt in provider.attempts():
        async with attempt:
            pass
        break
    async for _ in provider.with_options(retry=True).attempts():
        break
    view = provider.with_options(usage=lambda _: Usage(tokens=1), coalesce="same", operation="chat")
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(view.execute, world.script("fine", seconds=1))
    await provider.execute(lambda: provider.execute(world.script("fine")))
    assert counted(provider) == {"ok": 6, "failed": 2, "cancelled": 3}
    assert sum(taken.count for taken in provider._runtime.tally.calls().values()) == 11


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize("who", ["first", "second", "none"])
async def test_a_hedged_call_is_one_call(world, who: str) -> None:
    """Whoever wins, and also when both attempts fail: two attempts, one call."""
    hedge = {"enabled": True, "warm_up": 1, "max_extra_load": 0.5, "min_delay": 1, "max_delay": 1}
    provider = world.provider(hedge=hedge, breaker={"failure_threshold": None}).with_options(idempotent=True)
    for _ in range(30):
        await provider.execute(world.script("fine", seconds=0.1))
    before = provider.snapshot()
    seconds = iter({"first": (2, 9), "second": (9, 1), "none": (2, 2)}[who])

    async def attempt() -> str:
        await anyio.sleep(next(seconds))
        if who == "none":
            raise ConnectionResetError
        return "fine"

    outcome = await provider.try_execute(attempt)
    assert outcome.ok is (who != "none")
    now = provider.snapshot()
    assert now.hedges[""].launched - before.hedges[""].launched == 1
    assert (now.succeeded - before.succeeded, now.failed, now.cancelled) == ((1, 0, 0) if outcome.ok else (0, 1, 0))
    ends = timed(provider)["attempts"]
    assert ends == {"success": 31, "cancelled": 1} if outcome.ok else {"success": 30, "failure": 2}


async def test_totals_equal_the_calls_made(world) -> None:
    """A thousand calls at once, of which each may end in any way."""
    provider = world.provider(retry={"max_attempts": 2}, bulkhead={"max_concurrent": 100, "max_queue": 1000})
    rng, seen = random.Random(5), {"ok": 0, "failed": 0, "rejected": 0, "cancelled": 0}

    async def call() -> None:
        steps = [rng.choice(["fine", "fine", "fine", ConnectionResetError, world.status(503)]) for _ in range(2)]
        with anyio.move_on_after(rng.uniform(0.5, 20)) as scope:
            outcome = await provider.try_execute(world.script(*steps, seconds=rng.uniform(0, 2)))
            seen["ok" if outcome.ok else "rejected" if outcome.rejected else "failed"] += 1
        seen["cancelled"] += scope.cancelled_caught

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(call)
    assert sum(seen.values()) == 1000
    assert counted(provider) == {end: count for end, count in seen.items() if count}
    assert min(seen.values()) > 0


@pytest.mark.usefixtures("metered")
async def test_operations_made_from_request_data_do_not_fill_the_memory(world) -> None:
    """Beyond a number of them they are counted together."""
    provider = world.provider()
    for number in range(200):
        await provider.with_options(operation=f"user-{number}").execute(world.script("fine"))
    operations = {operation for operation, _ in provider._runtime.tally.calls()}
    assert len(operations) < 100
    assert OTHER_OPERATIONS in operations
    assert sum(taken.count for taken in provider._runtime.tally.calls().values()) == 200


async def test_of_two_threads_that_count_first_one_makes_the_tally(world) -> None:
    """The other one finds it when it gets the lock, and counts there."""
    runtime = world.provider()._runtime
    made_meanwhile = Tally()

    class Lock:
        def __enter__(self) -> None:
            runtime.tally = made_meanwhile

        def __exit__(self, *_: object) -> None:
            pass

    runtime.common.lock = Lock()
    assert runtime.counting() is made_meanwhile
