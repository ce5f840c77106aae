"""
The results that a circuit's rates are judged on: those of the last seconds, the last so many, or none.

When the rules change while it runs, what is known is kept as far as it can be kept honestly:

======================  ===========================================================================================
the window was          what becomes of it
======================  ===========================================================================================
of the same length      it stays
of other seconds        its buckets are sorted anew, each by the moment when it began
of another number       the newest results stay
seconds, now a number   the newest results stay; within a bucket, whose order nobody knows, the bad ones count as the
                        older ones, and are the first to leave
a number, now seconds   it starts empty: results that may be a day old must not count as of today
not there               it starts empty
======================  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import inf
from typing import TypeAlias, final

from resilience._core.states import CircuitRules
from resilience._core.window import CountWindow, TimeWindow

Totals: TypeAlias = tuple[int, int, int, int]
"""How many have succeeded, failed, were slow, and were abandoned (slow, and nobody saw the end)."""


@final
class Recent:
    """
    The window of one circuit.

    Args:
        rules: What says how far it looks back.
        now: The moment.
        totals: The circuit's totals up to now.
    """

    __slots__ = ("_ring", "_seconds", "_shape")

    def __init__(self, rules: CircuitRules, now: float, totals: Totals) -> None:
        self._ring: CountWindow | None = None
        self._seconds: TimeWindow | None = None
        self._shape = _shape_of(rules)
        self._begin(now, totals)

    def _begin(self, now: float, totals: Totals) -> None:
        span, size = self._shape
        self._ring = CountWindow(size) if size is not None else None
        self._seconds = TimeWindow(span, counters=4) if span is not None else None
        self.turn(now, totals)

    @property
    def turn_at(self) -> float:
        """When `turn` is due before anything is counted; ``-inf`` where each result has to be seen in its order."""
        if self._seconds is not None:
            return self._seconds.turn_at
        return inf if self._ring is None else -inf

    def turn(self, now: float, totals: Totals) -> None:
        """Close the buckets that have ended."""
        if self._seconds is not None:
            self._seconds.turn(now, totals)

    def record(self, *, failed: bool, slow: bool) -> None:
        """Add a result, which is counted in the totals already."""
        if self._ring is not None:
            self._ring.record(failed=failed, slow=slow)

    def counts(self, now: float, totals: Totals) -> tuple[int, int, int]:
        """Return calls, failed and slow calls; zeros when no rule needs them."""
        if self._ring is not None:
            return self._ring.calls, self._ring.failed, self._ring.slow
        if self._seconds is None:
            return 0, 0, 0
        successes, failures, slow, abandoned = self._seconds.counts(now, totals)
        return successes + failures + abandoned, failures, slow

    def outcomes(self, now: float, totals: Totals) -> tuple[int, int]:
        """Return calls and failed calls, without those whose end nobody saw: they neither failed nor succeeded."""
        if self._seconds is None:
            return self.counts(now, totals)[:2]
        successes, failures, _, _ = self._seconds.counts(now, totals)
        return successes + failures, failures

    def restart(self, now: float, totals: Totals) -> None:
        """Forget everything before *now*."""
        if self._ring is not None:
            self._ring.restart()
        if self._seconds is not None:
            self._seconds.restart(now, totals)

    def adopt(self, rules: CircuitRules, now: float, totals: Totals) -> None:
        """Look back as far as *rules* say from now on, as the table above tells."""
        shape, ring, seconds = _shape_of(rules), self._ring, self._seconds
        if shape == self._shape:
            return
        self._shape = span, size = shape
        if seconds is not None and span is not None:
            self._seconds = seconds.resized(span, now, totals)
        elif ring is not None and size is not None:
            self._ring = ring.resized(size)
        else:
            self._begin(now, totals)
            if seconds is not None and self._ring is not None and size is not None:
                _fill(self._ring, size, seconds.by_bucket(now, totals))


def _shape_of(rules: CircuitRules) -> tuple[float | None, int | None]:
    """Return the length of the window in seconds, or in results; neither if no rule needs it."""
    if rules.failure_rate is None and rules.slow_rate is None:
        return None, None
    return (rules.window, None) if rules.window_calls is None else (None, rules.window_calls)


def _fill(ring: CountWindow, size: int, buckets: list[tuple[int, ...]]) -> None:
    newest = list(islice(_newest_first(buckets), size))
    for failed, slow in reversed(newest):
        ring.record(failed=failed, slow=slow)


def _newest_first(buckets: list[tuple[int, ...]]) -> Iterator[tuple[bool, bool]]:
    for successes, failures, slow, abandoned in reversed(buckets):
        for nth in reversed(range(successes + failures + abandoned)):
            yield nth < failures, nth < slow
