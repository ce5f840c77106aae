"""
Each change of a circuit's state as a span.

A transition is a trace of its own, linked to the call that caused it: it belongs to the provider, not to the
one request that happened to be the last straw. A sampler that keeps few traces keeps few transitions; it can
recognise them by their name and keep them all.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING, final

from resilience.events import CircuitChanged, Event
from resilience.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer, TracerProvider


@final
class TransitionSpans:
    """
    A listener that records each `CircuitChanged` as a span ``circuit_breaker.transition`` without length.

    Args:
        tracer_provider: Who makes the spans. Default: None, the application's global one, looked up when the first
            circuit changes; as long as nothing has loaded OpenTelemetry there is none, and nothing is done.
    """

    __slots__ = ("_provider", "_tracer")

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._provider = tracer_provider
        self._tracer: Tracer | None = None

    def __call__(self, event: Event) -> None:
        """Record *event* if it is a change of state."""
        if isinstance(event, CircuitChanged) and (self._provider is not None or _loaded()):
            self._record(event)

    def _record(self, event: CircuitChanged) -> None:
        from opentelemetry.context import Context

        if self._tracer is None:
            self._tracer = self._make_tracer()
        moment = round(event.time * 1e6) * 1000  # a float tells no more than microseconds of our days
        span = self._tracer.start_span(
            names.TRANSITION_SPAN,
            context=Context(),
            attributes=_attributes(event),
            links=_cause(),
            start_time=moment,
        )
        span.end(moment)

    def _make_tracer(self) -> Tracer:
        from opentelemetry import trace

        # Before the application has set a provider this is a proxy, which finds it later.
        return trace.get_tracer(names.SCOPE, _version(), self._provider, names.SCHEMA_URL)


def current_trace_id() -> str | None:
    """Return the id of the current trace in hexadecimal, or None if there is none."""
    if not _loaded():
        return None
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def _loaded() -> bool:
    # Whoever wants spans has loaded it by now; loading it here would stall the event loop, for nobody.
    return "opentelemetry.trace" in sys.modules


def _attributes(event: CircuitChanged) -> dict[str, str | float]:
    attributes: dict[str, str | float] = {
        names.PROVIDER: event.provider,
        names.FROM: event.before.value,
        names.TO: event.after.value,
        names.REASON: event.reason,
        names.FIGURES: event.figures,
    }
    if event.operation:
        attributes[names.OPERATION] = event.operation
    if event.retry_after is not None:
        attributes[names.RETRY_AFTER] = event.retry_after
    return attributes


def _cause() -> list[Link]:
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return [trace.Link(context)] if context.is_valid else []


def _version() -> str:
    try:
        return metadata.version("resilient-providers")
    except metadata.PackageNotFoundError:  # copied into another project instead of installed
        return ""
