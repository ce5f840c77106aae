"""A call goes on elsewhere when a provider refuses or fails: at once, under the other's own policies, and honestly."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from resilience import (
    BreakerSettings,
    CallTimeout,
    CircuitOpen,
    CircuitState,
    ConfigurationError,
    Deadline,
    FailureKind,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    TimeoutSettings,
    failure_of,
)
from resilience.errors import AllProvidersFailed, StreamInterrupted, UnacceptableResult
from resilience.events import FellBack
from resilience.routing.fallback import FallbackChain
from resilience.testing import cancelled_everywhere

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.anyio

ONCE = RetrySettings(enabled=False)
EMPTY = {"ratio": 0, "floor_per_second": 1e-9, "floor_burst": 1}  # after one retry


def pair(world: World, **settings: Any) -> tuple[ResilientProvider, ResilientProvider]:
    """Two providers of one registry, without retries unless asked for."""
    registry = world.registry(**{"retry": ONCE, **settings})
    return registry.provider("openai"), registry.provider("anthropic")


# -- who is asked ------------------------------------------------------------------------------------------------------


async def test_the_first_that_answers_is_enough(world: World) -> None:
    """While the first provider answers, nobody else hears of it."""
    first, second = world.script("one"), world.script("two")
    a, b = pair(world)
    assert await FallbackChain(a).fallback_to(b, second).execute(first, 1, x=2) == "one"
    assert (first.given, second.calls) == ([((1,), {"x": 2})], 0)


async def test_a_chain_begins_at_a_provider(world: World) -> None:
    """`ResilientProvider.fallback_to` makes the chain, with a name or a provider, a function and its rules."""
    a, b = pair(world)
    chain = a.fallback_to("anthropic", world.script("two"), on=TimeoutError)
    assert await chain.execute(world.script(TimeoutError)) == "two"
    assert not (await chain.try_execute(world.script(ConnectionError))).ok
    assert await a.fallback_to(b).execute(world.script(ConnectionError, "same")) == "same"


async def test_a_failure_leads_to_the_next_with_the_same_arguments(world: World) -> None:
    """The next provider's own function gets the same arguments, and its answer is the answer."""
    first, second = world.script(world.status(500)), world.script("two")
    a, b = pair(world)
    outcome = await FallbackChain(a).fallback_to(b, second).try_execute(first, 1, x=2)
    assert (outcome.ok, outcome.value) == (True, "two")
    assert second.given == first.given == [((1,), {"x": 2})]


async def test_a_name_is_looked_up_beside_the_first_and_the_function_may_be_the_same(world: World) -> None:
    """`fallback_to("b")` means the "b" of the same registry, and the same function."""
    registry = world.registry(retry=ONCE)
    work = world.script(ConnectionError, "two")
    assert await FallbackChain(registry.provider("openai")).fallback_to("anthropic").execute(work) == "two"
    assert "anthropic" in registry
    assert registry.provider("anthropic").snapshot().calls == 1


async def test_each_is_tried_under_its_own_policies(world: World) -> None:
    """Each provider makes its own attempts, within its own limits, and only its own circuit hears of its failures."""
    registry = ProviderRegistry(
        Settings(
            providers={
                "openai": ProviderSettings(retry=RetrySettings(max_attempts=2, jitter="none", base_delay=1)),
                "anthropic": ProviderSettings(timeout=TimeoutSettings(attempt=3, total=3), retry=ONCE),
            }
        ),
        clock=anyio.current_time,
    )
    a, b = registry.provider("openai"), registry.provider("anthropic")
    first, second = world.script(ConnectionError), world.script("late", seconds=5)
    outcome = await FallbackChain(a).fallback_to(b, second).try_execute(first)
    assert (first.calls, second.calls) == (2, 1)
    assert isinstance(outcome.error, AllProvidersFailed)
    assert isinstance(outcome.error.__cause__, CallTimeout)
    assert a.breaker.snapshot().failures_in_a_row == 2
    assert b.breaker.snapshot().failures_in_a_row == 1


async def test_a_provider_with_an_open_circuit_is_skipped_at_once(world: World) -> None:
    """Its function is not called and no time passes."""
    a, b = pair(world)
    await world.trip(a)
    first, second = world.script("one"), world.script("two")
    before = anyio.current_time()
    assert await FallbackChain(a).fallback_to(b, second).execute(first) == "two"
    assert (first.calls, anyio.current_time()) == (0, before)


async def test_a_provider_whose_gate_is_closed_is_not_waited_for(world: World) -> None:
    """A short pause that a lone call would wait for is no reason to wait when another provider is free."""
    a, b = pair(world)
    await a.try_execute(world.script(world.status(429, retry_after="3")))
    before = anyio.current_time()
    assert await FallbackChain(a).fallback_to(b, world.script("two")).execute(world.script("one")) == "two"
    assert anyio.current_time() == before
    assert a.snapshot().gate_closed_for == pytest.approx(3)


async def test_nobody_sleeps_out_a_hint_between_attempts_either(world: World) -> None:
    """A provider that asks for a pause in the middle of its attempts is left at once."""
    a, b = pair(world, retry=RetrySettings())
    first = world.script(world.status(429, retry_after="3"))
    before = anyio.current_time()
    assert await FallbackChain(a).fallback_to(b, world.script("two")).execute(first) == "two"
    assert (first.calls, anyio.current_time()) == (1, before)


async def test_when_nobody_answers_the_one_that_is_free_soonest_is_waited_for(world: World) -> None:
    """A call does not fail just because it has a fallback: at last it waits as long as a lone one."""
    a, b = pair(world)
    await a.try_execute(world.script(world.status(429, retry_after="3")))
    await b.try_execute(world.script(world.status(429, retry_after="2")))
    first, second = world.script("one"), world.script("two")
    before = anyio.current_time()
    assert await FallbackChain(a).fallback_to(b, second).execute(first) == "two"
    assert 2 <= anyio.current_time() - before < 2.5
    assert first.calls == 0


async def test_a_hint_is_waited_out_when_everybody_else_has_failed(world: World) -> None:
    """A rate limit that a lone provider's retry would have outlived is outlived here too, after the others."""
    a, b = pair(world, retry=RetrySettings(max_attempts=2))
    first = world.script(world.status(429, retry_after="3"), "one")
    await world.trip(b)
    assert await FallbackChain(a).fallback_to(b).execute(first) == "one"
    assert first.calls == 2


@pytest.mark.parametrize(
    "limits",
    [{"bulkhead": {"max_concurrent": 1}}, {"rate_limit": {"requests_per_second": 1, "burst": 1}}],
    ids=["bulkhead", "rate limit"],
)
async def test_nobody_stands_in_line_while_another_provider_is_free(world: World, limits: Any) -> None:
    """A provider at its limit is passed over at once; when all are, the call stands in line after all."""
    a, b = pair(world, **limits)
    chain = FallbackChain(a).fallback_to(b)
    asked: list[tuple[str, float]] = []

    async def ask(name: str) -> None:
        await chain.execute(world.script("x", seconds=0.9))
        asked.append((name, anyio.current_time() - began))

    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        for name in ("first", "second", "third"):
            group.start_soon(ask, name)
            await anyio.sleep(0.01)
    assert [round(when, 1) for _, when in asked] == [0.9, 0.9, pytest.approx(1.85, abs=0.1)]
    assert (a.snapshot().calls, b.snapshot().calls) == (2, 1)


async def test_who_is_waited_for_in_vain_has_the_last_word(world: World) -> None:
    """What came of waiting replaces the refusal in the error, once for each provider."""
    a, b = pair(world)
    await a.try_execute(world.script(world.status(429, retry_after="3")))
    chain = FallbackChain(a).fallback_to(b, world.script(ConnectionError))
    outcome = await chain.try_execute(world.script(world.status(500)))
    assert isinstance(outcome.error, AllProvidersFailed)
    assert [name for name, _ in outcome.error.outcomes] == ["anthropic", "openai"]
    assert getattr(outcome.error.outcomes[1][1], "status_code", None) == 500


async def test_one_provider_twice_is_two_places(world: World) -> None:
    """A cheaper model at the same provider is a fallback of its own, and each is named in the error."""
    a, _ = pair(world)
    chain = FallbackChain(a).fallback_to(a, world.script(TimeoutError))
    with pytest.raises(AllProvidersFailed) as caught:
        await chain.execute(world.script(world.status(500)))
    assert [name for name, _ in caught.value.outcomes] == ["openai", "openai"]


async def test_a_fallback_to_the_same_provider_is_paid_for_like_a_retry(world: World) -> None:
    """Where the budget for more load is spent, the same provider is not asked again under another function."""
    a, b = pair(world, budget=EMPTY)
    same, other = world.script("same"), world.script("other")
    chain = FallbackChain(a).fallback_to(a, same).fallback_to(b, other)
    assert await chain.execute(world.script(world.status(500))) == "same"
    assert await chain.execute(world.script(world.status(500))) == "other"
    assert same.calls == 1


async def test_a_refusal_costs_no_budget(world: World) -> None:
    """From an endpoint that refuses to another one is no retry: nothing was sent."""
    registry = world.registry(retry=ONCE, budget=EMPTY)
    eu, us = registry.provider("s3", endpoint="eu"), registry.provider("s3", endpoint="us")
    eu.breaker.open()
    chain = FallbackChain(eu).fallback_to(us)
    assert [await chain.execute(world.script("us")) for _ in range(3)] == ["us"] * 3


async def test_asking_again_after_a_hint_is_paid_for_like_a_retry(world: World) -> None:
    """With the budget spent, a provider that was asked already is not waited for."""
    a, b = pair(world, budget=EMPTY)
    b.breaker.open()
    chain = FallbackChain(a).fallback_to(b)
    assert await chain.execute(world.script(world.status(429, retry_after="3"), "one")) == "one"
    assert not (await chain.try_execute(world.script(world.status(429, retry_after="3"), "one"))).ok


async def test_only_what_a_pause_can_mend_is_asked_again(world: World) -> None:
    """A refused key stays refused, even if the gate happens to be closed."""
    a, b = pair(world)
    b.breaker.open()
    refused = world.script(world.status(401))

    async def ask() -> None:
        await a.try_execute(world.script(world.status(429, retry_after="3")))
        await refused()

    assert not (await FallbackChain(a).fallback_to(b).try_execute(ask)).ok
    assert refused.calls == 1


# -- which errors lead on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503])
async def test_what_another_provider_may_do_better_leads_on(world: World, status: int) -> None:
    """Failures, and refusals that concern our account there, are no reason to give up."""
    a, b = pair(world)
    assert await FallbackChain(a).fallback_to(b, world.script("two")).execute(world.script(world.status(status)))


@pytest.mark.parametrize(
    "error",
    [
        TypeError,
        KeyError,
        lambda: ConfigurationError("ours"),
        lambda: StreamInterrupted("x", "", 1, ()),
        lambda: FileNotFoundError(2, "no such file", "mine.txt"),
        lambda: PermissionError(13, "not yours", "mine.txt"),
    ],
    ids=["TypeError", "KeyError", "configuration", "half a stream", "no file", "no right to a file"],
)
async def test_what_would_be_the_same_anywhere_comes_out(world: World, error: Callable[[], Exception]) -> None:
    """The caller's own mistakes reach the caller as they are, past every fallback."""
    a, b = pair(world)
    second = world.script("two")
    chain = FallbackChain(a).fallback_to(b, second).fallback_value("three")
    first = world.script(error)
    with pytest.raises(type(error())) as caught:
        await chain.execute(first)
    assert caught.value is first.raised[0]
    assert second.calls == 0


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_an_answer_to_this_very_request_comes_out(world: World, status: int) -> None:
    """What a provider says about the request itself is not asked again elsewhere."""
    a, b = pair(world)
    second = world.script("two")
    outcome = await FallbackChain(a).fallback_to(b, second).try_execute(world.script(world.status(status)))
    assert getattr(outcome.error, "status_code", None) == status
    assert second.calls == 0


async def test_a_mistake_further_on_tells_what_came_before(world: World) -> None:
    """The caller's own mistake in the second function comes out with a note on why it was called at all."""
    a, b = pair(world)
    await world.trip(a)
    with pytest.raises(TypeError) as caught:
        await FallbackChain(a).fallback_to(b, world.script(TypeError)).execute(world.script("one"))
    assert any("openai: was asked before (circuit_open)" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    "on, leads",
    [
        (FailureKind.TIMEOUT, True),
        (FailureKind.RATE_LIMIT, False),
        (TimeoutError, True),
        (ConnectionError, False),
        ((FailureKind.RATE_LIMIT, TimeoutError), True),
        (lambda error: "slow" in str(error), True),
        (lambda error: False, False),
        (lambda error: 1 / 0, False),
        ((), False),
    ],
)
async def test_on_says_which_errors_lead_to_a_provider(world: World, on: Any, leads: bool) -> None:
    """Kinds, classes, predicates, or several of them; a predicate that breaks is for nothing."""
    a, b = pair(world)
    second = world.script("two")
    chain = FallbackChain(a).fallback_to(b, second, on=on)
    outcome = await chain.try_execute(world.script(lambda: TimeoutError("slow")))
    assert (second.calls == 1, outcome.ok) == (leads, leads)


async def test_who_is_not_for_an_error_is_passed_over(world: World) -> None:
    """An error finds the next provider that is for it."""
    a, b = pair(world)
    second, third = world.script("two"), world.script("three")
    chain = FallbackChain(a).fallback_to(b, second, on=FailureKind.RATE_LIMIT).fallback_to("mistral", third)
    assert await chain.execute(world.script(ConnectionError)) == "three"
    assert second.calls == 0


async def test_on_can_lead_on_from_what_usually_comes_out(world: World) -> None:
    """Whoever wants a mirror asked for what is not found says so."""
    a, b = pair(world)
    chain = FallbackChain(a).fallback_to(b, world.script("mirrored"), on=FailureKind.NOT_FOUND)
    assert await chain.execute(world.script(world.status(404))) == "mirrored"


@pytest.mark.parametrize(
    "status, again", [(None, False), (500, False), (429, True), (401, True)], ids=["cut", "500", "429", "401"]
)
async def test_what_must_be_done_once_is_not_done_elsewhere(world: World, status: int | None, again: bool) -> None:
    """A payment that may have gone through is not made again at the next provider, nor after a wait."""
    a, b = pair(world)
    second = world.script("two")
    chain = FallbackChain(a.with_options(idempotent=False)).fallback_to(b, second, on=Exception)
    first = world.script(world.status(status) if status else ConnectionResetError)
    assert (await chain.try_execute(first)).ok is again
    assert (first.calls, second.calls) == (1, int(again))
    # A value is no second payment.
    assert await chain.fallback_value("later", on=Exception).execute(first) in {"two", "later"}


async def test_nobody_is_waited_for_after_what_must_be_done_once(world: World) -> None:
    """A provider that was skipped for its gate is not asked after another may have done the work."""
    a, b = pair(world)
    await a.try_execute(world.script(world.status(429, retry_after="3")))
    first = world.script("one")
    chain = FallbackChain(a).fallback_to(b.with_options(idempotent=False), world.script(ConnectionResetError))
    assert not (await chain.try_execute(first)).ok
    assert first.calls == 0


# -- the last resort ---------------------------------------------------------------------------------------------------


async def test_a_value_answers_when_nobody_else_does(world: World) -> None:
    """Any value, None and awaitables included, is handed out as it is."""
    a, b = pair(world)
    broken = world.script(ConnectionError)
    for value in (None, "later", world.script("x")):
        assert await FallbackChain(a).fallback_to(b).fallback_value(value).execute(broken) is value
    assert await FallbackChain(a).fallback_value("later", on=TimeoutError).try_execute(broken)


async def test_a_function_gets_the_error_that_would_have_come_out(world: World) -> None:
    """Of one provider its own error, of several the one that tells of all; synchronous or not."""
    a, b = pair(world)
    broken = world.script(ConnectionError)

    async def later(error: Exception) -> tuple[str, Exception]:
        await anyio.sleep(1)
        return "later", error

    one = await FallbackChain(a).fallback_with(lambda error: error).execute(broken)
    assert one is broken.raised[-1]
    word, several = await FallbackChain(a).fallback_to(b).fallback_with(later).execute(broken)
    assert (word, type(several)) == ("later", AllProvidersFailed)


async def test_a_function_that_fails_fails_with_its_own_error(world: World) -> None:
    """Its error comes out, in the context of the one it was given; raising that one again is fine."""
    a, _ = pair(world)
    broken = world.script(ConnectionError)

    def fail(error: Exception) -> None:
        raise LookupError("no cache")

    def again(error: Exception) -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        await FallbackChain(a).fallback_with(fail).execute(broken)
    assert caught.value.__context__ is broken.raised[-1]
    with pytest.raises(ConnectionError):
        await FallbackChain(a).fallback_with(again).execute(broken)


async def test_a_lone_provider_is_waited_for_before_the_last_resort(world: World) -> None:
    """With nobody else to ask, a short pause is waited for as ever."""
    a, _ = pair(world)
    await a.try_execute(world.script(world.status(429, retry_after="3")))
    assert await FallbackChain(a).fallback_value("later").execute(world.script("one")) == "one"
    await a.try_execute(world.script(world.status(429, retry_after="60")))
    assert await FallbackChain(a).fallback_value("later").execute(world.script("one")) == "later"
    assert a.snapshot().rejected == 1


# -- how it ends -------------------------------------------------------------------------------------------------------


async def test_the_final_error_tells_what_each_one_said(world: World) -> None:
    """Who, in order, with our own refusals in full and without the payload of others; the cause is a provider's."""
    a, b = pair(world)
    await world.trip(b)
    broken = world.script(world.status(503))
    with pytest.raises(AllProvidersFailed) as caught:
        await FallbackChain(a).fallback_to(b).execute(broken)
    error = caught.value
    assert [(name, type(each)) for name, each in error.outcomes] == [
        ("openai", world.HttpError),
        ("anthropic", CircuitOpen),
    ]
    assert error.__cause__ is broken.raised[-1]
    assert str(error).startswith("all providers failed: openai: overloaded (HttpError); anthropic: circuit open, 5 ")
    assert "secret" not in str(error)
    failure = failure_of(error)
    assert failure is not None
    assert (failure.kind, failure.provider) == (FailureKind.OVERLOADED, "openai")


async def test_when_all_refuse_the_error_has_no_failure(world: World) -> None:
    """Nobody failed, so nobody's failure is claimed."""
    a, b = pair(world)
    await world.trip(a)
    await world.trip(b)
    outcome = await FallbackChain(a).fallback_to(b).try_execute(world.script("x"))
    assert isinstance(outcome.error, AllProvidersFailed)
    assert isinstance(outcome.error.__cause__, CircuitOpen)
    assert outcome.failure is None


async def test_a_provider_that_is_switched_off_still_falls_back(world: World) -> None:
    """Without policies of its own a provider's errors lead on all the same."""
    a, b = pair(world, enabled=False)
    assert await FallbackChain(a).fallback_to(b, world.script("two")).execute(world.script(ConnectionError)) == "two"


async def test_each_step_on_the_way_is_told(world: World) -> None:
    """Listeners of the provider that was left hear where the call went, and why."""
    a, b = pair(world)
    await world.trip(b)
    broken = world.script(TimeoutError)
    chain = FallbackChain(a.with_options(operation="chat")).fallback_to(b).fallback_value("later")
    assert await chain.execute(broken) == "later"
    assert [(event.provider, event.operation, event.to, event.reason) for event in world.heard(FellBack)] == [
        ("openai", "chat", "anthropic", "timeout"),
        ("anthropic", "", "<value>", "circuit_open"),
    ]


async def test_a_result_that_nobody_wanted_is_closed(world: World) -> None:
    """When a result is not acceptable and the call goes on, the result is closed."""

    class Reply:
        closed = 0

        async def aclose(self) -> None:
            Reply.closed += 1

    a, b = pair(world)
    chain = FallbackChain(a.with_options(accept=lambda reply: not isinstance(reply, Reply))).fallback_to(
        b, world.script("two")
    )
    assert await chain.execute(world.script(Reply())) == "two"
    assert Reply.closed == 1
    alone = FallbackChain(a.with_options(accept=lambda reply: False))
    with pytest.raises(UnacceptableResult):
        await alone.execute(world.script("x"))


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_deadline_around_the_chain_interrupts_it(world: World) -> None:
    """Whoever is asked when it passes is interrupted, and nobody is asked after it."""
    a, b = pair(world)
    first, second, third = world.script(ConnectionError, seconds=1), world.script(1, seconds=9), world.script("three")
    chain = FallbackChain(a).fallback_to(b, second).fallback_to("mistral", third)
    with anyio.move_on_after(4):
        await chain.execute(first)
    assert (second.calls, third.calls) == (1, 0)


async def test_a_deadline_that_has_passed_stops_the_chain(world: World) -> None:
    """A function that used up the time, blocking, leaves none for the others: what it said comes out."""
    a, b = pair(world)
    second = world.script("two")

    async def works_too_long() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
        raise ConnectionError

    error: BaseException | None = None
    with anyio.move_on_after(4):
        try:
            await FallbackChain(a).fallback_to(b, second).execute(works_too_long)
        except ConnectionError as raised:
            error = raised
    assert isinstance(error, ConnectionError)
    assert second.calls == 0


async def test_the_deadline_of_the_first_holds_for_all(world: World) -> None:
    """`with_options(deadline=...)` on the first provider bounds those after it, unless they have their own."""
    a, b = pair(world)
    chain = FallbackChain(a.with_options(deadline=Deadline(4, clock=anyio.current_time)))
    chain = chain.fallback_to(b, world.script("late", seconds=9)).fallback_to("mistral", third := world.script("3"))
    before = anyio.current_time()
    outcome = await chain.try_execute(world.script(ConnectionError, seconds=1))
    assert not outcome.ok
    assert anyio.current_time() - before == pytest.approx(4)
    assert third.calls == 0
    assert isinstance(outcome.error, AllProvidersFailed)
    assert [name for name, _ in outcome.error.outcomes] == ["openai", "anthropic"]


async def test_the_deadline_of_an_outer_attempt_stops_the_chain(world: World) -> None:
    """Inside a call of another provider, its attempt's end is the chain's end."""
    registry = world.registry(retry=ONCE, timeout=TimeoutSettings(attempt=3, total=3))
    outer, a = registry.provider("gateway"), registry.provider("openai")
    second = world.script("two")

    async def stubborn() -> None:
        with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
            await anyio.sleep(3)
        raise ConnectionError

    chain = FallbackChain(a.with_options(timeout=None, attempt_timeout=None)).fallback_to("anthropic", second)
    outcome = await outer.try_execute(chain.execute, stubborn)
    assert not outcome.ok
    assert second.calls == 0


# -- cancellation and memory -------------------------------------------------------------------------------------------


async def test_a_cancellation_propagates_from_every_point(world: World) -> None:
    """Wherever it strikes, it comes out, nobody else is asked, and no permit is left behind."""
    for ending in cancelled_everywhere():
        a, b = pair(world)
        await a.try_execute(world.script(world.status(429, retry_after="2")))
        first, second = world.script("one", seconds=1), world.script(ConnectionError, seconds=1)

        async def later(error: Exception) -> str:
            await anyio.sleep(1)
            return "later"

        chain = FallbackChain(a.with_options(accept=lambda _: False)).fallback_to(b, second).fallback_with(later)
        answers: list[object] = []

        async def act(chain: Any = chain, first: Any = first, answers: Any = answers) -> None:
            answers.append(await chain.execute(first))

        reached = await ending(act)
        assert ending.came_out is reached, ending
        assert answers == ([] if reached else ["later"]), ending
        assert a.snapshot().in_flight == b.snapshot().in_flight == 0, ending
    assert ending.suspension > 3


async def test_a_probe_is_given_back_when_a_chain_is_cancelled(world: World) -> None:
    """A cancelled probe frees its place for the next call."""
    a, b = pair(world)
    await world.trip(a)
    await anyio.sleep(61)
    with anyio.move_on_after(1):
        await FallbackChain(a).fallback_to(b).execute(world.script("one", seconds=9))
    assert a.breaker.snapshot().probes == 0
    assert a.breaker.state is CircuitState.HALF_OPEN


async def test_nothing_is_left_for_the_collector() -> None:
    """However a chain ends, no reference cycle is left."""
    breaker = BreakerSettings(failure_threshold=None, failure_rate=None, slow_rate=None)
    settings = Settings(defaults=ProviderSettings(retry=ONCE, breaker=breaker))
    registry = ProviderRegistry(settings, clock=anyio.current_time)  # one that nobody records
    a, b = registry.provider("openai"), registry.provider("anthropic")
    both = FallbackChain(a).fallback_to(b)
    left: list[weakref.ref[BaseException]] = []

    class Refused(ConnectionError):
        pass

    async def refuse() -> None:
        error = Refused()
        left.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    def again(error: Exception) -> None:
        try:
            raise error
        finally:
            del error

    async def ends(chain: FallbackChain[Any]) -> None:
        with suppress(AllProvidersFailed, Refused):
            await chain.execute(refuse)
        await chain.try_execute(refuse)
        with anyio.move_on_after(1):
            await chain.fallback_with(lambda _: anyio.sleep(5)).execute(refuse)
        with suppress(AllProvidersFailed, Refused):
            await chain.fallback_with(again).execute(refuse)

    await ends(both)  # what is made once
    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)  # a log that is captured keeps each error's traceback
    try:
        left.clear()
        await ends(both)
        await ends(FallbackChain(a))
        await anyio.sleep(1)  # the loop itself keeps a cancellation until it goes on
        assert left
        assert [ref() for ref in left] == [None] * len(left)
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


# -- the chain itself --------------------------------------------------------------------------------------------------


async def test_a_chain_never_changes(world: World) -> None:
    """Each step makes a new chain, so that one beginning serves several ends."""
    a, b = pair(world)
    chain = FallbackChain(a).fallback_to(b)
    assert repr(chain.fallback_value(1)) == "<FallbackChain 'openai' -> 'anthropic' -> <value>>"
    assert repr(chain.fallback_with(str)) == "<FallbackChain 'openai' -> 'anthropic' -> <function>>"
    assert repr(chain) == "<FallbackChain 'openai' -> 'anthropic'>"


async def test_wrap_keeps_name_and_signature(world: World) -> None:
    """A decorated function goes through the chain."""
    a, b = pair(world)

    async def ask(question: str) -> str:
        """Ask."""
        raise ConnectionError

    async def ask_other(question: str) -> str:
        return question.upper()

    wrapped = FallbackChain(a).fallback_to(b, ask_other).wrap(ask)
    assert (wrapped.__name__, wrapped.__doc__) == ("ask", "Ask.")
    assert await wrapped("why") == "WHY"


async def test_slips_are_told_where_they_are_made(world: World) -> None:
    """What cannot be a provider, a function or a rule is refused when the chain is built."""
    a, b = pair(world)
    chain = FallbackChain(a)

    async def ask() -> None:
        """Never called."""

    with pytest.raises(TypeError, match="begins with a ResilientProvider"):
        FallbackChain("openai")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a provider or its name first"):
        chain.fallback_to(ask)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not a coroutine"):
        chain.fallback_to(b, ask())  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="takes a function"):
        chain.fallback_with("later")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="wrap"):
        chain.wrap(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="on='rate_limit'"):
        chain.fallback_to(b, on="rate_limit")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="no provider name"):
        chain.fallback_to("Open AI")
    for more in (lambda end: end.fallback_to(b), lambda end: end.fallback_value(2), lambda end: end.fallback_with(str)):
        with pytest.raises(ConfigurationError, match="ends in a value"):
            more(chain.fallback_value(1))
