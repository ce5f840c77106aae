"""
Metrics for Prometheus, through OpenTelemetry's own exporter. Importing this loads it.

The exporter is a reader of an SDK: it is given what the SDK has collected, and passes on what this framework has
counted along with it.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Sequence
from typing import Any, Final, final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricsData
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import Metric as Family
from prometheus_client.exposition import choose_encoder

from resilience.settings import MetricsSettings
from resilience.telemetry._collect import Collector
from resilience.telemetry._families import aliases, chosen
from resilience.telemetry._points import added_to
from resilience.telemetry._workers import Workers

# Every series would carry three labels that say the same.
_QUIET: Final[dict[str, Any]] = (
    {"scope_info_enabled": False}
    if "scope_info_enabled" in inspect.signature(PrometheusMetricReader).parameters
    else {}
)


@final
class PrometheusReader(PrometheusMetricReader):
    """
    OpenTelemetry's reader for Prometheus, which passes on the framework's metrics too.

    Args:
        registry: Where `prometheus_client` finds it.
        collector: Who counts.
    """

    def __init__(self, registry: CollectorRegistry, collector: Collector) -> None:
        super().__init__(registry=registry, **_QUIET)
        self._added = collector

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        base: Any = super()
        base._receive_metrics(added_to(metrics_data, self._added), timeout_millis, **kwargs)


@final
class Exposition:
    """
    What this process, or all workers of it, tell Prometheus.

    Args:
        settings: Under which names, and with which other workers.
        collector: Who counts.

    Raises:
        ConfigurationError: The directory that workers share cannot be used.
    """

    reader: PrometheusReader

    def __init__(self, settings: MetricsSettings, collector: Collector) -> None:
        self.provider: object = None  # whoever collects for us
        self._settings = settings
        self._registry = CollectorRegistry()
        self.reader = PrometheusReader(self._registry, collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._workers = Workers(settings.directory, settings.interval, self._own) if settings.directory else None

    def _own(self) -> list[Family]:
        with _collecting:  # the exporter hands out double when it is asked by two at once
            return list(self._registry.collect())

    def text(self, names: Sequence[str] = (), accept: str = "") -> tuple[bytes, str]:
        """Return the metrics as text, those called *names* or all, and the media type: one that is *accept*-ed."""
        families = self._own() if self._workers is None else self._workers.all()
        if self._settings.aliases:
            families += aliases(families)
        encode, media_type = choose_encoder(accept)
        return encode(_Collected(list(chosen(families, names)))), media_type

    def write(self) -> None:
        """Tell the other workers now what this one has counted."""
        if self._workers is not None:
            self._workers.write()

    def stop(self) -> None:
        """Tell the other workers for the last time."""
        if self._workers is not None:
            self._workers.stop()


@final
class _Collected:
    """Families in the shape that encoders ask for."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        """Return them."""
        return self._families


_collecting: Final = threading.RLock()

if hasattr(os, "register_at_fork"):
    # A child must not begin in the middle of a collection, whose locks nobody would open there.
    os.register_at_fork(
        before=_collecting.acquire, after_in_parent=_collecting.release, after_in_child=_collecting.release
    )
