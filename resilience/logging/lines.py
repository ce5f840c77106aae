"""Events become log records: one function for each kind of event, and the table that finds it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from resilience._core.states import CircuitState
from resilience.errors import Reason, leave
from resilience.events import (
    AttemptFailed,
    AttemptOverdue,
    AttemptTimedOut,
    CallFailed,
    CallRecovered,
    CallWasRejected,
    CallWouldBeRejected,
    CircuitChanged,
    Event,
    GateClosed,
    ProbeLost,
    RetryScheduled,
)
from resilience.failure import Category, FailureKind

FIELDS = (
    "component",
    "provider",
    "operation",
    "attempt",
    "delay",
    "kind",
    "duration_ms",
    "correlation_id",
    "reason",
)
"""The attributes of every record, so that a format string may name them: ``%(provider)s``. *delay* is in seconds."""

correlation_id: ContextVar[str | None] = ContextVar("resilience_correlation_id", default=None)
"""Set it where a request arrives, and the lines of all its calls carry it. Unset, they carry the current trace's id."""


def _no_trace() -> str | None:
    return None


trace_id: Callable[[], str | None] = _no_trace

_TOLD = "__resilience_told__"

_retry = logging.getLogger("resilience.retry")
_circuit = logging.getLogger("resilience.circuit")
_gate = logging.getLogger("resilience.gate")
_deadline = logging.getLogger("resilience.deadline")
_call = logging.getLogger("resilience.call")


def log_event(event: Event) -> None:
    """Write the log line of *event*, if its logger is listening."""
    write = _WRITERS.get(type(event))
    if write is not None:
        write(event)


def _retry_scheduled(event: RetryScheduled) -> None:
    if _retry.isEnabledFor(logging.INFO):
        fields = _fields("retry", event, attempt=event.attempt, delay=event.delay, kind=event.failure.kind.value)
        text = "[RETRY] attempt %d/%d of %s in %.2f s (%s)"
        _retry.info(
            text, event.attempt, event.max_attempts, _where(event), event.delay, event.failure.kind, extra=fields
        )


_QUIET_STATES = (CircuitState.CLOSED, CircuitState.HALF_OPEN)


def _circuit_changed(event: CircuitChanged) -> None:
    level = logging.INFO if event.after in _QUIET_STATES else logging.WARNING
    if _circuit.isEnabledFor(level):
        fields = _fields("circuit", event, delay=event.retry_after, reason=event.reason)
        text = "[CIRCUIT] %s: %s -> %s (%s)"
        _circuit.log(
            level, text, event.provider, event.before, event.after, event.figures or _words(event.reason), extra=fields
        )


def _probe_lost(event: ProbeLost) -> None:
    if _circuit.isEnabledFor(logging.WARNING):
        text = "[CIRCUIT] %s: a probe did not come back, its slot is free again"
        _circuit.warning(text, event.provider, extra=_fields("circuit", event))


def _gate_closed(event: GateClosed) -> None:
    if _gate.isEnabledFor(logging.WARNING):
        why = "asked by the provider" if event.hinted else "a growing pause: the provider named no time"
        text = "[GATE] %s: closed for %.1f s (%s)"
        _gate.warning(text, event.provider, event.seconds, why, extra=_fields("gate", event, delay=event.seconds))


def _attempt_timed_out(event: AttemptTimedOut) -> None:
    if not _deadline.isEnabledFor(logging.WARNING):
        return
    fields = _fields("deadline", event, attempt=event.attempt, kind="timeout", duration=event.duration)
    if event.scope == "attempt":
        text = "[TIMEOUT] attempt %d of %s after %.1f s (limit %g s)"
        _deadline.warning(text, event.attempt, _where(event), event.duration, event.limit, extra=fields)
    else:
        text = "[TIMEOUT] %s after %.1f s in attempt %d (limit %g s in all)"
        _deadline.warning(text, _where(event), event.duration, event.attempt, event.limit, extra=fields)


def _attempt_overdue(event: AttemptOverdue) -> None:
    if _deadline.isEnabledFor(logging.WARNING):
        text = "[OVERDUE] %s goes on %.1f s after it was interrupted: it swallows cancellation"
        _deadline.warning(text, _where(event), event.overdue, extra=_fields("deadline", event, duration=event.overdue))


def _attempt_failed(event: AttemptFailed) -> None:
    if _call.isEnabledFor(logging.DEBUG):
        kind = event.failure.kind.value
        fields = _fields("call", event, attempt=event.attempt, kind=kind, duration=event.duration)
        text = "[ATTEMPT] attempt %d of %s failed after %.2f s (%s)"
        _call.debug(text, event.attempt, _where(event), event.duration, kind, extra=fields)


def _call_failed(event: CallFailed) -> None:
    level = _severity(event)
    if _call.isEnabledFor(level):
        kind = event.failure.kind.value
        reason = event.reason.value
        fields = _fields("call", event, attempt=event.attempts, kind=kind, duration=event.duration, reason=reason)
        text = "[FAILED] %s after %s in %.2f s (%s, %s)"
        tries = _tries(event.attempts)
        traceback = event.error if level == logging.ERROR and _first_time(event.error) else None
        _call.log(
            level,
            text,
            _where(event),
            tries,
            event.duration,
            kind,
            _words(reason),
            exc_info=traceback,
            extra=fields,
        )


def _severity(event: CallFailed) -> int:
    """Decide how loud the end of a call is: work was lost, somebody must act, or the request itself was wrong."""
    # An inner call has told it already; and a refusal by another provider's circuit would flood while that is open.
    if event.reason is Reason.ALREADY_RETRIED or event.failure.kind is FailureKind.REJECTED:
        return logging.DEBUG
    if event.failure.retryable or event.reason is Reason.ATTEMPTS_SPENT:
        return logging.ERROR
    return logging.INFO if event.failure.category is Category.INVALID_INPUT else logging.WARNING


def _first_time(error: BaseException) -> bool:
    """Whether the traceback of *error* is new: it may pass through the calls of several providers."""
    if _TOLD in vars(error):  # not getattr: an error may answer to every name
        return False
    leave(error, _TOLD, value=True)
    return True


def _call_recovered(event: CallRecovered) -> None:
    if _call.isEnabledFor(logging.INFO):
        fields = _fields("call", event, attempt=event.attempts, duration=event.duration)
        text = "[RECOVERED] %s after %s in %.2f s"
        _call.info(text, _where(event), _tries(event.attempts), event.duration, extra=fields)


def _call_was_rejected(event: CallWasRejected) -> None:
    if _call.isEnabledFor(logging.DEBUG):
        fields = _fields("call", event, delay=event.retry_after, kind="rejected", reason=event.reason.value)
        when = "" if event.retry_after is None else f", retry in {event.retry_after:.1f} s"
        _call.debug("[REJECTED] %s (%s)%s", _where(event), _words(event.reason), when, extra=fields)


def _call_would_be_rejected(event: CallWouldBeRejected) -> None:
    if _circuit.isEnabledFor(logging.DEBUG):
        fields = _fields("circuit", event, reason=event.reason.value)
        _circuit.debug("[SHADOW] %s would be rejected (%s)", _where(event), _words(event.reason), extra=fields)


def _where(event: Event) -> str:
    return f"{event.operation or 'a call'} to {event.provider}"


def _tries(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def _fields(
    component: str,
    event: Event,
    *,
    attempt: int | None = None,
    delay: float | None = None,
    kind: str | None = None,
    duration: float | None = None,
    reason: str | None = None,
) -> dict[str, object]:
    return {
        "component": component,
        "provider": event.provider,
        "operation": event.operation or None,
        "attempt": attempt,
        "delay": delay,
        "kind": kind,
        "duration_ms": None if duration is None else round(duration * 1000, 3),
        "correlation_id": correlation_id.get() or trace_id(),
        "reason": reason,
    }


_WRITERS: dict[type[Event], Callable[[Any], None]] = {
    RetryScheduled: _retry_scheduled,
    CircuitChanged: _circuit_changed,
    ProbeLost: _probe_lost,
    GateClosed: _gate_closed,
    AttemptTimedOut: _attempt_timed_out,
    AttemptOverdue: _attempt_overdue,
    CallFailed: _call_failed,
    CallRecovered: _call_recovered,
}
EVENTS: tuple[type[Event], ...] = tuple(_WRITERS)
"""The events that are always listened for."""

_DEBUG_WRITERS: dict[type[Event], Callable[[Any], None]] = {
    AttemptFailed: _attempt_failed,
    CallWasRejected: _call_was_rejected,
    CallWouldBeRejected: _call_would_be_rejected,
}
DEBUG_EVENTS: tuple[type[Event], ...] = tuple(_DEBUG_WRITERS)
"""The events that are frequent when things go badly. They are not even made as long as nobody listens for them."""

_WRITERS.update(_DEBUG_WRITERS)
