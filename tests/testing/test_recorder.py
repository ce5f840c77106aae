"""The event recorder."""

from __future__ import annotations

from resilience.errors import Reason
from resilience.events import CallRecovered, CallWasRejected, Event, EventBus
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
