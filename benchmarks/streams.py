"""
What a stream costs per item: against a bare ``async for`` over the same async generator, which yields at once.

Blocks of both alternate. A stream is opened and closed outside of what is timed, and its first item is read by then on
either side; what that costs once a stream is told apart.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final, final

from benchmarks.check import Check
from resilience import ProviderRegistry, ProviderSettings, ResilientProvider, Settings
from resilience.settings import StreamSettings
from resilience.streaming.stream import Stream

ITEMS: Final = 20_000
OPENINGS: Final = 50
ROUNDS: Final = 100
BOUND: Final = 1.5


@final
@dataclass(frozen=True, slots=True)
class Streams:
    """
    The best block of each case, in nanoseconds.

    Args:
        bare: A bare ``async for``, per item.
        generator: A stream of an async generator, per item.
        iterator: A stream of an iterator that is no generator, per item.
        bare_iterator: A bare ``async for`` over that iterator, per item.
        kept: A stream of an async generator whose last items are kept, per item.
        opening: Opening and closing a stream of one item.
    """

    bare: float
    generator: float
    bare_iterator: float
    iterator: float
    kept: float
    opening: float

    @property
    def ratio(self) -> float:
        """An item of a stream, as a multiple of one of a bare ``async for``."""
        return self.generator / self.bare

    def rows(self) -> list[str]:
        """Return it as lines of a table."""

        def row(name: str, value: float, floor: float) -> str:
            return f"  {name:<50}{value:>9,.0f}{value / floor:>9.2f}"

        return [
            f"{'streams, per item':<52}{'ns':>9}{'x bare':>9}",
            row("async generator, bare", self.bare, self.bare),
            row("async generator, stream", self.generator, self.bare),
            row("async generator, stream that keeps items", self.kept, self.bare),
            row("iterator, bare", self.bare_iterator, self.bare_iterator),
            row("iterator, stream", self.iterator, self.bare_iterator),
            f"  {'opening and closing a stream, once':<50}{self.opening:>9,.0f}",
        ]

    def document(self) -> dict[str, float]:
        """Return the figures for the report's file."""
        return {**asdict(self), "ratio": self.ratio}

    def checks(self) -> list[Check]:
        """Compare it with its bound."""
        return [Check("a stream's item", self.ratio, BOUND, "x bare async for")]


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@final
class _Numbers:
    """The same without a generator, as the SDKs' own classes are."""

    def __init__(self, count: int) -> None:
        self._left = iter(range(count))

    def __aiter__(self) -> _Numbers:
        return self

    async def __anext__(self) -> int:
        for number in self._left:
            return number
        raise StopAsyncIteration


async def _timed(items: AsyncIterator[int], last: int) -> float:
    number = -1
    began = time.process_time()
    async for number in items:  # noqa: B007 - looked at afterwards
        pass
    took = time.process_time() - began
    if number != last:
        raise AssertionError(f"the last item was {number}, not {last}")
    return took / ITEMS * 1e9


def _bare(func: Callable[[int], AsyncIterator[int]]) -> Callable[[], Awaitable[float]]:
    async def block() -> float:
        items = func(ITEMS + 1)
        await anext(items)
        return await _timed(items, ITEMS)

    return block


def _stream(func: Callable[[int], AsyncIterator[int]], *, keep: int = 0) -> Callable[[], Awaitable[float]]:
    provider = _provider(keep)

    async def block() -> float:
        async with Stream[int](provider, func, (ITEMS + 1,), {}) as items:
            await anext(items)
            return await _timed(items, ITEMS)

    return block


def _opening() -> Callable[[], Awaitable[float]]:
    provider = _provider()

    async def read() -> None:
        async with Stream[int](provider, _numbers, (1,), {}) as items:
            async for _ in items:
                pass

    async def bare() -> None:
        items = _numbers(1)
        async for _ in items:
            pass

    async def seconds(once: Callable[[], Awaitable[None]]) -> float:
        began = time.process_time()
        for _ in range(OPENINGS):
            await once()
        return time.process_time() - began

    async def block() -> float:
        return (await seconds(read) - await seconds(bare)) / OPENINGS * 1e9

    return block


def _provider(keep: int = 0) -> ResilientProvider:
    settings = Settings(defaults=ProviderSettings(stream=StreamSettings(keep=keep)))
    return ResilientProvider("bench", registry=ProviderRegistry(settings))


async def _best(rounds: int) -> Streams:
    cases = {
        "bare": _bare(_numbers),
        "generator": _stream(_numbers),
        "bare_iterator": _bare(_Numbers),
        "iterator": _stream(_Numbers),
        "kept": _stream(_numbers, keep=3),
        "opening": _opening(),
    }
    best = dict.fromkeys(cases, float("inf"))
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for name, block in cases.items():
                best[name] = min(best[name], await block())
            if number % 10 == 0:
                gc.collect()
    finally:
        gc.enable()
    return Streams(**best)


def measure(rounds: int = ROUNDS) -> Streams:
    """Measure streams; runs an event loop of its own."""
    return asyncio.run(_best(rounds))


if __name__ == "__main__":
    found = measure()
    print("\n".join([*found.rows(), "", *map(str, found.checks())]))
