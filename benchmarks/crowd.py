"""
Whether many calls at once cost more each than a few do: 10,000 against 1,000, in CPU time and in memory.

On virtual time, so that waiting costs nothing: what is measured is all the work and nothing else. Every call is a task
of its own; its function sleeps once. Through default settings all of them are in flight together. Through limits they
stand first in the line of the rate limit and then in that of the bulkhead, which is the slower one: near the middle of
a run half of the calls wait there.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, final

from benchmarks.check import Check
from benchmarks.measure import Target
from resilience import (
    BulkheadSettings,
    ProviderRegistry,
    ProviderSettings,
    RateLimitSettings,
    ResilientProvider,
    Settings,
)
from resilience.testing import VirtualTimeLoop

FEW: Final = 1_000
MANY: Final = 10_000
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 3
SAMPLES: Final = 3
"""How often the few are measured before and after the many: they take a tenth of the time."""

BOUND: Final = 1.5

_PATIENCE: Final = 1e3
_SECONDS: Final = 0.1
_PLACES: Final = 100

LIMITS: Final = ProviderSettings(
    bulkhead=BulkheadSettings(max_concurrent=_PLACES, max_queue=MANY, max_wait=_PATIENCE),
    rate_limit=RateLimitSettings(
        requests_per_second=2 * _PLACES / _SECONDS, burst=1, max_queue=MANY, max_wait=_PATIENCE
    ),
)

# What each case calls a thousand or ten thousand times at once; None: nothing is around the function.
CASES: Final[dict[str, ProviderSettings | None]] = {
    "bare": None,
    "default settings": ProviderSettings(),
    "queues of bulkhead + rate limit": LIMITS,
}


@final
@dataclass(frozen=True, slots=True)
class Line:
    """
    One case.

    Args:
        few: Microseconds of CPU time per call, 1,000 at once, the median.
        many: The same with 10,000.
        time: The same with 10,000, as a multiple of what 1,000 took just before and after: the median of these ratios.
        few_bytes: Peak of memory per call, 1,000 at once.
        many_bytes: The same with 10,000.
    """

    few: float
    many: float
    time: float
    few_bytes: float
    many_bytes: float

    @property
    def memory(self) -> float:
        """Bytes per call, 10,000 at once, as a multiple of 1,000 at once."""
        return self.many_bytes / self.few_bytes


@final
@dataclass(frozen=True, slots=True)
class Crowd:
    """All cases, by name."""

    lines: dict[str, Line]

    def rows(self) -> list[str]:
        """Return it as lines of a table."""
        head = f"{'1,000':>9}{'10,000':>9}{'ratio':>9}"
        return [
            f"{'concurrent calls: us of CPU per call':<52}{head}",
            *(f"  {name:<50}{of.few:>9.1f}{of.many:>9.1f}{of.time:>9.2f}" for name, of in self.lines.items()),
            f"{'concurrent calls: bytes per call, at the peak':<52}{head}",
            *(
                f"  {name:<50}{of.few_bytes:>9,.0f}{of.many_bytes:>9,.0f}{of.memory:>9.2f}"
                for name, of in self.lines.items()
            ),
        ]

    def document(self) -> dict[str, object]:
        """Return the figures for the report's file."""
        return {name: {**asdict(line), "memory": line.memory} for name, line in self.lines.items()}

    def checks(self) -> list[Check]:
        """Compare it with its bounds."""
        ours = {name: line for name, line in self.lines.items() if CASES[name] is not None}
        return [
            check
            for name, line in ours.items()
            for check in (
                Check(f"10,000 at once, {name}: time per call", line.time, BOUND, "x 1,000 at once"),
                Check(f"10,000 at once, {name}: bytes per call", line.memory, BOUND, "x 1,000 at once"),
            )
        ]


async def _answer(number: int) -> int:
    await asyncio.sleep(_SECONDS)
    return number


def _calling(settings: ProviderSettings | None) -> Target:
    """Return what the tasks call. The loop has to run: its clock is the provider's."""
    if settings is None:
        return _answer
    clock = asyncio.get_running_loop().time
    execute = ResilientProvider("bench", registry=ProviderRegistry(Settings(defaults=settings), clock=clock)).execute

    async def call(number: int) -> int:
        return await execute(_answer, number)

    return call


def _run(settings: ProviderSettings | None, count: int, usage: Callable[[], float]) -> float:
    """Make *count* calls at once; return how much *usage* has grown per call."""

    async def course() -> float:
        call = _calling(settings)
        await call(0)  # what is made once
        gc.collect()
        tracemalloc.reset_peak()  # of what came before; does nothing where memory is not traced
        before = usage()
        tasks = [asyncio.create_task(call(number)) for number in range(count)]
        answers = [await task for task in tasks]
        grown = usage() - before
        if answers != list(range(count)):
            raise AssertionError("an answer was lost")
        return grown

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(course()) / count


def _microseconds(settings: ProviderSettings | None, count: int) -> float:
    return _run(settings, count, time.process_time) * 1e6


def _peak() -> float:
    return tracemalloc.get_traced_memory()[1]


def _bytes(settings: ProviderSettings | None, count: int) -> float:
    tracemalloc.start()
    try:
        return _run(settings, count, _peak)
    finally:
        tracemalloc.stop()


def _round(settings: ProviderSettings | None) -> tuple[float, float]:
    """Return what a call costs among few, measured before and after, and among many."""
    before = [_microseconds(settings, FEW) for _ in range(SAMPLES)]
    many = _microseconds(settings, MANY)
    after = [_microseconds(settings, FEW) for _ in range(SAMPLES)]
    return statistics.mean((statistics.median(before), statistics.median(after))), many


def _line(settings: ProviderSettings | None, rounds: Sequence[tuple[float, float]]) -> Line:
    return Line(
        few=statistics.median(few for few, _ in rounds),
        many=statistics.median(many for _, many in rounds),
        time=statistics.median(many / few for few, many in rounds),
        few_bytes=_bytes(settings, FEW),
        many_bytes=_bytes(settings, MANY),
    )


def measure(rounds: int = ROUNDS) -> Crowd:
    """Measure all cases; runs event loops of its own."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        found = [{name: _round(settings) for name, settings in CASES.items()} for _ in range(rounds)]
        return Crowd({name: _line(settings, [each[name] for each in found]) for name, settings in CASES.items()})
    finally:
        gc.enable()
        gc.unfreeze()


if __name__ == "__main__":
    found = measure()
    print("\n".join([*found.rows(), "", *map(str, found.checks())]))
