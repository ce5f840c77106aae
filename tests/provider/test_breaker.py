"""The circuit breaker in the composition: what opens it, what callers see, how it comes back."""

from __future__ import annotations

import anyio
import pytest

from resilience import CallRejected, CircuitOpen, CircuitState, Reason, RetrySettings, failure_of
from resilience.events import CallWasRejected, CallWouldBeRejected, CircuitChanged

pytestmark = pytest.mark.anyio

ONCE = RetrySettings(enabled=False)
EXACT = {"jitter": 0.0}

# Somebody who listens to refusals keeps them off their fast path: what is guaranteed holds either way.
HEARD = pytest.mark.parametrize("refusals", [False, True], ids=["unheard", "heard"])
NO_INCOME = {"ratio": 0.0, "floor_per_second": 0.001}


def steps(world) -> list[tuple[str, str, str]]:
    return [(change.before, change.after, change.figures) for change in world.heard(CircuitChanged)]


# -- in a row --------------------------------------------------------------------------------------------------------


async def test_five_failures_in_a_row_open(world) -> None:
    """Five failures in a row open the circuit; then the function is not called any more."""
    provider, call = world.provider(retry=ONCE, breaker=EXACT), world.script(ConnectionResetError)
    for _ in range(5):
        assert provider.breaker.state is CircuitState.CLOSED
        with pytest.raises(ConnectionResetError):
            await provider.execute(call)
    assert provider.breaker.state is CircuitState.OPEN
    await anyio.sleep(47.6)
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            await provider.execute(call)
    assert call.calls == 5
    assert steps(world) == [("closed", "open", "5 failures in a row")]


@HEARD
async def test_what_a_refusal_tells(world, refusals: bool) -> None:
    """A refusal says who refused, why in figures, and in how many seconds a call makes sense."""
    provider = world.provider(breaker=EXACT, refusals=refusals)
    await world.trip(provider)
    await anyio.sleep(47.6)
    with pytest.raises(CircuitOpen) as caught:
        await provider.execute(world.script("never"))
    error = caught.value
    assert isinstance(error, CallRejected)
    assert (error.provider, error.reason) == ("openai", Reason.CIRCUIT_OPEN)
    assert error.retry_after == pytest.approx(12.4)
    assert str(error) == "openai: circuit open, 5 failures in a row, next probe in 12.4 s"
    assert failure_of(error) is None
    assert error.__context__ is error.__cause__ is None


async def test_each_refusal_is_an_exception_of_its_own(world) -> None:
    """No exception is stored and raised again: each refusal has its own figures and its own traceback."""
    provider = world.provider(breaker=EXACT)
    await world.trip(provider)
    refusals = []
    for _ in range(3):
        await anyio.sleep(10)
        with pytest.raises(CircuitOpen) as caught:
            await provider.execute(world.script("never"))
        refusals.append(caught.value)
    assert len({id(refusal) for refusal in refusals}) == 3
    assert [round(refusal.retry_after) for refusal in refusals] == [50, 40, 30]


async def test_a_success_ends_the_row(world) -> None:
    """Failures with successes between them are not in a row, on the fast path either."""
    provider = world.provider(retry=ONCE, breaker={"failure_rate": None})
    for _ in range(10):
        for _ in range(4):
            await provider.try_execute(world.script(ConnectionResetError))
        await provider.execute(world.script("fine"))
    assert provider.breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_an_answer_ends_the_row(world, status: int) -> None:
    """A provider that says "no" is there: such an answer is no failure of the provider's."""
    provider = world.provider(retry=ONCE)
    for _ in range(4):
        await provider.try_execute(world.script(ConnectionResetError))
    await provider.try_execute(world.script(world.status(status)))
    assert provider.snapshot().breaker.failures_in_a_row == 0


@pytest.mark.parametrize("status", [402, 407, 429])
async def test_what_says_nothing_about_the_provider(world, status: int) -> None:
    """A spent quota, our own proxy and a rate limit neither open the circuit nor end a row of failures."""
    provider = world.provider(retry=ONCE, gate={"enabled": False})
    await provider.try_execute(world.script(ConnectionResetError))
    for _ in range(30):
        await provider.try_execute(world.script(world.status(status)))
    now = provider.snapshot().breaker
    assert (now.state, now.failures_in_a_row, now.calls) == ("closed", 1, 1)


# -- between attempts ------------------------------------------------------------------------------------------------


async def test_opening_between_attempts(world) -> None:
    """If the circuit opens between attempts the provider's last error comes out at once, with the reason in a note."""
    settings = RetrySettings(max_attempts=5, jitter="none")
    provider = world.provider(breaker={"failure_threshold": 2}, retry=settings, refusals=True)
    call = world.script(world.status(500))
    began = anyio.current_time()
    with pytest.raises(world.HttpError) as caught:
        await provider.execute(call)
    assert caught.value is call.raised[1]
    assert caught.value.__notes__ == ["resilience: openai: gave up after 2 attempts (server_error; circuit_open)"]
    assert anyio.current_time() - began == pytest.approx(1)
    assert not world.heard(CallWasRejected)
    with pytest.raises(CircuitOpen):
        await provider.execute(call)
    assert call.calls == 2


async def test_opened_by_others_during_the_pause(world) -> None:
    """A call that finds the circuit opened by others when its pause is over raises its own last error."""
    provider = world.provider(retry=RetrySettings(jitter="none"), budget=NO_INCOME)
    call = world.script(world.status(500))

    async def others() -> None:
        await anyio.sleep(0.5)
        await world.trip(provider, 4)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        with pytest.raises(world.HttpError) as caught:
            await provider.execute(call)
    assert call.calls == 1
    assert caught.value.__notes__ == ["resilience: openai: gave up after 1 attempt (server_error; circuit_open)"]
    assert provider.snapshot().retries_available == 10


async def test_a_retry_that_fits_behind_the_opening_is_made(world) -> None:
    """A pause that ends when the circuit lets probes through again is worth it: the retry is the probe."""
    provider = world.provider(
        breaker={"failure_threshold": 1, "timeout": 2.0}, retry=RetrySettings(jitter="none", base_delay=3.0)
    )
    assert await provider.execute(world.script(world.status(500), "back")) == "back"
    assert provider.breaker.state is CircuitState.HALF_OPEN


# -- half open -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
async def test_half_open_admits_exactly_so_many(world, most: int) -> None:
    """Of fifty callers at once exactly `half_open_max_calls` get through; the others are told so."""
    provider = world.provider(breaker={"half_open_max_calls": most, "success_threshold": 2, **EXACT})
    await world.trip(provider)
    await anyio.sleep(60)
    probe, outcomes = world.script("back", seconds=1.0), []

    async def one() -> None:
        outcomes.append(await provider.try_execute(probe))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one)
    assert probe.calls == most
    refused = [outcome.error for outcome in outcomes if outcome.rejected]
    assert len(refused) == 50 - most
    assert {error.reason for error in refused} == {Reason.HALF_OPEN_SATURATED}
    assert {str(error) for error in refused} == {
        "openai: circuit open, 5 failures in a row, next probe in 60.0 s"  # two attempt timeouts: the probes' lease
    }
    assert provider.breaker.state == ("half_open" if most == 1 else "closed")


async def test_recovery(world) -> None:
    """After the open time two successful probes close the circuit, and everybody is welcome again."""
    provider = world.provider(breaker=EXACT)
    await world.trip(provider)
    await anyio.sleep(59.9)
    assert (await provider.try_execute(world.script("early"))).rejected
    await anyio.sleep(0.1)
    assert await provider.execute(world.script("first")) == "first"
    assert provider.breaker.state is CircuitState.HALF_OPEN
    assert await provider.execute(world.script("second")) == "second"
    assert provider.breaker.state is CircuitState.CLOSED
    crowd = world.script("back", seconds=1.0)
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(provider.execute, crowd)
    assert crowd.calls == 50
    assert steps(world) == [
        ("closed", "open", "5 failures in a row"),
        ("open", "half_open", "open time is over"),
        ("half_open", "closed", "2 of 2 probes succeeded"),
    ]


async def test_a_failed_probe_opens_again(world) -> None:
    """One failed probe opens the circuit for another full time, and that call makes no second attempt."""
    provider = world.provider(breaker=EXACT)
    await world.trip(provider)
    await anyio.sleep(60)
    probe = world.script(world.status(500))
    with pytest.raises(world.HttpError) as caught:
        await provider.execute(probe)
    assert probe.calls == 1
    assert caught.value.__notes__ == ["resilience: openai: gave up after 1 attempt (server_error; circuit_open)"]
    with pytest.raises(CircuitOpen) as refused:
        await provider.execute(probe)
    assert str(refused.value) == "openai: circuit open, a probe failed (server_error), next probe in 60.0 s"


async def test_a_probe_that_says_nothing_frees_its_place(world) -> None:
    """A probe that ends without evidence (a bug, a cancellation) leaves the circuit half open and its place free."""
    provider = world.provider(breaker=EXACT)
    await world.trip(provider)
    await anyio.sleep(60)
    await provider.try_execute(world.script(KeyError))
    assert provider.breaker.state is CircuitState.HALF_OPEN
    with anyio.move_on_after(1):
        await provider.execute(anyio.sleep, 5)
    assert provider.breaker.state is CircuitState.HALF_OPEN
    assert provider.snapshot().breaker.probes == 0
    assert await provider.execute(world.script("back")) == "back"


# -- rates -----------------------------------------------------------------------------------------------------------


async def test_the_failure_rate_opens(world) -> None:
    """Half of at least 20 calls in 30 s opens the circuit, although no five failures were in a row."""
    provider = world.provider(retry=ONCE, breaker=EXACT)
    for _ in range(9):
        await provider.execute(world.script("fine"))
        await provider.try_execute(world.script(ConnectionResetError))
    await provider.execute(world.script("fine"))
    assert provider.breaker.state is CircuitState.CLOSED
    await provider.try_execute(world.script(ConnectionResetError))
    with pytest.raises(CircuitOpen) as caught:
        await provider.execute(world.script("never"))
    assert str(caught.value) == (
        "openai: circuit open, 10 of 20 calls failed in 30 s (threshold 50 %), next probe in 60.0 s"
    )


async def test_old_calls_leave_the_window(world) -> None:
    """Failures of half a minute ago count no more."""
    provider = world.provider(retry=ONCE)
    for _ in range(9):
        await provider.execute(world.script("fine"))
        await provider.try_execute(world.script(ConnectionResetError))
    await anyio.sleep(31)
    await provider.execute(world.script("fine"))
    await provider.try_execute(world.script(ConnectionResetError))
    now = provider.snapshot().breaker
    assert (now.state, now.calls, now.failed) == ("closed", 2, 1)


async def test_slow_successes_open(world) -> None:
    """A provider that answers everything, but too slowly, opens the circuit as well."""
    provider = world.provider(breaker={"slow_after": 2.0, "slow_rate": 0.8, **EXACT})
    slow = world.script("at last", seconds=2.5)
    async with anyio.create_task_group() as tasks:
        for _ in range(25):
            tasks.start_soon(provider.try_execute, slow)
    assert provider.breaker.state is CircuitState.OPEN
    with pytest.raises(CircuitOpen) as caught:
        await provider.execute(slow)
    assert "calls were slow in 30 s (threshold 80 %)" in str(caught.value)


async def test_slow_successes_one_after_another(world) -> None:
    """Slowness counts when a call ends, too: one slow call after another opens the circuit."""
    provider = world.provider(breaker={"slow_after": 0.5, **EXACT})
    slow = world.script("at last", seconds=0.6)
    for _ in range(20):
        assert provider.breaker.state is CircuitState.CLOSED
        await provider.execute(slow)
    assert steps(world) == [("closed", "open", "20 of 20 calls were slow in 30 s (threshold 80 %)")]


async def test_calls_that_hang_open_while_they_hang(world) -> None:
    """Callers need not wait for calls that hang to end: new ones are refused as soon as enough hang for too long."""
    provider = world.provider(breaker=EXACT)  # slow is half the attempt timeout: 15 s
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(provider.try_execute, anyio.sleep, 1000)
        await anyio.sleep(14)
        await provider.execute(world.script("fine"))
        await anyio.sleep(2)
        with pytest.raises(CircuitOpen):
            await provider.execute(world.script("never"))
        assert provider.snapshot().in_flight == 20
        tasks.cancel_scope.cancel()
    assert provider.snapshot().in_flight == 0


# -- settings --------------------------------------------------------------------------------------------------------


async def test_thresholds_per_kind(world) -> None:
    """A kind of failure may have a threshold of its own, beside the other rules."""
    provider = world.provider(retry=ONCE, breaker={"per_kind": {"overloaded": 2}})
    for _ in range(2):
        await provider.try_execute(world.script(world.status(503)))
    assert steps(world) == [("closed", "open", "2 overloaded failures in a row")]


@pytest.mark.parametrize(
    "rule",
    ["connection_error", ConnectionResetError, lambda error: "reset" in str(error)],
    ids=["kind", "type", "rule"],
)
async def test_exclusions(world, rule: object) -> None:
    """What is excluded by kind, type or predicate is no evidence; it is tried again all the same."""
    provider = world.provider(breaker={"ignore": (rule,)}, budget={"enabled": False})
    call = world.script(lambda: ConnectionResetError("reset by peer"))
    for _ in range(10):
        await provider.try_execute(call)
    assert call.calls == 30
    assert provider.snapshot().breaker.calls == 0
    await provider.try_execute(world.script(world.status(500)))
    assert provider.snapshot().breaker.failures_in_a_row == 3


async def test_a_predicate_that_fails_excludes_nothing(world, caplog: pytest.LogCaptureFixture) -> None:
    """A predicate that raises is logged, the failure counts, and the call is not harmed."""
    provider = world.provider(retry=ONCE, breaker={"ignore": (lambda error: 1 / 0,)})
    await world.trip(provider)
    assert "an ignore rule failed" in caplog.text


@HEARD
async def test_shadow_mode(world, refusals: bool) -> None:
    """A breaker in shadow mode refuses nobody; it says whom it would have refused, and that counts as no evidence."""
    provider = world.provider(breaker={"mode": "shadow", **EXACT}, retry=ONCE, refusals=refusals)
    call = world.script(ConnectionResetError)
    for _ in range(8):
        with pytest.raises(ConnectionResetError):
            await provider.execute(call)
    assert call.calls == 8
    assert provider.breaker.state is CircuitState.OPEN
    assert [event.reason for event in world.heard(CallWouldBeRejected)] == [Reason.CIRCUIT_OPEN] * 3
    assert provider.snapshot().rejected == 0
    await anyio.sleep(60)
    for _ in range(3):
        await provider.execute(world.script("fine"))
    assert [after for _, after, _ in steps(world)] == ["open", "half_open", "closed"]


@pytest.mark.parametrize("settings", [{"mode": "disabled"}, {"enabled": False}], ids=["mode", "enabled"])
async def test_a_disabled_breaker(world, settings: dict[str, object]) -> None:
    """A disabled breaker never opens, and counts what it sees."""
    provider, call = world.provider(breaker=settings, retry=ONCE), world.script(ConnectionResetError)
    for _ in range(50):
        await provider.try_execute(call)
    await provider.execute(world.script("fine"))
    assert call.calls == 50
    now = provider.snapshot().breaker
    assert (now.state, now.calls, now.failed) == ("disabled", 51, 50)


async def test_opened_by_hand(world) -> None:
    """An operator can refuse every call, admit them again, and return to what the settings ask for."""
    provider = world.provider()
    provider.breaker.open()
    with pytest.raises(CircuitOpen) as caught:
        await provider.execute(world.script("never"))
    error = caught.value
    assert (str(error), error.reason, error.retry_after) == (
        "openai: circuit open, by hand",
        Reason.FORCED_OPEN,
        None,
    )
    await anyio.sleep(10_000)
    assert (await provider.try_execute(world.script("never"))).reason is Reason.FORCED_OPEN
    provider.breaker.close()
    assert await provider.execute(world.script("fine")) == "fine"
    await world.trip(provider)
    provider.breaker.reset()
    assert await provider.execute(world.script("fine")) == "fine"
    assert provider.snapshot().breaker.trips == 0


async def test_forced_open_by_the_settings(world) -> None:
    """A provider whose settings force it open refuses from the first call on, and `reset` keeps to the settings."""
    provider = world.provider(breaker={"mode": "forced_open"})
    with pytest.raises(CircuitOpen) as caught:
        await provider.execute(world.script("never"))
    assert str(caught.value) == "openai: circuit open, by the settings"
    provider.breaker.close()
    assert await provider.execute(world.script("fine")) == "fine"
    provider.breaker.reset()
    assert (await provider.try_execute(world.script("never"))).reason is Reason.FORCED_OPEN


@HEARD
async def test_refused_calls_are_not_counted_as_calls(world, refusals: bool) -> None:
    """A refusal counts as one, whatever the reason, and never as a call: it earns no retries."""
    provider = world.provider(breaker=EXACT, refusals=refusals)
    await world.trip(provider)
    for _ in range(2):
        for _ in range(10):
            await provider.try_execute(world.script("never"))
            with pytest.raises(CircuitOpen):
                await provider.execute(world.script("never"))
        provider.breaker.open()
    now = provider.snapshot()
    assert (now.calls, now.rejected) == (5, 40)


async def test_a_hint_keeps_it_open_for_longer(world) -> None:
    """A provider that fails and asks for a longer pause than the open time gets it, up to the cap of hints."""
    for hint, expected in (("10", 60.0), ("90", 90.0), ("500", 120.0)):
        provider = world.provider(retry=ONCE, breaker=EXACT, gate={"enabled": False})
        for _ in range(5):
            await provider.try_execute(world.script(world.status(503, retry_after=hint)))
        assert provider.snapshot().breaker.retry_after == expected
