"""Calls inside calls: what an outer call makes of an inner one's end."""

from __future__ import annotations

import anyio
import pytest

from resilience import CircuitOpen, ProviderError, Reason, RetrySettings, failure_of
from resilience.events import CallFailed

pytestmark = pytest.mark.anyio

STEADY = RetrySettings(jitter="none")
EXACT = {"jitter": 0.0}


# -- one provider ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["native", "standard"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("pause", [0.0, 1.0], ids=["in one instant", "over time"])
async def test_retries_do_not_multiply(world, depth: int, errors: str, pause: float) -> None:
    """An error that has spent its retries inside is not tried again outside, however deep it comes from."""
    retry = RetrySettings(jitter="none", base_delay=pause)
    provider, call = world.provider(retry=retry, errors=errors), world.script(world.status(500))

    async def nest(level: int) -> None:
        await provider.execute(nest, level - 1) if level else await provider.execute(call)

    with pytest.raises(ProviderError if errors == "standard" else world.HttpError) as caught:
        await nest(depth)
    assert call.calls == 3
    assert provider.snapshot().breaker.failures_in_a_row == 3
    original = caught.value if errors == "native" else caught.value.__cause__
    assert original is call.raised[2]
    assert original.__notes__ == ["resilience: openai: gave up after 3 attempts (server_error; attempts_spent)"]
    assert failure_of(caught.value).attempts == 3
    reasons = [event.reason for event in world.heard(CallFailed)]
    assert reasons == [Reason.ATTEMPTS_SPENT, *[Reason.ALREADY_RETRIED] * depth]


async def test_two_registries_are_two_providers(world) -> None:
    """A provider of the same name in another registry is another provider, with retries of its own."""
    outer, inner = (world.provider(retry=STEADY, breaker={"mode": "disabled"}) for _ in range(2))
    call = world.script(world.status(500))
    await outer.try_execute(inner.execute, call)
    assert call.calls == 9


async def test_in_an_iteration(world) -> None:
    """The same holds when the outer call is a block, or the inner one."""
    provider, call = world.provider(retry=STEADY), world.script(world.status(500))

    async def inside() -> None:
        async for attempt in provider.attempts():
            async with attempt:
                await call()

    with pytest.raises(world.HttpError):
        await provider.execute(inside)
    assert call.calls == 3
    with pytest.raises(world.HttpError):
        async for attempt in provider.attempts():
            async with attempt:
                await inside()
    assert call.calls == 5  # with the fifth failure in a row the circuit is open


async def test_an_inner_failure_that_was_handled(world) -> None:
    """An inner failure that the function has dealt with does not stop the outer call from retrying its own."""
    provider, lost = world.provider(retry=STEADY), world.script(TimeoutError)
    attempts = 0

    async def cope() -> str:
        nonlocal attempts
        attempts += 1
        assert not (await provider.try_execute(lost)).ok
        if attempts == 1:
            raise ConnectionResetError
        return "done"

    provider = world.provider(retry=STEADY, breaker={"mode": "disabled"})
    assert await provider.execute(cope) == "done"
    assert (attempts, lost.calls) == (2, 6)


async def test_a_probe_is_borrowed(world) -> None:
    """An inner call of the same task goes along with its outer call's probe: it needs no place and has no vote."""
    provider = world.provider(breaker=EXACT)
    await world.trip(provider)
    await anyio.sleep(60)

    async def twice() -> tuple[str, str]:
        now = provider.snapshot().breaker
        assert (now.state, now.probes) == ("half_open", 1)
        return await provider.execute(world.script("one")), await provider.execute(world.script("two"))

    assert await provider.execute(twice) == ("one", "two")
    assert provider.breaker.state == "half_open"  # one probe was made, not three
    assert await provider.execute(twice) == ("one", "two")
    assert provider.breaker.state == "closed"


async def test_other_tasks_borrow_nothing(world) -> None:
    """A task that the probe's function starts is a caller like any other."""
    provider, outcomes = world.provider(breaker=EXACT), []
    await world.trip(provider)
    await anyio.sleep(60)

    async def child() -> None:
        outcomes.append(await provider.try_execute(world.script("never")))

    async def parent() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)

    await provider.execute(parent)
    assert outcomes[0].reason is Reason.HALF_OPEN_SATURATED


async def test_a_borrowed_probe_that_fails(world) -> None:
    """When the inner call of a probe fails the outer one does, once, and the circuit opens."""
    provider = world.provider(breaker=EXACT, retry=STEADY)
    await world.trip(provider)
    await anyio.sleep(60)
    call = world.script(world.status(500))
    outcome = await provider.try_execute(provider.execute, call)
    assert outcome.error is call.raised[-1]
    assert provider.breaker.state == "open"


async def test_an_outer_call_that_is_overtaken(world) -> None:
    """If the circuit opens while the outer call runs, its inner call is refused, and that is no evidence."""
    provider = world.provider()

    async def open_and_call() -> None:
        await world.trip(provider)
        await provider.execute(world.script("never"))

    with pytest.raises(CircuitOpen) as caught:
        await provider.execute(open_and_call)
    assert provider.snapshot().breaker.trips == 1
    assert caught.value.__notes__ == ["resilience: openai: gave up after 1 attempt (rejected; not_retryable)"]


async def test_inner_calls_count(world) -> None:
    """Outer and inner calls are calls of their own; nothing is left in flight."""
    provider = world.provider()
    assert await provider.execute(provider.execute, provider.execute, world.script("deep")) == "deep"
    now = provider.snapshot()
    assert (now.calls, now.in_flight, now.breaker.failures_in_a_row) == (3, 0, 0)


# -- two providers ---------------------------------------------------------------------------------------------------


async def test_an_inner_refusal_is_no_evidence(world) -> None:
    """A provider that needs another one is not blamed when that one is refused, and does not retry it."""
    registry = world.registry()
    outer, inner = registry.provider("outer"), registry.provider("inner")
    inner.breaker.open()
    calls = world.script("never")
    for _ in range(30):
        with pytest.raises(CircuitOpen) as caught:
            await outer.execute(inner.execute, calls)
        assert caught.value.provider == "inner"
    now = outer.snapshot()
    assert (now.breaker.state, now.breaker.failures_in_a_row, now.breaker.calls, now.retries) == ("closed", 0, 0, 0)
    assert calls.calls == 0


async def test_another_providers_failure_is_ones_own(world) -> None:
    """A failure of an inner provider is a failure of the outer one too: it may well help to try the whole again."""
    registry = world.registry(retry=STEADY, breaker={"mode": "disabled"})
    outer, inner = registry.provider("outer"), registry.provider("inner")
    call = world.script(*[world.status(500)] * 3, "at last")
    assert await outer.execute(inner.execute, call) == "at last"
    assert (outer.snapshot().recovered, inner.snapshot().exhausted) == (1, 1)


async def test_each_provider_leaves_its_note(world) -> None:
    """An error that passes through the calls of two providers tells what each of them tried."""
    registry = world.registry(retry=STEADY, breaker={"mode": "disabled"}, budget={"enabled": False})
    outer, inner = registry.provider("outer"), registry.provider("inner")
    call = world.script(world.status(500))
    outcome = await outer.try_execute(inner.execute, call)
    assert call.calls == 9
    assert outcome.error.__notes__ == [
        "resilience: inner: gave up after 3 attempts (server_error; attempts_spent)",
        "resilience: outer: gave up after 3 attempts (server_error; attempts_spent)",
    ]
    assert outcome.failure.provider == "outer"


# -- one instance, many calls ----------------------------------------------------------------------------------------


async def test_a_stored_exception_call_after_call(world) -> None:
    """A function that raises one stored instance is retried, and is evidence, each time anew."""
    stored = ConnectionResetError()
    provider, call = (
        world.provider(breaker={"failure_threshold": 100, "failure_rate": None}),
        world.script(lambda: stored),
    )
    for times in range(1, 6):
        with pytest.raises(ConnectionResetError) as caught:
            await provider.execute(call)
        assert caught.value is stored
        assert call.calls == 3 * times
        assert provider.snapshot().breaker.failures_in_a_row == 3 * times
        assert failure_of(stored).attempts == 3


async def test_a_stored_exception_in_concurrent_calls(world) -> None:
    """Nor do concurrent calls that raise one stored instance take it for each other's."""
    stored = ConnectionResetError()
    provider = world.provider(
        breaker={"failure_threshold": None, "failure_rate": None}, budget={"enabled": False}, retry=STEADY
    )
    calls = [world.script(lambda: stored, seconds=0.1 * number) for number in range(1, 21)]
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(provider.try_execute, call)
    assert [call.calls for call in calls] == [3] * 20
    assert provider.snapshot().exhausted == 20


async def test_a_stored_exception_that_was_spent_inside_before(world) -> None:
    """An instance that an inner call gave up on in an earlier call is judged anew when it is raised again."""
    stored, retry = ConnectionResetError(), RetrySettings(jitter="none", base_delay=0.0)
    provider, inner = world.provider(retry=retry, breaker={"mode": "disabled"}), world.script(lambda: stored)
    await provider.try_execute(provider.execute, inner)
    again = world.script(lambda: stored)
    await provider.try_execute(again)
    assert (inner.calls, again.calls) == (3, 3)
