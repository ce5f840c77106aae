"""
Rate limits as buckets of units, each in a single number (GCRA, ITU-T I.371).

::

    T              window / allowance                      seconds per unit
    tau            burst * T
    n units        new = max(tat, now) + n * T
                   new - now <= tau                        taken: tat = new
                   otherwise                               wait new - now - tau
    put back       tat -= n * T                            unless the bucket has been full since
    charge         tat = max(tat, now) + n * T             used already, so never refused: it may leave a debt
    remaining      floor((tau - (max(tat, now) - now)) / T)
    full in        max(0, tat - now)

``tat`` is the theoretical arrival time: when the bucket is full again. The decisions are those of a bucket of tokens
that starts full. So a stretch of *window* seconds may see *burst* units and what flows in meanwhile, as with the
buckets that providers keep themselves.

Times are floats with a grain (2e-9 s after a hundred days of uptime), so comparisons have a microsecond of slack. In
return, whoever waits exactly as long as it was told is admitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, inf, isfinite, ulp
from typing import final

_SLACK = 1e-6

# So many answers in a row must see more left than we do before what a header took away is given back.
_AGREEING = 3


@final
class Bucket:
    """
    How many units may pass, and when the next ones may.

    Who must be quick may take one unit without a call: ``new = max(tat, now) + interval``, and if
    ``new - now <= tolerance`` then ``tat = new``. If not, `try_take` knows more. (The quick way does not count spells,
    so a unit that time has made good may then be put back once more.)

    Args:
        allowance: So many units in each *window*.
        window: In seconds.
        burst: So many units at once. Default: the *allowance*, but at least 1.

    Attributes:
        tat: When the bucket is full again.
        interval: Seconds per unit.
        tolerance: How far `tat` may lie ahead, in seconds; ``-inf`` while the quick way is barred or a header holds.
        burst: The most units that fit.
        spell: Counts the times the bucket was full and then touched.

    Raises:
        ValueError: A number is not positive and finite, or nothing can be computed from them.
    """

    __slots__ = (
        "_agreeing",
        "_barred",
        "_furthest",
        "_held",
        "_newest",
        "_tau",
        "_tightened",
        "allowance",
        "burst",
        "interval",
        "spell",
        "tat",
        "tolerance",
        "window",
    )

    allowance: float
    burst: float
    interval: float
    spell: int
    tat: float
    tolerance: float
    window: float
    _furthest: float
    _tightened: float

    def __init__(self, allowance: float, window: float, burst: float | None = None) -> None:
        self.allowance = allowance
        self.window = window
        self.burst = max(1.0, allowance) if burst is None else float(burst)
        given = (("allowance", allowance), ("window", window), ("burst", self.burst))
        for name, value in given:
            if not (isfinite(value) and value > 0):
                raise ValueError(f"bucket {name} {value!r}: expected a finite number above 0")
        self.interval = window / allowance
        self._tau = self.burst * self.interval
        if not (isfinite(self._tau) and self.interval > 0):
            raise ValueError(f"bucket allowance {allowance!r} in {window!r} s: too extreme to count with")
        self._barred = False
        self.spell = 0
        self.reset()

    def adopt(self, now: float, allowance: float, window: float, burst: float | None = None) -> None:
        """
        Count by other figures from now on. So many units as are used at *now* stay used, whatever their new pace.

        The arguments are those of the constructor, and so is what it raises. Spells go on: what was taken before can
        be put back.
        """
        wanted = Bucket(allowance, window, burst)
        pace = wanted.interval / self.interval
        if wanted.interval != self.interval:
            self.tat = self._at_pace(now, self.tat, pace)
            self._furthest = self._at_pace(now, self._furthest, pace)
            self._tightened *= pace
        self.allowance, self.window, self.burst = wanted.allowance, wanted.window, wanted.burst
        self.interval, self._tau = wanted.interval, wanted._tau
        self._set_tolerance()

    @staticmethod
    def _at_pace(now: float, moment: float, pace: float) -> float:
        """Return when the bucket will be full which would be at *moment*, once units take *pace* times as long."""
        return now + (moment - now) * pace if moment > now else moment

    def reset(self) -> None:
        """Fill the bucket and forget what headers said."""
        self.tat = -inf
        self.spell += 1
        self._held = -inf
        self._newest = -inf
        self._tightened = 0.0  # by how much headers have moved tat
        self._agreeing = 0
        self._furthest = -inf
        self._set_tolerance()

    # -- taking ----------------------------------------------------------------------------------------------------

    def try_take(self, now: float, units: float) -> float:
        """Take *units*. Return 0 if that was possible, else how long to wait in seconds (``inf``: never)."""
        wait = self.wait(now, units)
        if not wait:
            self.charge(now, units)
        return wait

    def wait(self, now: float, units: float) -> float:
        """Return how long to wait until *units* can be taken, in seconds; ``inf`` if they never fit. Takes nothing."""
        if units > self.burst:
            return inf
        if self._held <= now and self._held > -inf:
            self._held = -inf
            self._set_tolerance()
        if self._fit(now, units):
            return 0.0
        wait = self.queue(now, units)
        grain = max(ulp(now), ulp(self.tat), ulp(self._held) if self._held > -inf else 0.0)
        while not self._fit(now + wait, units):  # a wait that was rounded down is worthless
            wait += grain
            grain *= 2
        return wait

    def queue(self, now: float, units: float) -> float:
        """Return in how many seconds *units* will have passed, however many, if nobody else takes any."""
        return max(0.0, max(self.tat, now) + units * self.interval - now - self._tau, self._held - now)

    def charge(self, now: float, units: float) -> None:
        """Count *units* as used at *now*, whether they fit or not."""
        if self.tat <= now:
            self.tat = now
            self.spell += 1
            self._tightened = 0.0
        self.tat += units * self.interval

    def put_back(self, units: float, spell: int) -> None:
        """
        Put back *units* that were taken in the given *spell*.

        If the bucket has been full since, time has made them good already, and a full bucket holds no more.
        """
        if spell == self.spell:
            self.tat -= units * self.interval

    def remaining(self, now: float) -> int:
        """Return how many whole units could be taken at *now*."""
        if now < self._held:
            return 0
        left = self._tau + _SLACK - (max(self.tat, now) - now)
        return floor(min(self.burst, max(0.0, left / self.interval)))

    def used(self, now: float) -> float:
        """Return how many units are used up at *now*: taken, or taken away by headers, and not made good by time."""
        return max(0.0, self.tat - now) / self.interval

    def full_in(self, now: float) -> float:
        """Return in how many seconds the bucket will be full, if nobody takes anything."""
        return max(0.0, self.tat - now, self._held - now)

    def bar(self, barred: bool) -> None:
        """Close or open the quick way, for as long as somebody waits in a line that it would jump."""
        self._barred = barred
        self._set_tolerance()

    def _fit(self, now: float, units: float) -> bool:
        if now < self._held:
            return False
        # Where the grain of *now* is coarser than the slack, the difference could exceed even a full bucket's.
        full = self.tat <= now and units <= self.burst
        return full or max(self.tat, now) + units * self.interval - now <= self._tau + _SLACK

    def _set_tolerance(self) -> None:
        self.tolerance = -inf if self._barred or self._held > -inf else self._tau + _SLACK

    # -- what the provider says ------------------------------------------------------------------------------------

    def tighten(self, now: float, remaining: float, pause: float, sent: float, cap: float = 120.0) -> int:
        """
        Take the provider's word for it when it sees less left than we do.

        It never makes room that our own count does not have. What earlier answers took away is given back once
        three in a row agree that there is more; answers to calls that left before the newest one answered are ignored.

        Args:
            now: The moment the answer came.
            remaining: How many units the provider sees left.
            pause: In how many seconds there is a unit again, in case that none is left.
            sent: When the call left that was answered; anything that increases will do.
            cap: No answer takes away more than flows in in so many seconds, nor holds the bucket shut for longer.

        Returns:
            How many units fewer can be taken now.
        """
        if sent < self._newest:
            return 0
        self._newest = sent
        implied = now + min(max(0.0, self.burst - remaining) * self.interval, cap)
        held = now + min(pause, cap) if remaining < 1 and pause > 0 else -inf
        before = max(self.tat, now)
        if implied <= before and held <= self._held:
            self._loosen(now, implied, spent=remaining < 1)
            return 0
        self._agreeing, self._furthest = 0, -inf
        had = self.remaining(now)
        if held > self._held:
            self._held = held
            self._set_tolerance()
        if implied > before:
            self._tightened = implied - before + (self._tightened if self.tat > now else 0.0)
            self.tat = implied
        return had - self.remaining(now)

    def _loosen(self, now: float, implied: float, *, spent: bool) -> None:
        """Note an answer that sees as much left as we do, or more; after some of them undo what others did."""
        if spent or (not self._tightened and self._held <= now):
            self._agreeing, self._furthest = 0, -inf
            return
        self._agreeing += 1
        self._furthest = max(self._furthest, implied)
        if self._agreeing >= _AGREEING:
            self.tat -= min(self._tightened, max(0.0, self.tat - self._furthest))
            self._tightened, self._held, self._agreeing, self._furthest = 0.0, -inf, 0, -inf
            self._set_tolerance()


@final
class Buckets:
    """
    Several windows at once: units are taken from all of them, or from none.

    Args:
        requests: The windows that count requests.
        tokens: The windows that count weighted units.

    Attributes:
        most_requests: More requests at once never fit; ``inf`` if no window counts them.
        most_tokens: The same for tokens.
    """

    __slots__ = ("all", "most_requests", "most_tokens", "requests", "tokens")

    all: tuple[Bucket, ...]
    most_requests: float
    most_tokens: float
    requests: tuple[Bucket, ...]
    tokens: tuple[Bucket, ...]

    def __init__(self, requests: Sequence[Bucket], tokens: Sequence[Bucket] = ()) -> None:
        self.requests = tuple(requests)
        self.tokens = tuple(tokens)
        self.all = self.requests + self.tokens
        self.most_requests = min((bucket.burst for bucket in self.requests), default=inf)
        self.most_tokens = min((bucket.burst for bucket in self.tokens), default=inf)

    def try_take(self, now: float, requests: float, tokens: float) -> float:
        """Take from every window. Return 0 if that was possible, else how long to wait in seconds (``inf``: never)."""
        wait = self.wait(now, requests, tokens)
        if not wait:
            self.charge(now, requests, tokens)
        return wait

    def wait(self, now: float, requests: float, tokens: float) -> float:
        """Return how long to wait until all windows have room, in seconds. Takes nothing."""
        wait = 0.0
        for bucket in self.requests:
            wait = max(wait, bucket.wait(now, requests))
        for bucket in self.tokens:
            wait = max(wait, bucket.wait(now, tokens))
        return wait

    def charge(self, now: float, requests: float, tokens: float) -> None:
        """Count so much as used, whether it fits or not."""
        for bucket in self.requests:
            bucket.charge(now, requests)
        for bucket in self.tokens:
            bucket.charge(now, tokens)

    def spells(self) -> tuple[int, ...]:
        """Return what `put_back` needs to know, read right after the taking."""
        return tuple([bucket.spell for bucket in self.all])

    def put_back(self, spells: tuple[int, ...], requests: float, tokens: float) -> None:
        """Put back what was taken when `spells` were read."""
        first = len(self.requests)
        for bucket, spell in zip(self.requests, spells[:first], strict=True):
            bucket.put_back(requests, spell)
        for bucket, spell in zip(self.tokens, spells[first:], strict=True):
            bucket.put_back(tokens, spell)

    def settle(self, now: float, spells: tuple[int, ...], tokens: float) -> None:
        """Correct what was taken when `spells` were read by so many *tokens*, up or down."""
        if tokens < 0:
            self.put_back(spells, 0.0, -tokens)
        else:
            for bucket in self.tokens:
                bucket.charge(now, tokens)

    def bar(self, barred: bool) -> None:
        """Close or open every window's quick way."""
        for bucket in self.all:
            bucket.bar(barred)

    def reset(self) -> None:
        """Fill all windows and forget what headers said."""
        for bucket in self.all:
            bucket.reset()
