"""A real Prometheus watches a real program through an outage: dashboard and alerts tell what is going on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from script import CALLS_A_SECOND, END, HEALTHY_AT, OUTAGE_AT, RECOVERED_AT
from stage import Series, Watched, faster, watched

from resilience.monitoring import alerts
from resilience.monitoring.panels import ROWS
from resilience.telemetry import names

PROVIDERS = {"s3", "backup", "webhook", "openai", "scanner", "mailer", "search"}
QUERIES = [(panel.title, query.text) for row in ROWS for panel in row.panels for query in panel.queries]
EACH = pytest.mark.parametrize("query", [text for _, text in QUERIES], ids=[title for title, _ in QUERIES])


@pytest.fixture(name="seen", scope="module")
def _seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("prometheus")) as seen:
        yield seen


MOMENT = 3.0
"""A gauge says how things are at one moment: looking at it for some seconds tells more."""


def asked(seen: Watched, title: str, number: int = 0, **labels: str) -> tuple[float, ...]:
    """What a panel shows in each part of the script, at most: the sum over the series with these labels."""
    query = [text for panel, text in QUERIES if panel == title][number]
    wanted = {(names.label(f"resilience.{key}"), value) for key, value in labels.items()}
    return tuple(
        max(sums(series for series in seen.over(query, at - MOMENT, at) if wanted <= set(series.labels.items())))
        for at in (HEALTHY_AT, OUTAGE_AT, RECOVERED_AT)
    )


def sums(found: Iterable[Series]) -> list[float]:
    """Several series as one; 0 if there is none."""
    total: Counter[float] = Counter()
    for series in found:
        total.update(dict(series.points))
    return list(total.values()) or [0.0]


def extremes(seen: Watched, query: str, at: float) -> dict[tuple[tuple[str, str], ...], tuple[float, float]]:
    """Between what the series of a query move before *at*."""
    return {
        tuple(series.labels.items()): (min(values), max(values))
        for series in seen.over(query, at - MOMENT, at)
        if (values := [value for _, value in series.points])
    }


def test_nothing_was_missed(seen: Watched) -> None:
    """Prometheus could read what the program says each second, and had nothing to complain about."""
    assert len(seen.over("up")[0].points) >= END - 5
    assert seen.at(f"min_over_time(up[{END - 5:.0f}s])", END).values() == pytest.approx([1])
    assert seen.log.read_text() == ""


@EACH
def test_every_query_answers_with_finite_numbers(seen: Watched, query: str) -> None:
    """Each query of the dashboard has an answer during the outage, and all its numbers are numbers."""
    assert seen.at(query, OUTAGE_AT)
    assert all(math.isfinite(value) for series in seen.over(query) for _, value in series.points)


@EACH
def test_every_query_notices_the_outage(seen: Watched, query: str) -> None:
    """Each query tells something else when half of the providers are down."""
    assert extremes(seen, query, HEALTHY_AT) != extremes(seen, query, OUTAGE_AT)


def shown_in_the_outage_only(
    seen: Watched, title: str, *, calm: float = 0.3, least: float = 1.0, **labels: str
) -> None:
    """Check that a panel shows at least *least* in the outage, and at most *calm* before and after."""
    healthy, outage, recovered = asked(seen, title, **labels)
    assert healthy <= calm, (title, labels)
    assert outage >= least, (title, labels)
    assert recovered <= calm, (title, labels)


def test_the_first_row_tells_what_is_wrong(seen: Watched) -> None:
    """At a glance: well, then an open circuit, a failing component and refused calls, then well again."""
    assert asked(seen, "Circuits open") == (0, 1, 0)
    assert asked(seen, "Components failing") == (0, 1, 0)
    shown_in_the_outage_only(seen, "Calls refused", calm=0.02, least=0.2)
    shown_in_the_outage_only(seen, "Retries per call", calm=0.01, least=0.02)
    healthy, outage, recovered = asked(seen, "Calls succeeded")
    assert min(healthy, recovered) > 0.97
    assert 0.3 < outage < 0.8


def test_the_state_of_a_circuit_is_told_by_its_provider(seen: Watched) -> None:
    """The circuit of the provider that is down is open; those of the others are closed."""
    healthy, outage, recovered = asked(seen, "State of the circuits", provider="s3")
    assert (healthy, recovered) == (1, 1)
    assert outage == 4  # open
    assert asked(seen, "State of the circuits", provider="backup") == (1, 1, 1)


def test_calls_are_all_there(seen: Watched) -> None:
    """The rates of calls are those at which the program makes them."""
    healthy, _, recovered = asked(seen, "Calls by outcome", outcome="success")
    made = 7 * CALLS_A_SECOND  # s3 twice, and five others; backup only during the outage
    assert healthy == pytest.approx(made, rel=0.15)
    assert recovered == pytest.approx(made, rel=0.15)


@pytest.mark.parametrize(
    "provider, reason, mode",
    [
        ("s3", "circuit_open", "enforce"),
        ("webhook", "provider_gated", "enforce"),
        ("scanner", "bulkhead_timeout", "enforce"),
        ("mailer", "bulkhead_full", "shadow"),
    ],
)
def test_refusals_are_told_with_their_reason(seen: Watched, provider: str, reason: str, mode: str) -> None:
    """Whose calls are refused, and why, shows during the outage, and only then."""
    shown_in_the_outage_only(seen, "Calls refused, by reason", provider=provider, reason=reason, mode=mode)


def test_failures_are_told_with_their_kind(seen: Watched) -> None:
    """What attempts fail with, and what follows, shows during the outage, and only then."""
    shown_in_the_outage_only(seen, "Calls failed, by kind", provider="openai", kind="timeout")
    shown_in_the_outage_only(seen, "What followed failed attempts", provider="openai", kind="timeout")
    shown_in_the_outage_only(seen, "Attempts that ran out of time", provider="openai")


def test_durations_are_told(seen: Watched) -> None:
    """Attempts take as long as the program lets them take."""
    shown_in_the_outage_only(seen, "How long attempts take", provider="mailer", calm=0.05, least=0.25)


def test_limits_are_told(seen: Watched) -> None:
    """A closed gate, a spent budget and a full bulkhead show, and pass."""
    shown_in_the_outage_only(seen, "Gate closed for", provider="webhook")
    shown_in_the_outage_only(seen, "Limiters: in use, and the limit", provider="scanner", calm=3, least=4)
    assert asked(seen, "Limiters: in use, and the limit", 1, provider="scanner") == (4, 4, 4)
    healthy, outage, recovered = asked(seen, "Retries that the budget allows", provider="openai")
    assert outage < min(healthy, recovered)


def test_other_ways_are_told(seen: Watched) -> None:
    """Hedges and fallbacks show when they are taken."""
    shown_in_the_outage_only(
        seen, "Calls that went on with another provider", provider="s3", calm=0.5, least=CALLS_A_SECOND / 2
    )
    healthy, outage, recovered = asked(seen, "Second attempts beside slow ones", provider="search", hedge="won")
    assert max(healthy, recovered) < outage


def test_an_experiment_is_compared(seen: Watched) -> None:
    """Both ways of an experiment show side by side: without retries, fewer calls of b survive the outage."""
    title = "Share of calls that succeeded, a and b"
    _, usual, _ = asked(seen, title, provider="openai", variant="a")
    _, alternative, _ = asked(seen, title, provider="openai", variant="b")
    assert 0.4 < alternative < usual
    _, retries, _ = asked(seen, "Retries per call, a and b", provider="openai", variant="b")
    assert retries == 0


def test_health_is_told(seen: Watched) -> None:
    """A component is well, fails with its check, and is well again."""
    assert asked(seen, "Health of the components", component="database") == (1, 3, 1)


def test_reloads_are_told(seen: Watched) -> None:
    """A reload shows for a moment, one that was refused too; a file that makes no sense differs until it does."""
    shown_in_the_outage_only(seen, "Settings read anew", outcome="applied")
    shown_in_the_outage_only(seen, "Settings read anew", outcome="refused")
    assert asked(seen, "Settings that differ from the file") == (0, 1, 0)


def test_rare_events_are_counted_exactly(seen: Watched) -> None:
    """What happens once is told as one, also when it is the first thing that ever happened."""
    queries = {title: query.replace("$__rate_interval", "30s") for title, query in QUERIES}
    changes = {
        (facts["resilience_circuit_breaker_from"], facts["resilience_circuit_breaker_to"]): count
        for labels, count in seen.at(queries["Changes of the circuits' states"], OUTAGE_AT).items()
        if (facts := dict(labels))
    }
    assert changes["closed", "open"] == 1
    assert list(seen.at(queries["Gates closed"], OUTAGE_AT).values()) == [1]


def test_the_choices_at_the_top_are_filled(seen: Watched) -> None:
    """What can be chosen at the dashboard's top are the jobs and providers that there are."""
    assert seen.values_of("resilience_provider", names.CALLS.prometheus) == PROVIDERS
    assert seen.values_of("job", names.CALLS.prometheus) == {"shop"}


def firing(seen: Watched, at: float) -> set[tuple[str, str]]:
    """Which alerts were on: their names, and what they are about."""
    found = [dict(labels) for labels in seen.at('ALERTS{alertstate="firing"}', at)]
    return {
        (labels["alertname"], labels.get("resilience_provider") or labels["resilience_component"]) for labels in found
    }


def test_no_alert_is_on_while_all_is_well(seen: Watched) -> None:
    """Nobody is called for a provider that fails once in a hundred times."""
    assert firing(seen, HEALTHY_AT) == set()


def test_alerts_are_on_during_the_outage(seen: Watched) -> None:
    """Each trouble calls for its own provider, and for no other."""
    assert firing(seen, OUTAGE_AT) == {
        ("CircuitOpen", "s3"),
        ("HealthFailing", "database"),
        ("RetryStorm", "openai"),
        ("ExcessiveTimeouts", "openai"),
        ("RetryBudgetExhausted", "openai"),
        ("FailuresRising", "openai"),
        ("HighRejection", "scanner"),
        ("GateClosedLong", "webhook"),
        ("SlowCalls", "scanner"),
        ("SlowCalls", "mailer"),
    }


def test_alerts_are_off_when_all_is_well_again(seen: Watched) -> None:
    """Nobody has to switch an alert off."""
    assert firing(seen, RECOVERED_AT) == set()


@pytest.mark.parametrize("rule", alerts()["groups"][0]["rules"], ids=lambda rule: rule["alert"])
def test_rules_can_be_evaluated_as_they_are_delivered(seen: Watched, rule: dict[str, str]) -> None:
    """Prometheus takes each rule as it stands, and in the short form that this test runs."""
    seen.at(rule["expr"], OUTAGE_AT)
    seen.at(faster(rule["expr"]), OUTAGE_AT)
