"""
What hedging does to the tail: a provider whose latency is lognormal, once as it is and once hedged, on virtual time.

Nothing here depends on the machine. Calls arrive at random, 20 in a second; each run has the same arrivals and the same
latencies of first attempts. Those of second attempts are drawn apart.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import final

from benchmarks.check import Check
from resilience import ProviderRegistry, ProviderSettings, Settings
from resilience.testing import VirtualTimeLoop

CALLS = 12_000
WARM_UP = 1_200
RATE = 20.0
SIGMA = 0.8
EXTRA_LOAD = 0.05
EXTRA_LOAD_BOUND = 6.5
P99_BOUND = 0.85


@final
@dataclass(frozen=True, slots=True)
class Tail:
    """Latencies in seconds."""

    p50: float
    p99: float
    p999: float

    def row(self, name: str) -> str:
        """Return it as a line of a table."""
        return f"  {name:<50}{self.p50:>9.2f}{self.p99:>9.2f}{self.p999:>9.2f}"


@final
@dataclass(frozen=True, slots=True)
class Hedging:
    """
    What one comparison found.

    Args:
        plain: Latencies of calls that are made once.
        hedged: Latencies of calls that are hedged.
        extra_load: Requests more than calls, in percent.
        calls: How many calls were compared.
    """

    plain: Tail
    hedged: Tail
    extra_load: float
    calls: int

    @property
    def ratio(self) -> float:
        """The 99th percentile with hedging, as a multiple of the one without."""
        return self.hedged.p99 / self.plain.p99

    def rows(self) -> list[str]:
        """Return it as lines of a table."""
        return [
            f"{f'lognormal provider, {self.calls:,} calls: virtual seconds':<52}{'p50':>9}{'p99':>9}{'p99.9':>9}",
            self.plain.row("each call made once"),
            self.hedged.row(f"hedged: {self.extra_load:.2f} % more requests, p99 x {self.ratio:.2f}"),
        ]

    def document(self) -> dict[str, object]:
        """Return the figures for the report's file."""
        return {**asdict(self), "ratio": self.ratio}

    def checks(self) -> list[Check]:
        """Compare it with its bounds."""
        return [
            Check("hedging: 99th percentile", self.ratio, P99_BOUND, "x without it"),
            Check("hedging: more requests", self.extra_load, EXTRA_LOAD_BOUND, "%"),
        ]


def measure(calls: int = CALLS, seed: int = 46) -> Hedging:
    """Compare calls with and without hedging; runs an event loop of its own."""
    plain, _ = _run(calls, seed, hedged=False)
    hedged, requests = _run(calls, seed, hedged=True)
    return Hedging(_tail(plain), _tail(hedged), (requests / (calls + WARM_UP) - 1) * 100, calls)


def _run(calls: int, seed: int, *, hedged: bool) -> tuple[Sequence[float], int]:
    """Return the latencies after the warm-up, and how many requests all calls made."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_course(calls, seed, hedged=hedged))


async def _course(calls: int, seed: int, *, hedged: bool) -> tuple[Sequence[float], int]:
    loop = asyncio.get_running_loop()
    hedge = {"enabled": hedged, "max_extra_load": EXTRA_LOAD}
    settings = Settings(defaults=ProviderSettings.model_validate({"hedge": hedge}))
    registry = ProviderRegistry(settings, clock=loop.time, rng=random.Random(seed))
    provider = registry.provider("lognormal").with_options(idempotent=True)
    firsts, again = random.Random(seed), random.Random(seed + 1)
    took: list[float] = []
    requests = 0

    async def call(seconds: float) -> None:
        fresh = True

        async def answer() -> None:
            nonlocal fresh, requests
            requests += 1
            first, fresh = fresh, False
            await asyncio.sleep(seconds if first else again.lognormvariate(0, SIGMA))

        began = loop.time()
        await provider.execute(answer)
        took.append(loop.time() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(calls + WARM_UP):
            group.create_task(call(firsts.lognormvariate(0, SIGMA)))
            await asyncio.sleep(firsts.expovariate(RATE))
    return took[WARM_UP:], requests


def _tail(seconds: Sequence[float]) -> Tail:
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return ordered[int(share * (len(ordered) - 1))]

    return Tail(at(0.5), at(0.99), at(0.999))


if __name__ == "__main__":
    found = measure()
    print("\n".join([*found.rows(), "", *map(str, found.checks())]))
