"""
The status of every component as a metric: read when somebody collects, from what is known anyway.

At most `MOST_COMPONENTS` names are told apart; the rest shares the name ``_other``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Final, TypeAlias

from resilience.health.components import Component, Report, Status
from resilience.settings import MetricsSettings
from resilience.telemetry import metrics, names

_log = logging.getLogger("resilience.health")

MOST_COMPONENTS: Final = 1024

_Reports: TypeAlias = Callable[[], Iterable[Callable[[], Report]]]


@cache
def announce(reports: _Reports) -> None:
    """Let the metrics of this process tell what *reports* find; done once."""
    metrics.provide(names.HEALTH_STATUS, lambda: readings(reports()))


def join_workers(settings: MetricsSettings) -> None:
    """Tell the other workers what this one counts, from now on and not only once it has been asked."""
    if settings.enabled and settings.directory is not None:
        with suppress(ImportError):  # whoever asks for metrics is told what to install
            from resilience.telemetry.prometheus import begin

            begin(settings)


def readings(reports: Iterable[Callable[[], Report]]) -> Iterator[tuple[tuple[str, str], float]]:
    """Return 1 for the status that each component has, 0 for the others. A report that fails is left out."""
    told: set[str] = set()
    for report in reports:
        for component in _components(report):
            if component.name in told or len(told) < MOST_COMPONENTS:
                name = component.name
                told.add(name)
            else:
                name = names.OTHER
            for status in Status:
                yield (name, status.value), float(component.status is status)


def _components(report: Callable[[], Report]) -> tuple[Component, ...]:
    try:
        return report().components
    except Exception:  # a clock that only runs inside its loop, say: the other metrics are still worth telling
        _log.debug("health cannot be read", exc_info=True, extra={"component": "health"})
        return ()
