"""One call that sets up OpenTelemetry for an application that has no SDK of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from resilience.errors import ConfigurationError
from resilience.registry import default_registry
from resilience.settings import Settings
from resilience.telemetry import metrics
from resilience.telemetry import prometheus as _prometheus
from resilience.telemetry._extras import needs
from resilience.telemetry._instrument import instrument, uninstrument
from resilience.telemetry.metrics import with_metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Telemetry", "configure", "shutdown"]

_log = logging.getLogger("resilience.telemetry")


class _Asked(NamedTuple):
    service_name: str | None
    otlp: str | None
    prometheus: bool
    headers: tuple[tuple[str, str], ...]
    settings: Settings | None
    as_global: bool


@final
class Telemetry:
    """
    What `configure` has set up.

    Attributes:
        tracer_provider: Makes spans, also the application's own; None without OTLP.
        meter_provider: Collects metrics, also the application's own.
        logger_provider: Sends log records; None without OTLP, or where OpenTelemetry cannot.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider,
        logger_provider: Any,
    ) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self.logger_provider = logger_provider

    def flush(self) -> None:
        """Send now what has not been sent yet. It waits for the receiver, so call it in a thread of its own."""
        self._each(lambda provider: provider.force_flush())

    def shutdown(self) -> None:
        """
        Send what has not been sent yet, and stop. It waits for the receiver.

        Afterwards `configure` can be called anew.
        """
        with _lock:
            ours = bool(_current) and _current[0][1] is self
            if ours:
                _current.clear()
        if ours:
            _prometheus.stop()
            self._each(lambda provider: provider.shutdown())
            uninstrument()

    def _each(self, do: Callable[[Any], object]) -> None:
        for provider in (self.tracer_provider, self.meter_provider, self.logger_provider):
            if provider is not None:
                try:
                    do(provider)
                except Exception:  # one receiver that is down must not keep the others from being told
                    _log.exception("telemetry could not be sent", extra={"component": "telemetry"})


_lock: Final = threading.RLock()
_current: list[tuple[_Asked, Telemetry]] = []
_made_global: list[Telemetry] = []


def configure(
    service_name: str | None = None,
    *,
    otlp: str | None = None,
    prometheus: bool = True,
    headers: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    as_global: bool = True,
) -> Telemetry:
    """
    Set up OpenTelemetry for this process. Calling it again with the same arguments changes nothing.

    Args:
        service_name: What this service is called. Default: None, what ``OTEL_SERVICE_NAME`` says.
        otlp: Where spans, metrics and log records are sent to, such as ``"http://localhost:4318"``. Default: None,
            nowhere. Needs the extra ``otlp``.
        prometheus: Whether metrics are ready for `resilience.telemetry.prometheus.exposition`. Default: True. Needs
            the extra ``prometheus``.
        headers: What is sent along to *otlp*, such as an authorization. Default: None.
        settings: How often metrics are sent, which names they have, and which workers share them. Default: None, those
            of the process.
        as_global: Whether the application's own spans and metrics go the same way. Default: True.

    Returns:
        What was set up. Call its `Telemetry.shutdown` before the process ends, so that nothing is lost.

    Raises:
        ImportError: An extra is not installed.
        ConfigurationError: OpenTelemetry is set up already, in another way.
    """
    asked = _Asked(service_name, otlp, prometheus, tuple(sorted((headers or {}).items())), settings, as_global)
    with _lock:
        if _current:
            before, telemetry = _current[0]
            if before != asked:
                raise ConfigurationError(
                    "telemetry is configured already, with other arguments: call shutdown() of what configure() "
                    "returned, or resilience.telemetry.shutdown(), first"
                )
            return telemetry
        telemetry = _set_up(asked)
        _current.append((asked, telemetry))
        return telemetry


def shutdown() -> None:
    """Send what has not been sent yet, and stop; nothing is done if nothing is configured."""
    with _lock:
        telemetry = _current[0][1] if _current else None
    if telemetry is not None:
        telemetry.shutdown()


def _set_up(asked: _Asked) -> Telemetry:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

    if asked.as_global and not _made_global:
        _check_that_there_is_none()
    _check_extras(asked)
    resource = Resource.create({"service.name": asked.service_name} if asked.service_name else {})
    settings = (asked.settings if asked.settings is not None else default_registry().settings).metrics
    readers: list[Any] = []
    tracer_provider = logger_provider = None
    if asked.otlp is not None:
        if settings.enabled:
            readers.append(_otlp_reader(asked, settings.interval))
        tracer_provider = _tracer_provider(asked, resource)
        logger_provider = _logger_provider(asked, resource)
    if asked.prometheus and settings.enabled:
        readers.append(_prometheus.start(settings, alone=False).reader)
    meter_provider = MeterProvider(readers, resource=resource)
    telemetry = Telemetry(tracer_provider, meter_provider, logger_provider)
    if asked.as_global and not _made_global:  # OpenTelemetry lets nobody choose twice
        _make_global(telemetry)
        _made_global.append(telemetry)
    instrument(
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
        instruments=False,
    )
    if not settings.enabled:
        metrics.remove()
    return telemetry


def _check_extras(asked: _Asked) -> None:
    """Find out what is missing before anything is set up."""
    if asked.otlp is not None:
        with needs("otlp", "spans and metrics over OTLP"):
            import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
            import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    if asked.prometheus:
        with needs("prometheus", "metrics for Prometheus"):
            import_module("opentelemetry.exporter.prometheus")


def _endpoint(asked: _Asked, signal: str) -> dict[str, Any]:
    return {"endpoint": f"{(asked.otlp or '').rstrip('/')}/v1/{signal}", "headers": dict(asked.headers) or None}


def _otlp_reader(asked: _Asked, interval: float) -> Any:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = with_metrics(OTLPMetricExporter(**_endpoint(asked, "metrics")))
    return PeriodicExportingMetricReader(exporter, export_interval_millis=interval * 1000)


def _tracer_provider(asked: _Asked, resource: Resource) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**_endpoint(asked, "traces"))))
    return provider


def _logger_provider(asked: _Asked, resource: Resource) -> Any:
    try:  # Python's part of the logs API is not public yet, and has moved before
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

        provider = LoggerProvider(resource=resource)
        provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**_endpoint(asked, "logs"))))
    except (ImportError, AttributeError, TypeError):
        _log.warning("log records are not sent: this OpenTelemetry has another API for them")
        return None
    else:
        return provider


def _check_that_there_is_none() -> None:
    from opentelemetry import trace
    from opentelemetry.metrics import get_meter_provider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    there = (trace.get_tracer_provider(), get_meter_provider())
    if isinstance(there[0], TracerProvider) or isinstance(there[1], MeterProvider):
        raise ConfigurationError(
            "this application has an OpenTelemetry SDK already: resilience.telemetry.instrument() joins it; "
            "as_global=False sets up another one beside it"
        )


def _make_global(telemetry: Telemetry) -> None:
    from opentelemetry import trace
    from opentelemetry.metrics import set_meter_provider

    set_meter_provider(telemetry.meter_provider)
    if telemetry.tracer_provider is not None:
        trace.set_tracer_provider(telemetry.tracer_provider)
