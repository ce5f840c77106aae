"""
OpenTelemetry, through its API: the application chooses the SDK, or none.

Importing this loads nothing of OpenTelemetry, and nothing is done until the application itself has loaded it.
"""

from __future__ import annotations

from functools import cache

from resilience.events import process_bus
from resilience.telemetry.spans import TRANSITIONS
from resilience.telemetry.spans import TransitionSpans as TransitionSpans
from resilience.telemetry.spans import current_trace_id as current_trace_id

__all__ = ["TransitionSpans", "current_trace_id", "install"]


@cache
def install() -> None:
    """Record the state changes of this process's providers as spans; done once, however often it is called."""
    process_bus.subscribe(TransitionSpans(), *TRANSITIONS)
