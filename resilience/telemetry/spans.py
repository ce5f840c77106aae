"""
Each change of state as a span: of a circuit, of a gate, of the settings.

A transition is a trace of its own, linked to the call that caused it: it belongs to the provider, not to the
one request that happened to be the last straw. A sampler that keeps few traces keeps few transitions; it can
recognise them by their names and keep them all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from resilience.events import CircuitChanged, Event, GateClosed, SettingsRefused, SettingsReloaded
from resilience.telemetry import names
from resilience.telemetry._version import version

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer, TracerProvider

_Attributes: TypeAlias = dict[str, str | bool | int | float | Sequence[str]]

MOST_CHANGES: Final = 100
"""How many changed settings are told one by one."""


@final
class TransitionSpans:
    """
    A listener that records each change of state as a span without length.

    They are called ``circuit_breaker.transition``, ``gate.closed``, ``settings.reloaded`` and ``settings.refused``;
    the last has the status error.

    Args:
        tracer_provider: Who makes the spans. Default: None, the application's global one, looked up when the first
            state changes; as long as nothing has loaded OpenTelemetry there is none, and nothing is done.
    """

    __slots__ = ("_provider", "_tracer")

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self.use(tracer_provider)

    def use(self, tracer_provider: TracerProvider | None) -> None:
        """Let *tracer_provider* make the spans from now on; None: the application's global one."""
        self._provider = tracer_provider
        self._tracer: Tracer | None = None

    def __call__(self, event: Event) -> None:
        """Record *event* if it is a change of state."""
        told = _TOLD.get(type(event))
        if told is not None and (self._provider is not None or loaded()):
            name, attributes_of = told
            self._record(name, attributes_of(event), event.time, failed=isinstance(event, SettingsRefused))

    def _record(self, name: str, attributes: _Attributes, time: float, *, failed: bool) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import StatusCode

        if self._tracer is None:
            self._tracer = make_tracer(self._provider)
        moment = nanoseconds(time)
        span = self._tracer.start_span(
            name, context=Context(), attributes=attributes, links=_cause(), start_time=moment
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(moment)


def make_tracer(tracer_provider: TracerProvider | None) -> Tracer:
    """Return what makes this library's spans."""
    from opentelemetry import trace

    # Before the application has set a provider this is a proxy, which finds it later.
    return trace.get_tracer(names.SCOPE, version(), tracer_provider, names.SCHEMA_URL)


def current_trace_id() -> str | None:
    """Return the id of the current trace in hexadecimal, or None if there is none."""
    if not loaded():
        return None
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def loaded() -> bool:
    """Whether the application has loaded OpenTelemetry: loading it here would stall the event loop, for nobody."""
    return "opentelemetry.trace" in sys.modules


def nanoseconds(time: float) -> int:
    """Return *time* as OpenTelemetry counts it. A float tells no more than microseconds of our days."""
    return round(time * 1e6) * 1000


def _circuit_changed(event: CircuitChanged) -> _Attributes:
    attributes = where(event)
    attributes |= {
        names.FROM: event.before.value,
        names.TO: event.after.value,
        names.REASON: event.reason,
        names.FIGURES: event.figures,
    }
    if event.retry_after is not None:
        attributes[names.RETRY_AFTER] = event.retry_after
    return attributes


def _gate_closed(event: GateClosed) -> _Attributes:
    return {**where(event), names.SECONDS: event.seconds, names.HINTED: event.hinted}


def _settings_reloaded(event: SettingsReloaded) -> _Attributes:
    return {names.SOURCE: event.source, names.CHANGES: told_changes(event)}


def _settings_refused(event: SettingsRefused) -> _Attributes:
    return {names.SOURCE: event.source, names.PROBLEM: event.problem}


def told_changes(event: SettingsReloaded) -> Sequence[str]:
    """Return what *event* has changed, in words; secrets are masked in it."""
    return [str(change) for change in event.changes[:MOST_CHANGES]]


def where(event: Event) -> _Attributes:
    """Return whose *event* is, as attributes."""
    known = {names.PROVIDER: event.provider, names.OPERATION: event.operation, names.VARIANT: event.variant}
    return {name: value for name, value in known.items() if value}


_TOLD: Final[Mapping[type[Event], tuple[str, Callable[[Any], _Attributes]]]] = {
    CircuitChanged: (names.TRANSITION_SPAN, _circuit_changed),
    GateClosed: (names.GATE_SPAN, _gate_closed),
    SettingsReloaded: (names.RELOAD_SPAN, _settings_reloaded),
    SettingsRefused: (names.REFUSAL_SPAN, _settings_refused),
}
TRANSITIONS: Final[tuple[type[Event], ...]] = tuple(_TOLD)
"""The events that become spans."""


def _cause() -> list[Link]:
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return [trace.Link(context)] if context.is_valid else []


transitions: Final = TransitionSpans()
"""The process's own, which `resilience.telemetry.install` lets listen."""
