"""When to call somebody, and what to tell them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from resilience._core.words import Reason
from resilience.monitoring.panels import CANCELLED, ENFORCED, FAILED, OPEN, RETRIED
from resilience.monitoring.queries import INSTANCE, JOB, Queries, share
from resilience.telemetry import names as n


class Severity(StrEnum):
    """Whom an alert is for: *critical* wakes somebody up, *warning* waits for the morning."""

    CRITICAL = "critical"
    WARNING = "warning"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """
    One alert. What it means, and what to do, stands in the runbook.

    Args:
        name: What it is called.
        about: What it is about, in a line.
        severity: Whom it is for.
        query: What is true while it holds.
        lasting: How long it must have been true.
        summary: One line, for a telephone.
        description: A sentence with figures.
    """

    name: str
    about: str
    severity: Severity
    query: str
    lasting: str
    summary: str
    description: str

    @property
    def anchor(self) -> str:
        """Where on the page it stands."""
        return self.name.lower()


def _over(window: str, ago: str = "") -> Queries:
    """Return what asks for a *window* of time, each job apart."""
    return Queries(window, ago, by=(JOB,))


_P: Final = "{{ $labels.resilience_provider }}"
_AT: Final = f"{_P} ({{{{ $labels.job }}}})"
_SHARE: Final = "{{ $value | humanizePercentage }}"
_ONE, _FIVE, _TEN, _QUARTER = (_over(window) for window in ("1m", "5m", "10m", "15m"))
_HOUR_BEFORE: Final = _over("1h", "10m")
_ATTEMPTS: Final = _FIVE.rate(n.ATTEMPT_DURATION, n.PROVIDER, suffix="_count")
_ON: Final = (JOB, n.PROVIDER)

# An open circuit and a closed gate have alerts of their own.
_TOLD_ELSEWHERE: Final = (Reason.CIRCUIT_OPEN, Reason.HALF_OPEN_SATURATED, Reason.PROVIDER_GATED)

_CIRCUIT_OPEN: Final = Alert(
    name="CircuitOpen",
    about="calls to a provider are refused, because it fails",
    severity=Severity.CRITICAL,
    query=f"{_ONE.lately(n.BREAKER_STATE, n.PROVIDER, n.VARIANT, only=OPEN)} == 1",
    lasting="1m",
    summary=f"{_P}: circuit open",
    description=(
        f"The circuit of {_AT} has been open for more than a minute in at least one process. "
        "Calls to it are refused at once; single probes find out when it is back."
    ),
)

_HEALTH_FAILING: Final = Alert(
    name="HealthFailing",
    about="a component of the application has failed for long",
    severity=Severity.CRITICAL,
    query=f"{_ONE.worst(n.HEALTH_STATUS, n.COMPONENT, only={n.STATUS: 'fail'})} == 1",
    lasting="2m",
    summary="{{ $labels.resilience_component }}: health failing",
    description=(
        "The component {{ $labels.resilience_component }} of {{ $labels.job }} has reported `fail` for more than two "
        "minutes in at least one process. If it is critical, this process is not ready and gets no traffic."
    ),
)

_FLAPPING: Final = Alert(
    name="CircuitFlapping",
    about="a provider comes back and fails again",
    severity=Severity.WARNING,
    query=(
        f"max by ({JOB},{n.label(n.PROVIDER)}) ("
        f"{_QUARTER.increase(n.TRANSITIONS, n.PROVIDER, INSTANCE, only={n.FROM: 'half_open', n.TO: 'closed'})}"
        ") >= 3"
    ),
    lasting="1m",
    summary=f"{_P}: circuit closes and opens again",
    description=(
        f"The circuit of {_AT} has closed {{{{ $value | humanize }}}} times in 15 minutes in one "
        "process, after half-open probes that succeeded, and did not stay closed."
    ),
)

_RETRY_STORM: Final = Alert(
    name="RetryStorm",
    about="retries have become a load of their own",
    severity=Severity.WARNING,
    query=(
        f"{share(_FIVE.rate(n.RETRIES, n.PROVIDER, only=RETRIED), _FIVE.rate(n.CALLS, n.PROVIDER))} > 0.1"
        f" and {_FIVE.rate(n.RETRIES, n.PROVIDER, only=RETRIED)} > 0.2"
    ),
    lasting="5m",
    summary=f"{_P}: {_SHARE} retries on top of the calls",
    description=(
        f"Retries have added {_SHARE} to the calls of {_AT} for more than five minutes. "
        "The budget allows 20 % by default."
    ),
)

_TIMEOUTS: Final = Alert(
    name="ExcessiveTimeouts",
    about="a provider hangs",
    severity=Severity.WARNING,
    query=(
        f"{share(_FIVE.rate(n.TIMEOUTS, n.PROVIDER), _ATTEMPTS)} > 0.1 and {_FIVE.rate(n.TIMEOUTS, n.PROVIDER)} > 0.02"
    ),
    lasting="5m",
    summary=f"{_P}: {_SHARE} of the attempts run out of time",
    description=(
        f"{_SHARE} of the attempts at {_AT} have been interrupted by our own deadline for more than five minutes."
    ),
)

_BUDGET: Final = Alert(
    name="RetryBudgetExhausted",
    about="failures are no longer retried",
    severity=Severity.WARNING,
    query=f"{_FIVE.increase(n.RETRIES, n.PROVIDER, only={n.DECISION: Reason.RETRY_BUDGET_EXHAUSTED})} >= 5",
    lasting="2m",
    summary=f"{_P}: retry budget exhausted",
    description=(
        f"{{{{ $value | humanize }}}} failed attempts at {_AT} were not retried in the last five "
        "minutes, because the retry budget was spent."
    ),
)

_REJECTIONS: Final = Alert(
    name="HighRejection",
    about="a limit of ours refuses calls",
    severity=Severity.WARNING,
    query=(
        share(
            _FIVE.rate(n.REJECTIONS, n.PROVIDER, n.REASON, only=ENFORCED, unless={n.REASON: _TOLD_ELSEWHERE}),
            _FIVE.rate(n.CALLS, n.PROVIDER),
            on=_ON,
        )
        + " > 0.1"
    ),
    lasting="5m",
    summary=f"{_P}: {_SHARE} of the calls refused ({{{{ $labels.resilience_reason }}}})",
    description=(
        f"{_SHARE} of the calls to {_AT} have been refused for more than five minutes. Reason: "
        "{{ $labels.resilience_reason }}."
    ),
)

_GATE: Final = Alert(
    name="GateClosedLong",
    about="a provider asks for patience, again and again",
    severity=Severity.WARNING,
    query=f"{_ONE.lately(n.GATE_CLOSED_FOR, n.PROVIDER)} > 0",
    lasting="5m",
    summary=f"{_P}: has asked for patience for more than 5 minutes",
    description=(
        f"The gate of {_AT} has been closed again and again for more than five minutes, lately for "
        "{{ $value | humanizeDuration }}."
    ),
)

_SLOW: Final = Alert(
    name="SlowCalls",
    about="a provider has become slow",
    severity=Severity.WARNING,
    query=f"{_FIVE.worst(n.SLOW_RATE, n.PROVIDER)} > 0.5",
    lasting="5m",
    summary=f"{_P}: {_SHARE} of the calls slow",
    description=(
        f"{_SHARE} of the calls to {_AT} have been slow for more than five minutes. At 80 % (by "
        "default) the circuit opens."
    ),
)


def _failed_share(queries: Queries) -> str:
    """Return which share of a provider's calls failed with each kind."""
    failed = queries.rate(n.CALLS, n.PROVIDER, n.KIND, only=FAILED)
    return share(failed, queries.rate(n.CALLS, n.PROVIDER, unless=CANCELLED), on=_ON)


_RISING: Final = Alert(
    name="FailuresRising",
    about="a kind of failure has become frequent",
    severity=Severity.WARNING,
    query=(f"({_failed_share(_TEN)} > 0.05) unless ({_failed_share(_TEN)} <= 2 * {_failed_share(_HOUR_BEFORE)})"),
    lasting="5m",
    summary=f"{_P}: {_SHARE} of the calls fail with {{{{ $labels.resilience_kind }}}}",
    description=(
        f"{_SHARE} of the calls to {_AT} have failed with {{{{ $labels.resilience_kind }}}} in the "
        "last ten minutes: more than twice as many as in the hour before."
    ),
)

ALERTS: Final = (
    _CIRCUIT_OPEN, _HEALTH_FAILING, _FLAPPING, _RETRY_STORM, _TIMEOUTS, _BUDGET, _REJECTIONS, _GATE, _SLOW, _RISING,
)  # fmt: skip
"""All alerts, the critical ones first."""
