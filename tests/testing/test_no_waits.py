"""Test suites that do not wait: nothing but the time is different."""

from __future__ import annotations

import anyio
import pytest

from resilience import (
    CircuitOpen,
    ProviderGated,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetryHandler,
    RetrySettings,
    Settings,
    TimeoutSettings,
)
from resilience.errors import RateLimited
from resilience.events import RetryScheduled
from resilience.policies.rate_limit import RateLimit
from resilience.settings import RateLimitSettings
from resilience.testing import EventRecorder, Fault, Faults, no_waits

pytestmark = pytest.mark.anyio


@pytest.fixture
def events() -> EventRecorder:
    """What the provider of a test tells."""
    return EventRecorder()


def provider(events: EventRecorder, **settings: object) -> ResilientProvider:
    """A provider whose back-offs are 10, 20 and 40 s, on virtual time: what passes there would pass in earnest."""
    retry = RetrySettings(base_delay=10, jitter="none", max_attempts=4)
    registry = ProviderRegistry(
        Settings(defaults=ProviderSettings(**{"retry": retry, **settings})), clock=anyio.current_time
    )
    registry.subscribe(events)
    return registry.provider("openai")


async def answer() -> str:
    return "answer"


async def test_back_offs_take_no_time_and_are_told_as_ever(events: EventRecorder) -> None:
    """The delays are drawn and told as ever, and no time passes; after the block they are slept again."""
    openai = provider(events)
    with Faults.script(["server_error", "server_error", "ok", "server_error"]).inject(openai):
        with no_waits():
            assert await openai.execute(answer) == "answer"
        assert anyio.current_time() == 0
        assert [retry.delay for retry in events.retries] == [10, 20]
        assert await openai.execute(answer) == "answer"
    assert anyio.current_time() == 10


@pytest.mark.parametrize("total", [29.0, 31.0])
async def test_deadlines_decide_as_ever(events: EventRecorder, total: float) -> None:
    """A second back-off that would have passed the deadline is refused, although the first one was not slept."""

    async def attempts(*, skip: bool) -> tuple[list[float], bool]:
        recorder = EventRecorder()
        openai = provider(recorder, timeout=TimeoutSettings(attempt=5, total=total))
        with Faults.script(["server_error", "server_error"]).inject(openai):
            if skip:
                with no_waits():
                    outcome = await openai.try_execute(answer)
            else:
                outcome = await openai.try_execute(answer)
        return [retry.delay for retry in recorder.retries], outcome.ok

    waited = await attempts(skip=False)
    assert waited == (([10, 20], True) if total > 30 else ([10], False))
    assert await attempts(skip=True) == waited


async def test_an_attempt_has_as_little_left_as_it_would_have_had(events: EventRecorder) -> None:
    """The last attempt is interrupted by what the back-offs left of the total, not by more."""
    openai = provider(events, timeout=TimeoutSettings(attempt=30, total=34))
    with no_waits(), Faults.script(["server_error", "server_error", "hang"]).inject(openai):
        outcome = await openai.try_execute(answer)
    assert outcome.error.limit == pytest.approx(4)
    assert anyio.current_time() == pytest.approx(4)


async def test_a_gate_that_was_not_waited_for_opens(events: EventRecorder) -> None:
    """A call that would wait for the gate goes through at once, and the gate is open for everybody."""
    openai = provider(events)
    with Faults.script([Fault("rate_limit", retry_after=3)]).inject(openai), no_waits():
        assert await openai.execute(answer) == "answer"
    assert events.pauses[0].seconds == 3
    assert await openai.execute(answer) == "answer"
    assert anyio.current_time() == 0


async def test_a_wait_for_the_gate_counts_against_the_deadline(events: EventRecorder) -> None:
    """What was not waited at the gate is taken from the time of the call, as if it had been."""
    openai = provider(events, timeout=TimeoutSettings(attempt=10, total=10))
    with no_waits(), Faults.script([Fault("rate_limit", retry_after=4), "hang"]).inject(openai):
        assert not (await openai.with_options(retry=False).try_execute(answer)).ok
        outcome = await openai.try_execute(answer)
    assert 5 < outcome.error.limit < 6
    assert anyio.current_time() == pytest.approx(outcome.error.limit)


async def test_a_gate_that_is_closed_for_too_long_refuses_as_ever(events: EventRecorder) -> None:
    """A pause beyond what a call may wait is a refusal."""
    openai = provider(events)
    with no_waits(), Faults.script([Fault("rate_limit", retry_after=60)]).inject(openai):
        assert not (await openai.with_options(retry=False).try_execute(answer)).ok
        with pytest.raises(ProviderGated):
            await openai.execute(answer)


async def test_an_open_circuit_stays_open(events: EventRecorder) -> None:
    """Skipping waits does not make time pass."""
    openai = provider(events)
    openai.breaker.open()
    with no_waits(), pytest.raises(CircuitOpen):
        await openai.execute(answer)


async def test_a_retry_handler_alone_does_not_wait_either() -> None:
    """The standalone policy skips its back-offs, too."""
    handler = RetryHandler(RetrySettings(base_delay=10, jitter="none"))
    with no_waits():
        assert await handler.call(Faults.script(["error", "error"]).wrap(answer)) == "answer"
    assert anyio.current_time() == 0


async def test_blocks_can_be_nested_and_leave_nothing_behind(events: EventRecorder) -> None:
    """Waits come back with the end of the outermost block, also when it ends with an error."""
    openai = provider(events)
    with pytest.raises(KeyError), no_waits():
        with no_waits():
            pass
        with Faults.script(["server_error"]).inject(openai):
            await openai.execute(answer)
        assert anyio.current_time() == 0
        raise KeyError
    with Faults.script(["server_error"]).inject(openai):
        await openai.execute(answer)
    assert anyio.current_time() == 10


async def test_other_tasks_get_their_turn() -> None:
    """A wait that is skipped is still a moment in which others can run, and a cancellation can come."""
    openai = provider(EventRecorder())
    with Faults(error=1).inject(openai) as faults, no_waits(), anyio.CancelScope() as scope:
        openai.subscribe(lambda _: scope.cancel(), RetryScheduled)
        await openai.execute(answer)
    assert scope.cancelled_caught
    assert faults.calls == 1


def test_it_is_no_decorator() -> None:
    """Around an async function it would end before the function began: that is an error, not a surprise."""
    with pytest.raises(TypeError, match="not callable"):
        no_waits()(answer)


async def test_a_rate_limit_hands_out_ahead_of_time() -> None:
    """Callers in line get their turn at once, and who would have waited for too long is refused as ever."""
    limit = RateLimit(RateLimitSettings(requests_per_second=1, max_wait=3), clock=anyio.current_time)
    done: list[float] = []

    async def caller() -> None:
        try:
            await limit.acquire()
        except RateLimited as refusal:
            done.append(refusal.retry_after)
        else:
            done.append(0)

    with no_waits():
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(caller)
    assert sorted(done) == pytest.approx([0, 0, 0, 0, 4, 4])
    assert anyio.current_time() == 0
    await anyio.sleep(1)
    await limit.acquire()
    assert anyio.current_time() == 4
