"""
Say whether an installation works: ``python tests/packaging/smoke.py``.

Not a test but a script, so that it runs where nothing but the package is installed. It takes well under a second.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import sys
from importlib import metadata

import resilience

VERSIONS = ("resilient-providers", "anyio", "httpx", "pydantic", "opentelemetry-api")


async def answer(number: int) -> int:
    """Answer."""
    return number


async def refuse() -> None:
    """Fail as a provider that is down does."""
    raise ConnectionRefusedError("nobody listens")


async def check() -> None:
    """Make one call, then fail until the circuit opens, and see the next call refused."""
    registry = resilience.ProviderRegistry(resilience.Settings())
    provider = resilience.ResilientProvider("smoke", registry=registry)
    if await provider.execute(answer, 42) != 42:
        sys.exit("execute lost the answer")
    once = provider.with_options(retry=False)
    for _ in range(5):
        await once.try_execute(refuse)
    outcome = await provider.try_execute(answer, 42)
    if not outcome.rejected or provider.breaker.state is not resilience.CircuitState.OPEN:
        sys.exit(f"five failures in a row did not open the circuit: {outcome}")
    if await resilience.ResilientProvider("other", registry=registry).execute(answer, 42) != 42:
        sys.exit("the trouble of one provider touched another")


def main() -> None:
    """Check, and tell what was checked."""
    logging.disable(logging.CRITICAL)
    asyncio.run(check())
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    print(f"works: {platform.python_implementation()} {platform.python_version()}, {versions}")
    print(f"installed in {resilience.__path__[0]}")


if __name__ == "__main__":
    main()
