"""What a provider weighs when nobody uses it, and what `import resilience` takes."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import final

from benchmarks.targets import answer
from resilience import ProviderRegistry, ResilientProvider, Settings

PROVIDERS = 1000


@final
@dataclass(frozen=True, slots=True)
class Import:
    """CPU time of a fresh interpreter, in milliseconds, the interpreter's own start included."""

    interpreter: float
    asyncio: float
    resilience: float

    @property
    def ratio(self) -> float:
        """What `import resilience` adds to a bare interpreter, as a multiple of what `import asyncio` adds."""
        return (self.resilience - self.interpreter) / (self.asyncio - self.interpreter)


async def bytes_per_provider() -> float:
    """
    Weigh providers that have been called once and are idle.

    Each has its circuit, windows, gate and budget by then, and whatever the event loop keeps for it.
    """
    registry = ProviderRegistry(Settings(max_providers=PROVIDERS + 1))
    await ResilientProvider("first", registry=registry).execute(answer, 1)  # what is made once for all of them
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(PROVIDERS):
            await ResilientProvider(f"provider-{number}", registry=registry).execute(answer, 1)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / PROVIDERS


def import_time(rounds: int) -> Import:
    """Start fresh interpreters, interleaved, and take the best of each."""
    best = {code: float("inf") for code in ("pass", "import asyncio", "import resilience")}
    for _ in range(rounds):
        for code, fastest in best.items():
            best[code] = min(fastest, _cpu_milliseconds(code))
    return Import(*best.values())


def _cpu_milliseconds(code: str) -> float:
    """CPU time of one fresh interpreter that runs *code*."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3
