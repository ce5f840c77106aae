"""The page on telemetry says what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from resilience._core.histogram import BOUNDS
from resilience.telemetry import names
from resilience.telemetry._collect import MOST_PROVIDERS

PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"
TEXT = PAGE.read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_documented(metric: names.Metric) -> None:
    """Each metric has a row with its unit, its attributes, its name in Prometheus and how several become one."""
    attributes = ", ".join(f"`{one.removeprefix('resilience.')}`" for one in metric.attributes) or "none"
    several = "largest" if metric.merged is names.Merged.MAX else "sum"
    what = f"`{metric.name}`: {metric.description}"
    assert f"| {what} | `{metric.unit}` | {attributes} | `{metric.prometheus}` | {several} |\n" in TEXT


def test_no_other_metric_is_documented() -> None:
    """The page has no row for a metric that is no more."""
    assert re.findall(r"^\| `(resilience\.[a-z_.]+)`:", TEXT, re.MULTILINE) == [one.name for one in names.METRICS]


def test_figures() -> None:
    """The bounds that the page names are those in the code."""
    assert MOST_PROVIDERS == 1024
    assert BOUNDS == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


def test_examples_are_there() -> None:
    """The page shows how to set up, to join, to wrap an exporter and to serve."""
    assert len(EXAMPLES) >= 4


@pytest.mark.real_time
def test_examples_run() -> None:
    """What the page shows runs as it stands, each in a process of its own, with nobody there to take what is sent."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", example.replace("localhost:4318", "localhost:1")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_METRIC_EXPORT_TIMEOUT": "1000"},
        )
        for example in EXAMPLES
    ]  # fmt: skip
    for run in runs:
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors
        assert "Traceback" not in errors
