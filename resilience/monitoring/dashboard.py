"""The dashboard for Grafana, as its schema wants it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any, Final, TypeAlias

from resilience.monitoring.panels import ASK, ROWS, Kind, Panel, Query, Row
from resilience.monitoring.queries import JOB
from resilience.telemetry.names import CALLS, PROVIDER, TO, TRANSITIONS, label

Json: TypeAlias = dict[str, Any]

UID: Final = "resilience"
TITLE: Final = "Resilience"
_SCHEMA: Final = 39  # Grafana 11; later ones bring it up to date by themselves
_WIDTH: Final = 24
_HEIGHTS: Final = {Kind.LINES: 8, Kind.FIGURE: 4, Kind.STATES: 7}
_SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
_COLOURS_OF_STATES: Final = {
    "closed": "green", "disabled": "blue", "half_open": "yellow", "open": "red", "forced_open": "purple",
    "pass": "green", "warn": "yellow", "fail": "red",
}  # fmt: skip


def dashboard() -> Json:
    """
    Return the dashboard, as Grafana imports it.

    At its top one chooses the data source, the jobs and the providers.
    """
    return {
        "uid": UID,
        "title": TITLE,
        "description": "What fails, since when, why, and what is being done about it.",
        "tags": ["resilience"],
        "schemaVersion": _SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": [_openings()]},
        "links": [],
        "panels": list(_laid_out()),
    }


def dashboard_json() -> str:
    """Return the dashboard as a file for Grafana."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def _variables() -> list[Json]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        _chosen(JOB, "Job", f"label_values({CALLS.prometheus}, {JOB})"),
        _chosen("provider", "Provider", f'label_values({CALLS.prometheus}{{{JOB}=~"$job"}}, {label(PROVIDER)})'),
    ]


def _chosen(name: str, title: str, query: str) -> Json:
    """Let values of a label be chosen; all of them to begin with."""
    return {
        "name": name,
        "label": title,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # whenever the time range changes: providers come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _openings() -> Json:
    """Mark on every panel when a circuit opened."""
    return {
        "name": "Circuits opened",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "target": {"refId": "A", "expr": f"{ASK.happened(TRANSITIONS, PROVIDER, only={TO: 'open'})} > 0"},
    }


def _laid_out() -> Iterator[Json]:
    """Put the panels side by side, and below where the line is full."""
    numbers, y = count(1), 0
    for row in ROWS:
        yield {
            "id": next(numbers), "type": "row", "title": row.title, "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1}, "panels": [],
        }  # fmt: skip
        y += 1
        for line in _lines(row):
            x, height = 0, max(_HEIGHTS[panel.kind] for panel in line)
            for panel in line:
                yield _panel(panel, next(numbers), {"x": x, "y": y, "w": panel.width, "h": height})
                x += panel.width
            y += height


def _lines(row: Row) -> Iterator[list[Panel]]:
    line: list[Panel] = []
    for panel in row.panels:
        if sum(one.width for one in line) + panel.width > _WIDTH:
            yield line
            line = []
        line.append(panel)
    yield line


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [_target(query, "ABCDEF"[index]) for index, query in enumerate(panel.queries)],
        "options": _options(panel),
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
    }


def _target(query: Query, letter: str) -> Json:
    return {
        "refId": letter,
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": query.text,
        "legendFormat": query.legend or "__auto",
        "range": True,
    }


def _options(panel: Panel) -> Json:
    legend: Json = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    tooltip = {"mode": "multi", "sort": "desc"}
    if panel.kind is Kind.LINES:
        return {"legend": legend, "tooltip": tooltip}
    if panel.kind is Kind.STATES:
        look = {"mergeValues": True, "showValue": "auto", "alignValue": "left", "rowHeight": 0.8}
        return {**look, "legend": legend, "tooltip": tooltip}
    return {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "colorMode": "background",
        "graphMode": "area",
        "justifyMode": "auto",
        "textMode": "value",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "orientation": "auto",
    }


def _defaults(panel: Panel) -> Json:
    """Say how values are written and coloured."""
    defaults: Json = {"unit": panel.unit, "min": 0, "mappings": _mappings(panel)}
    if panel.unit == "percentunit":
        defaults["max"] = 1
    if panel.kind is Kind.LINES:
        area = (
            {"fillOpacity": 30, "stacking": {"mode": "normal", "group": "A"}} if panel.stacked else {"fillOpacity": 0}
        )
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "showPoints": "never", "spanNulls": False, **area}
    if panel.kind is Kind.STATES:
        defaults["custom"] = {"fillOpacity": 70, "lineWidth": 0}
    if panel.kind is Kind.FIGURE:
        defaults["color"] = {"mode": "thresholds"}
        defaults["thresholds"] = {"mode": "absolute", "steps": _steps(panel.limit)}
    return defaults


def _steps(limit: float | None) -> list[Json]:
    if limit is None:
        return [{"value": None, "color": "blue"}]
    below, above = ("green", "red") if limit > 0 else ("red", "green")
    return [{"value": None, "color": below}, {"value": abs(limit), "color": above}]


def _mappings(panel: Panel) -> list[Json]:
    """Write states by their names."""
    texts = {
        str(code): {"text": state.replace("_", " "), "color": _COLOURS_OF_STATES[state], "index": code}
        for state, code in panel.codes
    }
    return [{"type": "value", "options": texts}] if texts else []
