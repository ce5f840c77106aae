"""
The framework's metrics for an application that has an OpenTelemetry SDK of its own.

Counters and gauges are observed when a reader collects, from integers that are there anyway, so that they cost calls
nothing. Durations are counted beside the calls, and reach the application's readers in one of two ways:

- its instruments: at each collection the calls since the last one are recorded into an SDK histogram, one record each.
  Nothing has to be set up; the price, some microseconds a call, is paid by the thread that collects.
- `with_metrics`, around the application's exporter: everything that this framework counts is sent along as it is, at no
  price, with examples that lead to traces, and without the SDK's bound on the number of series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final
from weakref import WeakKeyDictionary

from resilience.process import meter_calls
from resilience.telemetry import names
from resilience.telemetry._collect import Collector, Source, attributes_of, collector
from resilience.telemetry._gather import Values
from resilience.telemetry._replay import Replay
from resilience.telemetry._version import version
from resilience.telemetry.names import Instrument, Metric

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.sdk.metrics.export import MetricExporter

__all__ = ["install", "provide", "remove", "with_metrics"]


def provide(metric: Metric, source: Source) -> Callable[[], None]:
    """
    Let *source* tell the numbers of *metric*, for what is counted elsewhere than in providers.

    Args:
        metric: One of `resilience.telemetry.names.METRICS`, a counter or a gauge.
        source: Called at each collection: returns pairs of the values of the metric's attributes, in their order, and
            a number.

    Returns:
        A function that ends this.
    """
    return collector.provide(metric, source)


def with_metrics(exporter: MetricExporter) -> MetricExporter:
    """
    Return an exporter that sends the framework's metrics along with what *exporter* is given.

    Put it into the application's own reader, ``PeriodicExportingMetricReader(with_metrics(exporter))``, and leave the
    instruments out: ``instrument(meter_provider=..., instruments=False)``.

    The points are cumulative, whatever temporality the exporter prefers for instruments.
    """
    from resilience.telemetry._points import ExporterWithMetrics

    return ExporterWithMetrics(exporter, collector)


def install(meter_provider: MeterProvider | None = None, *, instruments: bool = True) -> None:
    """
    Count durations from now on, and have the metrics observed by *meter_provider*.

    Args:
        meter_provider: The application's. Default: None, the global one.
        instruments: Whether every metric is an instrument of it. False: only that of the reloads is, because
            `with_metrics` adds the others to what is exported.
    """
    from opentelemetry import metrics

    start()
    provider = meter_provider if meter_provider is not None else metrics.get_meter_provider()
    installed = _installed.get(provider)
    if installed is None:
        installed = _installed[provider] = Instruments(provider, collector)
    installed.observe(names.METRICS if instruments else (names.RELOADS,))


def remove() -> None:
    """Observe nothing any more, and count no durations."""
    for installed in _installed.values():
        installed.observe(())
    stop()


_installed: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()


def start() -> None:
    """Count what is counted only while somebody wants to know; done once."""
    meter_calls(True)
    collector.listen()


def stop() -> None:
    """Count it no longer."""
    meter_calls(False)
    collector.stop()


@final
class Instruments:
    """
    The metrics as instruments of one SDK. They can be silenced, but no SDK lets go of an instrument.

    Args:
        provider: The SDK's.
        source: Who counts.
    """

    def __init__(self, provider: MeterProvider, source: Collector) -> None:
        self._meter = provider.get_meter(names.SCOPE, version(), names.SCHEMA_URL)
        self._source = source
        self._observed: frozenset[Metric] = frozenset()
        self._made: set[Metric] = set()
        self._replays: dict[Metric, Replay] = {}

    def observe(self, metrics: Iterable[Metric]) -> None:
        """Observe *metrics* and no others."""
        self._observed = frozenset(metrics)
        for metric in metrics:
            if metric not in self._made:
                self._made.add(metric)
                self._make(metric)

    def _make(self, metric: Metric) -> None:
        if metric.instrument is Instrument.HISTOGRAM:
            histogram = _histogram(self._meter, metric)
            self._replays[metric] = Replay(metric, partial(_record, histogram, metric))
            return
        counts = metric.instrument is Instrument.COUNTER
        make = self._meter.create_observable_counter if counts else self._meter.create_observable_gauge
        make(metric.name, [partial(self._read, metric)], unit=metric.unit, description=metric.description)

    def _read(self, metric: Metric, _: CallbackOptions) -> list[Observation]:
        from opentelemetry.metrics import Observation

        if metric not in self._observed:
            return []
        if metric is _TURN:
            self._replay()
        found = self._source.numbers(metric)
        return [Observation(_exactly(number), attributes_of(metric, values)) for values, number in found.items()]

    def _replay(self) -> None:
        for metric, replay in self._replays.items():
            if metric in self._observed:
                replay.catch_up(self._source.durations(metric))


def _exactly(number: float) -> float:
    return int(number) if number.is_integer() else number


_TURN: Final = names.RELOADS
"""When this one is read, the durations have their turn: it is read at each collection."""


def _histogram(meter: Any, metric: Metric) -> Any:
    try:
        return meter.create_histogram(
            metric.name,
            unit=metric.unit,
            description=metric.description,
            explicit_bucket_boundaries_advisory=list(names.BUCKETS),
        )
    except TypeError:  # an API that does not take advice on buckets yet
        return meter.create_histogram(metric.name, unit=metric.unit, description=metric.description)


def _record(histogram: Any, metric: Metric, value: float, count: int, values: Values) -> None:
    attributes = attributes_of(metric, values)
    for _ in range(count):
        histogram.record(value, attributes)
