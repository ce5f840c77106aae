"""What a circuit breaker is told by its settings, and what it tells in a snapshot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from resilience._core.states import CircuitRules, CircuitState
from resilience.failure import Failure, FailureKind
from resilience.settings import BreakerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerSnapshot:
    """
    One look at a circuit breaker. JSON-ready through `dataclasses.asdict`.

    Args:
        name: The breaker's name.
        state: Its state.
        since: When it came into this state, in seconds since the Unix epoch; None: it has always been in it.
        retry_after: Seconds until the next probe may leave; None unless open.
        until: The same as seconds since the Unix epoch, to carry across a restart.
        evidence: Why it opened last, in figures.
        failures_in_a_row: Failures since the last success.
        calls: Calls in the window.
        failed: Failed calls in the window.
        slow: Slow calls in the window.
        probes: Probes in flight.
        trips: How often it opened since its last long healthy time.
        stale_results: Results that came too late to count.
    """

    name: str
    state: CircuitState
    retry_after: float | None
    until: float | None
    evidence: str
    failures_in_a_row: int
    calls: int
    failed: int
    slow: int
    probes: int
    trips: int
    stale_results: int
    since: float | None = None


def rules_from(settings: BreakerSettings, *, attempt_timeout: float | None, hint_cap: float = 120.0) -> CircuitRules:
    """Return the figures that *settings* mean for a provider whose attempts may last *attempt_timeout* seconds."""
    limit = attempt_timeout if attempt_timeout is not None else math.inf
    slow_after = settings.slow_after if settings.slow_after is not None else limit / 2
    lease = settings.probe_lease
    if lease is None:
        lease = 2 * limit if attempt_timeout is not None else settings.timeout
    return CircuitRules(
        failure_threshold=settings.failure_threshold,
        success_threshold=settings.success_threshold,
        open_for=settings.timeout,
        half_open_max_calls=settings.half_open_max_calls,
        failure_rate=settings.failure_rate,
        slow_rate=settings.slow_rate,
        minimum_calls=settings.minimum_calls,
        window=settings.window,
        window_calls=settings.window_calls,
        slow_after=slow_after,
        jitter=settings.jitter,
        growth=settings.growth,
        max_open_for=settings.max_timeout,
        hint_cap=hint_cap,
        probe_lease=lease,
        per_kind={kind.value: limit for kind, limit in settings.per_kind.items()},
        shadow=settings.mode == "shadow",
        enforced=settings.enforced,
    )


def initial_state(settings: BreakerSettings) -> CircuitState:
    """Return the state that a new breaker with *settings* starts in."""
    if not settings.enabled or settings.mode == "disabled":
        return CircuitState.DISABLED
    return CircuitState.FORCED_OPEN if settings.mode == "forced_open" else CircuitState.CLOSED


def matches(
    rule: FailureKind | type[BaseException] | Callable[[BaseException], bool], error: BaseException, failure: Failure
) -> bool:
    """Whether an exclusion in the settings fits this failure."""
    if isinstance(rule, FailureKind):
        return rule is failure.kind
    if isinstance(rule, type):
        return isinstance(error, rule)
    return rule(error)
