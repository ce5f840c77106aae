"""One call sets up OpenTelemetry, or joins what is there."""

from __future__ import annotations

import asyncio
import gzip
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilience import ConfigurationError, MetricsSettings, ProviderRegistry, Settings, telemetry
from resilience.telemetry import metrics, names
from resilience.telemetry.prometheus import exposition
from resilience.watching import observed

SETTINGS = Settings(metrics=MetricsSettings(interval=3600, aliases=True))


class Receiver:
    """A collector as far as OTLP over HTTP goes; what it is sent is decoded by OpenTelemetry's own messages."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                receiver.got.append((self.path, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def metrics(self) -> dict[str, Any]:
        bodies = [body for path, body in self.got if path == "/v1/metrics"]
        found = ExportMetricsServiceRequest.FromString(bodies[-1])
        [resource] = found.resource_metrics
        service = {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"]
        assert service == "shop"
        return {one.name: one for scope in resource.scope_metrics for one in scope.metrics}

    def spans(self) -> list[str]:
        bodies = [body for path, body in self.got if path == "/v1/traces"]
        sent = [resource for body in bodies for resource in ExportTraceServiceRequest.FromString(body).resource_spans]
        return [span.name for resource in sent for scope in resource.scope_spans for span in scope.spans]

    def events(self) -> list[str]:
        bodies = [body for path, body in self.got if path == "/v1/logs"]
        sent = [resource for body in bodies for resource in ExportLogsServiceRequest.FromString(body).resource_logs]
        return [record.event_name for resource in sent for scope in resource.scope_logs for record in scope.log_records]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    telemetry.shutdown()
    receiver.stop()


def call(registry: ProviderRegistry, name: str, times: int, tracer_provider: Any = None) -> None:
    async def work() -> None:
        if tracer_provider is None:
            for _ in range(times):
                await registry.provider(name).execute(asyncio.sleep, 0)
            return
        with tracer_provider.get_tracer("app").start_as_current_span("request"):
            for _ in range(times):
                await registry.provider(name).execute(asyncio.sleep, 0)

    asyncio.run(work())


@pytest.mark.real_time
def test_everything_over_otlp(receiver: Receiver) -> None:
    """Spans, log records and metrics reach an OTLP receiver: durations as histograms, with examples from traces."""
    found = telemetry.configure(
        "shop", otlp=receiver.address, settings=SETTINGS, headers={"x-key": "7"}, as_global=False
    )
    registry = ProviderRegistry()
    call(registry, "otlp", 5, found.tracer_provider)
    registry.provider("otlp").breaker.open()
    found.shutdown()
    exported = receiver.metrics()
    [point] = [one for one in exported["resilience.call.duration"].histogram.data_points
               if "otlp" in {each.value.string_value for each in one.attributes}]  # fmt: skip
    assert point.count == 5
    assert tuple(point.explicit_bounds) == names.BUCKETS
    assert point.exemplars
    assert point.start_time_unix_nano <= point.time_unix_nano
    assert exported["resilience.calls"].sum.is_monotonic
    assert {"request", "execute otlp", "attempt otlp", "circuit_breaker.transition"} <= set(receiver.spans())
    assert len(receiver.events()) == 1
    assert all(sent["x-key"] == "7" for sent in receiver.headers)


@pytest.mark.real_time
def test_prometheus_beside_otlp(receiver: Receiver) -> None:
    """The same SDK answers Prometheus, under the names that the settings ask for."""
    found = telemetry.configure("shop", otlp=receiver.address, settings=SETTINGS, as_global=False)
    registry = ProviderRegistry()
    call(registry, "both", 3)
    text = exposition(["circuitbreaker_requests_total"])[0].decode()
    assert 'circuitbreaker_requests_total{name="both",result="success"} 3.0' in text
    found.flush()
    assert "resilience.calls" in receiver.metrics()


@pytest.mark.real_time
def test_once_is_enough(receiver: Receiver) -> None:
    """Asking again for the same changes nothing; asking for something else is refused, until it is shut down."""
    first = telemetry.configure("shop", otlp=receiver.address, settings=SETTINGS, as_global=False)
    assert telemetry.configure("shop", otlp=receiver.address, settings=SETTINGS, as_global=False) is first
    with pytest.raises(ConfigurationError, match="configured already"):
        telemetry.configure("other", settings=SETTINGS, as_global=False)
    first.shutdown()
    first.shutdown()
    assert not observed.metered
    again = telemetry.configure("other", settings=SETTINGS, as_global=False)
    assert again is not first
    assert again.tracer_provider is None


def test_a_receiver_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """Shutting down while nobody answers neither raises nor keeps the page of Prometheus from its last word."""
    settings = Settings(metrics=MetricsSettings(interval=3600))
    found = telemetry.configure("shop", settings=settings, as_global=False)

    class Broken:
        def shutdown(self) -> None:
            raise ConnectionError("nobody there")

    found.logger_provider = Broken()
    found.shutdown()
    assert "telemetry could not be sent" in caplog.text


@pytest.mark.parametrize(
    "module, extra, arguments",
    [
        ("opentelemetry.exporter.prometheus", "prometheus", {}),
        ("opentelemetry.exporter.otlp.proto.http.metric_exporter", "otlp", {"otlp": "http://localhost:1"}),
    ],
)
def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, module: str, extra: str, arguments: dict[str, Any]) -> None:
    """Without an extra it is said what to install, and nothing is half set up."""
    for name in [module, "resilience.telemetry._exposition"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'resilient-providers\[{extra}\]'"):
        telemetry.configure("shop", settings=SETTINGS, as_global=False, **arguments)
    assert not observed.metered
    telemetry.shutdown()


def test_switched_off() -> None:
    """Where the settings switch metrics off, none are collected."""
    settings = Settings(metrics=MetricsSettings(enabled=False))
    telemetry.configure("shop", settings=settings, as_global=False)
    assert not observed.metered
    telemetry.shutdown()


def test_joining_an_sdk(exporter: InMemorySpanExporter, tracer_provider: TracerProvider) -> None:
    """An application's own SDK gets spans and metrics, once, however often it is asked for; and no more afterwards."""
    reader = InMemoryMetricReader()
    sdk = MeterProvider([reader], shutdown_on_exit=False)
    registry = ProviderRegistry()
    for _ in range(2):
        telemetry.instrument(tracer_provider=tracer_provider, meter_provider=sdk)
    call(registry, "joined", 4, tracer_provider)
    assert [span.name for span in exporter.get_finished_spans()].count("execute joined") == 4
    assert counted(reader, "joined") == {"resilience.calls": 4, "resilience.call.duration": 4}
    telemetry.uninstrument()
    call(registry, "joined", 4, tracer_provider)
    assert [span.name for span in exporter.get_finished_spans()].count("execute joined") == 4
    assert counted(reader, "joined").get("resilience.calls") is None
    sdk.shutdown()


def counted(reader: InMemoryMetricReader, provider: str) -> dict[str, float]:
    data = reader.get_metrics_data()
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
    found: dict[str, float] = {}
    for metric in [metric for scope in scopes for metric in scope.metrics]:
        if metric.name in ("resilience.calls", "resilience.call.duration"):
            for point in metric.data.data_points:
                if (point.attributes or {}).get(names.PROVIDER) == provider:
                    number = getattr(point, "value", None)
                    found[metric.name] = found.get(metric.name, 0) + (number if number is not None else point.count)
    return found


def test_an_exporter_with_metrics(tracer_provider: TracerProvider) -> None:
    """An application that wraps its exporter gets everything as it is, and nothing twice."""
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    lines: list[str] = []

    class Out:
        def write(self, text: str) -> None:
            lines.append(text)

        def flush(self) -> None:
            pass

    console = ConsoleMetricExporter(out=Out(), formatter=lambda data: data.to_json(indent=None))  # type: ignore[arg-type]
    reader = PeriodicExportingMetricReader(metrics.with_metrics(console), export_interval_millis=math.inf)
    sdk = MeterProvider([reader], shutdown_on_exit=False)
    telemetry.instrument(tracer_provider=tracer_provider, meter_provider=sdk, instruments=False)
    registry = ProviderRegistry()
    call(registry, "wrapped", 2)
    sdk.force_flush()
    telemetry.uninstrument()
    sdk.shutdown()
    for metric in (names.CALLS, names.CALL_DURATION, names.RELOADS):
        assert lines[0].count(f'"name": "{metric.name}"') == 1
    del registry


GLOBAL = """
from opentelemetry import metrics, trace
from resilience import MetricsSettings, Settings, telemetry
settings = Settings(metrics=MetricsSettings(interval=3600))
found = telemetry.configure("shop", settings=settings)
metrics.get_meter("app").create_counter("orders").add(3)
from resilience.telemetry.prometheus import exposition
assert b"orders_total" in exposition()[0], exposition()
assert metrics.get_meter_provider() is found.meter_provider
telemetry.shutdown()
telemetry.configure("shop", settings=settings).shutdown()
"""
THERE = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from resilience import ConfigurationError, telemetry
metrics.set_meter_provider(MeterProvider([]))
try:
    telemetry.configure("shop")
except ConfigurationError as error:
    assert "instrument() joins it" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.real_time
@pytest.mark.parametrize("code", [GLOBAL, THERE], ids=["sets up", "is refused"])
def test_the_whole_process(code: str) -> None:
    """What is set up is the application's own SDK too; where there is one already, that is said."""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
