"""The event recorder."""

from __future__ import annotations

import anyio
import pytest

from resilience.errors import Reason
from resilience.events import CallRecovered, CallWasRejected, Event, EventBus, GateClosed
from resilience.testing import EventRecorder


def test_events_are_kept_in_order_and_by_kind() -> None:
    """A recorder subscribed to a bus keeps every event, and finds those of a kind."""
    bus = EventBus()
    recorder = EventRecorder()
    bus.subscribe(recorder)
    first = CallRecovered(provider="s3", time=1.0, attempts=2, duration=0.5)
    second = CallWasRejected(provider="s3", time=2.0, reason=Reason.CIRCUIT_OPEN, retry_after=3.0)
    for event in (first, second, first):
        bus.emit(event)
    assert list(recorder) == [first, second, first]
    assert recorder.of(CallRecovered) == [first, first]
    assert recorder.of(Event) == [first, second, first]
    assert repr(recorder) == "<EventRecorder [CallRecovered: 2, CallWasRejected: 1]>"


def test_a_recorder_can_forget() -> None:
    """After clear there is nothing."""
    recorder = EventRecorder()
    recorder(CallRecovered(provider="s3", time=1.0, attempts=2, duration=0.5))
    recorder.clear()
    assert len(recorder) == 0
    assert repr(recorder) == "<EventRecorder [no events]>"


RECOVERED = CallRecovered(provider="s3", time=1.0, attempts=2, duration=0.5)
REJECTED = CallWasRejected(provider="s3", time=2.0, reason=Reason.CIRCUIT_OPEN, retry_after=3.0)


def test_assertions_read_well() -> None:
    """The last event, the only one, and their order in words; what is missing is named beside what is there."""
    events = EventRecorder()
    for event in (RECOVERED, REJECTED, REJECTED):
        events(event)
    assert events.last(CallWasRejected) is REJECTED
    assert events.only(CallRecovered) is RECOVERED
    assert events.kinds == ["CallRecovered", "CallWasRejected", "CallWasRejected"]
    assert CallRecovered in events
    assert REJECTED in events
    assert GateClosed not in events
    with pytest.raises(LookupError, match=r"no GateClosed so far: <EventRecorder \[CallRecovered: 1, CallWasRej"):
        events.last(GateClosed)
    with pytest.raises(LookupError, match=r"no GateClosed"):
        events.only(GateClosed)
    with pytest.raises(LookupError, match=r"2 times CallWasRejected instead of once"):
        events.only(CallWasRejected)


@pytest.mark.anyio
async def test_a_test_can_wait_for_an_event() -> None:
    """Whoever waits goes on when the event comes, at once if it has come already."""
    events = EventRecorder()

    async def later() -> None:
        for seconds, event in ((1, REJECTED), (2, RECOVERED), (3, RECOVERED)):
            await anyio.sleep(seconds)
            events(event)

    async with anyio.create_task_group() as group:
        group.start_soon(later)
        group.start_soon(events.wait_for, CallWasRejected)
        group.start_soon(events.wait_for, CallRecovered)
        assert await events.wait_for(CallRecovered) is RECOVERED
        assert anyio.current_time() == 3
        await events.wait_for(CallRecovered)
        assert anyio.current_time() == 3
        await events.wait_for(CallRecovered, count=2, timeout=None)
        assert anyio.current_time() == 6


@pytest.mark.anyio
async def test_waiting_ends_with_what_came_instead() -> None:
    """An event that does not come is a time-out that tells what did."""
    events = EventRecorder()
    events(RECOVERED)
    with pytest.raises(TimeoutError, match=r"1 of 2 CallRecovered came within 7 s: <EventRecorder \[CallRec"):
        await events.wait_for(CallRecovered, count=2, timeout=7)
    assert anyio.current_time() == 7
    with pytest.raises(ValueError, match="count=0"):
        await events.wait_for(CallRecovered, count=0)


@pytest.mark.anyio
@pytest.mark.real_time
async def test_events_of_other_threads_wake_too() -> None:
    """A recorder may be told from another thread than the one that waits."""
    events = EventRecorder()
    async with anyio.create_task_group() as group:
        group.start_soon(events.wait_for, CallRecovered)
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(events, RECOVERED)
