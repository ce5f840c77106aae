"""
How much happened lately: a time window, a count window, and failures in a row.

::

    time window    w = span / buckets, bucket of a moment e = floor(now / w); the live buckets are e - buckets + 1 .. e
                   counted in the window = running totals now - running totals when the oldest live bucket began
    count window   ring of the last *size* results; a new one evicts the oldest from the sums, O(1), exact
    row            failures since the success counter last moved

The time window follows the bucketed windows of resilience4j (`SlidingTimeWindowMetrics`), Polly and failsafe-go, with
one turn: the ring holds no counts but *totals*. Whoever counts just adds one to its own number, which is what a
successful call can afford; only a failure pays for the subtractions.

A window can be resized while it runs. When something was counted is known by its bucket alone, so in a time window of
another length it counts as of the moment when that bucket began: it may leave early, never late.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from math import inf, isfinite
from operator import sub
from typing import final

# Far above the number of kinds there are; it only keeps a caller with endless names from filling the memory.
_MAX_KINDS = 64


@cache
def _zeros(counters: int) -> tuple[int, ...]:
    """Return so many zeros: the same ones for every window of that kind, which is empty for most of its life."""
    return (0,) * counters


@final
class TimeWindow:
    """
    What was counted in the last *span* seconds, read off the caller's own running totals.

    Contract: whoever is about to count something at ``now >= turn_at`` calls `turn` with the totals as they are
    before that. Everything counted since the last turn then belongs to one bucket, so a read needs no turn.

    It covers between ``span - span / buckets`` and ``span`` seconds. When the clock goes backwards, time stands
    still until the clock has caught up.

    Args:
        span: Length of the window, in seconds.
        counters: How many running totals there are.
        buckets: How finely old counts leave. Default: 10.

    Raises:
        ValueError: *span* is no positive, finite number of seconds, or a number is below 1.
    """

    __slots__ = ("_marks", "_nothing", "_successor", "_width", "epoch", "turn_at")

    def __init__(self, span: float, *, counters: int, buckets: int = 10) -> None:
        if not (isfinite(span) and span > 0):
            raise ValueError(f"window of {span!r} s: expected a positive, finite number of seconds")
        if counters < 1 or buckets < 1:
            raise ValueError(f"window with {counters!r} counters and {buckets!r} buckets: expected at least 1 of each")
        self._width = span / buckets
        self._nothing = _zeros(counters)
        # _marks[e % buckets]: the totals when bucket e began, for the `buckets` buckets up to `epoch`.
        self._marks: list[tuple[int, ...]] = [self._nothing] * buckets
        self._successor: TimeWindow | None = None
        self.epoch: float = -inf
        self.turn_at: float = -inf

    def turn(self, now: float, totals: tuple[int, ...]) -> None:
        """Close the buckets that have ended by *now*; *totals* are the counts up to here."""
        epoch = self._epoch_of(now)
        buckets = len(self._marks)
        # Nothing was counted in a bucket that nobody turned to, so the totals at its start are those of now.
        for back in range(int(min(epoch - self.epoch, buckets))):
            self._marks[(epoch - back) % buckets] = totals
        if epoch > self.epoch:
            self._begin(epoch)

    def counts(self, now: float, totals: tuple[int, ...]) -> tuple[int, ...]:
        """Return what was counted in the window that ends *now*; changes nothing."""
        buckets = len(self._marks)
        oldest = max(self._epoch_of(now), self.epoch) - buckets + 1
        if oldest > self.epoch:
            return self._nothing
        return tuple(map(sub, totals, self._marks[int(oldest) % buckets]))

    def by_bucket(self, now: float, totals: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return what was counted in each live bucket, the oldest first; turns to *now*."""
        self.turn(now, totals)
        marks = [mark for _, mark in self._live_marks()]
        return [tuple(map(sub, later, earlier)) for earlier, later in pairwise([*marks, totals])]

    def resized(self, span: float, now: float, totals: tuple[int, ...]) -> TimeWindow:
        """
        Return a window of *span* seconds that knows what this one knows, and takes its place.

        What this one has forgotten already stays forgotten in a longer one.
        """
        self.turn(now, totals)
        successor = TimeWindow(span, counters=len(self._nothing), buckets=len(self._marks))
        known = [(successor._epoch_of(epoch * self._width), mark) for epoch, mark in self._live_marks()]
        newest = max(successor._epoch_of(now), known[-1][0])
        for epoch in range(newest - len(self._marks) + 1, newest + 1):
            began = next((mark for place, mark in known if place >= epoch), totals)
            successor._marks[epoch % len(self._marks)] = began
        successor._begin(newest)
        self._successor = successor
        return successor

    def take_back(self, now: float, counter: int, epoch: float) -> bool:
        """
        Undo one count of *counter* made in bucket *epoch*, as if it had never been made.

        Lowering the total alone would leave a hole of -1 in today's bucket after the old one has died, so the
        marks since then are lowered as well. A window that was resized hands it on.

        Returns:
            Whether the bucket still lives. If so the caller lowers its own total by one; if not, nothing is left
            to undo and the total stays.
        """
        buckets, successor = len(self._marks), self._successor
        if successor is not None:
            known = epoch > self.epoch - buckets
            return known and successor.take_back(now, counter, successor._epoch_of(epoch * self._width))
        if epoch <= max(self._epoch_of(now), self.epoch) - buckets:
            return False
        for later in range(int(epoch) + 1, int(self.epoch) + 1):
            mark = self._marks[later % buckets]
            self._marks[later % buckets] = (*mark[:counter], mark[counter] - 1, *mark[counter + 1 :])
        return True

    def restart(self, now: float, totals: tuple[int, ...]) -> None:
        """Forget everything before *now*."""
        self._marks = [totals] * len(self._marks)
        self._begin(self._epoch_of(now))

    def _live_marks(self) -> list[tuple[int, tuple[int, ...]]]:
        """Return the live buckets and the totals when each began, the oldest first. There has been a turn."""
        newest = int(self.epoch)
        return [(e, self._marks[e % len(self._marks)]) for e in range(newest - len(self._marks) + 1, newest + 1)]

    def _epoch_of(self, now: float) -> int:
        # Floor division of floats is exact where floor(now / width) may round up at a border: a moment before
        # turn_at must never lie in the next bucket, or a count would land in the wrong one.
        return int(now // self._width)

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self.turn_at = (epoch + 1) * self._width


@final
class CountWindow:
    """
    The last *size* results, exactly.

    A result can be failed and slow at once; it then counts for both.

    Args:
        size: How many results to remember.

    Raises:
        ValueError: *size* is below 1.
    """

    __slots__ = ("_next", "_ring", "calls", "failed", "slow")

    calls: int
    failed: int
    slow: int
    _next: int

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"window of {size!r} calls: expected at least 1")
        self._ring = bytearray(size)  # one byte a result: bit 0 failed, bit 1 slow
        self.restart()

    def record(self, *, failed: bool, slow: bool) -> None:
        """Add a result; the oldest leaves when the window is full."""
        ring, at = self._ring, self._next
        if self.calls == len(ring):
            old = ring[at]
            self.failed -= old & 1
            self.slow -= old >> 1
        else:
            self.calls += 1
        ring[at] = failed | slow << 1
        self.failed += failed
        self.slow += slow
        self._next = (at + 1) % len(ring)

    def resized(self, size: int) -> CountWindow:
        """Return a window of *size* results that knows the newest of those which this one knows."""
        successor, ring = CountWindow(size), self._ring
        for back in range(min(self.calls, size), 0, -1):
            result = ring[(self._next - back) % len(ring)]
            successor.record(failed=bool(result & 1), slow=bool(result >> 1))
        return successor

    def restart(self) -> None:
        """Forget every result."""
        # The bytes may stay: none is read before it was written anew.
        self.calls = self.failed = self.slow = self._next = 0


@final
class Row:
    """
    Failures in a row, and how many of them of one kind, read off a counter of successes.

    A success does nothing here: it moves the counter, and the next failure sees that it moved.
    """

    __slots__ = ("_kinds", "_length", "_mark")

    def __init__(self) -> None:
        self._mark = 0
        self._length = 0
        self._kinds: dict[str, int] = {}

    def fail(self, successes: int, kind: str) -> tuple[int, int]:
        """Count a failure; return the failures since the last success, and those of this *kind* among them."""
        if successes != self._mark:
            self._mark = successes
            self.restart()
        self._length += 1
        of_kind = self._kinds.get(kind, 0) + 1
        if of_kind == 1 and len(self._kinds) >= _MAX_KINDS:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = of_kind
        return self._length, of_kind

    def length(self, successes: int) -> int:
        """Return the failures since the last success."""
        return self._length if successes == self._mark else 0

    def restart(self) -> None:
        """Forget every failure."""
        self._length = 0
        self._kinds.clear()
