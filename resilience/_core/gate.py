"""
The gate: stay away for as long as the provider asked. It is not the breaker and no evidence for it.

::

    close(hint)     until = max(until, now + min(hint, cap))
    close()         until = max(until, now + min(base * 2^n, cap))     n = closings in a row before this one
    n               + 1 when an open gate closes; 0 when a call succeeded since; unchanged while closed
    wait            until - now + U(0, spread)
                    spread = min(1 s, max(0.05 s, 10 % of the pause, 0.01 s * waiters so far))

A closing is one signal however many calls report it: twenty concurrent 429s are twenty answers to calls that left
before the gate closed. They may prolong the pause, never shorten it, and never make the next one grow faster.
A hint of 0, below 0 or NaN says nothing about how long to stay away, so it counts as none.
"""

from __future__ import annotations

from math import inf, isfinite
from random import Random
from typing import final

_MOST_DOUBLINGS = 62  # beyond every cap, and 2.0**62 is still an ordinary float
_SPREAD_MOST = 1.0
_SPREAD_LEAST = 0.05
_SPREAD_SHARE = 0.1
_SPREAD_PER_WAITER = 0.01
# A sleep is measured with rounding, so a waiter told exactly "until" could wake an ulp before it.
_MARGIN = 1e-6


@final
class Gate:
    """
    Whether, and for how long, a provider asked everybody to stay away.

    Args:
        base_delay: The first pause when the provider names none, in seconds. Default: 1.
        hint_cap: No single closing lasts longer, whatever the provider says, in seconds. Default: 120.

    Attributes:
        until: When the gate opens, on the monotonic clock; ``-inf`` if it never closed. Closed while ``now < until``.
        since: When the current or last pause began.
        closings: Closings in a row without a success.
        waiters: How many asked for a `wait` in the current or last pause.

    Raises:
        ValueError: A number of seconds is negative or not finite.
    """

    __slots__ = ("_base", "_cap", "_mark", "closings", "since", "until", "waiters")

    closings: int
    waiters: int

    def __init__(self, base_delay: float = 1.0, hint_cap: float = 120.0) -> None:
        self.adopt(base_delay, hint_cap)
        self._mark = 0
        self.reset()

    def adopt(self, base_delay: float, hint_cap: float) -> None:
        """
        Close for other times from now on; a pause that runs ends when it was going to.

        Raises:
            ValueError: A number of seconds is negative or not finite.
        """
        for name, value in (("base_delay", base_delay), ("hint_cap", hint_cap)):
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"gate {name} {value!r}: expected a finite number of seconds, 0 or more")
        self._base = base_delay
        self._cap = hint_cap

    def reset(self) -> None:
        """Open the gate and forget that it was ever closed."""
        self.until: float = -inf
        self.since: float = -inf
        self.closings = 0
        self.waiters = 0

    def close(self, now: float, hint: float | None, successes: int) -> float:
        """
        Close the gate, or keep it closed for longer.

        Args:
            now: The moment, on the monotonic clock.
            hint: How long the provider told us to stay away, in seconds. None: a growing back-off.
            successes: The running number of successful calls; when it has moved, the back-off starts anew.

        Returns:
            In how many seconds the gate opens.
        """
        if successes != self._mark:
            self._mark = successes
            self.closings = 0
        if now >= self.until:
            self.closings += 1
            self.since = now
            self.waiters = 0
        self.until = max(self.until, now + self._asked(hint))
        return self.remaining(now)

    def remaining(self, now: float) -> float:
        """Return in how many seconds the gate opens; 0 when it is open."""
        return max(0.0, self.until - now)

    def wait(self, now: float, rng: Random) -> float:
        """
        Return how long one waiter should wait, in seconds; 0 when the gate is open.

        Each waiter gets its own moment after the opening, so that they do not leave as a herd. Every question
        counts as a waiter: ask once for each, and `remaining` where nobody is going to wait.
        """
        left = self.remaining(now)
        if not left:
            return 0.0
        self.waiters += 1
        wanted = max(_SPREAD_LEAST, _SPREAD_SHARE * (self.until - self.since), _SPREAD_PER_WAITER * self.waiters)
        return left + max(_MARGIN, min(_SPREAD_MOST, wanted) * rng.random())

    def _asked(self, hint: float | None) -> float:
        if hint is not None and hint > 0:
            return min(hint, self._cap)
        # While closed, `closings` already includes the closing that runs. It is 0 there after a late success.
        doublings = min(max(0, self.closings - 1), _MOST_DOUBLINGS)
        return min(self._base * 2.0**doublings, self._cap)
