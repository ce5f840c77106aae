"""
Durations for an SDK whose pipeline is not ours: what was counted since the last look, recorded again.

An SDK has no histogram that is observed when it is collected. So at each collection the calls counted since the last
one are recorded into it, one record each, with values that lie in the same buckets and have the same sum. It costs as
much as recording each call would, but the calls do not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import final

from resilience._core.histogram import Histogram
from resilience.telemetry._collect import left_behind
from resilience.telemetry._gather import Values
from resilience.telemetry.names import BUCKETS, Metric

_EDGES = (0.0, *BUCKETS)


@final
class Replay:
    """
    What of one histogram was recorded already.

    Args:
        metric: The histogram.
        record: Records a value *count* times.
    """

    def __init__(self, metric: Metric, record: Callable[[float, int, Values], None]) -> None:
        self._metric = metric
        self._record = record
        self._known: dict[Values, Histogram] = {}

    def catch_up(self, durations: dict[Values, Histogram]) -> None:
        """Record what *durations* hold beyond what is known."""
        for values in [values for values in self._known if values not in durations]:
            self._move(values)
        for values, taken in durations.items():
            known = self._known.setdefault(values, Histogram())
            new = Histogram()
            new.counts = [max(0, now - before) for now, before in zip(taken.counts, known.counts, strict=True)]
            new.total = max(0.0, taken.total - known.total)
            for value, count in spread(new):
                self._record(value, count, values)
            known.add(new)

    def _move(self, values: Values) -> None:
        """What a forgotten provider has counted comes back under the name that all such share: it is known there."""
        gone = self._known.pop(values)
        self._known.setdefault(left_behind(self._metric, values[1:]), Histogram()).add(gone)


def spread(taken: Histogram) -> Iterator[tuple[float, int]]:
    """Yield a value for each bucket and how often it occurs, so that counts and sum are those of *taken*."""
    inner, beyond = taken.counts[:-1], taken.counts[-1]
    edges = list(pairwise(_EDGES))
    lowest = sum(count * lower for count, (lower, _) in zip(inner, edges, strict=True)) + beyond * BUCKETS[-1]
    room = sum(count * (upper - lower) for count, (lower, upper) in zip(inner, edges, strict=True))
    left = max(0.0, taken.total - lowest)
    share = min(1.0, left / room) if room else 0.0
    for count, (lower, upper) in zip(inner, edges, strict=True):
        if count:
            value = lower + share * (upper - lower)
            yield (max(value, math.nextafter(lower, math.inf)) if lower else value), count
    if beyond:
        value = BUCKETS[-1] + max(0.0, left - room) / beyond
        yield max(value, math.nextafter(BUCKETS[-1], math.inf)), beyond
