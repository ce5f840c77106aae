"""`attempts`: a call whose body is a block."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

from resilience import CallTimeout, CircuitOpen, ProviderError, ProviderGated, RetrySettings, failure_of
from resilience.events import CallRecovered, RetryScheduled

pytestmark = pytest.mark.anyio

STEADY = RetrySettings(jitter="none")
NO_INCOME = {"ratio": 0.0, "floor_per_second": 0.001}


async def test_success(world) -> None:
    """A block that succeeds runs once."""
    provider, call, numbers = world.provider(), world.script("stored"), []
    async for attempt in provider.attempts():
        async with attempt:
            numbers.append(attempt.number)
            reply = await call()
    assert (numbers, reply) == ([1], "stored")
    now = provider.snapshot()
    assert (now.calls, now.in_flight, now.breaker.calls) == (1, 0, 1)


async def test_failures_that_pass(world) -> None:
    """A block that fails in a way that is worth it runs again, after a pause in which nothing is held."""
    provider, call, numbers = world.provider(retry=STEADY), world.script(world.status(500), world.status(503), "ok"), []
    async for attempt in provider.attempts():
        assert provider.snapshot().in_flight == 0
        async with attempt:
            assert provider.snapshot().in_flight == 1
            numbers.append(attempt.number)
            reply = await call()
        assert provider.snapshot().in_flight == 0
    assert (numbers, reply, call.pauses) == ([1, 2, 3], "ok", pytest.approx([1, 2]))
    assert len(world.heard(CallRecovered)) == 1
    assert provider.snapshot().recovered == 1


async def test_failures_that_do_not_pass(world) -> None:
    """The error of the last attempt comes out of the block, with the same note and facts as from `execute`."""
    provider, call = world.provider(), world.script(world.status(500))
    with pytest.raises(world.HttpError) as caught:
        async for attempt in provider.attempts():
            async with attempt:
                await call()
    assert caught.value is call.raised[2]
    assert caught.value.__notes__ == ["resilience: openai: gave up after 3 attempts (server_error; attempts_spent)"]
    assert failure_of(caught.value).attempts == 3


async def test_a_final_failure(world) -> None:
    """An error that is final comes out of the first attempt."""
    provider, call = world.provider(), world.script(world.status(404))
    with pytest.raises(world.HttpError) as caught:
        async for attempt in provider.attempts():
            async with attempt:
                await call()
    assert call.calls == 1
    assert caught.value.__notes__ == ["resilience: openai: gave up after 1 attempt (not_found; not_retryable)"]


async def test_standard_errors(world) -> None:
    """With ``errors="standard"`` the standard error comes out of the block, from the original."""
    provider, call = world.provider(errors="standard"), world.script(world.status(404))
    with pytest.raises(ProviderError) as caught:
        async for attempt in provider.attempts():
            async with attempt:
                await call()
    assert caught.value.__cause__ is call.raised[0]


@pytest.mark.parametrize("bug", [TypeError, KeyError])
async def test_bugs_in_the_block(world, bug: type[Exception]) -> None:
    """A bug in the block comes out untouched, even one that looks like misuse of `execute`."""
    provider, error = world.provider(), bug("object int can't be used in 'await' expression")
    with pytest.raises(bug) as caught:
        async for attempt in provider.attempts():
            async with attempt:
                raise error
    assert caught.value is error
    assert provider.snapshot().breaker.calls == 0


async def test_leaving_a_block_by_return(world) -> None:
    """A block that is left by ``return`` has succeeded."""
    provider, call = world.provider(retry=STEADY), world.script(world.status(500), "ok")

    async def fetch() -> object:
        async for attempt in provider.attempts():
            async with attempt:
                return await call()
        raise AssertionError("not reached")

    assert await fetch() == "ok"
    assert (provider.snapshot().recovered, provider.snapshot().in_flight) == (1, 0)


async def test_leaving_a_block_by_break_and_continue(world) -> None:
    """So has one that is left by ``break`` or ``continue``; the loop ends either way."""
    provider, call = world.provider(), world.script("ok")
    async for attempt in provider.attempts():
        async with attempt:
            await call()
            break
    async for attempt in provider.attempts():
        async with attempt:
            await call()
            continue
    now = provider.snapshot()
    assert (call.calls, now.calls, now.breaker.calls, now.in_flight) == (2, 2, 2, 0)


async def test_leaving_after_a_failure(world) -> None:
    """Leaving by ``break`` after a failed attempt gives back the retry that was paid for and never left."""
    provider, call = world.provider(budget=NO_INCOME, retry=STEADY), world.script(world.status(500))

    async def try_once() -> None:
        async for attempt in provider.attempts():
            async with attempt:
                await call()
            assert provider.snapshot().retries_available == 9
            break

    await try_once()
    now = provider.snapshot()
    assert (call.calls, now.retries_available, now.in_flight) == (1, 10, 0)


async def test_a_retry_that_left_stays_paid_for(world) -> None:
    """A loop that made its second attempt has paid for it, however that one ended."""
    provider = world.provider(budget=NO_INCOME, retry=STEADY)
    for last in ("ok", KeyError):
        call = world.script(world.status(500), last)
        with suppress(KeyError):
            async for attempt in provider.attempts():
                async with attempt:
                    await call()
        assert call.calls == 2
    assert provider.snapshot().retries_available == 8


async def test_leaving_between_attempts_by_an_error(world) -> None:
    """An error outside the block ends the loop like any loop; nothing is held and nothing stays paid."""
    provider, call = world.provider(budget=NO_INCOME, retry=STEADY), world.script(world.status(500))

    async def stumble() -> None:
        async for attempt in provider.attempts():
            async with attempt:
                await call()
            raise LookupError

    with pytest.raises(LookupError):
        await stumble()
    now = provider.snapshot()
    assert (call.calls, now.retries_available, now.in_flight) == (1, 10, 0)


async def test_after_the_end(world) -> None:
    """An iteration that has ended stays ended, however it ended."""
    for step in ("ok", world.status(404)):
        attempts = world.provider().attempts()
        try:
            async for attempt in attempts:
                async with attempt:
                    await world.script(step)()
        except world.HttpError:
            pass
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(attempts)


async def test_an_attempt_that_is_not_entered(world) -> None:
    """Forgetting ``async with`` is an error that shows what to write, not an endless loop."""
    turns = 0
    with pytest.raises(RuntimeError) as caught:
        async for _ in world.provider().attempts():
            turns += 1
    assert str(caught.value) == "the attempt was not entered: write `async with attempt:` inside the loop"
    assert turns == 1


@pytest.mark.parametrize("outcome", ["ok", "failed"])
async def test_switched_off(world, outcome: str) -> None:
    """Switched off, the block runs once, and whatever it raises comes out as it is."""
    provider, call = world.provider(enabled=False), world.script("ok" if outcome == "ok" else ConnectionResetError)
    numbers = []

    async def run() -> None:
        async for attempt in provider.attempts():
            async with attempt:
                numbers.append(attempt.number)
                await call()

    if outcome == "ok":
        await run()
    else:
        with pytest.raises(ConnectionResetError) as caught:
            await run()
        assert not hasattr(caught.value, "__notes__")
    assert numbers == [1]
    assert provider.snapshot().calls == 0


async def test_a_refusal(world) -> None:
    """Where the circuit is open the block is not entered; the refusal comes out of its ``async with``."""
    provider, call = world.provider(), world.script("never")
    provider.breaker.open()
    attempts = provider.attempts()
    with pytest.raises(CircuitOpen):
        async for attempt in attempts:
            async with attempt:
                await call()
    assert call.calls == 0
    assert provider.snapshot().rejected == 1
    with pytest.raises(StopAsyncIteration):
        await anext(attempts)


async def test_at_the_gate(world) -> None:
    """A block waits for the gate, or is refused, as a function would be."""
    provider = world.provider(retry={"enabled": False})
    await provider.try_execute(world.script(world.status(429, retry_after="3")))
    began = anyio.current_time()
    async for attempt in provider.attempts():
        async with attempt:
            assert 3 < anyio.current_time() - began <= 4
    await provider.try_execute(world.script(world.status(429, retry_after="30")))
    with pytest.raises(ProviderGated):
        async for attempt in provider.attempts():
            async with attempt:
                raise AssertionError("not reached")


@pytest.mark.parametrize("errors", ["native", "standard"])
async def test_opened_between_attempts(world, errors: str) -> None:
    """If the circuit opens in the pause the last attempt's error comes out where the next one would begin."""
    provider, call = world.provider(retry=STEADY, errors=errors, budget=NO_INCOME), world.script(world.status(500))

    async def open_later() -> None:
        await anyio.sleep(0.5)
        provider.breaker.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_later)
        with pytest.raises(ProviderError if errors == "standard" else world.HttpError) as caught:
            async for attempt in provider.attempts():
                async with attempt:
                    await call()
    error = caught.value if errors == "native" else caught.value.__cause__
    assert error is call.raised[0]
    assert error.__notes__ == ["resilience: openai: gave up after 1 attempt (server_error; forced_open)"]
    assert provider.snapshot().retries_available == 10


async def test_a_block_that_hangs(world) -> None:
    """A block is interrupted when its time is over, tried again, and in the end reported as `CallTimeout`."""
    provider, numbers = world.provider(timeout={"attempt": 2.0, "total": 60.0}, retry=STEADY), []
    began = anyio.current_time()
    with pytest.raises(CallTimeout) as caught:
        async for attempt in provider.attempts():
            async with attempt:
                numbers.append(attempt.number)
                await anyio.sleep(1000)
    assert numbers == [1, 2, 3]
    assert anyio.current_time() - began == pytest.approx(2 + 1 + 2 + 2 + 2)
    assert str(caught.value) == "openai: attempt timed out after 2 s (limit 2 s)"


async def test_cancelled_in_a_block(world) -> None:
    """A block that is cancelled is nobody's failure, and nothing stays behind."""
    provider = world.provider(budget=NO_INCOME)

    async def run() -> None:
        async for attempt in provider.attempts():
            async with attempt:
                await anyio.sleep(5)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.sleep(1)
        assert provider.snapshot().in_flight == 1
        tasks.cancel_scope.cancel()
    now = provider.snapshot()
    assert (now.in_flight, now.breaker.calls, now.retries) == (0, 0, 0)


async def test_cancelled_between_attempts(world) -> None:
    """A loop that is cancelled in its pause gets back what the next attempt would have cost."""
    provider, call = world.provider(budget=NO_INCOME, retry=STEADY), world.script(world.status(500))

    async def run() -> None:
        async for attempt in provider.attempts():
            async with attempt:
                await call()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.sleep(0.5)
        tasks.cancel_scope.cancel()
    assert (call.calls, provider.snapshot().retries_available) == (1, 10)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_is_no_error(world, kind: type[BaseException]) -> None:
    """What is no `Exception` leaves the block at once."""
    provider, call = world.provider(), world.script(kind)
    with pytest.raises(kind):
        async for attempt in provider.attempts():
            async with attempt:
                await call()
    assert (call.calls, provider.snapshot().in_flight) == (1, 0)


async def test_options_hold_for_blocks(world) -> None:
    """The options of a view hold for its blocks."""
    view = world.provider().with_options(retry=False, operation="upload")
    call = world.script(world.status(500))
    with pytest.raises(world.HttpError) as caught:
        async for attempt in view.attempts():
            async with attempt:
                await call()
    assert (call.calls, failure_of(caught.value).operation) == (1, "upload")
    assert not world.heard(RetryScheduled)


async def test_a_half_open_circuit(world) -> None:
    """A block may be the probe that closes the circuit again."""
    provider = world.provider(breaker={"success_threshold": 1, "jitter": 0.0})
    await world.trip(provider)
    await anyio.sleep(60)
    async for attempt in provider.attempts():
        async with attempt:
            assert provider.snapshot().breaker.probes == 1
    assert provider.breaker.state == "closed"
