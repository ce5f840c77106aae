"""
Which of several equals takes the next call, and which of them does so much worse that it is left out for a while.

::

    weights     current_i += weight_i for each candidate; the greatest current takes the call and pays all their weights
    outlier     at least *minimum_calls* in the interval, and
                rate < min(mean - factor * sigma, mean - tolerance)     of at least *minimum_members* success rates, or
                failed >= failure_share * calls
    for         min(base * times, longest) * U(1, 1 + jitter)           times + 1 when ejected, - 1 a healthy interval
    at most     max(1, share of all), and never the last one

With n members no rate is further than sqrt(n - 1) standard deviations below the mean, so that fewer than five can never
be 1.9 of them below it: small pools are judged by their share of failures alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, final


@final
class Weights:
    """
    Shares calls out by weight, as evenly in time as can be: 3 to 1 is "a a b a", not "a a a b".

    Args:
        weights: One positive number for each member.

    Raises:
        ValueError: There is none, or one is not positive and finite.
    """

    __slots__ = ("_current", "weights")

    weights: tuple[float, ...]

    def __init__(self, weights: Iterable[float]) -> None:
        self.weights = tuple(weights)
        if not self.weights or not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights {self.weights!r}: expected at least one, each a positive, finite number")
        self._current = [0.0] * len(self.weights)

    def pick(self, candidates: Sequence[int]) -> int:
        """Return which of *candidates*, the members that can take a call, takes this one."""
        best = candidates[0]
        if len(candidates) == 1:
            return best
        total = 0.0
        for member in candidates:
            total += self.weights[member]
            self._current[member] += self.weights[member]
            if self._current[member] > self._current[best]:
                best = member
        self._current[best] -= total
        return best


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ejection:
    """
    When a member of a pool is left out for a while because it does so much worse than the others.

    Its own circuit breaker takes care of one that is down. This is for one that is worse than its equals: a key that
    was revoked, a region that loses every fifth call.

    Args:
        interval: How often the members are compared, in seconds. Default: 10.
        minimum_calls: Who had fewer in an interval is not judged. Default: 10.
        minimum_members: Success rates are compared from so many judged members on. Default: 5.
        factor: A rate of so many standard deviations below the mean is an outlier. Default: 1.9.
        tolerance: A rate that is not even so far below the mean is none. Default: 0.05.
        failure_share: With this share of failures a member is one in any case. Default: 0.85.
        share: At most this share of all members is left out at once, though always one may be. Default: 0.1.
        base: How long the first ejection lasts, in seconds; the n-th lasts n times as long. Default: 30.
        longest: No ejection is meant to last longer, in seconds. Default: 300.
        jitter: Each lasts up to this share longer, so that members do not come back as a herd. Default: 0.1.

    Raises:
        ValueError: A number makes no sense.
    """

    interval: float = 10.0
    minimum_calls: int = 10
    minimum_members: int = 5
    factor: float = 1.9
    tolerance: float = 0.05
    failure_share: float = 0.85
    share: float = 0.1
    base: float = 30.0
    longest: float = 300.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        for name in ("interval", "base", "longest"):
            self._check(name, "a positive, finite number of seconds", 0 < getattr(self, name) < math.inf)
        for name in ("minimum_calls", "minimum_members"):
            self._check(name, "a whole number, at least 1", getattr(self, name) >= 1)
        for name in ("failure_share", "share"):
            self._check(name, "a share above 0 and up to 1", 0 < getattr(self, name) <= 1)
        for name in ("tolerance", "jitter"):
            self._check(name, "a share from 0 to 1", 0 <= getattr(self, name) <= 1)
        self._check("factor", "a positive number", self.factor > 0)
        self._check("longest", f"at least base ({self.base:g} s)", self.longest >= self.base)

    def _check(self, name: str, expected: str, fine: bool) -> None:
        if not fine:
            raise ValueError(f"Ejection({name}={getattr(self, name)!r}): expected {expected}")


class Ejected(NamedTuple):
    """A member is left out for *seconds*."""

    member: int
    seconds: float
    figures: str


class Returned(NamedTuple):
    """A member is back."""

    member: int


@final
class Outliers:
    """
    Compares the members of a pool and leaves out those that do much worse than the others.

    Args:
        rules: What is much worse, and for how long.
        count: How many members there are.
        now: The moment, on the monotonic clock.

    Attributes:
        until: Until when each member is left out; ``-inf`` for one that is not.
        times: How often each was lately.
        calls: Calls of each in this interval.
        failed: Failed ones among them.
    """

    __slots__ = ("_due", "_new", "_rules", "_since", "calls", "failed", "times", "until")

    calls: list[int]
    failed: list[int]
    times: list[int]
    until: list[float]

    def __init__(self, rules: Ejection, count: int, now: float) -> None:
        self._rules = rules
        self.until = [-math.inf] * count
        self.times = [0] * count
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._since = now
        self._due = now + self._rules.interval
        self._new: set[int] = set()  # who came back in this interval: it is no healthy one of theirs
        self.calls = [0] * len(self.until)
        self.failed = [0] * len(self.until)

    def forget(self) -> None:
        """Take everybody back and forget every call, without asking for the time."""
        count = len(self.until)
        self.until = [-math.inf] * count
        self.times, self.calls, self.failed = [0] * count, [0] * count, [0] * count

    def ejected_for(self, member: int, now: float) -> float:
        """Return for how many seconds more a member is left out; 0 if it is not."""
        return max(0.0, self.until[member] - now)

    def record(self, member: int, *, ok: bool) -> None:
        """Count a call of a member. One that is left out is not judged by the calls that it gets for want of others."""
        if self.until[member] == -math.inf:
            self.calls[member] += 1
            self.failed[member] += not ok

    def advance(self, now: float, rng: Random) -> list[Ejected | Returned]:
        """Do what is due at *now*, and return what has changed. Until something is due this is one look at each."""
        changes: list[Ejected | Returned] = []
        for member, until in enumerate(self.until):
            if -math.inf < until <= now:
                self.until[member] = -math.inf
                self._new.add(member)
                changes.append(Returned(member))
        if now >= self._due:
            changes += self._judge(now, rng)
            self._begin(now)
        return changes

    def _judge(self, now: float, rng: Random) -> list[Ejected]:
        present = [member for member, until in enumerate(self.until) if until == -math.inf]
        outliers = self._outliers([member for member in present if self.calls[member] >= self._rules.minimum_calls])
        healthy = int((now - self._since) / self._rules.interval)
        for member in present:
            if member not in outliers and member not in self._new:
                self.times[member] = max(0, self.times[member] - healthy)
        return [self._eject(member, now, rng) for member in outliers[: self._room(len(present))]]

    def _outliers(self, judged: Sequence[int]) -> list[int]:
        """Return who does much worse than the others, the worst first."""
        rates = {member: 1 - self.failed[member] / self.calls[member] for member in judged}
        line = -math.inf
        if rates and len(rates) >= self._rules.minimum_members:
            mean = math.fsum(rates.values()) / len(rates)
            sigma = math.sqrt(math.fsum((rate - mean) ** 2 for rate in rates.values()) / len(rates))
            line = mean - max(self._rules.factor * sigma, self._rules.tolerance)
        least = self._rules.failure_share
        found = [one for one, rate in rates.items() if rate < line or self.failed[one] >= least * self.calls[one]]
        return sorted(found, key=rates.__getitem__)

    def _room(self, present: int) -> int:
        """Return how many more may be left out."""
        count = len(self.until)
        most = min(max(1, int(count * self._rules.share)), count - 1)
        return max(0, most - (count - present))

    def _eject(self, member: int, now: float, rng: Random) -> Ejected:
        rules = self._rules
        self.times[member] += 1
        seconds = min(rules.base * self.times[member], rules.longest) * (1 + rules.jitter * rng.random())
        self.until[member] = now + seconds
        return Ejected(member, seconds, self._figures(member, now))

    def _figures(self, member: int, now: float) -> str:
        failed, calls = self.failed[member], self.calls[member]
        text = f"{failed} of {calls} calls failed in {now - self._since:.3g} s"
        others = sum(self.calls) - calls
        return text + (f", {(sum(self.failed) - failed) / others:.0%} of the others'" if others else "")
