"""Events become log records: for each kind of event a logger, a level, and the function that words it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from resilience._core.states import CircuitState
from resilience._core.words import many
from resilience.errors import Reason, leave
from resilience.events import (
    AttemptFailed,
    AttemptOverdue,
    AttemptTimedOut,
    CallCoalesced,
    CallFailed,
    CallRecovered,
    CallWasRejected,
    CallWouldBeRejected,
    CircuitChanged,
    ConcurrencyLimitChanged,
    Event,
    FellBack,
    GateClosed,
    HedgeLaunched,
    HedgeWon,
    MemberEjected,
    MemberReturned,
    ProbeLost,
    RateLimitTightened,
    RetryScheduled,
    SettingsRefused,
    SettingsReloaded,
    ShutdownBegan,
    ShutdownEnded,
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

_MOST_CHANGES: Final = 10


class Line(NamedTuple):
    """What there is to say of an event: a text and what goes into it, the fields that say something, a traceback."""

    text: str
    args: tuple[object, ...]
    fields: Mapping[str, object] = {}
    traceback: BaseException | None = None


class _Told(NamedTuple):
    """How the events of one kind are told. *component* is the last part of the logger's name."""

    component: str
    level: int | Callable[[Any], int]
    write: Callable[[Any], Line]


def log_event(event: Event) -> None:
    """Write the log line of *event*, if its logger is listening."""
    told = _LINES.get(type(event))
    if told is None:
        return
    logger, level = _LOGGERS[told.component], level_of(event)
    if not logger.isEnabledFor(level):
        return
    line = told.write(event)
    # Whoever gave up on an error before has shown where it came from.
    traceback = line.traceback if level == logging.ERROR and _first_time(line.traceback) else None
    logger.log(level, line.text, *line.args, exc_info=traceback, extra=_fields(told.component, event, line.fields))


def level_of(event: Event) -> int:
    """Return how loud *event* is, as a level of the standard library's logging."""
    told = _LINES.get(type(event))
    if told is None:
        return logging.DEBUG
    return told.level if isinstance(told.level, int) else told.level(event)


def sentence(event: Event) -> str:
    """Return the line of *event* as text, or nothing if it has none."""
    told = _LINES.get(type(event))
    if told is None:
        return ""
    line = told.write(event)
    return line.text % line.args


def _first_time(error: BaseException | None) -> bool:
    """Whether the traceback of *error* is new: it may pass through the calls of several providers."""
    if error is None or _TOLD in vars(error):  # not getattr: an error may answer to every name
        return False
    leave(error, _TOLD, value=True)
    return True


def _fields(component: str, event: Event, said: Mapping[str, object]) -> dict[str, object]:
    return {
        **_SILENT,
        "component": component,
        "provider": event.provider or None,
        "operation": event.operation or None,
        "correlation_id": correlation_id.get() or trace_id(),
        **said,
    }


_SILENT: Final[Mapping[str, object]] = dict.fromkeys(FIELDS)


# -- attempts and calls ------------------------------------------------------------------------------------------------


def _retry_scheduled(event: RetryScheduled) -> Line:
    return Line(
        "[RETRY] attempt %d/%d of %s in %.2f s (%s)",
        (event.attempt, event.max_attempts, _where(event), event.delay, event.failure.kind),
        {"attempt": event.attempt, "delay": event.delay, "kind": event.failure.kind.value},
    )


def _attempt_timed_out(event: AttemptTimedOut) -> Line:
    fields = {"attempt": event.attempt, "kind": "timeout", "duration_ms": _ms(event.duration)}
    if event.scope == "attempt":
        text = "[TIMEOUT] attempt %d of %s after %.1f s (limit %g s)"
        return Line(text, (event.attempt, _where(event), event.duration, event.limit), fields)
    text = "[TIMEOUT] %s after %.1f s in attempt %d (limit %g s in all)"
    if event.scope == "shutdown":
        text = "[TIMEOUT] %s after %.1f s in attempt %d, by the shutdown (grace %g s)"
        fields["kind"] = "interrupted"
    return Line(text, (_where(event), event.duration, event.attempt, event.limit), fields)


def _attempt_overdue(event: AttemptOverdue) -> Line:
    text = "[OVERDUE] %s goes on %.1f s after it was interrupted: it swallows cancellation"
    return Line(text, (_where(event), event.overdue), {"duration_ms": _ms(event.overdue)})


def _attempt_failed(event: AttemptFailed) -> Line:
    kind = event.failure.kind.value
    return Line(
        "[ATTEMPT] attempt %d of %s failed after %.2f s (%s)",
        (event.attempt, _where(event), event.duration, kind),
        {"attempt": event.attempt, "kind": kind, "duration_ms": _ms(event.duration)},
    )


def _call_failed(event: CallFailed) -> Line:
    kind, reason = event.failure.kind.value, event.reason.value
    return Line(
        "[FAILED] %s after %s in %.2f s (%s, %s)",
        (_where(event), many(event.attempts, "attempt"), event.duration, kind, _words(reason)),
        {"attempt": event.attempts, "kind": kind, "duration_ms": _ms(event.duration), "reason": reason},
        event.error,
    )


def _severity(event: CallFailed) -> int:
    """Decide how loud the end of a call is: work was lost, somebody must act, or the request itself was wrong."""
    # An inner call has told it already; and a refusal by another provider's circuit would flood while that is open.
    if event.reason is Reason.ALREADY_RETRIED or event.failure.kind is FailureKind.REJECTED:
        return logging.DEBUG
    if event.failure.retryable or event.reason is Reason.ATTEMPTS_SPENT:
        return logging.ERROR
    return logging.INFO if event.failure.category is Category.INVALID_INPUT else logging.WARNING


def _call_recovered(event: CallRecovered) -> Line:
    return Line(
        "[RECOVERED] %s after %s in %.2f s",
        (_where(event), many(event.attempts, "attempt"), event.duration),
        {"attempt": event.attempts, "duration_ms": _ms(event.duration)},
    )


def _call_was_rejected(event: CallWasRejected) -> Line:
    when = "" if event.retry_after is None else f", retry in {event.retry_after:.1f} s"
    fields = {"delay": event.retry_after, "kind": "rejected", "reason": event.reason.value}
    return Line("[REJECTED] %s (%s)%s", (_where(event), _words(event.reason), when), fields)


def _call_would_be_rejected(event: CallWouldBeRejected) -> Line:
    text = "[SHADOW] %s would be rejected (%s)"
    return Line(text, (_where(event), _words(event.reason)), {"reason": event.reason.value})


def _call_coalesced(event: CallCoalesced) -> Line:
    return Line("[COALESCED] %s waits for an identical one", (_where(event),))


def _hedge_launched(event: HedgeLaunched) -> Line:
    text = "[HEDGE] a second attempt of %s after %.2f s"
    return Line(text, (_where(event), event.delay), {"delay": event.delay})


def _hedge_won(event: HedgeWon) -> Line:
    text = "[HEDGE] the second attempt of %s answered first, in %.2f s"
    return Line(text, (_where(event), event.duration), {"duration_ms": _ms(event.duration)})


# -- providers ---------------------------------------------------------------------------------------------------------

_QUIET_STATES = (CircuitState.CLOSED, CircuitState.HALF_OPEN)


def _alarm(event: CircuitChanged) -> int:
    return logging.INFO if event.after in _QUIET_STATES else logging.WARNING


def _circuit_changed(event: CircuitChanged) -> Line:
    return Line(
        "[CIRCUIT] %s: %s -> %s (%s)",
        (_name(event), event.before, event.after, event.figures or _words(event.reason)),
        {"delay": event.retry_after, "reason": event.reason},
    )


def _probe_lost(event: ProbeLost) -> Line:
    return Line("[CIRCUIT] %s: a probe did not come back, its slot is free again", (_name(event),))


def _gate_closed(event: GateClosed) -> Line:
    why = "asked by the provider" if event.hinted else "a growing pause: the provider named no time"
    text = "[GATE] %s: closed for %.1f s (%s)"
    return Line(text, (_name(event), event.seconds, why), {"delay": event.seconds})


def _limit_changed(event: ConcurrencyLimitChanged) -> Line:
    text = "[LIMIT] %s: %d -> %s at once (%s)"
    args = (_name(event), event.before, many(event.after, "attempt"), _words(event.reason))
    return Line(text, args, {"reason": event.reason})


def _rate_tightened(event: RateLimitTightened) -> Line:
    text = "[LIMIT] %s: %g left of %s, full again in %.1f s (told by the provider)"
    return Line(text, (_name(event), event.remaining, event.window, event.reset), {"delay": event.reset})


def _fell_back(event: FellBack) -> Line:
    text = "[FALLBACK] %s goes on with %s (%s)"
    return Line(text, (_where(event), event.to, _words(event.reason)), {"reason": event.reason})


def _member_ejected(event: MemberEjected) -> Line:
    text = "[POOL] %s: left out for %.1f s (%s)"
    return Line(text, (event.member, event.seconds, event.figures), {"delay": event.seconds})


def _member_returned(event: MemberReturned) -> Line:
    return Line("[POOL] %s: asked again", (event.member,))


# -- the process -------------------------------------------------------------------------------------------------------


def _settings_reloaded(event: SettingsReloaded) -> Line:
    count = len(event.changes)
    if not count:
        return Line("[SETTINGS] read anew from %s: nothing differs", (event.source,))
    shown = "; ".join(map(str, event.changes[:_MOST_CHANGES]))
    more = f"; and {count - _MOST_CHANGES} more" if count > _MOST_CHANGES else ""
    return Line("[SETTINGS] %s from %s: %s%s", (many(count, "change"), event.source, shown, more))


def _settings_refused(event: SettingsRefused) -> Line:
    problem = " ".join(event.problem.split())  # one problem to a line, where there are several
    return Line("[SETTINGS] those from %s are refused, nothing changed: %s", (event.source, problem))


def _shutdown_began(event: ShutdownBegan) -> Line:
    text = "[SHUTDOWN] no new calls: %s have %g s, %s sent away"
    args = (many(event.in_flight, "attempt"), event.grace, many(event.waiting, "waiting call"))
    return Line(text, args, {"delay": event.grace})


def _shutdown_ended(event: ShutdownEnded) -> Line:
    text = "[SHUTDOWN] over in %.1f s: %d finished, %d interrupted, %d still running, %d refused%s"
    unclosed = f"; not closed: {', '.join(event.unclosed)}" if event.unclosed else ""
    args = (event.seconds, event.finished, event.interrupted, event.abandoned, event.refused, unclosed)
    return Line(text, args, {"duration_ms": _ms(event.seconds)})


def _loss(event: ShutdownEnded) -> int:
    return logging.WARNING if event.interrupted or event.abandoned or event.unclosed else logging.INFO


def _where(event: Event) -> str:
    return f"{event.operation or 'a call'} to {_name(event)}"


def _name(event: Event) -> str:
    return f"{event.provider} ({event.variant})" if event.variant else event.provider


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


# -- the table ---------------------------------------------------------------------------------------------------------

_RARE: Final[Mapping[type[Event], _Told]] = {
    RetryScheduled: _Told("retry", logging.INFO, _retry_scheduled),
    CircuitChanged: _Told("circuit", _alarm, _circuit_changed),
    ProbeLost: _Told("circuit", logging.WARNING, _probe_lost),
    GateClosed: _Told("gate", logging.WARNING, _gate_closed),
    AttemptTimedOut: _Told("deadline", logging.WARNING, _attempt_timed_out),
    AttemptOverdue: _Told("deadline", logging.WARNING, _attempt_overdue),
    CallFailed: _Told("call", _severity, _call_failed),
    CallRecovered: _Told("call", logging.INFO, _call_recovered),
    RateLimitTightened: _Told("limits", logging.INFO, _rate_tightened),
    MemberEjected: _Told("routing", logging.WARNING, _member_ejected),
    MemberReturned: _Told("routing", logging.INFO, _member_returned),
    SettingsReloaded: _Told("settings", logging.INFO, _settings_reloaded),
    SettingsRefused: _Told("settings", logging.WARNING, _settings_refused),
    ShutdownBegan: _Told("shutdown", logging.INFO, _shutdown_began),
    ShutdownEnded: _Told("shutdown", _loss, _shutdown_ended),
}
_FREQUENT: Final[Mapping[type[Event], _Told]] = {
    AttemptFailed: _Told("call", logging.DEBUG, _attempt_failed),
    CallWasRejected: _Told("call", logging.DEBUG, _call_was_rejected),
    CallWouldBeRejected: _Told("circuit", logging.DEBUG, _call_would_be_rejected),
    CallCoalesced: _Told("call", logging.DEBUG, _call_coalesced),
    ConcurrencyLimitChanged: _Told("limits", logging.DEBUG, _limit_changed),
    HedgeLaunched: _Told("call", logging.DEBUG, _hedge_launched),
    HedgeWon: _Told("call", logging.DEBUG, _hedge_won),
    FellBack: _Told("routing", logging.DEBUG, _fell_back),
}
_LINES: Final[Mapping[type[Event], _Told]] = {**_RARE, **_FREQUENT}
_LOGGERS: Final = {told.component: logging.getLogger(f"resilience.{told.component}") for told in _LINES.values()}

EVENTS: tuple[type[Event], ...] = tuple(_RARE)
"""The events that are always listened for."""

DEBUG_EVENTS: tuple[type[Event], ...] = tuple(_FREQUENT)
"""The events that are frequent when things go badly. They are not even made as long as nobody listens for them."""
