"""``resilience dashboards`` and ``resilience alerts``: files for Grafana and Prometheus."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Final

import typer

from resilience.cli import options
from resilience.cli.screen import write

_PAGE: Final = "docs/alerts.md"


def dashboards(*, output: options.Output = None) -> None:
    """
    Write the dashboard for Grafana.

    Import it there, or put it where Grafana is provisioned from. It asks for the very metrics that are exported.
    """
    from resilience.monitoring import dashboard_json

    write(dashboard_json(), output)


def alerts(
    *,
    output: options.Output = None,
    runbook: Annotated[
        bool, typer.Option("--runbook", help="Write the page that tells what to do about each alert, in Markdown.")
    ] = False,
    runbook_url: Annotated[
        str, typer.Option("--runbook-url", help="Where your copy of that page is; alerts lead there.")
    ] = _PAGE,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, which is YAML as well.")] = False,
) -> None:
    """
    Write the alert rules for Prometheus.

    Name the file under rule_files in its configuration, or wrap it as a PrometheusRule.
    """
    from resilience import monitoring

    if runbook:
        write(monitoring.runbook(), output)
    elif json:
        write(json_format.dumps(monitoring.alerts(runbook=runbook_url), indent=2) + "\n", output)
    else:
        write(monitoring.alerts_yaml(runbook=runbook_url), output)
