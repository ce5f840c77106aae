"""Every way in which three calls can overlap around the moment at which a circuit becomes half-open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from math import inf

import anyio
import pytest
import trio

from resilience import (
    BreakerSettings,
    CircuitState,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
)
from resilience.errors import CircuitOpen
from resilience.events import CallFailed
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio

BEGINS = (10.0, 11.0, 31.0)
LASTS = (1.0, 25.0)
ENDS = ("succeed", "fail", "cancel")


@dataclass
class Script:
    """When a caller comes, how long its call takes and how it ends."""

    begins: float
    lasts: float
    ends: str


class Stage:
    """One provider whose circuit is about to become half-open at second 10, and three callers with scripts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        breaker = BreakerSettings(failure_threshold=1, timeout=10, jitter=0, probe_lease=20, slow_rate=None)
        settings = ProviderSettings(breaker=breaker, retry=RetrySettings(enabled=False))
        self.provider = ResilientProvider("s3", registry=ProviderRegistry(Settings(defaults=settings), clock=clock))
        self.clock = clock
        self.probes: list[tuple[int, float]] = []
        self.left = 0
        self.refused = 0
        self.events = EventRecorder()
        self.provider.subscribe(self.events)

    async def act(self, script: Script) -> None:
        await anyio.sleep(script.begins)
        with anyio.move_on_after(script.lasts if script.ends == "cancel" else inf), suppress(ConnectionError):
            try:
                await self.provider.execute(self.work, script)
            except CircuitOpen:
                self.refused += 1

    async def work(self, script: Script) -> None:
        self.left += 1
        circuit, now = self.provider.breaker.circuit, self.clock()
        probe = (circuit.period.number, now)
        if circuit.state is CircuitState.HALF_OPEN:
            rivals = [began for period, began in self.probes if period == probe[0] and now - began < 20]
            assert not rivals, "a probe joins one whose lease still runs"
            self.probes.append(probe)
        try:
            await anyio.sleep(inf if script.ends == "cancel" else script.lasts)
            if script.ends == "fail":
                raise ConnectionError
        finally:
            with suppress(ValueError):
                self.probes.remove(probe)

    async def play(self, scripts: tuple[Script, ...]) -> None:
        with suppress(ConnectionError):
            await self.provider.execute(self.work, Script(0, 0, "fail"))
        async with anyio.create_task_group() as group:
            for script in scripts:
                group.start_soon(self.act, script)
        await anyio.sleep(60)
        for _ in range(2):
            await self.provider.execute(anyio.sleep, 0)

    def course(self) -> tuple[object, ...]:
        """What happened, in short."""
        circuit = self.provider.breaker.circuit
        told = tuple(type(event).__name__ for event in self.events if not isinstance(event, CallFailed))
        return (*told, self.refused, circuit.stale, circuit.ignored)

    def check(self) -> None:
        after = self.provider.snapshot()
        assert (after.breaker.state, after.in_flight, after.breaker.probes) == (CircuitState.CLOSED, 0, 0)
        assert (after.calls, after.rejected) == (self.left + 2, self.refused)
        assert self.left + self.refused == 4
        circuit = self.provider.breaker.circuit
        assert circuit.successes + circuit.failures + circuit.ignored + circuit.stale == after.calls
        assert not self.provider._runtime.probing


@pytest.fixture
async def clock(anyio_backend_name: str) -> Callable[[], float]:
    return asyncio.get_running_loop().time if anyio_backend_name == "asyncio" else trio.current_time


async def test_no_order_of_calls_breaks_a_provider(clock: Callable[[], float]) -> None:
    """One probe at a time, no permit lost, every call counted once, and the circuit closes in the end."""
    scripts = [Script(*facts) for facts in product(BEGINS, LASTS, ENDS)]
    played, seen = 0, set()
    for cast in combinations_with_replacement(scripts, 3):
        stage = Stage(clock)
        await stage.play(cast)
        stage.check()
        played += 1
        seen.add(stage.course())
    assert played == 1140
    assert len(seen) > 20, "the casts lead to many courses of events"
