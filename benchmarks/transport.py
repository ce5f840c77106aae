"""
What the transport costs a request: httpx with it against httpx without it, on loopback, in the client's CPU time.

The server is another process, so that only the client is measured. Both clients take turns in short blocks, first one
and then the other in front, and each pair of neighbours is one comparison: what disturbs the machine for longer than a
block disturbs both. The median of the pairs is the result, and its confidence interval needs no assumption about how
they are distributed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import final

from benchmarks.check import Check
from providers.http import Client, client
from resilience import ProviderRegistry

REQUESTS = 40
PAIRS = 150
QUICK_PAIRS = 50
BOUND = 1.03
_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"answer": 42}\n'


@final
@dataclass(frozen=True, slots=True)
class Transport:
    """
    CPU time of one request, in microseconds, and how the two compare.

    Args:
        bare: Without the transport, the median.
        protected: With it, the median.
        ratio: With it, as a multiple of without it: the median of all pairs.
        low: Where its confidence interval (95 %) begins.
        high: Where it ends.
        pairs: How many there were.
    """

    bare: float
    protected: float
    ratio: float
    low: float
    high: float
    pairs: int

    def rows(self) -> list[str]:
        """Return it as lines of a table."""
        interval = f"95 %: {(self.low - 1) * 100:.2f} to {(self.high - 1) * 100:.2f}, {self.pairs} pairs"
        return [
            f"  {'httpx, a request on loopback':<50}{self.bare:>9,.1f} us of CPU",
            f"  {'httpx + ResilientTransport':<50}{self.protected:>9,.1f} us of CPU",
            f"  {'more CPU with the transport':<50}{(self.ratio - 1) * 100:>9.2f} %  ({interval})",
        ]

    def document(self) -> dict[str, float]:
        """Return the figures for the report's file."""
        return asdict(self)

    def checks(self) -> list[Check]:
        """Compare it with its bound: broken only if the whole interval lies beyond."""
        return [Check("a request through the transport, at least", self.low, BOUND, "x bare httpx")]


def measure(pairs: int = PAIRS) -> Transport:
    """Start a server, and compare the two clients on it; runs an event loop of its own."""
    return asyncio.run(_compare(pairs))


async def _compare(pairs: int) -> Transport:
    with _serving() as url:
        bare = client(base_url=url, trust_env=False)
        protected = client("bench", base_url=url, trust_env=False, registry=ProviderRegistry())
        async with bare, protected:
            for one in (bare, protected):
                await _block(one)
            gc.collect()
            gc.freeze()  # a collection before each block would otherwise take longer than the block
            gc.disable()
            try:
                found = [await _pair(bare, protected, turned=bool(number % 2)) for number in range(pairs)]
            finally:
                gc.enable()
                gc.unfreeze()
    ratios = sorted(second / first for first, second in found)
    low, high = _interval(ratios)
    return Transport(
        bare=statistics.median(first for first, _ in found),
        protected=statistics.median(second for _, second in found),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        pairs=pairs,
    )


async def _pair(bare: Client, protected: Client, *, turned: bool) -> tuple[float, float]:
    if turned:
        second = await _block(protected)
        return await _block(bare), second
    first = await _block(bare)
    return first, await _block(protected)


async def _block(http: Client) -> float:
    """Make requests, one after the other; return the microseconds of CPU time that one took."""
    gc.collect()
    begin = time.process_time()
    for _ in range(REQUESTS):
        answer = await http.get("/answer")
        assert answer.status_code == 200
    return (time.process_time() - begin) / REQUESTS * 1e6


def _interval(ordered: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of a median, by ranks: how many of the pairs lie below it is a coin's game."""
    count = len(ordered)
    reach = 1.96 * math.sqrt(count) / 2
    first = max(0, math.floor(count / 2 - reach))
    return ordered[first], ordered[min(count - 1, math.ceil(count / 2 + reach))]


@contextlib.contextmanager
def _serving() -> Generator[str]:
    command = [sys.executable, "-c", "from benchmarks.transport import serve; serve()"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.communicate()  # the end of its input ends it


def serve() -> None:
    """Answer requests until the standard input ends."""
    asyncio.run(_serve())


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@final
class _Answering(asyncio.Protocol):
    """Answers every packet that ends a head: httpx sends each request in one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(_ANSWER)


if __name__ == "__main__":
    compared = measure()
    print("\n".join([*compared.rows(), "", *map(str, compared.checks())]))
