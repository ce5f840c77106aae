"""
Calls as spans: ``execute {provider}``, and below it one for each attempt, current while the user's function runs.

What a trace says of a call follows OpenTelemetry's conventions for errors:

=============================  =========  ============================================================================
what happened                  status     attributes
=============================  =========  ============================================================================
the call succeeded             unset      ``resilience.outcome``: success, or success_after_retry
an attempt failed              error      on the attempt only: ``error.type``, kind, category, the HTTP status
the call failed                error      the same, and ``resilience.reason``: why there was no other attempt
the call was refused           error      ``error.type``: the class of our refusal; ``resilience.reason``
the caller cancelled it        unset      ``resilience.outcome``: cancelled
=============================  =========  ============================================================================

``error.type`` is the class of the provider's error with its module, or that of our own. No span holds the text of
somebody else's error, a payload or a URL; a status description is a sentence of ours.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, final

from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import INVALID_SPAN, Span, StatusCode, Tracer, get_current_span, set_span_in_context

from resilience._core.words import Reason, many
from resilience.classify._foreign import name_of
from resilience.errors import CallRejected
from resilience.failure import Failure
from resilience.process import watch_calls
from resilience.telemetry import names
from resilience.telemetry._exemplars import leave_example
from resilience.telemetry.spans import make_tracer, transitions
from resilience.watching import AttemptWatch, End, Watch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import TracerProvider
    from opentelemetry.util.types import AnyValue

_log = logging.getLogger("resilience.telemetry")

_MOST_SHAPES = 1024

_SUCCEEDED: Final[Mapping[str, AnyValue]] = {names.OUTCOME: End.SUCCESS.value}
_SUCCEEDED_AT_ONCE: Final[Mapping[str, AnyValue]] = {names.OUTCOME: End.SUCCESS.value, names.ATTEMPTS: 1}
_LAUNCHED, _WON = "launched", "won"


def install(tracer_provider: TracerProvider | None = None) -> None:
    """
    Record the calls of this process as spans, in place of whoever followed them; changes of state go there as well.

    Args:
        tracer_provider: Who makes the spans. Default: None, the application's global one, whenever it is set.
    """
    transitions.use(tracer_provider)
    watch_calls(Tracing(make_tracer(tracer_provider)))


def remove() -> None:
    """Record calls no longer. Those that are under way are recorded to their end."""
    transitions.use(None)
    watch_calls(None)


class _Shape(NamedTuple):
    """What all spans of one operation start with, made once."""

    call: str
    attempt: str
    attributes: Mapping[str, str]
    first: Mapping[str, str | int]


@final
class Tracing:
    """
    The watcher that makes spans.

    Args:
        tracer: What makes them.
    """

    __slots__ = ("_shapes", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._shapes: dict[tuple[str, str, str], _Shape] = {}

    def recording(self) -> bool:
        """Whether the current span is being recorded."""
        return get_current_span().is_recording()

    def call(self, provider: str, operation: str, *, variant: str) -> Watch | None:
        """Start the span of a call. None where there is no trace that it could belong to."""
        shape = self._shapes.get((provider, operation, variant)) or self._shape(provider, operation, variant)
        try:
            span = self._tracer.start_span(shape.call, attributes=shape.attributes)
            if span.is_recording():
                return _CallSpan(self._tracer, shape, span)
            return _Unsampled(span) if span is not get_current_span() and span.get_span_context().is_valid else None
        except Exception:
            _tell_failed(shape.attributes)
            return None

    def _shape(self, provider: str, operation: str, variant: str) -> _Shape:
        if len(self._shapes) >= _MOST_SHAPES:  # operations may be named by whoever calls
            self._shapes.clear()
        known = {names.PROVIDER: provider, names.OPERATION: operation, names.VARIANT: variant}
        attributes = {name: value for name, value in known.items() if value}
        shape = _Shape(
            names.CALL_SPAN.format(provider=provider),
            names.ATTEMPT_SPAN.format(provider=provider),
            attributes,
            {**attributes, names.ATTEMPT: 1},
        )
        self._shapes[provider, operation, variant] = shape
        return shape


@final
class _CallSpan:
    """The span of a call that is being recorded."""

    __slots__ = ("_context", "_running", "_shape", "_span", "_token", "_tracer")

    _token: Token[Context]

    def __init__(self, tracer: Tracer, shape: _Shape, span: Span) -> None:
        self._tracer = tracer
        self._shape = shape
        self._span = span
        self._context = set_span_in_context(span)
        self._running = 0

    def enter(self) -> None:
        """Make the span the current one, so that what the call leads to can be traced back to it."""
        self._token = attach(self._context)

    def leave(self) -> None:
        """Put back what was current before."""
        _leave(self._context, self._token)

    def attempt(self, number: int) -> AttemptWatch:
        """Start the span of an attempt. One that starts beside another is a hedge."""
        shape, hedge = self._shape, self._running > 0
        attributes: Mapping[str, str | int] = (
            shape.first if number == 1 else {**shape.attributes, names.ATTEMPT: number}
        )
        if hedge:
            attributes = {**attributes, names.HEDGE: _LAUNCHED}
        try:
            span = self._tracer.start_span(shape.attempt, self._context, attributes=attributes)
        except Exception:
            _tell_failed(shape.attributes)
            span = INVALID_SPAN
        self._running += 1
        return _AttemptSpan(self, span, hedge=hedge)

    def attempt_ended(self) -> bool:
        """Count an attempt that is over; return whether another still runs."""
        self._running -= 1
        return self._running > 0

    def ended(
        self,
        end: End,
        *,
        attempts: int,
        failure: Failure | None,
        reason: Reason | None,
        error: BaseException | None,
    ) -> None:
        """End the span with what came of the call."""
        span = self._span
        try:
            if end is End.SUCCESS:
                span.set_attributes(_SUCCEEDED_AT_ONCE)
            else:
                attributes: dict[str, AnyValue] = {names.OUTCOME: end.value, names.ATTEMPTS: attempts}
                if reason is not None:
                    attributes[names.REASON] = reason.value
                if error is not None:
                    _blame(span, attributes, failure, error, attempts)
                span.set_attributes(attributes)
            span.end()
            leave_example(names.CALL_DURATION, self._shape.attributes, end.value, span)
        except Exception:
            _tell_failed(self._shape.attributes)


@final
class _AttemptSpan:
    """The span of an attempt."""

    __slots__ = ("_call", "_context", "_hedge", "_span", "_token")

    _token: Token[Context]

    def __init__(self, call: _CallSpan, span: Span, *, hedge: bool) -> None:
        self._call = call
        self._span = span
        self._hedge = hedge
        self._context = set_span_in_context(span, call._context)

    def enter(self) -> None:
        """Make the span the current one."""
        self._token = attach(self._context)

    def leave(self) -> None:
        """Put back what was current before."""
        _leave(self._context, self._token)

    def ended(self, end: End, *, failure: Failure | None, error: BaseException | None) -> None:
        """End the span with what came of the attempt."""
        span, contested = self._span, self._call.attempt_ended()
        try:
            if end is End.SUCCESS and not self._hedge:
                span.set_attributes(_SUCCEEDED)
            else:
                attributes: dict[str, AnyValue] = {names.OUTCOME: end.value}
                if end is End.SUCCESS and contested:
                    attributes[names.HEDGE] = _WON
                if error is not None:
                    _blame(span, attributes, failure, error)
                span.set_attributes(attributes)
            span.end()
            leave_example(names.ATTEMPT_DURATION, self._call._shape.attributes, end.value, span)
        except Exception:
            _tell_failed(self._call._shape.attributes)


@final
class _Unsampled:
    """A call that a sampler has decided against: what happens inside must know, or it would be a trace of its own."""

    __slots__ = ("_context", "_token")

    _token: Token[Context]

    def __init__(self, span: Span) -> None:
        self._context = set_span_in_context(span)

    def enter(self) -> None:
        """Make the decision known."""
        self._token = attach(self._context)

    def leave(self) -> None:
        """Put back what was current before."""
        _leave(self._context, self._token)

    def attempt(self, _number: int) -> AttemptWatch:
        """Nothing is recorded of it: the decision is known already."""
        return _NOTHING

    def ended(
        self,
        _end: End,
        *,
        attempts: int,
        failure: Failure | None,
        reason: Reason | None,
        error: BaseException | None,
    ) -> None:
        """Nothing is recorded of it."""


@final
class _Nothing:
    """An attempt of which nothing is recorded."""

    __slots__ = ()

    def enter(self) -> None:
        """Nothing is recorded."""

    def leave(self) -> None:
        """Nothing is recorded."""

    def ended(self, _end: End, *, failure: Failure | None, error: BaseException | None) -> None:
        """Nothing is recorded."""


_NOTHING: Final = _Nothing()


def _leave(context: Context, token: Token[Context]) -> None:
    # A coroutine that was abandoned is closed by the collector, in whatever context that happens to run.
    if type(sys.exception()) is GeneratorExit and get_current() is not context:
        return
    detach(token)


def _blame(
    span: Span,
    attributes: dict[str, AnyValue],
    failure: Failure | None,
    error: BaseException,
    attempts: int | None = None,
) -> None:
    """Mark *span* as failed, and add to *attributes* what is known of the error: never its own text."""
    attributes[names.ERROR_TYPE] = failure.error_type if failure is not None else name_of(error)
    if failure is None:
        text = str(error) if isinstance(error, CallRejected) else None  # ours
    else:
        attributes[names.KIND] = failure.kind.value
        attributes[names.CATEGORY] = failure.category.value
        if failure.status is not None:
            attributes[names.HTTP_STATUS] = failure.status
        text = failure.kind.value if attempts is None else f"{failure.kind.value} after {many(attempts, 'attempt')}"
    span.set_status(StatusCode.ERROR, text)


def _tell_failed(attributes: Mapping[str, str]) -> None:
    """Say that a sampler, a processor or an exporter of the application's raised. The call goes on."""
    _log.exception("tracing failed", extra={"component": "telemetry", "provider": attributes[names.PROVIDER]})
