"""
Money in a sliding window, reserved before it is spent and settled when the price is known.

::

    slot           floor(now / (window / 60))              of the ring; what is reserved is booked there
    live           now < (slot + 1) * window / 60 + window
    reserve a      a + booked in live slots <= limit       book a
                   otherwise                               wait until enough slots have left the window

What exactly holds: everything reserved in any stretch of *window* seconds, at its reserved or (once known) its actual
price, adds up to no more than *limit*, unless something turned out dearer than what was reserved for it. The excess is
booked when it becomes known, and nothing more is let through until there is room. The price of bounded memory is paid
on the safe side: money leaves up to a sixtieth of the window late, never early.

Amounts, the limit too, are counted in whole billionths, rounded up, so that no sum ever drifts.

In a window of another length money counts as of the last moment that its slot allows: again it may leave late only.
"""

from __future__ import annotations

from math import ceil, inf, isfinite, ulp
from typing import final

_SLOTS = 60
_PARTS = 10**9


@final
class Spend:
    """
    How much is spent or reserved within a sliding window.

    Args:
        limit: So much at most.
        window: How long money counts, in seconds.

    Raises:
        ValueError: A number is not positive and finite.
    """

    __slots__ = ("_booked", "_latest", "_limit", "_moved", "_successor", "_total", "_width", "limit", "window")

    limit: float
    window: float

    def __init__(self, limit: float, window: float) -> None:
        if not (isfinite(window) and window > 0):
            raise ValueError(f"spend window {window!r}: expected a finite number above 0")
        self.window = window
        self._width = window / _SLOTS
        self._successor: Spend | None = None
        self._moved: dict[int | None, int] = {}  # where the successor has put what was booked here, by slot
        self._limit_to(limit)
        self.reset()

    def _limit_to(self, limit: float) -> None:
        if not (isfinite(limit) and limit > 0):
            raise ValueError(f"spend limit {limit!r}: expected a finite number above 0")
        self.limit = limit
        self._limit = _in_parts(limit)

    def adopt(self, now: float, limit: float, window: float) -> Spend:
        """
        Return what counts by another *limit* and *window* from now on, with all that was spent.

        What was reserved here is settled here as before; it is handed on.

        Raises:
            ValueError: A number is not positive and finite.
        """
        if window == self.window:
            self._limit_to(limit)
            return self
        successor = Spend(limit, window)
        self._turn(now)
        for slot, parts in self._booked.items():
            began = slot * self._width
            place = int(min(max(now, began), began + self._width) // successor._width)
            self._moved[slot] = successor._latest = place
            successor._book(place, parts)
        self._successor = successor
        return successor

    def reset(self) -> None:
        """Forget everything that was spent."""
        self._booked: dict[int, int] = {}  # by slot, oldest first
        self._total = 0
        self._latest: int | None = None

    def reserve(self, now: float, amount: float | None) -> tuple[float, int]:
        """
        Book *amount*.

        Args:
            now: The moment, on the monotonic clock.
            amount: How much. None: not known yet, so nothing is booked, but there must be something left.

        Returns:
            0 and the slot it is booked in; or how long to wait in seconds (``inf``: never) and the present slot.

        Raises:
            ValueError: *amount* is negative or not finite.
        """
        slot = self._turn(now)
        wanted = _in_parts(checked(amount)) if amount is not None else 1
        if wanted and self._total + wanted > self._limit:
            return self._wait(now, wanted), slot
        if amount is not None:
            self._book(slot, wanted)
        return 0.0, slot

    def settle(self, now: float, slot: int | None, reserved: float, actual: float) -> None:
        """
        Correct what was *reserved* in a *slot* to its *actual* price. None: a slot that has left the window.

        Raises:
            ValueError: *actual* is negative or not finite.
        """
        if self._successor is not None:
            return self._successor.settle(now, self._moved.get(slot), reserved, actual)
        more = _in_parts(checked(actual)) - _in_parts(reserved)
        present = self._turn(now)
        if more >= 0:
            self._book(present, more)
        elif slot is not None and slot in self._booked:
            self._book(slot, more)
        return None

    def used(self, now: float) -> float:
        """Return how much is spent or reserved in the window that ends at *now*."""
        self._turn(now)
        return self._total / _PARTS

    def _book(self, slot: int, parts: int) -> None:
        self._booked[slot] = self._booked.get(slot, 0) + parts
        self._total += parts

    def _turn(self, now: float) -> int:
        """Let go of what has left the window and return the present slot. Time never runs backwards here."""
        slot = int(now // self._width)
        if self._latest is not None:
            slot = max(slot, self._latest)
        self._latest = slot
        while self._booked and self._leaves(first := next(iter(self._booked))) <= now:
            self._total -= self._booked.pop(first)
        return slot

    def _leaves(self, slot: int) -> float:
        return (slot + 1) * self._width + self.window

    def _wait(self, now: float, wanted: int) -> float:
        if wanted > self._limit:
            return inf
        left, until = self._total, now
        for slot, parts in self._booked.items():
            if left + wanted <= self._limit:
                break
            left -= parts
            until = self._leaves(slot)
        wait = until - now
        while now + wait < until:  # rounded down, it would be a grain too early
            wait += ulp(until)
        return wait


def checked(amount: float) -> float:
    """
    Return *amount* if it is one.

    Raises:
        ValueError: It is negative, not finite or no number.
    """
    if isinstance(amount, bool) or not (isfinite(amount) and amount >= 0):
        raise ValueError(f"an amount is a finite number, 0 or more, not {amount!r}")
    return amount


def _in_parts(amount: float) -> int:
    # Rounding to thousandths of a part first takes away what binary fractions add to what somebody wrote.
    return ceil(round(amount * _PARTS, 3))
