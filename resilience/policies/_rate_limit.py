"""What a rate limit is told by its settings, what it says when it refuses, and what it tells in a snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, log
from typing import Final, final

from resilience._core.bucket import Bucket, Buckets
from resilience._core.words import Reason
from resilience.classify._quotas import Quota
from resilience.errors import ConfigurationError
from resilience.settings import RateLimitSettings

_SECONDS: Final = {"second": 1.0, "minute": 60.0, "day": 86400.0}
_USUAL_WINDOW: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateWindow:
    """
    One look at one window of a rate limit.

    Args:
        name: What it counts, such as ``"requests per minute"``.
        allowance: How many are allowed in that time.
        burst: How many at once.
        remaining: How many could be taken now.
        full_in: In how many seconds it will be full again, if nobody takes anything.
    """

    name: str
    allowance: float
    burst: float
    remaining: int
    full_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitSnapshot:
    """
    One look at a rate limit. JSON-ready through `dataclasses.asdict`.

    Args:
        name: The limit's name.
        mode: ``enforce``, ``shadow`` or ``disabled``.
        windows: Its windows, the shortest first, requests before tokens.
        waiting: How many callers wait for their turn.
        rejected: How many `RateLimit.acquire` has refused so far.
    """

    name: str
    mode: str
    windows: tuple[RateWindow, ...]
    waiting: int
    rejected: int


@final
@dataclass(frozen=True, slots=True)
class RateRefusal:
    """
    Why there is no room now. Its text is the figures.

    Args:
        reason: Why.
        retry_after: In how many seconds there would be room, as things stand; None: never.
        figures: What was asked for, of what.
        waiting: How many were waiting.
    """

    reason: Reason
    retry_after: float | None
    figures: str
    waiting: int = 0

    def __str__(self) -> str:
        return self.figures + (f", {self.waiting} waiting" if self.waiting else "")


def windows_of(settings: RateLimitSettings) -> tuple[Buckets, dict[Bucket, str]]:
    """
    Return the buckets that *settings* ask for, and their names.

    Raises:
        ConfigurationError: An allowance is too small to count with.
    """
    requests, tokens = _buckets(settings, "requests"), _buckets(settings, "tokens")
    return Buckets(list(requests), list(tokens)), requests | tokens


def windows_after(
    settings: RateLimitSettings, before: dict[Bucket, str], now: float
) -> tuple[Buckets, dict[Bucket, str]]:
    """
    Return the same as `windows_of`, where those of the same name as *before* are the same, and what is used stays used.

    A window that is new begins with what the shorter ones know to be used.

    Raises:
        ConfigurationError: An allowance is too small to count with; then nothing has changed.
    """
    wanted, names = windows_of(settings)
    known = {name: bucket for bucket, name in before.items()}
    used = {name: (bucket.window, bucket.used(now)) for name, bucket in known.items()}

    def kept(bucket: Bucket) -> Bucket:
        name = names[bucket]
        if (old := known.get(name)) is not None:
            old.adopt(now, bucket.allowance, bucket.window, bucket.burst)
            return old
        what = name.partition(" ")[0]
        units = [units for other, (window, units) in used.items() if other.startswith(what) and window < bucket.window]
        bucket.charge(now, max(units, default=0.0))
        return bucket

    after = {kept(bucket): name for bucket, name in names.items()}
    requests = len(wanted.requests)
    return Buckets(list(after)[:requests], list(after)[requests:]), after


def _buckets(settings: RateLimitSettings, what: str) -> dict[Bucket, str]:
    found: dict[Bucket, str] = {}
    for unit, seconds in _SECONDS.items():
        allowance: float | None = getattr(settings, f"{what}_per_{unit}", None)
        if allowance is not None:
            burst = settings.burst if what == "requests" and not found else None
            try:
                found[Bucket(allowance, seconds, burst)] = f"{what} per {unit}"
            except ValueError as error:
                raise ConfigurationError(f"{what}_per_{unit} = {allowance}: {error}") from None
    return found


def nearest(buckets: Iterable[Bucket], quota: Quota) -> Bucket | None:
    """Return the bucket whose window comes closest to that of the provider's *quota*."""
    wanted = quota.window or _USUAL_WINDOW
    return min(buckets, key=lambda bucket: abs(log(bucket.window / wanted)), default=None)


def looked_at(bucket: Bucket, name: str, now: float) -> RateWindow:
    """Return one look at *bucket*."""
    return RateWindow(
        name=name,
        allowance=bucket.allowance,
        burst=bucket.burst,
        remaining=bucket.remaining(now),
        full_in=bucket.full_in(now),
    )


def checked(what: str, number: float) -> float:
    """
    Return *number* if it can be counted with.

    Raises:
        ValueError: It is negative, not finite or no number.
    """
    if isinstance(number, bool) or not 0 <= number < inf:
        raise ValueError(f"{what}={number!r}: expected a number, 0 or more")
    return number
