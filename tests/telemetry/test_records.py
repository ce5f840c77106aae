"""Events as log records of OpenTelemetry."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilience import ProviderRegistry, ProviderSettings, ResilientProvider, Settings, events
from resilience._core.states import CircuitState
from resilience.errors import Reason
from resilience.events import (
    CallFailed,
    CallRecovered,
    CircuitChanged,
    ConcurrencyLimitChanged,
    Event,
    HedgeLaunched,
    SettingsReloaded,
    ShutdownEnded,
    process_bus,
)
from resilience.failure import Category, Failure, FailureKind
from resilience.logging.lines import DEBUG_EVENTS, EVENTS
from resilience.settings import Change
from resilience.telemetry import instrument, names, records, uninstrument

SECRET = "hunter2"


@pytest.fixture
def sink() -> InMemoryLogRecordExporter:
    """What was told."""
    return InMemoryLogRecordExporter()


@pytest.fixture
def logger_provider(sink: InMemoryLogRecordExporter) -> Generator[LoggerProvider, None, None]:
    """An SDK that takes everything into *sink*."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(sink))
    yield provider
    records.remove()
    provider.shutdown()


@pytest.fixture
def told(logger_provider: LoggerProvider, sink: InMemoryLogRecordExporter) -> Callable[[], list[ReadableLogRecord]]:
    """The records of all events, the frequent ones included."""
    records.install(logger_provider, frequent=True)
    return lambda: list(sink.get_finished_logs())


OPENED = CircuitChanged(
    provider="openai",
    operation="chat",
    time=1_700_000_000.25,
    before=CircuitState.CLOSED,
    after=CircuitState.OPEN,
    reason="in_a_row",
    figures="5 failures in a row",
    retry_after=57.5,
)
LOST = CallFailed(
    provider="s3",
    time=1,
    failure=Failure(
        kind=FailureKind.SERVER_ERROR, category=Category.RETRIABLE, error_type="httpx.HTTPStatusError", status=503
    ),
    attempts=3,
    duration=4.25,
    reason=Reason.ATTEMPTS_SPENT,
    error=OSError(SECRET),
)


def test_a_record(told: Callable[[], list[ReadableLogRecord]]) -> None:
    """An event is a record with its name, time, severity and figures, and with the line that logs would show."""
    process_bus.emit(OPENED)
    [found] = told()
    record = found.log_record
    assert (record.event_name, record.timestamp) == ("resilience.circuit.changed", 1_700_000_000_250_000_000)
    assert (record.severity_text, record.severity_number) == ("WARN", _logs.SeverityNumber.WARN)
    assert record.body == "[CIRCUIT] openai: closed -> open (5 failures in a row)"
    assert dict(record.attributes or {}) == {
        "resilience.provider": "openai",
        "resilience.operation": "chat",
        "resilience.circuit_breaker.from": "closed",
        "resilience.circuit_breaker.to": "open",
        "resilience.reason": "in_a_row",
        "resilience.circuit_breaker.figures": "5 failures in a row",
        "resilience.circuit_breaker.retry_after": 57.5,
    }
    assert found.instrumentation_scope is not None
    assert found.instrumentation_scope.name == "resilience"


def test_a_failure(told: Callable[[], list[ReadableLogRecord]]) -> None:
    """What became of a failed call is told with what it failed of, and without the text of its error."""
    process_bus.emit(dataclasses.replace(LOST, variant="b"))
    [found] = told()
    record = found.log_record
    assert record.severity_text == "ERROR"
    assert dict(record.attributes or {}) == {
        "resilience.provider": "s3",
        "resilience.variant": "b",
        "resilience.attempts": 3,
        "resilience.duration": 4.25,
        "resilience.reason": "attempts_spent",
        "resilience.kind": "server_error",
        "resilience.category": "retriable",
        "error.type": "httpx.HTTPStatusError",
        "http.response.status_code": 503,
    }
    assert SECRET not in found.to_json()


def test_settings(told: Callable[[], list[ReadableLogRecord]]) -> None:
    """A reload tells what it has changed."""
    changes = (Change("defaults.retry.max_attempts", 3, 5), Change("defaults.enabled", True, False))
    process_bus.emit(SettingsReloaded(provider="", time=1, source="app.toml", changes=changes))
    [found] = told()
    assert dict(found.log_record.attributes or {}) == {
        "resilience.settings.source": "app.toml",
        "resilience.settings.changes": (
            "defaults.retry.max_attempts: 3 -> 5",
            "defaults.enabled: true -> false",
        ),
    }


def test_every_event_has_a_name_of_its_own() -> None:
    """No event of ours is without a record, and no two share a name."""
    known = {value for value in vars(events).values() if isinstance(value, type) and issubclass(value, Event)}
    assert set(records._EVENTS) == known - {Event} == set(EVENTS + DEBUG_EVENTS)
    named = [told.name for told in records._EVENTS.values()]
    assert len(set(named)) == len(named)
    assert set(named) == {value for name, value in vars(names).items() if name.endswith("_EVENT")}


def test_no_fact_is_forgotten() -> None:
    """Each field of each event becomes an attribute, but for those that are told in another way."""
    common = {field.name for field in dataclasses.fields(Event)}
    elsewhere = {"failure", "error", "changes"}
    for event, told in records._EVENTS.items():
        fields = {field.name for field in dataclasses.fields(event)} - common - elsewhere
        assert set(told.facts) == fields, event


def test_attributes_are_plain(told: Callable[[], list[ReadableLogRecord]], caplog: pytest.LogCaptureFixture) -> None:
    """Every attribute is of a kind that OpenTelemetry takes."""
    process_bus.emit(
        ShutdownEnded(
            provider="",
            time=1,
            finished=1,
            interrupted=0,
            refused=0,
            abandoned=0,
            closed=1,
            unclosed=("s3",),
            seconds=2,
        )
    )
    process_bus.emit(ConcurrencyLimitChanged(provider="s3", time=1, before=20, after=18, reason="latency"))
    first, second = told()
    assert (first.log_record.attributes or {})["resilience.shutdown.unclosed"] == ("s3",)
    assert (second.log_record.attributes or {})["resilience.limiter.after"] == 18
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_what_is_frequent_is_asked_for(logger_provider: LoggerProvider, sink: InMemoryLogRecordExporter) -> None:
    """Refused calls, hedges and the like are not even made unless somebody asks for them."""
    records.install(logger_provider)
    assert not process_bus.hears_rejections
    process_bus.emit(HedgeLaunched(provider="s3", time=1, delay=1))
    process_bus.emit(CallRecovered(provider="s3", time=1, attempts=2, duration=1))
    assert [found.log_record.event_name for found in sink.get_finished_logs()] == ["resilience.call.recovered"]
    records.install(logger_provider, frequent=True)
    assert process_bus.hears_rejections
    process_bus.emit(CallRecovered(provider="s3", time=1, attempts=2, duration=1))
    assert len(sink.get_finished_logs()) == 2
    records.remove()
    process_bus.emit(CallRecovered(provider="s3", time=1, attempts=2, duration=1))
    assert len(sink.get_finished_logs()) == 2


class _Early(_logs.LogRecord):
    def __init__(self, timestamp: int | None = None, body: Any = None) -> None:
        super().__init__(timestamp=timestamp, body=body)


@pytest.mark.parametrize("gone", ["get_logger", "LogRecord", "old"])
def test_an_api_that_is_not_as_we_know_it(
    monkeypatch: pytest.MonkeyPatch, logger_provider: LoggerProvider, sink: InMemoryLogRecordExporter, gone: str
) -> None:
    """Where OpenTelemetry's logs API has moved, or knows no event names yet, there are no records and no trouble."""
    if gone == "old":
        monkeypatch.setattr(_logs, "LogRecord", _Early)
    else:
        monkeypatch.delattr(_logs, gone)
    records.install(logger_provider, frequent=True)
    assert not process_bus.hears_rejections
    process_bus.emit(OPENED)
    assert not sink.get_finished_logs()


def test_no_api_at_all(monkeypatch: pytest.MonkeyPatch, logger_provider: LoggerProvider) -> None:
    """Without a logs API installing records does nothing."""
    monkeypatch.setitem(sys.modules, "opentelemetry._logs", None)
    records.install(logger_provider)
    process_bus.emit(OPENED)


@pytest.mark.anyio
async def test_in_the_trace_of_its_call(
    tracer_provider: TracerProvider,
    exporter: InMemorySpanExporter,
    logger_provider: LoggerProvider,
    sink: InMemoryLogRecordExporter,
) -> None:
    """A record leads to the very call that it is about."""
    instrument(tracer_provider=tracer_provider, logger_provider=logger_provider)
    settings = ProviderSettings.model_validate(
        {"telemetry": {"spans": "always"}, "retry": {"max_attempts": 2, "base_delay": 1, "jitter": "none"}}
    )
    openai = ResilientProvider(
        "openai", registry=ProviderRegistry(Settings(defaults=settings), clock=anyio.current_time)
    )

    async def fail() -> None:
        await anyio.sleep(0.1)
        raise ConnectionResetError(SECRET)

    try:
        with suppress(ConnectionResetError):
            await openai.execute(fail)
    finally:
        uninstrument()
    [call] = [span for span in exporter.get_finished_spans() if span.name == "execute openai"]
    found = sink.get_finished_logs()
    assert [one.log_record.event_name for one in found] == ["resilience.retry.scheduled", "resilience.call.failed"]
    assert call.context is not None
    assert {(one.log_record.trace_id, one.log_record.span_id) for one in found} == {
        (call.context.trace_id, call.context.span_id)
    }
    assert SECRET not in "".join(one.to_json() for one in found)
