"""Dashboard and alerts ask for what is measured, and for nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from resilience import CircuitState, FailureKind, Reason
from resilience.monitoring.panels import ROWS
from resilience.monitoring.queries import Queries
from resilience.monitoring.rules import ALERTS
from resilience.telemetry import names
from resilience.telemetry.names import METRICS, Instrument, Metric, label
from resilience.watching import End

METRIC = re.compile(r"\b(resilience_\w+?)(_bucket|_sum|_count)?\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
GROUPED = re.compile(r"(?:by|on) \(([^)]*)\)")
BY_NAME = {metric.prometheus: metric for metric in METRICS}
FROM_OUTSIDE = {"job", "instance", "le"}  # Prometheus's own labels, and those of histograms

# Metrics that the dashboard does not show, and why.
NOT_SHOWN: dict[str, str] = {}

WORDS = {
    names.OUTCOME: {*End, "applied", "unchanged", "refused"},
    names.REASON: set(Reason),
    names.KIND: set(FailureKind),
    names.STATE: set(CircuitState),
    names.FROM: set(CircuitState),
    names.TO: set(CircuitState),
    names.MODE: {"enforce", "shadow"},
    names.DECISION: {*Reason, "retried"},
    names.STATUS: {"pass", "warn", "fail"},
    names.VARIANT: {"", "a", "b"},
}
"""What attributes can be, where that is known beforehand."""


def queries() -> Iterator[tuple[str, str]]:
    for row in ROWS:
        for panel in row.panels:
            yield from ((panel.title, query.text) for query in panel.queries)
    yield from ((alert.name, alert.query) for alert in ALERTS)


QUERIES = list(queries())
EACH = pytest.mark.parametrize("text", [text for _, text in QUERIES], ids=[name for name, _ in QUERIES])


@EACH
def test_queries_ask_for_metrics_that_exist(text: str) -> None:
    """Each metric in a query is one of ours; of a histogram, and of nothing else, a part is asked for."""
    found = METRIC.findall(text)
    assert found
    for name, part, _ in found:
        metric = BY_NAME[name]
        assert bool(part) == (metric.instrument is Instrument.HISTOGRAM)


@EACH
def test_queries_use_labels_that_the_metric_has(text: str) -> None:
    """Each label in a query is an attribute of the metric it stands at, or was added when it was scraped."""
    for name, _, matchers in METRIC.findall(text):
        labels = {found for found, _, _ in MATCHER.findall(matchers)}
        assert labels <= {label(attribute) for attribute in BY_NAME[name].attributes} | FROM_OUTSIDE
    known = {label(attribute) for name, _, _ in METRIC.findall(text) for attribute in BY_NAME[name].attributes}
    for labels in GROUPED.findall(text):
        assert set(filter(None, labels.split(","))) <= known | FROM_OUTSIDE


@EACH
def test_queries_look_for_values_that_occur(text: str) -> None:
    """What a query compares an attribute with is a value that the attribute can have."""
    words = {label(attribute): values for attribute, values in WORDS.items()}
    for _, _, matchers in METRIC.findall(text):
        for found, _, value in MATCHER.findall(matchers):
            if found in words:
                assert set(value.split("|")) <= words[found]


@EACH
def test_braces_of_queries_are_balanced(text: str) -> None:
    """Every brace that is opened in a query is closed."""
    for opening, closing in ("()", "{}", "[]"):
        assert text.count(opening) == text.count(closing)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_on_the_dashboard(metric: Metric) -> None:
    """What is measured is shown, or the reason why not is written down."""
    shown = {name for row in ROWS for panel in row.panels for query in panel.queries
             for name, _, _ in METRIC.findall(query.text)}  # fmt: skip
    assert (metric.prometheus in shown) != (metric.name in NOT_SHOWN)


def test_a_query_for_what_is_not_measured_is_refused() -> None:
    """A query with an attribute that the metric does not have cannot even be made."""
    with pytest.raises(ValueError, match="not told apart by"):
        Queries("5m").rate(names.TIMEOUTS, names.KIND)
    with pytest.raises(ValueError, match="not told apart by"):
        Queries("5m").series(names.TIMEOUTS, {names.KIND: "timeout"})


def test_a_histogram_is_asked_for_by_its_parts() -> None:
    """A query for a histogram without saying which part of it cannot be made, nor one for a part of a counter."""
    with pytest.raises(ValueError, match="histogram"):
        Queries("5m").rate(names.CALL_DURATION)
    with pytest.raises(ValueError, match="histogram"):
        Queries("5m").rate(names.CALLS, suffix="_count")
