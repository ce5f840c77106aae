"""The gate: a provider that asks everybody to stay away is obeyed by everybody."""

from __future__ import annotations

import anyio
import pytest

from resilience import CircuitState, ProviderGated, Reason, RetrySettings, failure_of
from resilience.errors import CallRejected
from resilience.events import CallWasRejected, CircuitChanged, GateClosed

pytestmark = pytest.mark.anyio

ONCE = RetrySettings(enabled=False)
NO_INCOME = {"ratio": 0.0, "floor_per_second": 0.001}


async def close(world, provider, hint: str, status: int = 429) -> None:
    """Let one call meet an answer that asks for a pause."""
    outcome = await provider.with_options(retry=False).try_execute(world.script(world.status(status, retry_after=hint)))
    assert not outcome.ok


@pytest.mark.parametrize("status", [429, 503])
async def test_a_hint_closes_the_gate(world, status: int) -> None:
    """An answer with a hint is obeyed by calls that never saw it; a 429 is no evidence for the breaker."""
    provider = world.provider()
    await close(world, provider, "3", status)
    now = provider.snapshot()
    assert now.gate_closed_for == 3.0
    assert (now.breaker.state, now.breaker.failures_in_a_row) == ("closed", 0 if status == 429 else 1)
    [told] = world.heard(GateClosed)
    assert (told.provider, told.seconds, told.hinted) == ("openai", 3.0, True)
    other, began = world.script("fine"), anyio.current_time()
    assert await provider.execute(other) == "fine"
    assert 3.0 < other.times[0] - began <= 4.0
    assert not world.heard(CircuitChanged)


async def test_a_flood_of_429_opens_no_circuit(world) -> None:
    """A provider that limits its callers is in good health, however many it turns away."""
    provider = world.provider(retry=ONCE)
    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(provider.try_execute, world.script(world.status(429, retry_after="2"), seconds=0.1))
    assert provider.breaker.state is CircuitState.CLOSED
    assert len(world.heard(GateClosed)) == 1


async def test_those_who_wait_leave_spread_out(world) -> None:
    """Callers that wait for the opening leave after it, each at its own moment, not as a herd."""
    provider, crowd = world.provider(), world.script("fine")
    await close(world, provider, "4")
    opening = anyio.current_time() + 4
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(provider.execute, crowd)
            if number % 10 == 0:
                await anyio.sleep(0.1)
    late = sorted(time - opening for time in crowd.times)
    assert late[0] > 0
    assert late[-1] <= 1
    assert late[-1] - late[0] > 0.2
    assert len(set(late)) == 100


async def test_a_long_pause_is_refused_at_once(world) -> None:
    """A caller that would have to wait longer than `max_wait` is told so at once, and when to come back."""
    provider = world.provider(refusals=True)
    await close(world, provider, "47")
    await anyio.sleep(30)
    began, call = anyio.current_time(), world.script("never")
    with pytest.raises(ProviderGated) as caught:
        await provider.execute(call)
    error = caught.value
    assert anyio.current_time() == began
    assert call.calls == 0
    assert isinstance(error, CallRejected)
    assert (error.provider, error.reason, error.retry_after) == ("openai", Reason.PROVIDER_GATED, pytest.approx(17))
    assert str(error) == "openai: provider asked for a pause, a call waits 5 s at most, retry in 17.0 s"
    assert failure_of(error) is None
    assert (provider.snapshot().rejected, provider.snapshot().calls) == (1, 1)
    assert [event.reason for event in world.heard(CallWasRejected)] == [Reason.PROVIDER_GATED]


@pytest.mark.parametrize("hint", ["4.7", "4.99", "5"])
async def test_who_may_wait_gets_through(world, hint: str) -> None:
    """A caller that was allowed to wait is not refused afterwards because its own moment came a little later."""
    for seed in range(20):
        provider = world.provider(seed=seed)
        await close(world, provider, hint)
        began = anyio.current_time()
        assert await provider.execute(world.script("fine")) == "fine"
        assert float(hint) < anyio.current_time() - began <= float(hint) + 1


async def test_max_wait(world) -> None:
    """How long a call waits is a setting: longer, or not at all."""
    patient, busy = world.provider(gate={"max_wait": 60.0}), world.provider(gate={"max_wait": 0.0})
    for provider in (patient, busy):
        await close(world, provider, "0.5")
    assert (await busy.try_execute(world.script("never"))).reason is Reason.PROVIDER_GATED
    await close(world, patient, "50")
    assert await patient.execute(world.script("fine")) == "fine"
    assert await busy.execute(world.script("fine")) == "fine"


async def test_a_pause_that_is_prolonged(world) -> None:
    """A pause that others prolong is waited for, as long as the whole wait is not too long; then it is refused."""
    for more, lucky in (("3", True), ("4.5", False), ("30", False)):  # it has waited for 2 s by then
        provider = world.provider(gate={"max_wait": 5.0})
        late = world.script(world.status(429, retry_after=more), seconds=1.5)
        waiting, outcomes = world.script("fine"), []

        async def wait(provider=provider, waiting=waiting, outcomes=outcomes) -> None:
            outcomes.append(await provider.try_execute(waiting))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(provider.with_options(retry=False).try_execute, late)
            await anyio.sleep(0.1)
            await close(world, provider, "2")
            tasks.start_soon(wait)
        assert outcomes[0].ok is lucky
        if lucky:
            assert waiting.times[0] >= late.times[0] + 4.5
        else:
            assert outcomes[0].reason is Reason.PROVIDER_GATED


async def test_without_a_hint_pauses_grow(world) -> None:
    """A 429 without a hint closes the gate for a growing pause, which starts anew after a success."""
    provider = world.provider(gate={"max_wait": 60.0}, retry=ONCE)
    limited = world.script(world.status(429))
    for _ in range(4):
        await provider.try_execute(limited)
    await provider.execute(world.script("fine"))
    await provider.try_execute(limited)
    told = world.heard(GateClosed)
    assert [event.seconds for event in told] == pytest.approx([1, 2, 4, 8, 1])
    assert not any(event.hinted for event in told)


async def test_a_crowd_that_is_turned_away_is_one_signal(world) -> None:
    """However many calls are turned away at once, that is one pause, and the next one is twice as long."""
    provider = world.provider(gate={"max_wait": 60.0}, retry=ONCE)
    limited = world.script(world.status(429), seconds=0.1)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(provider.try_execute, limited)
    await provider.try_execute(limited)
    assert [event.seconds for event in world.heard(GateClosed)] == pytest.approx([1, 2])


@pytest.mark.parametrize("headers", [{}, {"retry_after": "0"}])
async def test_a_503_that_names_no_pause(world, headers: dict[str, str]) -> None:
    """A 503 that does not say how long to stay away, or says "not at all", keeps nobody else away."""
    provider = world.provider(retry=ONCE)
    await provider.try_execute(world.script(world.status(503, **headers)))
    assert provider.snapshot().gate_closed_for == 0
    assert not world.heard(GateClosed)


async def test_a_429_that_says_now(world) -> None:
    """A 429 with a hint of zero has named no pause: the gate closes for a growing one, and does not claim a hint."""
    provider = world.provider(retry=ONCE)
    await provider.try_execute(world.script(world.status(429, retry_after="0")))
    assert [(told.seconds, told.hinted) for told in world.heard(GateClosed)] == [(1.0, False)]


@pytest.mark.parametrize("status", [400, 404])
async def test_hints_on_final_errors(world, status: int) -> None:
    """A hint on an answer that will not change closes nothing."""
    provider = world.provider()
    await close(world, provider, "60", status)
    assert provider.snapshot().gate_closed_for == 0


async def test_no_pause_is_longer_than_the_cap(world) -> None:
    """A provider, or whoever pretends to be one, can keep us away for two minutes at a time and no longer."""
    provider = world.provider()
    await close(world, provider, "86400")
    assert provider.snapshot().gate_closed_for == 120
    outcome = await provider.try_execute(world.script("never"))
    assert outcome.retry_after == 120


async def test_the_call_that_met_the_pause(world) -> None:
    """The call that was told to stay away waits as long as it was told, even beyond `max_wait`, and tries again."""
    provider = world.provider(retry=RetrySettings(jitter="none"))
    call = world.script(world.status(429, retry_after="30"), "fine")
    assert await provider.execute(call) == "fine"
    assert 30 < call.pauses[0] <= 32
    assert provider.snapshot().recovered == 1


async def test_a_retry_behind_a_gate_that_others_closed(world) -> None:
    """A retry that would only find the gate closed for too long is not made: the call ends with its own error."""
    provider = world.provider(retry=RetrySettings(jitter="none"))
    slow, began = world.script(world.status(500), seconds=1.0), anyio.current_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close, world, provider, "60")
        outcome = await provider.try_execute(slow)
    assert anyio.current_time() - began == pytest.approx(1)
    assert slow.calls == 1
    assert outcome.error.__notes__ == ["resilience: openai: gave up after 1 attempt (server_error; provider_gated)"]


async def test_a_gate_that_closes_during_a_pause(world) -> None:
    """A call whose gate is closed by others while it sleeps ends with its own error, and its retry is given back."""
    provider = world.provider(retry=RetrySettings(jitter="none", base_delay=2.0), budget=NO_INCOME)
    call = world.script(world.status(500))

    async def meanwhile() -> None:
        await anyio.sleep(1)
        await close(world, provider, "60")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        outcome = await provider.try_execute(call)
    assert outcome.error is call.raised[0]
    assert outcome.error.__notes__ == ["resilience: openai: gave up after 1 attempt (server_error; provider_gated)"]
    assert provider.snapshot().retries_available == 10


@pytest.mark.parametrize("how", ["timeout", "scope", "outer"])
async def test_a_wait_that_does_not_fit_the_deadline(world, how: str) -> None:
    """A caller with less time than the pause is refused at once, whoever set the deadline."""
    registry = world.registry()
    provider, outer = registry.provider("openai"), registry.provider("outer")
    await close(world, provider, "4")
    began, call = anyio.current_time(), world.script("never")
    with pytest.raises(ProviderGated) as caught:
        if how == "timeout":
            await provider.with_options(timeout=2).execute(call)
        elif how == "scope":
            with anyio.fail_after(2):
                await provider.execute(call)
        else:
            await outer.with_options(attempt_timeout=2).execute(provider.execute, call)
    assert anyio.current_time() == began
    assert caught.value.reason is Reason.DEADLINE_WOULD_PASS
    assert str(caught.value) == (
        "openai: provider asked for a pause, its end lies behind the caller's deadline, retry in 4.0 s"
    )


async def test_cancelled_waiters_leave_nothing_behind(world) -> None:
    """Callers that give up waiting leave no trace: nothing in flight, nothing paid, nobody held up."""
    provider, call = world.provider(budget=NO_INCOME), world.script("fine")
    await close(world, provider, "4")
    before = provider.snapshot()
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(provider.execute, call)
        await anyio.sleep(2)
        tasks.cancel_scope.cancel()
    after = provider.snapshot()
    assert call.calls == 0
    assert (after.in_flight, after.retries_available, after.calls) == (0, 10, before.calls)
    assert after.gate_closed_for == pytest.approx(2)
    assert await provider.execute(call) == "fine"


async def test_a_retry_that_is_cancelled_at_the_gate(world) -> None:
    """A retry that gives up waiting at the gate was paid for and never left: it is given back."""
    provider = world.provider(retry=RetrySettings(jitter="none"), budget=NO_INCOME)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(provider.execute, world.script(world.status(500)))
        await anyio.sleep(0.5)
        await close(world, provider, "4")
        await anyio.sleep(1)
        assert provider.snapshot().retries_available == 9
        tasks.cancel_scope.cancel()
    assert provider.snapshot().retries_available == 10


async def test_endpoints_share_the_gate_not_the_breaker(world) -> None:
    """A pause holds for all endpoints of a provider and for no other provider; a breaker is an endpoint's own."""
    registry = world.registry()
    east, west = registry.provider("s3", endpoint="east"), registry.provider("s3", endpoint="west")
    await west.execute(world.script("fine"))
    await close(world, east, "47")
    assert (await west.try_execute(world.script("never"))).reason is Reason.PROVIDER_GATED
    assert (await registry.provider("s3").try_execute(world.script("never"))).reason is Reason.PROVIDER_GATED
    assert await registry.provider("openai").execute(world.script("fine")) == "fine"
    await anyio.sleep(50)
    await world.trip(east)
    assert await west.execute(world.script("fine")) == "fine"
    assert (west.breaker.state, east.breaker.state) == ("closed", "open")


async def test_an_open_circuit_is_told_before_the_gate(world) -> None:
    """Where both would refuse, nobody waits at the gate of a circuit that is open anyway."""
    provider = world.provider()
    await close(world, provider, "2")
    provider.breaker.open()
    began = anyio.current_time()
    assert (await provider.try_execute(world.script("never"))).reason is Reason.FORCED_OPEN
    assert anyio.current_time() == began


async def test_a_gate_that_is_switched_off(world) -> None:
    """Without a gate a hint binds the call that met it, and nobody else."""
    provider = world.provider(gate={"enabled": False})
    began = anyio.current_time()
    await close(world, provider, "30")
    assert await provider.execute(world.script("fine")) == "fine"
    assert anyio.current_time() == began
    call = world.script(world.status(429, retry_after="30"), "fine")
    await provider.execute(call)
    assert call.pauses[0] > 30


async def test_calls_are_fast_again(world) -> None:
    """When the pause is over callers wait no more, and the first of them has cleared the way for all."""
    registry = world.registry()
    provider = registry.provider("openai")
    await close(world, provider, "1")
    await anyio.sleep(1.5)
    began, call = anyio.current_time(), world.script("fine")
    for _ in range(10):
        await provider.execute(call)
    assert anyio.current_time() == began
    assert provider.snapshot().gate_closed_for == 0
    assert not registry.runtimes["openai"].common.gate_was_closed
