"""
How long to wait before a retry.

For retry k = 1, 2, ... with base b (already scaled), cap c and factor f, ``t = min(c, b * f^(k-1))``, and p the delay
before (at least b)::

    full            U(0, t)                     AWS "Exponential Backoff And Jitter"; the default: least work in a herd
    none            t                           herds: for tests and single clients
    equal           t/2 + U(0, t/2)             keeps a floor of half the delay
    decorrelated    U(b, min(c, 3 p))           grows from the delay that was really drawn
    proportional    U(0.8 t, min(c, 1.2 t))     as gRPC's, which however exceeds its cap
    constant        min(c, b)

Every cap is applied to the bounds *before* the draw. Capping what was drawn would pile up whole shares of the
clients at exactly the cap, which is the herd that jitter is there to prevent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, nextafter
from random import Random
from typing import Literal, TypeAlias, final, get_args

Jitter: TypeAlias = Literal["full", "none", "equal", "decorrelated", "proportional", "constant"]

_SPREAD = 0.2  # proportional: this much to each side
_HINT_SHARE = 0.1  # a hint is followed by up to this share of itself ...
_HINT_MOST = 1.0  # ... and at most this many seconds, ...
_HINT_LEAST = 0.01  # ... but by something even where the hint is "now", or the herd would come back as one


@final
@dataclass(frozen=True, slots=True)
class Backoff:
    """
    A back-off strategy. It holds no state: the delay before is an argument.

    Args:
        base: The first delay before jitter, in seconds. Default: 1. A base above the cap is capped.
        cap: No delay is ever longer, in seconds. Default: 60.
        factor: Each delay is this many times the one before. Default: 2.
        jitter: How the delay is drawn. Default: ``"full"``.

    Raises:
        ValueError: A number is negative or not finite, the factor is below 1, or the jitter is unknown.
    """

    base: float = 1.0
    cap: float = 60.0
    factor: float = 2.0
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        for name, value, least in (("base", self.base, 0), ("cap", self.cap, 0), ("factor", self.factor, 1)):
            if not (isfinite(value) and value >= least):
                raise ValueError(f"back-off {name} {value!r}: expected a finite number, {least} or more")
        if self.jitter not in get_args(Jitter):
            raise ValueError(f"back-off jitter {self.jitter!r}: expected one of {', '.join(get_args(Jitter))}")

    def delay(self, retry: int, rng: Random, *, previous: float = 0.0, scale: float = 1.0) -> float:
        """
        Return how long to wait before retry number *retry*, in seconds.

        Args:
            retry: 1 for the first retry.
            rng: Where the jitter is drawn from.
            previous: The delay before the previous retry; only *decorrelated* looks at it. Default: 0, none.
            scale: Multiplies the base, not the cap. Default: 1.
        """
        low, high = self._bounds(retry, previous, self.base * scale)
        # The sum may round to an ulp above its upper bound, and the bound may be the cap.
        return high if low == high else min(high, low + (high - low) * rng.random())

    def _bounds(self, retry: int, previous: float, base: float) -> tuple[float, float]:
        cap = self.cap
        if self.jitter == "decorrelated":
            return min(cap, base), min(cap, 3 * max(previous, base))
        if self.jitter == "constant":
            return min(cap, base), min(cap, base)
        top = min(cap, self._grown(retry, base))
        if self.jitter == "full":
            return 0.0, top
        if self.jitter == "equal":
            return top / 2, top
        if self.jitter == "proportional":
            return top * (1 - _SPREAD), min(cap, top * (1 + _SPREAD))
        return top, top

    def _grown(self, retry: int, base: float) -> float:
        # The power overflows late for a small factor and early for a large one, so no fixed limit of the exponent
        # is right for both.
        try:
            return base * float(self.factor) ** (retry - 1)
        except OverflowError:
            return inf if base else 0.0


def after_hint(hint: float, rng: Random) -> float:
    """
    Return how long to wait when the provider said *hint* seconds: always longer than that, by a small random part.

    The part is drawn from 0 to a tenth of the hint, at least 0.01 s and at most 1 s. A hint that is no number or
    negative counts as 0; capping hints is the caller's business.
    """
    hint = hint if hint > 0 else 0.0
    spread = min(_HINT_MOST, max(_HINT_LEAST, _HINT_SHARE * hint))
    # 1 - random() is never 0, but beside a long hint it may be too small to show.
    return max(nextafter(hint, inf), hint + spread * (1.0 - rng.random()))
