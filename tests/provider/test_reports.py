"""What a provider says about itself: snapshots, explanations, reprs, events."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import anyio
import pytest

from resilience import CircuitState, Reason, RetrySettings, subscribe
from resilience.events import (
    AttemptFailed,
    CallFailed,
    CallRecovered,
    CallWasRejected,
    CircuitChanged,
    Event,
    RetryScheduled,
)
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio

EXACT = {"jitter": 0.0}
STEADY = RetrySettings(jitter="none")


# -- in each state ---------------------------------------------------------------------------------------------------


async def fresh(world) -> Any:
    return world.provider()


async def lately(world) -> Any:
    provider = world.provider()
    await provider.execute(world.script("fine"))
    await provider.with_options(retry=False).try_execute(world.script(ConnectionResetError))
    return provider


async def without_retries(world) -> Any:
    return world.provider(retry={"enabled": False})


async def opened(world) -> Any:
    provider = world.provider(breaker=EXACT)
    await world.trip(provider)
    await anyio.sleep(47.6)
    return provider


async def due(world) -> Any:
    provider = await opened(world)
    await anyio.sleep(20)
    return provider


async def half_open(world) -> Any:
    provider = await due(world)
    await provider.execute(world.script("fine"))
    return provider


async def opened_by_hand(world) -> Any:
    provider = world.provider()
    provider.breaker.open()
    return provider


async def forced(world) -> Any:
    return world.provider(breaker={"mode": "forced_open"})


async def disabled(world) -> Any:
    return world.provider(breaker={"mode": "disabled"})


async def shadow(world) -> Any:
    provider = world.provider(breaker={"mode": "shadow", **EXACT})
    await world.trip(provider)
    return provider


async def waiting(world) -> Any:
    provider = world.provider()
    await provider.with_options(retry=False).try_execute(world.script(world.status(429, retry_after="3")))
    return provider


async def gated(world) -> Any:
    provider = world.provider()
    await provider.with_options(retry=False).try_execute(world.script(world.status(429, retry_after="30")))
    return provider


async def switched_off(world) -> Any:
    return world.provider(enabled=False)


IN_EACH_STATE = [
    (
        fresh,
        (True, None, None, "closed"),
        "admits: circuit closed, 0 failures in a row, 0 of 0 calls failed lately; up to 3 attempts",
        "<CircuitBreaker 'openai' CLOSED, 0 failures in a row>",
    ),
    (
        lately,
        (True, None, None, "closed"),
        "admits: circuit closed, 1 failure in a row, 1 of 2 calls failed lately; up to 3 attempts",
        "<CircuitBreaker 'openai' CLOSED, 1/2 failed>",
    ),
    (
        without_retries,
        (True, None, None, "closed"),
        "admits: circuit closed, 0 failures in a row, 0 of 0 calls failed lately; up to 1 attempt",
        "<CircuitBreaker 'openai' CLOSED, 0 failures in a row>",
    ),
    (
        opened,
        (False, "circuit_open", pytest.approx(12.4), "open"),
        "refuses: circuit_open, 5 failures in a row, next probe in 12.4 s",
        "<CircuitBreaker 'openai' OPEN, next probe in 12.4 s, 5 failures in a row>",
    ),
    (
        due,
        (True, None, None, "open"),
        "admits: the next call is a probe; up to 3 attempts",
        "<CircuitBreaker 'openai' OPEN, next probe in 0.0 s, 5 failures in a row>",
    ),
    (
        half_open,
        (True, None, None, "half_open"),
        "admits: the next call is a probe; up to 3 attempts",
        "<CircuitBreaker 'openai' HALF_OPEN, 0/1 failed>",
    ),
    (
        opened_by_hand,
        (False, "forced_open", None, "forced_open"),
        "refuses: forced_open, by hand",
        "<CircuitBreaker 'openai' FORCED_OPEN, 0 failures in a row>",
    ),
    (
        forced,
        (False, "forced_open", None, "forced_open"),
        "refuses: forced_open, by the settings",
        "<CircuitBreaker 'openai' FORCED_OPEN, 0 failures in a row>",
    ),
    (
        disabled,
        (True, None, None, "disabled"),
        "admits: breaker disabled; up to 3 attempts",
        "<CircuitBreaker 'openai' DISABLED, 0 failures in a row>",
    ),
    (
        shadow,
        (True, None, None, "open"),
        "admits: shadow mode, else circuit_open, 5 failures in a row; up to 3 attempts",
        "<CircuitBreaker 'openai' OPEN, next probe in 60.0 s, 5/5 failed>",
    ),
    (
        waiting,
        (True, None, pytest.approx(3), "closed"),
        "waits 3.0 s: the provider asked for a pause",
        "<CircuitBreaker 'openai' CLOSED, 0 failures in a row>",
    ),
    (
        gated,
        (False, "provider_gated", pytest.approx(30), "closed"),
        "refuses: the provider asked for a pause, 30.0 s are left (a call waits 5 s at most)",
        "<CircuitBreaker 'openai' CLOSED, 0 failures in a row>",
    ),
    (
        switched_off,
        (True, None, None, "closed"),
        "admits: resilience is switched off here",
        "<CircuitBreaker 'openai' CLOSED, 0 failures in a row>",
    ),
]


@pytest.mark.parametrize("state, facts, text, breaker", IN_EACH_STATE, ids=[row[0].__name__ for row in IN_EACH_STATE])
async def test_in_each_state(world, state: Any, facts: tuple[object, ...], text: str, breaker: str) -> None:
    """In each state the explanation tells what a call would meet and why, and a call meets just that."""
    provider = await state(world)
    before = provider.snapshot()
    told = provider.explain()
    assert (told.admitted, told.reason, told.retry_after, told.state) == facts
    assert (told.text, str(told)) == (text, text)
    assert repr(provider) == f"<ResilientProvider 'openai' {text}>"
    assert repr(provider.breaker) == breaker
    assert provider.snapshot() == before  # looking changes nothing
    outcome = await provider.try_execute(world.script("fine"))
    assert outcome.rejected is not told.admitted
    assert outcome.reason == told.reason


async def test_when_all_probes_are_out(world) -> None:
    """While the one probe is under way the explanation says when its place will be free."""
    provider = await due(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(provider.execute, world.script("slow", seconds=5))
        await anyio.sleep(2)
        told = provider.explain()
        assert (told.admitted, told.reason, told.state) == (False, Reason.HALF_OPEN_SATURATED, CircuitState.HALF_OPEN)
        assert told.text == "refuses: half_open_saturated, 5 failures in a row, next probe in 58.0 s"
        assert (provider.snapshot().breaker.probes, provider.snapshot().in_flight) == (1, 1)


async def test_the_explanation_of_a_view(world) -> None:
    """The explanation speaks of the view's own options."""
    view = world.provider().with_options(retry=RetrySettings(max_attempts=7))
    assert view.explain().text.endswith("up to 7 attempts")
    assert view.with_options(retry=False).explain().text.endswith("up to 1 attempt")


# -- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [row[0] for row in IN_EACH_STATE], ids=lambda state: state.__name__)
async def test_snapshots_are_ready_for_json(world, state: Any) -> None:
    """A snapshot is frozen, hashable and becomes JSON as it is; so does an explanation."""
    provider = await state(world)
    for look in (provider.snapshot(), provider.explain()):
        told = json.loads(json.dumps(dataclasses.asdict(look), allow_nan=False))
        assert told == {**dataclasses.asdict(look)}
        hash(look)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(look, dataclasses.fields(look)[0].name, "other")


async def test_a_snapshot(world) -> None:
    """A snapshot tells everything at once."""
    registry = world.registry(breaker=EXACT, retry=STEADY, budget={"ratio": 0.0, "floor_per_second": 0.001})
    provider = registry.provider("s3", endpoint="eu-west-1")
    await provider.execute(world.script("fine"))
    await provider.execute(world.script(world.status(503, retry_after="2"), "fine"))
    await world.trip(provider)
    await provider.try_execute(world.script("never"))
    assert dataclasses.asdict(provider.snapshot()) == {
        "provider": "s3/eu-west-1",
        "breaker": {
            "name": "s3/eu-west-1",
            "state": "open",
            "retry_after": 60.0,
            "until": world.EPOCH + 60.0,
            "evidence": "5 failures in a row",
            "failures_in_a_row": 5,
            "calls": 8,
            "failed": 6,
            "slow": 0,
            "probes": 0,
            "trips": 1,
            "stale_results": 0,
            "since": world.EPOCH,
        },
        "in_flight": 0,
        "gate_closed_for": 0.0,
        "retries_available": 9.0,
        "calls": 7,
        "retries": 1,
        "recovered": 1,
        "exhausted": 5,
        "timeouts": 0,
        "rejected": 1,
        "waiting": 0,
        "rate_limit": None,
        "bulkhead": None,
        "throttle": None,
        "cost": None,
        "hedges": {},
        "coalescing": None,
        "succeeded": 2,
        "failed": 5,
        "cancelled": 0,
        "failures": {"connection_error": 5},
        "rejections": {"circuit_open": 1},
        "latency": None,
        "last_reason": "connection_error",
        "last_at": world.EPOCH,
        "variant": "",
    }


async def test_names(world) -> None:
    """The name of an endpoint follows the name of its provider."""
    registry = world.registry()
    assert registry.provider("s3").name == "s3"
    assert registry.provider("s3", endpoint="eu-west-1").name == "s3/eu-west-1"
    assert repr(registry.provider("s3", endpoint="b")).startswith("<ResilientProvider 's3/b' admits: ")


# -- events ----------------------------------------------------------------------------------------------------------


async def test_the_events_of_a_call(world) -> None:
    """A call that fails twice and then succeeds is five events in order, and they have all its facts."""
    provider = world.provider(retry=STEADY).with_options(operation="upload")
    await provider.execute(world.script(world.status(500), TimeoutError, "stored", seconds=0.5))
    first, second, third, fourth, fifth = world.events
    for event in world.events:
        assert (event.provider, event.operation, event.time) == ("openai", "upload", world.EPOCH)
    assert isinstance(first, AttemptFailed)
    assert (first.attempt, first.duration, first.failure.status) == (1, pytest.approx(0.5), 500)
    assert isinstance(second, RetryScheduled)
    assert (second.attempt, second.max_attempts, second.delay, second.failure) == (2, 3, 1.0, first.failure)
    assert isinstance(third, AttemptFailed)
    assert (third.attempt, third.failure.kind) == (2, "timeout")
    assert isinstance(fourth, RetryScheduled)
    assert (fourth.attempt, fourth.delay) == (3, 2.0)
    assert isinstance(fifth, CallRecovered)
    assert (fifth.attempts, fifth.duration) == (3, pytest.approx(0.5 + 1 + 0.5 + 2 + 0.5))


async def test_the_event_of_a_call_that_gives_up(world) -> None:
    """A call that gives up tells its failure, its error and why it was not tried again."""
    provider, call = world.provider(retry=STEADY), world.script(world.status(404))
    await provider.try_execute(call)
    attempt, gave_up = world.events
    assert isinstance(attempt, AttemptFailed)
    assert isinstance(gave_up, CallFailed)
    assert (gave_up.attempts, gave_up.duration, gave_up.reason) == (1, 0.0, Reason.NOT_RETRYABLE)
    assert gave_up.error is call.raised[0]
    assert gave_up.failure == attempt.failure


async def test_an_untroubled_call_tells_nothing(world) -> None:
    """Calls that succeed at once are no events."""
    provider = world.provider()
    for _ in range(3):
        await provider.execute(world.script("fine"))
    assert not world.events.events


async def test_three_levels_of_listeners(world) -> None:
    """A listener hears of one provider, of all providers of a registry, or of all of the process, as it chose."""
    one, registry_wide, everything = EventRecorder(), EventRecorder(), EventRecorder()
    registry, other = world.registry(), world.registry()
    ends = [
        registry.provider("a").subscribe(one, CallFailed),
        registry.subscribe(registry_wide, CallFailed),
        subscribe(everything, CallFailed),
    ]
    call = world.script(KeyError)
    for provider in (registry.provider("a"), registry.provider("b"), other.provider("a")):
        await provider.try_execute(call)
    assert (len(one), len(registry_wide), len(everything)) == (1, 2, 3)
    for end in ends:
        end()
        end()
    for provider in (registry.provider("a"), registry.provider("b"), other.provider("a")):
        await provider.try_execute(call)
    assert (len(one), len(registry_wide), len(everything)) == (1, 2, 3)


@pytest.mark.parametrize("level", ["provider", "registry", "process"])
async def test_kinds(world, level: str) -> None:
    """A listener may ask for some kinds of events; a kind includes the kinds that derive from it."""
    registry = world.registry(retry=STEADY)
    provider = registry.provider("openai")
    listen = {"provider": provider.subscribe, "registry": registry.subscribe, "process": subscribe}[level]
    some, all_ = EventRecorder(), EventRecorder()
    ends = [listen(some, RetryScheduled, CallRecovered), listen(all_, Event)]
    try:
        await provider.execute(world.script(world.status(500), "fine"))
    finally:
        for end in ends:
            end()
    assert [type(event) for event in some] == [RetryScheduled, CallRecovered]
    assert [type(event) for event in all_] == [AttemptFailed, RetryScheduled, CallRecovered]


async def test_one_listener_twice(world) -> None:
    """One listener that subscribes twice hears everything twice, and ends each subscription by itself."""
    provider, heard, call = world.provider(), EventRecorder(), world.script(KeyError)
    first = provider.subscribe(heard, CallFailed)
    second = provider.subscribe(heard, CallFailed)
    await provider.try_execute(call)
    assert len(heard) == 2
    second()
    await provider.try_execute(call)
    assert len(heard) == 3
    second()
    first()
    await provider.try_execute(call)
    assert len(heard) == 3


async def test_a_listener_that_fails(world, caplog: pytest.LogCaptureFixture) -> None:
    """A listener that raises is logged; neither the call nor the other listeners notice."""
    provider, heard = world.provider(retry=STEADY), EventRecorder()

    def fail(event: Event) -> None:
        raise RuntimeError("the dashboard is down")

    with caplog.at_level(logging.ERROR, logger="resilience.events"):
        provider.subscribe(fail)
        provider.subscribe(heard)
        assert await provider.execute(world.script(world.status(500), "fine")) == "fine"
    assert len(heard) == 3
    assert [record.getMessage() for record in caplog.records if record.name == "resilience.events"] == [
        "a listener failed"
    ] * 3


async def test_a_listener_may_look_and_call_back(world) -> None:
    """A listener may read snapshots and use the provider: events are told when the state is complete."""
    provider, seen = world.provider(breaker=EXACT), []

    def look(event: Event) -> None:
        assert isinstance(event, CircuitChanged)
        seen.append((event.after, provider.breaker.state, provider.snapshot().breaker.state, provider.explain().state))
        if event.after is CircuitState.OPEN:
            provider.breaker.close()

    provider.subscribe(look, CircuitChanged)
    for _ in range(5):
        await provider.with_options(retry=False).try_execute(world.script(ConnectionResetError))
    assert seen == [("open",) * 4, ("closed",) * 4]
    assert await provider.execute(world.script("fine")) == "fine"


async def test_rejections_are_told_to_those_who_ask(world) -> None:
    """Each refusal is one event, with the reason and the seconds."""
    provider, heard = world.provider(breaker=EXACT), EventRecorder()
    await world.trip(provider)
    end = provider.subscribe(heard, CallWasRejected)
    for _ in range(3):
        await provider.try_execute(world.script("never"))
    assert [(event.reason, event.retry_after) for event in heard.of(CallWasRejected)] == [("circuit_open", 60.0)] * 3
    end()
    await provider.try_execute(world.script("never"))
    assert len(heard) == 3
    assert provider.snapshot().rejected == 4


async def test_who_cannot_listen(world) -> None:
    """A listener that cannot be called, or a kind that is none, is refused where it subscribes."""
    provider = world.provider()
    with pytest.raises(TypeError) as caught:
        provider.subscribe("print")
    assert str(caught.value) == "a listener is a function that takes one event, not 'print'"
    with pytest.raises(TypeError) as caught:
        provider.subscribe(print, ValueError)
    assert str(caught.value) == (
        "a listener asks for classes of events, such as CircuitChanged, not <class 'ValueError'>"
    )
