"""The files for Grafana, Prometheus and whoever is on call."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from resilience.monitoring import alerts, alerts_yaml, dashboard, dashboard_json, runbook
from resilience.monitoring.panels import ROWS
from resilience.monitoring.rules import ALERTS, Severity
from resilience.monitoring.runbook import PAGES
from resilience.telemetry import names

ROOT = Path(__file__).parents[2]
PANELS = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def test_the_file_of_rules_says_what_the_rules_say() -> None:
    """The rule file, which is written without a library, reads back as what was meant."""
    assert yaml.safe_load(alerts_yaml()) == alerts()


def test_the_file_of_the_dashboard_says_what_the_dashboard_says() -> None:
    """The dashboard's file reads back as what was meant."""
    assert json.loads(dashboard_json()) == dashboard()


def test_the_page_of_alerts_is_up_to_date() -> None:
    """The runbook in the documentation is what the source says: `nox -s pages` writes it."""
    assert (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8") == runbook()


@pytest.mark.parametrize("rule", alerts()["groups"][0]["rules"], ids=lambda rule: rule["alert"])
def test_alerts_say_what_is_needed(rule: dict[str, Any]) -> None:
    """Each alert has a severity, a time, a line, a sentence with figures and a chapter of the runbook."""
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in set(Severity)
    assert re.fullmatch(r"\d+[sm]", rule["for"])
    notes = rule["annotations"]
    assert len(re.sub(r"\{\{.*?\}\}", "12345678", notes["summary"])) < 80
    assert "{{ $labels." in notes["summary"]
    assert "{{ $labels.job }}" in notes["description"]
    page, _, anchor = notes["runbook_url"].partition("#")
    assert (ROOT / page).exists()
    assert anchor in {line[3:].lower() for line in runbook().splitlines() if line.startswith("## ")}


def test_critical_is_what_must_wake_somebody_up() -> None:
    """An open circuit and failing health are critical, and nothing else is."""
    assert [alert.name for alert in ALERTS if alert.severity is Severity.CRITICAL] == ["CircuitOpen", "HealthFailing"]


def test_texts_name_labels_that_the_query_keeps() -> None:
    """Whatever label a text of an alert quotes survives the alert's query: it is never empty on a telephone."""
    for alert in ALERTS:
        quoted = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
        outermost = re.search(r"by \(([^)]*)\)", alert.query)
        assert outermost
        assert quoted <= set(outermost[1].split(","))


def test_the_runbook_can_be_elsewhere() -> None:
    """Alerts point to the copy of the runbook that whoever is on call can open."""
    rules = alerts(runbook="https://wiki.example/alerts")["groups"][0]["rules"]
    assert rules[0]["annotations"]["runbook_url"] == "https://wiki.example/alerts#circuitopen"


def test_the_runbook_has_a_page_for_each_alert() -> None:
    """Every alert has its page, and every page its alert."""
    assert set(PAGES) == {alert.name for alert in ALERTS}


def test_the_runbook_speaks_of_panels_that_exist() -> None:
    """What the runbook sends its reader to is on the dashboard."""
    titles = {panel.title for row in ROWS for panel in row.panels} | {row.title for row in ROWS}
    for page in PAGES.values():
        text = f"{page.meaning} {page.doing} {page.look} {page.act}"
        assert set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*", text)) <= titles


def test_panels_do_not_overlap() -> None:
    """No panel lies on another, none leaves the page, and no two have the same number."""
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in everything], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y


def test_every_query_of_the_dashboard_follows_the_choice_at_its_top() -> None:
    """Choosing a job or a provider changes every panel, and each panel asks the chosen data source."""
    offered = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert offered == {"datasource", "job", "provider"}
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            selectors = re.findall(r"(resilience_\w+)\{([^}]*)\}", target["expr"])
            assert selectors
            for name, matchers in selectors:
                assert 'job=~"$job"' in matchers
                of_a_provider = next(
                    names.PROVIDER in metric.attributes
                    for metric in names.METRICS
                    if name.startswith(metric.prometheus)
                )
                assert ('resilience_provider=~"$provider"' in matchers) == of_a_provider


def test_legends_name_labels_that_the_query_keeps() -> None:
    """A series is never called by a label that its query has thrown away."""
    for panel in PANELS:
        for target in panel["targets"]:
            quoted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = re.search(r"by \(([^)]*)\)", target["expr"])
            assert quoted <= set(kept[1].split(",") if kept else ())


def test_every_panel_says_how_to_read_it() -> None:
    """Each panel has a title of its own and a sentence on how to read it."""
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    assert all(panel["description"].endswith(".") for panel in PANELS)
