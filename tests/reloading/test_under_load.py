"""Settings that change while many calls are under way: no call fails because of it, and nothing is lost."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience.events import Event, SettingsRefused, SettingsReloaded
from resilience.registry import ProviderRegistry
from resilience.reloading import Reloader
from resilience.settings import Settings

PATIENT = "[defaults]\ntimeout = { attempt = 500, total = 1000 }\n[reload]\nwatch = true\ninterval = 1\n"
TEXTS = [
    '[providers.s3]\nprofile = "object_storage"\n',
    "[providers.s3.bulkhead]\nmax_concurrent = 3\nmax_queue = 10000\nmax_wait = 1000\n",
    "[providers.s3.bulkhead]\nmax_concurrent = 1000\n[providers.s3.retry]\nmax_attempts = 1\n",
    "[providers.s3.rate_limit]\nrequests_per_second = 50\nmax_queue = 10000\nmax_wait = 1000\n",
    "[providers.s3]\nprofile = ",
    "[providers.s3.breaker]\nfailure_threshold = 'none'\n",
    "[experiments.s3]\nshare = 0.5\nsettings = { breaker = { timeout = 5 }, retry = { max_attempts = 5 } }\n",
    "[providers.s3.breaker]\nwindow_calls = 50\nmode = 'shadow'\n[providers.s3.throttle]\nenabled = true\n",
    "max_providers = 0\n",
    "[defaults.telemetry]\nspans = 'off'\n[providers.s3]\nenabled = false\n",
    "[providers.s3.operations.get]\nhedge = { enabled = true }\nidempotent = true\n",
    "",
]


def put(file: Path, text: str) -> None:
    file.write_text(PATIENT + text, encoding="utf-8")


@pytest.mark.anyio
async def test_no_call_fails_because_of_it(file: Path, told: list[Event]) -> None:
    """Calls go on while their settings change in every way, and each that is made is answered and counted once."""
    put(file, "")
    rng, answered, settled = random.Random(7), Counter[int](), 0
    settings = Settings.from_environment({}, file=file)
    registry = ProviderRegistry(settings, clock=anyio.current_time, wall_clock=lambda: 1000.0, rng=random.Random(1))
    provider = registry.provider("s3")

    async def work(number: int) -> int:
        await anyio.sleep(rng.uniform(0.1, 9))
        return number

    async def call(number: int) -> None:
        view = provider.with_options(operation="get") if number % 3 == 0 else provider
        answered[await view.execute(work, number)] += 1

    async with Reloader(registry, environ={}, file=file), anyio.create_task_group() as tasks:
        for text in TEXTS * 2:
            put(file, text)
            for _ in range(30):
                tasks.start_soon(call, settled)
                settled += 1
                await anyio.sleep(0.1)
    assert answered == Counter(range(settled))
    assert sum(isinstance(event, SettingsReloaded) for event in told) == len(TEXTS) * 2 - 4
    assert sum(isinstance(event, SettingsRefused) for event in told) == 4
    snapshot = provider.snapshot()
    assert (snapshot.in_flight, snapshot.waiting, snapshot.failed) == (0, 0, 0)


ENTRIES: list[dict[str, object]] = [
    {},
    {"profile": "object_storage"},
    {"bulkhead": {"max_concurrent": 3, "max_queue": 1000, "max_wait": 1000}},
    {"bulkhead": {"adaptive": "aimd", "initial_limit": 3, "max_queue": 1000, "max_wait": 1000}},
    {"rate_limit": {"requests_per_second": 1_000_000, "max_wait": 1000}},
    {"retry": {"enabled": False}, "throttle": {"enabled": True}},
    {"breaker": {"mode": "shadow", "window_calls": 10}},
    {"breaker": {"enabled": False}, "gate": {"enabled": False}},
    {"hedge": {"enabled": True}, "operations": {"get": {"idempotent": True}}},
    {"timeout": {"attempt": None, "total": None}, "cost": {"limit": 1e9}},
]


async def work_a_little(number: int) -> int:
    if number % 7 == 0:
        await anyio.lowlevel.checkpoint()
    return number


async def call_until(over: threading.Event, registry: ProviderRegistry, answered: list[int]) -> None:
    provider, number = registry.provider("s3"), 0
    while number == 0 or not over.is_set():
        view = provider if number % 3 else provider.with_options(operation="get")
        assert await view.execute(work_a_little, number) == number
        number += 1
        if number % 20 == 0:
            await anyio.lowlevel.checkpoint()
    answered.append(number)


async def ten(*args: Any) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call_until, *args)


@pytest.mark.real_time
def test_loops_in_threads() -> None:
    """Nor does a call of any other loop or thread, and to the last one each is counted once."""
    registry, over, rng = ProviderRegistry(Settings()), threading.Event(), random.Random(3)
    answered: list[int] = []
    threads = [
        threading.Thread(target=anyio.run, args=(ten, over, registry, answered), kwargs={"backend": backend})
        for backend in ("asyncio", "trio", "asyncio")
    ]
    for thread in threads:
        thread.start()
    for _ in range(100):
        registry.reload(Settings.from_environment({}, providers={"s3": rng.choice(ENTRIES)}))
    over.set()
    for thread in threads:
        thread.join()
    assert len(answered) == 30
    snapshot = registry.provider("s3").snapshot()
    assert (snapshot.in_flight, snapshot.waiting, snapshot.failed, snapshot.succeeded) == (0, 0, 0, sum(answered))
