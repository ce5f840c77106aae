"""
Adaptive limits: how many attempts at once a provider can take, found out from what became of them.

::

    window   closed by the first report at least 1 s after the last one closed, once it holds 10 samples
    AIMD     a drop in it             L *= 0.9, once
             otherwise, if busy       L = sqrt(L^2 + 2 n) for n successes: +1 for each L of them, summed up exactly
    Vegas    rtt = the window's mean, rtt_min = the least of them
             q = ceil(L (1 - rtt_min / rtt)), g = max(1, floor(log10 L))
             a drop in it             L -= g
             otherwise, if busy       q <= g: L += 6 g     q < 3 g: L += g     q > 6 g: L -= g     else L stays
    busy     the greatest number in flight was at least L / 2; and no growth beyond twice that number
    probe    Vegas, after U(0.5, 1) * 30 L windows: two windows at half the limit; rtt_min = the second's rtt

A sample is an attempt that the provider has answered; a drop is one that it refused for being busy (429, 503, 529), or
that timed out. What we refused ourselves and what a caller cancelled is neither. L is a float between *lowest* and
*highest*, and its floor is what may run.

AIMD is TCP's congestion avoidance (Chiu and Jain 1989), Vegas (Brakmo and Peterson 1995) as Netflix brought it to
concurrency limits. There a probe takes the rtt as it is, and the limit creeps up by a queue at each one; here it makes
room first. Vegas believes that latency means load. An LLM's does not (it means a long answer): give it the time to
the first item, or use AIMD.
"""

from __future__ import annotations

import math
import random
from typing import Protocol, final

_WINDOW = 1.0  # seconds
_SAMPLES = 10
_BACK_OFF = 0.9
_PROBE_EVERY = 30  # windows, for each attempt that the limit allows


class Limit(Protocol):
    """A limit that adapts itself."""

    limit: float

    @property
    def allowed(self) -> int:
        """How many attempts may run at once."""
        ...

    def saw(
        self, now: float, *, successes: int = 0, drops: int = 0, in_flight: int = 0, latency: float | None = None
    ) -> str:
        """
        Take note of what became of attempts since the last report.

        Args:
            now: The moment, on the monotonic clock.
            successes: So many were answered.
            drops: So many were refused by a busy provider, or timed out.
            in_flight: The greatest number that ran at once meanwhile.
            latency: How long the successes took on average, in seconds. None: not known.

        Returns:
            Why the limit was reconsidered ("drops", "room", "queueing", "probe"); empty if it was not.
        """
        ...

    def adopt(self, lowest: int, highest: int) -> None:
        """Stay within other bounds from now on, and go on from where the limit is, or from the nearest bound."""
        ...


@final
class _Window:
    """What was reported since the last update."""

    __slots__ = ("began", "drops", "in_flight", "latencies", "successes", "timed")

    began: float
    drops: int
    in_flight: int
    latencies: float
    successes: int
    timed: int

    def __init__(self, now: float) -> None:
        self.restart(now)

    def restart(self, now: float) -> None:
        self.began = now
        self.successes = self.drops = self.in_flight = self.timed = 0
        self.latencies = 0.0

    def add(self, now: float, successes: int, drops: int, in_flight: int, latency: float | None) -> bool:
        """Add a report; return whether the window is full."""
        self.successes += successes
        self.drops += drops
        self.in_flight = max(self.in_flight, in_flight)
        if latency is not None:
            self.timed += successes
            self.latencies += latency * successes
        return self.successes + self.drops >= _SAMPLES and now - self.began >= _WINDOW

    @property
    def latency(self) -> float | None:
        return self.latencies / self.timed if self.timed else None


def within(limit: float, lowest: int, highest: int) -> float:
    """Return *limit*, or the bound that it lies beyond."""
    return min(max(limit, lowest), highest)


def _checked(initial: float, lowest: int, highest: int) -> float:
    if not 1 <= lowest <= initial <= highest:
        raise ValueError(f"limit {initial!r} between {lowest!r} and {highest!r}: expected 1 <= lowest <= it <= highest")
    return float(initial)


@final
class AimdLimit:
    """
    Grows by one for each full round of successes, and falls by a tenth when the provider refuses.

    Args:
        initial: Where it starts.
        lowest: It never falls below this.
        highest: It never rises above this.
        now: The moment, on the monotonic clock.

    Raises:
        ValueError: The figures are not in that order, or *lowest* is below 1.
    """

    __slots__ = ("_highest", "_lowest", "_window", "limit")

    limit: float

    def __init__(self, initial: float, lowest: int, highest: int, now: float) -> None:
        self.limit = _checked(initial, lowest, highest)
        self._lowest = lowest
        self._highest = highest
        self._window = _Window(now)

    @property
    def allowed(self) -> int:
        """How many attempts may run at once."""
        return int(self.limit)

    def saw(
        self, now: float, *, successes: int = 0, drops: int = 0, in_flight: int = 0, latency: float | None = None
    ) -> str:
        """Take note of what became of attempts since the last report, as `Limit.saw` describes."""
        window = self._window
        if not window.add(now, successes, drops, in_flight, latency):
            return ""
        if window.drops:
            self.limit = max(self._lowest, self.limit * _BACK_OFF)
            why = "drops"
        else:
            grown = math.sqrt(self.limit**2 + 2 * window.successes)
            self.limit = max(self.limit, min(grown, 2 * window.in_flight, self._highest))
            why = "room"
        window.restart(now)
        return why

    def adopt(self, lowest: int, highest: int) -> None:
        """Stay within other bounds from now on, as `Limit.adopt` describes."""
        self.limit = _checked(within(self.limit, lowest, highest), lowest, highest)
        self._lowest, self._highest = lowest, highest


@final
class VegasLimit:
    """
    Keeps a short queue at the provider, as told by latencies that rise with load.

    Args:
        initial: Where it starts.
        lowest: It never falls below this.
        highest: It never rises above this.
        now: The moment, on the monotonic clock.
        rng: Spreads the probes of several processes.

    Raises:
        ValueError: The figures are not in that order, or *lowest* is below 1.
    """

    __slots__ = ("_highest", "_lowest", "_probing", "_rng", "_until_probe", "_window", "fastest", "limit")

    fastest: float
    limit: float

    def __init__(self, initial: float, lowest: int, highest: int, now: float, rng: random.Random) -> None:
        self.limit = _checked(initial, lowest, highest)
        self.fastest = math.inf  # the least mean latency of a window since the last probe
        self._lowest = lowest
        self._highest = highest
        self._rng = rng
        self._window = _Window(now)
        self._probing = 0
        self._until_probe = self._draw_probe()

    @property
    def allowed(self) -> int:
        """How many attempts may run at once: half as many while it probes."""
        return max(self._lowest, int(self.limit / 2)) if self._probing else int(self.limit)

    def saw(
        self, now: float, *, successes: int = 0, drops: int = 0, in_flight: int = 0, latency: float | None = None
    ) -> str:
        """Take note of what became of attempts since the last report, as `Limit.saw` describes."""
        window = self._window
        if not window.add(now, successes, drops, in_flight, latency):
            return ""
        why = self._update(window)
        window.restart(now)
        return why

    def adopt(self, lowest: int, highest: int) -> None:
        """Stay within other bounds from now on, as `Limit.adopt` describes."""
        self.limit = _checked(within(self.limit, lowest, highest), lowest, highest)
        self._lowest, self._highest = lowest, highest

    def _update(self, window: _Window) -> str:
        step = max(1, math.floor(math.log10(self.limit)))
        if window.drops:
            self._move(-step)
            return "drops"
        rtt = window.latency
        if rtt is None:
            return ""
        if self._probing:
            self._probing -= 1  # the first window only lets the queue drain; the second overwrites what it says
            self.fastest = rtt
            return "probe"
        self.fastest = min(self.fastest, rtt)
        self._until_probe -= 1
        if self._until_probe <= 0:
            self._until_probe = self._draw_probe()
            self._probing = 2
            return "probe"
        return self._follow(rtt, window.in_flight, step)

    def _follow(self, rtt: float, in_flight: int, step: int) -> str:
        queue = math.ceil(self.limit * (1 - self.fastest / rtt)) if rtt > 0 else 0
        if 2 * in_flight < self.limit:
            return ""
        if queue <= step:
            self._move(min(6 * step, max(0.0, 2 * in_flight - self.limit)))
        elif queue < 3 * step:
            self._move(min(step, max(0.0, 2 * in_flight - self.limit)))
        elif queue > 6 * step:
            self._move(-step)
            return "queueing"
        return "room"

    def _move(self, by: float) -> None:
        self.limit = within(self.limit + by, self._lowest, self._highest)

    def _draw_probe(self) -> float:
        return self._rng.uniform(0.5, 1.0) * _PROBE_EVERY * self.limit
