"""
The retry budget of a provider: retries may add a share to the load, and a small floor, but never multiply it.

::

    balance        ratio * originals in the window - retries charged to the window
    try_spend      balance >= 1                       charge the window
                   tat' - now <= burst / rate         charge the floor: tat = tat'      tat' = max(tat, now) + 1 / rate
                   otherwise                          None
    refund         window charge, its bucket lives    as if it had never been made
                   floor charge, not yet made good    tat -= 1 / rate
                   otherwise                          nothing: time has already given it back

The window is Finagle's `RetryBudget`. Its reserve, which lets a quiet client retry at all, is spent there in one
burst per window; here a GCRA (ITU-T I.371), a token bucket in a single number, gives the same rate evenly. Worst load:
1 + ratio + rate / calls per second.
"""

from __future__ import annotations

from math import floor, inf, isfinite
from typing import final

from resilience._core.window import TimeWindow

# 0.29 * 100 is 28.999...; a deposit must not get lost in the rounding.
_SLACK = 1e-6


@final
class Charge:
    """One retry that was paid for. `RetryBudget.refund` gives it back, once."""

    __slots__ = ("_owner", "_when", "_window", "live")

    live: bool

    def __init__(self, owner: RetryBudget, window: TimeWindow | None, when: float) -> None:
        self._owner = owner
        self._window = window  # as it was then; None: the floor paid
        self._when = when  # the bucket of the window, or the spell of the floor
        self.live = True


@final
class RetryBudget:
    """
    How many retries all calls of a provider may add together.

    The original calls are the caller's running total. It keeps `TimeWindow`'s contract: whoever is about to count
    an original call at ``now >= turn_at`` calls `turn` first.

    Args:
        ratio: Retries per original call. Default: 0.2.
        window: How long an original call vouches for retries, in seconds. Default: 10.
        floor_per_second: Retries a second that need no original calls to vouch for them. Default: 1.
        floor_burst: How many of those may be saved up. Default: 10.

    Raises:
        ValueError: A number is negative or not finite, or the window is empty.
    """

    __slots__ = ("_burst", "_interval", "_ratio", "_span", "_spell", "_tat", "_window", "_withdrawn")

    def __init__(
        self,
        ratio: float = 0.2,
        window: float = 10.0,
        floor_per_second: float = 1.0,
        floor_burst: int = 10,
    ) -> None:
        self._window = TimeWindow(window, counters=2)
        self._span = window
        self._withdrawn = 0
        self._set(ratio, floor_per_second, floor_burst)
        self._tat = -inf  # GCRA's "theoretical arrival time": the floor is full from then on
        self._spell = 0  # counts the times the floor was full and then touched

    def _set(self, ratio: float, floor_per_second: float, floor_burst: int) -> None:
        given = (("ratio", ratio), ("floor_per_second", floor_per_second), ("floor_burst", floor_burst))
        for name, value in given:
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"retry budget {name} {value!r}: expected a finite number, 0 or more")
        self._ratio = ratio
        self._burst = floor_burst if floor_per_second else 0
        self._interval = 1 / floor_per_second if floor_per_second else 0.0

    def adopt(
        self,
        now: float,
        originals: int,
        *,
        ratio: float,
        window: float,
        floor_per_second: float,
        floor_burst: int,
    ) -> None:
        """
        Pay by other figures from now on. What was spent stays spent, and may be refunded as before.

        The arguments are those of the constructor, the moment, and the running number of original calls. Afterwards
        the caller has another `turn_at` to heed.

        Raises:
            ValueError: A number is negative or not finite, or the window is empty.
        """
        interval = self._interval
        self._set(ratio, floor_per_second, floor_burst)
        if window != self._span:
            self._window = self._window.resized(window, now, (originals, self._withdrawn))
            self._span = window
        if interval and self._interval != interval and self._tat > now:
            # So many retries as are missing from the floor stay missing, at its new pace. Without a floor none are.
            self._tat = now + (self._tat - now) / interval * self._interval

    @property
    def turn_at(self) -> float:
        """When the next bucket of the window begins; ``-inf`` before the first."""
        return self._window.turn_at

    def turn(self, now: float, originals: int) -> None:
        """Close the buckets that have ended by *now*."""
        self._window.turn(now, (originals, self._withdrawn))

    def try_spend(self, now: float, originals: int) -> Charge | None:
        """
        Pay for one retry; call it when the retry is scheduled, so that sleepers count.

        Args:
            now: The moment, on the monotonic clock.
            originals: The running number of original calls.

        Returns:
            The charge, or None when the budget is spent.
        """
        self.turn(now, originals)
        if self._balance(now, originals) >= 1 - _SLACK:
            self._withdrawn += 1
            return Charge(self, self._window, self._window.epoch)
        if self._saved(now) < 1 - _SLACK:
            return None
        if self._tat <= now:
            self._tat = now
            self._spell += 1
        self._tat += self._interval
        return Charge(self, None, self._spell)

    def refund(self, charge: Charge, now: float) -> None:
        """
        Give back the *charge* of a retry that never left.

        Harmless the second time, after the budget was replaced by another, and after time has made the charge good:
        then the balance stays as it is.
        """
        if not charge.live or charge._owner is not self:
            return
        charge.live = False
        if charge._window is not None:
            self._withdrawn -= charge._window.take_back(now, 1, charge._when)
        elif charge._when == self._spell:
            # Since the floor was last full every charge still shows in tat. One from before does not: had it never
            # been made, the floor could not have been fuller than full.
            self._tat -= self._interval

    def available(self, now: float, originals: int) -> float:
        """Return how many retries could be paid for at this moment, in whole retries."""
        balance = floor(max(0.0, self._balance(now, originals)) + _SLACK)
        return float(balance + floor(self._saved(now) + _SLACK))

    def _balance(self, now: float, originals: int) -> float:
        deposits, withdrawals = self._window.counts(now, (originals, self._withdrawn))
        return self._ratio * deposits - withdrawals

    def _saved(self, now: float) -> float:
        # The tokens of the equivalent bucket: full when tat has passed, less one for each interval it lies ahead.
        # It lies further ahead than all of them only when the clock went backwards.
        if self._tat <= now or not self._burst:
            return float(self._burst)
        return max(0.0, self._burst - (self._tat - now) / self._interval)
