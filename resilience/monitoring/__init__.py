"""
Dashboard, alerts and runbook, made from the names of the metrics, so that they cannot ask for what is not measured.

They are text for other programs, Grafana and Prometheus, which this package neither needs nor talks to.
"""

from __future__ import annotations

from resilience.monitoring.alerts import alerts as alerts
from resilience.monitoring.alerts import alerts_yaml as alerts_yaml
from resilience.monitoring.dashboard import dashboard as dashboard
from resilience.monitoring.dashboard import dashboard_json as dashboard_json
from resilience.monitoring.runbook import runbook as runbook

__all__ = ["alerts", "alerts_yaml", "dashboard", "dashboard_json", "runbook"]
