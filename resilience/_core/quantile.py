"""
How long it usually takes: quantiles of a latency over the last while, in bounded memory.

::

    gamma      (1 + error) / (1 - error)
    bin of x   ceil(log x / log gamma)                       covers gamma^(i-1) < x <= gamma^i
    its value  2 * gamma^i / (gamma + 1)                     off by at most *error*, relatively, anywhere in the bin
    window     slices of window / 6; the oldest leaves as a whole, so between 5/6 of the window and all of it counts

The bins are those of DDSketch (Masson, Rim and Lee, 2019). A bin's place depends on nothing but the error, so two
histograms of one error are added bin by bin, and what has grown old is subtracted the same way.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import ceil, exp, floor, isfinite, log
from typing import final

SLICES = 6

# From a microsecond to a day. What lies outside counts for the nearest.
_LEAST = 1e-6
_MOST = 86_400.0


@final
class LatencyHistogram:
    """
    Counts latencies and tells their quantiles.

    When the clock goes backwards, time stands still until the clock has caught up.

    Args:
        window: How far it looks back, in seconds. Default: 60.
        error: How far a quantile may be off, relatively. Default: 0.02.

    Raises:
        ValueError: *window* is no positive, finite number, or *error* is not between 0 and 1.
    """

    __slots__ = ("_bins", "_epoch", "_lowest", "_middle", "_scale", "_slices", "_total", "_width", "error")

    error: float

    def __init__(self, window: float = 60.0, error: float = 0.02) -> None:
        if not (isfinite(window) and window > 0):
            raise ValueError(f"window of {window!r} s: expected a positive, finite number of seconds")
        if not 0 < error < 1:
            raise ValueError(f"relative error {error!r}: expected a number between 0 and 1, such as 0.02")
        gamma = (1 + error) / (1 - error)
        self.error = error
        self._width = window / SLICES
        self._scale = 1 / log(gamma)
        self._middle = 2 / (gamma + 1)
        self._lowest = ceil(log(_LEAST) * self._scale)
        self._bins = [0] * (ceil(log(_MOST) * self._scale) - self._lowest + 1)
        self._slices: list[dict[int, int]] = [{} for _ in range(SLICES)]
        self._total = 0
        self._epoch = 0

    def record(self, now: float, seconds: float, count: int = 1) -> None:
        """Add *count* latencies of *seconds* each."""
        self._turn(now)
        self._add(self._epoch, self._bin_of(seconds), count)

    def count(self, now: float) -> int:
        """Return how many latencies are known."""
        self._turn(now)
        return self._total

    def quantile(self, now: float, q: float) -> float | None:
        """
        Return the latency that the share *q* of them does not exceed, in seconds; None if none are known.

        Raises:
            ValueError: *q* is not between 0 and 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"quantile {q!r}: expected a share between 0 and 1; the 95th percentile is 0.95")
        self._turn(now)
        if not self._total:
            return None
        rank = floor(q * (self._total - 1)) + 1
        found = bisect_left(list(accumulate(self._bins)), rank)
        return self._middle * exp((found + self._lowest) / self._scale)

    def merge(self, other: LatencyHistogram, now: float) -> None:
        """
        Add what *other* knows; it grows old here as it would have there. *other* is brought up to *now*.

        Raises:
            ValueError: It has another window or another error.
        """
        if (other._width, other.error) != (self._width, self.error):
            raise ValueError("only histograms of the same window and error can be merged")
        self._turn(now)
        other._turn(now)
        for back in range(SLICES):
            for index, count in list(other._slices[(other._epoch - back) % SLICES].items()):
                self._add(self._epoch - back, index, count)

    def resized(self, window: float, now: float) -> LatencyHistogram:
        """
        Return a histogram that looks back over another *window*, and knows what this one knows.

        When a latency was recorded is known by its slice alone: it counts as of when that began.
        """
        self._turn(now)
        other = LatencyHistogram(window, self.error)
        newest = int(max(now, self._epoch * self._width) // other._width)
        other._epoch = newest
        for epoch in range(self._epoch - SLICES + 1, self._epoch + 1):
            place = int(epoch * self._width // other._width)
            if place > newest - SLICES:
                for index, count in self._slices[epoch % SLICES].items():
                    other._add(place, index, count)
        return other

    def _bin_of(self, seconds: float) -> int:
        bounded = min(seconds, _MOST) if seconds > _LEAST else _LEAST
        return ceil(log(bounded) * self._scale) - self._lowest

    def _add(self, epoch: int, index: int, count: int) -> None:
        live = self._slices[epoch % SLICES]
        live[index] = live.get(index, 0) + count
        self._bins[index] += count
        self._total += count

    def _turn(self, now: float) -> None:
        """Empty the slices whose time is over."""
        epoch, last = int(now // self._width), self._epoch
        if not self._total:
            self._epoch = epoch
            return
        for later in range(last + 1, min(epoch, last + SLICES) + 1):
            old = self._slices[later % SLICES]
            for index, count in old.items():
                self._bins[index] -= count
                self._total -= count
            old.clear()
        self._epoch = max(epoch, last)
