"""
Adaptive throttling: while a provider refuses much, send it less, so that it need not spend itself on refusing.

::

    P = min(max_reject, max(0, (n - K a) / (n + 1)))     n completed calls in the window, a of them accepted
    critical P^2        default P        sheddable min((1 + max_reject) / 2, 2 P)
    below minimum_calls in the window: 0

The formula is that of "Handling Overload" in Google's SRE book. How it is fed decides whether it does any good:

- Only a refusal for being busy (429, 503, 529) is not accepted. Other errors are answers: with failures that do not
  depend on load, holding calls back helps nobody, and never ends.
- A call counts when it has completed. Counted when it starts, slow calls of a healthy provider look refused.
- What is held back here is not counted. Counted, it would hold back harder (K C is sent to a provider with room for C
  of D calls, in place of sqrt(K C D)), but after an outage of minutes it would keep on doing so for minutes, since
  it feeds on itself; and with failures that do not depend on load it would come to sending next to nothing.
- P never reaches 1, or nobody would notice that the provider is back. That holds for the sheddable too: they may be
  all the calls there are.
"""

from __future__ import annotations

import random
from typing import final

from resilience._core.window import TimeWindow
from resilience._core.words import Priority

_BUCKETS = 20


@final
class AdaptiveThrottle:
    """
    What share of calls to hold back.

    Args:
        ratio: Up to so many calls are sent for each one accepted (K). Default: 2.
        window: How far it looks back, in seconds. Default: 120.
        max_reject: The greatest share that is held back. Default: 0.9.
        minimum_calls: Nothing is held back below so many calls in the window. Default: 10.

    Raises:
        ValueError: *ratio* is below 1, *max_reject* is no share, or the window is empty.
    """

    __slots__ = ("_accepted", "_calls", "_max_reject", "_minimum", "_ratio", "_span", "_window")

    def __init__(
        self, ratio: float = 2.0, window: float = 120.0, max_reject: float = 0.9, minimum_calls: int = 10
    ) -> None:
        self._set(ratio, max_reject, minimum_calls)
        self._window = TimeWindow(window, counters=2, buckets=_BUCKETS)
        self._span = window
        self._calls = self._accepted = 0

    def _set(self, ratio: float, max_reject: float, minimum_calls: int) -> None:
        if not ratio >= 1:
            raise ValueError(f"ratio {ratio!r}: expected 1 or more calls for each one accepted")
        if not 0 <= max_reject <= 1:
            raise ValueError(f"max_reject {max_reject!r}: expected a share between 0 and 1")
        self._ratio = ratio
        self._max_reject = max_reject
        self._minimum = minimum_calls

    def adopt(self, now: float, *, ratio: float, window: float, max_reject: float, minimum_calls: int) -> None:
        """
        Decide by other figures from now on, about the same calls.

        The arguments are those of the constructor, and so is what it raises.
        """
        self._set(ratio, max_reject, minimum_calls)
        if window != self._span:
            self._window = self._window.resized(window, now, (self._calls, self._accepted))
            self._span = window

    def record(self, now: float, *, accepted: bool, n: int = 1) -> None:
        """Count *n* calls that have completed by *now*."""
        if now >= self._window.turn_at:
            self._window.turn(now, (self._calls, self._accepted))
        self._calls += n
        self._accepted += n * accepted

    def counts(self, now: float) -> tuple[int, int]:
        """Return how many calls completed in the window, and how many of them were accepted."""
        calls, accepted = self._window.counts(now, (self._calls, self._accepted))
        return calls, accepted

    def share(self, now: float, priority: Priority = Priority.DEFAULT) -> float:
        """Return what share of the calls of *priority* to hold back."""
        calls, accepted = self.counts(now)
        if calls < self._minimum:
            return 0.0
        share = min(self._max_reject, max(0.0, (calls - self._ratio * accepted) / (calls + 1)))
        if priority == Priority.CRITICAL:
            return share * share
        return min((1 + self._max_reject) / 2, 2 * share) if priority == Priority.SHEDDABLE else share

    def holds_back(self, now: float, priority: Priority, rng: random.Random) -> bool:
        """Decide by lot whether one call is held back."""
        share = self.share(now, priority)
        return share > 0 and rng.random() < share
