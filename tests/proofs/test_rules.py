"""Each alert fires when it should and is silent when it should be: Prometheus itself judges, on time that we write."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resilience import CircuitState, Reason
from resilience.monitoring import alerts, alerts_yaml
from resilience.telemetry import names as n
from resilience.telemetry.names import Metric, label

RULES = {rule["alert"]: rule for rule in alerts()["groups"][0]["rules"]}
S3 = {"resilience_provider": "s3"}


def series(
    metric: Metric, values: str, attributes: Mapping[str, str], part: str = "", pod: str = "1"
) -> dict[str, str]:
    """One series as it is scraped; *values* in promtool's notation, one for each minute."""
    assert set(attributes) <= set(metric.attributes)
    labels = {"job": "shop", "instance": pod} | {label(key): value for key, value in attributes.items()}
    if n.PROVIDER in metric.attributes:
        labels |= S3
    written = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{metric.prometheus}{part}{{{written}}}", "values": values}


def calls(values: str, outcome: str = "success", kind: str = "") -> dict[str, str]:
    return series(n.CALLS, values, {n.OUTCOME: outcome, n.KIND: kind})


def state(name: CircuitState, values: str, pod: str = "1") -> dict[str, str]:
    return series(n.BREAKER_STATE, values, {n.STATE: name}, pod=pod)


def health(status: str, values: str) -> dict[str, str]:
    return series(n.HEALTH_STATUS, values, {n.COMPONENT: "database", n.STATUS: status})


def closings(values: str, pod: str = "1") -> dict[str, str]:
    changed = {n.FROM: CircuitState.HALF_OPEN, n.TO: CircuitState.CLOSED, n.REASON: "recovered"}
    return series(n.TRANSITIONS, values, changed, pod=pod)


def retries(values: str, decision: str = "retried") -> dict[str, str]:
    return series(n.RETRIES, values, {n.KIND: "timeout", n.DECISION: decision})


def attempts(values: str) -> dict[str, str]:
    return series(n.ATTEMPT_DURATION, values, {n.OUTCOME: "success"}, "_count")


def rejections(values: str, reason: Reason, mode: str = "enforce") -> dict[str, str]:
    return series(n.REJECTIONS, values, {n.REASON: reason, n.MODE: mode})


@dataclass
class Case:
    """
    What is scraped, and whether an alert is on then.

    Args:
        alert: Which one.
        about: What happens.
        given: What is scraped, minute by minute.
        at: When to look, in minutes.
        fires: What the alert is labelled with beside its severity and job; None: it is silent.
        value: The figure in its texts.
    """

    alert: str
    about: str
    given: list[dict[str, str]]
    at: int
    fires: dict[str, str] | None
    value: str = ""


CASES = [
    Case("CircuitOpen", "open for five minutes", [state(CircuitState.OPEN, "0x4 1x10")], 8, S3),
    Case("CircuitOpen", "open in one of two processes",
         [state(CircuitState.OPEN, "1x10"), state(CircuitState.OPEN, "0x10", pod="2")], 5, S3),
    Case("CircuitOpen", "half open for a moment at every scrape but one",
         [state(CircuitState.OPEN, "0 1 1 0 1 1 1")], 2, S3),
    Case("CircuitOpen", "closed", [state(CircuitState.OPEN, "0x10"), state(CircuitState.CLOSED, "1x10")], 8, None),
    Case("CircuitOpen", "opened less than a minute ago", [state(CircuitState.OPEN, "0x4 1x10")], 5, None),
    Case("CircuitOpen", "recovered", [state(CircuitState.OPEN, "1x5 0x10")], 8, None),
    Case("CircuitOpen", "opened by hand", [state(CircuitState.FORCED_OPEN, "1x10"), state(CircuitState.OPEN, "0x10")],
         8, None),

    Case("HealthFailing", "failing for five minutes", [health("fail", "0x2 1x10")], 8,
         {"resilience_component": "database"}),
    Case("HealthFailing", "degraded only", [health("fail", "0x10"), health("warn", "1x10")], 8, None),
    Case("HealthFailing", "failing for one minute", [health("fail", "0x6 1x10")], 8, None),

    Case("CircuitFlapping", "closed every four minutes", [closings("0x3 1x3 2x3 3x3 4x3 5x20")], 19, S3, "3"),
    Case("CircuitFlapping", "closed once after an outage", [closings("0x5 1x20")], 20, None),
    Case("CircuitFlapping", "each of ten processes closed once after an outage",
         [closings("0x5 1x20", pod=str(pod)) for pod in range(10)], 20, None),

    Case("RetryStorm", "a retry for every fifth call", [calls("0+600x20"), retries("0+120x20")], 15, S3, "20%"),
    Case("RetryStorm", "a retry for every fiftieth call", [calls("0+600x20"), retries("0+12x20")], 15, None),
    Case("RetryStorm", "a retry for each of four calls a minute", [calls("0+4x20"), retries("0+4x20")], 15, None),
    Case("RetryStorm", "attempts that were not retried",
         [calls("0+600x20"), retries("0+600x20", Reason.NOT_RETRYABLE)], 15, None),

    Case("ExcessiveTimeouts", "a quarter of the attempts",
         [attempts("0+600x20"), series(n.TIMEOUTS, "0+150x20", {})], 15, S3, "25%"),
    Case("ExcessiveTimeouts", "one of a hundred attempts",
         [attempts("0+600x20"), series(n.TIMEOUTS, "0+6x20", {})], 15, None),
    Case("ExcessiveTimeouts", "a single one, of two attempts",
         [attempts("0x3 2x20"), series(n.TIMEOUTS, "0x3 1x20", {})], 6, None),

    Case("RetryBudgetExhausted", "twelve a minute",
         [retries("0+12x20", Reason.RETRY_BUDGET_EXHAUSTED)], 15, S3, "60"),
    Case("RetryBudgetExhausted", "retried as the budget allows",
         [retries("0+60x20"), retries("0x20", Reason.RETRY_BUDGET_EXHAUSTED)], 15, None),
    Case("RetryBudgetExhausted", "once in a while", [retries("0x5 1x20", Reason.RETRY_BUDGET_EXHAUSTED)], 10, None),

    Case("HighRejection", "half of the calls, by a full bulkhead",
         [calls("0+300x20"), calls("0+300x20", "rejected"), rejections("0+300x20", Reason.BULKHEAD_FULL)],
         15, S3 | {"resilience_reason": "bulkhead_full"}, "50%"),
    Case("HighRejection", "one call in a hundred",
         [calls("0+594x20"), calls("0+6x20", "rejected"), rejections("0+6x20", Reason.BULKHEAD_FULL)], 15, None),
    Case("HighRejection", "in shadow mode only",
         [calls("0+600x20"), rejections("0+300x20", Reason.BULKHEAD_FULL, "shadow")], 15, None),
    Case("HighRejection", "by an open circuit, which has its own alert",
         [calls("0+300x20"), calls("0+300x20", "rejected"), rejections("0+300x20", Reason.CIRCUIT_OPEN)], 15, None),

    Case("GateClosedLong", "closed again and again", [series(n.GATE_CLOSED_FOR, "0x2 30x15", {})], 12, S3, "30s"),
    Case("GateClosedLong", "closed for a minute", [series(n.GATE_CLOSED_FOR, "0x5 30 0x10", {})], 12, None),
    Case("GateClosedLong", "closed for three minutes so far", [series(n.GATE_CLOSED_FOR, "0x8 30x15", {})], 12, None),

    Case("SlowCalls", "two thirds of the calls", [series(n.SLOW_RATE, "0.66x20", {})], 12, S3, "66%"),
    Case("SlowCalls", "a fifth of the calls", [series(n.SLOW_RATE, "0.2x20", {})], 12, None),
    Case("SlowCalls", "two thirds, for two minutes", [series(n.SLOW_RATE, "0x10 0.66x20", {})], 12, None),

    Case("FailuresRising", "from none to a fifth of the calls",
         [calls("0+480x120"), calls("0x80 0+120x40", "failure", "authentication_error")],
         105, S3 | {"resilience_kind": "authentication_error"}, "20%"),
    Case("FailuresRising", "a kind that was never there before",
         [calls("0+480x120"), calls("_x80 0+120x40", "failure", "dns_error")],
         105, S3 | {"resilience_kind": "dns_error"}, "20%"),
    Case("FailuresRising", "a fifth of the calls, as ever",
         [calls("0+480x120"), calls("0+120x120", "failure", "authentication_error")], 105, None),
    Case("FailuresRising", "from none to a hundredth of the calls",
         [calls("0+594x120"), calls("0x80 0+6x40", "failure", "bad_request")], 105, None),
]  # fmt: skip


def filled(text: str, labels: Mapping[str, str], value: str) -> str:
    """An alert's text as it arrives."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), text)
    return re.sub(r"\{\{ \$value \| \w+ \}\}", value, text)


def expected(case: Case) -> list[dict[str, Any]]:
    """What promtool is told to expect: all labels, and all texts as they arrive."""
    if case.fires is None:
        return []
    rule = RULES[case.alert]
    labels = {"job": "shop", "severity": rule["labels"]["severity"], **case.fires}
    notes = {key: filled(text, labels, case.value) for key, text in rule["annotations"].items()}
    return [{"exp_labels": labels, "exp_annotations": notes}]


def judged(case: Case, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yml").write_text(alerts_yaml(), encoding="utf-8")
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "30s",
        "tests": [{
            "interval": "1m",
            "input_series": case.given,
            "alert_rule_test": [
                {"eval_time": f"{case.at}m", "alertname": case.alert, "exp_alerts": expected(case)}
            ],
        }],
    }  # fmt: skip
    (folder / "test.yml").write_text(json.dumps(test), encoding="utf-8")
    return subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.about}")
def test_alerts_fire_when_they_should_and_only_then(case: Case, tmp_path: Path) -> None:
    """Prometheus finds the alert on or off at that time, with these labels and texts."""
    judgement = judged(case, tmp_path)
    assert judgement.returncode == 0, judgement.stdout + judgement.stderr


def test_every_alert_is_tried_both_ways() -> None:
    """No alert is there that was never seen on, or never seen off."""
    for name in RULES:
        fires = [case.fires is not None for case in CASES if case.alert == name]
        assert True in fires
        assert False in fires


def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    """Prometheus's own check of the rule file finds nothing to say."""
    (tmp_path / "rules.yml").write_text(alerts_yaml(), encoding="utf-8")
    check = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", "rules.yml"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr
    assert f"{len(RULES)} rules found" in check.stdout
