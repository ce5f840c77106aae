"""A real OTLP receiver gets spans, metrics and log records of real calls over the wire."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings
from stage import free_port

from resilience.telemetry import names

SENDER = Path(__file__).parent / "sender.py"
INTERNAL, ERROR = 1, 2  # as the protocol numbers kinds of spans, and codes of their statuses


class Received(NamedTuple):
    """What arrived."""

    spans: list[Any]
    metrics: list[Any]
    records: list[Any]


def plain(attributes: Iterable[Any]) -> dict[str, Any]:
    """Attributes as a table."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


async def receive() -> Received:
    """Run the program beside a receiver."""
    received = Received([], [], [])
    port = free_port()

    async def keep(stream: AsyncIterator[Any], into: list[Any]) -> None:
        async for one in stream:
            into.append(one)  # noqa: PERF401 - it is looked at while it grows

    async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port)) as receiver:
        streams = (receiver.stream_traces(), receiver.stream_metrics(), receiver.stream_logs())
        async with anyio.create_task_group() as tasks:
            for stream, into in zip(streams, received, strict=True):
                tasks.start_soon(keep, stream, into)
            await anyio.to_thread.run_sync(sent, port)
            with anyio.move_on_after(10):
                while not arrived(received):  # noqa: ASYNC110 - the receiver hands over what arrived in threads
                    await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
    return received


def sent(port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(SENDER), f"http://127.0.0.1:{port}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def arrived(received: Received) -> bool:
    """Whether the last of each is there."""
    spans = {span.name for span in received.spans}
    return "outage" in spans and bool(received.metrics) and bool(received.records)


@pytest.fixture(name="received", scope="module")
def _received() -> Received:
    return anyio.run(receive)


def named(received: Received, name: str) -> list[Any]:
    return [span for span in received.spans if span.name == name]


def last(received: Received, metric: names.Metric) -> list[Any]:
    """The points of the last time that a metric was sent."""
    data = [one for one in received.metrics if one.name == metric.name][-1]
    points: list[Any] = list(getattr(data, data.WhichOneof("data")).data_points)
    return points


def test_each_call_is_a_span_with_its_attempts(received: Received) -> None:
    """Every call arrives as a span in its caller's, with a span for each attempt, which the caller's own are in."""
    (order,) = named(received, "order")
    calls = named(received, names.CALL_SPAN.format(provider="s3"))
    attempts = named(received, names.ATTEMPT_SPAN.format(provider="s3"))
    assert (len(calls), len(attempts)) == (8, 9)
    assert {call.parent_span_id for call in calls} == {order.span_id}
    assert {one.parent_span_id for one in attempts} == {call.span_id for call in calls}
    assert {work.parent_span_id for work in named(received, "work")} <= {one.span_id for one in attempts}
    assert {span.trace_id for span in (*calls, *attempts)} == {order.trace_id}
    assert {call.kind for call in calls} == {INTERNAL}


def test_spans_tell_how_calls_ended(received: Received) -> None:
    """A call that recovered is no error; one that failed is, with its kind."""
    ends = [plain(call.attributes)[names.OUTCOME] for call in named(received, names.CALL_SPAN.format(provider="s3"))]
    assert sorted(ends) == ["success"] * 7 + ["success_after_retry"]
    assert all(call.status.code != ERROR for call in named(received, names.CALL_SPAN.format(provider="s3")))
    failed = [
        call for call in named(received, names.CALL_SPAN.format(provider="openai"))
        if plain(call.attributes)[names.OUTCOME] == "failure"
    ]  # fmt: skip
    assert failed
    assert {call.status.code for call in failed} == {ERROR}
    assert {plain(call.attributes)[names.KIND] for call in failed} == {"connection_error"}


def test_the_opening_of_the_circuit_is_a_span(received: Received) -> None:
    """The change of the circuit's state arrives, with from, to and reason, linked to the call that caused it."""
    (change,) = named(received, names.TRANSITION_SPAN)
    facts = plain(change.attributes)
    assert (facts[names.PROVIDER], facts[names.FROM], facts[names.TO]) == ("openai", "closed", "open")
    assert facts[names.REASON] == "in_a_row"
    (outage,) = named(received, "outage")
    assert {link.trace_id for link in change.links} == {outage.trace_id}


def test_metrics_come_to_the_calls_made(received: Received) -> None:
    """The totals that arrive are those of the calls that were made."""
    calls = {
        (facts[names.PROVIDER], facts[names.OUTCOME]): point.as_int or point.as_double
        for point in last(received, names.CALLS)
        if (facts := plain(point.attributes))
    }
    assert calls["s3", "success"] == 7
    assert calls["s3", "success_after_retry"] == 1
    assert calls["openai", "failure"] + calls["openai", "rejected"] == 4
    durations = [
        point for point in last(received, names.CALL_DURATION) if plain(point.attributes)[names.PROVIDER] == "s3"
    ]
    assert sum(point.count for point in durations) == 8
    assert list(durations[0].explicit_bounds) == list(names.BUCKETS)
    states = {
        plain(point.attributes)[names.STATE]: point.as_int or point.as_double
        for point in last(received, names.BREAKER_STATE)
        if plain(point.attributes)[names.PROVIDER] == "openai"
    }
    assert {state for state, value in states.items() if value} == {"open"}


def test_every_metric_that_arrives_has_a_name_of_ours(received: Received) -> None:
    """Nothing arrives under a name that is not documented, and each has its unit."""
    known = {metric.name: metric.unit for metric in names.METRICS}
    ours = {one.name: one.unit for one in received.metrics if one.name.startswith("resilience.")}
    assert ours.items() <= known.items()
    assert len(ours) > 10


def test_the_opening_of_the_circuit_is_a_log_record(received: Received) -> None:
    """The same change arrives as a log record with its event name, in the trace of the call."""
    (record,) = [one for one in received.records if one.event_name == names.CIRCUIT_EVENT]
    facts = plain(record.attributes)
    assert (facts[names.PROVIDER], facts[names.TO]) == ("openai", "open")
    (outage,) = named(received, "outage")
    assert record.trace_id == outage.trace_id
