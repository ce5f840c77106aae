"""How a provider misbehaves: a seeded script that knows neither sockets nor clocks."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, final

Window: TypeAlias = tuple[float, float]
"""From when until when, in seconds after the provider's start; the end is not part of it."""

_SHARES: Final = ("errors", "resets", "rate_limits", "tail")


class Behaviour(StrEnum):
    """What a provider does with one request."""

    ANSWER = "answer"
    ERROR = "error"
    RESET = "reset"
    RATE_LIMIT = "rate_limit"
    OUTAGE = "outage"


@final
@dataclass(frozen=True, slots=True)
class Action:
    """
    What happens to one request.

    Args:
        behaviour: What the provider does.
        latency: How long it takes to do it, in seconds.
        retry_after: For how many seconds a rate limit tells the caller to stay away.
    """

    behaviour: Behaviour
    latency: float = 0.0
    retry_after: float | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """
    A script for a provider's bad days. The same seed gives the same script.

    What happens to a request depends on its number and its time of arrival only. Shares are of all requests,
    between 0 and 1. By default the provider is quick and does nothing wrong.

    Args:
        seed: What every draw starts from.
        latency: The median time to an answer, in seconds.
        spread: How far latencies scatter: the standard deviation of their logarithm; 0 is not at all.
        tail: The share of answers that take *tail_factor* times as long.
        tail_factor: See *tail*.
        errors: The share of requests answered with status 500.
        resets: The share of requests whose connection is reset instead of an answer.
        rate_limits: The share of requests answered with status 429.
        retry_after: What those 429s ask for, in seconds.
        pauses: Times in which every request is answered with status 429 and told to come back at their end.
        outages: Times in which the provider is down: every connection is reset, also those it was about to
            answer.

    Raises:
        ValueError: A share is not between 0 and 1, the shares add up to more than 1, a time is negative, or a
            window ends before it begins.
    """

    seed: int = 0
    latency: float = 0.02
    spread: float = 0.3
    tail: float = 0.0
    tail_factor: float = 10.0
    errors: float = 0.0
    resets: float = 0.0
    rate_limits: float = 0.0
    retry_after: float = 1.0
    pauses: tuple[Window, ...] = ()
    outages: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        for name in _SHARES:
            share: float = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share!r} is no share: expected 0 to 1, such as 0.05 for 5 %")
        if self.errors + self.resets + self.rate_limits > 1:
            raise ValueError("errors, resets and rate_limits are shares of all requests: together at most 1")
        for name in ("latency", "spread", "tail_factor", "retry_after"):
            seconds: float = getattr(self, name)
            if not seconds >= 0:
                raise ValueError(f"{name}={seconds!r} must not be negative")
        for name, windows in (("pauses", self.pauses), ("outages", self.outages)):
            for begin, end in windows:
                if not 0 <= begin < end:
                    raise ValueError(f"{name}: {(begin, end)!r} is no window: expected (begin, end) in seconds")

    def down(self, now: float) -> bool:
        """Tell whether the provider is down, *now* seconds after its start."""
        return any(begin <= now < end for begin, end in self.outages)

    def action(self, number: int, now: float) -> Action:
        """Decide what happens to request *number*, which arrives *now* seconds after the start."""
        if self.down(now):
            return Action(Behaviour.OUTAGE)
        rng = random.Random(f"{self.seed}/{number}")
        latency = self.latency * rng.lognormvariate(0.0, self.spread)
        for begin, end in self.pauses:
            if begin <= now < end:
                return Action(Behaviour.RATE_LIMIT, latency, end - now)
        if rng.random() < self.tail:
            latency *= self.tail_factor
        return self._drawn(rng.random(), latency)

    def _drawn(self, draw: float, latency: float) -> Action:
        if draw < self.errors:
            return Action(Behaviour.ERROR, latency)
        if draw < self.errors + self.resets:
            return Action(Behaviour.RESET, latency)
        if draw < self.errors + self.resets + self.rate_limits:
            return Action(Behaviour.RATE_LIMIT, latency, self.retry_after)
        return Action(Behaviour.ANSWER, latency)
