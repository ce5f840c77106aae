"""What Prometheus reads: names, filters, other names, and what several workers make together."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from resilience import ConfigurationError, MetricsSettings, ProviderRegistry, ResilientProvider
from resilience._core.states import CircuitState
from resilience.process import meter_calls
from resilience.telemetry import _workers, names
from resilience.telemetry import prometheus as page
from resilience.telemetry._collect import Collector
from resilience.telemetry._exposition import Exposition
from resilience.telemetry._families import Worker, aliases, dumped, loaded, merged
from resilience.telemetry._workers import Workers
from resilience.telemetry.metrics import Instruments
from resilience.telemetry.names import Instrument, Metric

Series = dict[tuple[str, ...], float]


class Scene:
    """A registry and its page."""

    def __init__(self, settings: MetricsSettings) -> None:
        self.registry = ProviderRegistry()
        self.collector = Collector(lambda: [self.registry])
        self.collector.listen()
        self.page = Exposition(settings, self.collector)
        self.sdk = MeterProvider([self.page.reader], shutdown_on_exit=False)
        Instruments(self.sdk, self.collector).observe((names.RELOADS,))

    def call(self, provider: ResilientProvider, times: int = 1) -> None:
        async def work() -> None:
            for _ in range(times):
                await provider.execute(asyncio.sleep, 0)

        asyncio.run(work())

    def read(self, *wanted: str) -> dict[str, float]:
        body, media_type = self.page.text(wanted)
        assert media_type.startswith("text/plain")
        return flat(parse(body.decode()))

    def end(self) -> None:
        self.collector.stop()
        self.page.stop()
        self.sdk.shutdown()


def flat(families: Iterator[Family]) -> dict[str, float]:
    """Return samples as a scrape shows them."""
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def scene() -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []
    meter_calls(True)

    def make(**settings: object) -> Scene:
        scenes.append(Scene(MetricsSettings.model_validate(settings)))
        return scenes[-1]

    yield make
    for one in scenes:
        one.end()
    meter_calls(False)


# -- one process -------------------------------------------------------------------------------------------------------


def test_a_page(scene: Callable[..., Scene]) -> None:
    """The page holds calls, durations, the circuit's states from the beginning, and the process."""
    one = scene()
    provider = one.registry.provider("openai")
    read = one.read()
    assert read["resilience_circuit_breaker_state{resilience_circuit_breaker_state=closed}"
                "{resilience_provider=openai}"] == 1  # fmt: skip
    assert read["resilience_calls_total{resilience_outcome=success}{resilience_provider=openai}"] == 0
    one.call(provider, 3)
    read = one.read()
    assert read["resilience_calls_total{resilience_outcome=success}{resilience_provider=openai}"] == 3
    where = "{resilience_outcome=success}{resilience_provider=openai}"
    assert read[f"resilience_call_duration_seconds_count{where}"] == 3
    assert read[f"resilience_call_duration_seconds_bucket{{le=120.0}}{where}"] == 3
    assert read["process_cpu_seconds_total"] > 0
    assert "python_gc_collections_total{generation=0}" in read
    assert not any("otel_scope" in name for name in read)


def test_the_application_is_there_too(scene: Callable[..., Scene]) -> None:
    """Instruments of the application in the same SDK are on the same page."""
    one = scene()
    one.sdk.get_meter("shop").create_counter("orders").add(2)
    assert any(name.startswith("orders_total") for name in one.read())


def test_chosen_names(scene: Callable[..., Scene]) -> None:
    """A scrape may name what it wants: whole metrics, or single series of one."""
    one = scene()
    one.call(one.registry.provider("openai"))
    only = one.read("resilience_calls_total", "resilience_call_duration_seconds_count")
    assert {name.split("{")[0] for name in only} == {"resilience_calls_total", "resilience_call_duration_seconds_count"}
    assert {name.split("{")[0] for name in one.read("resilience_call_duration_seconds")} == {
        f"resilience_call_duration_seconds_{part}" for part in ("bucket", "sum", "count")
    }
    assert one.read("no_such_metric") == {}


def test_openmetrics(scene: Callable[..., Scene]) -> None:
    """Who asks for OpenMetrics gets it, and it is valid."""
    one = scene(aliases=True)
    one.call(one.registry.provider("openai"))
    body, media_type = one.page.text((), "application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert "resilience_calls" in {family.name for family in parse_openmetrics(body.decode())}


def test_other_names(scene: Callable[..., Scene]) -> None:
    """The names by which circuit breakers are often watched: off unless asked for, and right."""
    without = scene()
    without.registry.provider("openai")
    assert not [name for name in without.read() if name.startswith("circuitbreaker")]
    one = scene(aliases=True)
    openai, s3 = one.registry.provider("openai"), one.registry.provider("s3")
    one.call(openai, 2)
    assert one.read("circuitbreaker_state") == {
        "circuitbreaker_state{name=openai}": 0,
        "circuitbreaker_state{name=s3}": 0,
    }
    s3.breaker.open()
    half_open(openai)
    assert one.read("circuitbreaker_state") == {
        "circuitbreaker_state{name=openai}": 2,
        "circuitbreaker_state{name=s3}": 1,
    }
    requests = one.read("circuitbreaker_requests_total")
    assert requests["circuitbreaker_requests_total{name=openai}{result=success}"] == 2
    assert requests["circuitbreaker_requests_total{name=s3}{result=rejected}"] == 0
    changes = one.read("circuitbreaker_state_changes_total")
    assert changes == {"circuitbreaker_state_changes_total{from=closed}{name=s3}{to=forced_open}": 1}


def half_open(provider: ResilientProvider) -> None:
    now = provider._current().clock()
    provider.breaker.circuit.restore(CircuitState.OPEN, now, remaining=0.0, trips=1)
    provider.breaker.circuit.acquire(now + 1)


def test_results_are_added_up() -> None:
    """In the other names a success after a retry is a success, and variants are one."""
    family = Family("resilience_calls", "", "counter")
    for outcome, kind, count in [("success", "", 3), ("success_after_retry", "", 2), ("failure", "timeout", 1),
                                 ("failure", "server_error", 4)]:  # fmt: skip
        labels = {"resilience_provider": "x", "resilience_outcome": outcome, "resilience_kind": kind}
        family.add_sample("resilience_calls_total", labels, count)
    found = flat(iter(aliases([family])))
    assert found == {
        "circuitbreaker_requests_total{name=x}{result=success}": 5,
        "circuitbreaker_requests_total{name=x}{result=failure}": 5,
    }


def test_without_setting_up() -> None:
    """The page is there without anything having been set up, and says whose fault a wrong argument is."""
    page.start(MetricsSettings())
    try:
        body, _ = page.exposition(["python_info"])
        assert b"python_info{" in body
        with pytest.raises(TypeError, match="sequence of names"):
            page.exposition("python_info")
    finally:
        page.stop()
        meter_calls(False)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.name)
def test_names_are_the_exporters(metric: Metric, scene: Callable[..., Scene]) -> None:
    """Each metric has the name and the labels in Prometheus that `names` says, by the exporter's own word."""
    one = scene()
    values = tuple(f"v{number}" for number in range(len(metric.attributes)))
    if metric.instrument is Instrument.HISTOGRAM:
        one.collector.durations = lambda asked: {values: taken()} if asked is metric else {}  # type: ignore[method-assign]
    else:
        one.collector.provide(metric, lambda: [(values, 1.5)])
    text = one.page.text()[0].decode()
    suffix = "_count" if metric.instrument is Instrument.HISTOGRAM else ""
    lines = [
        line
        for line in text.splitlines()
        if line.startswith((f"{metric.prometheus}{suffix}{{", f"{metric.prometheus} "))
    ]
    shown = next(line for line in lines if not values or 'v0"' in line)
    for attribute, value in zip(metric.attributes, values, strict=True):
        assert f'{names.label(attribute)}="{value}"' in shown
    assert f"# TYPE {metric.prometheus} {metric.instrument}" in text


def taken() -> object:
    from resilience._core.histogram import Histogram

    histogram = Histogram()
    histogram.record(1.0)
    return histogram


# -- several workers ---------------------------------------------------------------------------------------------------


def family(name: str, kind: str, *samples: tuple[str, dict[str, str], float]) -> Family:
    made = Family(name, "what it is", kind)
    for sample in samples:
        made.add_sample(*sample)
    return made


def worker(pid: str, *, calls: float, in_flight: float, state: str) -> Worker:
    states = [("resilience_circuit_breaker_state", {"resilience_circuit_breaker_state": one}, float(one == state))
              for one in ("closed", "open")]  # fmt: skip
    return Worker(
        pid,
        [
            family("resilience_calls", "counter", ("resilience_calls_total", {"resilience_provider": "x"}, calls)),
            family(
                "resilience_call_duration_seconds",
                "histogram",
                ("resilience_call_duration_seconds_bucket", {"le": "0.1"}, calls),
                ("resilience_call_duration_seconds_sum", {}, calls / 10),
            ),
            family("resilience_in_flight", "gauge", ("resilience_in_flight", {"resilience_provider": "x"}, in_flight)),
            family("resilience_circuit_breaker_state", "gauge", *states),
            family("process_resident_memory_bytes", "gauge", ("process_resident_memory_bytes", {}, 7)),
            family("target", "info", ("target_info", {"service_name": "shop"}, 1)),
        ],
    )


def test_workers_are_added_up() -> None:
    """Counters and histograms are sums, also of the dead; gauges as their metric says, of the living."""
    found = flat(iter(merged([
        worker("1", calls=3, in_flight=2, state="closed"),
        worker("2", calls=4, in_flight=1, state="open"),
        worker("", calls=5, in_flight=9, state="open"),
    ])))  # fmt: skip
    assert found == {
        "resilience_calls_total{resilience_provider=x}": 12,
        "resilience_call_duration_seconds_bucket{le=0.1}": 12,
        "resilience_call_duration_seconds_sum": pytest.approx(1.2),
        "resilience_in_flight{resilience_provider=x}": 3,
        "resilience_circuit_breaker_state{resilience_circuit_breaker_state=closed}": 1,
        "resilience_circuit_breaker_state{resilience_circuit_breaker_state=open}": 1,
        "process_resident_memory_bytes{pid=1}": 7,
        "process_resident_memory_bytes{pid=2}": 7,
        "target_info{service_name=shop}": 1,
    }


def test_what_is_written_is_read() -> None:
    """What goes through a file comes back as it was."""
    families = list(worker("1", calls=3, in_flight=2, state="closed").families)
    assert loaded(json.loads(json.dumps(dumped(families)))) == families


def test_one_worker_reads_another(tmp_path: Path, scene: Callable[..., Scene]) -> None:
    """Whoever is asked tells what all have written, and his own as it is now."""
    one = scene(directory=str(tmp_path))
    mine = _workers._named.pop(tmp_path)
    other = scene(directory=str(tmp_path))  # as if it were another process
    _, lock = _workers._named[tmp_path]
    _workers._named[tmp_path] = mine
    one.call(one.registry.provider("openai"), 2)
    other.call(other.registry.provider("openai"), 3)
    key = "resilience_calls_total{resilience_outcome=success}{resilience_provider=openai}"
    assert one.read()[key] == 2
    other.page.write()
    assert one.read()[key] == 5
    other.registry.provider("openai").breaker.open()
    other.page.write()
    state = "resilience_circuit_breaker_state{resilience_circuit_breaker_state=%s}{resilience_provider=openai}"
    assert one.read()[state % "closed"] == one.read()[state % "forced_open"] == 1
    other.end()
    os.close(lock)  # its process is gone: what it counted stays, what it was doing does not
    read = one.read()
    assert read[key] == 5
    assert read[state % "forced_open"] == 0
    assert one.read()[key] == 5
    assert {path.name for path in tmp_path.iterdir() if path.suffix == ".json"} == {"gone.json"}


def test_beginning_anew(tmp_path: Path, scene: Callable[..., Scene]) -> None:
    """A process that sets its page up again, for the same directory, is one worker as before: nothing counts twice."""
    one = scene(directory=str(tmp_path))
    one.call(one.registry.provider("openai"), 2)
    one.page.stop()
    again = Exposition(MetricsSettings(directory=str(tmp_path)), one.collector)
    sdk = MeterProvider([again.reader], shutdown_on_exit=False)
    Instruments(sdk, one.collector).observe((names.RELOADS,))
    found = flat(parse(again.text(["resilience_calls_total"])[0].decode()))
    assert found["resilience_calls_total{resilience_outcome=success}{resilience_provider=openai}"] == 2
    again.stop()
    sdk.shutdown()


def test_an_interrupted_burial(tmp_path: Path) -> None:
    """A reader that was interrupted after it had counted a dead worker does not let it be counted twice."""
    mine = Workers(tmp_path, 1000, list)
    dead = {"pid": "7", "families": dumped(worker("7", calls=3, in_flight=0, state="closed").families)}
    (tmp_path / "7-dead.json").write_text(json.dumps(dead))
    first = flat(iter(mine.all()))
    (tmp_path / "7-dead.json").write_text(json.dumps(dead))
    assert flat(iter(mine.all())) == first
    assert not (tmp_path / "7-dead.json").exists()
    mine.stop()


def test_a_file_of_somebody_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file in the directory that no worker wrote is told of, and hides nobody."""
    (tmp_path / "not-ours.json").write_text('{"hello": "world"}')
    dead = {"pid": "7", "families": dumped(worker("7", calls=3, in_flight=0, state="closed").families)}
    (tmp_path / "7-dead.json").write_text(json.dumps(dead))
    mine = Workers(tmp_path, 1000, list)
    assert flat(iter(mine.all()))["resilience_calls_total{resilience_provider=x}"] == 3
    assert "not-ours.json is no worker's file" in caplog.text
    mine.stop()


def test_a_write_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that cannot write says so and goes on."""

    def read() -> list[Family]:
        raise RuntimeError("not now")

    mine = Workers(tmp_path, 1000, read)
    mine.write()
    assert "metrics could not be written" in caplog.text
    mine.stop()


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    """A directory that cannot be written to is refused, with its name and what is expected."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"metrics.directory.*file.*all workers may write to"):
        Workers(tmp_path / "file", 5, list)


FORKS = """
import asyncio, os, signal, sys, time
from resilience import MetricsSettings, ResilientProvider
from resilience.telemetry import prometheus

prometheus.start(MetricsSettings(directory=sys.argv[1], interval=0.05))

def work(calls):
    provider = ResilientProvider("openai")
    async def run():
        for _ in range(calls):
            await provider.execute(asyncio.sleep, 0)
    asyncio.run(run())

def fork(calls, ends):
    pid = os.fork()
    if pid:
        return pid
    work(calls)
    if ends == "exit":
        sys.exit()
    if ends == "killed":
        time.sleep(0.4)
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()

def count():
    body, _ = prometheus.exposition(["resilience_calls_total"])
    line = [line for line in body.decode().splitlines() if 'outcome="success"' in line]
    return float(line[0].split()[-1]) if line else 0.0

work(1)
for pid in [fork(2, "exit"), fork(3, "killed")]:
    os.waitpid(pid, 0)
alive = fork(4, "pause")
deadline = time.monotonic() + 20
while count() != 10 and time.monotonic() < deadline:
    time.sleep(0.02)
before = count()
os.kill(alive, signal.SIGKILL)
os.waitpid(alive, 0)
print(before, count(), count())
"""


@pytest.mark.real_time
def test_forked_workers(tmp_path: Path) -> None:
    """Forked workers count for themselves and together, whether they live, have ended or were killed."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["10.0", "10.0", "10.0"], done.stderr
