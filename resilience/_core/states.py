"""The values a circuit breaker works with: its states, its figures, its permits and what it says about itself."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, final

from resilience._core.words import Reason, many


class CircuitState(StrEnum):
    """The states of a circuit breaker. The values are metric attributes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRules:
    """The figures a circuit works with: seconds, counts, and rates between 0 and 1. None switches a rule off."""

    failure_threshold: int | None = 5
    success_threshold: int = 2
    open_for: float = 60.0
    half_open_max_calls: int = 1
    failure_rate: float | None = 0.5
    slow_rate: float | None = 0.8
    minimum_calls: int = 20
    window: float = 30.0
    window_calls: int | None = None
    slow_after: float = math.inf
    jitter: float = 0.1
    growth: float = 1.0
    max_open_for: float = 600.0
    hint_cap: float = 120.0
    probe_lease: float = 60.0
    per_kind: Mapping[str, int] = field(default_factory=dict[str, int])
    shadow: bool = False
    enforced: float = 1.0

    @property
    def lenient(self) -> bool:
        """Whether some are admitted who are refused."""
        return self.shadow or self.enforced < 1

    @property
    def least_calls(self) -> int:
        """From how many calls on rates are looked at. A ring shorter than the minimum could never open otherwise."""
        return self.minimum_calls if self.window_calls is None else min(self.minimum_calls, self.window_calls)

    def rate_evidence(self, rule: str, bad: int, calls: int, threshold: float) -> Evidence:
        """Return what says that *bad* of *calls* in the window broke *rule*."""
        span = f"{self.window:g} s" if self.window_calls is None else f"the last {self.window_calls}"
        return Evidence(rule, bad=bad, calls=calls, span=span, threshold=threshold)

    def draw_open_time(self, trips: int, rng: random.Random, hint: float | None) -> float:
        """Return how long to stay open after *trips* earlier trips, in seconds; never shorter than a bounded *hint*."""
        longest = max(self.open_for, self.max_open_for)
        # Exponents are bounded so that a thousand trips do not overflow.
        drawn = min(self.open_for * self.growth ** min(trips, 62), longest)
        drawn *= 1.0 - self.jitter * rng.random()
        return max(drawn, min(hint, self.hint_cap) if hint is not None else 0.0)


@final
class Period:
    """One stay in one state; its identity is the generation."""

    __slots__ = ("number", "state")

    number: int
    state: CircuitState

    def __init__(self, state: CircuitState, number: int) -> None:
        self.state = state
        self.number = number


@final
class Permit:
    """The right to make one attempt. Releasing it a second time does nothing."""

    __slots__ = ("live", "period")

    live: bool
    period: Period | None

    def __init__(self, period: Period | None) -> None:
        self.period = period
        self.live = True

    @property
    def probe(self) -> bool:
        """Whether it holds a probe's slot of a half-open circuit."""
        return self.period is not None and self.period.state is CircuitState.HALF_OPEN


class Evidence(NamedTuple):
    """Why the circuit opened, in figures; its text is made only when somebody reads it."""

    rule: str
    bad: int = 0
    calls: int = 0
    span: str = ""
    threshold: float = 0.0
    kind: str = ""

    def __str__(self) -> str:
        if self.rule == "in_a_row":
            return many(self.bad, f"{self.kind} failure".lstrip()) + " in a row"
        if self.rule in ("failure_rate", "slow_rate"):
            what = "failed" if self.rule == "failure_rate" else "were slow"
            percent = f"{self.threshold * 100:g} %"
            return f"{self.bad} of {self.calls} calls {what} in {self.span} (threshold {percent})"
        return {
            "probe_failed": f"a probe failed ({self.kind})" if self.kind else "a probe failed",
            "probe_slow": "a probe was slow",
            "probes_succeeded": f"{self.bad} of {self.calls} probes succeeded",
            "open_time_over": "open time is over",
            "by_hand": "by hand",
            "by_settings": "by the settings",
            "restored": "restored from a snapshot",
        }.get(self.rule, self.rule)


class Refusal(NamedTuple):
    """Why a call is not admitted, and in how many seconds one may be (None if nobody knows)."""

    reason: Reason
    retry_after: float | None
    evidence: Evidence


class Change(NamedTuple):
    """A change of state, for whoever tells the world about it. *retry_after* is how long it stays open."""

    before: CircuitState
    after: CircuitState
    evidence: Evidence
    retry_after: float | None
