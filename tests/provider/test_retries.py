"""Retries: when, how often, how much later, at whose expense."""

from __future__ import annotations

import errno
from itertools import pairwise
from typing import Any

import anyio
import pytest

from resilience import Reason, RetryRule, RetrySettings, failure_of
from resilience.events import CallFailed, RetryScheduled

pytestmark = pytest.mark.anyio

STEADY = RetrySettings(jitter="none")
NO_BREAKER = {"mode": "disabled"}
NO_INCOME = {"ratio": 0.0, "floor_per_second": 0.001}


def note_of(error: BaseException) -> str:
    """The last word of the note: why there was no other attempt."""
    [note] = error.__notes__
    return note.rpartition("; ")[2].removesuffix(")")


# -- how much later --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, pauses",
    [
        (STEADY, [1, 2]),
        (RetrySettings(jitter="none", max_attempts=6), [1, 2, 4, 8, 16]),
        (RetrySettings(jitter="none", max_attempts=6, max_delay=5.0), [1, 2, 4, 5, 5]),
        (RetrySettings(jitter="none", max_attempts=4, base_delay=0.1, exponential_base=3.0), [0.1, 0.3, 0.9]),
        (RetrySettings(jitter="constant", max_attempts=4), [1, 1, 1]),
        (RetrySettings(jitter="none", base_delay=0.0), [0, 0]),
        (RetrySettings(max_attempts=1), []),
    ],
)
async def test_pauses_grow(world, settings: RetrySettings, pauses: list[float]) -> None:
    """The pause before each retry is a multiple of the one before, up to the longest."""
    provider, call = world.provider(retry=settings, breaker=NO_BREAKER), world.script(world.status(500), seconds=0.1)
    await provider.try_execute(call)
    assert call.pauses == pytest.approx(pauses)
    assert [event.delay for event in world.heard(RetryScheduled)] == pytest.approx(pauses)


@pytest.mark.parametrize(
    "jitter, bounds",
    [
        ("full", [(0, 1), (0, 2), (0, 4)]),
        ("equal", [(0.5, 1), (1, 2), (2, 4)]),
        ("proportional", [(0.8, 1.2), (1.6, 2.4), (3.2, 4.8)]),
        ("decorrelated", [(1, 3), (1, 9), (1, 27)]),
    ],
)
async def test_pauses_are_drawn(world, jitter: Any, bounds: list[tuple[float, float]]) -> None:
    """Pauses are drawn between their bounds, all over them, and really slept."""
    settings = RetrySettings(jitter=jitter, max_attempts=4)
    provider = world.provider(retry=settings, breaker=NO_BREAKER, budget={"enabled": False})
    calls = [world.script(world.status(500)) for _ in range(100)]
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(provider.try_execute, call)
    for retry, (low, high) in enumerate(bounds):
        drawn = [call.pauses[retry] for call in calls]
        assert low - 1e-6 <= min(drawn)
        assert max(drawn) <= high + 1e-6
        assert len({round(pause, 6) for pause in drawn}) > 90
        if jitter != "decorrelated":
            assert min(drawn) < low + (high - low) / 10
            assert max(drawn) > high - (high - low) / 10


async def test_concurrent_calls_share_no_back_off(world) -> None:
    """Where a pause depends on the one before, it is the one of the same call: sleepers slow down nobody else."""
    settings = RetrySettings(jitter="decorrelated", max_attempts=8, max_delay=1000.0)
    provider = world.provider(retry=settings, breaker=NO_BREAKER, budget={"enabled": False}, timeout={"total": None})
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            view = provider.with_options(operation=f"call-{number}")
            tasks.start_soon(view.try_execute, world.script(world.status(500)))
            await anyio.sleep(1)
    by_call: dict[str, list[float]] = {}
    for event in world.heard(RetryScheduled):
        by_call.setdefault(event.operation, []).append(event.delay)
    assert len(by_call) == 20
    assert max(delay for delays in by_call.values() for delay in delays) > 27
    for delays in by_call.values():
        assert 1 <= delays[0] <= 3
        assert all(1 <= later <= 3 * max(1.0, before) for before, later in pairwise(delays))


@pytest.mark.parametrize("error, factor", [(ConnectionResetError, 0.5), ("dns", 2.0), (TimeoutError, 1.0)])
async def test_patience_per_kind(world, error: Any, factor: float) -> None:
    """A lost connection is tried again sooner than usual, a name that does not resolve later."""
    if error == "dns":
        import socket

        def error() -> OSError:
            return socket.gaierror(socket.EAI_AGAIN, "try again")

    call = world.script(error)
    await world.provider(retry=STEADY).try_execute(call)
    assert call.pauses == pytest.approx([factor, 2 * factor])


# -- hints -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hint", ["0.01", "3", "30", "100"])
@pytest.mark.parametrize("status", [429, 503])
async def test_never_earlier_than_the_hint(world, hint: str, status: int) -> None:
    """A provider that says how long to stay away is obeyed: never earlier, and at most a tenth (or a second) later."""
    for seed in range(20):
        call = world.script(world.status(status, retry_after=hint), "now")
        assert await world.provider(seed=seed, retry=STEADY).execute(call) == "now"
        [pause] = call.pauses
        wanted = float(hint)
        assert wanted < pause <= wanted + min(1.0, max(0.06, 0.2 * wanted))


async def test_a_hint_beyond_the_cap(world) -> None:
    """A provider that asks for more than two minutes ends the call: nobody sleeps for that long."""
    provider, call = world.provider(timeout={"total": None}), world.script(world.status(503, retry_after="121"))
    began = anyio.current_time()
    outcome = await provider.try_execute(call)
    assert (call.calls, note_of(outcome.error), outcome.retry_after) == (1, "hint_beyond_cap", 121.0)
    assert anyio.current_time() == began


async def test_a_hint_beyond_the_deadline(world) -> None:
    """A pause that would pass the total timeout is not slept."""
    call = world.script(world.status(503, retry_after="60"))
    began = anyio.current_time()
    outcome = await world.provider().with_options(timeout=50).try_execute(call)
    assert (call.calls, note_of(outcome.error)) == (1, "deadline_would_pass")
    assert anyio.current_time() == began


# -- how often -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [{"retry": False}, {"retry": RetrySettings(enabled=False)}])
async def test_no_retries_for_a_view(world, view: dict[str, Any]) -> None:
    """A view without retries makes one attempt; the provider itself goes on as before."""
    provider, call = world.provider(), world.script(world.status(500))
    outcome = await provider.with_options(**view).try_execute(call)
    assert (call.calls, note_of(outcome.error)) == (1, "retry_disabled")
    outcome = await provider.try_execute(call)
    assert (call.calls, note_of(outcome.error)) == (4, "attempts_spent")


async def test_no_retries_at_all(world) -> None:
    """Retries can be switched off for a provider, and on again for a view, with settings of its own."""
    provider, call = world.provider(retry={"enabled": False}), world.script(world.status(500))
    assert note_of((await provider.try_execute(call)).error) == "retry_disabled"
    assert note_of((await provider.with_options(retry=True).try_execute(call)).error) == "retry_disabled"
    assert call.calls == 2
    await provider.with_options(retry=RetrySettings(max_attempts=2)).try_execute(call)
    assert call.calls == 4


async def test_one_attempt_is_all_attempts(world) -> None:
    """With ``max_attempts=1`` the first attempt is the last; the note does not call the failure hopeless."""
    call = world.script(world.status(500))
    outcome = await world.provider(retry={"max_attempts": 1}).try_execute(call)
    assert (call.calls, note_of(outcome.error)) == (1, "attempts_spent")


async def test_attempts_per_kind(world) -> None:
    """A kind of failure may have a number of attempts of its own, larger or smaller, even one that is usually final."""
    rules = {"timeout": RetryRule(max_attempts=1), "not_found": RetryRule(max_attempts=5, delay_factor=0.1)}
    provider = world.provider(retry=RetrySettings(per_kind=rules, jitter="none"), breaker=NO_BREAKER)
    for step, attempts, note in (
        (TimeoutError, 1, "attempts_spent"),
        (world.status(404), 5, "attempts_spent"),
        (world.status(500), 3, "attempts_spent"),
        (world.status(403), 1, "not_retryable"),
        (world.status(407), 1, "not_retryable"),
    ):
        call = world.script(step)
        outcome = await provider.try_execute(call)
        assert (call.calls, note_of(outcome.error)) == (attempts, note)
    told = [(event.attempt, event.max_attempts) for event in world.heard(RetryScheduled)]
    assert told == [(2, 5), (3, 5), (4, 5), (5, 5), (2, 3), (3, 3)]


async def test_the_last_failure_decides(world) -> None:
    """Each attempt's failure is judged by itself: one that is final ends the call, whatever came before."""
    call = world.script(world.status(500), world.status(404), "never")
    outcome = await world.provider().try_execute(call)
    assert (call.calls, outcome.failure.status, note_of(outcome.error)) == (2, 404, "not_retryable")


# -- idempotence -----------------------------------------------------------------------------------------------------


def refused() -> OSError:
    return ConnectionRefusedError(errno.ECONNREFUSED, "refused")


@pytest.mark.parametrize("idempotent, unsent, maybe, processed", [(None, 3, 3, 3), (True, 3, 3, 3), (False, 3, 1, 1)])
async def test_idempotence(world, idempotent: bool | None, unsent: int, maybe: int, processed: int) -> None:
    """What must not happen twice is only tried again when it surely was not sent."""
    provider = world.provider(breaker=NO_BREAKER).with_options(idempotent=idempotent)
    for step, attempts in ((refused, unsent), (ConnectionResetError, maybe), (world.status(500), processed)):
        call = world.script(step)
        outcome = await provider.try_execute(call)
        assert call.calls == attempts
        assert note_of(outcome.error) == ("attempts_spent" if attempts == 3 else "not_idempotent")


async def test_idempotence_of_an_operation(world) -> None:
    """An operation's settings say whether it is idempotent; a view may say otherwise."""
    provider = world.provider(operations={"pay": {"idempotent": False}}, breaker=NO_BREAKER)
    pay = provider.with_options(operation="pay")
    for view, attempts in ((pay, 1), (pay.with_options(idempotent=None), 3), (provider, 3)):
        call = world.script(ConnectionResetError)
        await view.try_execute(call)
        assert call.calls == attempts


# -- new credentials -------------------------------------------------------------------------------------------------


async def test_credentials_are_renewed_once(world) -> None:
    """Refused credentials are renewed once and tried again at once; refused again, they are final."""
    refresh, call = world.script("renewed"), world.script(world.status(401), "welcome")
    provider = world.provider().with_options(refresh=refresh)
    began = anyio.current_time()
    assert await provider.execute(call) == "welcome"
    assert (refresh.calls, call.calls, anyio.current_time()) == (1, 2, began)
    call = world.script(world.status(401))
    outcome = await provider.try_execute(call)
    assert (refresh.calls, call.calls, note_of(outcome.error)) == (2, 2, "attempts_spent")


async def test_credentials_are_renewed_for_what_is_not_idempotent(world) -> None:
    """A request that was refused for its credentials was not carried out, so it may be repeated."""
    call = world.script(world.status(401), "paid")
    provider = world.provider().with_options(refresh=world.script("renewed"), idempotent=False)
    assert await provider.execute(call) == "paid"


async def test_nothing_is_renewed_for_other_failures(world) -> None:
    """The hook is for refused credentials only."""
    refresh, call = world.script("renewed"), world.script(world.status(403), world.status(500))
    provider = world.provider().with_options(refresh=refresh)
    for _ in range(2):
        await provider.try_execute(call)
    assert refresh.calls == 0


async def test_without_a_hook_credentials_are_final(world) -> None:
    """Without a hook nothing will have changed the next time."""
    call = world.script(world.status(401))
    outcome = await world.provider().try_execute(call)
    assert (call.calls, note_of(outcome.error)) == (1, "not_retryable")


async def test_a_provider_that_wants_to_be_asked_again(world) -> None:
    """Where the provider itself asks for another attempt at a 401, it is made after a pause like any other."""
    call = world.script(world.status(401, x_should_retry="true"), "welcome")
    assert await world.provider(retry=STEADY).execute(call) == "welcome"
    assert call.pauses == pytest.approx([1])


async def test_a_hook_that_hangs_is_ended_by_the_total_timeout(world) -> None:
    """Renewing is part of the call, so it ends with it; the error that made it necessary comes out."""
    call = world.script(world.status(401))
    began = anyio.current_time()
    provider = world.provider(budget=NO_INCOME).with_options(refresh=lambda: anyio.sleep(10_000))
    outcome = await provider.try_execute(call)
    assert outcome.error is call.raised[0]
    assert (call.calls, note_of(outcome.error)) == (1, "deadline_would_pass")
    assert anyio.current_time() - began == pytest.approx(120)
    assert provider.snapshot().retries_available == 10


async def test_a_hook_that_fails(world) -> None:
    """An error of the hook's own comes out as it is, and what was paid for the retry is given back."""
    call, refresh = world.script(world.status(401)), world.script(ConnectionRefusedError)
    provider = world.provider(budget=NO_INCOME).with_options(refresh=refresh)
    with pytest.raises(ConnectionRefusedError) as caught:
        await provider.execute(call)
    assert caught.value is refresh.raised[0]
    assert call.calls == 1
    assert provider.snapshot().retries_available == 10


# -- the budget ------------------------------------------------------------------------------------------------------


async def test_when_the_budget_is_spent(world) -> None:
    """When the retry budget is spent the original error comes out at once, with the reason in its note."""
    provider = world.provider(budget={"ratio": 0.0, "floor_burst": 3}, breaker=NO_BREAKER, retry={"base_delay": 0.0})
    calls = [world.script(world.status(500)) for _ in range(3)]
    notes = [note_of((await provider.try_execute(call)).error) for call in calls]
    assert [call.calls for call in calls] == [3, 2, 1]
    assert notes == ["attempts_spent", "retry_budget_exhausted", "retry_budget_exhausted"]
    assert [event.reason for event in world.heard(CallFailed)][-1] is Reason.RETRY_BUDGET_EXHAUSTED
    await anyio.sleep(1.01)
    assert provider.snapshot().retries_available == 1


async def test_calls_earn_retries(world) -> None:
    """Each call earns a fifth of a retry, for ten seconds."""
    provider = world.provider(budget={"floor_per_second": 0.0}, breaker=NO_BREAKER, retry={"base_delay": 0.0})
    for _ in range(19):
        await provider.execute(world.script("fine"))
    call = world.script(world.status(500))
    assert note_of((await provider.try_execute(call)).error) == "attempts_spent"
    assert provider.snapshot().retries_available == 2
    await anyio.sleep(12)
    assert note_of((await provider.try_execute(call)).error) == "retry_budget_exhausted"


async def test_sleepers_count(world) -> None:
    """A retry is paid for when it is scheduled, so a crowd that fails at once cannot overdraw the budget."""
    provider = world.provider(budget=NO_INCOME, breaker=NO_BREAKER, retry=RetrySettings(max_attempts=2))
    calls = [world.script(world.status(500)) for _ in range(50)]
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(provider.try_execute, call)
    assert sorted(call.calls for call in calls) == [1] * 40 + [2] * 10


async def test_a_budget_that_is_switched_off(world) -> None:
    """Without a budget every call makes its retries."""
    provider = world.provider(budget={"enabled": False}, breaker=NO_BREAKER)
    calls = [world.script(world.status(500)) for _ in range(50)]
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(provider.try_execute, call)
    assert {call.calls for call in calls} == {3}


async def test_endpoints_share_the_budget(world) -> None:
    """All endpoints of a provider draw on one budget; another provider has its own."""
    registry = world.registry(budget={"ratio": 0.0, "floor_burst": 2}, retry={"base_delay": 0.0})
    east, west = registry.provider("s3", endpoint="east"), registry.provider("s3", endpoint="west")
    await east.try_execute(world.script(world.status(500)))
    assert west.snapshot().retries_available == 0
    call = world.script(world.status(500))
    assert note_of((await west.try_execute(call)).error) == "retry_budget_exhausted"
    assert registry.provider("openai").snapshot().retries_available == 2


@pytest.mark.parametrize("warm", [False, True], ids=["first", "later"])
async def test_cancelled_in_its_pause(world, warm: bool) -> None:
    """A call that is cancelled while it waits for its next attempt gets back what that would have cost."""
    provider, call = world.provider(budget=NO_INCOME, retry=STEADY), world.script(world.status(500))
    await world.warm(provider, warm=warm)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(provider.execute, call)
        await anyio.sleep(0.25)
        assert provider.snapshot().retries_available == 9
        tasks.cancel_scope.cancel()
    now = provider.snapshot()
    assert (call.calls, now.retries, now.retries_available, now.in_flight) == (1, 1, 10, 0)


async def test_refused_after_its_pause(world) -> None:
    """A retry that is refused when its time comes is given back as well."""
    provider, call = world.provider(budget=NO_INCOME, retry=STEADY), world.script(world.status(500))

    async def open_meanwhile() -> None:
        await anyio.sleep(0.5)
        provider.breaker.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_meanwhile)
        outcome = await provider.try_execute(call)
    assert (call.calls, note_of(outcome.error)) == (1, "forced_open")
    assert provider.snapshot().retries_available == 10


async def test_a_retry_that_leaves_stays_paid_for(world) -> None:
    """What was paid for a retry that left is gone, however the retry ends."""
    provider = world.provider(budget=NO_INCOME, retry=STEADY, breaker=NO_BREAKER)
    await provider.execute(world.script(world.status(500), "fine"))
    await provider.try_execute(world.script(world.status(500), world.status(404)))
    with anyio.move_on_after(5):
        call = world.script(world.status(500), "slow", seconds=3)
        await provider.execute(call)
    assert call.calls == 2
    assert provider.snapshot().retries_available == 7


# -- figures ---------------------------------------------------------------------------------------------------------


async def test_running_numbers(world) -> None:
    """The snapshot counts calls, retries, recoveries and exhausted calls."""
    provider = world.provider(breaker=NO_BREAKER, timeout={"attempt": 5.0})
    await provider.execute(world.script("fine"))
    await provider.execute(world.script(world.status(500), "fine"))
    await provider.try_execute(world.script(world.status(500)))
    await provider.try_execute(world.script(world.status(404)))
    await provider.try_execute(world.script("late", seconds=10))
    now = provider.snapshot()
    assert (now.calls, now.retries, now.recovered, now.exhausted, now.timeouts) == (5, 5, 1, 2, 3)


async def test_attempts_in_the_failure(world) -> None:
    """The failure of each attempt tells its number."""
    provider = world.provider()
    outcome = await provider.try_execute(world.script(world.status(500)))
    assert [event.failure.attempts for event in world.heard(RetryScheduled)] == [1, 2]
    assert failure_of(outcome.error).attempts == 3
