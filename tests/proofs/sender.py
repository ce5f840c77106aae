"""A program that makes a few calls and sends what OpenTelemetry makes of them to the address that it is given."""

from __future__ import annotations

import sys

import anyio
from opentelemetry import trace

from resilience import (
    BreakerSettings,
    ProviderRegistry,
    ProviderSettings,
    ResilienceError,
    RetrySettings,
    Settings,
    failure_of,
)
from resilience.settings import MetricsSettings
from resilience.telemetry import configure

SETTINGS = Settings(
    defaults=ProviderSettings(retry=RetrySettings(base_delay=0.01), breaker=BreakerSettings(failure_threshold=5)),
    metrics=MetricsSettings(interval=0.5),
)


async def answer() -> str:
    """Answer, and make a span of one's own."""
    with trace.get_tracer("shop").start_as_current_span("work"):
        return "hello"


async def refuse() -> str:
    """Refuse the connection."""
    raise ConnectionRefusedError("nobody listens")


class Moody:
    """Fails once, then answers."""

    def __init__(self) -> None:
        self.asked = 0

    async def answer(self) -> str:
        self.asked += 1
        return await (refuse() if self.asked == 1 else answer())


async def main(address: str) -> None:
    """Succeed, recover, fail until the circuit opens, and be refused."""
    telemetry = configure("shop", otlp=address, prometheus=False, settings=SETTINGS)
    registry = ProviderRegistry(SETTINGS)
    s3, openai = registry.provider("s3"), registry.provider("openai")
    with trace.get_tracer("shop").start_as_current_span("order"):
        for _ in range(7):
            await s3.execute(answer)
        await s3.execute(Moody().answer)
    with trace.get_tracer("shop").start_as_current_span("outage"):
        for _ in range(4):
            try:
                await openai.execute(refuse)
            except (ResilienceError, ConnectionRefusedError) as error:
                print(type(error).__name__, failure_of(error))
    await anyio.sleep(0.7)  # one interval of the metrics
    telemetry.shutdown()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
