"""
What telemetry costs a call: the metrics, the look whether somebody records, the spans, and all of it on real requests.

Metrics and spans are switched for the whole process, so each block switches what it needs. Single calls are measured
as the best of many blocks, real requests in pairs of neighbours, as `benchmarks.transport` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias, final

from opentelemetry.sdk.trace import TracerProvider

from benchmarks.check import Check
from benchmarks.floor import by_hand
from benchmarks.targets import answer
from benchmarks.transport import _block, _interval, _serving
from providers.http import Client, client
from resilience import ProviderRegistry, logging
from resilience._core.histogram import Histogram
from resilience.telemetry import names, records, tracing
from resilience.telemetry.metrics import start, stop

ROUNDS = 400
PAIRS = 300
QUICK_ROUNDS = 60
CALLS = 2000
METRICS = 1.0
SPANS = 1.3
REQUESTS = 1.01

_CALL: Final = {names.PROVIDER: "bench"}
_ATTEMPT: Final[Mapping[str, str | int]] = {names.PROVIDER: "bench", names.ATTEMPT: 1}
_ENDED: Final = {names.OUTCOME: "success"}
_OVER: Final[Mapping[str, str | int]] = {names.OUTCOME: "success", names.ATTEMPTS: 1}

_Block: TypeAlias = Callable[[], Awaitable[float]]


@final
@dataclass(frozen=True, slots=True)
class Telemetry:
    """
    Nanoseconds of CPU time per call, and how real requests compare.

    Args:
        floor: Retry and breaker by hand.
        off: A call, default settings.
        metrics: The same while its duration is counted.
        record: One record of the histogram that counts it, alone.
        unrecorded: The same while spans are made for those who record, which nobody does.
        bare_spans: The two spans that it would make, with their attributes, by hand around the bare function.
        spans: A call within a recorded span: it makes two spans.
        request: A request over HTTP in microseconds, telemetry off, the median.
        ratio: With metrics and logs on, as a multiple of it: the median of all pairs.
        low: Where its confidence interval (95 %) begins.
        high: Where it ends.
        pairs: How many there were.
    """

    floor: float
    off: float
    metrics: float
    record: float
    unrecorded: float
    bare_spans: float
    spans: float
    request: float
    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def added(self) -> float:
        """What metrics add to a call besides the record itself, as a multiple of the floor."""
        return (self.metrics - self.off - self.record) / self.floor

    @property
    def beside_bare(self) -> float:
        """What a call within a recorded span costs, as a multiple of the spans that it makes."""
        return self.spans / self.bare_spans

    def rows(self) -> list[str]:
        """Return it as lines of a table."""

        def row(name: str, nanoseconds: float) -> str:
            return f"  {name:<50}{nanoseconds:>9,.0f}{nanoseconds / self.floor:>18.2f}"

        interval = f"95 %: {(self.low - 1) * 100:.2f} to {(self.high - 1) * 100:.2f}, {self.pairs} pairs"
        return [
            f"{'telemetry, ns per call':<52}{'best':>9}{'x floor':>18}",
            row("off", self.off),
            row("metrics on", self.metrics),
            row("one record of our histogram", self.record),
            row("spans on, nobody records", self.unrecorded),
            row("its two spans, by hand", self.bare_spans),
            row("spans on, recorded", self.spans),
            f"  {'httpx, a request on loopback':<50}{self.request:>9,.1f} us of CPU",
            f"  {'more CPU with metrics and logs':<50}{(self.ratio - 1) * 100:>9.2f} %  ({interval})",
        ]

    def document(self) -> dict[str, float]:
        """Return the figures for the report's file."""
        return asdict(self)

    def checks(self) -> list[Check]:
        """Compare it with its bounds; that of the requests is broken only if the whole interval lies beyond."""
        return [
            Check("metrics add, besides the record", self.added, METRICS, "x floor"),
            Check("a call with spans", self.beside_bare, SPANS, "x its two spans by hand"),
            Check("a request with metrics and logs, at least", self.low, REQUESTS, "x without"),
        ]


# -- single calls ---------------------------------------------------------------------------------------------------


async def _timed(call: Callable[[int], Awaitable[object]], calls: int = CALLS) -> float:
    for number in range(calls // 8):  # what was switched has emptied some caches
        await call(number)
    began = time.process_time()
    for number in range(calls):
        await call(number)
    return (time.process_time() - began) / calls * 1e9


def _off(call: Callable[[int], Awaitable[object]]) -> _Block:
    return lambda: _timed(call)


def _with_metrics(call: Callable[[int], Awaitable[object]]) -> _Block:
    async def block() -> float:
        with _metrics():
            return await _timed(call)

    return block


async def _records() -> float:
    histogram = Histogram()
    began = time.process_time()
    for _ in range(CALLS):
        histogram.record(0.003)
    return (time.process_time() - began) / CALLS * 1e9


def _with_spans(call: Callable[[int], Awaitable[object]], sdk: TracerProvider, *, recorded: bool) -> _Block:
    async def block() -> float:
        tracing.install(sdk)
        try:
            if not recorded:
                return await _timed(call)
            with sdk.get_tracer("app").start_as_current_span("request"):
                return await _timed(call, CALLS // 10)
        finally:
            tracing.remove()

    return block


def _with_bare_spans(sdk: TracerProvider) -> _Block:
    tracer = sdk.get_tracer("app")

    async def call(number: int) -> int:
        with (
            tracer.start_as_current_span("execute bench", attributes=_CALL) as call,
            tracer.start_as_current_span("attempt bench", attributes=_ATTEMPT) as attempt,
        ):
            result = await answer(number)
            attempt.set_attributes(_ENDED)
            call.set_attributes(_OVER)
            return result

    async def block() -> float:
        with tracer.start_as_current_span("request"):
            return await _timed(call, CALLS // 10)

    return block


@contextlib.contextmanager
def _metrics() -> Generator[None, None, None]:
    start()
    try:
        yield
    finally:
        stop()


async def _best(rounds: int) -> dict[str, float]:
    provider = ProviderRegistry().provider("bench")
    sdk = TracerProvider(shutdown_on_exit=False)

    async def call(number: int) -> int:
        return await provider.execute(answer, number)

    blocks: Final = {
        "floor": _off(by_hand(answer)),
        "off": _off(call),
        "metrics": _with_metrics(call),
        "record": _records,
        "unrecorded": _with_spans(call, sdk, recorded=False),
        "bare_spans": _with_bare_spans(sdk),
        "spans": _with_spans(call, sdk, recorded=True),
    }
    best = dict.fromkeys(blocks, math.inf)
    with _uncollected():
        for number in range(rounds):
            for name, block in blocks.items():
                best[name] = min(best[name], await block())
            if number % 10 == 0:
                gc.collect()
    return best


@contextlib.contextmanager
def _uncollected() -> Generator[None, None, None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


# -- real requests --------------------------------------------------------------------------------------------------


async def _requests(pairs: int) -> list[tuple[float, float]]:
    with _serving() as url:
        http = client("bench", base_url=url, trust_env=False, registry=ProviderRegistry())
        async with http:
            await _block(http)
            with _uncollected():
                return [await _pair(http, turned=bool(number % 2)) for number in range(pairs)]


async def _pair(http: Client, *, turned: bool) -> tuple[float, float]:
    if turned:
        second = await _observed(http)
        return await _warm_block(http), second
    first = await _warm_block(http)
    return first, await _observed(http)


async def _warm_block(http: Client) -> float:
    for _ in range(4):  # what was switched has emptied some caches
        await http.get("/answer")
    return await _block(http)


async def _observed(http: Client) -> float:
    lines = logging.configure("json", output=io.StringIO())
    records.install()
    try:
        with _metrics():
            return await _warm_block(http)
    finally:
        records.remove()
        lines.close()


def measure(rounds: int = ROUNDS) -> Telemetry:
    """Measure telemetry; runs event loops of its own."""
    best = asyncio.run(_best(rounds))
    found = asyncio.run(_requests(max(50, PAIRS * rounds // ROUNDS)))
    ratios = sorted(second / first for first, second in found)
    low, high = _interval(ratios)
    return Telemetry(
        **best,
        request=statistics.median(first for first, _ in found),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        pairs=len(found),
    )


if __name__ == "__main__":
    compared = measure()
    print("\n".join([*compared.rows(), "", *map(str, compared.checks())]))
