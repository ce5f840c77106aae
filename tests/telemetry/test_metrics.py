"""Metrics of real calls, as an application's SDK exports them: through its instruments, and added to its export."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections.abc import Callable, Generator
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider

from resilience import (
    BreakerSettings,
    BulkheadSettings,
    CostSettings,
    ExperimentSettings,
    HedgeSettings,
    ProviderRegistry,
    ProviderSettings,
    RateLimitSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    TimeoutSettings,
    Usage,
)
from resilience._core.histogram import Histogram
from resilience.events import GateClosed, SettingsRefused, process_bus
from resilience.process import meter_calls
from resilience.telemetry import names, tracing
from resilience.telemetry._collect import Collector
from resilience.telemetry._exemplars import Examples, examples
from resilience.telemetry._points import ExporterWithMetrics
from resilience.telemetry._replay import spread
from resilience.telemetry.metrics import Instruments
from resilience.telemetry.names import Instrument, Metric

anywhere = pytest.mark.anyio
NO_JITTER = RetrySettings(jitter="none", base_delay=1.0)


class Kept(MetricExporter):
    """Keeps what was exported last."""

    data: MetricsData | None = None

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.data = metrics_data
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass


class Meter:
    """One registry whose providers are measured, and what an SDK says of them."""

    def __init__(self, way: str) -> None:
        self.registries: list[ProviderRegistry] = []
        self.collector = Collector(lambda: self.registries)
        self.collector.listen()
        if way == "instruments":
            reader = InMemoryMetricReader()
            self.collect: Callable[[], MetricsData | None] = reader.get_metrics_data
        else:
            exporter = Kept()
            added = ExporterWithMetrics(exporter, self.collector)
            reader = PeriodicExportingMetricReader(added, export_interval_millis=math.inf)

            def collect() -> MetricsData | None:
                reader.collect()
                return exporter.data

            self.collect = collect
        self.sdk = MeterProvider([reader], shutdown_on_exit=False)
        self.instruments = Instruments(self.sdk, self.collector)
        self.instruments.observe(names.METRICS if way == "instruments" else (names.RELOADS,))

    def registry(self, max_providers: int = 1024, **defaults: Any) -> ProviderRegistry:
        settings = Settings(defaults=ProviderSettings(**defaults), max_providers=max_providers)
        registry = ProviderRegistry(settings, clock=anyio.current_time)
        self.registries.append(registry)
        return registry

    def provider(self, name: str = "openai", **defaults: Any) -> ResilientProvider:
        return self.registry(**defaults).provider(name)

    def points(self, metric: Metric) -> list[tuple[dict[str, str], Any]]:
        data = self.collect()
        assert data is not None
        [resource] = data.resource_metrics
        exported = [one for scope in resource.scope_metrics for one in scope.metrics if one.name == metric.name]
        assert len(exported) <= 1
        for one in exported:
            assert (one.unit, one.description) == (metric.unit, metric.description)
        return [(dict(point.attributes or {}), point) for one in exported for point in one.data.data_points]

    def __call__(self, metric: Metric, **wanted: str) -> dict[str, float]:
        """Return the numbers of *metric* by the values of its attributes without the provider's name."""
        found: dict[str, float] = {}
        for attributes, point in self.points(metric):
            assert set(attributes) <= set(metric.attributes)
            rest = ",".join(attributes[name] for name in metric.attributes[1:] if name in attributes)
            number = point.count if isinstance(point, HistogramDataPoint) else point.value
            if number or metric.instrument is Instrument.GAUGE:
                found[rest] = number
        return found


@pytest.fixture(params=["instruments", "added"])
def meter(request: pytest.FixtureRequest) -> Generator[Meter, None, None]:
    """What is measured is the same, whichever way it takes."""
    meter_calls(True)
    examples.start_anew()
    meter = Meter(request.param)
    yield meter
    meter.collector.stop()
    meter_calls(False)
    meter.sdk.shutdown()


async def work(seconds: float = 0.02, result: object = "done") -> object:
    await anyio.sleep(seconds)
    return result


class Flaky:
    """Raises what it is given, in turn, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self) -> str:
        await anyio.sleep(0.02)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@anywhere
async def test_success(meter: Meter) -> None:
    """Calls that succeed are counted, and so is how long they and their attempts took."""
    provider = meter.provider()
    for _ in range(3):
        await provider.execute(work)
    assert meter(names.CALLS) == {"success": 3}
    assert meter(names.CALL_DURATION) == meter(names.ATTEMPT_DURATION) == {"success": 3}
    [(attributes, point)] = meter.points(names.CALL_DURATION)
    assert attributes == {"resilience.provider": "openai", "resilience.outcome": "success"}
    assert point.sum == pytest.approx(0.06)
    assert tuple(point.explicit_bounds) == names.BUCKETS
    assert list(point.bucket_counts) == [0, 0, 3, *[0] * 12]


@anywhere
async def test_success_after_a_retry(meter: Meter) -> None:
    """A call that needed a second attempt is one call, two attempts, a retry with its cause, and a delay."""
    provider = meter.provider(retry=NO_JITTER)
    await provider.with_options(operation="chat").execute(Flaky(ConnectionResetError()))
    assert meter(names.CALLS) == {"success_after_retry": 1}
    assert meter(names.CALL_DURATION) == {"chat,success_after_retry": 1}
    assert meter(names.ATTEMPT_DURATION) == {"chat,failure": 1, "chat,success": 1}
    assert meter(names.RETRIES) == {"connection_error,retried": 1}
    [(_, delay)] = meter.points(names.RETRY_DELAY)
    assert (delay.count, delay.sum) == (1, pytest.approx(0.5))


@anywhere
async def test_failure(meter: Meter) -> None:
    """A call that failed is counted by kind and category; that it was given up, with the reason."""
    provider = meter.provider(retry=RetrySettings(jitter="none", max_attempts=2))
    with pytest.raises(ConnectionResetError):
        await provider.execute(Flaky(ConnectionResetError(), ConnectionResetError()))
    assert meter(names.CALLS) == {"failure,connection_error,retriable": 1}
    assert meter(names.CALL_DURATION) == {"failure": 1}
    assert meter(names.RETRIES) == {"connection_error,retried": 1, "connection_error,attempts_spent": 1}
    assert meter(names.FAILURE_RATE) == {"": 1.0}


@anywhere
async def test_rejections(meter: Meter) -> None:
    """Every refusal is counted with its reason, those of the fast path as well; the circuit's state and change too."""
    provider = meter.provider()
    assert meter(names.BREAKER_STATE) == {"closed": 1, "open": 0, "half_open": 0, "forced_open": 0, "disabled": 0}
    provider.breaker.open()
    for _ in range(4):
        assert (await provider.try_execute(work)).rejected
    assert meter(names.CALLS) == {"rejected": 4}
    assert meter(names.REJECTIONS) == {"forced_open,enforce": 4}
    assert meter(names.BREAKER_STATE)["forced_open"] == 1
    assert meter(names.TRANSITIONS) == {"closed,forced_open,by_hand": 1}
    assert meter(names.CALL_DURATION) == {}


@anywhere
async def test_rejections_of_an_open_circuit(meter: Meter) -> None:
    """The calls that an open circuit refuses are all counted, whichever way they took."""
    provider = meter.provider(retry=RetrySettings(enabled=False), breaker=BreakerSettings(failure_threshold=1))
    assert not (await provider.try_execute(Flaky(ConnectionResetError()))).ok
    for _ in range(7):
        assert (await provider.try_execute(work)).rejected
    assert meter(names.REJECTIONS) == {"circuit_open,enforce": 7}
    assert meter(names.CALLS) == {"rejected": 7, "failure,connection_error,retriable": 1}


@anywhere
async def test_would_be_rejections(meter: Meter) -> None:
    """What a breaker in shadow mode would have refused is told apart from what was refused."""
    breaker = BreakerSettings(mode="shadow", failure_threshold=1)
    provider = meter.provider(retry=RetrySettings(enabled=False), breaker=breaker)
    assert not (await provider.try_execute(Flaky(ConnectionResetError()))).ok
    for _ in range(3):
        await provider.execute(work)
    assert meter(names.REJECTIONS) == {"circuit_open,shadow": 3}
    assert meter(names.CALLS)["success"] == 3


@anywhere
async def test_cancellation(meter: Meter) -> None:
    """A call that its caller cancelled is neither a success nor a failure."""
    provider = meter.provider()
    with anyio.move_on_after(0.1):
        await provider.execute(work, 5)
    assert meter(names.CALLS) == {"cancelled": 1}
    assert meter(names.CALL_DURATION) == {"cancelled": 1}


@anywhere
async def test_timeouts(meter: Meter) -> None:
    """An attempt that our own limit interrupted is counted as a timeout."""
    provider = meter.provider(retry=RetrySettings(enabled=False), timeout=TimeoutSettings(attempt=0.5))
    assert not (await provider.try_execute(work, 5)).ok
    assert meter(names.TIMEOUTS) == {"": 1}
    assert meter(names.CALLS) == {"failure,timeout,retriable": 1}
    assert meter(names.RETRIES) == {"timeout,retry_disabled": 1}


@anywhere
async def test_stream(meter: Meter) -> None:
    """A stream is one call, over when its last item was taken."""

    async def tokens():
        for token in range(3):
            await anyio.sleep(0.1)
            yield token

    async with meter.provider().stream(tokens) as items:
        assert meter(names.CALLS) == {}
        assert [item async for item in items] == [0, 1, 2]
    assert meter(names.CALLS) == {"success": 1}
    assert meter(names.CALL_DURATION) == {"success": 1}


@anywhere
async def test_hedge(meter: Meter) -> None:
    """A hedged call is one call; its second attempt is counted as launched, and as won if it answered."""
    hedge = HedgeSettings(enabled=True, max_extra_load=0.5, min_delay=1.0, max_delay=1.0, warm_up=1)
    provider = meter.provider(hedge=hedge).with_options(idempotent=True)
    for _ in range(20):
        await provider.execute(work, 0.5)
    slow = iter([30.0, 0.1])
    await provider.execute(lambda: work(next(slow)))
    assert meter(names.HEDGES) == {"launched": 1, "won": 1}
    assert meter(names.CALLS) == {"success": 21}


@anywhere
async def test_fallback(meter: Meter) -> None:
    """A call that went on with another provider is counted at the one that could not."""
    registry = meter.registry(retry=RetrySettings(enabled=False))
    chain = registry.provider("openai").fallback_to(registry.provider("anthropic"))
    await chain.execute(Flaky(ConnectionResetError()))
    assert meter(names.FALLBACKS) == {"connection_error": 1}


@anywhere
async def test_what_goes_up_and_down(meter: Meter) -> None:
    """While calls run and wait, gauges tell how many, and what the limits have left."""
    provider = meter.provider(
        bulkhead=BulkheadSettings(max_concurrent=2),
        rate_limit=RateLimitSettings(requests_per_minute=10),
        cost=CostSettings(limit=100.0),
    )
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(provider.with_options(reserve=Usage(cost=7)).execute, work, 2)
        await anyio.sleep(0.1)
        assert meter(names.IN_FLIGHT) == {"": 2}
        assert meter(names.WAITING) == {"": 1}
        assert meter(names.LIMITER_LIMIT) == meter(names.LIMITER_USAGE) == {"bulkhead": 2}
        assert meter(names.LIMITER_QUEUE) == {"bulkhead": 1, "rate_limit": 0}
        assert meter(names.RATE_REMAINING) == {"requests per minute": 7}
        assert meter(names.COST_REMAINING) == {"": 79}
    assert meter(names.IN_FLIGHT) == meter(names.WAITING) == {"": 0}
    assert meter(names.RETRY_BUDGET)[""] > 0
    assert meter(names.SLOW_RATE) == {"": 0}


@anywhere
async def test_gate(meter: Meter) -> None:
    """A gate that closed is counted, and for how long it still is."""
    provider = meter.provider()
    provider._current().common.close_gate(anyio.current_time(), 30.0)
    assert meter(names.GATE_CLOSED_FOR) == {"": 30}


@anywhere
async def test_a_thousand_calls_at_once(meter: Meter) -> None:
    """However calls end, and however many at once: what the metrics add up to is what was called."""
    registry = meter.registry(
        retry=RetrySettings(base_delay=0.1), breaker=BreakerSettings(mode="shadow"), bulkhead={"max_concurrent": 400}
    )
    ends: dict[str, int] = {}

    async def call(number: int) -> None:
        provider = registry.provider(f"provider-{number % 7}")
        func = (work, Flaky(ConnectionResetError()), Flaky(ValueError("no")), work)[number % 4]
        limit = 0.01 if number % 4 == 3 else math.inf
        outcome = None
        with anyio.move_on_after(limit):
            outcome = await provider.try_execute(func)
        end = (
            "cancelled"
            if outcome is None
            else "rejected"
            if outcome.rejected
            else "success"
            if outcome.ok
            else "failure"
        )
        ends[end] = ends.get(end, 0) + 1

    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(call, number)
    counted: dict[str, float] = {}
    for attributes, point in meter.points(names.CALLS):
        end = attributes["resilience.outcome"].removesuffix("_after_retry")
        counted[end] = counted.get(end, 0) + point.value
    assert {end: count for end, count in counted.items() if count} == ends
    assert sum(ends.values()) == 1000
    took = sum(point.count for _, point in meter.points(names.CALL_DURATION))
    assert took == 1000 - ends.get("rejected", 0)


@anywhere
async def test_several_registries_are_added_up(meter: Meter) -> None:
    """Two registries with a provider of one name are one series: a sum, or what is worst."""
    one, other = meter.provider("openai"), meter.provider("openai")
    await one.execute(work)
    await other.execute(work)
    assert meter(names.BREAKER_STATE)["closed"] == 1
    other.breaker.open()
    assert meter(names.CALLS) == {"success": 2}
    states = meter(names.BREAKER_STATE)
    assert (states["closed"], states["forced_open"]) == (1, 1)


@anywhere
async def test_reloads(meter: Meter) -> None:
    """Settings that were taken, that changed nothing and that were refused are counted apart, from zero on."""
    assert {attributes["resilience.outcome"]: point.value for attributes, point in meter.points(names.RELOADS)} == {
        "applied": 0, "unchanged": 0, "refused": 0
    }  # fmt: skip
    registry = meter.registry()
    registry.reload(Settings(defaults=ProviderSettings(retry=RetrySettings(max_attempts=7))))
    registry.reload(registry.settings)
    process_bus.emit(SettingsRefused(provider="", time=0, source="file", problem="a typo"))
    points = {attributes["resilience.outcome"]: point.value for attributes, point in meter.points(names.RELOADS)}
    assert points["applied"] == 1
    assert points["refused"] == 1


@anywhere
async def test_the_arms_of_an_experiment(meter: Meter) -> None:
    """Both arms of an experiment are counted side by side, their circuits and what these did as well."""
    other = ExperimentSettings(share=0.5, settings=ProviderSettings(breaker=BreakerSettings(failure_threshold=1)))
    settings = Settings(defaults=ProviderSettings(retry=RetrySettings(enabled=False)), experiments={"openai": other})
    registry = ProviderRegistry(settings, clock=anyio.current_time, rng=random.Random(1))
    meter.registries.append(registry)
    provider = registry.provider("openai")
    for _ in range(40):
        await provider.execute(work)
    while not meter(names.TRANSITIONS):
        assert not (await provider.try_execute(Flaky(ConnectionResetError()))).ok
    calls = meter(names.CALLS)
    assert calls["success,a"] + calls["success,b"] == 40
    assert min(calls["success,a"], calls["success,b"]) > 5
    assert meter(names.TRANSITIONS) == {"closed,open,in_a_row,b": 1}
    states = meter(names.BREAKER_STATE)
    assert states["closed,a"] == states["open,b"] == 1


# -- bounds ----------------------------------------------------------------------------------------------------------


@anywhere
async def test_what_is_forgotten_stays_counted(meter: Meter) -> None:
    """When a registry forgets a provider, what it had counted goes on under a common name; no counter falls."""
    registry = meter.registry(max_providers=1)
    await registry.provider("one").with_options(operation="chat").execute(work)
    registry.provider("one").breaker.open()
    registry.provider("one").breaker.close()
    before = meter(names.CALLS)
    assert before == {"success": 1}
    await registry.provider("two").execute(work)
    calls = {attributes["resilience.provider"]: point.value for attributes, point in meter.points(names.CALLS)
             if attributes["resilience.outcome"] == "success"}  # fmt: skip
    assert calls == {"_other": 1, "two": 1}
    moved = {attributes["resilience.provider"] for attributes, _ in meter.points(names.TRANSITIONS)}
    assert moved == {"_other"}
    counted = sum(point.count for _, point in meter.points(names.CALL_DURATION))
    assert counted == 2


@anywhere
async def test_a_reset_takes_nothing_back(meter: Meter) -> None:
    """Resetting a circuit by hand leaves every counter as it was."""
    provider = meter.provider()
    for _ in range(5):
        await provider.execute(work)
    provider.breaker.reset()
    assert meter(names.CALLS) == {"success": 5}


@anywhere
async def test_operations_are_bounded(meter: Meter) -> None:
    """Operations named from request data share one name once there are too many."""
    provider = meter.provider()
    for number in range(500):
        await provider.with_options(operation=f"user-{number}").execute(work)
    operations = {attributes["resilience.operation"] for attributes, _ in meter.points(names.CALL_DURATION)}
    assert len(operations) <= 65
    assert "_other" in operations
    assert sum(point.count for _, point in meter.points(names.CALL_DURATION)) == 500


def test_a_hundred_thousand_names() -> None:
    """Provider names made from request data: a bounded number of series, and their sum is still what was called."""
    registry = ProviderRegistry(Settings(max_providers=16))
    collector = Collector(lambda: [registry])
    collector.listen()
    for number in range(3000):
        registry.runtime(f"user-{number}", None if number % 2 else "eu").succeeded += 1
        if not number % 100:
            collector.numbers(names.CALLS)
    collector.stop()
    passing = ProviderRegistry().runtime("passing")
    passing.succeeded = 1
    for number in range(97_000):  # what a registry does with each, without the time that it takes
        passing.name = f"tenant-{number}"
        collector.events(GateClosed(provider=passing.name, time=0, seconds=1, hinted=True))
        collector.forget(passing)
    counted = collector.numbers(names.CALLS)
    assert len(counted) <= 4 * 17
    assert sum(counted.values()) == 100_000
    assert collector.numbers(names.GATE_CLOSINGS) == {("_other", "true"): 97_000}
    assert len(collector._since) <= 2 * 1024 + 16


def test_a_hundred_thousand_names_in_events() -> None:
    """Events of names that no registry ever forgets are bounded too."""
    collector = Collector(list)
    for number in range(100_000):
        collector.events(GateClosed(provider=f"tenant-{number}", time=0, seconds=1, hinted=False))
    counted = collector.numbers(names.GATE_CLOSINGS)
    assert len(counted) == 2049
    assert sum(counted.values()) == 100_000


def test_more_providers_than_are_told_apart() -> None:
    """A registry that keeps too many providers: the rest shares a name, and nobody changes it while he lives."""
    registry = ProviderRegistry(Settings(max_providers=3000))
    collector = Collector(lambda: [registry])
    for number in range(1500):
        registry.runtime(f"user-{number}").succeeded += 1
    first = collector.numbers(names.CALLS)
    assert len({values[0] for values in first}) == 1025
    assert first["_other", "success", "", "", ""] == 1500 - 1024
    registry.runtimes = dict(reversed(registry.runtimes.items()))
    assert collector.numbers(names.CALLS) == first


@anywhere
async def test_dropped_registries_are_let_go(meter: Meter) -> None:
    """Being measured keeps no registry alive."""
    registry = weakref.ref(meter.registry())
    meter.registries[0].provider("openai")
    assert "closed" in meter(names.BREAKER_STATE)
    meter.registries.clear()
    gc.collect()
    assert registry() is None
    assert meter(names.BREAKER_STATE) == {}


@anywhere
async def test_a_clock_that_stands_still(meter: Meter) -> None:
    """A provider whose clock only runs in a loop that is over hides no other, nor its own counters."""

    def stopped() -> float:
        raise RuntimeError("no loop")

    meter.provider("one")
    other = meter.provider("two")
    await other.execute(work)
    other._current().clock = stopped
    assert meter(names.CALLS) == {"success": 1}
    assert len(meter.points(names.GATE_CLOSED_FOR)) == 1


# -- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds",
    [[0.001], [0.005], [0.02, 0.02, 0.3], [5.0, 59.0, 119.0], [120.5, 400.0], [0.0, 0.0], [0.004, 7.0, 130.0]],
)
def test_what_is_recorded_again(seconds: list[float]) -> None:
    """Values that stand for counted durations lie in the same buckets and have the same sum."""
    counted, again = Histogram(), Histogram()
    for one in seconds:
        counted.record(one)
    for value, count in spread(counted):
        for _ in range(count):
            again.record(value)
    assert again.counts == counted.counts
    assert again.total == pytest.approx(counted.total)


@anywhere
async def test_examples(meter: Meter, tracer_provider: TracerProvider) -> None:
    """A bucket leads to the trace of the last recorded call in it; calls outside of traces leave none."""
    tracing.install(tracer_provider)
    try:
        provider = meter.provider("exemplary")
        with tracer_provider.get_tracer("app").start_as_current_span("request") as span:
            await provider.execute(work)
        trace_id = span.get_span_context().trace_id
        await provider.execute(work)
    finally:
        tracing.remove()
    [(_, point)] = meter.points(names.CALL_DURATION)
    assert point.count == 2
    if meter.instruments._observed == frozenset((names.RELOADS,)):
        assert [example.trace_id for example in point.exemplars] == [trace_id]


def test_one_example_for_each_bucket() -> None:
    """Each bucket keeps its last example, those of other series beside it, and there is a bound on series."""
    kept = Examples()
    values = ("openai", "", "success", "")
    for trace_id, seconds in enumerate([0.003, 2.0, 0.004, 500.0]):
        kept.keep(names.CALL_DURATION, values, seconds, trace_id=trace_id, span_id=1)
    assert [(one.seconds, one.trace_id) for one in kept.of(names.CALL_DURATION, values)] == [
        (0.004, 2), (2.0, 1), (500.0, 3)
    ]  # fmt: skip
    assert not kept.of(names.ATTEMPT_DURATION, values)
    for number in range(5000):
        kept.keep(names.CALL_DURATION, (str(number), "", "success", ""), 1.0, trace_id=1, span_id=1)
        kept.keep(names.CALL_DURATION, ("openai", str(number), "success", ""), 1.0, trace_id=1, span_id=1)
    assert len(kept._kept) == 1024
    assert len(kept._kept["openai"]) == 128
    kept.forget("openai")
    assert not kept.of(names.CALL_DURATION, values)


@anywhere
async def test_silence(meter: Meter) -> None:
    """Instruments that are silenced report nothing, and report again when they are asked to."""
    provider = meter.provider()
    await provider.execute(work)
    before = meter.instruments._observed
    meter.instruments.observe(())
    assert meter.collect() is None or not meter.points(names.RELOADS)
    meter.instruments.observe(before)
    assert meter(names.CALLS) == {"success": 1}
