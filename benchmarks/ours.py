"""What is measured of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.floor import TASKS, in_tasks
from benchmarks.measure import Block, Case, Target, repeat
from benchmarks.targets import answer, answer_later, down, failing_once
from resilience import (
    BreakerSettings,
    BudgetSettings,
    BulkheadSettings,
    CircuitOpen,
    CircuitState,
    GateSettings,
    ProviderRegistry,
    ProviderSettings,
    RateLimitSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    TimeoutSettings,
)

BREAKER_AND_RETRY = "execute: breaker (in a row) + retry"
DEFAULT = "execute: default settings"
FRESH_HANDLE = "execute: fresh handle per call"
EVERYTHING = "execute: default + bulkhead + rate limit"
REJECTED_AS_VALUE = "rejected: try_execute"
REJECTED_AS_EXCEPTION = "rejected: execute raises"

# What the floor has, and nothing else.
AS_THE_FLOOR = ProviderSettings(
    breaker=BreakerSettings(failure_rate=None, slow_rate=None),
    timeout=TimeoutSettings(attempt=None, total=None),
    gate=GateSettings(enabled=False),
    budget=BudgetSettings(enabled=False),
)

# Half of the attempts fail, without end: nothing may open and no budget may run out, and the back-off is one turn
# of the loop, as the floor's.
FAILING = ProviderSettings(
    retry=RetrySettings(base_delay=0.0),
    breaker=BreakerSettings(failure_rate=None),
    budget=BudgetSettings(ratio=1.0),
)

# Open for longer than any benchmark runs.
OPEN = ProviderSettings(breaker=BreakerSettings(timeout=1e6, max_timeout=1e6))


# Limits that are kept and never reached: what is measured is the keeping.
BULKHEAD = BulkheadSettings(max_concurrent=100)
RATE_LIMIT = RateLimitSettings(requests_per_second=1e9)


def provider_with(settings: ProviderSettings | None = None) -> ResilientProvider:
    """Make a provider in a registry of its own."""
    chosen = Settings() if settings is None else Settings(defaults=settings)
    return ResilientProvider("bench", registry=ProviderRegistry(chosen))


def protected(settings: ProviderSettings | None, target: Target) -> Callable[[], Awaitable[Block]]:
    """A case of plain calls of *target* through `execute`; the handle is made once, as a service does."""

    async def prepare() -> Block:
        execute = provider_with(settings).execute
        if await execute(target, 7) != 7:
            raise AssertionError("execute loses the answer")

        async def block(calls: int) -> None:
            for _ in range(calls):
                await execute(target, 1)

        return block

    return prepare


async def _fresh_handle() -> Block:
    """Make calls as the first example of the README does: in the registry of the process."""

    async def block(calls: int) -> None:
        for _ in range(calls):
            await ResilientProvider("bench").execute(answer, 1)

    return block


async def _fresh_handle_elsewhere() -> Block:
    registry = ProviderRegistry(Settings())

    async def block(calls: int) -> None:
        for _ in range(calls):
            await ResilientProvider("bench", registry=registry).execute(answer, 1)

    return block


async def _as_value() -> Block:
    provider = provider_with()

    async def block(calls: int) -> None:
        for _ in range(calls):
            await provider.try_execute(answer, 1)

    return block


async def _wrapped() -> Block:
    return repeat(provider_with().wrap(answer))


async def _tasks() -> Block:
    provider = provider_with()

    async def call(number: int) -> int:
        return await provider.execute(answer_later, number)

    return in_tasks(call)


async def opened() -> ResilientProvider:
    """Make a provider whose circuit has opened after real failures."""
    provider = provider_with(OPEN)
    once = provider.with_options(retry=False)
    for _ in range(5):
        await once.try_execute(down, 1)
    if provider.breaker.state is not CircuitState.OPEN:
        raise AssertionError(f"five failures in a row left the circuit {provider.breaker.state}")
    return provider


async def _rejected_as_value() -> Block:
    provider = await opened()

    async def block(calls: int) -> None:
        for _ in range(calls):
            if not (await provider.try_execute(answer, 1)).rejected:
                raise AssertionError("an open circuit let a call through")

    return block


async def _rejected_as_exception() -> Block:
    provider = await opened()

    async def block(calls: int) -> None:
        for _ in range(calls):
            try:
                await provider.execute(answer, 1)
            except CircuitOpen:
                continue
            raise AssertionError("an open circuit let a call through")

    return block


def cases() -> list[Case]:
    """Everything that is measured of ours."""
    return [
        Case(BREAKER_AND_RETRY, "ours", protected(AS_THE_FLOOR, answer)),
        Case(DEFAULT, "ours", protected(None, answer)),
        Case(FRESH_HANDLE, "ours", _fresh_handle),
        Case("execute: fresh handle per call, registry=", "ours", _fresh_handle_elsewhere),
        Case("execute: default + bulkhead", "ours", protected(ProviderSettings(bulkhead=BULKHEAD), answer)),
        Case("execute: default + rate limit", "ours", protected(ProviderSettings(rate_limit=RATE_LIMIT), answer)),
        Case(EVERYTHING, "ours", protected(ProviderSettings(bulkhead=BULKHEAD, rate_limit=RATE_LIMIT), answer)),
        Case("try_execute: default settings", "ours", _as_value),
        Case("wrap: default settings", "ours", _wrapped),
        Case("execute: failing once", "ours", protected(FAILING, failing_once())),
        Case(REJECTED_AS_VALUE, "ours", _rejected_as_value),
        Case(REJECTED_AS_EXCEPTION, "ours", _rejected_as_exception),
        Case("1,000 tasks: default settings", "ours", _tasks, TASKS),
    ]
