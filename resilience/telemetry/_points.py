"""
Ready-made data points: what the runtimes have counted, put among what an SDK exports.

An SDK's own histogram costs each call two records, some microseconds each. The runtimes count durations anyway, in the
very buckets that are exported, so here their counts become the points. The same way is better for the other numbers
too: the SDK would remember every series that it ever saw, and give up at some number of them.

Importing this loads the OpenTelemetry SDK.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, final

from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as Exported
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from resilience._core.histogram import Histogram as Counted
from resilience.telemetry import names
from resilience.telemetry._collect import Collector, attributes_of
from resilience.telemetry._exemplars import examples
from resilience.telemetry._gather import Values
from resilience.telemetry._version import version
from resilience.telemetry.names import Instrument, Metric

_Exemplar: Final[Any] = getattr(sdk, "Exemplar", None)  # from 1.28 on
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_UNKNOWN: Final[Any] = None  # the smallest and the largest value: optional in the protocol, and not counted here

ADDED: Final = tuple(metric for metric in names.METRICS if metric is not names.RELOADS)
"""What is added to an export. The one left out is an instrument, so that there is always something to export."""


def added_to(data: MetricsData, collector: Collector, metrics: Sequence[Metric] = ADDED) -> MetricsData:
    """Return *data* with the points of *metrics* beside what is there."""
    if not data.resource_metrics:
        return data
    first, *others = data.resource_metrics
    scope = InstrumentationScope(names.SCOPE, version(), names.SCHEMA_URL)
    found = [one for metric in metrics if (one := _exported(metric, collector)) is not None]
    ours = ScopeMetrics(scope=scope, metrics=found, schema_url=names.SCHEMA_URL)
    first = replace(first, scope_metrics=[*first.scope_metrics, ours])
    return replace(data, resource_metrics=[first, *others])


def _exported(metric: Metric, collector: Collector) -> Exported | None:
    points = list(_histogram_points(metric, collector) if _is_histogram(metric) else _number_points(metric, collector))
    if not points:
        return None
    if metric.instrument is Instrument.COUNTER:
        data: Any = Sum(data_points=points, aggregation_temporality=_CUMULATIVE, is_monotonic=True)
    elif metric.instrument is Instrument.GAUGE:
        data = Gauge(data_points=points)
    else:
        data = Histogram(data_points=points, aggregation_temporality=_CUMULATIVE)
    return Exported(name=metric.name, description=metric.description, unit=metric.unit, data=data)


def _is_histogram(metric: Metric) -> bool:
    return metric.instrument is Instrument.HISTOGRAM


def _number_points(metric: Metric, collector: Collector) -> Iterable[Any]:
    for values, number in collector.numbers(metric).items():
        yield NumberDataPoint(
            attributes=attributes_of(metric, values),
            start_time_unix_nano=collector.since(metric, values),
            time_unix_nano=collector.clock(),
            value=int(number) if number.is_integer() else number,
        )


def _histogram_points(metric: Metric, collector: Collector) -> Iterable[Any]:
    for values, taken in collector.durations(metric).items():
        yield _point(metric, values, taken, since=collector.since(metric, values), now=collector.clock())


def _point(metric: Metric, values: Values, taken: Counted, *, since: int, now: int) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=attributes_of(metric, values),
        start_time_unix_nano=since,
        time_unix_nano=now,
        count=taken.count,
        sum=taken.total,
        bucket_counts=taken.counts,
        explicit_bounds=names.BUCKETS,
        min=_UNKNOWN,
        max=_UNKNOWN,
        **_exemplars(metric, values),
    )


def _exemplars(metric: Metric, values: Values) -> dict[str, Any]:
    if _Exemplar is None:
        return {}
    return {
        "exemplars": [
            _Exemplar(
                filtered_attributes={},
                value=one.seconds,
                time_unix_nano=one.time,
                span_id=one.span_id,
                trace_id=one.trace_id,
            )
            for one in examples.of(metric, values)
        ]
    }


@final
class ExporterWithMetrics(MetricExporter):
    """
    An exporter that sends what this framework counts along with what it is given.

    Args:
        exporter: Who exports.
        collector: Who counts.
    """

    def __init__(self, exporter: MetricExporter, collector: Collector) -> None:
        # A reader asks an exporter for these two, by names that are not public, though giving them is.
        super().__init__(
            preferred_temporality=getattr(exporter, "_preferred_temporality", None),
            preferred_aggregation=getattr(exporter, "_preferred_aggregation", None),
        )
        self._exporter: Any = exporter  # the SDK leaves the types of what it hands on open
        self._collector = collector

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export *metrics_data*, and ours."""
        data = added_to(metrics_data, self._collector)
        exported: MetricExportResult = self._exporter.export(data, timeout_millis=timeout_millis, **kwargs)
        return exported

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Have sent what is underway."""
        return bool(self._exporter.force_flush(timeout_millis=timeout_millis))

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Export no more."""
        self._exporter.shutdown(timeout_millis=timeout_millis, **kwargs)
