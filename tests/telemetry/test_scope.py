"""What adapters tell of their own, without importing OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from resilience.telemetry import Scope, instrument, scope, uninstrument
from resilience.telemetry.names import BUCKETS


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """Where metrics can be read."""
    return InMemoryMetricReader()


@pytest.fixture(autouse=True)
def _chosen(tracer_provider: TracerProvider, reader: InMemoryMetricReader) -> Generator[None, None, None]:
    meter_provider = MeterProvider([reader], shutdown_on_exit=False)
    scope.choose(tracer_provider, meter_provider)
    yield
    scope.choose(None, None)
    meter_provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, Any]:
    """The data of each metric, and whose it is."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: (each.scope.name, metric.unit, metric.description, metric.data.data_points)
        for resource in data.resource_metrics
        for each in resource.scope_metrics
        for metric in each.metrics
    }


def test_a_span(exporter: InMemorySpanExporter) -> None:
    """A block is a span of the adapter's own, current inside, with what was known before and after."""
    with Scope("uploads", "1.2").span("upload", {"bucket": "a"}, kind="client") as span:
        assert trace.get_current_span().is_recording()
        span.set("size", 7)
    assert not trace.get_current_span().is_recording()
    [recorded] = exporter.get_finished_spans()
    assert (recorded.name, recorded.kind, dict(recorded.attributes or {})) == (
        "upload",
        SpanKind.CLIENT,
        {"bucket": "a", "size": 7},
    )
    assert recorded.status.status_code is StatusCode.UNSET
    assert recorded.instrumentation_scope is not None
    assert (recorded.instrumentation_scope.name, recorded.instrumentation_scope.version) == ("uploads", "1.2")


def test_an_error(exporter: InMemorySpanExporter) -> None:
    """An error that leaves the block marks the span with its class, never with its text."""
    with pytest.raises(ValueError, match="hunter2"), Scope("uploads").span("upload"):
        raise ValueError("hunter2")
    [recorded] = exporter.get_finished_spans()
    assert (recorded.status.status_code, recorded.status.description) == (StatusCode.ERROR, None)
    assert dict(recorded.attributes or {}) == {"error.type": "ValueError"}
    assert not recorded.events


def test_a_cancellation_is_no_error(exporter: InMemorySpanExporter) -> None:
    """What is nobody's error does not mark the span."""
    with pytest.raises(KeyboardInterrupt), Scope("uploads").span("upload"):
        raise KeyboardInterrupt
    [recorded] = exporter.get_finished_spans()
    assert recorded.status.status_code is StatusCode.UNSET


def test_a_failure_without_an_exception(exporter: InMemorySpanExporter) -> None:
    """An adapter can mark its span where it returns an error instead of raising it."""
    with Scope("uploads").span("upload") as span:
        span.fail("quota")
    [recorded] = exporter.get_finished_spans()
    assert recorded.status.status_code is StatusCode.ERROR
    assert dict(recorded.attributes or {}) == {"error.type": "quota"}


def test_metrics(reader: InMemoryMetricReader) -> None:
    """Counters and histograms are the adapter's own, with their units, sentences and attributes."""
    uploads = Scope("uploads")
    size = uploads.counter("uploads.size", unit="By", description="Bytes.")
    size.add(3, {"bucket": "a"})
    size.add(4, {"bucket": "a"})
    uploads.histogram("uploads.duration", unit="s").record(0.3)
    uploads.histogram("uploads.parts", unit="{part}", buckets=(1, 10)).record(5)
    found = points(reader)
    name, unit, description, [point] = found["uploads.size"]
    assert (name, unit, description, point.value, dict(point.attributes)) == (
        "uploads",
        "By",
        "Bytes.",
        7,
        {"bucket": "a"},
    )
    [duration] = found["uploads.duration"][3]
    assert (duration.explicit_bounds, duration.sum) == (BUCKETS, 0.3)
    assert found["uploads.parts"][3][0].explicit_bounds == (1, 10)


def test_it_follows_who_is_told(exporter: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
    """A scope that was made and used before goes to whom `instrument` names, and no longer to whom it named before."""
    uploads = Scope("uploads")
    counter = uploads.counter("uploads.size")
    histogram = uploads.histogram("uploads.duration", unit="s")
    with uploads.span("before"):
        counter.add(1)
        histogram.record(1)
    other, sdk = InMemoryMetricReader(), TracerProvider(shutdown_on_exit=False)
    meters = MeterProvider([other], shutdown_on_exit=False)
    instrument(tracer_provider=sdk, meter_provider=meters)
    try:
        with uploads.span("after"):
            counter.add(10)
            histogram.record(10)
    finally:
        uninstrument()
    assert [span.name for span in exporter.get_finished_spans()] == ["before"]
    assert points(reader)["uploads.size"][3][0].value == 1
    assert points(other)["uploads.size"][3][0].value == 10
    assert points(other)["uploads.duration"][3][0].sum == 10
    meters.shutdown()


def test_an_api_without_advice(monkeypatch: pytest.MonkeyPatch, reader: InMemoryMetricReader) -> None:
    """With an OpenTelemetry that knows no advised buckets a histogram has its own."""
    from opentelemetry.sdk.metrics import Meter

    make = Meter.create_histogram

    def early(self: Meter, name: str, unit: str = "", description: str = "") -> Any:
        return make(self, name, unit, description)

    monkeypatch.setattr(Meter, "create_histogram", early)
    Scope("uploads").histogram("uploads.duration", unit="s").record(1)
    assert points(reader)["uploads.duration"][3][0].sum == 1


def test_the_example(exporter: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
    """The example in the module's documentation does what it says."""
    lines = [line[4:] for line in (scope.__doc__ or "").splitlines() if line.startswith("    ")]
    exec(compile("\n".join(lines), "example", "exec"), {})
    [span] = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {"my_adapter.bucket": "photos", "my_adapter.size": 3}
    assert points(reader)["my_adapter.uploaded"][3][0].value == 3


@pytest.mark.real_time
def test_nothing_is_paid_without_opentelemetry() -> None:
    """As long as nobody has loaded OpenTelemetry a scope does nothing and does not load it either."""
    code = """
import sys
from resilience.telemetry import Scope
scope = Scope("uploads")
count, duration = scope.counter("a"), scope.histogram("b", unit="s")
with scope.span("upload") as span:
    span.set("size", 1)
    span.fail("quota")
    count.add(1)
    duration.record(1)
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
import opentelemetry.trace
with scope.span("upload") as span:
    span.set("size", 1)
import opentelemetry.metrics
count.add(1)
duration.record(1)
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
