"""State transitions as spans."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib import metadata

import pytest
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, set_span_in_context

from resilience._core.states import CircuitState
from resilience.errors import Reason
from resilience.events import (
    CallWasRejected,
    CircuitChanged,
    Event,
    EventBus,
    GateClosed,
    ProbeLost,
    SettingsRefused,
    SettingsReloaded,
)
from resilience.settings import Change
from resilience.telemetry import TransitionSpans, _version, current_trace_id, names

OPENED = CircuitChanged(
    provider="openai",
    operation="chat",
    time=1_700_000_000.25,
    before=CircuitState.CLOSED,
    after=CircuitState.OPEN,
    reason="in_a_row",
    figures="5 failures in a row",
    retry_after=57.5,
)
CLOSED = CircuitChanged(
    provider="openai",
    time=1_700_000_060.5,
    before=CircuitState.HALF_OPEN,
    after=CircuitState.CLOSED,
    reason="probes_succeeded",
    figures="2 of 2 probes succeeded",
    retry_after=None,
)


def test_a_transition_is_a_span(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """A change of state is one span that tells from, to, why and on which figures, at the time of the event."""
    TransitionSpans(tracer_provider)(OPENED)
    [span] = exporter.get_finished_spans()
    assert span.name == "circuit_breaker.transition"
    assert dict(span.attributes or {}) == {
        "resilience.provider": "openai",
        "resilience.operation": "chat",
        "resilience.circuit_breaker.from": "closed",
        "resilience.circuit_breaker.to": "open",
        "resilience.reason": "in_a_row",
        "resilience.circuit_breaker.figures": "5 failures in a row",
        "resilience.circuit_breaker.retry_after": 57.5,
    }
    assert span.start_time == span.end_time == 1_700_000_000_250_000_000
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET


def test_what_is_unknown_is_left_out(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """Without an operation and an open time there are no attributes for them."""
    TransitionSpans(tracer_provider)(CLOSED)
    [span] = exporter.get_finished_spans()
    assert not {names.OPERATION, names.RETRY_AFTER} & set(span.attributes or {})


def test_a_gate_that_closes_is_a_span(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """A pause that a provider asks for is a span of its own, linked to the call that was told."""
    with tracer_provider.get_tracer("app").start_as_current_span("chat") as call:
        TransitionSpans(tracer_provider)(GateClosed(provider="openai", time=1.5, seconds=12.0, hinted=True))
    span, _ = exporter.get_finished_spans()
    assert (span.name, span.parent) == ("gate.closed", None)
    assert [link.context for link in span.links] == [call.get_span_context()]
    assert dict(span.attributes or {}) == {
        "resilience.provider": "openai",
        "resilience.gate.seconds": 12.0,
        "resilience.gate.hinted": True,
    }


def test_a_reload_is_a_span(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """Settings that were taken are a span that tells from where, and what they have changed."""
    changes = tuple(Change(f"providers.p{number}.enabled", True, False) for number in range(200))
    TransitionSpans(tracer_provider)(SettingsReloaded(provider="", time=1.5, source="app.toml", changes=changes))
    [span] = exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    told = attributes.pop("resilience.settings.changes")
    assert isinstance(told, tuple)
    assert (len(told), told[0]) == (100, "providers.p0.enabled: true -> false")
    assert (span.name, attributes) == ("settings.reloaded", {"resilience.settings.source": "app.toml"})
    assert span.status.status_code is StatusCode.UNSET


def test_a_refused_reload_is_a_span(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """Settings that make no sense are a span that is marked, and says why."""
    problem = "retry.max_attempts=0 is too small"
    TransitionSpans(tracer_provider)(SettingsRefused(provider="", time=1.5, source="app.toml", problem=problem))
    [span] = exporter.get_finished_spans()
    assert (span.name, span.status.status_code) == ("settings.refused", StatusCode.ERROR)
    assert dict(span.attributes or {}) == {
        "resilience.settings.source": "app.toml",
        "resilience.settings.problem": problem,
    }


def test_scope(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """The spans say which library, which version of it and which schema they come from."""
    TransitionSpans(tracer_provider)(OPENED)
    [span] = exporter.get_finished_spans()
    scope = span.instrumentation_scope
    assert scope is not None
    assert scope.name == "resilience"
    assert scope.version == metadata.version("resilient-providers")
    assert (scope.schema_url or "").startswith("https://opentelemetry.io/schemas/")


def test_scope_of_a_copy(
    tracer_provider: TracerProvider, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that was never installed has no version, and records nevertheless."""

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    _version.version.cache_clear()
    TransitionSpans(tracer_provider)(OPENED)
    [span] = exporter.get_finished_spans()
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.version == ""
    _version.version.cache_clear()


def test_linked_to_the_call(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """A transition is a trace of its own, linked to the span of the call that caused it."""
    with tracer_provider.get_tracer("app").start_as_current_span("upload") as call:
        TransitionSpans(tracer_provider)(OPENED)
    transition, _ = exporter.get_finished_spans()
    assert transition.parent is None
    assert transition.context is not None
    assert transition.context.trace_id != call.get_span_context().trace_id
    assert [link.context for link in transition.links] == [call.get_span_context()]


def test_no_link_without_a_call(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """A transition outside of every span, by hand for instance, has no link."""
    TransitionSpans(tracer_provider)(OPENED)
    [span] = exporter.get_finished_spans()
    assert not span.links


def test_current_span_is_left_alone(tracer_provider: TracerProvider) -> None:
    """Recording a transition neither ends nor replaces the caller's span."""
    with tracer_provider.get_tracer("app").start_as_current_span("upload") as call:
        before = current_trace_id()
        TransitionSpans(tracer_provider)(OPENED)
        assert call.is_recording()
        assert current_trace_id() == before == f"{call.get_span_context().trace_id:032x}"


@pytest.mark.parametrize(
    "event",
    [
        ProbeLost(provider="openai", time=0),
        CallWasRejected(provider="openai", time=0, reason=Reason.CIRCUIT_OPEN, retry_after=1),
    ],
)
def test_other_events_are_no_spans(
    tracer_provider: TracerProvider, exporter: InMemorySpanExporter, event: Event
) -> None:
    """Only changes of state are spans: a refused call costs none."""
    TransitionSpans(tracer_provider)(event)
    assert not exporter.get_finished_spans()


def test_from_threads(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """Transitions of providers that are used from several threads are all recorded."""
    bus = EventBus()
    bus.subscribe(TransitionSpans(tracer_provider))
    threads = [threading.Thread(target=bus.emit, args=(OPENED,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exporter.get_finished_spans()) == 8


def test_no_trace_id_without_a_trace() -> None:
    """Outside of every span there is no trace id, and an invalid span has none either."""
    assert current_trace_id() is None
    token = attach(set_span_in_context(NonRecordingSpan(SpanContext(0, 0, is_remote=False))))
    assert current_trace_id() is None
    detach(token)


def test_remote_parent_gives_its_trace_id() -> None:
    """A request that came with a trace lends its id to the log lines, also where nothing is recorded."""
    trace_id = 0x4BF92F3577B34DA6A3CE929D0E0E4736
    token = attach(set_span_in_context(NonRecordingSpan(SpanContext(trace_id, 1, is_remote=True))))
    assert current_trace_id() == "4bf92f3577b34da6a3ce929d0e0e4736"
    detach(token)


PRELUDE = """
import sys
from resilience import telemetry
from resilience._core.states import CircuitState
from resilience.events import CircuitChanged, process_bus
telemetry.install()
telemetry.install()
def trip():
    process_bus.emit(CircuitChanged(provider="openai", time=1.5, before=CircuitState.CLOSED, after=CircuitState.OPEN,
                                    reason="in_a_row", figures="5 failures in a row", retry_after=60.0))
"""
SDK = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
def choose():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
def spans():
    return [span.name for span in exporter.get_finished_spans()]
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.real_time
def test_nothing_is_paid_without_opentelemetry() -> None:
    """As long as the application has not loaded OpenTelemetry, a transition does not load it either."""
    run(PRELUDE + "trip()\nassert telemetry.current_trace_id() is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]")  # fmt: skip


@pytest.mark.real_time
def test_nothing_is_recorded_without_an_sdk() -> None:
    """With the API alone a transition is recorded nowhere, loads no SDK and does no harm."""
    run(PRELUDE + "import opentelemetry.trace\ntrip()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]")  # fmt: skip


@pytest.mark.real_time
def test_the_global_sdk_is_found() -> None:
    """The application's own SDK records each transition once, however often it is installed."""
    run(PRELUDE + SDK + "choose()\ntrip()\nassert spans() == ['circuit_breaker.transition']")


@pytest.mark.real_time
def test_who_was_told_gets_them_too() -> None:
    """An SDK that is no global one gets the transitions as well, as long as it is told."""
    run(PRELUDE + SDK.replace("trace.set_tracer_provider(provider)", "return provider")
        + "telemetry.instrument(tracer_provider=choose())\ntrip()\nassert len(spans()) == 1\n"
        "telemetry.uninstrument()\ntrip()\nassert len(spans()) == 1")  # fmt: skip


@pytest.mark.real_time
def test_an_sdk_chosen_late_is_found() -> None:
    """An SDK that is set up after the first transition records all that follow."""
    run(PRELUDE + SDK + "trip()\nchoose()\nassert spans() == []\ntrip()\nassert len(spans()) == 1")
