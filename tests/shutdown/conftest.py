"""What the tests of shutdowns share: calls that note how they end."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from resilience import (
    BreakerSettings,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    ShutdownReport,
    ShutdownSettings,
)
from resilience.testing import EventRecorder, VirtualClock


class Scene:
    """A provider on virtual time, calls under way, and how each of them ended, and when."""

    def __init__(self) -> None:
        self.events = EventRecorder()
        self.ends: dict[str, tuple[object, float]] = {}
        self.began: list[str] = []
        self.report: ShutdownReport | None = None
        self.use()

    def use(self, *, shutdown: ShutdownSettings | None = None, **settings: Any) -> ResilientProvider:
        """Let the provider have other settings."""
        given = {"retry": RetrySettings(jitter="none", base_delay=10), "breaker": BreakerSettings(jitter=0)}
        self.registry = ProviderRegistry(
            Settings(defaults=ProviderSettings(**given | settings), shutdown=shutdown or ShutdownSettings()),
            clock=VirtualClock(),
            rng=random.Random(1),
        )
        self.registry.subscribe(self.events)
        self.provider = self.registry.provider("s3")
        return self.provider

    async def warm(self, provider: ResilientProvider | None = None) -> ResilientProvider:
        """Let the next call take the fast path, where there is one."""
        provider = provider if provider is not None else self.provider
        await provider.execute(anyio.sleep, 0)
        return provider

    async def work(self, seconds: float, *, fail: bool = False) -> str:
        """A function that takes a while."""
        self.began.append(f"{seconds}")
        await anyio.sleep(seconds)
        if fail:
            raise ConnectionResetError
        return "done"

    async def note(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        """Make a call, and note how it ended."""
        try:
            result: object = await call()
        except anyio.get_cancelled_exc_class() as error:
            self.ends[name] = (error, anyio.current_time())
            raise
        except Exception as error:
            result = error
        self.ends[name] = (result, anyio.current_time())

    @asynccontextmanager
    async def under_way(self, *, after: float = 1, **calls: Callable[[], Awaitable[object]]) -> AsyncGenerator[float]:
        """Have these calls under way for a while before the block, which is told when it begins."""
        async with anyio.create_task_group() as group:
            for name, call in calls.items():
                group.start_soon(self.note, name, call)
            await anyio.sleep(after)
            yield anyio.current_time()

    async def shut_down(self, **terms: Any) -> ShutdownReport:
        """Shut the registry down."""
        self.report = await self.registry.shutdown(**terms)
        return self.report

    def end(self, name: str = "call") -> Any:
        """What a call ended with."""
        return self.ends[name][0]

    def time(self, name: str = "call") -> float:
        """When it ended."""
        return self.ends[name][1]


@pytest.fixture
def scene() -> Scene:
    """A provider on virtual time, and calls of it."""
    return Scene()
