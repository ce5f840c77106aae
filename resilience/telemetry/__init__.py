"""
OpenTelemetry, through its API: the application chooses the SDK, or none.

Importing this loads nothing of OpenTelemetry, and nothing is done until the application itself has loaded it.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from resilience.events import process_bus
from resilience.telemetry.scope import Scope as Scope
from resilience.telemetry.spans import TRANSITIONS, transitions
from resilience.telemetry.spans import TransitionSpans as TransitionSpans
from resilience.telemetry.spans import current_trace_id as current_trace_id

if TYPE_CHECKING:
    from resilience.telemetry._configure import Telemetry as Telemetry
    from resilience.telemetry._configure import configure as configure
    from resilience.telemetry._configure import shutdown as shutdown
    from resilience.telemetry._instrument import instrument as instrument
    from resilience.telemetry._instrument import uninstrument as uninstrument

__all__ = [
    "Scope",
    "Telemetry",
    "TransitionSpans",
    "configure",
    "current_trace_id",
    "install",
    "instrument",
    "shutdown",
    "uninstrument",
]

_LATER = {
    **dict.fromkeys(("Telemetry", "configure", "shutdown"), "_configure"),
    **dict.fromkeys(("instrument", "uninstrument"), "_instrument"),
}
"""What is only loaded when somebody asks for it, because it loads OpenTelemetry."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


@cache
def install() -> None:
    """Record the state changes of this process's providers as spans; done once, however often it is called."""
    process_bus.subscribe(transitions, *TRANSITIONS)
