"""Spans of real calls."""

from __future__ import annotations

from collections.abc import Generator

import anyio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilience import ProviderRegistry, ResilientProvider, subscribe
from resilience.telemetry import TransitionSpans

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _recorded(tracer_provider: TracerProvider) -> Generator[None, None, None]:
    unsubscribe = subscribe(TransitionSpans(tracer_provider))
    yield
    unsubscribe()


async def fail() -> None:
    raise ConnectionResetError


async def work() -> None:
    await anyio.sleep(0.1)


def provider() -> ResilientProvider:
    return ResilientProvider("openai", registry=ProviderRegistry(clock=anyio.current_time))


async def test_a_trip_is_one_span_with_a_link(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """The trip of a breaker is exactly one span, linked to the call that was the last straw."""
    openai, tracer = provider(), tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("first"), pytest.raises(ConnectionResetError):
        await openai.execute(fail)
    with tracer.start_as_current_span("second") as second, pytest.raises(ConnectionResetError):
        await openai.execute(fail)
    for _ in range(100):
        assert (await openai.try_execute(work)).rejected
    [trip] = [span for span in exporter.get_finished_spans() if span.name == "circuit_breaker.transition"]
    assert [link.context for link in trip.links] == [second.get_span_context()]
    attributes = dict(trip.attributes or {})
    assert attributes.pop("resilience.circuit_breaker.retry_after") == pytest.approx(57, abs=3)
    assert attributes == {
        "resilience.provider": "openai",
        "resilience.circuit_breaker.from": "closed",
        "resilience.circuit_breaker.to": "open",
        "resilience.reason": "in_a_row",
        "resilience.circuit_breaker.figures": "5 failures in a row",
    }


async def test_a_recovery_is_two_spans(exporter: InMemorySpanExporter) -> None:
    """On the way back each state is one span: half-open when the first probe leaves, closed when the last returns."""
    openai = provider()
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await openai.execute(fail)
    await anyio.sleep(60)
    for _ in range(5):
        await openai.execute(work)
    steps = [(span.attributes or {})["resilience.circuit_breaker.to"] for span in exporter.get_finished_spans()]
    assert steps == ["open", "half_open", "closed"]


async def test_untroubled_calls_are_no_spans(exporter: InMemorySpanExporter) -> None:
    """Calls that change no state record nothing here."""
    openai = provider()
    for _ in range(10):
        await openai.execute(work)
    assert not exporter.get_finished_spans()
