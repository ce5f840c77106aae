"""``resilience dashboards``, ``alerts`` and ``bench``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from resilience import monitoring
from resilience.cli import bench

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_the_dashboard_goes_to_stdout_or_to_a_file(in_process: Command, tmp_path: Path) -> None:
    """What is written is the dashboard, ready to import."""
    assert json.loads(in_process("dashboards").stdout) == monitoring.dashboard()
    assert json.loads(in_process("dashboards", "-o", "-").stdout) == monitoring.dashboard()
    path = tmp_path / "dashboard.json"
    assert in_process("dashboards", "-o", path).stdout == ""
    assert json.loads(path.read_text(encoding="utf-8")) == monitoring.dashboard()


def test_the_alerts_as_yaml_and_as_json(in_process: Command, tmp_path: Path) -> None:
    """Prometheus reads YAML; JSON says the same."""
    path = tmp_path / "alerts.yaml"
    assert in_process("alerts", "--output", path).returncode == 0
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == monitoring.alerts()
    assert json.loads(in_process("alerts", "--json").stdout) == monitoring.alerts()


def test_alerts_lead_to_your_copy_of_the_runbook(in_process: Command) -> None:
    """The address of the runbook can be chosen."""
    written = in_process("alerts", "--runbook-url", "https://wiki.example/alerts").stdout
    assert "https://wiki.example/alerts#" in written
    assert "docs/alerts.md" not in written


def test_the_runbook_is_there_for_those_without_the_source(in_process: Command) -> None:
    """The page itself can be written, to be put where alerts lead to."""
    assert in_process("alerts", "--runbook").stdout == monitoring.runbook()


def test_a_file_that_cannot_be_written_is_no_traceback(in_process: Command, tmp_path: Path) -> None:
    """A folder that is not there is told by its name."""
    done = in_process("schema", "--output", tmp_path / "no" / "schema.json")
    assert done.returncode == 2
    assert "schema.json" in done.stderr


def test_the_benchmark_is_run_in_the_checkout(
    in_process: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a checkout, or anywhere below, it runs with what stands behind the dashes; its exit code is ours."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "below").mkdir()
    (tmp_path / "pyproject.toml").write_text('name = "resilient-providers"')
    (tmp_path / "benchmarks" / "__init__.py").write_text("")
    (tmp_path / "benchmarks" / "__main__.py").write_text("import sys; sys.exit(len(sys.argv))")
    monkeypatch.chdir(tmp_path / "below")
    assert in_process("bench", "--", "--check", "--quick").returncode == 3


def test_without_a_checkout_it_says_so(in_process: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installed from a wheel, there is no benchmark; a folder of that name in another project is not taken for it."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench.resilience, "__path__", [str(tmp_path / "resilience")])
    done = in_process("bench")
    assert done.returncode == 2
    assert "run it in a checkout" in done.stderr
