"""
The stopwatch: many short blocks of every case, interleaved, in CPU time.

Noise only ever adds time, so the best block of each case is the best estimate of what the code itself costs, and a
ratio of bests of one run is comparable between machines. The median tells how noisy the run was.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

Target: TypeAlias = Callable[[int], Coroutine[Any, Any, int]]
"""The user's function: everything that is measured is wrapped around one of these."""

Block: TypeAlias = Callable[[int], Awaitable[None]]
"""Makes the given number of calls, one after the other."""

BLOCK_SECONDS = 0.002
"""Long enough for the clock, short enough to fit between two interruptions by the machine."""

ROUNDS_PER_COLLECTION = 10


@final
@dataclass(frozen=True, slots=True)
class Case:
    """
    One thing to measure.

    Args:
        name: How the table calls it.
        group: ``"floor"``, ``"ours"`` or ``"rivals"``.
        prepare: Makes the block, inside the event loop, and fails if what it measures does not work.
        unit: A block makes a multiple of this many calls. Default: 1.
    """

    name: str
    group: str
    prepare: Callable[[], Awaitable[Block]]
    unit: int = 1


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """What one case costs, in nanoseconds per call."""

    best: float
    median: float


@final
@dataclass(slots=True)
class _Running:
    case: Case
    block: Block
    calls: int
    samples: list[float] = field(default_factory=list[float])

    async def sample(self) -> None:
        # The case before this one has emptied the caches: a few calls that do not count fill them again.
        await self.block(max(self.case.unit, self.calls // 8))
        begin = time.process_time()
        await self.block(self.calls)
        self.samples.append((time.process_time() - begin) / self.calls * 1e9)


@final
class Stopwatch:
    """
    Measures cases against one another; more rounds may be added until the result is good enough.

    It belongs to one event loop.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = cases
        self._running: list[_Running] = []
        self._order = random.Random(0)

    async def run(self, rounds: int) -> None:
        """Add *rounds* blocks to every case, in a new order each round."""
        if not self._running:
            self._running = [await _start(case) for case in self._cases]
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            for number in range(rounds):
                for running in self._order.sample(self._running, len(self._running)):
                    await running.sample()
                if number % ROUNDS_PER_COLLECTION == 0:
                    gc.collect()
        finally:
            gc.enable()
            gc.unfreeze()

    def results(self) -> dict[str, Measured]:
        """Everything measured so far, by case name."""
        return {
            running.case.name: Measured(min(running.samples), statistics.median(running.samples))
            for running in self._running
        }


async def _start(case: Case) -> _Running:
    """Prepare *case* and find out how many calls fill a block."""
    block = await case.prepare()
    calls = case.unit
    await block(calls)  # what only the first call costs would pass for what every call costs
    while True:
        begin = time.process_time()
        await block(calls)
        took = time.process_time() - begin
        if took >= BLOCK_SECONDS / 4:
            break
        calls *= 2
    scale = max(1, round(calls * BLOCK_SECONDS / took / case.unit))
    return _Running(case, block, scale * case.unit)


def repeat(call: Callable[[int], Awaitable[object]]) -> Block:
    """A block of plain successful calls."""

    async def block(calls: int) -> None:
        for _ in range(calls):
            await call(1)

    return block
