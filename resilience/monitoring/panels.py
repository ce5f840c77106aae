"""What the dashboard shows: rows of panels, each with its queries and a sentence on how to read it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, final

from resilience._core.states import CircuitState
from resilience.monitoring.queries import Match, Queries, share
from resilience.telemetry import names as n
from resilience.watching import End

ASK: Final = Queries(
    "$__rate_interval", scope=('job=~"$job"',), scope_of_providers=('resilience_provider=~"$provider"',)
)
"""What the panels ask: for the jobs and providers chosen at the top of the dashboard."""

SUCCEEDED: Final[Match] = {n.OUTCOME: (End.SUCCESS, End.SUCCESS_AFTER_RETRY)}
CANCELLED: Final[Match] = {n.OUTCOME: End.CANCELLED}  # by their callers: nobody's failure
FAILED: Final[Match] = {n.OUTCOME: End.FAILURE}
ENFORCED: Final[Match] = {n.MODE: "enforce"}
RETRIED: Final[Match] = {n.DECISION: "retried"}
OPEN: Final[Match] = {n.STATE: CircuitState.OPEN}
OUTSIDE: Final[Match] = {n.VARIANT: ""}
"""Calls of providers that have no experiment."""

Codes: TypeAlias = tuple[tuple[str, int], ...]

STATES: Final[Codes] = (
    (CircuitState.CLOSED, 1),
    (CircuitState.DISABLED, 2),
    (CircuitState.HALF_OPEN, 3),
    (CircuitState.OPEN, 4),
    (CircuitState.FORCED_OPEN, 5),
)
"""Numbers for the states of a circuit: where processes differ, the highest is shown."""

STATUSES: Final[Codes] = (("pass", 1), ("warn", 2), ("fail", 3))
"""Numbers for the statuses of a component, likewise."""


class Kind(StrEnum):
    """How a panel draws, in Grafana's words."""

    LINES = "timeseries"
    FIGURE = "stat"
    STATES = "state-timeline"


@final
@dataclass(frozen=True, slots=True)
class Query:
    """
    One query of a panel.

    Args:
        text: In Prometheus's language.
        legend: How its series are called.
    """

    text: str
    legend: str = ""


@final
@dataclass(frozen=True, slots=True)
class Panel:
    """
    One panel.

    Args:
        title: What it shows.
        about: How to read it.
        queries: What it asks for.
        unit: In Grafana's words.
        kind: How it draws.
        stacked: Whether lines are drawn upon one another.
        codes: What the numbers of states stand for.
        limit: From where on a figure is drawn in red; below 0: below its opposite.
        width: How wide it is; the dashboard is 24 wide.
    """

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = Kind.LINES
    stacked: bool = False
    codes: Codes = ()
    limit: float | None = None
    width: int = 8


@final
@dataclass(frozen=True, slots=True)
class Row:
    """Panels with something in common."""

    title: str
    panels: tuple[Panel, ...]


def _of(*attributes: str) -> str:
    """Return a legend out of the values of *attributes*."""
    return " ".join(f"{{{{{n.label(attribute)}}}}}" for attribute in attributes)


_PROVIDER: Final = _of(n.PROVIDER)
_CALLS: Final = ASK.rate(n.CALLS, n.PROVIDER, unless=CANCELLED)
_ALL_CALLS: Final = ASK.rate(n.CALLS, unless=CANCELLED)


def _quantiles(metric: n.Metric, *by: str) -> tuple[Query, ...]:
    return tuple(Query(ASK.quantile(q, metric, *by), f"{_of(*by)} p{q * 100:g}") for q in (0.5, 0.99))


_GLANCE: Final = Row(
    "At a glance",
    (
        Panel(
            "Circuits open", "Providers whose circuit is open in at least one process: calls are refused at once.",
            (Query(f"count({ASK.worst(n.BREAKER_STATE, n.PROVIDER, only=OPEN)} == 1) or vector(0)"),),
            kind=Kind.FIGURE, limit=1, width=4,
        ),
        Panel(
            "Components failing", "Components whose health is `fail` in at least one process.",
            (Query(f"count({ASK.worst(n.HEALTH_STATUS, n.COMPONENT, only={n.STATUS: 'fail'})} == 1) or vector(0)"),),
            kind=Kind.FIGURE, limit=1, width=4,
        ),
        Panel(
            "Calls succeeded", "Of all calls that their callers did not cancel; success after retries included.",
            (Query(share(ASK.rate(n.CALLS, only=SUCCEEDED), _ALL_CALLS)),),
            unit="percentunit", kind=Kind.FIGURE, limit=-0.95, width=4,
        ),
        Panel(
            "Calls refused", "Calls that did not leave: open circuit, closed gate, full bulkhead, spent limit.",
            (Query(share(ASK.rate(n.CALLS, only={n.OUTCOME: End.REJECTED}), _ALL_CALLS)),),
            unit="percentunit", kind=Kind.FIGURE, limit=0.05, width=4,
        ),
        Panel(
            "Retries per call", "What retries add to the load of the providers.",
            (Query(share(ASK.rate(n.RETRIES, only=RETRIED), _ALL_CALLS)),),
            kind=Kind.FIGURE, limit=0.1, width=4,
        ),
        Panel(
            "Calls a second", "Calls that ended, however they did.",
            (Query(ASK.rate(n.CALLS)),),
            unit="reqps", kind=Kind.FIGURE, width=4,
        ),
        Panel(
            "State of the circuits",
            "The worst state that any process is in. Half open: single probes find out whether the provider is back.",
            (Query(ASK.code(n.BREAKER_STATE, n.STATE, STATES, n.PROVIDER, n.VARIANT), _of(n.PROVIDER, n.VARIANT)),),
            kind=Kind.STATES, codes=STATES, width=24,
        ),
        Panel(
            "Calls by outcome", "Success after retry: the retries were worth it. Rejected: refused before they left.",
            (Query(ASK.rate(n.CALLS, n.OUTCOME), _of(n.OUTCOME)),),
            unit="reqps", stacked=True,
        ),
        Panel(
            "Share of calls that succeeded", "By provider. Calls that their callers cancelled do not count.",
            (Query(share(ASK.rate(n.CALLS, n.PROVIDER, only=SUCCEEDED), _CALLS), _PROVIDER),),
            unit="percentunit",
        ),
        Panel(
            "How long calls take", "As the caller sees it: retries and waits included.",
            _quantiles(n.CALL_DURATION, n.PROVIDER), unit="s",
        ),
    ),
)  # fmt: skip

_TROUBLE: Final = Row(
    "Trouble",
    (
        Panel(
            "Calls refused, by reason", "Mode shadow: would have been refused, if its limit were enforced.",
            (Query(ASK.rate(n.REJECTIONS, n.PROVIDER, n.REASON, n.MODE), _of(n.PROVIDER, n.REASON, n.MODE)),),
            unit="reqps", stacked=True,
        ),
        Panel(
            "Calls failed, by kind", "What the last attempt failed with. Fatal or invalid input: retries cannot help.",
            (
                Query(
                    ASK.rate(n.CALLS, n.PROVIDER, n.KIND, n.CATEGORY, only=FAILED),
                    f"{_of(n.PROVIDER, n.KIND)} ({_of(n.CATEGORY)})",
                ),
            ),
            unit="reqps", stacked=True,
        ),
        Panel(
            "What followed failed attempts", "Retried, or the reason why not.",
            (Query(ASK.rate(n.RETRIES, n.PROVIDER, n.KIND, n.DECISION), _of(n.PROVIDER, n.KIND, n.DECISION)),),
            unit="reqps", stacked=True,
        ),
        Panel(
            "Attempts that ran out of time", "Interrupted by our own deadline.",
            (Query(ASK.rate(n.TIMEOUTS, n.PROVIDER), _PROVIDER),),
            unit="reqps",
        ),
        Panel(
            "How long attempts take", "As the provider answers: without retries and waits.",
            _quantiles(n.ATTEMPT_DURATION, n.PROVIDER), unit="s",
        ),
        Panel(
            "How long calls sleep before a retry", "On average.",
            (Query(ASK.mean(n.RETRY_DELAY, n.PROVIDER), _PROVIDER),),
            unit="s",
        ),
        Panel(
            "What the circuits see", "Shares of failed and slow calls in the window of the worst process.",
            (
                Query(ASK.worst(n.FAILURE_RATE, n.PROVIDER), f"{_PROVIDER} failed"),
                Query(ASK.worst(n.SLOW_RATE, n.PROVIDER), f"{_PROVIDER} slow"),
            ),
            unit="percentunit",
        ),
        Panel(
            "Changes of the circuits' states", "Within the last moments, all processes together.",
            (
                Query(
                    ASK.happened(n.TRANSITIONS, n.PROVIDER, n.FROM, n.TO, n.REASON),
                    f"{_PROVIDER} {_of(n.FROM)} → {_of(n.TO)} ({_of(n.REASON)})",
                ),
            ),
        ),
        Panel(
            "Calls under way", "Attempts that run, and calls that wait for a place, a turn, a gate or a retry.",
            (
                Query(ASK.total(n.IN_FLIGHT, n.PROVIDER), f"{_PROVIDER} running"),
                Query(ASK.total(n.WAITING, n.PROVIDER), f"{_PROVIDER} waiting"),
            ),
        ),
    ),
)  # fmt: skip

_LIMITS: Final = Row(
    "Limits",
    (
        Panel(
            "Gate closed for", "For so long nothing is sent, because the provider asked for patience.",
            (Query(ASK.worst(n.GATE_CLOSED_FOR, n.PROVIDER), _PROVIDER),),
            unit="s",
        ),
        Panel(
            "Gates closed", "Within the last moments. Hinted: the provider said for how long.",
            (
                Query(
                    ASK.happened(n.GATE_CLOSINGS, n.PROVIDER, n.HINTED),
                    f"{_PROVIDER} hinted: {_of(n.HINTED)}",
                ),
            ),
        ),
        Panel(
            "Retries that the budget allows", "In the process that has the least. 0: failed attempts are not repeated.",
            (Query(ASK.least(n.RETRY_BUDGET, n.PROVIDER), _PROVIDER),),
        ),
        Panel(
            "Limiters: in use, and the limit", "All processes together. An adaptive limit moves.",
            (
                Query(ASK.total(n.LIMITER_USAGE, n.PROVIDER, n.LIMITER), f"{_of(n.PROVIDER, n.LIMITER)} in use"),
                Query(ASK.total(n.LIMITER_LIMIT, n.PROVIDER, n.LIMITER), f"{_of(n.PROVIDER, n.LIMITER)} limit"),
            ),
        ),
        Panel(
            "Calls that wait for a limiter", "All processes together.",
            (Query(ASK.total(n.LIMITER_QUEUE, n.PROVIDER, n.LIMITER), _of(n.PROVIDER, n.LIMITER)),),
        ),
        Panel(
            "Left of the rate limits", "Requests or tokens, in the process that has the least.",
            (Query(ASK.least(n.RATE_REMAINING, n.PROVIDER, n.WINDOW), _of(n.PROVIDER, n.WINDOW)),),
        ),
        Panel(
            "Money left", "In the process that has the least, in the unit of the cost limit.",
            (Query(ASK.least(n.COST_REMAINING, n.PROVIDER), _PROVIDER),),
        ),
    ),
)  # fmt: skip

_OTHER_WAYS: Final = Row(
    "Hedges and fallbacks",
    (
        Panel(
            "Second attempts beside slow ones", "Launched, and of these won.",
            (Query(ASK.rate(n.HEDGES, n.PROVIDER, n.HEDGE), _of(n.PROVIDER, n.HEDGE)),),
            unit="reqps", width=12,
        ),
        Panel(
            "Calls that went on with another provider", "By the reason why the one named could not serve them.",
            (Query(ASK.rate(n.FALLBACKS, n.PROVIDER, n.REASON), _of(n.PROVIDER, n.REASON)),),
            unit="reqps", width=12,
        ),
    ),
)  # fmt: skip


_BOTH: Final = (n.PROVIDER, n.VARIANT)
_FINISHED: Final = ASK.rate(n.CALLS, *_BOTH, unless={**OUTSIDE, **CANCELLED})

_EXPERIMENTS: Final = Row(
    "Experiments: a is the usual way, b the alternative",
    (
        Panel(
            "Share of calls that succeeded, a and b", "Of the calls of providers that have an experiment.",
            (Query(share(ASK.rate(n.CALLS, *_BOTH, only=SUCCEEDED, unless=OUTSIDE), _FINISHED), _of(*_BOTH)),),
            unit="percentunit",
        ),
        Panel(
            "How long calls take, a and b", "99 of 100 calls take no longer.",
            (Query(ASK.quantile(0.99, n.CALL_DURATION, *_BOTH, unless=OUTSIDE), _of(*_BOTH)),),
            unit="s",
        ),
        Panel(
            "Retries per call, a and b", "What each way costs the provider.",
            (
                Query(share(ASK.rate(n.RETRIES, *_BOTH, only=RETRIED, unless=OUTSIDE), _FINISHED), _of(*_BOTH)),
            ),
        ),
    ),
)  # fmt: skip

_HEALTH: Final = Row(
    "Health and settings",
    (
        Panel(
            "Health of the components", "The worst status that any process reports.",
            (Query(ASK.code(n.HEALTH_STATUS, n.STATUS, STATUSES, n.COMPONENT), _of(n.COMPONENT)),),
            kind=Kind.STATES, codes=STATUSES, width=12,
        ),
        Panel(
            "Settings read anew", "Within the last moments. Refused: the file is no good, and nothing has changed.",
            (Query(ASK.happened(n.RELOADS, n.OUTCOME), _of(n.OUTCOME)),),
            width=6,
        ),
        Panel(
            "Settings that differ from the file", "In the worst process. The file was changed, or the settings were.",
            (Query(ASK.worst(n.DRIFT)),),
            kind=Kind.FIGURE, limit=1, width=6,
        ),
    ),
)  # fmt: skip

ROWS: Final = (_GLANCE, _TROUBLE, _LIMITS, _OTHER_WAYS, _EXPERIMENTS, _HEALTH)
"""The dashboard, from the top down: first what is wrong, then why."""
