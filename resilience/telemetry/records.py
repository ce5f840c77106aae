"""
Events as OpenTelemetry log records: each with its event name, in the trace of the call that it is about.

Python's part of OpenTelemetry's logs API is not public yet and has moved before. Where it is not as we know it, there
are no records, and nothing else is different.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple, TypeAlias, final

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
    process_bus,
)
from resilience.failure import Failure
from resilience.logging.lines import DEBUG_EVENTS, EVENTS, level_of, sentence
from resilience.telemetry import names
from resilience.telemetry._version import version
from resilience.telemetry.spans import nanoseconds, told_changes, where

_Value: TypeAlias = str | bool | int | float | Sequence[str]

_LEVELS: Final = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARN", logging.ERROR: "ERROR"}


class _Told(NamedTuple):
    """The name of an event, and which of its facts become which attributes."""

    name: str
    facts: Mapping[str, str]


_ATTEMPT: Final = {"attempt": names.ATTEMPT, "duration": names.DURATION}
_CALL: Final = {"attempts": names.ATTEMPTS, "duration": names.DURATION}
_REFUSAL: Final = {"reason": names.REASON}

_EVENTS: Final[Mapping[type[Event], _Told]] = {
    CircuitChanged: _Told(
        names.CIRCUIT_EVENT,
        {
            "before": names.FROM,
            "after": names.TO,
            "reason": names.REASON,
            "figures": names.FIGURES,
            "retry_after": names.RETRY_AFTER,
        },
    ),
    ProbeLost: _Told(names.PROBE_LOST_EVENT, {}),
    GateClosed: _Told(names.GATE_EVENT, {"seconds": names.SECONDS, "hinted": names.HINTED}),
    RetryScheduled: _Told(
        names.RETRY_EVENT, {"attempt": names.ATTEMPT, "max_attempts": names.MAX_ATTEMPTS, "delay": names.DELAY}
    ),
    AttemptTimedOut: _Told(names.TIMEOUT_EVENT, {**_ATTEMPT, "limit": names.LIMIT, "scope": names.SCOPE_OF_LIMIT}),
    AttemptOverdue: _Told(names.OVERDUE_EVENT, {"overdue": names.DURATION}),
    AttemptFailed: _Told(names.ATTEMPT_FAILED_EVENT, _ATTEMPT),
    CallFailed: _Told(names.CALL_FAILED_EVENT, {**_CALL, **_REFUSAL}),
    CallRecovered: _Told(names.CALL_RECOVERED_EVENT, _CALL),
    CallWasRejected: _Told(names.CALL_REJECTED_EVENT, {**_REFUSAL, "retry_after": names.DELAY}),
    CallWouldBeRejected: _Told(names.CALL_SHADOW_EVENT, _REFUSAL),
    CallCoalesced: _Told(names.CALL_COALESCED_EVENT, {}),
    FellBack: _Told(names.FALLBACK_EVENT, {"to": names.FALLBACK, **_REFUSAL}),
    HedgeLaunched: _Told(names.HEDGE_LAUNCHED_EVENT, {"delay": names.DELAY}),
    HedgeWon: _Told(names.HEDGE_WON_EVENT, {"duration": names.DURATION}),
    ConcurrencyLimitChanged: _Told(
        names.CONCURRENCY_EVENT, {"before": names.BEFORE, "after": names.AFTER, "reason": names.REASON}
    ),
    RateLimitTightened: _Told(
        names.RATE_EVENT, {"window": names.WINDOW, "remaining": names.REMAINING, "reset": names.RESET}
    ),
    MemberEjected: _Told(
        names.EJECTED_EVENT, {"member": names.MEMBER, "seconds": names.LEFT_OUT, "figures": names.FIGURES}
    ),
    MemberReturned: _Told(names.RETURNED_EVENT, {"member": names.MEMBER}),
    SettingsReloaded: _Told(names.RELOADED_EVENT, {"source": names.SOURCE}),
    SettingsRefused: _Told(names.REFUSED_EVENT, {"source": names.SOURCE, "problem": names.PROBLEM}),
    ShutdownBegan: _Told(
        names.SHUTDOWN_BEGAN_EVENT,
        {"grace": names.GRACE, "in_flight": names.IN_FLIGHT_NOW, "waiting": names.WAITING_NOW},
    ),
    ShutdownEnded: _Told(
        names.SHUTDOWN_ENDED_EVENT,
        {
            "finished": names.FINISHED,
            "interrupted": names.INTERRUPTED,
            "refused": names.REFUSED,
            "abandoned": names.ABANDONED,
            "closed": names.CLOSED,
            "unclosed": names.UNCLOSED,
            "seconds": names.DURATION,
        },
    ),
}


def install(logger_provider: Any = None, *, frequent: bool = False) -> None:
    """
    Tell this process's events as log records, in place of whomever they were told to.

    Args:
        logger_provider: Who takes them. Default: None, the application's global one, whenever it is set.
        frequent: Whether to tell those as well that a busy service would be flooded with: each failed attempt, refused
            call, hedge and the like (`resilience.logging.DEBUG_EVENTS`). Default: no.
    """
    remove()
    emit = _emitter(logger_provider)
    if emit is not None:
        with _lock:
            _ends.append(process_bus.subscribe(Records(emit), *(EVENTS + DEBUG_EVENTS if frequent else EVENTS)))


def remove() -> None:
    """Tell no records any more."""
    with _lock:
        while _ends:
            _ends.pop()()


_lock: Final = Lock()
_ends: Final[list[Callable[[], None]]] = []


@final
class Records:
    """
    A listener that tells each event as a log record.

    Args:
        emit: Takes a time in nanoseconds, a severity, a text, attributes, and the name of the event.
    """

    __slots__ = ("_emit",)

    def __init__(self, emit: Callable[[int, str, str, Mapping[str, _Value], str], None]) -> None:
        self._emit = emit

    def __call__(self, event: Event) -> None:
        """Tell *event*."""
        told = _EVENTS.get(type(event))
        if told is not None:
            severity = _LEVELS.get(level_of(event), "INFO")
            self._emit(nanoseconds(event.time), severity, sentence(event), _attributes(event, told.facts), told.name)


def _attributes(event: Event, facts: Mapping[str, str]) -> dict[str, _Value]:
    attributes: dict[str, _Value] = where(event)
    for fact, name in facts.items():
        value = getattr(event, fact)
        if value is not None:
            attributes[name] = _plain(value)
    failure = getattr(event, "failure", None)
    if isinstance(failure, Failure):
        attributes |= {
            names.KIND: failure.kind.value,
            names.CATEGORY: failure.category.value,
            names.ERROR_TYPE: failure.error_type,
        }
        if failure.status is not None:
            attributes[names.HTTP_STATUS] = failure.status
    if isinstance(event, SettingsReloaded):
        attributes[names.CHANGES] = told_changes(event)
    return attributes


def _plain(value: _Value) -> _Value:
    """Return *value* without the class that makes a word one of ours."""
    return str(value) if isinstance(value, str) else value


def _emitter(logger_provider: Any) -> Callable[[int, str, str, Mapping[str, _Value], str], None] | None:
    try:
        from opentelemetry._logs import LogRecord, SeverityNumber, get_logger

        known = inspect.signature(LogRecord.__init__).parameters
        if not {"event_name", "context", "timestamp", "severity_number", "body", "attributes"} <= known.keys():
            return None  # an early one, which knows no event names
        logger = get_logger(names.SCOPE, version(), logger_provider, names.SCHEMA_URL)
    except (ImportError, AttributeError, TypeError, ValueError):  # one that we do not know
        return None

    def emit(time: int, severity: str, text: str, attributes: Mapping[str, _Value], name: str) -> None:
        record = LogRecord(
            timestamp=time,
            severity_number=SeverityNumber[severity],
            severity_text=severity,
            body=text,
            attributes=attributes,
            event_name=name,
        )
        logger.emit(record)

    return emit
