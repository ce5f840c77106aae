"""
How a process is, for those who run it: checks, a report, and an ASGI app that answers probes.

::

    from resilience.health import Health

    health = Health()
    health.add("database", lambda: fetch("select 1"), critical=True)
    app = health.app()

Which component decides what stands in `resilience.health.components`.
"""

from __future__ import annotations

from resilience.health.app import HealthApp
from resilience.health.components import Component, Report, Status
from resilience.health.health import Health, healths

__all__ = ["Component", "Health", "HealthApp", "Report", "Status", "healths"]
