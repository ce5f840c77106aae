"""
How long things took: counts in fixed buckets, which cost a search and two additions.

The buckets are those of the exported histograms, so that nothing has to be counted twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, final

BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""
The upper bounds of the buckets, in seconds, each included.

Those of OpenTelemetry's HTTP conventions up to 10 s, thinned out; above, where calls to language models live, the
default limits of attempts (30 s) and calls (120 s) are borders, so that a quantile near a limit says so.
"""


@final
class Histogram:
    """
    Durations, counted by bucket.

    Attributes:
        counts: How many lay in each bucket; the last one is for those beyond all bounds.
        total: Their sum, in seconds.
    """

    __slots__ = ("counts", "total")

    counts: list[int]
    total: float

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def add(self, other: Histogram) -> None:
        """Count everything that *other* has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def quantile(self, share: float) -> float | None:
        """
        Return an estimate of the duration that *share* of all stay below, from 0 to 1; None if there are none.

        Within a bucket durations are taken to be spread evenly, as Prometheus does; beyond the last bound there is
        nothing to go by but the bound.
        """
        count = self.count
        if not count:
            return None
        rank, below = share * count, 0
        for number, inside in enumerate(self.counts[:-1]):
            if inside and below + inside >= rank:
                lower = BOUNDS[number - 1] if number else 0.0
                return lower + (BOUNDS[number] - lower) * max(0.0, rank - below) / inside
            below += inside
        return BOUNDS[-1]


def summed(histograms: Iterable[Histogram]) -> Histogram:
    """Return a new histogram of all that *histograms* have counted."""
    total = Histogram()
    for one in histograms:
        total.add(one)
    return total
