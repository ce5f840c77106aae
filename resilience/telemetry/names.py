"""
Every name that telemetry backends see, once.

They are a public interface: dashboards and alerts are built on them. Names follow OpenTelemetry's rules: units are
singular and no part of the name, seconds are ``s``, and what is counted stands in braces. What Prometheus makes of a
name is worked out here as well, so that whoever writes a query writes the same name as the exporter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from resilience._core.histogram import BOUNDS

SCOPE: Final = "resilience"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

# -- spans -----------------------------------------------------------------------------------------------------------

CALL_SPAN: Final = "execute {provider}"
ATTEMPT_SPAN: Final = "attempt {provider}"
TRANSITION_SPAN: Final = "circuit_breaker.transition"
GATE_SPAN: Final = "gate.closed"
RELOAD_SPAN: Final = "settings.reloaded"
REFUSAL_SPAN: Final = "settings.refused"

# -- log records -----------------------------------------------------------------------------------------------------

CIRCUIT_EVENT: Final = "resilience.circuit.changed"
PROBE_LOST_EVENT: Final = "resilience.circuit.probe_lost"
GATE_EVENT: Final = "resilience.gate.closed"
RETRY_EVENT: Final = "resilience.retry.scheduled"
TIMEOUT_EVENT: Final = "resilience.attempt.timed_out"
OVERDUE_EVENT: Final = "resilience.attempt.overdue"
ATTEMPT_FAILED_EVENT: Final = "resilience.attempt.failed"
CALL_FAILED_EVENT: Final = "resilience.call.failed"
CALL_RECOVERED_EVENT: Final = "resilience.call.recovered"
CALL_REJECTED_EVENT: Final = "resilience.call.rejected"
CALL_SHADOW_EVENT: Final = "resilience.call.would_be_rejected"
CALL_COALESCED_EVENT: Final = "resilience.call.coalesced"
FALLBACK_EVENT: Final = "resilience.call.fell_back"
HEDGE_LAUNCHED_EVENT: Final = "resilience.hedge.launched"
HEDGE_WON_EVENT: Final = "resilience.hedge.won"
CONCURRENCY_EVENT: Final = "resilience.limiter.changed"
RATE_EVENT: Final = "resilience.rate_limit.tightened"
EJECTED_EVENT: Final = "resilience.pool.ejected"
RETURNED_EVENT: Final = "resilience.pool.returned"
RELOADED_EVENT: Final = "resilience.settings.reloaded"
REFUSED_EVENT: Final = "resilience.settings.refused"
SHUTDOWN_BEGAN_EVENT: Final = "resilience.shutdown.began"
SHUTDOWN_ENDED_EVENT: Final = "resilience.shutdown.ended"

# -- attributes ------------------------------------------------------------------------------------------------------

PROVIDER: Final = "resilience.provider"
OPERATION: Final = "resilience.operation"
OUTCOME: Final = "resilience.outcome"
REASON: Final = "resilience.reason"
KIND: Final = "resilience.kind"
CATEGORY: Final = "resilience.category"
VARIANT: Final = "resilience.variant"
MODE: Final = "resilience.mode"
DECISION: Final = "resilience.retry.decision"
ATTEMPTS: Final = "resilience.attempts"
ATTEMPT: Final = "resilience.attempt"
DELAY: Final = "resilience.retry.delay"
FALLBACK: Final = "resilience.fallback.to"
HEDGE: Final = "resilience.hedge"
LIMITER: Final = "resilience.limiter"
WINDOW: Final = "resilience.rate_limit.window"
STATE: Final = "resilience.circuit_breaker.state"
FROM: Final = "resilience.circuit_breaker.from"
TO: Final = "resilience.circuit_breaker.to"
FIGURES: Final = "resilience.circuit_breaker.figures"
RETRY_AFTER: Final = "resilience.circuit_breaker.retry_after"
SECONDS: Final = "resilience.gate.seconds"
HINTED: Final = "resilience.gate.hinted"
COMPONENT: Final = "resilience.component"
STATUS: Final = "resilience.status"
ERROR_TYPE: Final = "error.type"
HTTP_STATUS: Final = "http.response.status_code"
DURATION: Final = "resilience.duration"
LIMIT: Final = "resilience.limit"
SCOPE_OF_LIMIT: Final = "resilience.limit.scope"
MAX_ATTEMPTS: Final = "resilience.retry.max_attempts"
REMAINING: Final = "resilience.rate_limit.remaining"
RESET: Final = "resilience.rate_limit.reset"
BEFORE: Final = "resilience.limiter.before"
AFTER: Final = "resilience.limiter.after"
MEMBER: Final = "resilience.pool.member"
LEFT_OUT: Final = "resilience.pool.left_out"
SOURCE: Final = "resilience.settings.source"
CHANGES: Final = "resilience.settings.changes"
PROBLEM: Final = "resilience.settings.problem"
GRACE: Final = "resilience.shutdown.grace"
IN_FLIGHT_NOW: Final = "resilience.shutdown.in_flight"
WAITING_NOW: Final = "resilience.shutdown.waiting"
FINISHED: Final = "resilience.shutdown.finished"
INTERRUPTED: Final = "resilience.shutdown.interrupted"
REFUSED: Final = "resilience.shutdown.refused"
ABANDONED: Final = "resilience.shutdown.abandoned"
CLOSED: Final = "resilience.shutdown.closed"
UNCLOSED: Final = "resilience.shutdown.unclosed"

# -- metrics ---------------------------------------------------------------------------------------------------------


class Instrument(StrEnum):
    """How a metric behaves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merged(StrEnum):
    """What becomes of several numbers for one series: of several registries in a process, or of several workers."""

    SUM = "sum"
    MAX = "max"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """
    One metric.

    Args:
        name: As OpenTelemetry knows it.
        instrument: How it behaves.
        unit: In UCUM's notation; what is counted stands in braces.
        description: What it says.
        attributes: What tells its series apart.
        merged: What becomes of several numbers for one series. Default: they are added up.
    """

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[str, ...]
    merged: Merged = Merged.SUM

    @property
    def prometheus(self) -> str:
        """The name that it has in Prometheus; a histogram's series add ``_bucket``, ``_sum`` and ``_count``."""
        name = label(self.name)
        if self.unit == "s" and not name.endswith("_seconds"):
            name += "_seconds"
        return f"{name}_total" if self.instrument is Instrument.COUNTER else name


def label(attribute: str) -> str:
    """Return the name that an attribute has as a label in Prometheus."""
    return attribute.replace(".", "_")


OTHER: Final = "_other"
"""What providers are called beyond those that are told apart, and those that are forgotten."""

_COUNTER, _GAUGE, _HISTOGRAM = Instrument.COUNTER, Instrument.GAUGE, Instrument.HISTOGRAM

CALLS: Final = Metric(
    "resilience.calls", _COUNTER, "{call}",
    "Calls that are over: success, success_after_retry, failure, rejected or cancelled.",
    (PROVIDER, OUTCOME, KIND, CATEGORY, VARIANT),
)  # fmt: skip
CALL_DURATION: Final = Metric(
    "resilience.call.duration", _HISTOGRAM, "s", "How long calls took, retries and waits included.",
    (PROVIDER, OPERATION, OUTCOME, VARIANT),
)  # fmt: skip
ATTEMPT_DURATION: Final = Metric(
    "resilience.attempt.duration", _HISTOGRAM, "s", "How long single attempts took.",
    (PROVIDER, OPERATION, OUTCOME, VARIANT),
)  # fmt: skip
IN_FLIGHT: Final = Metric(
    "resilience.in_flight", _GAUGE, "{attempt}", "Attempts that are running.", (PROVIDER, VARIANT)
)
WAITING: Final = Metric(
    "resilience.waiting", _GAUGE, "{call}", "Calls that wait in any way, asleep in back-off included.",
    (PROVIDER, VARIANT),
)  # fmt: skip
REJECTIONS: Final = Metric(
    "resilience.rejections", _COUNTER, "{call}",
    "Calls refused before they left (mode enforce), or that would have been (mode shadow).",
    (PROVIDER, REASON, MODE, VARIANT),
)  # fmt: skip
TIMEOUTS: Final = Metric(
    "resilience.timeouts", _COUNTER, "{attempt}", "Attempts that our own deadline interrupted.", (PROVIDER, VARIANT)
)
RETRIES: Final = Metric(
    "resilience.retries", _COUNTER, "{retry}",
    "What followed a failed attempt: decision retried, or the reason why it was not.",
    (PROVIDER, KIND, DECISION, VARIANT),
)  # fmt: skip
RETRY_DELAY: Final = Metric(
    "resilience.retry.delay", _HISTOGRAM, "s", "How long calls slept before a retry.", (PROVIDER, VARIANT)
)
RETRY_BUDGET: Final = Metric(
    "resilience.retry_budget.remaining", _GAUGE, "{retry}", "Retries that the budget allows at this moment.",
    (PROVIDER, VARIANT),
)  # fmt: skip
HEDGES: Final = Metric(
    "resilience.hedges", _COUNTER, "{attempt}", "Second attempts beside a slow one: launched, and of these won.",
    (PROVIDER, HEDGE, VARIANT),
)  # fmt: skip
FALLBACKS: Final = Metric(
    "resilience.fallbacks", _COUNTER, "{call}", "Calls that went on with another provider.", (PROVIDER, REASON)
)
BREAKER_STATE: Final = Metric(
    "resilience.circuit_breaker.state", _GAUGE, "{state}", "1 for the state that the circuit is in, 0 for the others.",
    (PROVIDER, STATE, VARIANT), Merged.MAX,
)  # fmt: skip
TRANSITIONS: Final = Metric(
    "resilience.circuit_breaker.transitions", _COUNTER, "{transition}", "Changes of the circuit's state.",
    (PROVIDER, FROM, TO, REASON, VARIANT),
)  # fmt: skip
FAILURE_RATE: Final = Metric(
    "resilience.circuit_breaker.failure_rate", _GAUGE, "1", "Share of the window's calls that failed.",
    (PROVIDER, VARIANT), Merged.MAX,
)  # fmt: skip
SLOW_RATE: Final = Metric(
    "resilience.circuit_breaker.slow_rate", _GAUGE, "1", "Share of the window's calls that were slow.",
    (PROVIDER, VARIANT), Merged.MAX,
)  # fmt: skip
GATE_CLOSED_FOR: Final = Metric(
    "resilience.gate.closed_for", _GAUGE, "s", "In how many seconds the gate opens; 0 when it is open.", (PROVIDER,),
    Merged.MAX,
)  # fmt: skip
GATE_CLOSINGS: Final = Metric(
    "resilience.gate.closings", _COUNTER, "{closing}", "Pauses that the provider asked for.", (PROVIDER, HINTED)
)
LIMITER_LIMIT: Final = Metric(
    "resilience.limiter.limit", _GAUGE, "{attempt}", "Attempts that a limiter allows at once.", (PROVIDER, LIMITER)
)
LIMITER_USAGE: Final = Metric(
    "resilience.limiter.usage", _GAUGE, "{attempt}", "Attempts that a limiter has let in.", (PROVIDER, LIMITER)
)
LIMITER_QUEUE: Final = Metric(
    "resilience.limiter.queue", _GAUGE, "{call}", "Calls that wait for a limiter.", (PROVIDER, LIMITER)
)
RATE_REMAINING: Final = Metric(
    "resilience.rate_limit.remaining", _GAUGE, "{unit}", "What a window has left: requests or tokens, by its name.",
    (PROVIDER, WINDOW),
)  # fmt: skip
COST_REMAINING: Final = Metric(
    "resilience.cost.remaining", _GAUGE, "{money}", "Money that the cost limit has left.", (PROVIDER,)
)
HEALTH_STATUS: Final = Metric(
    "resilience.health.status", _GAUGE, "{status}", "1 for the status that a component has, 0 for the others.",
    (COMPONENT, STATUS), Merged.MAX,
)  # fmt: skip
RELOADS: Final = Metric(
    "resilience.settings.reloads", _COUNTER, "{reload}", "Settings read anew: applied, unchanged or refused.",
    (OUTCOME,),
)  # fmt: skip
DRIFT: Final = Metric(
    "resilience.settings.drift", _GAUGE, "{setting}", "Settings that differ between the file and what runs.", (),
    Merged.MAX,
)  # fmt: skip

METRICS: Final = (
    CALLS, CALL_DURATION, ATTEMPT_DURATION, IN_FLIGHT, WAITING, REJECTIONS, TIMEOUTS, RETRIES, RETRY_DELAY,
    RETRY_BUDGET, HEDGES, FALLBACKS, BREAKER_STATE, TRANSITIONS, FAILURE_RATE, SLOW_RATE, GATE_CLOSED_FOR,
    GATE_CLOSINGS, LIMITER_LIMIT, LIMITER_USAGE, LIMITER_QUEUE, RATE_REMAINING, COST_REMAINING, HEALTH_STATUS,
    RELOADS, DRIFT,
)  # fmt: skip
"""All of them, in the order in which the documentation tells them."""

BUCKETS: Final = BOUNDS
"""The upper bounds of the duration histograms, in seconds: those in which the calls are counted anyway."""
