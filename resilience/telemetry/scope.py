"""
What adapters tell of their own: spans and metrics, without importing OpenTelemetry.

::

    from resilience.telemetry import Scope

    scope = Scope("my_adapter", "1.2")
    uploaded = scope.counter("my_adapter.uploaded", unit="By", description="Bytes that were uploaded.")

    with scope.span("upload", {"my_adapter.bucket": "photos"}, kind="client") as span:
        span.set("my_adapter.size", 3)
    uploaded.add(3, {"my_adapter.bucket": "photos"})

As long as nothing has loaded OpenTelemetry, none of this does anything, and it costs a look. From then on it goes to
whom `instrument` or `configure` was told, or else to the application's global SDK. Attributes are for values of which
there are few: a metric with a URL or a user in it fills somebody's disk.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar, final

from resilience.classify._foreign import name_of
from resilience.telemetry import names
from resilience.telemetry.spans import loaded

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

Value: TypeAlias = str | bool | int | float | Sequence[str]
Kind: TypeAlias = Literal["internal", "client", "server", "producer", "consumer"]
T = TypeVar("T")


class ScopeSpan(Protocol):
    """What `Scope.span` gives to its block."""

    def set(self, name: str, value: Value) -> None:
        """Add an attribute."""

    def fail(self, error_type: str) -> None:
        """Mark the span as failed although no exception leaves its block, with a word for the kind of error."""


@final
class _Chosen:
    """Whom scopes tell: None for the application's global SDK."""

    __slots__ = ("meters", "times", "tracers")

    def __init__(self) -> None:
        self.tracers: TracerProvider | None = None
        self.meters: MeterProvider | None = None
        self.times = 0


_chosen: Final = _Chosen()


def choose(tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
    """Let all scopes tell these from now on; None: the application's global ones."""
    _chosen.tracers, _chosen.meters = tracer_provider, meter_provider
    _chosen.times += 1


@final
class _Found(Generic[T]):
    """Something of OpenTelemetry's that is made when it is first needed, and anew when somebody else is chosen."""

    __slots__ = ("_times", "_value")

    def __init__(self) -> None:
        self._times = -1
        self._value: T | None = None

    def get(self) -> T | None:
        """Return it, unless it has to be made."""
        return self._value if self._times == _chosen.times else None

    def keep(self, value: T) -> T:
        """Keep it until somebody else is chosen."""
        self._value, self._times = value, _chosen.times
        return value


@final
class Scope:
    """
    A source of spans and metrics, such as an adapter.

    Args:
        name: What it is called in telemetry backends, usually the name of its package.
        version: Its version. Default: an empty string.
    """

    __slots__ = ("_meter", "_name", "_tracer", "_version")

    def __init__(self, name: str, version: str = "") -> None:
        self._name = name
        self._version = version
        self._tracer: _Found[Tracer] = _Found()
        self._meter: _Found[Meter] = _Found()

    def span(
        self, name: str, attributes: Mapping[str, Value] | None = None, *, kind: Kind = "internal"
    ) -> AbstractContextManager[ScopeSpan]:
        """
        Record a block as a span that is current inside of it.

        An exception that leaves the block marks the span as failed, with its class in ``error.type`` and never with
        its text; a cancellation does not.

        Args:
            name: What happens, in few words that are always the same, such as ``"upload"``.
            attributes: What is known of it before it happens. Default: none.
            kind: ``"client"`` where the block calls another service. Default: ``"internal"``.
        """
        if not loaded():
            return _NO_SPAN
        tracer = self._tracer.get() or self._tracer.keep(self._make_tracer())
        return _RecordedSpan(tracer, name, attributes, kind)

    def counter(self, name: str, *, unit: str = "1", description: str = "") -> Counter:
        """
        Return something that only ever grows, such as a number of bytes.

        Args:
            name: What it is called, with dots, without its unit.
            unit: In UCUM's notation, what is counted in braces: ``"s"``, ``"By"``, ``"{file}"``. Default: ``"1"``.
            description: A sentence about it.
        """
        return Counter(self, name, unit, description)

    def histogram(
        self, name: str, *, unit: str = "1", description: str = "", buckets: Sequence[float] | None = None
    ) -> Histogram:
        """
        Return something whose distribution matters, such as a duration in seconds.

        Args:
            name: What it is called, with dots, without its unit.
            unit: In UCUM's notation. Default: ``"1"``.
            description: A sentence about it.
            buckets: The upper bounds that suit it. Default: None, those of our own durations if the unit is ``"s"``.
        """
        bounds = names.BUCKETS if buckets is None and unit == "s" else buckets
        return Histogram(self, name, unit, description, bounds)

    def _make_tracer(self) -> Tracer:
        from opentelemetry import trace

        return trace.get_tracer(self._name, self._version, _chosen.tracers)

    def find_meter(self) -> Meter | None:
        """Return what makes this scope's metrics; None while there is nobody who would take them."""
        meter = self._meter.get()
        if meter is None and "opentelemetry.metrics" in sys.modules:
            from opentelemetry import metrics

            meter = self._meter.keep(metrics.get_meter(self._name, self._version, _chosen.meters))
        return meter


@final
class Counter:
    """Something that only ever grows. Made by `Scope.counter`."""

    __slots__ = ("_description", "_found", "_name", "_scope", "_unit")

    def __init__(self, scope: Scope, name: str, unit: str, description: str) -> None:
        self._scope = scope
        self._name = name
        self._unit = unit
        self._description = description
        self._found: _Found[Any] = _Found()

    def add(self, amount: float, attributes: Mapping[str, Value] | None = None) -> None:
        """Let it grow by *amount*, which is not negative."""
        counter = self._found.get()
        if counter is None:
            meter = self._scope.find_meter()
            if meter is None:
                return
            counter = self._found.keep(meter.create_counter(self._name, self._unit, self._description))
        counter.add(amount, attributes)


@final
class Histogram:
    """Something whose distribution matters. Made by `Scope.histogram`."""

    __slots__ = ("_buckets", "_description", "_found", "_name", "_scope", "_unit")

    def __init__(self, scope: Scope, name: str, unit: str, description: str, buckets: Sequence[float] | None) -> None:
        self._scope = scope
        self._name = name
        self._unit = unit
        self._description = description
        self._buckets = buckets
        self._found: _Found[Any] = _Found()

    def record(self, value: float, attributes: Mapping[str, Value] | None = None) -> None:
        """Add one *value*, which is not negative."""
        histogram = self._found.get()
        if histogram is None:
            meter = self._scope.find_meter()
            if meter is None:
                return
            histogram = self._found.keep(self._make(meter))
        histogram.record(value, attributes)

    def _make(self, meter: Any) -> Any:
        if self._buckets is not None:
            try:
                return meter.create_histogram(
                    self._name, self._unit, self._description, explicit_bucket_boundaries_advisory=self._buckets
                )
            except TypeError:  # an API from before there was such advice
                pass
        return meter.create_histogram(self._name, self._unit, self._description)


@final
class _RecordedSpan:
    """A block that is recorded."""

    __slots__ = ("_attributes", "_kind", "_name", "_span", "_token", "_tracer")

    _span: Span
    _token: Token[Context]

    def __init__(self, tracer: Tracer, name: str, attributes: Mapping[str, Value] | None, kind: Kind) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes
        self._kind = kind

    def set(self, name: str, value: Value) -> None:
        """Add an attribute."""
        self._span.set_attribute(name, value)

    def fail(self, error_type: str) -> None:
        """Mark the span as failed although no exception leaves its block, with a word for the kind of error."""
        from opentelemetry.trace import StatusCode

        self._span.set_attribute(names.ERROR_TYPE, error_type)
        self._span.set_status(StatusCode.ERROR)

    def __enter__(self) -> ScopeSpan:
        from opentelemetry.context import attach
        from opentelemetry.trace import SpanKind, set_span_in_context

        kind = SpanKind[self._kind.upper()]
        self._span = self._tracer.start_span(self._name, kind=kind, attributes=self._attributes)
        self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from opentelemetry.context import detach
        from opentelemetry.trace import get_current_span

        # What the collector closes runs in whatever context it happens to run in.
        if kind is not GeneratorExit or get_current_span() is self._span:
            detach(self._token)
        if isinstance(error, Exception):
            self.fail(name_of(error))
        self._span.end()


@final
class _NoSpan:
    """A block that nobody records."""

    __slots__ = ()

    def set(self, name: str, value: Value) -> None:
        """Nothing is recorded."""

    def fail(self, error_type: str) -> None:
        """Nothing is recorded."""

    def __enter__(self) -> ScopeSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


_NO_SPAN: Final = _NoSpan()
