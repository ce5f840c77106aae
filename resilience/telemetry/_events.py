"""
What is counted from events, because no runtime keeps a number of it: rare things, all of them.

Refusals and failed attempts are not among them: to hear of each would take every call off the fast path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast, final

from resilience.events import (
    CallWouldBeRejected,
    CircuitChanged,
    Event,
    FellBack,
    GateClosed,
    SettingsRefused,
    SettingsReloaded,
)
from resilience.telemetry import names
from resilience.telemetry._gather import SHADOW, Readings, Values
from resilience.telemetry.names import OTHER, Metric

_MOST_NAMES: Final = 2048
_MOST_OF_A_NAME: Final = 64

_Told: TypeAlias = tuple[Metric, Callable[[Event], Values]]

COUNTED: Final[Mapping[type[Event], _Told]] = {
    CircuitChanged: (names.TRANSITIONS, lambda event: _transition(cast(CircuitChanged, event))),
    GateClosed: (names.GATE_CLOSINGS, lambda event: (str(cast(GateClosed, event).hinted).lower(),)),
    FellBack: (names.FALLBACKS, lambda event: (cast(FellBack, event).reason,)),
    CallWouldBeRejected: (
        names.REJECTIONS,
        lambda event: (cast(CallWouldBeRejected, event).reason.value, SHADOW, event.variant),
    ),
    SettingsReloaded: (
        names.RELOADS,
        lambda event: ("applied" if cast(SettingsReloaded, event).changes else "unchanged",),
    ),
    SettingsRefused: (names.RELOADS, lambda _: ("refused",)),
}


def _transition(event: CircuitChanged) -> Values:
    return event.before.value, event.after.value, event.reason, event.variant


@final
class EventCounts:
    """Counts events by provider: a listener for events of the classes in `COUNTED`."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything."""
        self._lock = threading.Lock()
        self._counts: dict[str, dict[tuple[Metric, Values], int]] = {}

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        metric, values_of = COUNTED[type(event)]
        with self._lock:
            name = event.provider
            if name not in self._counts and len(self._counts) >= _MOST_NAMES:
                name = OTHER
            self._count(name, (metric, values_of(event)), 1)

    def of(self, metric: Metric) -> Readings:
        """Return what was counted for *metric*."""
        with self._lock:
            return [
                ((name, *values) if names.PROVIDER in metric.attributes else values, count)
                for name, counts in self._counts.items()
                for (counted, values), count in counts.items()
                if counted is metric
            ]

    def forget(self, name: str) -> None:
        """Keep what was counted for *name* under a name that all such share."""
        with self._lock:
            for key, count in self._counts.pop(name, {}).items():
                self._count(OTHER, key, count)

    def _count(self, name: str, key: tuple[Metric, Values], count: int) -> None:
        counts = self._counts.setdefault(name, {})
        if key in counts or len(counts) < _MOST_OF_A_NAME:
            counts[key] = counts.get(key, 0) + count
