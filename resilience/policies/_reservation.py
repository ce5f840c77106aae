"""What one call took from a rate limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from resilience.policies._rate_limit import checked

if TYPE_CHECKING:
    from resilience.policies.rate_limit import RateLimit


@final
class Reservation:
    """
    What one call took from a rate limit. Settle it, refund it, or leave it: then the estimate stands.

    Attributes:
        requests: How many requests it took.
        tokens: How many tokens it took: the estimate.
    """

    __slots__ = ("_buckets", "_limit", "_live", "_spells", "requests", "tokens")

    requests: float
    tokens: float

    def __init__(self, limit: RateLimit, requests: float, tokens: float, *, taken: bool) -> None:
        self._limit = limit
        self._live = taken
        self._buckets = limit._buckets  # those of today: what comes later took no part in it
        self._spells = self._buckets.spells() if taken else ()
        self.requests = requests
        self.tokens = tokens

    def settle(self, *, tokens: float | None = None) -> None:
        """
        Replace the estimate by what the call really used. Only the first `settle` or `refund` counts.

        Args:
            tokens: How many tokens it used. None: as estimated.

        Raises:
            ValueError: *tokens* is negative or not finite.
        """
        more = checked("tokens", tokens) - self.tokens if tokens is not None else 0.0
        limit = self._limit
        with limit.lock:
            if self._live:
                self._live = False
                buckets = self._buckets if more < 0 else limit._buckets
                buckets.settle(limit._clock(), self._spells, more)
                limit._line.stir()

    def refund(self) -> None:
        """Give everything back, because the call never left. Only the first `settle` or `refund` counts."""
        limit = self._limit
        with limit.lock:
            if self._live:
                self._live = False
                self._buckets.put_back(self._spells, self.requests, self.tokens)
                limit._line.stir()

    def __repr__(self) -> str:
        state = "live" if self._live else "done"
        return f"<Reservation {self.requests:g} requests, {self.tokens:g} tokens, {state}>"
