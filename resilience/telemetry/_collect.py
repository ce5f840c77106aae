"""
The numbers of all providers of the process, gathered when somebody asks, with a bound on how many series there are.

At most `MOST_PROVIDERS` names (endpoints included) are told apart at a time; the rest shares the name ``_other``. There
too goes what a provider had counted when its registry forgets it, so that what only grows keeps growing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, TypeVar, final
from weakref import WeakKeyDictionary, WeakSet

from resilience._core.histogram import Histogram
from resilience.events import process_bus
from resilience.eviction import when_forgotten
from resilience.registry import ProviderRegistry, registries
from resilience.reloading import drifting
from resilience.runtime import ProviderRuntime
from resilience.telemetry import names
from resilience.telemetry._events import COUNTED, EventCounts
from resilience.telemetry._exemplars import examples
from resilience.telemetry._gather import COUNTERS, DURATIONS, GAUGES, Readings, Values
from resilience.telemetry.names import OTHER, Merged, Metric

_log = logging.getLogger("resilience.telemetry")

MOST_PROVIDERS: Final = 1024

R = TypeVar("R")

_FROM_THE_START: Final = {names.RELOADS: (("applied",), ("unchanged",), ("refused",))}
"""What is there before anything has happened. There is always something to collect, then."""

Source: TypeAlias = Callable[[], Readings]


@final
class Collector:
    """
    Reads the providers of some registries.

    Args:
        of: The registries. Default: all of the process.
        clock: Nanoseconds since the Unix epoch. Default: `time.time_ns`.
    """

    clock: Callable[[], int]
    events: EventCounts

    def __init__(
        self,
        of: Callable[[], Iterable[ProviderRegistry]] = registries,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._of = of
        self.clock = clock
        self._sources: dict[Metric, list[Source]] = {}
        self.events = EventCounts()
        self._ends: list[Callable[[], None]] = []
        _collectors.add(self)
        self.start_anew()

    def start_anew(self) -> None:
        """Forget what was counted: in a forked child, none of it happened."""
        self._lock = threading.RLock()
        self._began = self._looked = self.clock()
        self._labels: WeakKeyDictionary[ProviderRuntime, str] = WeakKeyDictionary()
        self._since: dict[str, int] = {}
        self._remains: dict[Metric, dict[Values, float]] = {}
        self._durations: dict[Metric, dict[Values, Histogram]] = {}
        self.events.start_anew()

    def listen(self) -> None:
        """Count from now on what has to be heard when it happens; done once."""
        if not self._ends:
            self._ends += [process_bus.subscribe(self.events, *COUNTED), when_forgotten(self.forget)]

    def stop(self) -> None:
        """Hear no more."""
        while self._ends:
            self._ends.pop()()

    def provide(self, metric: Metric, source: Source) -> Callable[[], None]:
        """Let *source* tell *metric* too. Returns what ends that."""
        self._sources.setdefault(metric, []).append(source)

        def remove() -> None:
            if source in self._sources[metric]:
                self._sources[metric].remove(source)

        return remove

    # -- reading ---------------------------------------------------------------------------------------------------

    def numbers(self, metric: Metric) -> dict[Values, float]:
        """Return the numbers of a counter or a gauge, by the values of its attributes."""
        merge = max if metric.merged is Merged.MAX else float.__add__
        found: dict[Values, float] = {}
        with self._lock:
            for values, number in self._all(metric):
                known = found.get(values)
                found[values] = float(number) if known is None else merge(known, float(number))
        return found

    def _all(self, metric: Metric) -> Readings:
        gather = COUNTERS.get(metric) or GAUGES.get(metric)
        if gather is not None:
            for label, runtime in self._labelled():
                yield from (((label, *its), number) for its, number in _safely(gather, runtime))
        yield from ((values, 0.0) for values in _FROM_THE_START.get(metric, ()))
        yield from self._remains.get(metric, {}).items()
        yield from self.events.of(metric)
        for source in tuple(self._sources.get(metric, ())):
            yield from source()

    def durations(self, metric: Metric) -> dict[Values, Histogram]:
        """Return the histograms of *metric*, by the values of its attributes. They are copies."""
        found: dict[Values, Histogram] = {}
        with self._lock:
            for label, runtime in self._labelled():
                for its, taken in _safely(DURATIONS[metric], runtime):
                    found.setdefault((label, *its), Histogram()).add(taken)
            for values, taken in self._durations.get(metric, {}).items():
                found.setdefault(values, Histogram()).add(taken)
        return {values: taken for values, taken in found.items() if taken.count}

    def since(self, metric: Metric, values: Values) -> int:
        """Return since when a series has counted, in nanoseconds since the Unix epoch."""
        return self._since.get(values[0], self._began) if names.PROVIDER in metric.attributes else self._began

    def _labelled(self) -> list[tuple[str, ProviderRuntime]]:
        """Return the providers with the names that tell them apart. Called under the lock."""
        runtimes = [runtime for registry in tuple(self._of()) for runtime in tuple(registry.runtimes.values())]
        taken = {self._labels[runtime] for runtime in runtimes if runtime in self._labels}
        for runtime in runtimes:
            if runtime not in self._labels:
                known = runtime.name in taken
                if not known and len(taken) < MOST_PROVIDERS:
                    self._since[runtime.name] = self._looked
                    taken.add(runtime.name)
                    known = True
                self._labels[runtime] = runtime.name if known else OTHER
        self._looked = self.clock()
        if len(self._since) > 2 * MOST_PROVIDERS:
            self._since = {name: since for name, since in self._since.items() if name in taken}
        return [(self._labels[runtime], runtime) for runtime in runtimes]

    # -- forgetting ------------------------------------------------------------------------------------------------

    def forget(self, runtime: ProviderRuntime) -> None:
        """Keep what *runtime* has counted, now that its registry forgets it, under a name that all such share."""
        with self._lock:
            self.events.forget(runtime.name)
            examples.forget(runtime.name)
            for metric, gather in COUNTERS.items():
                numbers = self._remains.setdefault(metric, {})
                for its, number in gather(runtime):
                    if number:
                        values = left_behind(metric, its)
                        numbers[values] = numbers.get(values, 0.0) + number
            for metric, gather_durations in DURATIONS.items():
                histograms = self._durations.setdefault(metric, {})
                for its, taken in gather_durations(runtime):
                    values = left_behind(metric, its)
                    histograms.setdefault(values, Histogram()).add(taken)


def attributes_of(metric: Metric, values: Values) -> dict[str, str]:
    """Return the attributes of a series; empty values say nothing and are left out."""
    return {name: value for name, value in zip(metric.attributes, values, strict=True) if value}


def left_behind(metric: Metric, its: Values) -> Values:
    """Return under which values a forgotten provider's count goes on; *its* are those without the name."""
    if names.OPERATION in metric.attributes:
        its = (OTHER, *its[1:])  # how an operation is called tells nothing once nobody knows whose it was
    return (OTHER, *its)


def _safely(gather: Callable[[ProviderRuntime], Iterable[R]], runtime: ProviderRuntime) -> list[R]:
    """Return what *gather* finds. A clock that only runs inside its loop must not keep the others from being read."""
    try:
        return list(gather(runtime))
    except Exception:
        _log.debug("%s cannot be read", runtime.name, exc_info=True, extra={"component": "telemetry"})
        return []


_collectors: WeakSet[Collector] = WeakSet()

collector: Final = Collector()
"""The one that reads every provider of this process."""


def _drift() -> Readings:
    found = drifting()
    return () if found is None else (((), found),)


collector.provide(names.DRIFT, _drift)


def _start_anew_after_fork() -> None:
    for one in _collectors:
        one.start_anew()
    examples.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_after_fork)
