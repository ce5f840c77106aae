"""
What one provider's runtime has to say to each metric: the integers that it keeps anyway, read when somebody asks.

A reading is the values of the metric's attributes, in their order, and a number. The name of the provider is left to
those who collect (see `resilience.telemetry._collect`), who also bound how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from resilience._core.histogram import Histogram
from resilience._core.states import CircuitState
from resilience._core.words import Reason
from resilience.runtime import ProviderRuntime
from resilience.tally import Durations
from resilience.telemetry import names
from resilience.telemetry.names import Metric
from resilience.watching import End

Values: TypeAlias = tuple[str, ...]
"""The values of a metric's attributes, in their order. An empty one is left out of what is exported."""

Readings: TypeAlias = Iterable[tuple[Values, float]]
Gather: TypeAlias = Callable[[ProviderRuntime], Readings]
GatherDurations: TypeAlias = Callable[[ProviderRuntime], Iterable[tuple[Values, Histogram]]]

ENFORCE: Final = "enforce"
SHADOW: Final = "shadow"


# -- calls -----------------------------------------------------------------------------------------------------------


def _calls(runtime: ProviderRuntime) -> Readings:
    with runtime.common.lock:
        runtime.absorb()
    tally, variant, recovered = runtime.tally, _variant(runtime), runtime.recovered
    yield (End.SUCCESS.value, "", "", variant), max(0, runtime.succeeded - recovered)
    yield (End.SUCCESS_AFTER_RETRY.value, "", "", variant), recovered
    yield (End.CANCELLED.value, "", "", variant), tally.cancelled
    yield (End.REJECTED.value, "", "", variant), runtime.rejected
    for (kind, category), count in list(tally.failures.items()):
        yield (End.FAILURE.value, kind, category, variant), count


def _rejections(runtime: ProviderRuntime) -> Readings:
    reasons = dict(runtime.tally.rejections)
    # The fast path refuses only where the circuit is open, and counts nothing but that.
    swift = runtime.refused
    if swift > 0:
        reasons[Reason.CIRCUIT_OPEN.value] = reasons.get(Reason.CIRCUIT_OPEN.value, 0) + swift
    for reason, count in reasons.items():
        yield (reason, ENFORCE, _variant(runtime)), count


def _retries(runtime: ProviderRuntime) -> Readings:
    for (kind, decision), count in list(runtime.tally.retries.items()):
        yield (kind, decision, _variant(runtime)), count


def _hedges(runtime: ProviderRuntime) -> Readings:
    hedges = list(runtime.hedges.values())
    if hedges:
        yield ("launched", _variant(runtime)), sum(hedge.launched for hedge in hedges)
        yield ("won", _variant(runtime)), sum(hedge.won for hedge in hedges)


def _of_the_runtime(read: Callable[[ProviderRuntime], float]) -> Gather:
    def gather(runtime: ProviderRuntime) -> Readings:
        yield (_variant(runtime),), read(runtime)

    return gather


# -- circuit, gate and limits ----------------------------------------------------------------------------------------


def _state(runtime: ProviderRuntime) -> Readings:
    now = runtime.breaker.state
    for state in CircuitState:
        yield (state.value, _variant(runtime)), float(state is now)


def _rate(of: str) -> Gather:
    def gather(runtime: ProviderRuntime) -> Readings:
        window = runtime.breaker.snapshot()
        yield (_variant(runtime),), getattr(window, of) / window.calls if window.calls else 0.0

    return gather


def _gate(runtime: ProviderRuntime) -> Readings:
    yield (), runtime.common.gate_left(runtime.clock())


def _budget(runtime: ProviderRuntime) -> Readings:
    if runtime.settings.budget.enabled:
        yield (_variant(runtime),), runtime.common.retries_available(runtime.clock())


def _of_the_limiters(read: Callable[[Any], float | None], *limiters: str) -> Gather:
    def gather(runtime: ProviderRuntime) -> Readings:
        for name in limiters:
            limiter = getattr(runtime.limits, _FIELDS[name], None)
            if limiter is not None and (found := read(limiter.snapshot())) is not None:
                yield (name,), found

    return gather


_FIELDS: Final = {"bulkhead": "bulkhead", "rate_limit": "rate"}


def _windows(runtime: ProviderRuntime) -> Readings:
    if runtime.limits is not None and runtime.limits.rate is not None:
        for window in runtime.limits.rate.snapshot().windows:
            yield (window.name,), window.remaining


def _money(runtime: ProviderRuntime) -> Readings:
    if runtime.limits is not None and runtime.limits.cost is not None:
        cost = runtime.limits.cost.snapshot()
        if cost.limit is not None:
            yield (), cost.limit - cost.used


# -- durations -------------------------------------------------------------------------------------------------------


def _call_durations(runtime: ProviderRuntime) -> Iterable[tuple[Values, Histogram]]:
    return _durations(runtime, runtime.tally.calls())


def _attempt_durations(runtime: ProviderRuntime) -> Iterable[tuple[Values, Histogram]]:
    return _durations(runtime, runtime.tally.attempts())


def _durations(runtime: ProviderRuntime, found: Durations) -> Iterable[tuple[Values, Histogram]]:
    for (operation, end), taken in found.items():
        yield (operation, end.value, _variant(runtime)), taken


def _delays(runtime: ProviderRuntime) -> Iterable[tuple[Values, Histogram]]:
    yield (_variant(runtime),), runtime.tally.delays


def _variant(runtime: ProviderRuntime) -> str:
    # A runtime that is no side of an experiment has none.
    return getattr(runtime, "variant", "")


COUNTERS: Final[Mapping[Metric, Gather]] = {
    names.CALLS: _calls,
    names.REJECTIONS: _rejections,
    names.TIMEOUTS: _of_the_runtime(lambda runtime: runtime.timeouts),
    names.RETRIES: _retries,
    names.HEDGES: _hedges,
}
"""What only grows. A provider that is forgotten leaves it behind."""

GAUGES: Final[Mapping[Metric, Gather]] = {
    names.IN_FLIGHT: _of_the_runtime(lambda runtime: runtime.in_flight),
    names.WAITING: _of_the_runtime(lambda runtime: len(runtime.waiting)),
    names.RETRY_BUDGET: _budget,
    names.BREAKER_STATE: _state,
    names.FAILURE_RATE: _rate("failed"),
    names.SLOW_RATE: _rate("slow"),
    names.GATE_CLOSED_FOR: _gate,
    names.LIMITER_LIMIT: _of_the_limiters(lambda found: found.limit, "bulkhead"),
    names.LIMITER_USAGE: _of_the_limiters(lambda found: found.in_use, "bulkhead"),
    names.LIMITER_QUEUE: _of_the_limiters(lambda found: found.waiting, "bulkhead", "rate_limit"),
    names.RATE_REMAINING: _windows,
    names.COST_REMAINING: _money,
}
"""What goes up and down."""

DURATIONS: Final[Mapping[Metric, GatherDurations]] = {
    names.CALL_DURATION: _call_durations,
    names.ATTEMPT_DURATION: _attempt_durations,
    names.RETRY_DELAY: _delays,
}
"""What took how long."""
