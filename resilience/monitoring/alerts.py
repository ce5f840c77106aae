"""The alerts for Prometheus, as a file of rules."""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias, cast

from resilience.monitoring.rules import ALERTS, Alert

Json: TypeAlias = dict[str, Any]

RUNBOOK: Final = "docs/alerts.md"
_INDENT: Final = "  "


def alerts(*, runbook: str = RUNBOOK) -> Json:
    """
    Return the rules, as a rule file of Prometheus holds them.

    Args:
        runbook: Where the runbook is to be found, as whoever gets an alert can open it: the address of your copy of
            the page. Default: its place in the source tree.
    """
    return {"groups": [{"name": "resilience", "rules": [_rule(alert, runbook) for alert in ALERTS]}]}


def alerts_yaml(*, runbook: str = RUNBOOK) -> str:
    """Return the rules as a rule file for Prometheus; *runbook* as for `alerts`."""
    return "\n".join(["# Made by `resilience alerts`.", *_yaml(alerts(runbook=runbook), "")]) + "\n"


def _rule(alert: Alert, runbook: str) -> Json:
    return {
        "alert": alert.name,
        "expr": alert.query,
        "for": alert.lasting,
        "labels": {"severity": alert.severity.value},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{runbook}#{alert.anchor}",
        },
    }


def _yaml(table: Json, indent: str) -> list[str]:
    """Write tables, lists and texts, which is all there is, without a library. Quoted texts are those of JSON."""
    lines: list[str] = []
    for key, item in table.items():
        if isinstance(item, dict):
            lines += [f"{indent}{key}:", *_yaml(cast(Json, item), indent + _INDENT)]
        elif isinstance(item, list):
            lines.append(f"{indent}{key}:")
            for one in cast(list[Json], item):
                first, *rest = _yaml(one, indent + _INDENT * 2)
                lines += [f"{indent}{_INDENT}- {first.strip()}", *rest]
        else:
            lines.append(f"{indent}{key}: {json.dumps(item, ensure_ascii=False)}")
    return lines
