"""
A small service with every kind of provider, and a script of trouble: well, then an outage, then well again.

It serves health and metrics at the port that it is given and prints the time at which its script began.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx
import uvicorn
from script import CALLS_A_SECOND, END, OUTAGE, RELOADS

from resilience import (
    BreakerSettings,
    BudgetSettings,
    BulkheadSettings,
    ConfigurationError,
    CostSettings,
    HedgeSettings,
    ProviderRegistry,
    ProviderSettings,
    RateLimitSettings,
    ResilienceError,
    RetrySettings,
    Settings,
    TimeoutSettings,
    Usage,
)
from resilience.health import Health
from resilience.reloading import Reloader
from resilience.settings import ExperimentSettings, HealthSettings
from resilience.telemetry.prometheus import exposition
from resilience.testing import MisbehavingProvider, Misbehaviour, serve

RETRY = RetrySettings(base_delay=0.1, max_delay=0.4)
NEVER = BreakerSettings(failure_threshold=None, failure_rate=None, minimum_calls=10_000, slow_after=0.2, window=5.0)

SETTINGS = Settings(
    defaults=ProviderSettings(
        retry=RETRY, breaker=BreakerSettings(timeout=2.0), budget=BudgetSettings(floor_per_second=0.2, floor_burst=2)
    ),
    providers={
        "s3": ProviderSettings(
            rate_limit=RateLimitSettings(requests_per_day=100_000), cost=CostSettings(limit=100.0, window=20.0),
        ),
        "openai": ProviderSettings(
            timeout=TimeoutSettings(attempt=0.4, total=3.0), breaker=NEVER,
            bulkhead=BulkheadSettings(adaptive="aimd", min_limit=10), budget=BudgetSettings(ratio=0.35),
        ),
        "scanner": ProviderSettings(
            bulkhead=BulkheadSettings(max_concurrent=4, max_queue=2, max_wait=0.1), breaker=NEVER
        ),
        "mailer": ProviderSettings(
            bulkhead=BulkheadSettings(max_concurrent=4, max_queue=0, mode="shadow"), breaker=NEVER
        ),
        "search": ProviderSettings(
            hedge=HedgeSettings(enabled=True, warm_up=10, max_extra_load=0.2), retry=RetrySettings(enabled=False)
        ),
    },
    experiments={
        "openai": ExperimentSettings(share=0.25, settings=ProviderSettings(retry=RetrySettings(max_attempts=1)))
    },
    health=HealthSettings(interval=1.0),
)  # fmt: skip


class Trouble:
    """What goes wrong when."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.rng = random.Random(4)

    @property
    def elapsed(self) -> float:
        """How many seconds the script has been running."""
        return time.monotonic() - self.began

    @property
    def now(self) -> bool:
        """Whether it is the time of the outage."""
        return OUTAGE[0] <= self.elapsed < OUTAGE[1]

    async def until(self, at: float) -> None:
        """Wait for a moment of the script."""
        await anyio.sleep(max(0.0, at - self.elapsed))

    async def openai(self) -> str:
        """Hang, four times out of ten."""
        await anyio.sleep(5 if self.now and self.rng.random() < 0.4 else 0.02)
        return "hello"

    async def slow(self) -> str:
        """Take ten times as long."""
        await anyio.sleep(0.5 if self.now else 0.02)
        return "hello"

    async def search(self) -> str:
        """Take unusually long once in a while, and more often during the outage."""
        await anyio.sleep(0.3 if self.rng.random() < (0.3 if self.now else 0.02) else 0.01)
        return "found"

    async def database(self) -> bool:
        """Tell whether the database answers."""
        return not self.now


@contextmanager
def uploads(client: httpx.AsyncClient, behaviour: Misbehaviour) -> Iterator[Callable[[], Awaitable[None]]]:
    """A function that uploads to a provider of that behaviour, over a real socket."""
    numbers = itertools.count()
    with serve(MisbehavingProvider(behaviour)) as address:

        async def upload() -> None:
            answer = await client.put(f"{address}/files/{next(numbers)}", content=b"content")
            answer.raise_for_status()

        yield upload


async def often(call: Callable[[], Awaitable[Any]], trouble: Trouble) -> None:
    """Call again and again, whether or not earlier calls are back."""

    async def one() -> None:
        with suppress(ResilienceError, httpx.HTTPError, TimeoutError):
            await call()

    async with anyio.create_task_group() as tasks:
        for number in range(int(END * CALLS_A_SECOND)):  # at its time, however busy the machine is
            await trouble.until(number / CALLS_A_SECOND)
            tasks.start_soon(one)
        tasks.cancel_scope.cancel()


async def work(registry: ProviderRegistry, trouble: Trouble) -> None:
    """Follow the script."""
    provider = registry.provider
    async with httpx.AsyncClient(timeout=5) as client, anyio.create_task_group() as tasks:
        with ExitStack() as stack:
            s3 = stack.enter_context(uploads(client, Misbehaviour(seed=1, errors=0.01, outages=(OUTAGE,))))
            backup = stack.enter_context(uploads(client, Misbehaviour(seed=2)))
            webhook = stack.enter_context(uploads(client, Misbehaviour(seed=3, pauses=(OUTAGE,))))
            chain = provider("s3").fallback_to("backup", backup)
            paid = provider("s3").with_options(usage=lambda _: Usage(cost=0.01))
            for call in (
                partial(chain.execute, s3),
                partial(paid.execute, s3),
                partial(provider("webhook").execute, webhook),
                partial(provider("openai").execute, trouble.openai),
                partial(provider("scanner").execute, trouble.slow),
                partial(provider("mailer").execute, trouble.slow),
                partial(provider("search").with_options(idempotent=True).execute, trouble.search),
            ):
                tasks.start_soon(often, call, trouble)
            await reloads(registry, trouble)
            await trouble.until(END)
            tasks.cancel_scope.cancel()


async def reloads(registry: ProviderRegistry, trouble: Trouble) -> None:
    """Change the settings file: to something else, to nonsense, and back to sense."""
    given = {name: getattr(SETTINGS, name) for name in SETTINGS.model_fields_set}
    with TemporaryDirectory() as folder:
        file = anyio.Path(folder, "settings.toml")
        await file.touch()
        async with Reloader(registry, environ={}, file=file, **given) as reloader:
            for at, text in RELOADS:
                await trouble.until(at)
                await file.write_text(text, encoding="utf-8")
                with suppress(ConfigurationError):
                    reloader.reload()
            await trouble.until(END)


async def main(port: int) -> None:
    """Serve health and metrics until the script has ended and its last numbers are read."""
    registry = ProviderRegistry(SETTINGS)
    trouble = Trouble()
    health = Health(registry)
    health.add("database", trouble.database, critical=True)
    server = uvicorn.Server(uvicorn.Config(health.app(), port=port, log_level="warning"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await anyio.sleep(0.01)
        exposition()  # counts from now on
        trouble.began = time.monotonic()
        print(time.time(), flush=True)
        await work(registry, trouble)
        await anyio.sleep(3600)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]))
