"""
A waiting line: who waits, who is next, and who is refused because others matter more.

::

    join     line not full                       waits; a sheddable only while less than half of the line is taken
             full, somebody lower waits          waits; the newest of the lowest priority is put out of the line
             otherwise                           refused
    pop      highest priority first; among equals the oldest,
             or the newest while the line is overloaded, if the order is "adaptive_lifo"

Overloaded is CoDel's rule (Nichols and Jacobson, CACM 2012) as folly applies it: the line was not empty at any moment
of the last interval of 100 ms. Whoever has waited longest is then the likeliest to have given up, so the newest is
served. (There nobody would wait for longer than a target of 5 ms from then on. That is meant for requests that take
microseconds; who calls a provider for seconds says for itself how long it waits.)
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar, final

from resilience._core.words import Priority, Reason

W = TypeVar("W")

_HIGHEST_FIRST = (Priority.CRITICAL, Priority.DEFAULT, Priority.SHEDDABLE)
_RANKS = {priority: rank for rank, priority in enumerate(_HIGHEST_FIRST)}


def _rank(priority: Priority) -> int:
    rank = _RANKS.get(priority)
    if rank is None:
        raise ValueError(f"priority {priority!r}: expected one of {', '.join(_HIGHEST_FIRST)}")
    return rank


@final
class Spot(Generic[W]):
    """One waiter's place in the line."""

    __slots__ = ("joined", "priority", "waiter")

    joined: float
    priority: Priority
    waiter: W

    def __init__(self, waiter: W, priority: Priority, joined: float) -> None:
        self.waiter = waiter
        self.priority = priority
        self.joined = joined


class Joined(NamedTuple, Generic[W]):
    """A new spot, and the one that had to go for it."""

    spot: Spot[W]
    displaced: Spot[W] | None


@final
class Line(Generic[W]):
    """
    A bounded line of waiters. Every operation takes constant time, and whoever has left leaves nothing behind.

    Args:
        size: So many wait at most.
        lifo_when_overloaded: Whether the newest is served first while the line is overloaded. Default: False.
        interval: The line is overloaded when it has not been empty for so long, in seconds. Default: 0.1.

    Raises:
        ValueError: *size* is negative, or *interval* is no positive number of seconds.
    """

    __slots__ = ("_busy_since", "_interval", "_length", "_lifo", "_rows", "size")

    size: int

    def __init__(self, size: int, *, lifo_when_overloaded: bool = False, interval: float = 0.1) -> None:
        if not interval > 0:
            raise ValueError(f"an interval of {interval!r} s: expected a positive number of seconds")
        self._interval = interval
        self.adopt(size, lifo_when_overloaded=lifo_when_overloaded)
        # Ordered dicts, since a plain one finds its first key slowly once many before it have gone.
        self._rows: tuple[OrderedDict[Spot[W], None], ...] = tuple(OrderedDict() for _ in _HIGHEST_FIRST)
        self._length = 0
        self._busy_since = 0.0

    def adopt(self, size: int, *, lifo_when_overloaded: bool = False) -> None:
        """
        Hold so many, and serve them in this order, from now on. Nobody is sent away for it.

        Raises:
            ValueError: *size* is negative.
        """
        if size < 0:
            raise ValueError(f"a line of {size!r} waiters: expected 0 or more")
        self.size = size
        self._lifo = lifo_when_overloaded

    def __len__(self) -> int:
        return self._length

    def spots(self) -> list[Spot[W]]:
        """Return everybody's spot, the highest priority first, and the oldest first among equals."""
        return [spot for row in self._rows for spot in row]

    def waiting(self, priority: Priority) -> int:
        """Return how many of *priority* wait."""
        return len(self._rows[_RANKS[priority]])

    def blocks(self, priority: Priority) -> bool:
        """Whether somebody waits who comes before a newcomer of *priority*."""
        rank = _rank(priority)  # first, so that a word that is no priority is found out on the first day
        return self._length > 0 and any(self._rows[: rank + 1])

    def overloaded(self, now: float) -> bool:
        """Whether the line has not been empty for a whole interval."""
        return self._length > 0 and now - self._busy_since >= self._interval

    def refuses(self, priority: Priority) -> Reason | None:
        """Return why nobody of *priority* can join at present; None if somebody can. Changes nothing."""
        rank = _rank(priority)
        if not self.size:
            return Reason.BULKHEAD_FULL
        if priority == Priority.SHEDDABLE:
            return Reason.SHED if 2 * self._length >= self.size else None
        full = self._length >= self.size and not any(self._rows[rank + 1 :])
        return Reason.BULKHEAD_FULL if full else None

    def join(self, waiter: W, priority: Priority, now: float) -> Joined[W] | Reason:
        """Let *waiter* join at *now*, perhaps in place of one that matters less, or return why not."""
        reason = self.refuses(priority)
        if reason is not None:
            return reason
        if not self._length:
            self._busy_since = now
        displaced = self._displace() if self._length >= self.size else None
        spot = Spot(waiter, priority, now)
        self._rows[_RANKS[priority]][spot] = None
        self._length += 1
        return Joined(spot, displaced)

    def leave(self, spot: Spot[W]) -> bool:
        """Take *spot* out of the line; return whether it was still in it."""
        row = self._rows[_RANKS[spot.priority]]
        if spot not in row:
            return False
        del row[spot]
        self._length -= 1
        return True

    def pop(self, now: float) -> Spot[W] | None:
        """Take out whoever is next; None if nobody waits."""
        row = next(filter(None, self._rows), None)
        if row is None:
            return None
        spot, _ = row.popitem(last=self._lifo and self.overloaded(now))
        self._length -= 1
        return spot

    def pop_expired(self, before: float) -> Spot[W] | None:
        """Take out somebody who joined at *before* or earlier; None if there is nobody."""
        for row in self._rows:
            spot = next(iter(row), None)
            if spot is not None and spot.joined <= before:
                self.leave(spot)
                return spot
        return None

    def _displace(self) -> Spot[W]:
        lowest = next(filter(None, reversed(self._rows)))
        spot, _ = lowest.popitem()
        self._length -= 1
        return spot
