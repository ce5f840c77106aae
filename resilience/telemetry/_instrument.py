"""One call that gives an application's own OpenTelemetry SDK everything that this framework tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilience.telemetry import metrics, records, scope, tracing

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["instrument", "uninstrument"]


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: Any = None,
    instruments: bool = True,
) -> None:
    """
    Tell this process's calls to an OpenTelemetry SDK, as spans, metrics and log records. Calling it again changes whom.

    An application without an SDK calls `resilience.telemetry.configure` instead.

    Args:
        tracer_provider: Who makes spans. Default: None, the global one, whenever it is set.
        meter_provider: Who collects metrics. Default: None, the global one.
        logger_provider: Who takes log records. Default: None, the global one, whenever it is set. There are none where
            OpenTelemetry's logs API, which is not public in Python yet, is not as we know it.
        instruments: Whether each metric is an instrument of *meter_provider*. False where
            `resilience.telemetry.metrics.with_metrics` wraps its exporter: then they are sent as they are, at no price.
    """
    tracing.install(tracer_provider)
    records.install(logger_provider)
    scope.choose(tracer_provider, meter_provider)
    metrics.install(meter_provider, instruments=instruments)


def uninstrument() -> None:
    """Tell nothing any more."""
    tracing.remove()
    records.remove()
    scope.choose(None, None)
    metrics.remove()
