"""`try_execute` and `Outcome`: how a call ended, as a value."""

from __future__ import annotations

import anyio
import pytest

from resilience import (
    CallRejected,
    CallTimeout,
    CircuitOpen,
    FailureKind,
    Outcome,
    ProviderError,
    ProviderGated,
    Reason,
    RetrySettings,
    failure_of,
)
from resilience.events import CallWasRejected

pytestmark = pytest.mark.anyio


async def test_success(world) -> None:
    """A call that succeeds is an outcome with a value."""
    outcome = await world.provider().try_execute(world.script("reply"))
    assert isinstance(outcome, Outcome)
    assert (outcome.ok, outcome.value, outcome.error, outcome.failure) == (True, "reply", None, None)
    assert (outcome.rejected, outcome.reason, outcome.retry_after) == (False, None, None)
    assert outcome.unwrap() == "reply"
    assert repr(outcome) == "<Outcome ok str>"


async def test_a_value_that_is_none(world) -> None:
    """A call that returns None has succeeded like any other."""
    outcome = await world.provider().try_execute(world.script(None))
    assert (outcome.ok, outcome.unwrap()) == (True, None)


async def test_failure(world) -> None:
    """A call that fails is an outcome with the error that `execute` would have raised, and its facts."""
    call = world.script(world.status(503, retry_after="2"))
    outcome = await world.provider().try_execute(call)
    assert (outcome.ok, outcome.value, outcome.rejected, outcome.reason) == (False, None, False, None)
    assert outcome.error is call.raised[2]
    assert outcome.failure is failure_of(outcome.error)
    assert (outcome.failure.kind, outcome.failure.attempts, outcome.retry_after) == (FailureKind.OVERLOADED, 3, 2.0)
    assert repr(outcome) == "<Outcome failed HttpError>"
    with pytest.raises(world.HttpError) as caught:
        outcome.unwrap()
    assert caught.value is outcome.error


async def test_every_kind_of_error_is_a_value(world) -> None:
    """Our own timeout, the standard error, a bug, even misuse: nothing that is an `Exception` is raised."""
    provider = world.provider(timeout={"attempt": 1.0, "total": 1.0})
    assert isinstance((await provider.try_execute(anyio.sleep, 60)).error, CallTimeout)
    assert isinstance((await provider.try_execute(world.script(KeyError))).error, KeyError)
    assert isinstance((await provider.try_execute(None)).error, TypeError)
    standard = world.provider(errors="standard", retry={"enabled": False})
    outcome = await standard.try_execute(world.script(world.status(500)))
    assert isinstance(outcome.error, ProviderError)
    assert outcome.failure.status == 500


@pytest.mark.parametrize("refusals", [False, True], ids=["unheard", "heard"])
async def test_a_refusal_by_an_open_circuit(world, refusals: bool) -> None:
    """A refusal is an outcome with reason and figures; its exception was made but never raised."""
    provider = world.provider(breaker={"jitter": 0.0}, refusals=refusals)
    await world.trip(provider)
    call = world.script("never")
    outcome = await provider.try_execute(call)
    assert call.calls == 0
    assert (outcome.ok, outcome.value, outcome.rejected, outcome.failure) == (False, None, True, None)
    assert (outcome.reason, outcome.retry_after) == (Reason.CIRCUIT_OPEN, 60.0)
    assert isinstance(outcome.error, CircuitOpen)
    assert str(outcome.error) == "openai: circuit open, 5 failures in a row, next probe in 60.0 s"
    assert outcome.error is outcome.error
    assert outcome.error.__traceback__ is None
    assert repr(outcome) == "<Outcome rejected circuit_open>"
    assert provider.snapshot().rejected == 1
    told = [
        (event.provider, event.operation, event.reason, event.retry_after) for event in world.heard(CallWasRejected)
    ]
    assert told == [("openai", "", Reason.CIRCUIT_OPEN, 60.0)] * refusals
    with pytest.raises(CircuitOpen) as caught:
        outcome.unwrap()
    assert caught.value is outcome.error


@pytest.mark.parametrize("reason", ["forced_open", "half_open_saturated", "provider_gated", "deadline_would_pass"])
async def test_other_refusals(world, reason: str) -> None:
    """Every refusal is an outcome of the same shape, and holds no frames of anybody's."""
    provider = world.provider(breaker={"jitter": 0.0})
    call, outcomes = world.script("never", seconds=1), []

    async def refused() -> None:
        outcomes.append(await provider.try_execute(call))

    if reason == "forced_open":
        provider.breaker.open()
        await refused()
    elif reason == "half_open_saturated":
        await world.trip(provider)
        await anyio.sleep(60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(provider.try_execute, world.script("probe", seconds=1))
            await anyio.sleep(0.5)
            await refused()
    else:
        hint = "60" if reason == "provider_gated" else "3"
        await provider.with_options(retry=False).try_execute(world.script(world.status(429, retry_after=hint)))
        with anyio.move_on_after(1):
            await refused()
    [outcome] = outcomes
    assert (call.calls, outcome.rejected, outcome.reason, outcome.failure) == (0, True, reason, None)
    assert isinstance(outcome.error, CallRejected)
    assert outcome.error.__traceback__ is None
    assert outcome.error.__context__ is None


async def test_refused_in_the_name_of_an_operation(world) -> None:
    """An event of a refusal tells what was being called."""
    provider = world.provider(refusals=True)
    upload, call = provider.with_options(operation="upload"), world.script("never")
    await world.trip(provider)
    await upload.try_execute(call)
    with pytest.raises(CircuitOpen):
        await upload.execute(call)
    provider.breaker.open()
    await upload.try_execute(call)
    assert [told.operation for told in world.heard(CallWasRejected)] == ["upload"] * 3


async def test_an_inner_refusal_is_not_ours(world) -> None:
    """A call whose function was refused by another provider has left: it failed, it was not refused."""
    registry = world.registry()
    outer, inner = registry.provider("outer"), registry.provider("inner")
    inner.breaker.open()
    outcome = await outer.try_execute(inner.execute, world.script("never"))
    assert isinstance(outcome.error, CircuitOpen)
    assert (outcome.ok, outcome.rejected, outcome.reason) == (False, False, None)
    assert outcome.failure.kind is FailureKind.REJECTED
    assert repr(outcome) == "<Outcome failed CircuitOpen>"


async def test_a_cancellation_is_no_outcome(world) -> None:
    """A caller that is cancelled gets no outcome."""
    outcomes, provider = [], world.provider()

    async def one() -> None:
        outcomes.append(await provider.try_execute(anyio.sleep, 10))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    assert outcomes == []
    assert provider.snapshot().in_flight == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_is_no_error_is_no_outcome(world, kind: type[BaseException]) -> None:
    """What is no `Exception` is raised."""
    with pytest.raises(kind):
        await world.provider().try_execute(world.script(kind))


async def test_options_hold(world) -> None:
    """The options of a view hold for `try_execute` too."""
    call = world.script(world.status(500))
    await world.provider().with_options(retry=RetrySettings(max_attempts=2)).try_execute(call)
    assert call.calls == 2


async def test_match(world) -> None:
    """An outcome can be matched by its value and its error."""
    provider = world.provider(retry={"enabled": False})

    async def told(call: object) -> str:
        match await provider.try_execute(call):
            case Outcome(value, None):
                return f"got {value}"
            case Outcome(_, CircuitOpen(retry_after=seconds)):
                return f"refused for {'ever' if seconds is None else seconds}"
            case Outcome(error=ProviderGated()):
                return "asked to wait"
            case Outcome(_, error):
                return f"failed with {type(error).__name__}"

    assert await told(world.script("reply")) == "got reply"
    assert await told(world.script(ConnectionResetError)) == "failed with ConnectionResetError"
    await told(world.script(world.status(429, retry_after="60")))
    assert await told(world.script("never")) == "asked to wait"
    provider.breaker.open()
    assert await told(world.script("never")) == "refused for ever"
